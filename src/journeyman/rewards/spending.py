"""What a judge may cost, and what it has cost: tokens and dollars of one run. It watches calls; it makes none."""

from __future__ import annotations

import re

from pydantic import Field

from journeyman.errors import JudgeError, SettingError
from journeyman.llm import Usage
from journeyman.rewards.judge_store import JudgeStore
from journeyman.types.record import Record

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


class Spending:
    """Counts what one run's judge uses, across restarts when it has a store. Fulfils `llm.Meter`.

    A call is allowed while what was spent, what is under way and the new prompt fit the budget; replies are only known afterwards, so
    the budget can be passed by the replies of the calls under way. Raises SettingError for a budget in dollars without a price.
    """

    def __init__(
        self, *, price: Price | None = None, budget: JudgeBudget | None = None, store: JudgeStore | None = None, run: str = ""
    ) -> None:
        if budget is not None and budget.dollars is not None and price is None:
            raise SettingError(
                "a judge budget in dollars needs the judge's price",
                hint="set judge_options.price.prompt and .completion (dollars per million tokens), or give a budget in tokens",
            )
        self.price, self.budget = price, budget
        self._store, self._run = store, run
        self._under_way = 0
        self._usage, self._cost_usd = store.spent(run) if store is not None and run else (Usage(), 0.0)

    @property
    def usage(self) -> Usage:
        return self._usage

    @property
    def cost_usd(self) -> float | None:
        """Dollars so far; None without a price."""
        return None if self.price is None else self._cost_usd

    def cost_of(self, usage: Usage) -> float | None:
        return None if self.price is None else self.price.of(usage)

    def allow(self, prompt_tokens: int) -> None:
        """Raises JudgeBudgetError when the call would pass the budget."""
        if self.budget is not None:
            self._check(self.budget, self._under_way + prompt_tokens)
        self._under_way += prompt_tokens

    def pay(self, prompt_tokens: int, usage: Usage | None) -> None:
        self._under_way -= prompt_tokens
        if usage is None:
            return
        cost = self.price.of(usage) if self.price is not None else 0.0
        self._usage += usage
        self._cost_usd += cost
        if self._store is not None and self._run:
            self._store.add_spent(self._run, usage, cost)

    def _check(self, budget: JudgeBudget, coming_tokens: int) -> None:
        tokens = self._usage.prompt_tokens + self._usage.completion_tokens
        spent, limit = "", ""
        if budget.tokens is not None and tokens + coming_tokens > budget.tokens:
            spent, limit = f"{tokens:,} tokens", f"{budget.tokens:,} tokens"
        if budget.dollars is not None and self.price is not None:
            coming = self.price.of(Usage(coming_tokens, 0, 0))
            if self._cost_usd + coming > budget.dollars:
                spent, limit = f"${self._cost_usd:.4f}", f"${budget.dollars:.4f}"
        if limit:
            raise JudgeBudgetError(
                f"the judge's budget is spent: {spent} of {limit} used, the next call does not fit",
                hint="go on with --resume RUN and a larger --judge-budget; what was judged is kept and costs nothing again",
            )
