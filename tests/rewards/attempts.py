"""Builders of trajectories for tests of judges."""

from __future__ import annotations

import json
from typing import Any

from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall, ToolFunction
from journeyman.types.sampling import FinishReason, SamplingParameters
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness, WitnessCall
from journeyman.types.trajectory import Failure, ToolEvent, Trajectory, Turn

RESULT = json.dumps({"place": "Oslo", "local": "2026-11-22T15:05:00+01:00", "week_day": "Sunday", "summer": False})
PLACE_TOOL = Tool(
    function=ToolFunction(
        name="look_up",
        description="Look up a place",
        parameters={"type": "object", "properties": {"place": {"type": "string"}, "limit": {"type": "integer", "default": 5}}},
    )
)


def scenario(*answers: ExpectedAnswer, calls: tuple[WitnessCall, ...] = (), task: str = "What time is it in Oslo?") -> Scenario:
    calls = calls or (WitnessCall(tool="look_up", arguments={"place": "Oslo"}, result=RESULT),)
    answers = answers or (ExpectedAnswer(path=("local",), value="2026-11-22T15:05:00+01:00"),)
    return Scenario(id="s1", task=task, witness=Witness(calls=calls, answers=answers))


def event(
    arguments: dict[str, Any] | None = None,
    *,
    name: str = "look_up",
    result: str = RESULT,
    is_known: bool = True,
    is_valid: bool = True,
    is_error: bool = False,
) -> ToolEvent:
    return ToolEvent(
        turn=0,
        call_id="c1",
        name=name,
        arguments=arguments,
        is_known=is_known,
        is_valid=is_valid,
        is_error=is_error,
        result=result,
    )


GOOD = event({"place": "Oslo"})


def turn(
    content: str | None = None, *, index: int = 0, calls: tuple[str, ...] = (), finish: FinishReason = "stop", task: str = "t"
) -> Turn:
    tool_calls = tuple(
        ToolCall(id=f"c{i}", function=FunctionCall(name="look_up", arguments=arguments)) for i, arguments in enumerate(calls)
    )
    return Turn(
        index=index,
        adapter="agent@1",
        messages=(Message(role="system", content="Use the tools."), Message(role="user", content=task)),
        tools=(PLACE_TOOL,),
        reply=Message(role="assistant", content=content, tool_calls=tool_calls),
        prompt_ids=(1, 2, 3),
        sampled_ids=(4, 5),
        sampled_logprobs=(-0.1, -0.2),
        finish_reason=finish,
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.5,
    )


def attempt(
    answer: str | None,
    *events: ToolEvent,
    id: str = "a1",
    finish: FinishReason = "stop",
    error: Failure | None = None,
) -> Trajectory:
    turns = tuple(turn(index=i, calls=(json.dumps(one.arguments) if one.arguments is not None else "{",)) for i, one in enumerate(events))
    if answer is not None:
        turns += (turn(answer, index=len(turns), finish=finish),)
    return Trajectory(id=id, scenario_id="s1", model="agent@1", turns=turns, tool_events=events, error=error)
