"""Runs: one training history with its settings, steps and metrics."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from journeyman.types.metrics import Metrics
from journeyman.types.names import RunName
from journeyman.types.record import Record
from journeyman.types.secrets import Redacted

RunState = Literal["created", "running", "stopped", "done", "failed"]


class RunInfo(Record):
    """A run as it is listed and shown. `settings` are those given at the start; `phase` is where a resume goes on.

    `tokenizer` is the fingerprint of the base's vocabulary; None until a version that records it has opened the run.
    """

    id: str
    kind: str
    base: str
    state: RunState
    created_at: float
    updated_at: float
    settings: dict[str, Any] = Field(default_factory=dict)
    phase: str = ""
    step: int = 0
    error: Redacted | None = None
    tokenizer: str | None = None


class CreateRun(Record):
    """Create a run, or find the one of that id (its settings then stay as they were given first)."""

    id: RunName
    kind: str
    settings: dict[str, Any] = Field(default_factory=dict)


class StepMetrics(Record):
    """The metrics of one step of a run; `phase` is warmup, train, or eval: measured of version `step` without training.

    `settings` are those of the job that made it, by its kind (`{"grpo": {"learning_rate": ...}}`); empty where none did.
    """

    run: str
    phase: str
    step: int
    time: float
    metrics: Metrics
    settings: dict[str, Any] = Field(default_factory=dict)
