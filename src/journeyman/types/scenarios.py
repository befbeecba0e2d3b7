"""Scenarios: tasks to attempt, and the witness that shows a task can be done."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.record import Record

Split = Literal["train", "heldout"]
_MAX_KIND_NAME = 100


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


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """A task and the calls that it asks for, as (tool, arguments); for some, what they returned (one result a call) and the answer."""

    task: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    results: tuple[str, ...] = ()
    answer: str | None = None

    def messages(self, name: str = "call") -> tuple[Message, ...]:
        """The example as a conversation; without an answer it ends with the calls. Call ids are `{name}_{number}`."""
        calls = tuple(
            ToolCall(id=f"{name}_{number}", function=FunctionCall(name=tool, arguments=json.dumps(arguments, ensure_ascii=False)))
            for number, (tool, arguments) in enumerate(self.calls)
        )
        messages = [Message(role="user", content=self.task), Message(role="assistant", content=None, tool_calls=calls)]
        if self.answer is not None:
            results = zip(calls, self.results, strict=True)
            messages += [Message(role="tool", tool_call_id=call.id, content=result) for call, result in results]
            messages.append(Message(role="assistant", content=self.answer))
        return tuple(messages)


def kind_of(scenario: Scenario) -> Hashable:
    """Scenarios of one kind ask for the same of the same tools; one without a witness is of the kind that its `data` names, if it does."""
    witness = scenario.witness
    if witness is None:
        named = scenario.data.get("kind")
        return named if isinstance(named, str) else None
    return tuple(call.tool for call in witness.calls), tuple(answer.path for answer in witness.answers)


def kind_name(scenario: Scenario) -> str:
    """The kind in words; empty when it has none. Longer names are cut: a metric is named after it.

    Example:
        >>> one = WitnessCall(tool="convert", arguments={}, result='{"to": 2}')
        >>> witness = Witness(calls=(one,), answers=(ExpectedAnswer(path=("to",), value=2),))
        >>> kind_name(Scenario(id="t", task="How much?", data={"kind": "one call"}, witness=witness))
        'one call: convert, to'
    """
    named, witness = scenario.data.get("kind"), scenario.witness
    tools = [] if witness is None else [call.tool for call in witness.calls]
    paths = [] if witness is None else [".".join(map(str, answer.path)) for answer in witness.answers]
    asked = ", ".join(part for part in (" + ".join(tools), *paths) if part)
    return ": ".join(part for part in (named if isinstance(named, str) else "", asked) if part)[:_MAX_KIND_NAME]
