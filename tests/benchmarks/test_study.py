"""Studies make each run once, keep a row of it, and go on where they were stopped."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.studies.cells import STUDIES, cells
from benchmarks.studies.challenger import best_challenger
from benchmarks.studies.rows import Row, RowFile, is_same, newest
from benchmarks.studies.runner import CURVES, Runner
from benchmarks.studies.summary import band, curve_points, draw, interval, spread_text
from benchmarks.study import main

from journeyman.errors import StoreError

FAKE = [sys.executable, str(Path(__file__).parent / "fake_training.py")]
ROOT = Path(__file__).parents[2]
# The first measure of the fake run of a seed is 0.1 * seed + this.
DEFAULT, GSPO = 0.2, 0.25
_WAIT_SECONDS = 60.0


def words(folder: Path, *more: str) -> list[str]:
    return ["yes_no_maybe", "--only", "default", "gspo", "--home", str(folder / "home"), "--docs", str(folder / "docs"), *more]


def rows_of(folder: Path) -> list[Row]:
    return RowFile(folder / "docs" / "studies" / "yes_no_maybe.jsonl").read()


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear within {_WAIT_SECONDS:g} s"
    return path.read_text()


def test_every_run_leaves_a_row_and_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--seeds", "1", "2", "--jobs", "2"), command=FAKE) == 0
    rows = rows_of(tmp_path)
    assert {(row.variant, row.seed, row.state) for row in rows} == {(name, n, "done") for name in ("default", "gspo") for n in (1, 2)}
    (row,) = [row for row in rows if (row.variant, row.seed) == ("gspo", 2)]
    assert row.final["train/reward_mean"] == pytest.approx(0.2 + GSPO)
    assert row.curve == {"reward/mean": pytest.approx((0.2, 0.4, 0.6))}
    assert (row.overrides, row.settings["grpo"]["loss"]["kind"], row.settings["seed"]) == (("grpo.loss=gspo",), "gspo", 2)
    assert re.fullmatch(r"[0-9a-f]{7,}\+?|unknown", row.commit)
    assert not list(tmp_path.glob("home/*/runs/*/adapters"))
    out = capsys.readouterr().out
    assert "4 runs, 0 of them made before" in out
    assert "left, about" in out

    assert main(words(tmp_path, "--seeds", "1", "2", "3"), command=FAKE) == 0
    assert Counter((tmp_path / "started").read_text().split()) == {"1": 2, "2": 2, "3": 2}
    assert len(rows_of(tmp_path)) == 6


def test_other_settings_are_other_runs(tmp_path: Path) -> None:
    assert main(words(tmp_path, "--seeds", "1"), command=FAKE) == 0
    assert main(words(tmp_path, "--seeds", "1", "--set", "steps=2"), command=FAKE) == 0
    assert [row.settings["steps"] for row in rows_of(tmp_path)] == [16, 16, 2, 2]


def test_a_setting_that_an_older_row_does_not_have_was_at_its_default() -> None:
    wanted = cells(STUDIES["yes_no_maybe"], [1])[0].settings()
    older = {name: value for name, value in wanted.items() if name != "timeout_seconds"}
    assert is_same(older, wanted)
    assert not is_same(older, wanted | {"timeout_seconds": 5.0})
    assert not is_same(older | {"gone": 1}, wanted)


def test_each_row_has_the_version_of_the_code_when_its_run_began(tmp_path: Path) -> None:
    study, versions = STUDIES["yes_no_maybe"], iter(["abc1234", "def5678+"])
    rows = RowFile(tmp_path / "docs" / "studies" / "yes_no_maybe.jsonl")
    runner = Runner(study, rows, tmp_path / "home", FAKE, lambda: next(versions))
    assert asyncio.run(runner.run(cells(study, [1, 2], ["default"])))
    assert [row.commit for row in rows.read()] == ["abc1234", "def5678+"]


def test_a_failed_run_is_a_row_with_its_error_and_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail-2").touch()
    assert main(words(tmp_path, "--seeds", "1", "2", "--only", "default"), command=FAKE) == 1
    assert [(row.seed, row.state) for row in rows_of(tmp_path)] == [(1, "done"), (2, "failed")]
    assert rows_of(tmp_path)[1].error == "exit code 1: there is no such gradient"
    assert main(words(tmp_path, "--seeds", "1", "2", "--only", "default", "--show")) == 0
    assert "Not made yet (1): default-2." in capsys.readouterr().out
    (tmp_path / "fail-2").unlink()
    assert main(words(tmp_path, "--seeds", "1", "2", "--only", "default"), command=FAKE) == 0
    assert [(row.seed, row.state) for row in rows_of(tmp_path)] == [(1, "done"), (2, "failed"), (2, "done")]


def test_a_run_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    (tmp_path / "hang-1").touch()
    assert main(words(tmp_path, "--seeds", "1", "--only", "default", "--minutes", "0.02"), command=FAKE) == 1
    assert "did not end within" in (rows_of(tmp_path)[0].error or "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_study_that_is_stopped_loses_the_run_under_way_alone(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "hang-2").touch()
    arguments = words(tmp_path, "--seeds", "1", "2", "--only", "default")
    program = f"import sys; from benchmarks.study import main; sys.exit(main({arguments!r}, command={FAKE!r}))"
    # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
    study = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    run = int(wait_for(tmp_path / "pid"))
    study.send_signal(number)
    assert study.wait(_WAIT_SECONDS) == code
    if number == signal.SIGKILL:
        os.kill(run, signal.SIGKILL)  # nobody was left to end it
    else:
        with pytest.raises(ProcessLookupError):
            os.kill(run, 0)
    assert [(row.seed, row.state) for row in rows_of(tmp_path)] == [(1, "done")]
    (tmp_path / "hang-2").unlink()
    assert main(arguments, command=FAKE) == 0
    assert (tmp_path / "started").read_text().split() == ["1", "2", "2"]


def test_a_line_cut_off_by_a_kill_is_dropped_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert main(words(tmp_path, "--seeds", "1"), command=FAKE) == 0
    file = RowFile(tmp_path / "docs" / "studies" / "yes_no_maybe.jsonl")
    first, second = file.read()
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-40])
    assert file.read() == [first]
    file.append(second)
    assert file.read() == [first, second]
    file.path.write_bytes(b"{}\n" + whole)
    with pytest.raises(StoreError, match=r"line 1 of .*jsonl is no row"):
        file.read()


def test_the_same_study_is_not_made_twice_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RowFile(tmp_path / "docs" / "studies" / "yes_no_maybe.jsonl").alone():
        assert main(words(tmp_path), command=FAKE) == 2
    assert "another process makes the runs" in capsys.readouterr().out
    assert not (tmp_path / "started").exists()


def test_the_table_tells_mean_interval_range_and_the_difference_to_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path), command=FAKE) == 0
    capsys.readouterr()
    assert main(words(tmp_path, "--show")) == 0
    out = capsys.readouterr().out
    # 0.3, 0.4, 0.5: t of 2 degrees of freedom is 4.303, so ± 4.303 * 0.1 / sqrt(3).
    assert "| default | 3 | 0.400 [0.152, 0.648], 0.300–0.500 |" in out
    assert "| gspo | 3 | 0.450 [0.202, 0.698], 0.350–0.550 |" in out
    assert re.search(r"\+0\.050 \[\+0\.050, \+0\.050\]", out)
    assert (tmp_path / "docs" / "pictures" / "study_yes_no_maybe.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_begins_where_it_was_measured_and_passes_over_steps_without_it(tmp_path: Path) -> None:
    first = {"train/loss": (3.0, 2.0, 1.0), "heldout/loss": (None, 2.5, None)}
    rows = [
        Row(
            study="recipes",
            variant="sft",
            seed=seed,
            state="done",
            settings={},
            commit="",
            started_at="",
            seconds=1.0,
            curve=curve,
            final=end,
        )
        for seed, curve, end in ((1, first, {"heldout/loss_before": 4.0}), (2, {"heldout/loss": (None, 1.5)}, {}))
    ]
    assert curve_points(rows, "heldout/loss") == [(0, [4.0]), (2, [2.5, 1.5])]
    assert curve_points(rows, "train/loss") == [(1, [3.0]), (2, [2.0]), (3, [1.0])]
    assert curve_points(rows, "heldout/ranked_right") == []
    picture = draw(STUDIES["recipes"], {"sft": rows}, tmp_path / "curves.png")
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_what_a_study_draws_is_kept_of_its_runs(name: str) -> None:
    assert {panel.metric for panel in STUDIES[name].panels} <= set(CURVES)


def test_one_seed_has_no_interval() -> None:
    assert interval([0.5]) is None
    assert spread_text([0.5], "loss") == "0.500"
    assert spread_text([], "loss") == ""
    assert spread_text([0.9, 1.0], "heldout/trained") == "0.950 [0.315, 1.000], 0.900–1.000"
    assert spread_text([0.9, 1.0], "loss") == "0.950 [0.315, 1.585], 0.900–1.000"


def test_the_band_of_a_curve_is_the_interval_of_the_mean_and_stays_within_what_a_share_can_be() -> None:
    # t of 2 degrees of freedom is 4.303, so 0.9 ± 4.303 * 0.1 / sqrt(3).
    assert band([0.8, 0.9, 1.0], "train/loss") == pytest.approx((0.6516, 1.1484), abs=1e-4)
    assert band([0.8, 0.9, 1.0], "reward/mean") == pytest.approx((0.6516, 1.0), abs=1e-4)
    assert band([0.0, 0.2], "reward/success")[0] == 0.0
    assert all(math.isnan(end) for end in band([0.5], "reward/mean"))


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", "--only", "mystery"]) == 2
    assert "no variant mystery; it has default, grpo" in capsys.readouterr().out


def test_all_studies_are_made_in_their_order_and_the_challenger_is_the_best_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--home", str(tmp_path / "home"), "--docs", str(tmp_path / "docs")]
    # Without names it is all of them; the last one exports, which the fake training has nothing for.
    assert main([*places, "--seeds", "1", "--jobs", "4"], command=FAKE) == 2
    out = capsys.readouterr().out
    assert "mcp: the challenger is the best of yes_no_maybe: rank (mean 0.400 over seeds 1)" in out
    assert out.index("yes_no_maybe: 10 runs") < out.index("mcp: 2 runs") < out.index("recipes: ") < out.index("no run 'export-1")
    assert {row.variant for row in RowFile(tmp_path / "docs" / "studies" / "mcp.jsonl").read()} == {"default", "rank"}
    num_started = len((tmp_path / "started").read_text().split())
    # The same again makes nothing; another challenger is made on request, and shown beside the first.
    assert main([*STUDIES, *places, "--seeds", "1"], command=FAKE) == 0
    assert main(["mcp", *places, "--seeds", "1", "--challenger", "cispo"], command=FAKE) == 0
    assert len((tmp_path / "started").read_text().split()) == num_started + 1
    capsys.readouterr()
    assert main(["mcp", *places, "--seeds", "1", "--show"]) == 0
    assert re.findall(r"^\| (\w+) \| 1", capsys.readouterr().out, re.MULTILINE) == ["default", "cispo", "rank"]


def test_a_challenger_that_is_not_known_yet_is_told_and_the_default_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--seeds", "1"), command=FAKE) == 0
    places = ["--home", str(tmp_path / "home"), "--docs", str(tmp_path / "docs")]
    assert main(["mcp", *places, "--seeds", "1"], command=FAKE) == 1
    out = capsys.readouterr().out
    assert "challenger of the default is not known yet" in out
    assert "--challenger cispo" in out
    assert [row.variant for row in RowFile(tmp_path / "docs" / "studies" / "mcp.jsonl").read()] == ["default"]
    assert main(["mcp", *places, "--only", "default", "--seeds", "1"], command=FAKE) == 0


def test_challengers_are_compared_over_the_seeds_that_all_of_them_have() -> None:
    study = STUDIES["yes_no_maybe"]

    def row(variant: str, seed: int, value: float) -> Row:
        (cell,) = cells(study, [seed], [variant])
        final = {"train/reward_mean": value}
        return Row(
            study=study.name, variant=variant, seed=seed, state="done", settings=cell.settings(), commit="abc", started_at="", seconds=1.0,
            final=final,
        )  # fmt: skip

    names = [variant.name for variant in study.variants if variant.name != "default"]
    rows = [row(name, seed, 0.7 if name == "rloo" else 0.5) for name in names for seed in (1, 2)]
    assert best_challenger(study, rows[:-2]) is None
    # Seed 3 was easy, and only one has run it.
    best = best_challenger(study, [*rows, row("grpo", 3, 1.0), row("default", 1, 0.9)])
    assert best is not None
    assert (best.name, best.mean, best.seeds) == ("rloo", pytest.approx(0.7), (1, 2))


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_run_of_a_shipped_study_has_settings_that_are_valid_and_its_own(name: str) -> None:
    made = cells(STUDIES[name], [1, 2])
    assert len({str(cell.settings()) for cell in made}) == len(made)
    assert newest([], made[0]) is None
