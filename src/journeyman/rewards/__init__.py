"""Judges: who compares the attempts at one scenario and says how good each was."""

from journeyman.rewards.evidence import EvidenceJudge
from journeyman.rewards.judge import Judge, Rubric, best_of
from journeyman.rewards.judge_store import JudgeBudget, JudgeBudgetError, Price
from journeyman.rewards.ruler import Criterion, Ruler, RulerOptions
from journeyman.rewards.summary import excluded_text, judge_metrics, reward_metrics

__all__ = [
    "Criterion",
    "EvidenceJudge",
    "Judge",
    "JudgeBudget",
    "JudgeBudgetError",
    "Price",
    "Rubric",
    "Ruler",
    "RulerOptions",
    "best_of",
    "excluded_text",
    "judge_metrics",
    "reward_metrics",
]
