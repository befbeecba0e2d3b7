"""A chat model that words tasks and proposes values: more varied than templates, and able to join what templates cannot.

Each wording is checked, and used once, only where it still asks the same. A task whose wordings are all unusable keeps its template's
words; one that joins two tools has no template and is left out. Values are for the server to judge. Calls no tools.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from journeyman.errors import LlmError, LlmRefusalError
from journeyman.llm import Llm
from journeyman.mcp.tools import McpTool
from journeyman.scenarios.generate import COMPARISON, ONE_CALL, TWO_TOOLS
from journeyman.scenarios.values import canonical
from journeyman.scenarios.wording import gives_away, spoken
from journeyman.types.scenarios import Scenario

_MAX_VALUE_CHARS = 100
_MAX_SHOWN = 150
_VALUES_SCHEMA = {
    "type": "object",
    "properties": {"values": {"type": "array", "items": {"type": "string"}}},
    "required": ["values"],
    "additionalProperties": False,
}
_VALUES_PROMPT = """\
A tool takes an argument. Propose {count} values for it that a user could really ask for, as different from each other as they can be, \
each exactly as it is passed.
The tool: {tool}
The argument: {parameter}, with this JSON schema: {schema}
Values that it took: {known}
Values that it refused: {refused}
Give new values only. If there are fewer than {count}, give those there are."""
_MAX_TASK_CHARS = 300
_SCHEMA = {
    "type": "object",
    "properties": {
        "wordings": {"type": "array", "items": {"type": "string"}},
        "difficulty": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["wordings", "difficulty"],
    "additionalProperties": False,
}
_PROMPT = """\
Reword this request as users of an assistant would put it, each time in one or two short sentences. Ask for exactly the same.{parts}
Give {count} wordings that differ from each other: {styles}.
Write these values exactly as they are in each of them: {values}
Never write these identifiers: {names}
Also rate how hard the request is for an assistant with tools, from 1 (one obvious step) to 5.

Request: {task}"""
_TWO_PARTS = " It has two parts that need different tools: every wording is one request that asks for both."
_STYLES = ("in a friendly tone", "tersely", "as a question", "as an instruction", "with a short reason why", "casually", "formally")
_SPARE = 2


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """A task in other words, in several ways, and how hard it is (1 to 5)."""

    tasks: tuple[str, ...]
    difficulty: int


class Writer(Protocol):
    """Rewords the task of a scenario."""

    async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
        """About one wording a style, each with every value and none of the forbidden names. Raises LlmError."""
        ...


class ChatWriter:
    """A writer on any OpenAI-compatible model."""

    def __init__(self, llm: Llm) -> None:
        self._llm = llm

    async def check(self) -> None:
        """Ask for one word. Raises LlmError when the model does not answer: better now than after all tools were tried."""
        try:
            await self._llm.check()
        except LlmError as error:
            hint = error.hint or "check its name and address"
            raise type(error)(
                f"the writer does not answer: {error.message}", hint=f"{hint}; or leave --writer out", reason=error.reason
            ) from error

    async def close(self) -> None:
        await self._llm.close()

    def proposer(self) -> WriterProposer:
        """The same model as a source of argument values."""
        return WriterProposer(self._llm)

    async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
        prompt = _PROMPT.format(
            parts=_TWO_PARTS if scenario.data.get("kind") == TWO_TOOLS else "",
            count=len(styles),
            styles=", ".join(styles),
            values=", ".join(f'"{value}"' for value in values) or "(none)",
            names=", ".join(forbidden) or "(none)",
            task=scenario.task,
        )

        def find_fault(value: Any) -> str | None:
            texts = value.get("wordings") if isinstance(value, dict) else None
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                return 'it has no list of texts under "wordings"'
            faults = [text_fault(text, values) for text in texts]
            # One usable wording is enough: asking again costs as much as all of them.
            return faults[0] if all(faults) else None

        reply = await self._llm.complete_json([{"role": "user", "content": prompt}], _SCHEMA, name="paraphrases", find_fault=find_fault)
        difficulty = reply.value.get("difficulty")
        tasks = tuple(text.strip() for text in reply.value["wordings"])
        return Paraphrases(tasks, difficulty if difficulty in (1, 2, 3, 4, 5) else scenario.difficulty)


def text_fault(task: str, values: Sequence[str]) -> str | None:
    """What is wrong with a wording on the face of it; None when nothing is."""
    if not 0 < len(task.strip()) <= _MAX_TASK_CHARS:
        return f"a wording is empty or longer than {_MAX_TASK_CHARS} characters"
    missing = [value for value in values if not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", task)]
    return f"these values are missing: {', '.join(missing)}" if missing else None


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
    rest = iter([reworded or old for reworded, old in zip(new, others, strict=True)])
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
            task = next((text for text in left if text.casefold() not in taken), None)
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
    values = [spoken(value) for call in calls for value in call.arguments.values() if not isinstance(value, bool | list | dict)]
    if scenario.data.get("kind") == COMPARISON:
        values += ["same", "different"]
    return [value for value in dict.fromkeys(values) if value in scenario.task]


def fault_of(task: str, scenario: Scenario, tools: Sequence[McpTool]) -> str | None:
    """Why a reworded task cannot be used; None when it can."""
    arguments = {f"{index}": value for index, value in enumerate(values_of(scenario))}
    name = gives_away(task, tools, arguments)
    return f"it contains the identifier {name!r}" if name else text_fault(task, values_of(scenario))


@dataclass(slots=True)
class _Memory:
    """What was proposed for one argument."""

    proposed: dict[str, None] = field(default_factory=dict)
    rounds: int = 0


class WriterProposer:
    """A `Proposer` on any OpenAI-compatible chat model.

    Args:
        llm: the model; the caller closes it.
        max_rounds_per_parameter: calls after which no more values are proposed for an argument.
    """

    def __init__(self, llm: Llm, *, max_rounds_per_parameter: int = 12) -> None:
        self._llm = llm
        self._max_rounds = max_rounds_per_parameter
        self._memories: dict[tuple[str, str], _Memory] = {}

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        """One round; empty once the model has nothing new. Raises LlmError when it does not answer."""
        memory = self._memories.setdefault((tool.name, parameter), _Memory())
        if memory.rounds >= self._max_rounds:
            return []
        memory.rounds += 1
        refused = [value for value in memory.proposed if value not in set(known)]
        prompt = _VALUES_PROMPT.format(
            count=count,
            tool=f"{tool.server_name}. {tool.description}",
            parameter=parameter,
            schema=json.dumps(schema, ensure_ascii=False),
            known=_listed(known),
            refused=_listed(refused),
        )
        try:
            reply = await self._llm.complete_json(
                [{"role": "user", "content": prompt}], _VALUES_SCHEMA, name="values", find_fault=_fault_of_values
            )
        except LlmRefusalError:
            return []  # no values for this argument is no reason to give up the others
        found = dict.fromkeys(value.strip() for value in reply.value["values"])
        fresh = [value for value in found if _is_usable(value) and value not in memory.proposed and value not in known]
        memory.proposed.update(dict.fromkeys(fresh))
        return fresh


def _fault_of_values(value: Any) -> str | None:
    texts = value.get("values") if isinstance(value, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return 'it has no list of texts under "values"'
    return None


def _is_usable(value: str) -> bool:
    return 0 < len(value) <= _MAX_VALUE_CHARS and value.isprintable()


def _listed(values: Sequence[str]) -> str:
    """The newest of the values, quoted."""
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values[-_MAX_SHOWN:]) or "(none yet)"
