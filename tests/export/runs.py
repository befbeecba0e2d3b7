"""A home folder with a run whose adapters are random: what exports are made of, without training."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import LORA, write_adapter

from journeyman.store.models import AdapterRow, ModelRow
from journeyman.store.store import Store

RUN, MODEL = "time-1", "time"


def make_run(home: Path, base: Path, steps: tuple[int, ...] = (0, 3), *, run: str = RUN, model: str = MODEL) -> str:
    """A run of `base` with one adapter a step; step 0 changes nothing, the others do."""
    with Store.open(home) as store:
        store.runs.create(run, kind="mcp", base=str(base), settings={"lora": {"rank": 4}, "target": {"headers": {"X": "secret-key"}}})
        store.models.create(ModelRow(run, model, str(base), LORA))
        for step in steps:
            folder = store.home.run(run).adapters / f"{model}@{step}"
            fingerprint = write_adapter(base, folder, seed=step + 1, scale=0.1 if step else 0.0)
            store.models.add_adapter(AdapterRow(run, model, step, folder, fingerprint))
    return run
