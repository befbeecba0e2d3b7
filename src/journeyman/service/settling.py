"""What a stopped server left unfinished: its jobs are done when a checkpoint holds their step, interrupted otherwise. Not for jobs that
run."""

from __future__ import annotations

import logging

from journeyman.errors import StoreError
from journeyman.store.checkpoints import Checkpoint, Checkpoints
from journeyman.store.jobs import INTERRUPTED, JobRow
from journeyman.store.run_lock import RunLock
from journeyman.store.store import Store
from journeyman.types.names import Version
from journeyman.types.runs import StepMetrics
from journeyman.types.training import JobStatus, TrainResult

_log = logging.getLogger(__name__)


def settle_run(store: Store, run: str, model: str) -> None:
    """What a stopped server left of a run that is opened again: its unfinished jobs, and the row of its newest step, where a kill or a
    full disk came before that was written."""
    for job in store.jobs.unfinished(run, model):
        settle(store, job)
    newest = Checkpoints(store.home.run(run).checkpoints).newest()
    if newest is not None and "row" in newest.memo:
        store.runs.add_step(StepMetrics.model_validate(newest.memo["row"]))


def settle(store: Store, job: JobRow) -> JobStatus:
    """Record what became of a job. Only for who holds the lock of its run; raises StoreError when it cannot be recorded."""
    found = Checkpoints(store.home.run(job.run).checkpoints).list()
    made = next((checkpoint for checkpoint in found if checkpoint.memo.get("job") == job.status.id), None)
    if made is None:
        error = "the server stopped before this job ended; nothing of it was kept"
        status = JobStatus(id=job.status.id, state="failed", error=error, error_code=INTERRUPTED)
    else:
        status = JobStatus(id=job.status.id, state="done", progress=1.0, result=_result(job, made))
    store.jobs.set_status(status)
    return status


def settle_abandoned(store: Store, job: JobRow) -> JobStatus:
    """As `settle`, unless somebody trains the run, who settles its jobs himself: then, and when it cannot be recorded, as it was."""
    try:
        lock = RunLock(store.home.run(job.run).lock, job.run)
    except StoreError:
        return job.status
    try:
        now = store.jobs.get(job.status.id)  # it may have ended while nobody held the lock
        return settle(store, now) if now.status.state in ("queued", "running") else now.status
    except StoreError as error:
        _log.warning("job %s is over, but that could not be recorded: %s", job.status.id, error)
        return job.status
    finally:
        lock.release()


def _result(job: JobRow, made: Checkpoint) -> TrainResult:
    return TrainResult(
        step=made.step,
        adapter=str(Version(job.model, made.step)),
        metrics=made.memo.get("row", {}).get("metrics", {}),
        notes=tuple(made.memo.get("notes", ())),
    )
