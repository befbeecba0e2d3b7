"""A run killed inside a step goes on with the attempts and verdicts that it had: no attempt is made or judged twice.

Each run is a process of its own; the judge is an HTTP server in this one.
"""

from __future__ import annotations

import multiprocessing
import re
import signal
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.llm_server import Answer, ScriptedServer, serve
from tests.recipes.stopped_run import TRAINING, Kill, settings, train
from tests.rewards.test_ruler import judge_by

from journeyman.rewards.judge_store import JudgeStore
from journeyman.store import Store
from journeyman.types.runs import RunInfo, StepMetrics

_WAIT_SECONDS = 280.0
# Two groups of two: the probe, then each step; every group is shown to the judge in two orders.
_CALLS_OF_A_RUN = 3 * 2 * 2
_NUM_PROBED = 4

# What a run imports when it needs it takes seconds, and each of these processes is a run.
_IMPORTED_LATE = (
    "journeyman.server.app",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mcp",
    "openai",
    "scipy.stats",
    "transformers",
)

pytestmark = pytest.mark.timeout(600)

Run = Callable[..., int | None]


@pytest.fixture(scope="module")
def run() -> Run:
    """Starts or resumes the run in a home folder, in a new process; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([train.__module__, *_IMPORTED_LATE])

    def start(home: Path, judge_url: str, *, kill_at: Kill | None = None, rubric: str = "be right") -> int | None:
        known = None if kill_at is not None else only_run(home).id
        process = context.Process(target=train, args=(home, settings(judge_url, rubric=rubric), known, kill_at))
        process.start()
        process.join(_WAIT_SECONDS)
        assert process.exitcode is not None, f"the run did not end within {_WAIT_SECONDS:g} s"
        return process.exitcode

    return start


@pytest.fixture
def judge() -> Iterator[ScriptedServer]:
    by_text = judge_by(lambda text: zlib.crc32(text.encode()) % 100 / 100)
    # The first request of a session only asks whether anybody is there.
    with serve(lambda request: by_text(request) if len(request["messages"]) > 1 else Answer("ready")) as server:
        yield server


def only_run(home: Path) -> RunInfo:
    with Store.open(home) as store:
        (info,) = store.runs.list()
        return info


def steps_of(home: Path) -> list[StepMetrics]:
    run = only_run(home).id
    with Store.open(home) as store:
        return list(store.runs.steps(run, "train"))


def attempts_of(home: Path) -> Counter[str]:
    """How many attempts were finished under each key: the phase, the step and the place in it."""
    with sqlite3.connect(home / "journeyman.db") as connection:
        rows = connection.execute("SELECT key FROM rollouts WHERE key IS NOT NULL AND outcome IS NOT NULL").fetchall()
    connection.close()
    return Counter(key for (key,) in rows)


def times_shown(judge: ScriptedServer) -> Counter[str]:
    """In how many calls the judge saw each attempt, by the attempt's own word."""
    return Counter(word for request in judge.requests for word in set(re.findall(r"word (\w{8})", str(request["messages"]))))


def calls(judge: ScriptedServer) -> int:
    return sum(len(request["messages"]) > 1 for request in judge.requests)


@pytest.mark.parametrize(
    ("kill_at", "num_kept"),
    [
        pytest.param(("attempt", _NUM_PROBED + 2), 1, id="when half of a group was attempted"),
        pytest.param(("judging", 3), 4, id="when one of two groups was judged"),
        pytest.param((TRAINING, 1), 4, id="when all groups were judged"),
    ],
)
def test_a_killed_step_goes_on_with_its_attempts_and_pays_the_judge_once(
    run: Run, judge: ScriptedServer, tmp_path: Path, kill_at: Kill, num_kept: int
) -> None:
    assert run(tmp_path, judge.base_url, kill_at=kill_at) == -signal.SIGKILL
    assert run(tmp_path, judge.base_url) == 0
    info, steps = only_run(tmp_path), steps_of(tmp_path)
    assert (info.state, [row.step for row in steps]) == ("done", [1, 2])
    made = attempts_of(tmp_path)
    assert set(made.values()) == {1}
    assert Counter(key.partition("/")[0] for key in made) == {"warmup-0": 4, "train-0": 4, "train-1": 4}
    assert set(times_shown(judge).values()) == {2}
    assert calls(judge) == _CALLS_OF_A_RUN
    stopped_in = 1 if kill_at[0] == TRAINING else 0
    assert [row.metrics.get("rollout/num_kept") for row in steps] == [num_kept if at == stopped_in else None for at in range(2)]
    # Each call is counted in the run's purse once, and in the row of the step that it belongs to.
    assert [row.metrics["judge/prompt_tokens"] for row in steps] == [40.0, 40.0]
    purse = JudgeStore(tmp_path)
    assert purse.spent(info.id)[0].calls == _CALLS_OF_A_RUN
    purse.close()


def test_a_kill_before_the_row_of_a_step_loses_nothing_that_was_measured(run: Run, judge: ScriptedServer, tmp_path: Path) -> None:
    assert run(tmp_path, judge.base_url, kill_at=("checkpoint kept", 1)) == -signal.SIGKILL
    assert steps_of(tmp_path) == []
    assert run(tmp_path, judge.base_url) == 0
    first, second = steps_of(tmp_path)
    assert (first.step, second.step) == (1, 2)
    assert second.metrics.keys() - first.metrics.keys() == {"train/probe_change", "train/seconds"}  # measured when the step is served
    assert first.metrics.keys() < second.metrics.keys()
    assert first.settings.keys() == second.settings.keys() == {"grpo"}
    assert set(attempts_of(tmp_path).values()) == {1}
    assert calls(judge) == _CALLS_OF_A_RUN


def test_a_changed_judge_judges_the_kept_attempts_anew(run: Run, judge: ScriptedServer, tmp_path: Path) -> None:
    assert run(tmp_path, judge.base_url, kill_at=(TRAINING, 1)) == -signal.SIGKILL
    assert run(tmp_path, judge.base_url, rubric="be short") == 0
    assert set(attempts_of(tmp_path).values()) == {1}
    # The probe and the first step are over; the second step's four attempts are seen by the old judge and by the new one.
    assert Counter(times_shown(judge).values()) == {2: 8, 4: 4}
