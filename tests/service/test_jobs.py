"""How a job ended is never lost: not to a full disk, and not to a server that stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from journeyman.errors import StoreError, TrainingError
from journeyman.service.jobs import JobRequest, Jobs
from journeyman.store import Store
from journeyman.store.checkpoints import Checkpoints
from journeyman.store.locks import RunLock
from journeyman.store.runs import JobRow
from journeyman.trainer.base import OnProgress
from journeyman.types.training import JobStatus, TrainResult

REQUEST = JobRequest("r", "m", "sft", "hash", "k")
RESULT = TrainResult(step=1, adapter="m@1", metrics={"train/loss": 0.5}, notes=("a note",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as store:
        store.runs.create("r", kind="model", base="b")
        yield store


class FullDisk:
    """A jobs table that cannot write these states."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *states: str) -> None:
        write = store.jobs.set_status

        def set_status(status: JobStatus) -> None:
            if status.state in states:
                raise StoreError("cannot write the database: No space left on device", hint="free some disk space")
            write(status)

        monkeypatch.setattr(store.jobs, "set_status", set_status)
        self.free = monkeypatch.undo


async def succeed(job_id: str, on_progress: OnProgress) -> TrainResult:
    return RESULT


async def fail(job_id: str, on_progress: OnProgress) -> TrainResult:
    raise TrainingError("out of memory")


class TestFullDisk:
    async def test_a_job_is_done_though_that_could_not_be_recorded_and_is_recorded_when_it_can_be(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = FullDisk(store, monkeypatch, "done", "failed")
        jobs = Jobs(store)
        status = await jobs.wait(jobs.submit(REQUEST, succeed).id, 30)
        assert (status.state, status.result) == ("done", RESULT)
        assert jobs.get(status.id) == status
        assert store.jobs.get(status.id).status.state == "running"
        assert jobs.submit(REQUEST, fail) == status  # the same job still
        disk.free()
        assert jobs.get(status.id) == status
        assert store.jobs.get(status.id).status == status
        await jobs.close()

    async def test_the_key_of_a_job_whose_failure_could_not_be_recorded_is_free_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = FullDisk(store, monkeypatch, "done", "failed")
        jobs = Jobs(store)
        status = await jobs.wait(jobs.submit(REQUEST, fail).id, 30)
        assert (status.state, status.error) == ("failed", "out of memory")
        disk.free()
        assert (await jobs.wait(jobs.submit(REQUEST, succeed).id, 30)).state == "done"
        await jobs.close()

    async def test_a_job_whose_start_cannot_be_recorded_fails_before_anything_is_computed(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        FullDisk(store, monkeypatch, "running", "done", "failed")
        worked = asyncio.Event()

        async def work(job_id: str, on_progress: OnProgress) -> TrainResult:
            worked.set()
            return RESULT

        jobs = Jobs(store)
        status = await jobs.wait(jobs.submit(REQUEST, work).id, 30)
        assert (status.state, status.error_code, worked.is_set()) == ("failed", "store_failed", False)
        await jobs.close()

    async def test_the_last_chance_to_record_an_end_is_the_stop(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = FullDisk(store, monkeypatch, "done")
        jobs = Jobs(store)
        status = await jobs.wait(jobs.submit(REQUEST, succeed).id, 30)
        disk.free()
        await jobs.close()
        assert store.jobs.get(status.id).status.state == "done"


class TestAbandoned:
    async def test_a_job_that_was_stopped_before_its_first_line_is_interrupted(self, store: Store) -> None:
        jobs = Jobs(store)
        status = jobs.submit(REQUEST, succeed)
        await jobs.close()
        assert store.jobs.get(status.id).status.error_code == "interrupted"

    async def test_one_whose_step_is_in_a_checkpoint_is_done(self, store: Store) -> None:
        job_id = left_running(store)
        memo = {"job": job_id, "row": {"metrics": RESULT.metrics}, "notes": RESULT.notes}
        checkpoints = Checkpoints(store.home.run("r").checkpoints)
        for step, what in enumerate(({}, memo, {"job": "a later one"})):
            checkpoints.save(step, lambda folder: None, what)
        jobs = Jobs(store)
        status = await jobs.wait(job_id, 30)
        assert (status.state, status.result) == ("done", RESULT)
        assert store.jobs.get(job_id).status == status

    async def test_one_whose_step_was_not_kept_failed(self, store: Store) -> None:
        job_id = left_running(store)
        status = await Jobs(store).wait(job_id, 30)
        assert (status.state, status.error_code) == ("failed", "interrupted")
        assert store.jobs.get(job_id).status == status

    async def test_one_of_a_run_that_somebody_trains_is_left_alone_and_waited_for_as_long_as_was_asked(self, store: Store) -> None:
        job_id = left_running(store)
        lock = RunLock(store.home.run("r").lock, "r")
        started = time.monotonic()
        status = await Jobs(store).wait(job_id, 0.2)
        assert time.monotonic() - started >= 0.2
        assert (status.state, store.jobs.get(job_id).status.state) == ("running", "running")
        lock.release()

    async def test_one_that_cannot_be_settled_for_want_of_space_is_settled_later(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = left_running(store)
        disk = FullDisk(store, monkeypatch, "failed")
        jobs = Jobs(store)
        assert jobs.get(job_id).state == "running"
        disk.free()
        assert jobs.get(job_id).state == "failed"


def left_running(store: Store) -> str:
    status = JobStatus(id="job_1", state="queued")
    store.jobs.add(JobRow("r", "m", "sft", None, "hash", status))
    store.jobs.set_status(status.model_copy(update={"state": "running"}))
    return status.id
