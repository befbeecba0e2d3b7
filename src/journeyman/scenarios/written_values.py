"""Values for arguments, proposed by the writer: a chat model that is told the argument's schema and which values worked.

The base model proposes by going on with a list (`proposals`); this one is asked in words. The server decides which values are valid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.errors import LlmRefusalError
from journeyman.llm import Llm
from journeyman.mcp.tools import McpTool

_MAX_VALUE_CHARS = 100
_MAX_SHOWN = 150
_SCHEMA = {
    "type": "object",
    "properties": {"values": {"type": "array", "items": {"type": "string"}}},
    "required": ["values"],
    "additionalProperties": False,
}
_PROMPT = """\
A tool takes an argument. Propose {count} values for it that a user could really ask for, as different from each other as they can be, \
each exactly as it is passed.
The tool: {tool}
The argument: {parameter}, with this JSON schema: {schema}
Values that it took: {known}
Values that it refused: {refused}
Give new values only. If there are fewer than {count}, give those there are."""


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
        prompt = _PROMPT.format(
            count=count,
            tool=f"{tool.server_name}. {tool.description}",
            parameter=parameter,
            schema=json.dumps(schema, ensure_ascii=False),
            known=_listed(known),
            refused=_listed(refused),
        )
        try:
            reply = await self._llm.complete_json([{"role": "user", "content": prompt}], _SCHEMA, name="values", find_fault=_find_fault)
        except LlmRefusalError:
            return []  # no values for this argument is no reason to give up the others
        found = dict.fromkeys(value.strip() for value in reply.value["values"])
        fresh = [value for value in found if _is_usable(value) and value not in memory.proposed and value not in known]
        memory.proposed.update(dict.fromkeys(fresh))
        return fresh


def _find_fault(value: Any) -> str | None:
    texts = value.get("values") if isinstance(value, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return 'it has no list of texts under "values"'
    return None


def _is_usable(value: str) -> bool:
    return 0 < len(value) <= _MAX_VALUE_CHARS and value.isprintable()


def _listed(values: Sequence[str]) -> str:
    """The newest of the values, quoted."""
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values[-_MAX_SHOWN:]) or "(none yet)"
