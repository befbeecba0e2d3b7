"""A run whose tasks a model words: asked at the start, and only while there are no tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, scripted, serve
from tests.recipes.backend import FakeModel

from journeyman.errors import LlmError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.mcp import train
from journeyman.recipes.settings import McpTrain
from journeyman.scenarios.scenario_set import ScenarioSet


@pytest.fixture
def written(settings: McpTrain) -> McpTrain:
    return settings.model_copy(update={"writer": "big-model", "steps": 0})


def _as_writer(request: dict[str, Any]) -> Answer:
    number = re.search(r'in each of them: "(\d+)"', request["messages"][-1]["content"])
    if number is None:
        return Answer("ready")
    return Answer(json.dumps({"wordings": [f"Twice {number.group(1)}, what is it ({way})?" for way in range(4)], "difficulty": 3}))


async def test_a_writer_that_does_not_answer_ends_the_run_before_the_base_model_is_loaded(
    model: FakeModel, written: McpTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(scripted(Answer.error(401, "bad key"))) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        with pytest.raises(LlmError, match=r"the writer does not answer: .*bad key"):
            await train(written, SilentProgress(), home=tmp_path)
    assert model.trainers == []
    assert not (tmp_path / "runs").exists()


async def test_the_tasks_are_the_writers_and_going_on_with_them_needs_no_writer(
    model: FakeModel, written: McpTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(_as_writer) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        run = (await train(written, SilentProgress(), home=tmp_path)).run
        assert served.requests[0]["messages"][0]["content"] == "Reply with the word: ready"
    made = ScenarioSet.load(tmp_path / "runs" / run / "scenarios")
    # Tasks for two calls state two numbers, which this writer does not: they keep their words.
    single = [scenario for scenario in made.train if scenario.data["kind"] == "one call"]
    assert single
    assert all(scenario.task.startswith("Twice") for scenario in single)
    await train(written, SilentProgress(), home=tmp_path, resume=run)
