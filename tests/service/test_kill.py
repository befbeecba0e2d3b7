"""SIGKILL at any moment of a step: the run goes on, and ends with the same bits as one that was never killed.

Each run is a process of its own, forked from a server that has imported everything once.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.service.crash_run import GROUPS_PER_STEP, STEPS, train

from journeyman.store import Checkpoints, Store

_WAIT_SECONDS = 240.0

# In the order in which a step passes them. The second time each is reached is in the first step or in the second.
POINTS = (
    "planned",
    "engine asleep",
    "computing",
    "computed",
    "checkpoint begun",
    "checkpoint filled",
    "checkpoint written",
    "checkpoint synced",
    "checkpoint renamed",
    "checkpoint kept",
    "adapter begun",
    "adapter written",
    "adapter synced",
    "adapter renamed",
    "adapter kept",
    "published",
    "metrics kept",
    "checkpoints cleared",
    "concluded",
)

# Importing torch and transformers in the server of forks takes long on a machine with other load.
pytestmark = pytest.mark.timeout(300)

Run = Callable[..., int | None]


@pytest.fixture(scope="module")
def run(sharp_model: Path) -> Run:
    """Starts or resumes the run in a home folder, in a new process; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([train.__module__])

    def start(
        home: Path, kill_at: tuple[str, int] | None = None, kill_after_seconds: float | None = None, method: str = "grpo"
    ) -> int | None:
        process = context.Process(target=train, args=(home, sharp_model, kill_at, method))
        process.start()
        process.join(_WAIT_SECONDS if kill_after_seconds is None else kill_after_seconds)
        if process.is_alive():
            process.kill()
            process.join(_WAIT_SECONDS)
        return process.exitcode

    return start


@dataclass(frozen=True)
class Result:
    """What a run left: every file of its newest checkpoint and adapter, its rows, its folders."""

    files: dict[str, bytes]
    rows: list[tuple[str, int, dict[str, float]]]
    folders: list[str]

    @classmethod
    def of(cls, home: Path, num_groups: int = STEPS * GROUPS_PER_STEP) -> Result:
        folder = home / "runs" / "r"
        newest = Checkpoints(folder / "checkpoints").newest()
        assert newest is not None
        assert (newest.step, newest.memo["num_groups"]) == (STEPS, num_groups)
        kept = [newest.folder / name for name in ("adapter/adapter_model.safetensors", "optimizer.safetensors", "random.json")]
        kept.append(folder / "adapters" / f"m@{STEPS}" / "adapter_model.safetensors")
        with Store.open(home) as store:
            # Times differ, and the probe after a publish is not measured again when a kill came before the row was written.
            rows = [
                (row.phase, row.step, {name: value for name, value in row.metrics.items() if "seconds" not in name and "probe" not in name})
                for row in store.runs.steps("r")
            ]
        folders = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}, rows, folders)


def assert_same(actual: Result, expected: Result) -> None:
    assert [name for name in expected.files if actual.files[name] != expected.files[name]] == []
    assert actual.rows == expected.rows
    assert actual.folders == expected.folders


@pytest.fixture(scope="module")
def uninterrupted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, float]:
    """The result of a run that is never killed, and the seconds it took."""
    home = tmp_path_factory.mktemp("uninterrupted") / "home"
    started = time.perf_counter()
    assert run(home) == 0
    return Result.of(home), time.perf_counter() - started


def test_the_run_trains_and_repeats_itself(run: Run, uninterrupted: tuple[Result, float], tmp_path: Path) -> None:
    result, _ = uninterrupted
    assert [(phase, step) for phase, step, _ in result.rows] == [("train", step + 1) for step in range(STEPS)]
    assert all(metrics["train/gradient_norm"] > 0 for _, _, metrics in result.rows)
    assert run(tmp_path / "home") == 0
    assert_same(Result.of(tmp_path / "home"), result)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_a_step_resumes_to_the_same_bits(
    run: Run, uninterrupted: tuple[Result, float], tmp_path: Path, point: str
) -> None:
    home = tmp_path / "home"
    assert run(home, (point, 2)) == -signal.SIGKILL
    assert (tmp_path / "witness").read_text() == f"{point} 2"
    assert run(home) == 0
    assert_same(Result.of(home), uninterrupted[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_a_random_time_resumes_to_the_same_bits(run: Run, uninterrupted: tuple[Result, float], tmp_path: Path, seed: int) -> None:
    result, seconds = uninterrupted
    delay = seconds * random.Random(seed).uniform(0.2, 0.95)
    for attempt in range(6):
        home = tmp_path / str(attempt) / "home"
        if run(home, kill_after_seconds=delay) == -signal.SIGKILL:
            break
        delay /= 2  # it was faster than the one that was measured: nothing was killed
    else:
        pytest.fail("no run was slow enough to be killed")
    assert run(home) == 0
    assert_same(Result.of(home), result)


@pytest.mark.parametrize("point", ["computing", "checkpoint renamed", "published"])
def test_a_kill_in_a_step_on_pairs_resumes_to_the_same_bits(run: Run, tmp_path: Path, point: str) -> None:
    through, killed = tmp_path / "through" / "home", tmp_path / "killed" / "home"
    assert run(through, method="dpo") == 0
    assert run(killed, (point, 2), method="dpo") == -signal.SIGKILL
    assert run(killed, method="dpo") == 0
    expected = Result.of(through, num_groups=0)
    assert all(metrics["train/reward_margin"] != 0 for _, _, metrics in expected.rows)
    assert_same(Result.of(killed, num_groups=0), expected)


@pytest.mark.parametrize("file", ["optimizer.safetensors", "adapter/adapter_model.safetensors"])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_bits(
    run: Run, uninterrupted: tuple[Result, float], tmp_path: Path, file: str
) -> None:
    home = tmp_path / "home"
    assert run(home, ("planned", 3)) == -signal.SIGKILL
    path = home / "runs" / "r" / "checkpoints" / "step-000002" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-64] + bytes(64))  # of the same size, and its header is sound
    assert run(home) == 0
    result = Result.of(home)
    aside = [name for name in result.folders if "damaged-" in name or "set-aside" in name]
    assert [name.partition("-")[0] for name in aside] == ["adapters/m@2.set", "checkpoints/damaged"]
    assert_same(replace(result, folders=[name for name in result.folders if name not in aside]), uninterrupted[0])
