"""While a step is trained, both event loops (the server's, and the one that the agents and MCP sessions run on) stay free: no store work
on them, and no stall, though another process holds the database."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import Train

from journeyman.observe.progress import SilentProgress
from journeyman.recipes import mcp
from journeyman.recipes.grpo import train
from journeyman.recipes.settings import GrpoTrain, McpTrain
from journeyman.recipes.train import evaluate
from journeyman.store import Store

BEAT_SECONDS = 0.005
MAX_STALL_SECONDS = 0.05
HOLD_SECONDS, PAUSE_SECONDS, NUM_HOLDS = 0.3, 0.15, 5


@pytest.fixture
def on_a_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where SQLite or fsync was called in a thread whose event loop was running."""
    found: list[str] = []

    def note(*_: object) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        found.append("".join(traceback.format_stack(limit=12)))

    def fsync(descriptor: int, call: Callable[[int], None] = os.fsync) -> None:
        note()
        call(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    names = ("before_cursor_execute", "commit", "connect")
    kinds = (sqlalchemy.Engine, sqlalchemy.Engine, sqlalchemy.pool.Pool)
    for name, kind in zip(names, kinds, strict=True):
        sqlalchemy.event.listen(kind, name, note)
    yield found
    for name, kind in zip(names, kinds, strict=True):
        sqlalchemy.event.remove(kind, name, note)


class Heart:
    """Beats on an event loop; its longest pause is the loop's longest stall, what the machine itself lost included."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.num_beats = 0

    async def beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(BEAT_SECONDS)
            self.longest = max(self.longest, time.perf_counter() - before - BEAT_SECONDS)
            self.num_beats += 1


@contextmanager
def control() -> Iterator[Heart]:
    """A loop of its own with nothing to do: what it loses is lost to other processes and to Python's lock."""
    heart, loop = Heart(), asyncio.new_event_loop()

    def run() -> None:
        task = loop.create_task(heart.beat())
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield heart
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


@contextmanager
def second_writer(path: Path) -> Iterator[list[int]]:
    """Holds the database's write lock some times; counts how often. In the pauses, longer than SQLite waits between tries, others write."""
    stop, held = threading.Event(), [0]

    def hold() -> None:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        while not stop.is_set() and held[0] < NUM_HOLDS:
            connection.execute("BEGIN IMMEDIATE")
            held[0] += 1
            stop.wait(HOLD_SECONDS)
            connection.execute("COMMIT")
            stop.wait(PAUSE_SECONDS)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield held
    finally:
        stop.set()
        thread.join(60)


async def stalls(model: FakeModel, settings: GrpoTrain, home: Path) -> tuple[dict[str, float], float]:
    """The longest stall of each loop while a step is made beside a second writer, and that of a loop with nothing to do."""
    hearts = {"client": Heart(), "server": Heart()}
    client, beating = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def begin(name: str) -> None:
        beating.add(asyncio.get_running_loop().create_task(hearts[name].beat()))

    def is_right(task: str, number: int) -> bool:  # on the server's loop, when the step's first attempt is drawn
        if not beating:
            begin("server")
            client.call_soon_threadsafe(begin, "client")
        return number % 2 == 1

    model.forget()
    model.is_right = is_right
    with Store.open(home) as store:
        path = store.home.path / "journeyman.db"
    with second_writer(path) as held, control() as free:
        await train(settings, SilentProgress(), home=home, run="one")
    for task in beating:
        task.get_loop().call_soon_threadsafe(task.cancel) if not task.get_loop().is_closed() else None
    assert held[0] >= 2
    assert all(heart.num_beats > 10 for heart in hearts.values())
    return {name: heart.longest for name, heart in hearts.items()}, free.longest


@pytest.mark.parametrize("method", ["grpo", "sft", "dpo"])
async def test_no_store_work_is_done_on_an_event_loop_while_a_run_is_made(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path, on_a_loop: list[str], method: str
) -> None:
    await methods[method](tmp_path / "home", SilentProgress(), steps=1)
    assert not on_a_loop, on_a_loop[0]
    await methods[method](tmp_path / "home", SilentProgress(), steps=2, resume=True)
    assert not on_a_loop, on_a_loop[0]


async def test_none_is_while_a_run_of_an_mcp_server_is_made_and_evaluated(
    model: FakeModel, settings: McpTrain, tmp_path: Path, on_a_loop: list[str]
) -> None:
    await mcp.train(settings.model_copy(update={"steps": 1}), SilentProgress(), home=tmp_path, run="one")
    assert not on_a_loop, on_a_loop[0]
    await evaluate("one", home=tmp_path, progress=SilentProgress(), attempts=1)
    assert not on_a_loop, on_a_loop[0]


async def test_none_is_while_a_run_on_own_tasks_is_evaluated_again(
    model: FakeModel, doubler: GrpoTrain, tmp_path: Path, on_a_loop: list[str]
) -> None:
    await train(doubler.model_copy(update={"steps": 1}), SilentProgress(), home=tmp_path, run="one")
    await evaluate("one", home=tmp_path, progress=SilentProgress(), attempts=1)
    assert not on_a_loop, on_a_loop[0]


async def test_the_loops_do_not_stall_while_another_writer_holds_the_database(
    model: FakeModel, one_step: GrpoTrain, tmp_path: Path
) -> None:
    measured = []
    for number in range(3):  # the machine may be busy: what a free loop loses beside them is not theirs
        longest, free = await stalls(model, one_step, tmp_path / f"home-{number}")
        measured.append({**longest, "free": free, "allowed": max(MAX_STALL_SECONDS, 2 * free)})
        if max(longest.values()) <= measured[-1]["allowed"]:
            break
    assert max(longest.values()) <= measured[-1]["allowed"], measured
