"""The rewards of mine.yaml: each takes a task and an attempt at it, and returns a number from 0 to 1."""

from __future__ import annotations

import journeyman as jm

POLITE = ("please", "thank", "sorry", "glad", "happy to")


def is_polite(_scenario: jm.Scenario, trajectory: jm.Trajectory) -> float:
    """1 for a reply with a polite word. One that was cut off has no answer: it ran past `max_tokens`."""
    answer = (trajectory.answer or "").lower()
    return float(any(word in answer for word in POLITE))


def is_short(_scenario: jm.Scenario, trajectory: jm.Trajectory) -> float:
    """1 for a reply of under 200 characters that came to its end."""
    answer = trajectory.answer
    return float(answer is not None and len(answer) < 200)
