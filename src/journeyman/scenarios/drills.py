"""Drills: tasks with the calls that answer them, made from the schema and training values alone. Nothing is executed.

They warm up a model that cannot call tools yet. How a drill becomes a training example is the agent's business (`ToolLoop.messages`
and `.tools`), so that its prompt is the same, token for token, as in a rollout.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.scenarios.invented import invent_answer, invent_result
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.wording import Wording, make_wording

_MAX_DRAWS_PER_DRILL = 20


@dataclass(frozen=True, slots=True)
class Drill:
    """A task and the calls it asks for, as (tool name, arguments); for some, a made-up result and the answer that it gives."""

    task: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    result: str | None = None
    answer: str | None = None


def drills(
    scenarios: ScenarioSet, rng: random.Random, count: int, *, two_call_share: float = 0.15, answer_share: float = 0.5
) -> list[Drill]:
    """At most `count` different drills, the tools in equal parts. Values come from the training split only.

    `answer_share` of the one-call drills go on with a made-up result and an answer in words: without any of those, a small model that
    is drilled in calls forgets how to answer, and attempts that all fail alike teach nothing.
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
        if rng.random() < answer_share:
            drill = _draw_answered(material, wording, rng)
        else:
            drill = _draw(material, wording, rng, two_calls=rng.random() < two_call_share)
        found.setdefault(drill.task, drill)
    return list(found.values())


def wording_of(scenarios: ScenarioSet) -> Wording:
    return make_wording(scenarios.tools, {material.tool.name: material.leaves for material in scenarios.materials})


def _draw(material: ToolMaterial, wording: Wording, rng: random.Random, *, two_calls: bool) -> Drill:
    tool = material.tool
    leaf = rng.choice(material.leaves) if material.leaves else None
    first = draw_arguments(material, rng)
    second = draw_arguments(material, rng)
    if two_calls and tool.required and leaf is not None and first != second:
        task = wording.task_of_two(tool, first, second, leaf, rng)
        return Drill(task, ((tool.name, first), (tool.name, second)))
    return Drill(wording.task(tool, first, leaf, rng), ((tool.name, first),))


def _draw_answered(material: ToolMaterial, wording: Wording, rng: random.Random) -> Drill:
    arguments = draw_arguments(material, rng)
    result, path, value = invent_result(arguments, material.leaves, rng)
    task = wording.task(material.tool, arguments, path, rng)
    return Drill(task, ((material.tool.name, arguments),), result, invent_answer(path, value, rng))


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
