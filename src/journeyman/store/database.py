"""The SQLite file of a home folder: its tables and the number of their layout, opening it, transactions, and its errors as ours.

Not for queries: each noun has its own file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from journeyman.errors import StoreError
from journeyman.version import __version__

_BUSY_TIMEOUT_MILLISECONDS = 15_000

#: Raised by one whenever a table changes, with the way there in `UPGRADES`; a store with a higher number is refused.
SCHEMA_VERSION: Final = 5

METADATA = MetaData()

SCHEMA = Table(
    "schema",
    METADATA,
    Column("version", Integer, nullable=False),
    Column("written_by", String, nullable=False),
)

RUNS = Table(
    "runs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("base", String, nullable=False),
    Column("state", String, nullable=False),
    Column("phase", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("error", Text),
    Column("settings", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("tokenizer", String),  # fingerprint of the base's vocabulary; NULL before layout 3
)

# (run, phase, step) is the key: a step repeated after a resume replaces its numbers.
STEPS = Table(
    "steps",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("phase", String, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("settings", Text),  # of the step's job, by its kind; NULL where none were given (layout 4)
)

MODELS = Table(
    "models",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("base", String, nullable=False),
    Column("lora", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

ADAPTERS = Table(
    "adapters",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("model", String, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("folder", String, nullable=False),  # relative to the home folder, so that a home can be moved
    Column("fingerprint", String, nullable=False),
    Column("state", String, nullable=False),  # published | orphaned | retired
    Column("created_at", Float, nullable=False),
)

# A rollout's token is a secret while the rollout is open: only its sha256 is kept.
ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("id", String, primary_key=True),
    Column("token_hash", String, nullable=False, unique=True),
    Column("run", String),
    Column("model", String, nullable=False),
    Column("scenario_id", String, nullable=False),
    Column("max_turns", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("outcome", Text),  # FinishRollout as JSON; NULL while the rollout is open
    Column("reward", Float),
    Column("verdict", Text),
    Column("key", String),  # under which an attempt that was made before is found again (layout 2)
    Column("tokenizer", String),  # fingerprint of the vocabulary its ids are of; NULL before layout 3
    Index("rollouts_by_run", "run", "started_at"),
    Index("rollouts_by_key", "run", "key"),
)

TURNS = Table(
    "turns",
    METADATA,
    Column("rollout", String, ForeignKey("rollouts.id"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("adapter", String),
    Column("body_hash", String, nullable=False),
    Column("num_prompt_tokens", Integer, nullable=False),
    Column("num_sampled_tokens", Integer, nullable=False),
    Column("turn", Text, nullable=False),  # Turn as JSON
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("run", String, nullable=False),
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("key", String),
    Column("body_hash", String, nullable=False),
    Column("state", String, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("error_code", String),
    Column("error_reason", String),  # layout 5
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("run", "model", "key", name="one_job_per_key"),
)

#: What makes a store of one layout a store of the next.
UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    1: ("ALTER TABLE rollouts ADD COLUMN key VARCHAR", "CREATE INDEX rollouts_by_key ON rollouts (run, key)"),
    2: ("ALTER TABLE runs ADD COLUMN tokenizer VARCHAR", "ALTER TABLE rollouts ADD COLUMN tokenizer VARCHAR"),
    3: ("ALTER TABLE steps ADD COLUMN settings TEXT",),
    4: ("ALTER TABLE jobs ADD COLUMN error_reason VARCHAR",),
}


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
            # What models and servers said lies here: nobody else's business.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"the home folder {self.path.parent} cannot be made: a file is in its place",
                hint="give another folder with --home",
                reason="no_folder",
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
                reason="newer_version",
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
        return StoreError(what, hint=f"free some disk space under {path.parent}; nothing committed before was lost", reason="disk_full")
    if "readonly" in lowered or "read-only" in lowered or "permission" in lowered or "unable to open" in lowered:
        return StoreError(
            what, hint=f"make {path.parent} writable for this user, or give another folder with --home", reason="not_writable"
        )
    if "locked" in lowered or "busy" in lowered:
        return StoreError(what, hint="another process holds the store: wait for it or stop it, then try again", reason="busy")
    if "malformed" in lowered or "not a database" in lowered:
        return StoreError(what, hint=f"the file is damaged: move {path} away, or restore it from a backup", reason="damaged")
    return StoreError(what)
