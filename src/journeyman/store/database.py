"""The SQLite file of a home folder: opening it, its version, transactions, and its errors as ours. Knows no table but `schema`."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, event, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from journeyman.errors import StoreError
from journeyman.store.tables import METADATA, SCHEMA, SCHEMA_VERSION, UPGRADES
from journeyman.version import __version__

_BUSY_TIMEOUT_MILLISECONDS = 15_000


class Database:
    """Transactions on one SQLite file in WAL mode. Thread-safe; other processes may read and write the same file.

    A committed write survives `kill -9` and power loss (`synchronous=FULL`).
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; one of an older layout is brought to ours. Raises StoreError when it cannot be used or was written
        by a newer version.
        """
        self.path = path
        self._writing = threading.Lock()
        with self._mapped_errors("open"):
            self._prepare_folder()
        self._engine = sqlalchemy.create_engine(URL.create("sqlite", database=str(path)), connect_args={"check_same_thread": False})
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        try:
            self._check_schema()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the data."""
        with self._mapped_errors("read"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed and durable when the block ends, undone when it raises."""
        with (
            self._mapped_errors("write"),
            self._writing,
            self._engine.connect() as connection,
            connection.execution_options(is_write=True).begin(),
        ):
            yield connection

    def _prepare_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"the home folder {self.path.parent} cannot be made: a file is in its place",
                hint="give another folder with --home",
            ) from error

    def _check_schema(self) -> None:
        with self._mapped_errors("open"), self._engine.connect() as connection:
            exists = connection.dialect.has_table(connection, SCHEMA.name)
        if not exists:
            with self.write() as connection:
                METADATA.create_all(connection)  # another process may be doing the same: the write lock orders us
                if connection.execute(select(SCHEMA.c.version)).first() is None:
                    connection.execute(insert(SCHEMA).values(version=SCHEMA_VERSION, written_by=__version__))
        with self.read() as connection:
            version, written_by = connection.execute(select(SCHEMA.c.version, SCHEMA.c.written_by)).one()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.path} was written by Journeyman {written_by} (layout {version}); this is Journeyman "
                f"{__version__}, which reads layouts up to {SCHEMA_VERSION}",
                hint=f"install journeyman {written_by} or newer, or give another folder with --home",
            )
        if version < SCHEMA_VERSION:
            self._upgrade()

    def _upgrade(self) -> None:
        """All missing layouts in one transaction; another process may have been faster."""
        with self.write() as connection:
            version = connection.execute(select(SCHEMA.c.version)).scalar_one()
            for older in range(version, SCHEMA_VERSION):
                for statement in UPGRADES[older]:
                    connection.exec_driver_sql(statement)
            connection.execute(update(SCHEMA).values(version=SCHEMA_VERSION, written_by=__version__))

    @contextmanager
    def _mapped_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise _as_store_error(error, self.path, action) from error


def _configure(connection: Any, _record: object) -> None:
    # sqlite3's own transaction handling is switched off: `_begin` says when a transaction starts and how.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that reads first can then never fail half-way.
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _as_store_error(error: Exception, path: Path, action: str) -> StoreError:
    text = str(getattr(error, "orig", None) or error)
    lowered = text.lower()
    what = f"cannot {action} the store {path}: {text}"
    if "full" in lowered or "no space" in lowered:
        return StoreError(what, hint=f"free some disk space under {path.parent}; nothing committed before was lost")
    if "readonly" in lowered or "read-only" in lowered or "permission" in lowered or "unable to open" in lowered:
        return StoreError(what, hint=f"make {path.parent} writable for this user, or give another folder with --home")
    if "locked" in lowered or "busy" in lowered:
        return StoreError(what, hint="another process holds the store: wait for it or stop it, then try again")
    if "malformed" in lowered or "not a database" in lowered:
        return StoreError(what, hint=f"the file is damaged: move {path} away, or restore it from a backup")
    return StoreError(what)
