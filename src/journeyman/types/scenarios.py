"""Scenarios: tasks to attempt, and the witness that shows a task can be done."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from journeyman.types.record import Record

Split = Literal["train", "heldout"]


class WitnessCall(Record):
    """A tool call that was really executed while the scenario was built, and what it returned (text form)."""

    tool: str
    arguments: dict[str, Any]
    result: str


class ExpectedAnswer(Record):
    """Where the answer of a task stands in a call's result.

    Attributes:
        call: index into `Witness.calls`.
        path: keys and indexes into the result parsed as JSON; empty = the whole result text.
        value: what stood there when the scenario was built. When the rollout makes the same call itself, the value found in *its*
            result counts (results such as the current time change), `value` otherwise.
        seen: the texts that stood at this place in other calls while scenarios were built: an answer that names another of them too
            states nothing.
    """

    call: int = 0
    path: tuple[str | int, ...] = ()
    value: str | float | int | bool
    seen: tuple[str, ...] = ()


class Witness(Record):
    """Proof that a scenario is feasible: calls that ran, and what a right answer must contain."""

    calls: tuple[WitnessCall, ...]
    answers: tuple[ExpectedAnswer, ...] = ()


class Scenario(Record):
    """A task to attempt.

    Example:
        >>> Scenario(id="t1", task="What day is it in Tokyo?").split
        'train'
    """

    id: str
    task: str
    split: Split = "train"
    difficulty: int = Field(default=1, ge=1, le=5)
    witness: Witness | None = None
    data: dict[str, Any] = Field(default_factory=dict)
