"""The store keeps what it was given, says clearly why it cannot, and survives kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event
from tests.reasons import has_reason

from journeyman.errors import NotFoundError, StoreError
from journeyman.store import ModelRow, Store
from journeyman.store.models import AdapterRow
from journeyman.store.rollouts import RolloutRow
from journeyman.store.runs import INTERRUPTED, JobRow
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.runs import StepMetrics
from journeyman.types.sampling import SamplingParameters
from journeyman.types.settings import LoraSettings
from journeyman.types.training import FinishRollout, JobStatus, TrainResult
from journeyman.types.trajectory import Failure, ToolEvent, Turn, Verdict


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def make_turn(index: int = 0) -> Turn:
    call = ToolCall(id="call_1", function=FunctionCall(name="add", arguments='{"a": 1'))
    return Turn(
        index=index,
        adapter="m@3",
        messages=(Message(role="user", content="Grüße \u2028 \x00"),),
        reply=Message(role="assistant", tool_calls=(call,)),
        prompt_ids=(1, 2, 3),
        sampled_ids=(4, 5),
        sampled_logprobs=(-0.1, -1e-9),
        finish_reason="stop",
        parameters=SamplingParameters(),
        started_at=1.5,
        seconds=0.25,
        body_hash="h",
    )


def open_rollout(store: Store, rollout_id: str = "r1", token: str = "secret") -> None:
    store.rollouts.open(RolloutRow(rollout_id, "m@3", "s1", 4, run="run"), token)


class TestRollouts:
    def test_a_sealed_rollout_comes_back_as_it_was_recorded(self, store: Store) -> None:
        open_rollout(store)
        store.rollouts.append_turn("r1", make_turn(0))
        store.rollouts.append_turn("r1", make_turn(1))
        event = ToolEvent(turn=0, call_id="c", name="add", arguments=None, is_known=True, is_valid=False, is_error=True, result="no")
        failure = Failure(type="ValueError", message="bad")
        outcome = FinishRollout(metrics={"x": 1.0}, error=failure, tool_events=(event,), seconds=2.0)
        trajectory = store.rollouts.seal("r1", outcome)
        assert trajectory.turns == (make_turn(0), make_turn(1))
        assert (trajectory.model, trajectory.scenario_id, trajectory.seconds) == ("m@3", "s1", 2.0)
        assert trajectory.error == failure
        assert trajectory.tool_events == (event,)
        assert trajectory.reward is None
        assert store.rollouts.trajectory("r1") == trajectory

    def test_sealing_twice_keeps_the_first_outcome(self, store: Store) -> None:
        open_rollout(store)
        store.rollouts.seal("r1", FinishRollout(reward=0.5))
        assert store.rollouts.seal("r1", FinishRollout(reward=0.9)).reward == 0.5

    def test_a_sealed_rollout_takes_no_turn(self, store: Store) -> None:
        open_rollout(store)
        store.rollouts.seal("r1", FinishRollout())
        with pytest.raises(StoreError, check=has_reason("rollout_sealed")):
            store.rollouts.append_turn("r1", make_turn(0))

    def test_a_turn_out_of_order_is_refused(self, store: Store) -> None:
        open_rollout(store)
        with pytest.raises(StoreError, check=has_reason("wrong_index")):
            store.rollouts.append_turn("r1", make_turn(1))

    def test_the_token_finds_its_rollout_and_is_not_in_the_file(self, store: Store) -> None:
        open_rollout(store, token="s3cret-token")
        found = store.rollouts.find_by_token("s3cret-token")
        assert found is not None
        assert found.id == "r1"
        assert store.rollouts.find_by_token("other") is None
        files = [path for path in store.home.path.iterdir() if path.is_file()]
        assert all(b"s3cret-token" not in path.read_bytes() for path in files)

    def test_an_unknown_rollout_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFoundError, match="nope"):
            store.rollouts.trajectory("nope")

    def test_rewards_and_verdicts_are_kept(self, store: Store) -> None:
        open_rollout(store)
        verdict = Verdict(judge="j", score=0.7, is_success=True)
        store.rollouts.set_rewards({"r1": 0.7}, {"r1": verdict})
        trajectory = store.rollouts.trajectory("r1")
        assert (trajectory.reward, trajectory.verdict) == (0.7, verdict)

    def test_open_rollouts_are_listed_until_sealed(self, store: Store) -> None:
        open_rollout(store, "r1", "a")
        open_rollout(store, "r2", "b")
        store.rollouts.seal("r1", FinishRollout())
        assert [row.id for row in store.rollouts.list_of_run("run") if not row.is_sealed] == ["r2"]
        assert [row.id for row in store.rollouts.list_of_run("run")] == ["r1", "r2"]

    def test_many_threads_can_write_at_once(self, store: Store) -> None:
        def work(number: int) -> None:
            open_rollout(store, f"r{number}", f"t{number}")
            for index in range(5):
                store.rollouts.append_turn(f"r{number}", make_turn(index))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert all(len(store.rollouts.turns(f"r{number}")) == 5 for number in range(8))


class TestRuns:
    def test_creating_a_run_twice_keeps_its_settings(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b", settings={"seed": 1})
        again = store.runs.create("a", kind="other", base="x", settings={"seed": 2})
        assert (again.kind, again.base, again.settings, again.state) == ("mcp", "b", {"seed": 1}, "created")

    def test_a_run_that_goes_on_loses_its_error(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b")
        assert store.runs.update("a", state="failed", error="boom", step=3).error == "boom"
        resumed = store.runs.update("a", state="running")
        assert (resumed.error, resumed.step) == (None, 3)

    def test_an_unknown_run_names_the_known_ones(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b")
        with pytest.raises(NotFoundError, match="known runs: a"):
            store.runs.get("z")

    def test_the_row_of_a_step_is_written_once(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b")
        store.runs.add_step(StepMetrics(run="a", phase="train", step=1, time=1.0, metrics={"x": 1.0, "y": 1.0}))
        store.runs.add_step(StepMetrics(run="a", phase="train", step=1, time=2.0, metrics={"y": 2.0}))
        store.runs.add_step(StepMetrics(run="a", phase="eval", step=1, time=3.0, metrics={"z": 3.0}))
        (step,) = store.runs.steps("a", "train")
        assert (step.metrics, step.time) == ({"x": 1.0, "y": 1.0}, 1.0)
        assert len(store.runs.steps("a")) == 2


class TestModels:
    def test_adapters_come_back_in_order_with_absolute_folders(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b")
        store.models.create(ModelRow("a", "m", "b", LoraSettings(rank=4)))
        for step in (2, 0, 10):
            store.models.add_adapter(AdapterRow("a", "m", step, store.home.run("a").adapters / f"m@{step}", f"f{step}"))
        rows = store.models.adapters("a", "m")
        assert [row.name for row in rows] == ["m@0", "m@2", "m@10"]
        assert rows[0].folder == store.home.path / "runs" / "a" / "adapters" / "m@0"
        store.models.orphan_adapters("a", "m", after_step=2)
        assert [row.step for row in store.models.adapters("a", "m")] == [0, 2]

    def test_a_model_keeps_the_settings_it_was_made_with(self, store: Store) -> None:
        store.runs.create("a", kind="mcp", base="b")
        store.models.create(ModelRow("a", "m", "b", LoraSettings(rank=4)))
        assert store.models.create(ModelRow("a", "m", "b", LoraSettings(rank=8))).lora.rank == 4


class TestJobs:
    def test_a_job_is_found_by_its_key_and_keeps_its_result(self, store: Store) -> None:
        store.jobs.add(JobRow("a", "m", "grpo", "k", "hash", JobStatus(id="j1", state="queued")))
        result = TrainResult(step=1, adapter="m@1", metrics={"train/loss": 0.5})
        store.jobs.set_status(JobStatus(id="j1", state="done", result=result))
        found = store.jobs.find("a", "m", "k")
        assert found is not None
        assert (found.status.id, found.status.result, found.status.progress) == ("j1", result, 1.0)
        assert store.jobs.unfinished("a", "m") == ()

    def test_an_interrupted_job_makes_room_for_the_same_key(self, store: Store) -> None:
        store.jobs.add(JobRow("a", "m", "grpo", "k", "hash", JobStatus(id="j1", state="running")))
        store.jobs.set_status(JobStatus(id="j1", state="failed", error="stopped", error_code=INTERRUPTED, error_reason="killed"))
        assert store.jobs.get("j1").status.error_reason == "killed"
        store.jobs.add(JobRow("a", "m", "grpo", "k", "hash", JobStatus(id="j2", state="queued")))
        found = store.jobs.find("a", "m", "k")
        assert found is not None
        assert found.status.id == "j2"


class TestKeys:
    def keyed(
        self, store: Store, rollout_id: str, key: str | None, *, model: str = "m@3", run: str = "run", is_sealed: bool = True
    ) -> None:
        store.rollouts.open(RolloutRow(rollout_id, model, "s1", 4, run=run, key=key), f"t{rollout_id}")
        if is_sealed:
            store.rollouts.seal(rollout_id, FinishRollout(reward=0.25))

    def found(self, store: Store, key: str) -> list[str]:
        return [row.id for row in store.rollouts.list_keyed("run", "m@3", key)]

    def test_sealed_rollouts_of_a_run_and_version_are_found_under_their_key_alone(self, store: Store) -> None:
        self.keyed(store, "a", "train-1/0/0")
        self.keyed(store, "b", "train-1/0/1")
        self.keyed(store, "open", "train-1/0/2", is_sealed=False)
        self.keyed(store, "older version", "train-1/0/3", model="m@2")
        self.keyed(store, "another run", "train-1/0/4", run="other")
        self.keyed(store, "another step", "train-10/0/0")
        self.keyed(store, "no key", None)
        assert self.found(store, "train-1") == ["a", "b"]
        assert self.found(store, "train-1/0") == ["a", "b"]
        assert self.found(store, "train") == []
        store.rollouts.forget_key("run", "train-1")
        assert self.found(store, "train-1") == []
        assert self.found(store, "train-10") == ["another step"]
        assert store.rollouts.trajectory("a").reward == 0.25

    def test_verdicts_of_a_key_are_forgotten_and_the_agents_own_reward_is_not(self, store: Store) -> None:
        for rollout_id, key in (("a", "train-1/0/0"), ("b", "train-2/0/0")):
            self.keyed(store, rollout_id, key)
            store.rollouts.set_rewards({rollout_id: 0.9}, {rollout_id: Verdict(judge="j", score=0.9)})
        (row,) = store.rollouts.list_keyed("run", "m@3", "train-1")
        assert (row.is_judged, row.error, row.scenario_id) == (True, None, "s1")
        store.rollouts.forget_verdicts("run", "train-1")
        first, second = store.rollouts.trajectory("a"), store.rollouts.trajectory("b")
        assert (first.reward, first.verdict) == (0.25, None)
        assert (second.reward, second.verdict is not None) == (0.9, True)

    def test_how_a_rollout_failed_is_told(self, store: Store) -> None:
        self.keyed(store, "a", "k/0", is_sealed=False)
        failure = Failure(type="McpError", message="the server died: \u201cbye\u201d")
        store.rollouts.seal("a", FinishRollout(error=failure))
        (row,) = store.rollouts.list_keyed("run", "m@3", "k")
        assert (row.error, row.is_judged) == (failure, False)

    def test_a_store_of_the_first_layout_is_opened_with_what_it_holds(self, tmp_path: Path) -> None:
        with Store.open(tmp_path) as store:
            open_rollout(store)
            store.rollouts.append_turn("r1", make_turn(0))
            store.rollouts.seal("r1", FinishRollout(reward=0.5))
        with sqlite3.connect(tmp_path / "journeyman.db") as connection:
            connection.execute("DROP INDEX rollouts_by_key")
            connection.execute("ALTER TABLE rollouts DROP COLUMN key")
            for table in ("rollouts", "runs"):
                connection.execute(f"ALTER TABLE {table} DROP COLUMN tokenizer")
            connection.execute("ALTER TABLE steps DROP COLUMN settings")
            connection.execute("ALTER TABLE jobs DROP COLUMN error_reason")
            connection.execute("UPDATE schema SET version = 1")
        connection.close()
        for _ in range(2):
            with Store.open(tmp_path) as store:
                assert store.rollouts.trajectory("r1").reward == 0.5
                assert self.found(store, "k") == []
        with Store.open(tmp_path) as store:
            self.keyed(store, "a", "k/0")
            assert self.found(store, "k") == ["a"]

    def test_a_store_of_the_third_layout_keeps_settings_of_steps_from_now_on(self, tmp_path: Path) -> None:
        with Store.open(tmp_path) as store:
            store.runs.create("r", kind="model", base="tiny")
            store.runs.add_step(StepMetrics(run="r", phase="train", step=1, time=1.0, metrics={"x": 1.0}))
        with sqlite3.connect(tmp_path / "journeyman.db") as connection:
            connection.execute("ALTER TABLE steps DROP COLUMN settings")
            connection.execute("ALTER TABLE jobs DROP COLUMN error_reason")
            connection.execute("UPDATE schema SET version = 3")
        connection.close()
        made = {"grpo": {"updates": 2}}
        with Store.open(tmp_path) as store:
            store.runs.add_step(StepMetrics(run="r", phase="train", step=2, time=2.0, metrics={"x": 2.0}, settings=made))
            assert [step.settings for step in store.runs.steps("r")] == [{}, made]


class TestBadHomes:
    def test_a_store_of_a_newer_version_is_refused_with_that_version(self, tmp_path: Path) -> None:
        Store.open(tmp_path).close()
        connection = sqlite3.connect(tmp_path / "journeyman.db")
        connection.execute("UPDATE schema SET version = 99, written_by = '7.1.0'")
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, check=has_reason("newer_version")) as caught:
            Store.open(tmp_path)
        assert caught.value.hint is not None
        assert "7.1.0 or newer" in caught.value.hint

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_home_is_named(self, tmp_path: Path) -> None:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with pytest.raises(StoreError, match=str(tmp_path)):
                Store.open(tmp_path)
        finally:
            tmp_path.chmod(stat.S_IRWXU)

    def test_a_file_in_the_place_of_the_home_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("")
        with pytest.raises(StoreError, check=has_reason("no_folder")):
            Store.open(tmp_path / "home")

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "journeyman.db").write_bytes(b"this is not a database" * 100)
        with pytest.raises(StoreError, match=r"journeyman\.db") as caught:
            Store.open(tmp_path)
        assert caught.value.hint is not None
        assert "damaged" in caught.value.hint

    def test_a_full_disk_is_a_store_error_and_loses_nothing(self, store: Store) -> None:
        open_rollout(store)
        store.rollouts.append_turn("r1", make_turn(0))
        with store._database.read() as connection:  # the smallest honest full disk: no page may be added
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        big = make_turn(1).model_copy(update={"sampled_ids": tuple(range(50_000))})

        def limit(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}").close()

        event.listen(store._database._engine, "connect", limit)
        store._database._engine.dispose()
        with pytest.raises(StoreError, check=has_reason("disk_full")):
            store.rollouts.append_turn("r1", big)
        assert store.rollouts.turns("r1") == (make_turn(0),)


_KILLED_AFTER_APPEND = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import make_turn, open_rollout
from journeyman.store import Store
store = Store.open(Path(sys.argv[1]))
open_rollout(store)
store.rollouts.append_turn("r1", make_turn(0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_turn_survives_a_kill_right_after_it_was_stored(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED_AFTER_APPEND, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.run(command, timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    with Store.open(tmp_path) as store:
        assert store.rollouts.turns("r1") == (make_turn(0),)
