"""docs/tour.md follows a call, a step and an adapter through the code: its stops are functions that really run there, in that order."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import journeyman as jm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "journeyman"
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
STOP = re.compile(r"^\d+\. `(?P<file>[\w/]+\.py)`, `(?P<name>[\w.]+)`", re.MULTILINE)
PARTS = {title: body for title, _, body in (part.partition("\n") for part in TOUR.split("\n## ")[1:])}


def stops(title: str) -> list[str]:
    return [f"{stop['file']}::{stop['name']}" for stop in STOP.finditer(PARTS[title])]


@contextmanager
def traced() -> Iterator[list[str]]:
    """The functions of Journeyman, `file::qualified name`, in the order in which any thread entered them."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCES)):
            entered.append(f"{Path(code.co_filename).relative_to(SOURCES).as_posix()}::{code.co_qualname.replace('<locals>.', '')}")

    threading.setprofile(note)  # threads that are started from here on
    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def is_path(stops: list[str], entered: list[str]) -> bool:
    """Whether the stops were entered one after the other."""
    rest = iter(entered)
    return all(stop in rest for stop in stops)


@pytest.fixture
async def journey(tiny_model: Path, tmp_path: Path) -> dict[str, list[str]]:
    """What was entered by a chat call inside a rollout, by a training step, and by the first call to the new adapter."""
    entered, rewards = {}, iter((0.0, 1.0, 0.0))

    async def ask(scenario: jm.Scenario, run: jm.Rollout) -> None:
        messages: Any = [{"role": "user", "content": scenario.task}]
        await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=4)
        run.reward = next(rewards)

    with traced() as calls:
        async with jm.local(str(tiny_model), home=tmp_path, num_workers=1, engine_processes=0) as backend:
            model = await backend.model("clerk")
            calls.clear()
            groups = await jm.gather(ask, [jm.Scenario(id="a", task="hello")], model=model, group_size=2)
            entered["A chat call"] = list(calls)
            calls.clear()
            await model.train(groups)
            await jm.gather(ask, [jm.Scenario(id="b", task="hello")], model=model, group_size=1)
            entered["A training step"] = entered["An adapter"] = list(calls)
    return entered


@pytest.mark.parametrize("title", PARTS)
def test_a_journey_has_six_stops(title: str) -> None:
    assert len(stops(title)) == 6


async def test_the_stops_are_entered_in_this_order(journey: dict[str, list[str]]) -> None:
    assert journey.keys() == PARTS.keys()
    for title, entered in journey.items():
        assert is_path(stops(title), entered), [stop for stop in stops(title) if stop not in entered]


def test_a_stop_that_is_not_entered_or_comes_too_early_is_no_path() -> None:
    assert is_path(["a", "c"], ["a", "b", "c"])
    assert not is_path(["c", "a"], ["a", "b", "c"])
    assert not is_path(["a", "d"], ["a", "b", "c"])
