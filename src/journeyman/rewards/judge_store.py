"""What judging costs and leaves on disk: verdicts of calls made before, budgets, and what each run has spent. SQLite, one file.

A small file of its own beside the store's database, so that the light client can judge without sqlalchemy. It watches calls and makes none.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from journeyman.errors import JudgeError, SettingError, StoreError
from journeyman.llm import Usage
from journeyman.types.record import Record

FILE_NAME = "judge.db"

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spent (run TEXT PRIMARY KEY, calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL);
"""
_BUDGET = re.compile(r"(?:\$\s*(?P<dollars>\d+(?:\.\d+)?)|(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>usd|k|m)?(?:\s*tokens)?)", re.IGNORECASE)


class Price(Record):
    """US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def of(self, usage: Usage) -> float:
        """Dollars.

        Example:
            >>> Price(prompt=1.0, completion=4.0).of(Usage(500_000, 250_000, 3))
            1.5
        """
        return (self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens) / 1e6


class JudgeBudget(Record):
    """The most that a run's judge may use: dollars, or tokens (prompt and completion together)."""

    dollars: float | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> JudgeBudget:
        """Read "$2.50", "2.5usd", "300000", "300k" or "2M tokens". Raises SettingError.

        Example:
            >>> JudgeBudget.parse("$2.50").dollars, JudgeBudget.parse("300k").tokens
            (2.5, 300000)
        """
        match = _BUDGET.fullmatch(text.strip())
        if match is None:
            raise SettingError(f"cannot read the judge budget {text!r}", hint='write dollars as "$2.50", tokens as 300000 or 300k')
        unit = (match["unit"] or "").lower()
        if match["dollars"] or unit == "usd":
            return cls(dollars=float(match["dollars"] or match["number"]))
        return cls(tokens=int(float(match["number"]) * {"": 1, "k": 1_000, "m": 1_000_000}[unit]))


class JudgeBudgetError(JudgeError):
    """The judge's budget is spent: the run pauses, nothing is trained on missing scores."""

    @classmethod
    def spent(cls, how_much: str) -> JudgeBudgetError:
        return cls(
            f"the judge's budget is spent: {how_much} used, the next call does not fit",
            hint="go on with --resume RUN and a larger --judge-budget; what was judged is kept and costs nothing again",
        )


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


class Spending:
    """Counts what one run's judge uses, across restarts when it has a store. Fulfils `llm.Meter`.

    A call is allowed while what was spent, what is under way and the new prompt fit the budget; replies are only known afterwards, so
    the budget can be passed by the replies of the calls under way. `cost_usd` is None without a price. Raises SettingError for a budget
    in dollars without one.
    """

    def __init__(
        self, *, price: Price | None = None, budget: JudgeBudget | None = None, store: JudgeStore | None = None, run: str = ""
    ) -> None:
        if budget is not None and budget.dollars is not None and price is None:
            raise SettingError(
                "a judge budget in dollars needs the judge's price",
                hint="set judge_options.price.prompt and .completion (dollars per million tokens), or give a budget in tokens",
            )
        self.price, self.budget = price, budget or JudgeBudget()
        self._store = store if run else None
        self._run, self._under_way = run, 0
        self._unsaved: deque[tuple[Usage, float]] = deque()
        self.usage, cost_usd = self._store.spent(run) if self._store is not None else (Usage(), 0.0)
        self.cost_usd = None if price is None else cost_usd

    def cost_of(self, usage: Usage) -> float | None:
        return None if self.price is None else self.price.of(usage)

    def allow(self, prompt_tokens: int) -> None:
        """Raises JudgeBudgetError when the call would pass the budget."""
        coming = self._under_way + prompt_tokens
        tokens, dollars = self.usage.prompt_tokens + self.usage.completion_tokens, self.cost_usd or 0.0
        if self.budget.tokens is not None and tokens + coming > self.budget.tokens:
            raise JudgeBudgetError.spent(f"{tokens:,} of {self.budget.tokens:,} tokens")
        if self.budget.dollars is not None and dollars + (self.cost_of(Usage(coming)) or 0.0) > self.budget.dollars:
            raise JudgeBudgetError.spent(f"${dollars:.4f} of ${self.budget.dollars:.4f}")
        self._under_way = coming

    def pay(self, prompt_tokens: int, usage: Usage | None) -> None:
        self._under_way -= prompt_tokens
        if usage is None:
            return
        cost = self.cost_of(usage) or 0.0
        self.usage += usage
        self.cost_usd = None if self.cost_usd is None else self.cost_usd + cost
        self._unsaved.append((usage, cost))

    def save(self) -> None:
        """Keep on disk what was paid since the last time. It waits for other writers: call it in a thread."""
        while self._store is not None:
            try:
                usage, cost = self._unsaved.popleft()
            except IndexError:  # nothing left, or another thread took it
                return
            self._store.add_spent(self._run, usage, cost)
