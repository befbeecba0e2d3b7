"""Drills as training examples whose prompt is exactly the one a rollout of `ToolLoop` sends."""

from __future__ import annotations

import json
from collections.abc import Sequence

from journeyman.agents.tool_loop import SYSTEM_PROMPT, opening
from journeyman.scenarios.drills import Drill
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall
from journeyman.types.training import SftExample


def drill_examples(drills: Sequence[Drill], tools: Sequence[Tool], system_prompt: str = SYSTEM_PROMPT) -> list[SftExample]:
    """System prompt and task as in a rollout, then one assistant message with the drill's calls.

    `tools` must be those of the rollouts, in the same order: the model reads them in its prompt.
    """
    examples = []
    for drill in drills:
        calls = tuple(
            ToolCall(
                id=f"call_{index}",
                function=FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False)),
            )
            for index, (name, arguments) in enumerate(drill.calls)
        )
        messages = (*opening(drill.task, system_prompt), Message(role="assistant", content=None, tool_calls=calls))
        examples.append(SftExample(messages=messages, tools=tuple(tools)))
    return examples
