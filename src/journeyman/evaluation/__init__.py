"""Held-out evaluation, paired statistics and reports (terminal, PNG, Markdown, HTML, JSON)."""

from journeyman.evaluation.heldout import Evaluation, EvaluationSummary, evaluate
from journeyman.evaluation.report import JudgeCost, PhaseCost, Report, read_report, show_report, write_report
from journeyman.evaluation.statistics import PairedComparison, paired_comparison
from journeyman.evaluation.transcripts import pick_examples

__all__ = [
    "Evaluation",
    "EvaluationSummary",
    "JudgeCost",
    "PairedComparison",
    "PhaseCost",
    "Report",
    "evaluate",
    "paired_comparison",
    "pick_examples",
    "read_report",
    "show_report",
    "write_report",
]
