"""What a run in which groups stay without spread says: where they lie decides, not their mean."""

from __future__ import annotations

import pytest

from journeyman.observe.reward_health import Metrics, without_spread_advice
from journeyman.recipes.loop import nothing_to_learn


def step(mean: float, bottom: float, top: float, **kinds: float) -> Metrics:
    metrics = {"reward/mean": mean, "reward/success": mean, "reward/with_spread": 0.0, "reward/num_groups": bottom + top}
    alike = {"reward/num_alike_at_bottom": bottom, "reward/num_alike_at_top": top, "rollout/executed": 1.0}
    return metrics | alike | {f"reward/kind/{name}": rate for name, rate in kinds.items()}


SOLVED = "solves these tasks already"


@pytest.mark.parametrize(
    ("steps", "named", "unnamed"),
    [
        ([step(1.0, 0, 4)], SOLVED, "fail"),
        ([step(0.95, 0, 4, add=1.0, divide=0.9)], SOLVED, "never succeed"),
        ([step(0.67, 1, 2, add=1.0, multiply=1.0, divide=0.0)], "divide", SOLVED),
        ([step(0.95, 1, 19, add=1.0, divide=0.0)], "divide", SOLVED),
        # A kind that the last step did not have, and an earlier one had.
        ([step(0.5, 1, 1, divide=0.0, add=1.0), step(1.0, 0, 2, add=1.0)], "divide", SOLVED),
        ([step(0.0, 4, 0)], "all attempts fail", SOLVED),
        ([step(0.7, 1, 3)], "all attempts succeed", SOLVED),
        ([step(0.5, 2, 2)], "larger groups", SOLVED),
    ],
)
def test_the_advice_follows_from_where_the_groups_lie(steps: list[Metrics], named: str, unnamed: str) -> None:
    hint = str(nothing_to_learn(steps, [], without_spread_advice).hint)
    assert named in hint
    assert unnamed not in hint
