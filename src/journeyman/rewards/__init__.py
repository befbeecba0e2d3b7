"""Judges: who compares the attempts at one scenario and says how good each was."""

from journeyman.rewards.evidence import EvidenceJudge
from journeyman.rewards.judge import Judge
from journeyman.rewards.ruler import Ruler
from journeyman.rewards.summary import excluded_text, reward_metrics

__all__ = ["EvidenceJudge", "Judge", "Ruler", "excluded_text", "reward_metrics"]
