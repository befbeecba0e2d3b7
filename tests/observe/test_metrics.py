from __future__ import annotations

import json
from pathlib import Path

import pytest

from journeyman.errors import StoreError
from journeyman.observe.metrics import JsonlMetrics


def test_each_step_is_one_line_and_opening_again_appends(tmp_path: Path) -> None:
    file = tmp_path / "run" / "metrics.jsonl"
    for step in (1, 2):
        with JsonlMetrics(file) as metrics:
            metrics.write("train", step, {"reward/mean": 0.5})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["metrics"] == {"reward/mean": 0.5}


def test_a_line_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    with JsonlMetrics(tmp_path / "metrics.jsonl") as metrics:
        metrics.write("train", 1, {})
        assert (tmp_path / "metrics.jsonl").read_text().endswith("\n")


def test_a_value_that_is_not_finite_stays_valid_json(tmp_path: Path) -> None:
    with JsonlMetrics(tmp_path / "metrics.jsonl") as metrics:
        metrics.write("train", 1, {"loss": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["metrics"] == {"loss": None}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="metrics"):
        JsonlMetrics(tmp_path)
