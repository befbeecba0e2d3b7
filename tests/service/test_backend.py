"""Models are opened, resumed and served by version; nothing is lost when a process stops."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.reasons import has_reason
from tests.service.house import CREATE, House, finish, read_adapter, scored_group, served_version, train_once

from journeyman.errors import InputError, NotFoundError, ServiceError, SettingError, StoreError
from journeyman.service.backend import Backend
from journeyman.service.capture import Recorder
from journeyman.service.requests import ChatRequest
from journeyman.service.sampling import CallContext
from journeyman.store import Store
from journeyman.store.home import HomeFolder
from journeyman.types.messages import Message
from journeyman.types.settings import LoraSettings
from journeyman.types.training import (
    CreateModel,
    CreateRollout,
    FinishRollout,
    GrpoJob,
    JobStatus,
    KeptAttempt,
    RolloutTicket,
    SftJob,
    TextExample,
)
from journeyman.types.trajectory import Failure, Verdict


class TestModels:
    async def test_a_new_model_is_served_at_step_0_and_creating_it_again_finds_it(self, house: House) -> None:
        backend = house.start()
        info = await backend.create_model(CREATE)
        assert (info.step, info.adapter, info.base) == (0, "m@0", "fake-model")
        assert await backend.create_model(CREATE) == info
        assert len(house.trainers) == 1
        assert backend.engine.adapters() == ("m@0",)

    async def test_names_resolve_to_versions(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend)
        assert [served_version(backend, name) for name in ("m", "m@0", "m@1", "base", "fake-model")] == [
            "m@1",
            "m@0",
            "m@1",
            None,
            None,
        ]
        for unknown in ("x", "m@7", "m@", "m@one", "m@01", "m@١"):
            with pytest.raises(NotFoundError):
                backend.weights.find(unknown)

    async def test_other_lora_settings_are_refused_and_left_out_ones_are_not(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CreateModel(name="m", run="r", lora=LoraSettings(rank=4)))
        assert (await backend.create_model(CREATE)).lora.rank == 4
        with pytest.raises(SettingError, check=has_reason("other_lora")):
            await backend.create_model(CreateModel(name="m", run="r", lora=LoraSettings(rank=8)))

    async def test_a_name_belongs_to_one_run_and_a_run_to_one_model(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        with pytest.raises(SettingError, check=has_reason("model_name_taken")):
            await backend.create_model(CreateModel(name="m", run="other"))
        with pytest.raises(SettingError, check=has_reason("run_taken")):
            await backend.create_model(CreateModel(name="n", run="r"))

    async def test_a_model_that_an_earlier_version_let_be_called_as_the_base_is_not_served_as_the_base(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await house.stop(first)
        for name in ("base", "fake-model"):
            with sqlite3.connect(house.home / "journeyman.db") as connection:
                connection.execute("UPDATE models SET name = ?", (name,))
            connection.close()
            backend = house.start()
            with pytest.raises(InputError) as caught:
                backend.serve_run("r")
            assert caught.value.reason == "reserved_name"
            await house.stop(backend)

    async def test_versions_of_another_run_never_stand_for_those_of_a_served_model(self, house: House) -> None:
        for run in ("r", "other"):
            first = house.start()
            await first.create_model(CreateModel(name="m", run=run))
            await house.stop(first)
        backend = house.start()
        backend.serve_run("r")
        with pytest.raises(SettingError) as caught:
            backend.serve_run("other")
        assert caught.value.reason == "model_name_taken"
        with pytest.raises(SettingError):
            await backend.create_model(CreateModel(name="m", run="other"))
        assert served_version(backend, "m") == "m@0"

    async def test_a_run_is_trained_by_one_server_at_a_time(self, house: House) -> None:
        await house.start().create_model(CREATE)
        second = house.start()
        with pytest.raises(StoreError, check=has_reason("run_in_use")):
            await second.create_model(CREATE)

    async def test_a_run_of_another_base_is_refused(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await house.stop(first)
        with pytest.raises(SettingError, check=has_reason("other_base")):
            await house.start(base="other").create_model(CREATE)

    async def test_an_earlier_run_can_be_served_without_training_it(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await train_once(first)
        await house.stop(first)
        second = house.start()
        assert second.serve_run("r") == ("m",)
        async with second.weights.using("m") as version:
            assert version is not None
            assert (version.name, version.run) == ("m@1", "r")
            assert second.engine.adapters() == ("m@1",)
        with pytest.raises(NotFoundError, check=has_reason("no_model")):
            second.train("m", GrpoJob(groups=()))


class TestResume:
    async def test_a_stopped_run_goes_on_where_it_was(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        for _ in range(3):
            await train_once(first)
        weight, adapter = house.trainer.weight, read_adapter(house, 3)
        await house.stop(first)
        second = house.start()
        info = await second.create_model(CREATE)
        assert (info.step, info.adapter, house.trainer.weight) == (3, "m@3", weight)
        assert read_adapter(house, 3) == adapter
        status = await train_once(second)
        assert status.result is not None
        assert status.result.adapter == "m@4"

    async def test_stopping_in_the_middle_of_a_step_drops_it(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await train_once(first)
        group = await scored_group(first, 1.0, 0.0)
        house.trainer.gate = gate = threading.Event()
        house.trainer.entered.clear()
        job = first.train("m", GrpoJob(groups=(group,)), "k")
        await asyncio.to_thread(house.trainer.entered.wait, 30)
        closing = asyncio.create_task(house.stop(first))
        await asyncio.sleep(0)
        gate.set()
        await closing
        second = house.start()
        assert (await second.create_model(CREATE)).step == 1
        status = second.jobs.get(job.id)
        assert (status.state, status.error_code) == ("failed", "interrupted")
        other = await scored_group(second, 0.0, 1.0)  # a run that goes on has attempted its scenarios anew
        again = await finish(second, second.train("m", GrpoJob(groups=(other,)), "k"))
        assert again.result is not None
        assert again.result.step == 2

    async def test_a_kill_between_checkpoint_and_publish_is_made_good(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        done = await train_once(first)
        await house.stop(first)
        with Store.open(house.home) as store:  # as if killed before the version and the job's end were recorded
            store.models.orphan_adapters("r", "m", after_step=0)
            store.jobs.set_status(JobStatus(id=done.id, state="running"))
        with contextlib.closing(sqlite3.connect(HomeFolder(house.home).database, isolation_level=None)) as database:
            database.execute("DELETE FROM steps")
        second = house.start()
        assert (await second.create_model(CREATE)).adapter == "m@1"
        (row,) = second.store.runs.steps("r", "train")
        assert (row.step, row.metrics["train/num_groups"]) == (1, 1.0)
        settled = second.jobs.get(done.id)
        assert settled.state == "done"
        assert settled.result is not None
        assert settled.result.step == 1

    async def test_a_job_of_a_stopped_server_is_settled_when_it_is_asked_for_though_its_model_is_not_open(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        done = await train_once(first)
        await house.stop(first)
        with Store.open(house.home) as store:
            store.jobs.set_status(JobStatus(id=done.id, state="running"))
        second = house.start()
        settled = await second.jobs.wait(done.id, 30)
        assert settled.state == "done"
        assert settled.result is not None
        assert (settled.result.step, settled.result.adapter) == (1, "m@1")
        (row,) = second.store.runs.steps("r", "train")
        assert "train/seconds" in row.metrics
        assert (await second.create_model(CREATE)).adapter == "m@1"

    async def test_versions_after_a_lost_checkpoint_are_set_aside(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await train_once(first)
        await train_once(first)
        await house.stop(first)
        (house.home / "runs" / "r" / "checkpoints" / "step-000002" / "checkpoint.json").unlink()
        second = house.start()
        assert (await second.create_model(CREATE)).adapter == "m@1"
        status = await train_once(second)
        assert status.result is not None
        assert status.result.adapter == "m@2"


class TestVersions:
    async def test_old_versions_are_unloaded_but_stay_on_disk_and_come_back_when_asked_for(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        for _ in range(4):
            await train_once(backend)
        assert backend.engine.adapters() == ("m@0", "m@3", "m@4")
        async with backend.weights.using("m@1"):
            assert "m@1" in backend.engine.adapters()

    async def test_a_version_that_an_open_rollout_uses_stays_loaded(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend)
        ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id="s"))
        assert ticket.model == "m@1"
        for _ in range(3):
            await train_once(backend)
        assert "m@1" in backend.engine.adapters()
        await backend.finish_rollout(ticket.id, FinishRollout())
        await train_once(backend)
        assert "m@1" not in backend.engine.adapters()

    async def test_the_base_needs_no_version(self, house: House) -> None:
        backend = house.start()
        ticket = await backend.open_rollout(CreateRollout(model="base", scenario_id="s"))
        assert ticket.model == "base"


class TestRolloutsOfAnEarlierServer:
    async def call(self, backend: Backend, ticket: RolloutTicket, number: int = 0) -> str | None:
        session = await backend.recorder.session(ticket.id, ticket.token)
        request = ChatRequest(model="agent", messages=(Message(role="user", content="hi"),))
        return (await backend.sampling.chat(request, CallContext(session, body_hash=f"{number}"))).turns[0].adapter

    async def test_go_on_with_the_very_version_that_they_began_with(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        used, unused = [await backend.open_rollout(CreateRollout(model="m", scenario_id="s")) for _ in range(2)]
        assert await self.call(backend, used) == "m@0"
        await house.stop(backend)
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend)
        assert [await self.call(backend, used, 1), await self.call(backend, unused)] == ["m@0", "m@0"]

    async def test_draw_nothing_from_a_version_of_that_name_of_another_run(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id="s"))
        await house.stop(backend)
        backend = house.start()
        await backend.create_model(CreateModel(name="m", run="other"))
        with pytest.raises(ServiceError) as caught:
            await self.call(backend, ticket)
        assert (caught.value.status, caught.value.reason) == (410, "other_weights")
        assert (await backend.finish_rollout(ticket.id, FinishRollout())).turns == ()

    async def test_draw_nothing_from_a_version_that_was_made_again(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend)
        ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id="s"))
        assert await self.call(backend, ticket) == "m@1"
        await house.stop(backend)
        shutil.rmtree(house.home / "runs" / "r" / "checkpoints" / "step-000001")
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 0
        await finish(backend, backend.train("m", SftJob(examples=(TextExample(text="other weights"),))))
        with pytest.raises(ServiceError) as caught:
            await self.call(backend, ticket, 1)
        assert (caught.value.status, caught.value.reason) == (410, "other_weights")

    async def test_draw_nothing_from_a_base_with_another_tokenizer(self, house: House, tmp_path: Path) -> None:
        with Store.open(tmp_path / "home") as store:
            before, now = Recorder(store, tokenizer="a"), Recorder(store, tokenizer="b")
            ticket = await before.open(CreateRollout(model="base", scenario_id="s"))
            with pytest.raises(ServiceError) as caught:
                await now.session(ticket.id, ticket.token)
        assert (caught.value.status, caught.value.reason) == (410, "other_tokenizer")


class TestKeptAttempts:
    async def sealed(self, backend: Backend, key: str, failure: Failure | None = None) -> str:
        ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id="s", key=key))
        await backend.finish_rollout(ticket.id, FinishRollout(error=failure))
        return ticket.id

    async def test_finished_attempts_are_found_by_key_as_long_as_their_version_is_the_newest(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        first = await self.sealed(backend, "step/0")
        await self.sealed(backend, "step/0")
        await backend.open_rollout(CreateRollout(model="m", scenario_id="s", key="step/1"))
        await house.stop(backend)
        backend = house.start()
        await backend.create_model(CREATE)
        assert await backend.kept_attempts("m", "step") == (KeptAttempt(key="step/0", scenario_id="s", trajectory_id=first),)
        await train_once(backend)
        assert await backend.kept_attempts("m", "step") == ()
        assert len(await backend.kept_attempts("m@0", "step")) == 1

    async def test_attempts_that_were_cut_off_count_only_when_they_were_judged(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        cancelled = Failure(type="CancelledError", message="the attempt was cancelled")
        await self.sealed(backend, "step/0", cancelled)
        judged = await self.sealed(backend, "step/1", cancelled)
        backend.store.rollouts.set_rewards({judged: None}, {judged: Verdict(judge="j")})
        overflown = await self.sealed(backend, "step/2", Failure(type="ContextLengthError", message="no room"))
        again = await self.sealed(backend, "step/0")
        kept = {one.key: one.trajectory_id for one in await backend.kept_attempts("m", "step")}
        assert kept == {"step/0": again, "step/1": judged, "step/2": overflown}

    async def test_attempts_of_the_base_take_no_key(self, house: House) -> None:
        backend = house.start()
        with pytest.raises(SettingError, check=has_reason("base_has_no_run")):
            await backend.open_rollout(CreateRollout(model="base", scenario_id="s", key="k"))
        with pytest.raises(SettingError, check=has_reason("base_has_no_run")):
            await backend.kept_attempts("base", "k")
