"""Where a run is: how many steps its model has made, which scenarios come next, and the row of a step that a kill left half written.

The model's step is what counts; rows tell about it. Not for the checkpoints themselves: `journeyman.service.reopening`.
"""

from __future__ import annotations

import time

from pydantic import ValidationError

from journeyman.store import Checkpoints, Store
from journeyman.store.durable import write_durably
from journeyman.store.layout import RunFolder
from journeyman.types.runs import StepMetrics


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


def keep_measured(folder: RunFolder, measured: StepMetrics) -> None:
    """Keep what the recipe knows of a step before the step is made: a kill between the service's row and the recipe's loses nothing.

    Raises StoreError.
    """
    write_durably(folder.measured, measured.model_dump_json().encode() + b"\n")


def complete_row(store: Store, folder: RunFolder, run: str, made: int) -> None:
    """Write the row of step `made`, the newest, with what the recipe had measured of it, where a kill came before that."""
    try:
        kept = StepMetrics.model_validate_json(folder.measured.read_bytes())
    except (OSError, ValidationError):  # made by an earlier version, or nothing was measured yet
        return
    rows = {row.phase: row.metrics for row in store.runs.steps(run) if row.step == made and row.phase != "eval"}
    known = rows.get(kept.phase, {})
    if kept.step != made or not rows or kept.metrics.keys() <= known.keys():
        return
    # The service has a row of the step under the phase that it gives such jobs, which is not always the recipe's.
    made_by_service = known or next(iter(rows.values()))
    metrics = {**made_by_service, **kept.metrics}
    store.runs.add_step(StepMetrics(run=run, phase=kept.phase, step=made, time=time.time(), metrics=metrics))
