"""Metrics survive JSON whatever they hold."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from journeyman.types.runs import StepMetrics


def step(metrics: dict[str, float]) -> StepMetrics:
    return StepMetrics(run="r", phase="train", step=1, time=0.0, metrics=metrics)


def test_what_is_not_finite_is_left_out_and_counted_once() -> None:
    row = step({"loss": 0.5, "a": math.nan, "b": math.inf, "c": -math.inf})
    assert row.metrics == {"loss": 0.5, "num_metrics_not_finite": 3.0}
    assert StepMetrics.model_validate_json(row.model_dump_json()) == row


def test_finite_metrics_are_as_given() -> None:
    assert step({"loss": -0.0, "big": 1e300}).metrics == {"loss": -0.0, "big": 1e300}


def test_null_in_json_counts_as_not_finite() -> None:
    text = '{"run": "r", "phase": "train", "step": 1, "time": 0, "metrics": {"loss": null, "num_metrics_not_finite": 2}}'
    assert StepMetrics.model_validate_json(text).metrics == {"num_metrics_not_finite": 3.0}


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"metrics\.loss"):
        StepMetrics.model_validate({"run": "r", "phase": "train", "step": 1, "time": 0, "metrics": {"loss": "low"}})
