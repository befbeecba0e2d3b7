"""Tasks of a set in a writer's words: each wording once, every one checked. Asks the writer, calls no tools.

A task whose wordings are all unusable keeps its template's words; one that joins two tools has no template and is left out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from journeyman.errors import LlmError
from journeyman.mcp.tools import McpTool
from journeyman.scenarios.generate import COMPARISON, ONE_CALL
from journeyman.scenarios.pools import canonical
from journeyman.scenarios.wording import gives_away
from journeyman.scenarios.words import spoken
from journeyman.scenarios.writer import Paraphrases, Writer, text_fault
from journeyman.types.scenarios import Scenario

_STYLES = ("in a friendly tone", "tersely", "as a question", "as an instruction", "with a short reason why", "casually", "formally")
_SPARE = 2


async def reword_all(
    writer: Writer,
    scenarios: Sequence[Scenario],
    joined: Sequence[Scenario],
    tools: Sequence[McpTool],
    rng: random.Random,
    taken: set[str],
) -> tuple[list[Scenario], list[str]]:
    """As many scenarios as given, in the writer's words where those are usable, and notes.

    Args:
        joined: tasks that ask two tools at once; those that the writer can word take the places of single calls.
        taken: wordings in use already, in lower case; those of the returned scenarios are added.

    Raises LlmError when the writer failed for every one of the scenarios.
    """
    notes: list[str] = []
    worded, _ = await _worded(writer, joined, tools, taken)
    usable = [scenario for scenario in worded if scenario is not None]
    if len(usable) < len(joined):
        notes.append(f"{len(joined) - len(usable)} of {len(joined)} tasks for two tools are left out: the writer's versions cannot be used")
    places = [index for index, scenario in enumerate(scenarios) if scenario.data.get("kind") == ONE_CALL]
    replaced = dict(zip(rng.sample(places, min(len(places), len(usable))), usable, strict=False))
    others = [scenario for index, scenario in enumerate(scenarios) if index not in replaced]
    new, errors = await _worded(writer, others, tools, taken)
    if others and len(errors) == len(others):
        raise errors[0]
    num_kept = sum(scenario is None for scenario in new)
    if num_kept:
        notes.append(f"{num_kept} of {len(others)} tasks keep their template's words: the writer's versions failed or changed the task")
    rest = iter([found or old for found, old in zip(new, others, strict=True)])
    out = [replaced[index].model_copy(update={"id": old.id}) if index in replaced else next(rest) for index, old in enumerate(scenarios)]
    taken.update(scenario.task.casefold() for scenario in out)
    return out, notes


async def _worded(
    writer: Writer, scenarios: Sequence[Scenario], tools: Sequence[McpTool], taken: set[str]
) -> tuple[list[Scenario | None], list[LlmError]]:
    """Each scenario in new words, None where there are none; and one error for each whose writer failed."""
    forbidden = sorted({name for tool in tools for name in (tool.name, *tool.properties) if not name.isalpha()})
    # Scenarios that ask the same share one call to the writer, and get a wording each.
    alike: dict[str, list[int]] = {}
    for index, scenario in enumerate(scenarios):
        alike.setdefault(_question(scenario), []).append(index)

    async def ask(number: int, indexes: list[int]) -> Paraphrases | LlmError:
        first = scenarios[indexes[0]]
        styles = [_STYLES[(number + turn) % len(_STYLES)] for turn in range(min(len(_STYLES), len(indexes) + _SPARE))]
        try:
            return await writer.reword(first, values_of(first), forbidden, styles)
        except LlmError as error:
            return error

    replies = await asyncio.gather(*(ask(number, indexes) for number, indexes in enumerate(alike.values())))
    out: list[Scenario | None] = [None] * len(scenarios)
    errors: list[LlmError] = []
    for reply, indexes in zip(replies, alike.values(), strict=True):
        if isinstance(reply, LlmError):
            errors += [reply] * len(indexes)
            continue
        left = [task for task in reply.tasks if fault_of(task, scenarios[indexes[0]], tools) is None]
        for index in indexes:
            task = next((one for one in left if one.casefold() not in taken), None)
            if task is not None:
                taken.add(task.casefold())
                out[index] = _with_words(scenarios[index], task, reply.difficulty)
    return out, errors


def _with_words(scenario: Scenario, task: str, rated: int) -> Scenario:
    """A task for several calls is not easier than its calls make it; the writer may not know how many those are."""
    calls = scenario.witness.calls if scenario.witness else ()
    return scenario.model_copy(update={"task": task, "difficulty": max(rated, scenario.difficulty) if len(calls) > 1 else rated})


def _question(scenario: Scenario) -> str:
    """Equal for scenarios that ask the same."""
    witness = scenario.witness
    calls = [[call.tool, call.arguments] for call in witness.calls] if witness else [scenario.task]
    answers = [[answer.call, answer.path] for answer in witness.answers] if witness else []
    return canonical([scenario.data.get("kind"), calls, answers])


def values_of(scenario: Scenario) -> list[str]:
    """The values a task must state, as it states them; in a comparison also the words that the answer consists of."""
    calls = scenario.witness.calls if scenario.witness else ()
    found = [spoken(value) for call in calls for value in call.arguments.values() if not isinstance(value, bool | list | dict)]
    if scenario.data.get("kind") == COMPARISON:
        found += ["same", "different"]
    return [value for value in dict.fromkeys(found) if value in scenario.task]


def fault_of(task: str, scenario: Scenario, tools: Sequence[McpTool]) -> str | None:
    """Why a reworded task cannot be used; None when it can."""
    arguments = {f"{index}": value for index, value in enumerate(values_of(scenario))}
    name = gives_away(task, tools, arguments)
    return f"it contains the identifier {name!r}" if name else text_fault(task, values_of(scenario))
