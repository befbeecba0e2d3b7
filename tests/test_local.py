"""A service in this process: connected, keyed, and closed whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

import journeyman as jm
from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.errors import ModelNotFoundError, SettingError
from journeyman.local import serving
from journeyman.service.backend import Backend
from journeyman.store import Store


def fake_backend(tokenizer: Any, home: Path) -> tuple[Backend, FakeEngine]:
    engine = FakeEngine(lambda _: "It is noon.", tokenizer, context_length=512)
    return Backend(engine, Renderer(tokenizer, 512), Store.open(home), None), engine


async def test_a_rollout_runs_against_the_service_in_this_process(tiny_tokenizer: Any, tmp_path: Path) -> None:
    backend, engine = fake_backend(tiny_tokenizer, tmp_path)

    async def rollout(scenario: jm.Scenario, run: jm.Rollout) -> None:
        messages: Any = [{"role": "user", "content": scenario.task}]
        reply = await run.openai().chat.completions.create(model=run.model, messages=messages)
        run.reward = float(len(reply.choices[0].message.content or ""))

    async with serving(backend) as connection:
        assert (await connection.health())["status"] == "ok"
        scenarios = [jm.Scenario(id="s", task="What time is it?")]
        (group,) = await jm.gather(rollout, scenarios, model=connection.base_model(), group_size=3)
    assert [trajectory.answer for trajectory in group] == ["It is noon."] * 3
    assert group.rewards == (11.0, 11.0, 11.0)
    assert engine.is_closed


async def test_other_users_of_this_machine_need_the_key(tiny_tokenizer: Any, tmp_path: Path) -> None:
    backend, _ = fake_backend(tiny_tokenizer, tmp_path)
    async with serving(backend) as connection, openai.AsyncOpenAI(base_url=connection.openai_url, api_key="x") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_everything_is_closed_when_the_block_raises(tiny_tokenizer: Any, tmp_path: Path) -> None:
    backend, engine = fake_backend(tiny_tokenizer, tmp_path)
    with pytest.raises(ZeroDivisionError):
        async with serving(backend):
            raise ZeroDivisionError
    assert engine.is_closed


async def test_a_server_without_trainer_says_so(tiny_tokenizer: Any, tmp_path: Path) -> None:
    backend, _ = fake_backend(tiny_tokenizer, tmp_path)
    async with serving(backend) as connection:
        with pytest.raises(SettingError, match="only serves"):
            await connection.model("m")


async def test_an_unknown_base_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        async with jm.local(base="smollm3-135m", home=tmp_path):
            pass
