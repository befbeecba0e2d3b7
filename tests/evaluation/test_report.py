"""The report made of a held-out evaluation."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from journeyman.errors import StoreError
from journeyman.evaluation import Evaluation, JudgeCost, PhaseCost, Report, pick_examples, read_report, show_report, write_report
from journeyman.evaluation.pictures import Point, chart_lines
from journeyman.evaluation.report import REWARD, duration_text, headline, series
from journeyman.types.runs import StepMetrics


def make_report(evaluation: Evaluation) -> Report:
    steps = tuple(
        StepMetrics(
            run="r1",
            phase="train",
            step=step,
            time=float(step),
            metrics={
                "reward/mean": 0.3 + 0.05 * step,
                "reward/low": 0.2 + 0.05 * step,
                "reward/high": 0.4 + 0.05 * step,
                "reward/success": 0.08 * step,
                "reward/success_low": max(0.0, 0.08 * step - 0.1),
                "reward/success_high": 0.08 * step + 0.1,
            },
        )
        for step in range(1, 12)
    )
    return Report(
        run="r1",
        title="doubler",
        base="tiny",
        target="python -m doubler <x>",
        judge="evidence: what happened",
        created_at=1_700_000_000.0,
        settings={"steps": 11},
        machine={"cores": "2"},
        evaluations=(evaluation.summary, evaluation.summary.model_copy(update={"sampling": "sampled"})),
        steps=steps,
        phases=(PhaseCost(name="warm start", seconds=65, trained_tokens=1200), PhaseCost(name="train", seconds=3700, sampled_tokens=52000)),
        judge_cost=JudgeCost(judge="ruler:m", calls=9, prompt_tokens=12345, completion_tokens=678),
        examples=pick_examples(evaluation.groups["base"], evaluation.groups["trained"], 3),
        adapter="/home/r1/adapters/m@11",
        serve_command="journeyman serve --run r1",
        curl="curl http://127.0.0.1:8100/v1/models",
        notes=("only 6 scenarios <b>",),
    )


def test_a_written_report_reads_back_and_its_page_stands_alone(evaluation: Evaluation, tmp_path: Path) -> None:
    report = make_report(evaluation)
    page = write_report(report, tmp_path / "report")
    assert read_report(tmp_path / "report") == report
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "http" not in html.replace("http://127.0.0.1:8100", "")
    assert "<script" not in html
    assert "only 6 scenarios &lt;b&gt;" in html
    text = (tmp_path / "report" / "report.md").read_text()
    assert "base → trained: +66.7 points [" in text
    assert "journeyman serve --run r1\ncurl" in text
    for shown in (html, text):
        assert "judge ruler:m: 9 calls, 12,345 prompt and 678 completion tokens, its price is not set" in shown
    for name in ("steps.png", "heldout.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_without_anything_measured_can_be_written(tmp_path: Path) -> None:
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0)
    write_report(report, tmp_path)
    assert "no held-out evaluation" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "steps.png").exists()
    show_report(report, Console(file=io.StringIO()))


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0)
    with pytest.raises(StoreError, match="cannot be written into"):
        write_report(report, tmp_path / "file" / "report")
    with pytest.raises(StoreError, match="no readable report"):
        read_report(tmp_path / "nothing")


def test_the_terminal_shows_result_curve_examples_cost_and_commands_unbroken(evaluation: Evaluation) -> None:
    report = make_report(evaluation).model_copy(update={"serve_command": "journeyman serve --run r1 " + "x" * 200})
    out = io.StringIO()
    show_report(report, Console(file=out, width=100, color_system=None))
    text = out.getvalue()
    counts = "3 won, 1 lost, 1 both, 1 neither"
    for part in ("held-out success of trained: 66.7 %", counts, "step 1 to 11", "1 h 02 min", "gained", "12,345 prompt"):
        assert part in " ".join(text.split())
    assert report.serve_command in text


def test_the_headline_gives_interval_count_and_paired_gain(evaluation: Evaluation) -> None:
    text = headline(make_report(evaluation))
    assert "66.7 % [" in text
    assert "6 scenarios" in text
    assert "paired gain +66.7 points [" in text


def test_a_series_is_in_order_and_a_step_reported_twice_counts_once() -> None:
    steps = [
        StepMetrics(run="r", phase="train", step=step, time=0.0, metrics={"reward/mean": value})
        for step, value in ((2, 0.2), (1, 0.1), (2, 0.3))
    ]
    other = StepMetrics(run="r", phase="warmup", step=9, time=0.0, metrics={"reward/mean": 1.0})
    assert series([*steps, other], REWARD) == [Point(1, 0.1), Point(2, 0.3)]


def test_a_long_series_is_drawn_within_the_width() -> None:
    lines = chart_lines([Point(step, step / 500) for step in range(501)], width=40, height=4)
    assert max(map(len, lines)) <= 46
    assert "step 0 to 500" in lines[-1]
    assert chart_lines([]) == []


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4.2 s"), (42, "42 s"), (425, "7 min 05 s"), (3725, "1 h 02 min")])
def test_durations_have_their_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
