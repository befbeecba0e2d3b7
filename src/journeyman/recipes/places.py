"""Where a run is: how many steps its model has made, and which scenarios come next.

The model's step is what counts; rows tell about it. Not for the checkpoints themselves: `journeyman.service.opening`.
"""

from __future__ import annotations

from journeyman.store import Checkpoints, Store


def warm_steps(store: Store, run: str, phase: str | None = "warmup") -> int:
    """The step that the warm start is at, or ended at; 0 where there was none."""
    return 0 if phase is None else max((row.step for row in store.runs.steps(run, phase)), default=0)


def scenarios_used(store: Store, run: str) -> int:
    """Groups that the run has trained on: the place in its scenarios.

    Both places that tell can tell too little and none too much: a row is missing when the disk was full, and early checkpoints did not
    count.
    """
    newest = Checkpoints(store.home.run(run).checkpoints).newest()
    kept = 0.0 if newest is None else newest.memo.get("num_groups", 0.0)
    return int(max(kept, sum(row.metrics.get("train/num_groups", 0.0) for row in store.runs.steps(run, "train"))))
