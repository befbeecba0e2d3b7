"""Training jobs: what was asked for, and what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update

from journeyman.errors import NotFoundError
from journeyman.store.database import Database
from journeyman.store.tables import JOBS
from journeyman.types.training import JobStatus, TrainResult

#: `error_code` of a job that a stopped server left unfinished.
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job and its status. `key` is the client's idempotency key; `body_hash` tells whether it came with another body."""

    run: str
    model: str
    kind: str
    key: str | None
    body_hash: str
    status: JobStatus


class JobTable:
    """The jobs of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: JobRow) -> None:
        """Record a new job. A job under the same key that failed makes room for it."""
        now = time.time()
        with self._database.write() as connection:
            if row.key is not None:
                connection.execute(
                    delete(JOBS).where(
                        JOBS.c.run == row.run,
                        JOBS.c.model == row.model,
                        JOBS.c.key == row.key,
                        JOBS.c.state == "failed",
                    )
                )
            connection.execute(
                insert(JOBS).values(
                    id=row.status.id,
                    run=row.run,
                    model=row.model,
                    kind=row.kind,
                    key=row.key,
                    body_hash=row.body_hash,
                    state=row.status.state,
                    created_at=now,
                    updated_at=now,
                )
            )

    def get(self, job_id: str) -> JobRow:
        """Raises NotFoundError for an unknown id."""
        with self._database.read() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).first()
        if row is None:
            raise NotFoundError(f"there is no job {job_id!r}")
        return _job(row)

    def find(self, run: str, model: str, key: str) -> JobRow | None:
        query = select(JOBS).where(JOBS.c.run == run, JOBS.c.model == model, JOBS.c.key == key)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _job(row)

    def set_status(self, status: JobStatus) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(JOBS)
                .where(JOBS.c.id == status.id)
                .values(
                    state=status.state,
                    result=None if status.result is None else status.result.model_dump_json(),
                    error=status.error,
                    error_code=status.error_code,
                    error_reason=status.error_reason,
                    updated_at=time.time(),
                )
            )

    def unfinished(self, run: str, model: str) -> tuple[JobRow, ...]:
        """Jobs that a stopped server left queued or running."""
        query = select(JOBS).where(JOBS.c.run == run, JOBS.c.model == model, JOBS.c.state.in_(["queued", "running"]))
        with self._database.read() as connection:
            return tuple(_job(row) for row in connection.execute(query.order_by(JOBS.c.created_at)))


def _job(row: Row[Any]) -> JobRow:
    status = JobStatus(
        id=row.id,
        state=row.state,
        progress=1.0 if row.state == "done" else 0.0,
        result=None if row.result is None else TrainResult.model_validate_json(row.result),
        error=row.error,
        error_code=row.error_code,
        error_reason=row.error_reason,
    )
    return JobRow(row.run, row.model, row.kind, row.key, row.body_hash, status)
