"""Runs, the metrics of their steps, and their training jobs: what was asked for, and what became of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from journeyman.errors import NotFoundError
from journeyman.redaction import redact
from journeyman.store.database import JOBS, RUNS, STEPS, Database
from journeyman.types.names import check_name
from journeyman.types.runs import RunInfo, RunState, StepMetrics
from journeyman.types.secrets import hide_in_settings
from journeyman.types.training import JobStatus, TrainResult

#: `error_code` of a job that a stopped server left unfinished.
INTERRUPTED: Final = "interrupted"


class Runs:
    """The runs of a store. Unknown ids raise NotFoundError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, run: str, *, kind: str, base: str, settings: Mapping[str, Any] | None = None, tokenizer: str | None = None) -> RunInfo:
        """Create a run, or find the one of that id: it stays as it is. Raises InputError for an id that is no name."""
        check_name(run, "the id of a run")
        now = time.time()
        with self._database.write() as connection:
            connection.execute(
                insert(RUNS)
                .values(
                    id=run,
                    kind=kind,
                    base=base,
                    state="created",
                    phase="",
                    step=0,
                    settings=json.dumps(hide_in_settings(settings or {})),
                    created_at=now,
                    updated_at=now,
                    tokenizer=tokenizer,
                )
                .on_conflict_do_nothing()
            )
        return self.get(run)

    def get(self, run: str) -> RunInfo:
        with self._database.read() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.id == run)).first()
        if row is None:
            known = [info.id for info in self.list()]
            hint = f"known runs: {', '.join(known[:10])}" if known else "this home folder has no runs yet"
            raise NotFoundError(f"there is no run {run!r}", hint=hint, reason="no_run")
        return _info(row)

    def list(self) -> tuple[RunInfo, ...]:
        """All runs, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(RUNS).order_by(RUNS.c.created_at.desc(), RUNS.c.id))
            return tuple(_info(row) for row in rows)

    def update(
        self,
        run: str,
        *,
        state: RunState | None = None,
        phase: str | None = None,
        step: int | None = None,
        error: str | None = None,
        settings: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
    ) -> RunInfo:
        """Change what is given. A run that goes on (state "running") loses its error."""
        values: dict[str, Any] = {"updated_at": time.time()}
        shown = None if error is None else redact(error)
        changes = {"state": state, "phase": phase, "step": step, "error": shown, "tokenizer": tokenizer}
        values.update({name: value for name, value in changes.items() if value is not None})
        if state == "running":
            values["error"] = None
        if settings is not None:
            values["settings"] = json.dumps(hide_in_settings(settings))
        with self._database.write() as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run).values(**values))
        return self.get(run)

    def add_step(self, row: StepMetrics) -> None:
        """Keep the row of a step. It is written once: one that is there stays as it is."""
        self.get(row.run)
        values = {"metrics": json.dumps(row.metrics), "settings": json.dumps(row.settings) if row.settings else None}
        with self._database.write() as connection:
            connection.execute(
                insert(STEPS).values(run=row.run, phase=row.phase, step=row.step, time=row.time, **values).on_conflict_do_nothing()
            )

    def steps(self, run: str, phase: str | None = None) -> tuple[StepMetrics, ...]:
        """The metrics of a run in the order of time."""
        self.get(run)
        query = select(STEPS).where(STEPS.c.run == run)
        if phase is not None:
            query = query.where(STEPS.c.phase == phase)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(STEPS.c.time, STEPS.c.step)).all()
        return tuple(_step(row) for row in rows)


def _step(row: Row[Any]) -> StepMetrics:
    settings = json.loads(row.settings) if row.settings else {}
    return StepMetrics(run=row.run, phase=row.phase, step=row.step, time=row.time, metrics=json.loads(row.metrics), settings=settings)


def _info(row: Row[Any]) -> RunInfo:
    return RunInfo(
        id=row.id,
        kind=row.kind,
        base=row.base,
        state=row.state,
        created_at=row.created_at,
        updated_at=row.updated_at,
        settings=hide_in_settings(json.loads(row.settings)),  # older versions kept secrets
        phase=row.phase,
        step=row.step,
        error=row.error,
        tokenizer=row.tokenizer,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, by its dotted name, before and after."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before or 'not set'} -> {self.after or 'not set'}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What differs between two settings, by dotted name.

    Example:
        >>> [str(change) for change in differences({"grpo": {"updates": 1}, "seed": 0}, {"grpo": {"updates": 2}, "seed": 0})]
        ['grpo.updates: 1 -> 2']
    """
    old, new = flat(before), flat(after)
    names = sorted(old.keys() | new.keys())
    return tuple(Change(name, old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name))


def flat(settings: object, prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted name."""
    if not isinstance(settings, Mapping):
        return {prefix: str(settings)}
    out: dict[str, str] = {}
    for name, value in settings.items():
        out |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return out


# Jobs -----------------------------------------------------------------------------------------------------------------


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
            raise NotFoundError(f"there is no job {job_id!r}", reason="no_job")
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
