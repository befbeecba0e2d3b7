"""Runs: one training history with its settings, steps and metrics: numbers by name. One that is not finite has no JSON, so it is left out
and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, SupportsFloat

from pydantic import AfterValidator, BeforeValidator, Field

from journeyman.types.names import RunName
from journeyman.types.record import Record
from journeyman.types.secrets import Redacted

#: How many metrics were left out because they were NaN or infinite; there only when some were.
NOT_FINITE: Final = "num_metrics_not_finite"
#: The largest reward: float32 must be able to hold its square, advantages and gradients are made from it.
MAX_REWARD: Final = 1e15


def as_number(value: object) -> float:
    """What is one number, as a float: of Python, numpy or torch, also a tensor of one element. Raises TypeError, ValueError.

    Example:
        >>> as_number(True), as_number(3)
        (1.0, 3.0)
    """
    item = getattr(value, "item", None)
    number = item() if callable(item) else value
    if not isinstance(number, SupportsFloat):
        raise TypeError(f"{value!r:.80} is not a number")
    try:
        return float(number)
    except OverflowError as error:
        raise ValueError("the number is too large") from error


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that are finite, and how many are not.

    Example:
        >>> finite_metrics({"loss": 0.5, "entropy": float("nan")})
        {'loss': 0.5, 'num_metrics_not_finite': 1.0}
    """
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    num_left_out = len(metrics) - len(finite)
    return finite | {NOT_FINITE: finite.get(NOT_FINITE, 0.0) + num_left_out} if num_left_out else finite


def _null_as_nan(data: object) -> object:
    """JSON written elsewhere has null where a number was not finite."""
    return {name: math.nan if value is None else value for name, value in data.items()} if isinstance(data, Mapping) else data


Metrics = Annotated[dict[str, float], BeforeValidator(_null_as_nan), AfterValidator(finite_metrics)]


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
