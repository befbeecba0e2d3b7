"""Drills: when they end, and that they begin exactly as attempts do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.recipes.backend import FakeModel

from journeyman.client.gather import gather
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.session import open_session, prepare_scenarios
from journeyman.recipes.settings import McpTrain, WarmStart
from journeyman.recipes.warm_start import executed_share, is_ready, tools_with_success
from journeyman.scenarios.drills import drills
from journeyman.types.scenarios import Scenario, Witness, WitnessCall
from journeyman.types.trajectory import Group, Trajectory, Verdict


@pytest.mark.parametrize(
    ("metrics", "ready"),
    [
        ({"reward/success": 0.3, "reward/with_spread": 0.5}, True),
        ({"reward/success": 0.29, "reward/with_spread": 0.5}, False),
        ({"reward/success": 0.4, "reward/with_spread": 0.4}, False),
        ({"reward/success": 0.4, "reward/with_spread": 0.5, "reward/tools_with_success": 0.5}, False),
        ({"reward/success": 0.4, "reward/with_spread": 0.5, "reward/tools_with_success": 0.6}, True),
        ({"reward/success": 0.4, "reward/with_spread": 0.5, "rollout/executed": 0.8}, False),
        # Half of the attempts succeed: more drills would only make them more alike.
        ({"reward/success": 0.5, "reward/with_spread": 0.5, "rollout/executed": 0.8}, True),
        ({"reward/success": 0.5, "reward/with_spread": 0.0}, True),
        ({"reward/success": 0.5, "reward/tools_with_success": 0.5}, False),
        ({"reward/with_spread": 0.5}, True),
        ({"reward/with_spread": 0.0}, False),
    ],
)
def test_reinforcement_learning_begins_when_enough_attempts_tools_and_groups_are_ready(metrics: dict[str, float], ready: bool) -> None:
    settings = WarmStart(min_executed=0.9, min_success=0.3, min_tools=0.6, min_with_spread=0.5, enough_success=0.5)
    assert is_ready({"rollout/executed": 0.9, **metrics}, settings) is ready


def test_without_any_reward_nothing_is_ready() -> None:
    assert not is_ready({}, WarmStart())
    assert executed_share([]) == 0.0


def _group(tools: tuple[str, ...], *successes: bool | None) -> Group:
    witness = Witness(calls=tuple(WitnessCall(tool=tool, arguments={}, result="") for tool in tools), answers=())
    attempts = tuple(
        Trajectory(id=f"{number}", scenario_id="s", model="m", verdict=Verdict(judge="j", score=0.0, explanation="", is_success=success))
        for number, success in enumerate(successes)
    )
    return Group(scenario=Scenario(id="s", task="t", witness=witness), trajectories=attempts)


def test_a_tool_counts_once_any_attempt_at_a_task_that_needs_it_succeeds() -> None:
    groups = [_group(("now",), False, True), _group(("convert",), False, False), _group(("now", "convert"), False)]
    assert tools_with_success(groups) == {"reward/tools_with_success": 0.5}
    assert tools_with_success([_group(("now",), None)]) == {}
    assert tools_with_success([]) == {}


async def test_a_drill_has_the_prompt_of_an_attempt_token_for_token(model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
    async with open_session("r", settings, tmp_path, SilentProgress()) as session:
        session.store.runs.create("r", kind="mcp", base=settings.base)
        made = drills(await prepare_scenarios(session), random.Random(0), 6)
        assert {drill.answer is None for drill in made} == {True, False}
        for drill in made:
            example = session.agent().example(drill)
            token_ids, is_trained = session.backend.renderer.render_example(example.messages, example.tools)
            scenario = Scenario(id="s", task=drill.task)
            (group,) = await gather(session.agent(), [scenario], model=session.connection.base_model(), group_size=1)
            prompt = group.trajectories[0].turns[0].prompt_ids
            assert token_ids[: len(prompt)] == prompt
            assert not any(is_trained[: len(prompt)])
            assert is_trained[len(prompt)]
