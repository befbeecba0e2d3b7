"""Trainable models and their published versions (adapters)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.sqlite import insert

from journeyman.store.database import ADAPTERS, MODELS, Database
from journeyman.types.names import Version, check_model_name
from journeyman.types.settings import LoraSettings


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A trainable model: one per run and name."""

    run: str
    name: str
    base: str
    lora: LoraSettings


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """A version on disk, published once it is in the store. `folder` is absolute; `fingerprint` is the one the trainer gave when it wrote
    it."""

    run: str
    model: str
    step: int
    folder: Path
    fingerprint: str
    created_at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """`model@step`: what the engine and the turns call it."""
        return str(Version(self.model, self.step))


class Models:
    """The models and adapters of a store."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database = database
        self._home = home

    def create(self, model: ModelRow) -> ModelRow:
        """Record a model, or find the one of that run and name: it stays as it is. Raises InputError for a name that means the base."""
        check_model_name(model.name, model.base)
        with self._database.write() as connection:
            connection.execute(
                insert(MODELS)
                .values(
                    run=model.run,
                    name=model.name,
                    base=model.base,
                    lora=model.lora.model_dump_json(),
                    created_at=time.time(),
                )
                .on_conflict_do_nothing()
            )
        stored = self.find(model.run, model.name)
        assert stored is not None
        return stored

    def find(self, run: str, name: str) -> ModelRow | None:
        with self._database.read() as connection:
            row = connection.execute(select(MODELS).where(MODELS.c.run == run, MODELS.c.name == name)).first()
        return None if row is None else _model(row)

    def list(self, run: str | None = None) -> tuple[ModelRow, ...]:
        query = select(MODELS) if run is None else select(MODELS).where(MODELS.c.run == run)
        with self._database.read() as connection:
            return tuple(_model(row) for row in connection.execute(query.order_by(MODELS.c.created_at)))

    def add_adapter(self, row: AdapterRow) -> None:
        """Publish a version. Its folder lies under the home folder."""
        values = {
            "folder": row.folder.relative_to(self._home).as_posix(),
            "fingerprint": row.fingerprint,
            "state": "published",
            "created_at": row.created_at,
        }
        with self._database.write() as connection:
            connection.execute(
                insert(ADAPTERS)
                .values(run=row.run, model=row.model, step=row.step, **values)
                .on_conflict_do_update(index_elements=["run", "model", "step"], set_=values)
            )

    def adapters(self, run: str, model: str) -> tuple[AdapterRow, ...]:
        """The published versions of a model, the oldest first."""
        with self._database.read() as connection:
            return self.published(connection, run, model)

    def published(self, connection: Connection, run: str, model: str) -> tuple[AdapterRow, ...]:
        """As `adapters`, inside a transaction."""
        query = select(ADAPTERS).where(ADAPTERS.c.run == run, ADAPTERS.c.model == model, ADAPTERS.c.state == "published")
        return tuple(self._adapter(row) for row in connection.execute(query.order_by(ADAPTERS.c.step)))

    def fingerprints(self, run: str, model: str) -> dict[int, str]:
        """Of each step its version's, also of those that were deleted since; not of steps that were undone."""
        query = select(ADAPTERS.c.step, ADAPTERS.c.fingerprint).where(ADAPTERS.c.run == run, ADAPTERS.c.model == model)
        with self._database.read() as connection:
            return {step: fingerprint for step, fingerprint in connection.execute(query.where(ADAPTERS.c.state != "orphaned"))}

    def orphan_adapters(self, run: str, model: str, after_step: int) -> None:
        """Withdraw versions newer than the checkpoint a resume starts from: their steps will be made again, differently."""
        with self._database.write() as connection:
            connection.execute(
                update(ADAPTERS)
                .where(ADAPTERS.c.run == run, ADAPTERS.c.model == model, ADAPTERS.c.step > after_step)
                .values(state="orphaned")
            )

    def retire_adapter(self, row: AdapterRow) -> None:
        """Withdraw a version whose folder is about to be deleted: from now on nobody finds it."""
        with self._database.write() as connection:
            connection.execute(
                update(ADAPTERS)
                .where(ADAPTERS.c.run == row.run, ADAPTERS.c.model == row.model, ADAPTERS.c.step == row.step)
                .values(state="retired")
            )

    def retired_adapters(self, run: str, model: str) -> tuple[AdapterRow, ...]:
        """Versions that were withdrawn to be deleted; the folder of one may still be there when a kill came in between."""
        query = select(ADAPTERS).where(ADAPTERS.c.run == run, ADAPTERS.c.model == model, ADAPTERS.c.state == "retired")
        with self._database.read() as connection:
            return tuple(self._adapter(row) for row in connection.execute(query.order_by(ADAPTERS.c.step)))

    def _adapter(self, row: Row[Any]) -> AdapterRow:
        return AdapterRow(row.run, row.model, row.step, self._home / row.folder, row.fingerprint, row.created_at)


def _model(row: Row[Any]) -> ModelRow:
    return ModelRow(row.run, row.name, row.base, LoraSettings.model_validate_json(row.lora))
