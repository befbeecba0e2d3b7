"""A language model that words tasks: more varied than templates, and able to join what templates cannot.

What it writes is checked, and used only where it still asks the same (`rewording`). The same model may propose values
(`written_values`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from journeyman.errors import LlmError
from journeyman.llm import Llm
from journeyman.scenarios.generate import TWO_TOOLS
from journeyman.scenarios.written_values import WriterProposer
from journeyman.types.scenarios import Scenario

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
