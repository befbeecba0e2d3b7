"""Drills: tasks with the calls that answer them, made from the schema and training values alone. Nothing is executed.

They warm up a model that cannot call tools yet. How a drill becomes a training example is the agent's business (`ToolLoop.messages`
and `.tools`), so that its prompt is the same, token for token, as in a rollout.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.scenarios.invented import invent_answer, invent_comparison, invent_question, invent_result
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.wording import Wording, make_wording

_MAX_DRAWS_PER_DRILL = 20
_COMPARED_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Drill:
    """A task and the calls it asks for, as (tool name, arguments); for some, made-up results (one a call) and the answer they give."""

    task: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    results: tuple[str, ...] = ()
    answer: str | None = None


def drills(
    scenarios: ScenarioSet, rng: random.Random, count: int, *, two_call_share: float = 0.2, answer_share: float = 0.75
) -> list[Drill]:
    """At most `count` different drills, the tools in equal parts. Values come from the training split only.

    `answer_share` of the drills go on with made-up results and an answer in words: without any of those, a small model that is drilled
    in calls forgets how to answer, and attempts that all fail alike teach nothing.
    """
    materials = [material for material in scenarios.materials if all(material.values.get(name) for name in material.tool.required)]
    if not materials:
        return []
    wording = wording_of(scenarios)
    found: dict[str, Drill] = {}
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


def _draw_one(material: ToolMaterial, wording: Wording, rng: random.Random, *, is_answered: bool) -> Drill:
    tool, arguments = material.tool, draw_arguments(material, rng)
    calls = ((tool.name, arguments),)
    if not is_answered:
        leaf = rng.choice(material.leaves) if material.leaves else None
        return Drill(wording.task(tool, arguments, leaf, rng), calls)
    path, draw = invent_question(material.leaves, rng)
    value = draw(rng)
    result = invent_result(arguments, path, value, rng, material.leaves)
    return Drill(wording.task(tool, arguments, path, rng), calls, (result,), invent_answer(path, (value,), rng))


def _draw_two(material: ToolMaterial, wording: Wording, rng: random.Random, *, is_answered: bool) -> Drill:
    """Two calls of one tool; some ask whether a value is the same for both."""
    tool, arguments = material.tool, (draw_arguments(material, rng), draw_arguments(material, rng))
    if arguments[0] == arguments[1]:
        return _draw_one(material, wording, rng, is_answered=is_answered)
    calls = tuple((tool.name, each) for each in arguments)
    if not is_answered:
        leaf = rng.choice(material.leaves) if material.leaves else None
        return Drill(wording.task_of_two(tool, *arguments, leaf, rng), calls)
    path, draw = invent_question(material.leaves, rng)
    compare = rng.random() < _COMPARED_SHARE
    first, second = draw(rng), draw(rng)
    values = (first, first if compare and rng.random() < 0.5 else second)
    results = tuple(invent_result(each, path, value, rng, material.leaves) for each, value in zip(arguments, values, strict=True))
    answer = invent_comparison(path, values, rng) if compare else invent_answer(path, values, rng)
    return Drill(wording.task_of_two(tool, *arguments, path, rng, compare=compare), calls, results, answer)


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
