"""Whatever one attempt leaves behind, or is refused, is that attempt's failure: it is recorded with its error and the others survive."""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.client.test_gather import RecordingModel, scenarios

from journeyman.client.gather import gather
from journeyman.client.rollout import Rollout
from journeyman.errors import (
    InputError,
    JourneymanError,
    JudgeError,
    NotFoundError,
    ServiceError,
    SettingError,
    StoreError,
)
from journeyman.types.scenarios import Scenario
from journeyman.types.training import FinishRollout
from journeyman.types.trajectory import Group, ToolEvent, Trajectory


class Hostile:
    """A value of the user's own kind that fails wherever it is touched."""

    def __float__(self) -> float:
        raise ZeroDivisionError("no number")

    def __repr__(self) -> str:
        raise ValueError("no text")


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def event(**changes: Any) -> ToolEvent:
    good = {"turn": 0, "call_id": "c", "name": "add", "arguments": {}, "is_known": True, "is_valid": True, "is_error": False, "result": "3"}
    return ToolEvent.model_construct(**{**good, **changes})


def nested(depth: int) -> dict[str, Any]:
    return {} if not depth else {"a": nested(depth - 1)}


def circular() -> dict[str, Any]:
    found: dict[str, Any] = {}
    return found | {"a": found, "b": found.setdefault("self", found)}


def rewarded(value: Any) -> Callable[[Any], None]:
    return lambda run: setattr(run, "reward", value)


def measured(value: Any, name: Any = "n") -> Callable[[Any], None]:
    return lambda run: run.metrics.update({name: value})


def recorded(value: Any) -> Callable[[Any], None]:
    return lambda run: run.record_tool(value)


def raised(error: BaseException) -> Callable[[Any], None]:
    def leave(run: Rollout) -> None:
        raise error

    return leave


