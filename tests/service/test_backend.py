"""Engine, trainer and store together: models, training jobs and versions, with nothing lost when something fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.errors import AdapterError, NotFoundError, SettingError, StoreError
from journeyman.service.backend import Backend
from journeyman.service.requests import ChatRequest
from journeyman.service.sampling import CallContext
from journeyman.store import Store
from journeyman.types.messages import Message
from journeyman.types.settings import Grpo, LoraSettings
from journeyman.types.training import (
    CreateModel,
    CreateRollout,
    FinishRollout,
    GrpoJob,
    JobStatus,
    ScoredGroup,
    ScoredTrajectory,
    SftExample,
    SftJob,
)


class House:
    """A home folder on which backends are started one after the other, as after a stop."""

    def __init__(self, home: Path, tokenizer: Any) -> None:
        self.home = home
        self.tokenizer = tokenizer
        self.trainers: list[FakeTrainer] = []
        self.open: list[Backend] = []

    def start(self, *, base: str = "fake-model") -> Backend:
        engine = FakeEngine(lambda prompt: "hello", self.tokenizer, base=base)
        backend = Backend(engine, Renderer(self.tokenizer, 2048), Store.open(self.home), self._trainer)
        self.open.append(backend)
        return backend

    async def stop(self, backend: Backend) -> None:
        self.open.remove(backend)
        await backend.close()

    @property
    def trainer(self) -> FakeTrainer:
        return self.trainers[-1]

    def _trainer(self, request: CreateModel) -> FakeTrainer:
        self.trainers.append(FakeTrainer())
        return self.trainers[-1]


@pytest.fixture
async def house(tmp_path: Path, tiny_tokenizer: Any) -> AsyncIterator[House]:
    house = House(tmp_path / "home", tiny_tokenizer)
    yield house
    for backend in list(house.open):
        await house.stop(backend)


CREATE = CreateModel(name="m", run="r")


async def attempt(backend: Backend, model: str = "m", *, seed: int = 0, temperature: float = 1.0) -> str:
    """One finished rollout of one turn; returns the trajectory's id."""
    ticket = await backend.open_rollout(CreateRollout(model=model, scenario_id="s"))
    session = await backend.recorder.session(ticket.id, ticket.token)
    request = ChatRequest(model="agent", messages=(Message(role="user", content="hi"),), seed=seed, temperature=temperature)
    await backend.sampling.chat(request, CallContext(session, body_hash=f"{seed}", retry_count=0))
    await backend.finish_rollout(ticket.id, FinishRollout())
    return ticket.id


async def scored_group(backend: Backend, *rewards: float | None) -> ScoredGroup:
    scored = [ScoredTrajectory(trajectory_id=await attempt(backend), reward=reward) for reward in rewards]
    return ScoredGroup(scenario_id="s", trajectories=tuple(scored))


async def finish(backend: Backend, status: JobStatus) -> JobStatus:
    status = await backend.jobs.wait(status.id, 30)
    assert status.state in ("done", "failed"), "the job did not end within 30 s"
    return status


async def train_once(backend: Backend, *rewards: float | None, key: str | None = None) -> JobStatus:
    group = await scored_group(backend, *(rewards or (1.0, 0.0)))
    return await finish(backend, backend.train("m", GrpoJob(groups=(group,)), key))


