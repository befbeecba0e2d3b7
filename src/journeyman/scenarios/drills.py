"""Worked examples: drills, made from the schema and training values alone, and shots, made of what ran. Calls no tools.

Drills warm up a model that cannot call tools yet. How a drill becomes a training example is the agent's business (`ToolLoop.messages`
and `.tools`), so that its prompt is the same, token for token, as in a rollout. Shots stand in a prompt: nothing in them is invented but
the wording of the answer, and they come from training scenarios only, as a held-out one would give its answer away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from journeyman.errors import SettingError
from journeyman.mcp.results import compact
from journeyman.scenarios.invented import invent_answer, invent_comparison, invent_question, invent_result
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.wording import Wording, make_wording
from journeyman.types.messages import Message
from journeyman.types.scenarios import ExpectedAnswer, Scenario, WorkedExample

_MAX_DRAWS_PER_DRILL = 20
_COMPARED_SHARE = 0.3
_SAME = "same"
_COMPARED = (_SAME, "different")


def drills(
    scenarios: ScenarioSet, rng: random.Random, count: int, *, two_call_share: float = 0.2, answer_share: float = 0.75
) -> list[WorkedExample]:
    """At most `count` different drills, the tools in equal parts. Values come from the training split only.

    `answer_share` of the drills go on with made-up results and an answer in words: without any of those, a small model that is drilled
    in calls forgets how to answer, and attempts that all fail alike teach nothing.
    """
    materials = [material for material in scenarios.materials if all(material.values.get(name) for name in material.tool.required)]
    if not materials:
        return []
    wording = wording_of(scenarios)
    found: dict[str, WorkedExample] = {}
    for number in range(count * _MAX_DRAWS_PER_DRILL):
        if len(found) >= count:
            break
        material = materials[number % len(materials)]
        is_answered = rng.random() < answer_share
        if rng.random() < two_call_share and material.tool.required:
            drill = _draw_two(material, wording, rng, is_answered=is_answered)
        else:
            drill = _draw_one(material, wording, rng, is_answered=is_answered)
        found.setdefault(drill.task, drill)
    return list(found.values())


def wording_of(scenarios: ScenarioSet) -> Wording:
    return make_wording(scenarios.tools, {material.tool.name: material.leaves for material in scenarios.materials})


def _draw_one(material: ToolMaterial, wording: Wording, rng: random.Random, *, is_answered: bool) -> WorkedExample:
    tool, arguments = material.tool, draw_arguments(material, rng)
    calls = ((tool.name, arguments),)
    if not is_answered:
        leaf = rng.choice(material.leaves) if material.leaves else None
        return WorkedExample(wording.task(tool, arguments, leaf, rng), calls)
    path, draw = invent_question(material.leaves, rng)
    value = draw(rng)
    result = invent_result(arguments, path, value, rng, material.leaves)
    return WorkedExample(wording.task(tool, arguments, path, rng), calls, (result,), invent_answer(path, (value,), rng))


def _draw_two(material: ToolMaterial, wording: Wording, rng: random.Random, *, is_answered: bool) -> WorkedExample:
    """Two calls of one tool; some ask whether a value is the same for both."""
    tool, arguments = material.tool, (draw_arguments(material, rng), draw_arguments(material, rng))
    if arguments[0] == arguments[1]:
        return _draw_one(material, wording, rng, is_answered=is_answered)
    calls = tuple((tool.name, each) for each in arguments)
    if not is_answered:
        leaf = rng.choice(material.leaves) if material.leaves else None
        return WorkedExample(wording.task_of_two(tool, *arguments, leaf, rng), calls)
    path, draw = invent_question(material.leaves, rng)
    compare = rng.random() < _COMPARED_SHARE
    first, second = draw(rng), draw(rng)
    values = (first, first if compare and rng.random() < 0.5 else second)
    results = tuple(invent_result(each, path, value, rng, material.leaves) for each, value in zip(arguments, values, strict=True))
    answer = invent_comparison(path, values, rng) if compare else invent_answer(path, values, rng)
    return WorkedExample(wording.task_of_two(tool, *arguments, path, rng, compare=compare), calls, results, answer)


def draw_arguments(material: ToolMaterial, rng: random.Random) -> dict[str, Any]:
    """Arguments with a value for every required parameter, different ones where two parameters share their values."""
    arguments: dict[str, Any] = {}
    for name in material.tool.properties:
        values: Sequence[Any] = material.values.get(name, ())
        if not values or (name not in material.tool.required and rng.random() > 0.25):
            continue
        fresh = [value for value in values if value not in arguments.values()] or list(values)
        arguments[name] = rng.choice(fresh)
    return arguments


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
    results = tuple(compact(call.result) for call in witness.calls)
    if answer is None or any(len(result) > max_result_chars for result in results):
        return None
    calls = tuple((call.tool, call.arguments) for call in witness.calls)
    return WorkedExample(scenario.task, calls, results, answer).messages(scenario.id.replace(" ", "-"))


def _answer(answers: Sequence[ExpectedAnswer], num_calls: int, rng: random.Random) -> str | None:
    first = answers[0]
    path = tuple(part for part in first.path if isinstance(part, str)) or ("result",)
    if num_calls == 2 and len(answers) == 1:
        return invent_comparison(path, (0, 0) if first.value == _SAME else (0, 1), rng) if first.value in _COMPARED else None
    same_path = all(answer.path == first.path for answer in answers)
    return invent_answer(path, [answer.value for answer in answers], rng) if len(answers) <= 2 and same_path else None