def cancelled_itself(run: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


BAD = {
    "a cancel of its own task": cancelled_itself,
    "a text as reward": rewarded("good"),
    "a NaN reward": rewarded(math.nan),
    "an infinite reward": rewarded(-math.inf),
    "a huge reward": rewarded(10**400),
    "a reward training refuses": rewarded(1e16),
    "a list as reward": rewarded([1.0]),
    "a complex reward": rewarded(1j),
    "an array as reward": rewarded(np.zeros(2)),
    "a tensor as reward": rewarded(torch.zeros(2, 2)),
    "a hostile reward": rewarded(Hostile()),
    "a text metric": measured("three"),
    "a dict metric": measured({"a": {"b": 1}}),
    "a huge metric": measured(10**400),
    "a bytes metric": measured(b"1"),
    "a metric without a name": measured(1.0, name=3),
    "a metric named by half a character": measured(1.0, name="\ud800"),
    "a hostile metric": measured(Hostile()),
    "a list in the place of metrics": lambda run: setattr(run, "metrics", [1.0]),
    "no metrics": lambda run: setattr(run, "metrics", None),
    "a text as tool event": recorded("add"),
    "a tool event of wrong types": recorded(event(turn="first", result=3)),
    "a tool event that holds itself": recorded(event(arguments=circular())),
    "a tool event with an object": recorded(event(arguments={"x": Hostile()})),
    "a tool event too deep": recorded(event(arguments=nested(150))),
    "a tool event without an end": recorded(event(seconds=math.inf)),
    "a tool event whose arguments are named by half a character": recorded(event(arguments={"a": {"\udc00": 1}})),
    "a tool event with half a character": recorded(event(result="\udc00")),
    "another id": lambda run: setattr(run, "id", 3),
    "another scenario": lambda run: setattr(run, "scenario", None),
    "an exception": raised(ValueError("x")),
    "an exception without words": raised(MuteError()),
    "a group of exceptions": raised(BaseExceptionGroup("two", [ExceptionGroup("inner", [KeyError("x")]), SystemExit(1)])),
    "an exit": raised(SystemExit(3)),
    "a stray cancel": raised(asyncio.CancelledError()),
    "a stray cancel in a group": raised(BaseExceptionGroup("one", [asyncio.CancelledError()])),
    "a message with half a character": raised(ValueError("\ud800")),
}


@pytest.mark.parametrize("leave", BAD.values(), ids=BAD)
async def test_what_one_attempt_leaves_is_its_failure_and_the_others_survive(leave: Callable[[Rollout], None]) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.metrics["before"] = 1.0
        run.record_tool(event(call_id="sound"))
        if scenario.id != "bad":
            run.reward = 0.5
            return
        leave(run)

    bad, good = await gather(rollout, scenarios("bad", "good"), model=RecordingModel(), group_size=2)
    assert good.rewards == (0.5, 0.5)
    assert [one.error for one in good] == [None, None]
    for one in bad:
        assert one.error is not None
        assert one.error.type
        assert one.reward is None
        assert one.tool_events[0].call_id == "sound"
        Trajectory.model_validate_json(one.model_dump_json())


@pytest.mark.parametrize(
    "value", [1, True, np.float32(1), np.int8(1), np.bool_(True), torch.tensor(1.0, requires_grad=True), torch.ones(1)]
)
async def test_numbers_of_other_kinds_are_numbers(value: Any) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.reward = run.metrics["n"] = value

    ((one,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1)
    assert (one.reward, one.metrics, one.error) == (1.0, {"n": 1.0}, None)


async def test_a_metric_that_is_not_finite_is_left_out_and_counted() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.metrics |= {"a": math.nan, "b": 2.0, "when": np.float64("inf")}

    ((one,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1)
    assert (one.metrics, one.error) == ({"b": 2.0, "num_metrics_not_finite": 2.0}, None)


async def test_of_an_attempt_that_failed_by_itself_the_first_cause_stays() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.metrics["when"] = datetime.date(2030, 1, 1)  # type: ignore[assignment]
        raise ValueError("first")

    ((one,),) = await gather(rollout, scenarios("a"), model=RecordingModel(), group_size=1)
    assert one.error is not None
    assert (one.error.type, one.error.message) == ("ValueError", "first")


class Refusing(RecordingModel):
    """Refuses to open, or to seal, the attempts at one scenario; to seal it so often."""

    def __init__(self, where: str, error: Exception, times: int = 99) -> None:
        super().__init__()
        self.where, self.error, self.times = where, error, times

    async def open_rollout(self, scenario: Scenario, *, max_turns: int = 64, key: str | None = None) -> Rollout:
        if self.where == "open" and scenario.id == "bad":
            raise self.error
        return await super().open_rollout(scenario, max_turns=max_turns, key=key)

    async def finish_rollout(self, rollout: Rollout, outcome: FinishRollout) -> Trajectory:
        if self.where == "finish" and rollout.scenario.id == "bad" and self.times > 0:
            self.times -= 1
            raise self.error
        return await super().finish_rollout(rollout, outcome)


async def fair(scenario: Scenario, run: Rollout) -> None:
    run.reward = 1.0


REFUSALS = [InputError("no"), SettingError("no"), NotFoundError("no"), ServiceError("no", status=413), ServiceError("no", status=410)]


@pytest.mark.parametrize("where", ["open", "finish"])
@pytest.mark.parametrize("error", [*REFUSALS, ValueError("the record"), OSError("odd")], ids=repr)
async def test_an_attempt_that_is_refused_is_a_failure_and_the_others_survive(where: str, error: Exception) -> None:
    bad, good = await gather(fair, scenarios("bad", "good"), model=Refusing(where, error), group_size=1)
    assert good.rewards == (1.0,)
    (one,) = bad
    assert one.error is not None
    assert (one.error.type, one.reward) == (type(error).__name__, None)


async def test_a_record_that_is_refused_is_sealed_with_the_refusal() -> None:
    model = Refusing("finish", ServiceError("too large", status=413), times=1)
    bad, _ = await gather(fair, scenarios("bad", "good"), model=model, group_size=1)
    (sealed,) = (outcome for name, outcome in model.outcomes.items() if name.startswith("bad"))
    assert sealed.error is not None
    assert sealed.error == bad.trajectories[0].error
    assert (sealed.error.type, sealed.reward) == ("ServiceError", None)


@pytest.mark.parametrize("where", ["open", "finish"])
@pytest.mark.parametrize("error", [StoreError("full"), ServiceError("gone"), *(ServiceError("x", status=one) for one in (401, 429, 503))])
async def test_a_server_that_is_gone_or_broken_is_an_error_of_all(where: str, error: JourneymanError) -> None:
    with pytest.raises(type(error)):
        await gather(fair, scenarios("bad", "good"), model=Refusing(where, error), group_size=1)


async def test_what_is_refused_in_every_attempt_is_nobodys_own() -> None:
    with pytest.raises(NotFoundError):
        await gather(fair, scenarios("bad", "bad"), model=Refusing("open", NotFoundError("no such model")), group_size=2)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("one", [ValueError(), KeyboardInterrupt()])], ids=repr)
def test_ctrl_c_inside_an_attempt_stops_all(error: BaseException) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        raise error

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(gather(rollout, scenarios("a", "b"), model=RecordingModel(), group_size=1))


def changed(group: Group, **values: Any) -> list[Group]:
    first, *others = group.trajectories
    return [group.model_copy(update={"trajectories": (first.model_copy(update=values), *others)})]


WRONG_GROUPS: dict[str, Callable[[Group], Any]] = {
    "nothing": lambda group: None,
    "no group": lambda group: [],
    "two groups": lambda group: [group, group],
    "numbers": lambda group: [0.5, 0.5],
    "a group": lambda group: group,
    "an attempt less": lambda group: [group.model_copy(update={"trajectories": group.trajectories[:1]})],
    "others' attempts": lambda group: changed(group, id="else"),
    "a list of texts": lambda group: [group.model_copy(update={"trajectories": ("a", "b")})],
}


@pytest.mark.parametrize("wrong", WRONG_GROUPS.values(), ids=WRONG_GROUPS)
async def test_a_score_that_returns_something_else_for_one_group_leaves_that_group_without_rewards(wrong: Callable[[Group], Any]) -> None:
    async def score(groups: Sequence[Group]) -> list[Group]:
        return wrong(groups[0]) if groups[0].scenario.id == "bad" else [*groups]  # type: ignore[no-any-return]

    bad, good = await gather(fair, scenarios("bad", "good"), model=RecordingModel(), group_size=2, score=score)
    assert good.rewards == (1.0, 1.0)
    assert bad.rewards == (None, None)
    assert all(one.verdict is not None and one.verdict.score is None and "bad" in one.verdict.explanation for one in bad)


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(1), asyncio.CancelledError(), ExceptionGroup("one", [ValueError()])], ids=repr)
async def test_a_score_that_raises_at_one_group_leaves_that_group_without_rewards(error: BaseException) -> None:
    async def score(groups: Sequence[Group]) -> list[Group]:
        if groups[0].scenario.id == "bad":
            raise error
        return [*groups]

    bad, good = await gather(fair, scenarios("bad", "good"), model=RecordingModel(), group_size=2, score=score)
    assert (bad.rewards, good.rewards) == ((None, None), (1.0, 1.0))
    with pytest.raises(JudgeError) as caught:
        await gather(fair, scenarios("bad", "bad"), model=RecordingModel(), group_size=2, score=score)
    assert caught.value.reason == "reward_failed"


