"""Which call a request tries again: a retry gets the reply of its own call, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.service.fakes import turn

from journeyman.errors import EngineError, ServiceError
from journeyman.service.capture import Recorder
from journeyman.service.sessions import Attempt, Call, Calls, Session
from journeyman.store import Store
from journeyman.types.training import CreateRollout
from journeyman.types.trajectory import Turn

Produce = Callable[[], Awaitable[Sequence[Turn]]]


class World:
    """A rollout whose draws are numbered; while `gate` is closed they wait."""

    def __init__(self, recorder: Recorder, session: Session) -> None:
        self.recorder, self.session = recorder, session
        self.num_draws = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, retry_count: int | None = None, *, key: str | None = None, body: str = "same", n: int = 1) -> list[str]:
        async def draw() -> Sequence[Turn]:
            self.num_draws += 1
            number = self.num_draws
            await self.gate.wait()
            return [turn(f"{number}.{reply}" if n > 1 else str(number)) for reply in range(n)]

        return await self.ask_with(draw, retry_count, key=key, body=body, n=n)

    async def ask_with(
        self, draw: Produce, retry_count: int | None, *, key: str | None = None, body: str = "same", n: int = 1
    ) -> list[str]:
        turns = await self.recorder.record(self.session, body, retry_count=retry_count, produce=draw, key=key, num_replies=n)
        return [turn.reply.content or "" for turn in turns]

    async def begin(self, retry_count: int | None = None, **given: str) -> asyncio.Task[list[str]]:
        """A call that is being drawn."""
        before = self.num_draws
        task = asyncio.create_task(self.ask(retry_count, **given))  # type: ignore[arg-type]
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.num_draws == before + 1
        return task

    async def hang_up(self, task: asyncio.Task[list[str]]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


async def rollout(store: Store, max_turns: int = 64) -> World:
    recorder = Recorder(store)
    ticket = await recorder.open(CreateRollout(model="base", scenario_id="s", max_turns=max_turns))
    return World(recorder, await recorder.session(ticket.id, ticket.token))


class TestEqualCalls:
    @pytest.mark.parametrize("retry_count", [0, None])
    async def test_at_the_same_time_are_draws_of_their_own(self, store: Store, retry_count: int | None) -> None:
        world = await rollout(store)
        assert await asyncio.gather(*(world.ask(retry_count) for _ in range(3))) == [["1"], ["2"], ["3"]]
        assert len(world.session.turns) == 3

    async def test_a_retry_of_the_second_gets_the_second_reply_alone(self, store: Store) -> None:
        world = await rollout(store)
        assert [await world.ask(0), await world.ask(0), await world.ask(1)] == [["1"], ["2"], ["2"]]

    async def test_each_retry_in_turn_gets_its_own_reply(self, store: Store) -> None:
        world = await rollout(store)
        for number in ("1", "2", "3"):
            assert await world.ask(0) == [number]
            assert await world.ask(1) == [number]
            assert await world.ask(2) == [number]
        assert world.num_draws == 3

    async def test_retries_of_several_get_a_reply_each(self, store: Store) -> None:
        world = await rollout(store)
        await asyncio.gather(*(world.ask(0) for _ in range(3)))
        retried = [await world.ask(1) for _ in range(3)]
        assert sorted(retried) == [["1"], ["2"], ["3"]]
        assert await world.ask(2) in retried
        assert world.num_draws == 3

    @pytest.mark.parametrize("retried", [0, 1, 2])
    async def test_a_key_names_the_call_whichever_came_last(self, store: Store, retried: int) -> None:
        world = await rollout(store)
        first = [await world.ask(0, key=f"key {number}") for number in range(3)]
        assert await world.ask(1, key=f"key {retried}") == first[retried]
        assert await world.ask(None, key=f"key {retried}") == first[retried]
        assert world.num_draws == 3

    async def test_several_replies_of_one_call_are_repeated_together(self, store: Store) -> None:
        world = await rollout(store)
        assert await world.ask(0, n=2) == ["1.0", "1.1"]
        assert await world.ask(0, n=2) == ["2.0", "2.1"]
        assert await world.ask(1, n=2) == ["2.0", "2.1"]
        assert len({turn.call for turn in world.session.turns}) == 2


class TestARetry:
    async def test_joins_the_call_whose_client_hung_up_and_not_one_that_is_waited_for(self, store: Store) -> None:
        world = await rollout(store)
        world.gate.clear()
        lost, waited_for = await world.begin(0), await world.begin(0)
        await world.hang_up(lost)
        again = await world.begin(1)
        world.gate.set()
        assert [await waited_for, await again] == [["2"], ["3"]]
        assert len(world.session.turns) == 2

    async def test_gets_what_was_stored_although_the_client_was_gone(self, store: Store) -> None:
        """The client hangs up while its turn is being stored."""
        world = await rollout(store)
        await world.session.lock.acquire()
        lost = await world.begin(0)
        for _ in range(10):
            await asyncio.sleep(0)
        lost.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        again = asyncio.create_task(world.ask(1))
        world.session.lock.release()
        await asyncio.gather(lost, return_exceptions=True)
        assert await again == ["1"]
        assert world.num_draws == 1

    async def test_of_a_call_that_failed_is_served_anew_and_leaves_its_neighbour_alone(self, store: Store) -> None:
        async def fail() -> Sequence[Turn]:
            raise EngineError("out of memory")

        world = await rollout(store)
        with pytest.raises(EngineError):
            await world.ask_with(fail, 0)
        assert await world.ask(0) == ["1"]
        assert await world.ask(1) == ["2"]

    async def test_of_a_key_whose_call_failed_is_served_anew(self, store: Store) -> None:
        async def fail() -> Sequence[Turn]:
            raise EngineError("out of memory")

        world = await rollout(store)
        with pytest.raises(EngineError):
            await world.ask_with(fail, 0, key="k")
        assert await world.ask(1, key="k") == ["1"]

    async def test_whose_first_try_never_came_is_a_call_of_its_own(self, store: Store) -> None:
        world = await rollout(store)
        assert await asyncio.gather(world.ask(1), world.ask(1)) == [["1"], ["2"]]

    async def test_that_is_itself_repeated_gets_the_same_reply(self, store: Store) -> None:
        world = await rollout(store)
        assert [await world.ask(0), await world.ask(1), await world.ask(1)] == [["1"]] * 3

    async def test_with_another_body_is_no_retry(self, store: Store) -> None:
        world = await rollout(store)
        assert [await world.ask(0), await world.ask(1, body="other")] == [["1"], ["2"]]

    async def test_of_a_key_with_another_body_is_refused(self, store: Store) -> None:
        world = await rollout(store)
        await world.ask(0, key="k")
        with pytest.raises(ServiceError) as caught:
            await world.ask(0, key="k", body="other")
        assert (caught.value.status, caught.value.code, caught.value.reason) == (400, "idempotency_key_reused", "idempotency_key_reused")
        assert world.num_draws == 1

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_finds_its_call_after_a_restart(self, store: Store, key: str | None) -> None:
        recorder = Recorder(store)
        ticket = await recorder.open(CreateRollout(model="base", scenario_id="s"))
        world = World(recorder, await recorder.session(ticket.id, ticket.token))
        await world.ask(0, key="earlier" if key else None, n=2)
        await world.ask(0, key=key, n=2)
        after = World(Recorder(store), await Recorder(store).session(ticket.id, ticket.token))
        assert await after.ask(1, key=key, n=2) == ["2.0", "2.1"]
        assert after.num_draws == 0


class TestTheCapOfCalls:
    async def test_counts_each_reply_that_is_asked_for(self, store: Store) -> None:
        world = await rollout(store, max_turns=3)
        await world.ask(0, n=2)
        with pytest.raises(ServiceError) as caught:
            await world.ask(0, n=2)
        assert (caught.value.status, caught.value.code) == (410, "turn_limit_reached")
        assert await world.ask(0) == ["2"]
        assert len(world.session.turns) == 3

    async def test_counts_what_is_being_drawn(self, store: Store) -> None:
        world = await rollout(store, max_turns=2)
        asked = await asyncio.gather(*(world.ask() for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(one, ServiceError) and one.code == "turn_limit_reached" for one in asked) == 2
        assert len(world.session.turns) == 2

    async def test_does_not_count_retries_nor_calls_that_were_given_up(self, store: Store) -> None:
        world = await rollout(store, max_turns=2)
        world.gate.clear()
        await world.hang_up(await world.begin(0, body="given up"))
        world.gate.set()
        assert [await world.ask(0), await world.ask(1), await world.ask(2), await world.ask(0)] == [["2"], ["2"], ["2"], ["3"]]

    async def test_holds_for_a_retry_that_has_to_be_served_anew(self, store: Store) -> None:
        world = await rollout(store, max_turns=1)
        world.gate.clear()
        await world.hang_up(await world.begin(0))
        world.gate.set()
        await world.ask(0, body="other")
        with pytest.raises(ServiceError) as caught:
            await world.ask(1)
        assert caught.value.status == 410


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_clients_that_hang_up_and_count_their_tries_never_share_a_reply(num_retries: list[int], data: st.DataObject) -> None:
    """Equal calls of several clients at once, all their tries but the last lost: whatever the order, each ends with a call of its own."""
    calls = Calls()
    pending = [(client, 0) for client in range(len(num_retries))]
    answered: list[Call] = []
    while pending:
        client, retry_count = pending.pop(data.draw(st.integers(0, len(pending) - 1)))
        attempt = Attempt("same", retry_count)
        call = calls.tried_before(attempt) or calls.add(attempt)
        call.tries, call.turns, call.is_lost = retry_count, (turn("x"),), retry_count < num_retries[client]
        if call.is_lost:
            pending.append((client, retry_count + 1))
        else:
            answered.append(call)
    assert len(set(map(id, answered))) == len(num_retries) == calls.num_replies


def test_turns_of_an_earlier_version_are_a_call_each() -> None:
    calls = Calls.answered([turn("1", 0, "same"), turn("2", 1, "same")])
    found = calls.tried_before(Attempt("same", 1))
    assert found is not None
    assert [one.reply.content for one in found.turns] == ["2"]
    assert calls.num_replies == 2
