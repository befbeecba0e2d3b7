"""Training jobs: queued, one at a time per model, waited for, found again by their key. Not for what a job does.

One that a stopped server left unfinished is settled: done when a checkpoint holds its step, interrupted otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from journeyman.errors import JourneymanError, SettingError, StoreError, error_code
from journeyman.store.checkpoints import Checkpoint, Checkpoints
from journeyman.store.locks import RunLock
from journeyman.store.runs import INTERRUPTED, JobRow
from journeyman.store.store import Store
from journeyman.trainer.base import OnProgress
from journeyman.types.names import Version
from journeyman.types.runs import StepMetrics
from journeyman.types.training import JobStatus, TrainResult

_log = logging.getLogger(__name__)

Work = Callable[[str, OnProgress], Awaitable[TrainResult]]

_UNFINISHED = ("queued", "running")
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What identifies a job. `key` is the client's idempotency key, `body_hash` a hash of what it asked for."""

    run: str
    model: str
    kind: str
    body_hash: str
    key: str | None = None


class Jobs:
    """Runs jobs as tasks on an event loop, the store's work in threads. A job that fails keeps its error; the next one of its model runs.

    How a job ended is known here even when it could not be written (a full disk): it is written when somebody asks the next time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table = store.jobs
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # model -> whose turn it is
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, JobStatus] = {}
        self._unwritten: dict[str, JobStatus] = {}  # how jobs ended that the table still has as unfinished
        self._submitting = threading.Lock()  # two requests with one key are one job

    def submit(self, request: JobRequest, work: Work, loop: asyncio.AbstractEventLoop | None = None) -> JobStatus:
        """Queue a job, or find the one that came with the same key before. The key of a job that failed is free again.

        Blocks on the table: from an event loop, call it in a thread and say on which `loop` the job runs (None: on the running one).

        Raises SettingError when the key came with another body.
        """
        with self._submitting:
            self._write_late()
            known = None if request.key is None else self._known(request, request.key)
            if known is not None:
                return known
            status = JobStatus(id=f"job_{uuid.uuid4().hex[:16]}", state="queued")
            self._table.add(JobRow(request.run, request.model, request.kind, request.key, request.body_hash, status))
            self._live[status.id] = status
        if loop is None:
            self._start(status.id, request.model, work)
        else:
            loop.call_soon_threadsafe(self._start, status.id, request.model, work)
        return status

    def _start(self, job_id: str, model: str, work: Work) -> None:
        task = asyncio.create_task(self._run(job_id, model, work), name=job_id)
        self._tasks[job_id] = task
        task.add_done_callback(lambda _: self._forget(job_id))

    def _known(self, request: JobRequest, key: str) -> JobStatus | None:
        """The job that came with this key, unless nothing of it was kept: then a run that goes on may train something else in its place."""
        row = self._table.find(request.run, request.model, key)
        if row is None:
            return None
        status = self._unwritten.get(row.status.id) or self._live.get(row.status.id) or row.status
        if status.state == "failed":
            return None
        if row.body_hash != request.body_hash:
            raise SettingError(
                f"the idempotency key {key!r} came with another training job before",
                hint="give every job a key of its own, and repeat a job only unchanged",
                reason="idempotency_key_reused",
            )
        return status

    def get(self, job_id: str) -> JobStatus:
        """Raises NotFoundError for an unknown id. Blocks on the table."""
        ended = self._unwritten.get(job_id)
        if ended is not None:
            self._write(ended)
            return ended
        live = self._live.get(job_id)
        if live is not None:
            return live
        row = self._table.get(job_id)
        return settle_abandoned(self._store, row) if row.status.state in _UNFINISHED else row.status

    async def wait(self, job_id: str, seconds: float) -> JobStatus:
        """The status when the job ends, or after `seconds`, whichever is first."""
        task = self._tasks.get(job_id)
        if task is not None:
            await asyncio.wait([task], timeout=max(seconds, 0.0))
            return await asyncio.to_thread(self.get, job_id)
        # Not ours: over long ago, or of a process that we only hear of through the table.
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while True:
            status = await asyncio.to_thread(self.get, job_id)
            left = deadline - clock()
            if status.state not in _UNFINISHED or left <= 0:
                return status
            await asyncio.sleep(min(left, _POLL_SECONDS))

    async def close(self, timeout_seconds: float = 120.0) -> None:
        """Drop what is queued or running; each is recorded as interrupted."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
            if late:
                _log.warning("%d training jobs did not stop within %.0f s", len(late), timeout_seconds)
        for status in [status for status in self._live.values() if status.state in _UNFINISHED]:  # cancelled before its first line
            self._live[status.id] = self._unwritten[status.id] = _interrupted(status.id)
        await asyncio.to_thread(self._write_late)

    async def _run(self, job_id: str, model: str, work: Work) -> None:
        def on_progress(fraction: float) -> None:
            running = self._live.get(job_id)
            if running is not None and running.state == "running":
                self._live[job_id] = running.model_copy(update={"progress": min(max(fraction, 0.0), 1.0)})

        try:
            async with self._turns[model]:
                await self._begin(job_id)
                result = await work(job_id, on_progress)
            ended = JobStatus(id=job_id, state="done", progress=1.0, result=result)
        except asyncio.CancelledError:
            await self._end(_interrupted(job_id))
            raise
        except JourneymanError as error:
            ended = _failed(job_id, str(error), error_code(error), error.reason)
        except Exception as error:  # noqa: BLE001 - the top handler of a job: whatever it was, it becomes the job's error
            _log.exception("training job %s failed", job_id)
            ended = _failed(job_id, f"{type(error).__name__}: {error}", "failed")
        await self._end(ended)

    async def _begin(self, job_id: str) -> None:
        """Raises StoreError when it cannot be written: better now than after hours of computing."""
        status = JobStatus(id=job_id, state="running")
        self._live[job_id] = status
        await asyncio.to_thread(self._table.set_status, status)

    async def _end(self, status: JobStatus) -> None:
        """What the job did is not undone by a table that cannot be written, nor by a cancel: the status stays in memory until it is."""
        self._live[status.id] = self._unwritten[status.id] = status
        await asyncio.to_thread(self._write, status)

    def _write(self, ended: JobStatus) -> None:
        try:
            self._table.set_status(ended)
        except StoreError as error:
            _log.warning("job %s is %s, but that could not be recorded yet: %s", ended.id, ended.state, error)
        else:
            self._unwritten.pop(ended.id, None)

    def _write_late(self) -> None:
        for ended in tuple(self._unwritten.values()):
            self._write(ended)

    def _forget(self, job_id: str) -> None:
        self._tasks.pop(job_id, None)
        if self._live[job_id].state not in _UNFINISHED:
            self._live.pop(job_id)


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
    checkpoints = Checkpoints(store.home.run(job.run).checkpoints).list()
    checkpoint = next((checkpoint for checkpoint in checkpoints if checkpoint.memo.get("job") == job.status.id), None)
    if checkpoint is None:
        status = _interrupted(job.status.id)
    else:
        status = JobStatus(id=job.status.id, state="done", progress=1.0, result=_result(job, checkpoint))
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
        return settle(store, now) if now.status.state in _UNFINISHED else now.status
    except StoreError as error:
        _log.warning("job %s is over, but that could not be recorded: %s", job.status.id, error)
        return job.status
    finally:
        lock.release()


def _result(job: JobRow, checkpoint: Checkpoint) -> TrainResult:
    return TrainResult(
        step=checkpoint.step,
        adapter=str(Version(job.model, checkpoint.step)),
        metrics=checkpoint.memo.get("row", {}).get("metrics", {}),
        notes=tuple(checkpoint.memo.get("notes", ())),
    )


def _interrupted(job_id: str) -> JobStatus:
    return _failed(job_id, "the server stopped before this job ended; nothing of it was kept", INTERRUPTED)


def _failed(job_id: str, error: str, code: str, reason: str | None = None) -> JobStatus:
    return JobStatus(id=job_id, state="failed", error=error, error_code=code, error_reason=reason)