@pytest.mark.parametrize("value", ["high", math.nan, math.inf, [1.0], Hostile(), 10**400])
async def test_a_score_that_gives_one_attempt_no_number_leaves_that_attempt_without_reward(value: Any) -> None:
    async def score(groups: Sequence[Group]) -> list[Group]:
        return changed(groups[0], reward=value) if groups[0].scenario.id == "bad" else [*groups]

    bad, good = await gather(fair, scenarios("bad", "good"), model=RecordingModel(), group_size=2, score=score)
    assert (bad.rewards, good.rewards) == ((None, 1.0), (1.0, 1.0))


async def test_a_score_that_cancels_its_own_task_is_that_groups_failure() -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        run.reward = 1.0

    async def score(groups: Sequence[Group]) -> list[Group]:
        if groups[0].scenario.id == "a":
            cancelled_itself(None)
            await asyncio.sleep(0)
        return list(groups)

    first, second = await gather(rollout, scenarios("a", "b"), model=RecordingModel(), group_size=2, score=score)
    assert (first.rewards, second.rewards) == ((None, None), (1.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        *[({"group_size": 1.5}, "invalid_number"), ({"group_size": "2"}, "invalid_number"), ({"max_turns": 10**30}, "invalid_number")],
        *[({"max_concurrent": None}, "invalid_number"), ({"timeout_seconds": math.nan}, "invalid_number")],
        *[({"key": "k" * 500}, "key_too_long"), ({"key": "\ud800"}, "half_surrogate")],
    ],
)
async def test_settings_that_every_attempt_would_fail_by_are_refused_at_once(settings: dict[str, Any], reason: str) -> None:
    async def rollout(scenario: Scenario, run: Rollout) -> None:
        raise AssertionError

    with pytest.raises(InputError) as caught:
        await gather(rollout, scenarios("a"), model=RecordingModel(), **settings)
    assert caught.value.reason == reason
