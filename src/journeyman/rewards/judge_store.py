"""What judging leaves on disk: verdicts of calls made before, what each run has spent, and judged groups. SQLite, one file.

A small file of its own beside the store's database, so that the light client can judge without sqlalchemy.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from journeyman.errors import StoreError
from journeyman.llm import Usage

FILE_NAME = "judge.db"

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spent (run TEXT PRIMARY KEY, calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL);
"""


class JudgeStore:
    """Opens its file at the first use. Safe to use from several threads and processes. Raises StoreError.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = JudgeStore(Path(folder))
        ...     store.put("k", {"items": [1]})
        ...     found = store.get("k"), store.get("other")
        ...     store.close()
        >>> found
        ({'items': [1]}, None)
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> Any | None:
        """The reply kept under a key, None when there is none."""
        with self._open() as connection:
            row = connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, reply: Any) -> None:
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (key, json.dumps(reply), time.time()))

    def spent(self, run: str) -> tuple[Usage, float]:
        """What a run's judge has used so far, and its price in US dollars (0 where no price was set)."""
        with self._open() as connection:
            row = connection.execute("SELECT calls, prompt_tokens, completion_tokens, cost_usd FROM spent WHERE run = ?", (run,)).fetchone()
        return (Usage(), 0.0) if row is None else (Usage(row[1], row[2], row[0]), float(row[3]))

    def add_spent(self, run: str, usage: Usage, cost_usd: float) -> None:
        with self._open() as connection:
            connection.execute("INSERT OR IGNORE INTO spent VALUES (?, 0, 0, 0, 0.0)", (run,))
            connection.execute(
                "UPDATE spent SET calls = calls + ?, prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?, "
                "cost_usd = cost_usd + ? WHERE run = ?",
                (usage.calls, usage.prompt_tokens, usage.completion_tokens, cost_usd, run),
            )

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection inside a transaction."""
        with self._lock:
            try:
                if self._connection is None:
                    self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._connection = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False)
                    self._connection.execute("PRAGMA journal_mode = WAL")
                    self._connection.executescript(_TABLES)
                with self._connection:
                    yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise StoreError(
                    f"the judge's file {self.path} cannot be used: {error}",
                    hint="delete it (only kept verdicts are lost), or give another --home",
                ) from error
