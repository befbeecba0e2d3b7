"""Worked examples for a prompt ("shots"): a task, the calls that answer it, what they returned, the answer in words.

They are made of what ran while scenarios were built, so nothing in them is invented but the wording of the answer. Training scenarios
only: a held-out one in the prompt would give its answer away.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from journeyman.agents.tool_runner import compact
from journeyman.errors import SettingError
from journeyman.scenarios.invented import invent_answer, invent_comparison
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.scenarios import ExpectedAnswer, Scenario

_SAME = "same"
_COMPARED = (_SAME, "different")


def worked_example(
    task: str, calls: Sequence[tuple[str, dict[str, Any]]], results: Sequence[str] = (), answer: str | None = None, *, name: str = "call"
) -> tuple[Message, ...]:
    """The messages of a task that is done: calls as (tool, arguments), one result for each, and the answer. Without `answer` it ends with
    the calls. Call ids are `{name}_{number}`."""
    asked = tuple(
        ToolCall(id=f"{name}_{number}", function=FunctionCall(name=tool, arguments=json.dumps(arguments, ensure_ascii=False)))
        for number, (tool, arguments) in enumerate(calls)
    )
    messages = [Message(role="user", content=task), Message(role="assistant", content=None, tool_calls=asked)]
    if answer is not None:
        messages += [Message(role="tool", tool_call_id=call.id, content=result) for call, result in zip(asked, results, strict=True)]
        messages.append(Message(role="assistant", content=answer))
    return tuple(messages)


def make_shots(scenarios: Sequence[Scenario], count: int, *, seed: int = 0, max_result_chars: int = 800) -> tuple[Message, ...]:
    """Messages of `count` worked examples, the tools in turn. The first n of a larger count are those of n.

    Raises SettingError when the training scenarios do not yield so many.

    Example:
        >>> make_shots([], 0)
        ()
    """
    rng = random.Random(f"shots/{seed}")
    by_tool: dict[str, list[tuple[Message, ...]]] = {}
    for scenario in rng.sample(list(scenarios), len(scenarios)):
        example = _worked(scenario, rng, max_result_chars) if scenario.split == "train" else None
        if example is not None and scenario.witness is not None:
            by_tool.setdefault(scenario.witness.calls[0].tool, []).append(example)
    queues = [by_tool[tool] for tool in sorted(by_tool)]
    if sum(map(len, queues)) < count:
        raise SettingError(
            f"{count} worked examples were asked for, and the training scenarios yield {sum(map(len, queues))}",
            hint="ask for fewer with --shots, or for more scenarios",
        )
    chosen = [queue[place] for place in range(max(map(len, queues), default=0)) for queue in queues if place < len(queue)]
    return tuple(message for example in chosen[:count] for message in example)


def _worked(scenario: Scenario, rng: random.Random, max_result_chars: int) -> tuple[Message, ...] | None:
    """The scenario as a worked example; None when what it asks for cannot be put into words, or a result is too long for a prompt."""
    witness = scenario.witness
    if witness is None or not witness.answers:
        return None
    answer = _answer(witness.answers, len(witness.calls), rng)
    results = [compact(call.result) for call in witness.calls]
    if answer is None or any(len(result) > max_result_chars for result in results):
        return None
    calls = [(call.tool, call.arguments) for call in witness.calls]
    return worked_example(scenario.task, calls, results, answer, name=scenario.id.replace(" ", "-"))


def _answer(answers: Sequence[ExpectedAnswer], num_calls: int, rng: random.Random) -> str | None:
    first = answers[0]
    path = tuple(part for part in first.path if isinstance(part, str)) or ("result",)
    if num_calls == 2 and len(answers) == 1:
        return invent_comparison(path, (0, 0) if first.value == _SAME else (0, 1), rng) if first.value in _COMPARED else None
    same_path = all(answer.path == first.path for answer in answers)
    return invent_answer(path, [answer.value for answer in answers], rng) if len(answers) <= 2 and same_path else None
