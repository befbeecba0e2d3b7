"""Training jobs: queued, one at a time per model, waited for, found again by their key. Not for what a job does."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from journeyman.errors import JourneymanError, SettingError, StoreError, error_code
from journeyman.store.jobs import INTERRUPTED, JobRow, JobTable
from journeyman.trainer.base import OnProgress
from journeyman.types.training import JobStatus, TrainResult

_log = logging.getLogger(__name__)

Work = Callable[[str, OnProgress], Awaitable[TrainResult]]
Settle = Callable[[JobRow], JobStatus]

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
    """Runs jobs as tasks on the current event loop. A job that fails keeps its error; the next one of its model runs.

    How a job ended is known here even when it could not be written (a full disk): it is written when somebody asks the next time.

    Args:
        settle: what became of an unfinished job that no task here works on; None: it stays as the table has it.
    """

    def __init__(self, table: JobTable, settle: Settle | None = None) -> None:
        self._table = table
        self._settle = settle
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # model -> whose turn it is
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, JobStatus] = {}
        self._unwritten: dict[str, JobStatus] = {}  # how jobs ended that the table still has as unfinished

    def submit(self, request: JobRequest, work: Work) -> JobStatus:
        """Queue a job, or find the one that came with the same key before. The key of a job that failed is free again.

        Raises SettingError when the key came with another body.
        """
        self._write_late()
        if request.key is not None:
            known = self._table.find(request.run, request.model, request.key)
            status = None if known is None else self._known(known.status)
            # Nothing of a failed or interrupted job was kept, so a run that goes on may train something else in its place.
            if known is not None and status is not None and status.state != "failed":
                if known.body_hash != request.body_hash:
                    raise SettingError(
                        f"the idempotency key {request.key!r} came with another training job before",
                        hint="give every job a key of its own, and repeat a job only unchanged",
                    )
                return status
        status = JobStatus(id=f"job_{uuid.uuid4().hex[:16]}", state="queued")
        self._table.add(JobRow(request.run, request.model, request.kind, request.key, request.body_hash, status))
        self._live[status.id] = status
        task = asyncio.create_task(self._run(status.id, request.model, work), name=status.id)
        self._tasks[status.id] = task
        task.add_done_callback(lambda _: self._forget(status.id))
        return status

    def get(self, job_id: str) -> JobStatus:
        """Raises NotFoundError for an unknown id."""
        ended = self._unwritten.get(job_id)
        if ended is not None:
            self._write(ended)
            return ended
        live = self._live.get(job_id)
        if live is not None:
            return live
        row = self._table.get(job_id)
        return self._settle(row) if self._settle is not None and row.status.state in _UNFINISHED else row.status

    async def wait(self, job_id: str, seconds: float) -> JobStatus:
        """The status when the job ends, or after `seconds`, whichever is first."""
        task = self._tasks.get(job_id)
        if task is not None:
            await asyncio.wait([task], timeout=max(seconds, 0.0))
            return self.get(job_id)
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
        self._write_late()

    async def _run(self, job_id: str, model: str, work: Work) -> None:
        def on_progress(fraction: float) -> None:
            running = self._live.get(job_id)
            if running is not None and running.state == "running":
                self._live[job_id] = running.model_copy(update={"progress": min(max(fraction, 0.0), 1.0)})

        try:
            async with self._turns[model]:
                self._begin(job_id)
                result = await work(job_id, on_progress)
            self._end(JobStatus(id=job_id, state="done", progress=1.0, result=result))
        except asyncio.CancelledError:
            self._interrupt(job_id)
            raise
        except JourneymanError as error:
            self._fail(job_id, str(error), error_code(error))
        except Exception as error:  # noqa: BLE001 - the top handler of a job: whatever it was, the job's owner is told
            _log.exception("training job %s failed", job_id)
            self._fail(job_id, f"{type(error).__name__}: {error}", "failed")

    def _begin(self, job_id: str) -> None:
        """Raises StoreError when it cannot be written: better now than after hours of computing."""
        status = JobStatus(id=job_id, state="running")
        self._live[job_id] = status
        self._table.set_status(status)

    def _interrupt(self, job_id: str) -> None:
        self._fail(job_id, "the server stopped before this job ended; nothing of it was kept", INTERRUPTED)

    def _fail(self, job_id: str, error: str, code: str) -> None:
        self._end(JobStatus(id=job_id, state="failed", error=error, error_code=code))

    def _end(self, status: JobStatus) -> None:
        """What the job did is not undone by a table that cannot be written: the status stays in memory until it can."""
        self._live[status.id] = self._unwritten[status.id] = status
        self._write(status)

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

    def _known(self, status: JobStatus) -> JobStatus:
        return self._unwritten.get(status.id) or self._live.get(status.id) or status

    def _forget(self, job_id: str) -> None:
        if self._live[job_id].state in _UNFINISHED:  # cancelled before its first line
            self._interrupt(job_id)
        self._tasks.pop(job_id, None)
        self._live.pop(job_id, None)
