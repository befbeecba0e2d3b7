"""Worked examples: drills, made from the schema and training values alone, and shots, made of what ran. Calls no tools.

Drills warm up a model that cannot call tools yet. How a drill becomes a training example is the agent's business (`ToolLoop.messages`
and `.tools`), so that its prompt is the same, token for token, as in a rollout. Shots stand in a prompt: nothing in them is invented but
the wording of the answer, and they come from training scenarios only, as a held-out one would give its answer away.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from journeyman.errors import SettingError
from journeyman.mcp.results import Path, compact
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.texts import WORDS, Draw
from journeyman.scenarios.wording import Wording, humanise_path, make_wording
from journeyman.types.messages import Message
from journeyman.types.scenarios import ExpectedAnswer, Scenario, WorkedExample

_KEYS = (
    "status count total price name code level rate score size weight height distance duration start_date end_date updated_at owner color "
    "category currency balance temperature humidity version priority region country city language unit average minimum maximum label kind"
).split()
_OUTER = "source target origin destination first second before after old new result data details summary".split()

# What is asked for is said before its value: a small model then copies the right one.
_ANSWERS = ("The {L} is {V}.", "The {L} you asked for is {V}.", "Its {L} is {V}.")
_ANSWERS_OF_TWO = ("The {L} is {V} and {W}.", "The {L} is {V}, and for the other it is {W}.", "The first {L} is {V}, the second is {W}.")
_SAME_ANSWERS = ("The {L} is the same.", "Both have the same {L}.")
_DIFFERENT_ANSWERS = ("The {L} is different.", "They have a different {L}.")

# How often the names under an outer key stand under another one too, with other values.
_TWIN_SHARE = 0.8
# How often another leaf that tasks ask for stands in a made-up result.
_OTHER_LEAF_SHARE = 0.7

_MAX_DRAWS_PER_DRILL = 20
_COMPARED_SHARE = 0.3
_SAME = "same"
_COMPARED = (_SAME, "different")


def _decimal(rng: random.Random) -> float:
    return round(rng.uniform(0, 500), rng.choice((1, 2)))


def _moment(rng: random.Random) -> str:
    day = f"20{rng.randint(10, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return (
        f"{day}T{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}{rng.choice(('Z', '+02:00', '-05:00', '+09:30'))}"
    )


_VALUES: tuple[Draw, ...] = (
    lambda rng: rng.randint(0, 9999),
    _decimal,
    lambda rng: rng.choice(WORDS),
    lambda rng: f"{rng.choice(WORDS)} {rng.choice(WORDS)}",
    _moment,
    _moment,
    lambda rng: _moment(rng)[:10],
    lambda rng: _moment(rng)[11:16],
    lambda rng: f"{rng.choice('+-')}{rng.randint(1, 12)}.{rng.choice('05')}{rng.choice(('h', 'm', 'km', '%'))}",
    lambda rng: f"{rng.choice('ABCDEFGH')}{rng.randint(10, 999)}",
)


def invent_question(leaves: Sequence[Path], rng: random.Random) -> tuple[Path, Draw]:
    """The path of a leaf to ask for and how its values are drawn. Half of the time one that the server's tasks ask for, else invented."""
    path: Path = rng.choice(leaves) if leaves and rng.random() < 0.5 else _path(rng)
    return _names(path) or _path(rng), rng.choice(_VALUES)


def invent_result(arguments: dict[str, Any], path: Path, value: Any, rng: random.Random, leaves: Sequence[Path] = ()) -> str:
    """A made-up JSON result with `value` at `path`, that echoes some arguments and holds other things.

    Where the path has an outer key, another one may hold a value of the same name; and most of the other `leaves` that tasks ask for
    stand beside it with values of any kind: what is asked for must be read, not guessed.
    """
    result: dict[str, Any] = {name: echoed for name, echoed in arguments.items() if rng.random() < 0.5}
    for _ in range(rng.randint(0, 4)):
        _put(result, _path(rng), rng.choice(_VALUES)(rng))
    if len(path) > 1:
        _surround(result, path, rng)
    others = [other for leaf in leaves if (other := _names(leaf)) and not _is_within(other, path) and rng.random() < _OTHER_LEAF_SHARE]
    placed = [*others, path]
    rng.shuffle(placed)
    for each in placed:
        _put(result, each, value if each == path else rng.choice(_VALUES)(rng))
    items = list(result.items())
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=False, separators=(",", ":"))


def invent_answer(path: Path, values: Sequence[Any], rng: random.Random) -> str:
    """One short sentence that states the value, or both values in order."""
    templates = _ANSWERS if len(values) == 1 else _ANSWERS_OF_TWO
    return _state(rng.choice(templates), path, values)


def invent_comparison(path: Path, values: Sequence[Any], rng: random.Random) -> str:
    """One short sentence that says whether the two values are the same."""
    return _state(rng.choice(_SAME_ANSWERS if values[0] == values[1] else _DIFFERENT_ANSWERS), path, values)


def _state(template: str, path: Path, values: Sequence[Any]) -> str:
    text = template.replace("{L}", humanise_path(path))
    for mark, value in zip(("{V}", "{W}"), values, strict=False):
        text = text.replace(mark, str(value))
    return text[:1].upper() + text[1:]


def _surround(result: dict[str, Any], path: Path, rng: random.Random) -> None:
    """Other values beside the one asked for, under its outer key and most of the time under another outer key too, by the same names."""
    names = [*(_path(rng)[-1] for _ in range(rng.randint(0, 3))), path[-1]]
    outers = [path[:-1]]
    if rng.random() < _TWIN_SHARE:
        outers.append((rng.choice([name for name in _OUTER if name != path[0]]), *path[1:-1]))
    rng.shuffle(names)
    for outer in outers:
        for name in names:
            _put(result, (*outer, name), rng.choice(_VALUES)(rng))


def _names(path: Path) -> Path:
    """The path without places in lists."""
    return tuple(part for part in path if isinstance(part, str))


def _is_within(path: Path, other: Path) -> bool:
    """Whether one of the paths leads to, or through, the other: both cannot hold a value."""
    shared = min(len(path), len(other))
    return path[:shared] == other[:shared]


def _path(rng: random.Random) -> Path:
    key = rng.choice(_KEYS)
    return (rng.choice(_OUTER), key) if rng.random() < 0.3 else (key,)


def _put(result: dict[str, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        below = result.get(str(part))
        if not isinstance(below, dict):
            below = result[str(part)] = {}
        result = below
    result[str(path[-1])] = value


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
    by_task: dict[str, WorkedExample] = {}
    for number in range(count * _MAX_DRAWS_PER_DRILL):
        if len(by_task) >= count:
            break
        material = materials[number % len(materials)]
        is_answered = rng.random() < answer_share
        if rng.random() < two_call_share and material.tool.required:
            drill = _draw_two(material, wording, rng, is_answered=is_answered)
        else:
            drill = _draw_one(material, wording, rng, is_answered=is_answered)
        by_task.setdefault(drill.task, drill)
    return list(by_task.values())


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
