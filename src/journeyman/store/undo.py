"""Back to an earlier step of a run: what the store says of later ones, forgotten in one transaction. Not for folders."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Integer, cast, delete, func, select, update

from journeyman.store.database import Database
from journeyman.store.models import AdapterRow, Models
from journeyman.store.tables import ADAPTERS, JOBS, ROLLOUTS, RUNS, STEPS


@dataclass(frozen=True, slots=True)
class Undone:
    """What there was of later steps: their numbers, and the versions that are published no more."""

    steps: tuple[int, ...] = ()
    adapters: tuple[AdapterRow, ...] = ()


def undo_after(database: Database, models: Models, run: str, model: str, step: int) -> Undone:
    """Forget the steps of `run` after `step`: they will be made again.

    Their rows go, measurements of their versions among them; the keys of their jobs are free for other jobs; attempts that their versions
    made are found by no key, since the versions to come may have other weights.
    """
    made_later = (JOBS.c.run == run) & (JOBS.c.model == model) & (func.json_extract(JOBS.c.result, "$.step") > step)
    with database.write() as connection:
        rows = connection.execute(select(STEPS.c.step).where(STEPS.c.run == run, STEPS.c.step > step).distinct()).scalars().all()
        adapters = tuple(row for row in models.published(connection, run, model) if row.step > step)
        connection.execute(delete(STEPS).where(STEPS.c.run == run, STEPS.c.step > step))
        connection.execute(
            update(ADAPTERS).where(ADAPTERS.c.run == run, ADAPTERS.c.model == model, ADAPTERS.c.step > step).values(state="orphaned")
        )
        connection.execute(update(JOBS).where(made_later).values(key=None))
        version = cast(func.substr(ROLLOUTS.c.model, len(model) + 2), Integer)
        of_model = ROLLOUTS.c.model.startswith(f"{model}@", autoescape=True)
        connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == run, of_model, version > step).values(key=None))
        connection.execute(update(RUNS).where(RUNS.c.id == run, RUNS.c.step > step).values(step=step, updated_at=time.time()))
    return Undone(tuple(sorted(rows)), adapters)
