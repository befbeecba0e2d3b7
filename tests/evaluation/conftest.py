"""Scripted models over HTTP that know more or less, an agent for them, and the evaluation of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.llm_server import Answer, serve

from journeyman.client.models import Model
from journeyman.client.rollout import Rollout
from journeyman.evaluation import Evaluation, evaluate
from journeyman.rewards import EvidenceJudge
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness, WitnessCall
from journeyman.types.trajectory import ToolEvent

NUMBERS = range(6)


def scenarios() -> list[Scenario]:
    return [
        Scenario(
            id=f"s{number}",
            task=f"What is twice {number + 10}?",
            split="heldout",
            witness=Witness(
                calls=(WitnessCall(tool="double", arguments={"value": number + 10}, result=str(2 * (number + 10))),),
                answers=(ExpectedAnswer(value=2 * (number + 10)),),
            ),
        )
        for number in NUMBERS
    ]


async def double_and_say(scenario: Scenario, run: Rollout) -> None:
    """An agent: calls the tool for the value in the task, then lets the model answer."""
    value = int(scenario.task.split()[-1].rstrip("?"))
    run.record_tool(
        ToolEvent(
            turn=0,
            call_id="c",
            name="double",
            arguments={"value": value},
            is_known=True,
            is_valid=True,
            is_error=False,
            result=str(2 * value),
        )
    )
    await run.openai().chat.completions.create(model=run.model, messages=[{"role": "user", "content": scenario.task}])


def answering(knows: set[int]) -> Any:
    """A model that doubles right for the scenarios whose number it knows."""

    def script(request: dict[str, Any]) -> Answer:
        value = int(request["messages"][-1]["content"].split()[-1].rstrip("?"))
        return Answer(f"It is {2 * value}." if value - 10 in knows else "It is 7.")

    return script


@pytest.fixture
async def variants() -> AsyncIterator[dict[str, Model]]:
    knowledge = {"base": set(), "warm": {0, 1}, "trained": {1, 2, 3, 4}}
    with ExitStack() as stack:
        models = {name: Model(name, stack.enter_context(serve(answering(knows))).base_url, "key") for name, knows in knowledge.items()}
        yield models
        for model in models.values():
            await model.close()


@pytest.fixture
async def evaluation(variants: dict[str, Model]) -> Evaluation:
    return await evaluate(double_and_say, scenarios(), variants, EvidenceJudge(), group_size=2)
