"""How far the tool calls of a rollout got towards the witness's calls: parsed, right tool, valid, executed, same arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.types.messages import Tool
from journeyman.types.scenarios import WitnessCall
from journeyman.types.trajectory import ToolEvent

# What each step is worth. Between two steps the share of right arguments counts, so that a group has spread everywhere.
UNPARSED, PARSED, KNOWN_TOOL, RIGHT_TOOL, VALID, EXECUTED, AGREES = 0.05, 0.10, 0.14, 0.20, 0.30, 0.40, 0.55
_SHARE_OF_STEP = 0.8


@dataclass(frozen=True, slots=True)
class CallMatch:
    """The best of the rollout's calls for one witness call. `event` is its index, None when nothing was left to match.

    `results` holds what every agreeing execution returned (latest last): it counts as the truth for the answer.
    """

    level: float
    event: int | None
    results: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return self.level >= AGREES


def match_calls(witness: Sequence[WitnessCall], events: Sequence[ToolEvent], tools: Sequence[Tool]) -> list[CallMatch]:
    """For each witness call the event that got furthest; an event counts for one call only, the best pairs first."""
    defaults = {tool_key(tool.function.name): _defaults(tool) for tool in tools}
    levels = [[call_level(call, event, defaults.get(tool_key(call.tool), {})) for event in events] for call in witness]
    out: list[CallMatch | None] = [None] * len(witness)
    free = set(range(len(events)))
    # Best pairs first; ties go to the earlier call and event, so that the result does not depend on anything else.
    pairs = sorted((-levels[i][j], i, j) for i in range(len(witness)) for j in range(len(events)))
    for negative_level, i, j in pairs:
        if out[i] is None and j in free:
            results = tuple(events[k].result for k in range(len(events)) if levels[i][k] >= AGREES)
            out[i] = CallMatch(-negative_level, j, results)
            free.discard(j)
    return [match or CallMatch(0.0, None) for match in out]


def call_level(call: WitnessCall, event: ToolEvent, defaults: Mapping[str, Any]) -> float:
    """How far one event got towards one witness call, in [0, AGREES]."""
    is_right_tool = tool_key(event.name) == tool_key(call.tool)
    if event.arguments is None:
        return UNPARSED + (0.03 if is_right_tool else 0.0)
    if not is_right_tool:
        return KNOWN_TOOL if event.is_known else PARSED
    share = share_of_arguments(call.arguments, event.arguments, defaults)
    if not event.is_valid:
        return RIGHT_TOOL + share * _SHARE_OF_STEP * (VALID - RIGHT_TOOL)
    if event.is_error:
        return VALID + share * _SHARE_OF_STEP * (EXECUTED - VALID)
    if share == 1.0:
        return AGREES
    return EXECUTED + share * _SHARE_OF_STEP * (AGREES - EXECUTED)


def tool_key(name: str) -> str:
    """Tool names as OpenAI's charset allows them: what a client offers may be a mapped form of the server's own name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def share_of_arguments(expected: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> float:
    """Share of arguments that agree; an argument left out, or added, agrees when it is null or the schema's default."""
    names = sorted({*expected, *given})
    if not names:
        return 1.0

    def value(source: Mapping[str, Any], name: str) -> Any:
        found = source.get(name)
        return defaults.get(name) if found is None else found

    same = [name for name in names if normalise(value(expected, name)) == normalise(value(given, name))]
    return len(same) / len(names)


def normalise(value: Any) -> Any:
    """A form in which arguments that mean the same are equal: numbers by value (also as text), text without case and blanks."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, int | float):
        return ("number", float(value))
    if isinstance(value, Mapping):
        return ("object", tuple((key, normalise(value[key])) for key in sorted(value) if value[key] is not None))
    if isinstance(value, list | tuple):
        return ("list", tuple(normalise(item) for item in value))
    text = re.sub(r"\s+", "", str(value)).casefold()
    if re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", text):
        return ("number", float(text))
    # "9:05" and "09:05" are the same clock time.
    return ("text", re.sub(r"(?<![\d.:])0+(?=\d:\d)", "", text))


def _defaults(tool: Tool) -> dict[str, Any]:
    properties = tool.function.parameters.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: spec["default"] for name, spec in properties.items() if isinstance(spec, dict) and "default" in spec}
