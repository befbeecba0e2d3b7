"""Training jobs: what reaches the trainer, what is published, and what stays as it was when something fails."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.reasons import has_reason
from tests.service.house import CREATE, House, attempt, finish, scored_group, served_version, train_once

from journeyman.engine.fake import FakeEngine
from journeyman.errors import AdapterError, SettingError, StoreError
from journeyman.service.backend import Backend
from journeyman.store.checkpoints import Checkpoints
from journeyman.types.messages import Message
from journeyman.types.settings import Grpo, Sft
from journeyman.types.training import (
    GrpoJob,
    LossJob,
    ScoredGroup,
    ScoredTrajectory,
    SftExample,
    SftJob,
    TextExample,
)


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

    async def test_findings_are_noted_with_the_step_that_first_shows_them(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        noted = []
        for rewards in ((1.0, 0.0), *[(0.5, 0.5)] * 6):
            status = await train_once(backend, *rewards)
            assert status.result is not None
            noted.append([note.partition(":")[0] for note in status.result.notes])
        # Of one group a step five without spread are said to be too many.
        assert noted == [[], [], [], [], [], ["no_spread"], []]

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
        counts = [status.result.metrics[f"train/staleness_{steps}"] for steps in ("0", "1", "2_or_more")]
        assert counts == [0.0, 2.0, 0.0]
        status = await finish(backend, backend.train("m", GrpoJob(groups=(old, await scored_group(backend, 1.0, 0.5, 0.0)))))
        assert status.result is not None
        assert [status.result.metrics[f"train/staleness_{steps}"] for steps in ("0", "1", "2_or_more")] == [3.0, 0.0, 2.0]

    async def test_trajectories_of_another_model_are_refused(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        group = ScoredGroup(
            scenario_id="s",
            trajectories=tuple([ScoredTrajectory(trajectory_id=await attempt(backend, "base"), reward=reward) for reward in (0.0, 1.0)]),
        )
        status = await finish(backend, backend.train("m", GrpoJob(groups=(group,))))
        assert status.error is not None
        assert status.error_reason == "other_model"
        assert status.error_code == "invalid_setting"

    async def test_trajectories_of_a_version_that_was_undone_are_refused(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        for _ in range(2):
            await train_once(first)
        undone = await scored_group(first, 1.0, 0.0)
        kept = await first.recorder.trajectory(undone.trajectories[0].trajectory_id)
        assert (kept.run, kept.turns[0].adapter, kept.turns[0].fingerprint) == ("r", "m@2", first.weights.models["m"][2].fingerprint)
        await house.stop(first)
        (house.home / "runs" / "r" / "checkpoints" / "step-000002" / "checkpoint.json").unlink()
        second = house.start()
        await second.create_model(CREATE)
        house.trainer.weight += 0.125  # the step is made again, differently
        for step in (1, 2):  # before there is such a version again, and after
            assert (await second.create_model(CREATE)).step == step
            status = await finish(second, second.train("m", GrpoJob(groups=(undone,))))
            assert status.error_code == "invalid_setting"
            assert all(text in str(status.error) for text in (kept.id, "m@2"))
            await train_once(second)

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
        assert status.error_reason == "nothing_to_train"
        assert "example 0" in (status.error or "")


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
        assert status.error_reason == "step_failed"
        assert "RuntimeError: out of memory" in (status.error or "")
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
        assert status.error_reason == "other_weights"
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
        assert status.error_reason == "not_finite"
        assert served_version(backend, "m") == "m@0"

    async def test_a_full_disk_at_the_checkpoint_undoes_the_step(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = house.start()
        await backend.create_model(CREATE)

        def full(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(house.trainer, "save_state", full)
        status = await train_once(backend)
        assert status.error_code == "store_failed"
        assert (house.trainer.step, house.trainer.weight) == (0, 0.0)

    async def test_what_was_measured_of_a_step_is_in_its_row_and_the_services_names_win(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        status = await train_once(backend, measured={"reward/mean": 0.5, "train/num_groups": 99.0})
        (row,) = backend.store.runs.steps("r")
        assert status.result is not None
        assert row.metrics == status.result.metrics
        assert (row.metrics["reward/mean"], row.metrics["train/num_groups"]) == (0.5, 1.0)

    async def test_metrics_that_cannot_be_kept_do_not_undo_a_served_step(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = house.start()
        await backend.create_model(CREATE)

        def full(metrics: object) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(backend.store.runs, "add_step", full)
        status = await train_once(backend)
        assert status.result is not None
        assert "the disk is full" in status.result.notes[-1]
        assert backend.model_info("m").adapter == "m@1"

    async def test_a_folder_changed_by_hand_is_not_served(self, house: House) -> None:
        first = house.start()
        await first.create_model(CREATE)
        await house.stop(first)
        (house.home / "runs" / "r" / "adapters" / "m@0" / "adapter.json").write_text("[9]")
        server = house.start()
        server.serve_run("r")
        with pytest.raises(AdapterError, check=has_reason("other_weights")):
            async with server.weights.using("m"):
                pass


class TestJobs:
    async def test_the_same_key_is_the_same_job(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        job = GrpoJob(groups=(await scored_group(backend, 1.0, 0.0),))
        first = backend.train("m", job, "k")
        assert backend.train("m", job, "k").id == first.id
        done = await finish(backend, first)
        assert backend.train("m", job, "k") == done
        assert backend.train("m", job.model_copy(update={"measured": {"rollout/seconds": 2.0}}), "k") == done
        assert house.trainer.step == 1
        with pytest.raises(SettingError, check=has_reason("idempotency_key_reused")):
            backend.train("m", GrpoJob(groups=(), settings=Grpo(updates=2)), "k")

    async def test_the_key_of_a_failed_job_is_free_again(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        house.trainer.fail_with = MemoryError("no memory")
        assert (await train_once(backend, key="k")).state == "failed"
        assert (await train_once(backend, key="k")).state == "done"
        assert house.trainer.step == 1

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


class TestMeasuring:
    async def test_the_loss_of_examples_is_measured_and_nothing_changes(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        messages = (Message(role="user", content="hi"), Message(role="assistant", content="hello"))
        status = await finish(backend, backend.train("m", LossJob(examples=(SftExample(messages=messages), TextExample(text="a")))))
        assert status.result is not None
        assert (status.result.step, status.result.adapter, status.result.metrics) == (0, "m@0", {"loss": 0.125})
        ((first, second),) = house.trainer.seen[0]
        assert (first.num_sampled, second.num_sampled) > (0, 0)
        assert backend.model_info("m").step == 0
        assert backend.store.runs.steps("r") == ()

    async def test_an_example_that_cannot_be_measured_is_named(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        status = await finish(backend, backend.train("m", LossJob(examples=(TextExample(text=""),))))
        assert (status.state, status.error_code) == ("failed", "invalid_input")
        assert (status.error_reason, "example 0" in (status.error or "")) == ("nothing_to_train", True)


class TestSettingsOfJobs:
    async def test_they_are_kept_in_the_checkpoint_and_with_the_step(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await finish(backend, backend.train("m", SftJob(examples=(TextExample(text="a"),), settings=Sft(epochs=2))))
        await train_with(backend, Grpo(learning_rate=0.25))
        first, second = backend.store.runs.steps("r")
        assert first.settings["sft"]["epochs"] == 2
        assert second.settings == {"grpo": Grpo(learning_rate=0.25).model_dump(mode="json")}
        newest = Checkpoints(backend.store.home.run("r").checkpoints).newest()
        assert newest is not None
        assert newest.memo["job_settings"] == first.settings | second.settings

    async def test_other_settings_than_in_the_step_before_are_told_once_also_after_a_restart(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        assert await train_with(backend, Grpo(learning_rate=0.25)) == ()
        assert await train_with(backend, Grpo(learning_rate=0.25)) == ()
        (note,) = await train_with(backend, Grpo(learning_rate=0.2, loss="grpo", max_logprob_gap=9.0))
        assert "grpo.loss.kind: dapo -> grpo; grpo.max_logprob_gap: " in note
        assert "learning_rate" not in note
        assert await train_with(backend, Grpo(learning_rate=0.2, loss="grpo", max_logprob_gap=8.0)) == ()
        await house.stop(backend)
        backend = house.start()
        await backend.create_model(CREATE)
        (note,) = await train_with(backend, Grpo(learning_rate=0.2, loss="grpo", max_logprob_gap=7.0))
        assert "grpo.max_logprob_gap: 8.0 -> 7.0 (" in note
        assert await train_with(backend, Grpo(learning_rate=0.05, loss="grpo")) == ()

    async def test_jobs_of_two_kinds_are_not_compared_with_each_other(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        for number in range(2):
            status = await finish(backend, backend.train("m", SftJob(examples=(TextExample(text=f"{number}"),))))
            assert status.result is not None
            assert status.result.notes == ()
            assert await train_with(backend, Grpo(learning_rate=0.25)) == ()


async def train_with(backend: Backend, settings: Grpo) -> tuple[str, ...]:
    group = await scored_group(backend, 1.0, 0.0)
    status = await finish(backend, backend.train("m", GrpoJob(groups=(group,), settings=settings)))
    assert status.result is not None
    return status.result.notes
