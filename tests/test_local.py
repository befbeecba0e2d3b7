"""A service in this process: connected, keyed, and closed whatever happens."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import openai
import pytest
import torch

import journeyman as jm
from journeyman import config
from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.engine.local.engine import LocalEngine
from journeyman.engine.local.replicas import ReplicatedEngine
from journeyman.errors import EngineError, ModelNotFoundError, SettingError
from journeyman.local import make_lora_trainer, open_backend, serving
from journeyman.modeling import devices
from journeyman.modeling.base_models import resolve_base
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.types.sampling import SampleRequest, SamplingParameters
from journeyman.types.settings import Retention
from journeyman.types.training import CreateModel


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


async def test_what_stays_on_disk_can_be_chosen(tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[object] = []

    def open_fake(base: str, *, retention: Retention | None = None, **_: Any) -> Backend:
        chosen.append(retention)
        return fake_backend(tiny_tokenizer, tmp_path)[0]

    monkeypatch.setattr(sys.modules["journeyman.local"], "open_backend", open_fake)
    async with jm.local(retention=Retention(adapters=2)):
        assert chosen == [Retention(adapters=2)]


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


async def test_an_engine_process_that_dies_is_named_by_what_runs_and_by_what_comes(tiny_model: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    backend = await asyncio.to_thread(open_backend, str(tiny_model), home=tmp_path, num_workers=1, engine_processes=1, note=notes.append)
    try:
        assert "starting 1 engine process" in notes
        engine = backend.engine
        assert isinstance(engine, ReplicatedEngine)
        assert engine.info.num_workers == 1
        request = SampleRequest((5, 6, 7), SamplingParameters(max_tokens=400))
        stream = engine.stream(request)
        await anext(stream)
        os.kill(engine.process_ids[0], signal.SIGKILL)
        with pytest.raises(EngineError, match=r"engine process 1 of 1 \(process \d+\) was ended by SIGKILL") as caught:
            [delta async for delta in stream]
        assert "memory" in (caught.value.hint or "")
        for later in (engine.sample(request), engine.sleep()):
            with pytest.raises(EngineError, match="SIGKILL"):
                await later
    finally:
        await backend.close()


async def test_without_engine_processes_this_process_draws(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.PROCESSES_VARIABLE, "0")
    backend = await asyncio.to_thread(open_backend, str(tiny_model), home=tmp_path, num_workers=1)
    try:
        assert isinstance(backend.engine, LocalEngine)
    finally:
        await backend.close()


@pytest.mark.parametrize(
    ("given", "before", "num_workers"),
    [(None, {}, 2), (None, {"num_workers": 1}, 1), (None, {"num_workers": 99}, 2), (1, {"num_workers": 2}, 1)],
    ids=["measured", "as before", "more than there are cores", "as was asked for"],
)
def test_a_trainer_has_as_many_workers_as_the_run_had_before(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, before: dict[str, Any], num_workers: int
) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    monkeypatch.setattr(devices, "_products_per_second", lambda count, _: float(count))
    base = resolve_base(str(tiny_model), cache=tiny_model)
    trainer, computing = make_lora_trainer(base, given, CreateModel(name="m", run="r"), before)
    trainer.close()
    assert computing["num_workers"] == num_workers
    assert computing.keys() == {"num_workers", "precision", "torch"}


def test_a_number_of_engine_processes_that_cannot_be_is_refused(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="-1"):
        open_backend(str(tiny_model), home=tmp_path, engine_processes=-1)
    monkeypatch.setenv(config.PROCESSES_VARIABLE, "two")
    with pytest.raises(SettingError, match="'two'"):
        open_backend(str(tiny_model), home=tmp_path)


@pytest.mark.parametrize("is_trained", [True, False])
def test_where_models_are_trained_tokens_are_drawn_on_the_trainers_device_and_a_gpu_is_left_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_trained: bool
) -> None:
    asked: list[str] = []

    class NoEngineError(Exception):
        pass

    def create(base: object, *, device: str) -> LocalEngine:
        asked.append(device)
        raise NoEngineError

    monkeypatch.setattr(devices, "choose_device", lambda wanted="auto": "cuda" if wanted == "auto" else wanted)
    monkeypatch.setattr(LocalEngine, "create", create)
    notes: list[str] = []
    with pytest.raises(NoEngineError):
        open_backend(str(tiny_model), home=tmp_path, engine_processes=0, note=notes.append, is_trained=is_trained)
    assert asked == ["cpu" if is_trained else "cuda"]
    assert any("this machine has cuda, but models are trained on the cpu" in note for note in notes) is is_trained


async def test_the_program_around_a_local_service_keeps_its_random_numbers_threads_and_allocator(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> object:
        return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]

    limits: list[str] = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: limits.append("set"))
    example = jm.SftExample(messages=({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))  # type: ignore[arg-type]
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for step in (0, 1):  # made, and gone on with
            random.random(), numpy.random.rand(), torch.rand(1)
            before = state()
            async with jm.local(str(tiny_model), home=tmp_path, num_workers=1, engine_processes=0) as backend:
                model = await backend.model("m")
                assert model.step == step
                assert torch.get_num_threads() == 3
                if not step:
                    await model.train_sft([example])
            assert state() == before
            assert torch.get_num_threads() == 3
            with ThreadPoolExecutor(1) as new:
                assert new.submit(torch.get_num_threads).result() == 3
        assert not limits
    finally:
        torch.set_num_threads(threads_before)


async def test_a_process_that_is_given_away_is_set_up_for_training(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[str] = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: limits.append("set"))
    async with jm.local(str(tiny_model), home=tmp_path, num_workers=1, engine_processes=0, owns_process=True):
        assert limits == ["set"]
