"""Attempts are bounded, ordered, and never lost: failures are data, cancels go through, a lost server is an error."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.client.attempts import derived_seed
from journeyman.client.gather import gather
from journeyman.client.models import Model
from journeyman.client.rollout import Rollout, uncounted
from journeyman.errors import JudgeError, ServiceError, SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.types.scenarios import Scenario
from journeyman.types.training import FinishRollout, KeptAttempt
from journeyman.types.trajectory import Group, ToolEvent, Trajectory


class RecordingModel(Model):
    """A model without a server: it remembers what was opened and how it ended."""

    def __init__(self) -> None:
        super().__init__("m")
        self.opened: list[str] = []
        self.outcomes: dict[str, FinishRollout] = {}
        self.most_open = 0
        self.fail_open: Exception | None = None
        self.fail_finish: Exception | None = None

    async def open_rollout(self, scenario: Scenario, *, max_turns: int = 64, key: str | None = None) -> Rollout:
        if self.fail_open is not None:
            raise self.fail_open
        rollout_id = f"{scenario.id}-{len(self.opened)}"
        self.opened.append(rollout_id)
        self.most_open = max(self.most_open, len(self.opened) - len(self.outcomes))

        def no_client() -> Any:
            raise AssertionError("no model call is made here")

        return Rollout(
            rollout_id=rollout_id,
            scenario=scenario,
            model="agent",
            base_url="http://x/r/1.t/v1",
            api_key="t",
            make_client=no_client,
        )

    async def finish_rollout(self, rollout: Rollout, outcome: FinishRollout) -> Trajectory:
        if self.fail_finish is not None:
            raise self.fail_finish
        self.outcomes[rollout.id] = outcome
        return Trajectory(
            id=rollout.id,
            scenario_id=rollout.scenario.id,
            model="m@0",
            reward=outcome.reward,
            metrics=outcome.metrics,
            error=outcome.error,
            tool_events=outcome.tool_events,
            seconds=outcome.seconds,
        )


def scenarios(*names: str) -> list[Scenario]:
    return [Scenario(id=name, task=name) for name in names]


async def test_groups_come_in_the_order_of_the_scenarios_with_what_the_agent_left() -> None:
    event = ToolEvent(turn=0, call_id="c", name="add", arguments={}, is_known=True, is_valid=True, is_error=False, result="3")

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.reward = 1.0 if scenario.id == "a" else 0.0
        run.metrics["calls"] = 2.0
        run.record_tool(event)

    groups = await gather(rollout, scenarios("a", "b", "c"), model=RecordingModel(), group_size=2)
    assert [group.scenario.id for group in groups] == ["a", "b", "c"]
    assert [group.rewards for group in groups] == [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
    (first, _) = groups[0]
    assert (first.metrics, first.tool_events, first.error) == ({"calls": 2.0}, (event,), None)


async def test_no_more_attempts_run_than_allowed() -> None:
    running = most = 0
    may_go = asyncio.Event()

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            may_go.set()
        await may_go.wait()
        running -= 1

    model = RecordingModel()
    await gather(rollout, scenarios("a", "b", "c", "d"), model=model, group_size=3, max_concurrent=3)
    assert most == 3
    assert model.most_open == 3
    assert len(model.outcomes) == 12


async def test_an_attempt_that_raises_is_a_trajectory_with_the_error() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.metrics["so_far"] = 1.0
        if scenario.id == "a":
            raise ValueError("no such city")
        raise ExceptionGroup("several", [KeyError("x")])

    groups = await gather(rollout, scenarios("a", "b"), model=RecordingModel(), group_size=1)
    (first,), (second,) = groups
    assert first.error is not None
    assert (first.error.type, first.error.message, first.reward) == ("ValueError", "no such city", None)
    assert first.metrics == {"so_far": 1.0}
    assert second.error is not None
    assert second.error.type == "KeyError"


async def test_an_attempt_that_never_ends_is_stopped_in_time() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        await asyncio.Event().wait()

    ((trajectory,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=0.01)
    assert trajectory.error is not None
    assert (trajectory.error.type, "0.01 s" in trajectory.error.message) == ("WaitTimeoutError", True)


async def test_a_timeout_of_the_agents_own_keeps_its_name() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        raise TimeoutError("too slow")

    ((trajectory,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1)
    assert trajectory.error is not None
    assert (trajectory.error.type, trajectory.error.message) == ("TimeoutError", "too slow")


async def test_an_agent_that_swallows_the_timeout_has_still_run_out_of_time() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    ((trajectory,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=0.01)
    assert trajectory.error is not None
    assert trajectory.error.type == "WaitTimeoutError"


async def test_a_stray_cancel_inside_the_agent_is_a_failure_of_that_attempt_only() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        if scenario.id == "a":
            raise asyncio.CancelledError

    groups = await gather(rollout, scenarios("a", "b"), model=RecordingModel(), group_size=1)
    errors = [trajectory.error for (trajectory,) in groups]
    assert errors[0] is not None
    assert errors[0].type == "CancelledError"
    assert errors[1] is None


async def test_a_cancel_goes_through_and_seals_what_was_open() -> None:
    started = asyncio.Event()

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        if scenario.id == "b":
            started.set()
            await asyncio.Event().wait()

    model = RecordingModel()
    task = asyncio.create_task(gather(rollout, scenarios("a", "b"), model=model, group_size=1))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    errors = {rollout_id: outcome.error for rollout_id, outcome in model.outcomes.items()}
    assert errors["a-0"] is None
    assert errors["b-1"] is not None
    assert errors["b-1"].type == "CancelledError"


@pytest.mark.parametrize("where", ["fail_open", "fail_finish"])
async def test_a_lost_server_is_an_error_not_data(where: str) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        return

    model = RecordingModel()
    setattr(model, where, ServiceError("no Journeyman server at http://x"))
    with pytest.raises(ServiceError, match="no Journeyman server"):
        await gather(rollout, scenarios("a", "b"), model=model, group_size=4)


async def test_progress_hears_of_every_finished_attempt() -> None:
    class Counting(SilentProgress):
        count = 0

        def advance(self, amount: int = 1, **values: float) -> None:
            self.count += amount

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        if scenario.id == "a":
            raise ValueError

    progress = Counting()
    await gather(rollout, scenarios("a", "b"), model=RecordingModel(), group_size=2, progress=progress)
    assert progress.count == 4


@pytest.mark.parametrize("bad", [{"group_size": 0}, {"max_concurrent": 0}, {"timeout_seconds": 0}, {"max_turns": 0}])
async def test_unusable_numbers_are_refused_by_name(bad: dict[str, int]) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        return

    with pytest.raises(SettingError, match=next(iter(bad))):
        await gather(rollout, scenarios("a"), model=RecordingModel(), **bad)  # type: ignore[arg-type]


async def test_no_scenarios_give_no_groups() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        raise AssertionError

    assert await gather(rollout, [], model=RecordingModel()) == []


async def test_a_group_is_scored_while_others_still_run() -> None:
    scored: list[str] = []
    gate = asyncio.Event()

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        if scenario.id == "slow":
            await asyncio.wait_for(gate.wait(), 10)  # ends only when the quick one has been scored

    async def score(groups: Sequence[Group]) -> list[Group]:
        (group,) = groups
        scored.append(group.scenario.id)
        gate.set()
        return [group.model_copy(update={"scenario": group.scenario.model_copy(update={"task": "scored"})})]

    scenarios = [Scenario(id="slow", task="t"), Scenario(id="quick", task="t")]
    groups = await gather(rollout, scenarios, model=RecordingModel(), group_size=2, score=score)
    assert scored == ["quick", "slow"]
    assert [(group.scenario.id, group.scenario.task, len(group)) for group in groups] == [("slow", "scored", 2), ("quick", "scored", 2)]


async def test_an_error_of_the_judge_is_raised_and_ends_the_attempts() -> None:
    model = RecordingModel()

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        if scenario.id == "endless":
            await asyncio.Event().wait()

    async def score(groups: Sequence[Group]) -> list[Group]:
        raise JudgeError("broken")

    scenarios = [Scenario(id="endless", task="t"), Scenario(id="quick", task="t")]
    with pytest.raises(JudgeError, match="broken"):
        await asyncio.wait_for(gather(rollout, scenarios, model=model, group_size=1, score=score), 10)
    assert len(model.outcomes) == 2


async def test_every_attempt_has_a_seed_of_its_own_and_the_same_one_again() -> None:
    async def seeds(seed: int | None, key: str | None = None) -> list[int | None]:
        found: list[int | None] = []

        async def rollout(scenario: Scenario, run: Rollout) -> None:
            found.append(run.seed)

        await gather(rollout, [Scenario(id=name, task="t") for name in "ab"], model=RecordingModel(), group_size=3, seed=seed, key=key)
        return found

    first = await seeds(7)
    assert len({*first}) == 6
    assert await seeds(7) == first
    assert not {*first} & {*await seeds(8)}
    assert await seeds(None) == [None] * 6


class TestTime:
    """Waiting that says nothing about the model is not the attempt's time."""

    async def test_what_is_uncounted_may_take_longer_than_the_attempt(self) -> None:
        free = asyncio.Semaphore(1)

        async def rollout(scenario: Scenario, run: Rollout) -> None:
            with uncounted():
                await free.acquire()
            await asyncio.sleep(0.3)
            free.release()

        groups = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=8, timeout_seconds=1.5)
        assert [one.error for one in groups[0]] == [None] * 8
        assert all(one.seconds < 1.5 for one in groups[0])

    async def test_the_limit_goes_on_after_it(self) -> None:
        async def rollout(scenario: Scenario, run: Rollout) -> None:
            with uncounted():
                await asyncio.sleep(0.1)
            await asyncio.sleep(60)

        (group,) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=0.2)
        assert group.trajectories[0].error is not None
        assert group.trajectories[0].error.type == "WaitTimeoutError"

    async def test_waits_of_several_tasks_count_once_and_end_with_the_last(self) -> None:
        async def rollout(scenario: Scenario, run: Rollout) -> None:
            async def wait(seconds: float) -> None:
                with uncounted():
                    await asyncio.sleep(seconds)

            await asyncio.gather(wait(0.1), wait(0.5))

        (group,) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=0.3)
        assert group.trajectories[0].error is None
        assert group.trajectories[0].seconds < 0.3

    async def test_an_attempt_that_is_cancelled_while_it_waits_is_cancelled(self) -> None:
        async def rollout(scenario: Scenario, run: Rollout) -> None:
            with uncounted():
                waits.set()
                await asyncio.Event().wait()

        waits = asyncio.Event()
        work = asyncio.create_task(gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=5.0))
        await waits.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    async def test_a_wait_in_another_thread_or_event_loop_leaves_the_limit_alone(self) -> None:
        async def wait() -> None:
            with uncounted():
                pass

        def in_a_thread() -> None:
            with uncounted():
                asyncio.run(wait())

        async def rollout(scenario: Scenario, run: Rollout) -> None:
            await asyncio.to_thread(in_a_thread)
            await asyncio.Event().wait()

        ((attempt,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=0.2)
        assert attempt.error is not None
        assert attempt.error.type == "WaitTimeoutError"

    async def test_a_wait_that_goes_on_after_the_attempt_changes_nothing(self) -> None:
        left: list[asyncio.Task[None]] = []

        async def rollout(scenario: Scenario, run: Rollout) -> None:
            async def wait() -> None:
                with uncounted():
                    started.set()
                    await asyncio.sleep(0.05)

            started = asyncio.Event()
            left.append(asyncio.create_task(wait()))
            await started.wait()

        (group,) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1, timeout_seconds=5.0)
        assert group.trajectories[0].error is None
        await asyncio.gather(*left)


@given(st.lists(st.text(alphabet="ab/\\0", max_size=4), max_size=3), st.lists(st.text(alphabet="ab/\\0", max_size=4), max_size=3))
def test_seeds_of_different_parts_differ(left: list[str], right: list[str]) -> None:
    assert (derived_seed(*left) == derived_seed(*right)) == (left == right)


def test_seeds_of_parts_without_a_separator_stay_what_they_were() -> None:
    plain = int.from_bytes(hashlib.sha256(b"7/train-0/1/2").digest()[:4]) >> 1
    assert derived_seed(7, "train-0", 1, 2) == plain


async def test_the_seeds_of_attempts_stay_what_they_were() -> None:
    found: list[int | None] = []

    async def rollout(scenario: Scenario, run: Rollout) -> None:
        found.append(run.seed)

    await gather(rollout, scenarios("a"), model=KeyedModel(), group_size=2, seed=7, key="train-0/ab")
    assert found == [int.from_bytes(hashlib.sha256(f"7/train-0/ab/0/{number}".encode()).digest()[:4]) >> 1 for number in range(2)]


class KeyedModel(RecordingModel):
    async def kept_attempts(self, key: str) -> tuple[KeptAttempt, ...]:
        return ()
