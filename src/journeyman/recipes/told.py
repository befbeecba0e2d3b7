"""What a recipe says of a step that was made: its findings, and what the training call noted. Not for finding them."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.observe.health import is_finding, news
from journeyman.observe.progress import Progress
from journeyman.observe.reward_health import Metrics


def tell(progress: Progress, history: Sequence[Metrics], notes: Sequence[str]) -> None:
    """Say what the newest step of `history` shows that the one before did not, and the notes of its training call.

    The call has findings among its notes, for programs that have no more than it; a recipe's own metrics show all of those too, and more.
    """
    for finding in news(history):
        (progress.note if finding.level == "normal" else progress.warn)(str(finding))
    for note in notes:
        if not is_finding(note):
            progress.note(note)
