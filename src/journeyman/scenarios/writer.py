"""Tasks reworded by a language model: more varied than templates. What it writes is checked, and kept only when it still asks the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from journeyman.errors import LlmError
from journeyman.llm import Llm
from journeyman.scenarios.tools import McpTool
from journeyman.scenarios.wording import gives_away
from journeyman.scenarios.words import spoken
from journeyman.types.scenarios import Scenario

_MAX_TASK_CHARS = 300
_SCHEMA = {
    "type": "object",
    "properties": {
        "task": {"type": "string"},
        "difficulty": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["task", "difficulty"],
    "additionalProperties": False,
}
_PROMPT = """\
Reword this request as a user of an assistant would put it, in one or two short sentences. Ask for exactly the same, {style}.
Write these values exactly as they are: {values}
Never write these identifiers: {names}
Also rate how hard it is for an assistant with tools, from 1 (one obvious step) to 5.

Request: {task}"""
_STYLES = ("in a friendly tone", "tersely", "as a question", "as an instruction", "with a short reason why", "casually", "formally")


@dataclass(frozen=True, slots=True)
class Paraphrase:
    """A task in other words, and how hard it is (1 to 5)."""

    task: str
    difficulty: int


class Writer(Protocol):
    """Rewords the task of a scenario."""

    async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], style: str) -> Paraphrase:
        """Raises LlmError."""
        ...


class ChatWriter:
    """A writer on any OpenAI-compatible model."""

    def __init__(self, llm: Llm) -> None:
        self._llm = llm

    async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], style: str) -> Paraphrase:
        quoted = ", ".join(f'"{value}"' for value in values) or "(none)"
        prompt = _PROMPT.format(style=style, values=quoted, names=", ".join(forbidden) or "(none)", task=scenario.task)

        def find_fault(value: Any) -> str | None:
            if not isinstance(value, dict) or not isinstance(value.get("task"), str):
                return 'it has no "task"'
            return text_fault(value["task"], values)

        reply = await self._llm.complete_json([{"role": "user", "content": prompt}], _SCHEMA, name="paraphrase", find_fault=find_fault)
        difficulty = reply.value.get("difficulty")
        return Paraphrase(reply.value["task"].strip(), difficulty if difficulty in (1, 2, 3, 4, 5) else scenario.difficulty)


async def reword_all(writer: Writer, scenarios: Sequence[Scenario], tools: Sequence[McpTool]) -> tuple[list[Scenario], list[str]]:
    """The scenarios with new tasks where the writer's are usable, and notes. Raises LlmError when none of them came out."""
    forbidden = sorted({name for tool in tools for name in (tool.name, *tool.properties) if not name.isalpha()})
    taken: set[str] = set()
    notes: list[str] = []

    async def one(index: int, scenario: Scenario) -> Scenario | LlmError:
        try:
            paraphrase = await writer.reword(scenario, values_of(scenario), forbidden, _STYLES[index % len(_STYLES)])
        except LlmError as error:
            return error
        if fault_of(paraphrase.task, scenario, tools) is not None or paraphrase.task.casefold() in taken:
            return scenario
        taken.add(paraphrase.task.casefold())
        return scenario.model_copy(update={"task": paraphrase.task, "difficulty": paraphrase.difficulty})

    results = await asyncio.gather(*(one(index, scenario) for index, scenario in enumerate(scenarios)))
    errors = [result for result in results if isinstance(result, LlmError)]
    if errors and len(errors) == len(scenarios):
        raise errors[0]
    out = [scenario if isinstance(result, LlmError) else result for scenario, result in zip(scenarios, results, strict=True)]
    num_kept = sum(new.task == old.task for new, old in zip(out, scenarios, strict=True))
    if num_kept:
        notes.append(f"{num_kept} of {len(scenarios)} tasks keep their template's words: the writer's version failed or changed the task")
    return out, notes


def values_of(scenario: Scenario) -> list[str]:
    """The values a task must state, as it states them."""
    calls = scenario.witness.calls if scenario.witness else ()
    found = [spoken(value) for call in calls for value in call.arguments.values() if not isinstance(value, bool | list | dict)]
    return [value for value in dict.fromkeys(found) if value in scenario.task]


def fault_of(task: str, scenario: Scenario, tools: Sequence[McpTool]) -> str | None:
    """Why a reworded task cannot be used; None when it can."""
    arguments = {f"{index}": value for index, value in enumerate(values_of(scenario))}
    name = gives_away(task, tools, arguments)
    return f"it contains the identifier {name!r}" if name else text_fault(task, values_of(scenario))


def text_fault(task: str, values: Sequence[str]) -> str | None:
    if not 0 < len(task.strip()) <= _MAX_TASK_CHARS:
        return f"the task is empty or longer than {_MAX_TASK_CHARS} characters"
    missing = [value for value in values if not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", task)]
    return f"these values are missing: {', '.join(missing)}" if missing else None
