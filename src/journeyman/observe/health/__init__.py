"""What the metrics of a run say about its health, in plain language with the number behind each finding; see docs/health.md."""

from journeyman.observe.health.finding import Finding, Level, Metrics
from journeyman.observe.health.findings import NAMES, findings, is_finding, news, run_history

__all__ = ["NAMES", "Finding", "Level", "Metrics", "findings", "is_finding", "news", "run_history"]
