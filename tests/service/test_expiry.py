"""A rollout that nobody finishes ends by itself: recorded with an error, its version free to go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.service.fakes import turn

from journeyman.errors import ServiceError, SettingError
from journeyman.service.capture import EXPIRY_SECONDS, Recorder
from journeyman.store import Store
from journeyman.store.models import AdapterRow
from journeyman.types.training import CreateRollout, FinishRollout, RolloutTicket
from journeyman.types.trajectory import Turn

VERSION = AdapterRow("r", "m", 1, Path("m@1"), "fingerprint")


class World:
    """A recorder whose clock stands still until it is moved."""

    def __init__(self, store: Store) -> None:
        self.now = 1000.0
        self.recorder = Recorder(store, clock=lambda: self.now)

    async def open(self) -> RolloutTicket:
        return await self.recorder.open(CreateRollout(model="m", scenario_id="s"), VERSION)

    async def call(self, ticket: RolloutTicket, produce: Callable[[], Awaitable[Sequence[Turn]]]) -> None:
        session = await self.recorder.session(ticket.id, ticket.token)
        await self.recorder.record(session, "hash", retry_count=0, produce=produce)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store.open(tmp_path) as store:
        yield World(store)


async def one_turn() -> Sequence[Turn]:
    return [turn()]


async def test_a_rollout_without_a_call_for_two_hours_is_sealed_with_an_error(world: World) -> None:
    ticket = await world.open()
    await world.call(ticket, one_turn)
    world.now += EXPIRY_SECONDS - 1
    assert await world.recorder.expire() == ()
    assert world.recorder.pinned() == {"m@1"}
    world.now += 1
    assert world.recorder.pinned() == frozenset(), "also before anybody looks"
    assert await world.recorder.expire() == (ticket.id,)
    assert await world.recorder.expire() == ()
    trajectory = await world.recorder.trajectory(ticket.id)
    assert trajectory.error is not None
    assert (trajectory.error.type, len(trajectory.turns), trajectory.reward) == ("RolloutExpired", 1, None)
    assert "7200 s" in trajectory.error.message


async def test_each_call_gives_a_rollout_new_time(world: World) -> None:
    ticket = await world.open()
    for _ in range(3):
        world.now += EXPIRY_SECONDS - 1
        await world.call(ticket, one_turn)
    assert await world.recorder.expire() == ()


async def test_a_rollout_does_not_expire_while_it_is_served(world: World) -> None:
    ticket = await world.open()
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> Sequence[Turn]:
        entered.set()
        await gate.wait()
        return await one_turn()

    call = asyncio.create_task(world.call(ticket, slow))
    await entered.wait()
    world.now += 2 * EXPIRY_SECONDS
    assert await world.recorder.expire() == ()
    assert world.recorder.pinned() == {"m@1"}
    gate.set()
    await call
    assert await world.recorder.expire() == (), "its time begins again when the call ends"


async def test_a_call_that_comes_too_late_gets_410_and_finishing_returns_what_was_recorded(world: World) -> None:
    ticket = await world.open()
    world.now += EXPIRY_SECONDS
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            await world.call(ticket, one_turn)
        assert (caught.value.status, caught.value.code) == (410, "rollout_sealed")
    trajectory = await world.recorder.finish(ticket.id, FinishRollout(reward=1.0))
    assert trajectory.reward is None
    assert trajectory.error is not None


async def test_the_server_looks_by_itself(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        recorder = Recorder(store, expiry_seconds=0.001)
        ticket = await recorder.open(CreateRollout(model="m", scenario_id="s"), VERSION)
        looking = asyncio.create_task(recorder.keep_expiring())
        async with asyncio.timeout(20):
            while (await recorder.trajectory(ticket.id)).error is None:
                pass  # reading the store lets the other task run
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        expired = (await recorder.trajectory(ticket.id)).error
        assert expired is not None
        assert expired.type == "RolloutExpired"


def test_no_time_at_all_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(SettingError, match="expire"):
        Recorder(store, expiry_seconds=0.0)


async def test_rollouts_of_a_server_that_was_killed_expire_when_one_starts_again(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        killed = Recorder(store)
        idle = await killed.open(CreateRollout(model="base", scenario_id="idle"))
        used = await killed.open(CreateRollout(model="base", scenario_id="used"))
        ended = await killed.open(CreateRollout(model="base", scenario_id="ended"))
        await killed.finish(ended.id, FinishRollout(reward=1.0))
        now = time.time() + 7100.0
        await killed.record(await killed.session(used.id, used.token), "h", retry_count=0, produce=lambda: turn_at(now))
        again = Recorder(store, wall_clock=lambda: now)
        assert await again.expire() == ()
        now += 200.0
        own = await again.open(CreateRollout(model="base", scenario_id="own"))
        assert await again.expire() == (idle.id,)
        error = store.rollouts.trajectory(idle.id).error
        assert error is not None
        assert error.type == "RolloutExpired"
        assert {row.id for row in store.rollouts.list_idle(since=1e12)} == {used.id, own.id}
        assert store.rollouts.trajectory(ended.id).reward == 1.0
        now += 7200.0
        assert used.id in await again.expire()


async def turn_at(started_at: float) -> list[Turn]:
    return [turn().model_copy(update={"started_at": started_at})]
