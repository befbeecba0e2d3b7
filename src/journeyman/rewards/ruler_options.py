"""Settings of a Ruler. Each default is written here, once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.rewards.criteria import Criterion
from journeyman.rewards.fairness import RewardKind
from journeyman.rewards.spending import JudgeBudget, Price
from journeyman.types.record import Record
from journeyman.types.secrets import SecretUrl
from journeyman.types.settings import Seed


class RulerOptions(Record):
    """How a model judges.

    Attributes:
        base_url: where the model is, when its name does not say.
        api_key_env: the variable that holds the key, when the provider's usual one does not.
        rubric: words, or criteria with weights; a general one when None.
        mode: `listwise` (2 calls up to 5 attempts, then 2·ceil(N/5)), or `pairwise` (every pair in both orders, N·(N-1) calls; the
            score is the share of comparisons won).
        reward: the scores themselves, or their ranks from 0 to 1 (steadier with small, noisy or drifting judges).
        tie_width: scores this close are tied.
        min_spread: a group whose scores differ by no more than this teaches nothing.
        gates: what can be seen without a model caps its scores (see gates.py).
        expected_scores: the mean over token probabilities where the endpoint returns them.
        max_tokens_per_attempt: beyond that the middle of tool outputs is cut, then of other messages; never the final answer.
        context_tokens: the judge's context; attempts are cut further to fit it. Unlimited when None.
        price: dollars per million tokens, for `judge/cost_usd` and a budget in dollars.
        budget: "$2.50" or "300k" (tokens), over the whole run.
        cache: verdicts are kept in the home folder and cost nothing a second time.
        patience_seconds: how long an outage is waited out.
        seed: of who is compared with whom.
    """

    base_url: SecretUrl | None = None
    api_key_env: str | None = None
    rubric: str | tuple[Criterion, ...] | None = None
    mode: Literal["listwise", "pairwise"] = "listwise"
    reward: RewardKind = "scores"
    tie_width: float = Field(default=0.02, ge=0.0, lt=1.0)
    min_spread: float = Field(default=0.05, ge=0.0, lt=1.0)
    gates: bool = True
    expected_scores: bool = False
    max_tokens_per_attempt: int = Field(default=4000, ge=64)
    context_tokens: int | None = Field(default=None, ge=512)
    max_concurrent: int = Field(default=8, ge=1)
    price: Price | None = None
    budget: str | None = None
    cache: bool = True
    patience_seconds: float = Field(default=600.0, ge=0.0)
    seed: Seed = 0

    def parsed_budget(self) -> JudgeBudget | None:
        """Raises SettingError for text that is no budget."""
        return None if self.budget is None else JudgeBudget.parse(self.budget)
