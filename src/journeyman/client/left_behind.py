"""What an attempt left behind as a record: its failure, its reward, metrics and tool events. Whatever of it cannot be kept is that
attempt's failure, never an error of those beside it. Not for making attempts: see `gather.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from journeyman.client.rollout import Rollout
from journeyman.errors import InputError, JourneymanError, ServiceError
from journeyman.types.json_text import check_json
from journeyman.types.metrics import MAX_REWARD, as_number
from journeyman.types.training import FinishRollout
from journeyman.types.trajectory import MAX_MESSAGE, Failure, ToolEvent

_T = TypeVar("_T")

#: 4xx that say nothing of the one request: a wrong key, a server that is busy.
_OF_THE_SERVER = frozenset({401, 403, 408, 429})


def outcome_of(run: Rollout, failure: Failure | None, seconds: float) -> FinishRollout:
    """What an attempt left, sound part by sound part. What is not sound is left out and told in `error`, unless the attempt failed before.

    A number is what is one (of numpy and torch too); metrics that are not finite are left out and counted, a reward that is not is a
    failure.
    """
    faults: list[str] = []
    reward = None if run.reward is None else _kept(faults, "run.reward", partial(reward_number, run.reward))
    metrics: dict[str, float] = {}
    for name, value in (_kept(faults, "run.metrics", partial(_items, run.metrics)) or {}).items():
        place = f"run.metrics[{name!r:.80}]" if isinstance(name, str) else "a name in run.metrics"
        metrics |= _kept(faults, place, partial(_metric, name, value)) or {}
    events = [_kept(faults, f"tool event {number}", partial(_event, one)) for number, one in enumerate(run.tool_events)]
    if faults and failure is None:
        failure = Failure(type="InputError", message="; ".join(faults)[:MAX_MESSAGE])
    sound = tuple(event for event in events if event is not None)
    return FinishRollout(reward=reward, metrics=metrics, error=failure, tool_events=sound, seconds=seconds)


def reward_number(value: object) -> float:
    """A reward as a float. Raises TypeError, ValueError for what is none: a text, NaN, a number beyond `MAX_REWARD`."""
    number = as_number(value)
    if not abs(number) <= MAX_REWARD:
        raise ValueError(f"{number:g} is no reward; give a finite number of at most {MAX_REWARD:g}")
    return number


def is_of_one_attempt(error: Exception) -> bool:
    """Whether an error met while an attempt is opened or sealed is a refusal of that attempt; otherwise the server is gone or broken."""
    if isinstance(error, ServiceError):
        return error.status is not None and 400 <= error.status < 500 and error.status not in _OF_THE_SERVER
    return isinstance(error, InputError) or not isinstance(error, JourneymanError)


def _kept(faults: list[str], name: str, read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - reading values of the user's own kinds runs the user's code
        faults.append(f"{name} cannot be kept: {Failure.of(error).message}")
        return None


def _items(metrics: object) -> dict[object, object]:
    if not isinstance(metrics, Mapping):
        raise TypeError(f"it is a {type(metrics).__name__}, not a dict of numbers by name")
    return dict(metrics)


def _metric(name: object, value: object) -> dict[str, float]:
    if not isinstance(name, str):
        raise TypeError(f"its name is a {type(name).__name__}, not a text")
    check_json(name)
    return {name: float("nan") if value is None else as_number(value)}


def _event(event: object) -> ToolEvent:
    """The event as it will be read again: a NaN in it is null."""
    if not isinstance(event, ToolEvent):
        raise TypeError(f"it is a {type(event).__name__}, not a ToolEvent")
    check_json(event.arguments)  # before it is written: half characters in names would be replaced there
    data = event.model_dump(mode="json", warnings="none")
    check_json(data)
    return ToolEvent.model_validate(data)
