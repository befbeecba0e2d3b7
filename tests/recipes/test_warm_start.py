"""Drills: when they end, and that they begin exactly as attempts do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.recipes.backend import FakeModel

from journeyman.client.gather import gather
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.mcp import prepare_scenarios
from journeyman.recipes.mcp_settings import McpTrain
from journeyman.recipes.session import open_session
from journeyman.recipes.warm_start import drill_example, executed_share, is_ready
from journeyman.scenarios.drills import drills
from journeyman.types.scenarios import Scenario


@pytest.mark.parametrize(
    ("success", "with_spread", "ready"), [(0.05, 0.5, True), (0.04, 0.5, False), (0.5, 0.4, False), (None, 0.5, True), (None, 0.0, False)]
)
def test_reinforcement_learning_begins_when_some_attempts_succeed_and_enough_groups_have_spread(
    success: float | None, with_spread: float, ready: bool
) -> None:
    metrics = {"reward/with_spread": with_spread} | ({} if success is None else {"reward/success": success})
    assert is_ready(metrics, 0.05, 0.5) is ready


def test_without_any_reward_nothing_is_ready() -> None:
    assert not is_ready({}, 0.05, 0.5)
    assert executed_share([]) == 0.0


async def test_a_drill_has_the_prompt_of_an_attempt_token_for_token(model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
    async with open_session("r", settings, tmp_path, SilentProgress()) as session:
        session.store.runs.create("r", kind="mcp", base=settings.base)
        made = drills(await prepare_scenarios(session), random.Random(0), 6)
        assert {drill.answer is None for drill in made} == {True, False}
        for drill in made:
            example = drill_example(session, drill)
            token_ids, is_trained = session.backend.renderer.render_example(example.messages, example.tools)
            scenario = Scenario(id="s", task=drill.task)
            (group,) = await gather(session.agent(), [scenario], model=session.connection.base_model(), group_size=1)
            prompt = group.trajectories[0].turns[0].prompt_ids
            assert token_ids[: len(prompt)] == prompt
            assert not any(is_trained[: len(prompt)])
            assert is_trained[len(prompt)]