def read_adapter(house: House, step: int) -> str:
    return (house.home / "runs" / "r" / "adapters" / f"m@{step}" / "adapter.json").read_text()


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
        weights = backend.weights
        assert [weights.resolve(name) for name in ("m", "m@0", "m@1", "base", "fake-model")] == [
            "m@1",
            "m@0",
            "m@1",
            None,
            None,
        ]
        for unknown in ("x", "m@7", "m@", "m@one"):
            with pytest.raises(NotFoundError):
                weights.resolve(unknown)

    async def test_other_lora_settings_are_refused_and_left_out_ones_are_not(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CreateModel(name="m", run="r", lora=LoraSettings(rank=4)))
        assert (await backend.create_model(CREATE)).lora.rank == 4
        with pytest.raises(SettingError, match="rank=4"):
            await backend.create_model(CreateModel(name="m", run="r", lora=LoraSettings(rank=8)))

    async def test_a_name_belongs_to_one_run_and_a_run_to_one_model(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        with pytest.raises(SettingError, match="open in run 'r'"):
            await backend.create_model(CreateModel(name="m", run="other"))
        with pytest.raises(SettingError, match="trains model 'm' already"):
            await backend.create_model(CreateModel(name="n", run="r"))

    async def test_a_run_is_trained_by_one_server_at_a_time(self, house: House) -> None:
        await house.start().create_model(CREATE)
        second = house.start()
        with pytest.raises(StoreError, match="being trained by another process"):
            await second.create_model(CREATE)

    async def test_a_run_of_another_base_is_refused(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await house.stop(first)
        with pytest.raises(SettingError, match="has the base model 'fake-model', this server has 'other'"):
            await house.start(base="other").create_model(CREATE)

    async def test_an_earlier_run_can_be_served_without_training_it(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await train_once(first)
        await house.stop(first)
        second = house.start()
        assert second.serve_run("r") == ("m",)
        async with second.weights.using("m") as adapter:
            assert adapter == "m@1"
            assert second.engine.adapters() == ("m@1",)
        with pytest.raises(NotFoundError, match="no trainable model 'm'"):
            second.train("m", GrpoJob(groups=()))


class TestTraining:
    async def test_a_step_publishes_the_next_version_and_logs_its_numbers(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        status = await train_once(backend, 1.0, 0.0, None)
        assert status.result is not None
        assert (status.result.step, status.result.adapter) == (1, "m@1")
        metrics = status.result.metrics
        assert metrics["train/loss"] == 0.5
        assert metrics["train/num_groups"] == 1
        assert metrics["train/num_trajectories_excluded"] == 1
        assert metrics["train/reward_mean"] == 0.5
        assert metrics["train/seconds"] > 0
        (step,) = backend.store.runs.steps("r")
        assert (step.phase, step.step, step.metrics) == ("train", 1, metrics)
        assert backend.model_info("m").step == 1
        assert backend.engine.adapters() == ("m@0", "m@1")
        assert not backend.engine.is_asleep

    async def test_segments_share_their_trajectorys_advantage(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend, 1.0, 0.0)
        ((group,),) = house.trainer.seen
        assert [sample.advantage for sample in group] == pytest.approx([1.0, -1.0], abs=1e-4)
        assert all(sample.num_sampled > 0 and len(sample.token_ids) > sample.num_sampled for sample in group)

    async def test_groups_without_spread_are_skipped_and_counted(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        flat = await scored_group(backend, 0.5, 0.5)
        spread = await scored_group(backend, 1.0, 0.0)
        status = await finish(backend, backend.train("m", GrpoJob(groups=(flat, spread))))
        assert status.result is not None
        assert status.result.metrics["train/num_groups_without_spread"] == 1
        assert len(house.trainer.seen[0]) == 1

    async def test_a_step_without_any_spread_changes_no_weight(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        status = await train_once(backend, 0.5, 0.5)
        assert status.result is not None
        assert status.result.step == 1
        assert house.trainer.seen == [()]

    async def test_trajectories_of_an_older_version_count_as_stale(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        old = await scored_group(backend, 1.0, 0.0)
        await train_once(backend)
        status = await finish(backend, backend.train("m", GrpoJob(groups=(old,))))
        assert status.result is not None
        assert status.result.metrics["train/staleness"] == 1.0

    async def test_trajectories_of_another_model_are_refused(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        group = ScoredGroup(
            scenario_id="s",
            trajectories=tuple([ScoredTrajectory(trajectory_id=await attempt(backend, "base"), reward=reward) for reward in (0.0, 1.0)]),
        )
        status = await finish(backend, backend.train("m", GrpoJob(groups=(group,))))
        assert status.error is not None
        assert "sampled by the base model, not by m" in status.error
        assert status.error_code == "invalid_setting"

    async def test_an_unknown_trajectory_fails_the_job_before_anything_is_computed(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        group = ScoredGroup(scenario_id="s", trajectories=(ScoredTrajectory(trajectory_id="nope", reward=1.0),))
        status = await finish(backend, backend.train("m", GrpoJob(groups=(group,))))
        assert (status.state, status.error_code) == ("failed", "not_found")
        assert house.trainer.seen == []

    async def test_turns_drawn_at_another_temperature_are_noted(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        ids = [await attempt(backend, temperature=0.5), await attempt(backend)]
        scored = tuple(ScoredTrajectory(trajectory_id=one, reward=float(index)) for index, one in enumerate(ids))
        job = GrpoJob(groups=(ScoredGroup(scenario_id="s", trajectories=scored),))
        status = await finish(backend, backend.train("m", job))
        assert status.result is not None
        assert status.result.metrics["train/num_turns_off_policy"] == 1
        assert "temperature" in status.result.notes[0]

    async def test_rewards_are_kept_with_the_trajectories(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        group = await scored_group(backend, 1.0, 0.25)
        await finish(backend, backend.train("m", GrpoJob(groups=(group,))))
        stored = [backend.store.rollouts.trajectory(scored.trajectory_id).reward for scored in group.trajectories]
        assert stored == [1.0, 0.25]

    async def test_examples_are_imitated_and_logged_as_warmup(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        messages = (Message(role="user", content="hi"), Message(role="assistant", content="hello"))
        status = await finish(backend, backend.train("m", SftJob(examples=(SftExample(messages=messages),))))
        assert status.result is not None
        ((sample,),) = house.trainer.seen[0]
        assert 0 < sample.num_sampled < len(sample.token_ids)
        assert [step.phase for step in backend.store.runs.steps("r")] == ["warmup"]

    async def test_an_example_without_an_answer_is_named(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        job = SftJob(examples=(SftExample(messages=(Message(role="user", content="hi"),)),))
        status = await finish(backend, backend.train("m", job))
        assert status.error is not None
        assert "example 0 has no assistant message" in status.error


class TestFailures:
    async def test_a_failed_step_leaves_everything_as_it_was(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train_once(backend)
        before = house.trainer.weight
        house.trainer.fail_with = RuntimeError("out of memory")
        status = await train_once(backend)
        assert (status.state, status.error_code) == ("failed", "training_failed")
        assert status.error is not None
        assert "step 2 of m could not be computed: RuntimeError: out of memory" in status.error
        assert (house.trainer.step, house.trainer.weight) == (1, before)
        assert backend.model_info("m").adapter == "m@1"
        assert not backend.engine.is_asleep
        after = await train_once(backend)
        assert after.result is not None
        assert after.result.step == 2

    async def test_an_engine_that_loads_something_else_publishes_nothing(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        engine = backend.engine
        assert isinstance(engine, FakeEngine)
        load = engine.load_adapter

        async def wrong(name: str, folder: Path) -> str:
            await load(name, folder)
            return "0" * 64

        monkeypatch.setattr(engine, "load_adapter", wrong)
        status = await train_once(backend)
        assert status.error_code == "adapter_failed"
        assert status.error is not None
        assert "another adapter as m@1 than was trained" in status.error
        assert (house.trainer.step, backend.model_info("m").adapter) == (0, "m@0")
        assert engine.adapters() == ("m@0",)
        monkeypatch.undo()
        assert (await train_once(backend)).state == "done"

    async def test_a_version_with_infinite_logprobs_is_not_published(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        monkeypatch.setattr("journeyman.engine.fake.fake_logprob", lambda *_: float("nan"))
        group = ScoredGroup(scenario_id="s", trajectories=())
        status = await finish(backend, backend.train("m", GrpoJob(groups=(group,))))
        assert status.error is not None
        assert "not finite" in status.error
        assert backend.weights.resolve("m") == "m@0"

    async def test_a_full_disk_at_the_checkpoint_undoes_the_step(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = house.start()
        await backend.create_model(CREATE)

        def full(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(house.trainer, "save_state", full)
        status = await train_once(backend)
        assert status.error_code == "store_failed"
        assert (house.trainer.step, house.trainer.weight) == (0, 0.0)

    async def test_a_folder_changed_by_hand_is_not_served(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await house.stop(first)
        (house.home / "runs" / "r" / "adapters" / "m@0" / "adapter.json").write_text("[9]")
        with pytest.raises(AdapterError, match="another adapter as m@0"):
            await house.start().create_model(CREATE)


class TestJobs:
    async def test_the_same_key_is_the_same_job(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        job = GrpoJob(groups=(await scored_group(backend, 1.0, 0.0),))
        first = backend.train("m", job, "k")
        assert backend.train("m", job, "k").id == first.id
        done = await finish(backend, first)
        assert backend.train("m", job, "k") == done
        assert house.trainer.step == 1
        with pytest.raises(SettingError, match="came with another training job"):
            backend.train("m", GrpoJob(groups=(), settings=Grpo(updates=2)), "k")

    async def test_jobs_of_a_model_run_one_after_the_other_and_report_progress(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        groups = (await scored_group(backend, 1.0, 0.0),)
        house.trainer.gate = threading.Event()
        first = backend.train("m", GrpoJob(groups=groups))
        second = backend.train("m", GrpoJob(groups=groups))
        await asyncio.to_thread(house.trainer.entered.wait, 30)
        assert [backend.jobs.get(job.id).state for job in (first, second)] == ["running", "queued"]
        assert (await backend.jobs.wait(first.id, 0.0)).state == "running"
        house.trainer.gate.set()
        assert [(await finish(backend, job)).state for job in (first, second)] == ["done", "done"]
        assert house.trainer.step == 2

    async def test_the_engine_sleeps_while_a_step_is_computed(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        house.trainer.gate = threading.Event()
        group = await scored_group(backend, 1.0, 0.0)
        job = backend.train("m", GrpoJob(groups=(group,)))
        await asyncio.to_thread(house.trainer.entered.wait, 30)
        assert isinstance(backend.engine, FakeEngine)
        assert backend.engine.is_asleep
        house.trainer.gate.set()
        await finish(backend, job)
        assert not backend.engine.is_asleep


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
        again = await finish(second, second.train("m", GrpoJob(groups=(group,)), "k"))
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
        second = house.start()
        assert (await second.create_model(CREATE)).adapter == "m@1"
        settled = second.jobs.get(done.id)
        assert settled.state == "done"
        assert settled.result is not None
        assert settled.result.step == 1

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
        async with backend.weights.using("m@1") as adapter:
            assert adapter == "m@1"
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
