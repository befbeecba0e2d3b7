from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
import typer

from journeyman.cli.interrupts import run_interruptible


@pytest.fixture(autouse=True)
def _interrupts_are_not_ignored() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored; then there is nothing to test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_ends_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_interruptible(work(), str) == 7


def test_ctrl_c_lets_the_work_clean_up_then_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            events.append("cleaned up")

    def how_to_go_on() -> str:
        events.append("asked")
        return "go on with: journeyman mcp train --resume [run]"

    with pytest.raises(typer.Exit) as stop:
        run_interruptible(work(), how_to_go_on)
    assert stop.value.exit_code == 130
    assert events == ["cleaned up", "asked"]
    assert "journeyman mcp train --resume [run]" in capsys.readouterr().err
