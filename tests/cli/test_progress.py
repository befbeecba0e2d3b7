from __future__ import annotations

import asyncio
import io
import signal
import threading
from collections.abc import Iterator

import pytest
import typer

from journeyman.cli.console import OutputClosedError, Terminal
from journeyman.cli.progress import ProgressState, ProgressView, duration, reading, run_interruptible, sparkline
from journeyman.observe.progress import Progress, SilentProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain(clock: Clock) -> tuple[ProgressView, io.StringIO]:
    stream = io.StringIO()
    return ProgressView(Terminal(file=stream, width=200), is_live=False, clock=clock), stream


def use(progress: Progress) -> None:
    progress.phase("train", 4, "four steps")
    progress.advance(1, reward=0.25, tokens_per_second=160.0)
    progress.step(1, {"reward/mean": 0.25, "reward/success": 0.5, "rollout/tokens_per_second": 160.0})
    progress.note("a note with [brackets]")
    progress.warn("a warning")


def test_silent_progress_takes_everything_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    use(SilentProgress())
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_each_event_is_one_line() -> None:
    view, stream = plain(Clock())
    with view:
        use(view)
    assert stream.getvalue().splitlines() == [
        "train (4)  four steps",
        "  step 1  reward 0.25  success 50 %  160 tok/s  0 s",
        "a note with [brackets]",
        "note: a warning",
    ]


class Heard(io.StringIO):
    """Knows when two lines have come beside that of the phase."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= 3:
            self.enough.set()
        return written


def test_without_a_terminal_a_phase_in_which_nothing_is_counted_speaks_too() -> None:
    stream = Heard()
    with ProgressView(Terminal(file=stream, width=200), is_live=False, silent_seconds=0.02) as view:
        view.phase("load", note="a model")
        assert stream.enough.wait(timeout=20.0)
    assert {line.split()[0] for line in stream.getvalue().splitlines()} == {"load"}


class Closed(io.StringIO):
    """An output whose reader goes away after the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.is_noticed = threading.Event()

    def write(self, text: str) -> int:
        if self.getvalue().count("\n"):
            self.is_noticed.set()
            raise BrokenPipeError
        return super().write(text)


def test_an_output_that_closes_between_two_events_ends_the_work_at_the_next() -> None:
    stream = Closed()
    with ProgressView(Terminal(file=stream, width=200), is_live=False, silent_seconds=0.02) as view:
        view.phase("load", note="a model")
        assert stream.is_noticed.wait(timeout=20.0)
    with pytest.raises(OutputClosedError):
        view.note("loaded")


def test_without_a_terminal_a_long_phase_speaks_every_fifteen_seconds() -> None:
    clock = Clock()
    view, stream = plain(clock)
    view.phase("build tasks", 100)
    for _ in range(40):
        clock.now += 1.0
        view.advance(1)
    lines = stream.getvalue().splitlines()[1:]
    assert [line.split()[2] for line in lines] == ["15/100", "30/100"]
    assert "1 min 25 s left" in lines[0]


def test_in_a_terminal_the_block_shows_phase_bar_steps_and_chart() -> None:
    stream = io.StringIO()
    console = Terminal(file=stream, force_terminal=True, width=120)
    with ProgressView(console, clock=Clock()) as view:
        use(view)
    shown = stream.getvalue()
    for expected in ("train", "1/4", "success 50 %", "reward per step", "▃"):
        assert expected in shown


def test_many_threads_may_speak_while_the_block_is_drawn() -> None:
    console = Terminal(file=io.StringIO(), force_terminal=True, width=120)

    def work(view: ProgressView) -> None:
        for _ in range(50):
            view.advance(1)
            view.note("x")

    with ProgressView(console) as view:
        view.phase("train", 200)
        threads = [threading.Thread(target=work, args=(view,), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)


def test_time_left_follows_the_pace_of_the_phase() -> None:
    clock = Clock()
    state = ProgressState(clock)
    state.begin("train", 10)
    assert state.seconds_left is None
    clock.now += 30
    state.advance(3, {})
    assert state.seconds_left == pytest.approx(70)


def test_the_first_of_many_attempts_that_run_together_says_nothing_about_the_time_left() -> None:
    clock = Clock()
    state = ProgressState(clock)
    state.begin("evaluate", 64)
    clock.now += 36
    state.advance(1, {})
    assert state.seconds_left is None
    clock.now += 2
    state.advance(31, {})
    assert state.seconds_left == pytest.approx(38)


def test_a_new_phase_forgets_the_readings_of_the_last() -> None:
    state = ProgressState(Clock())
    state.begin("warm start", None)
    state.advance(1, {"loss": 0.1})
    state.begin("train", 3)
    assert (state.values, state.done) == ({}, 0)


def test_a_sparkline_keeps_the_scale_of_rewards_and_widens_for_others() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([]) == ""
    assert sparkline([float("nan"), 1.0]) == "█"
    assert sparkline([10.0, 20.0]) == "▁█"
    assert len(sparkline([0.5] * 100, width=30)) == 30


def test_durations_and_readings_are_for_people() -> None:
    assert [duration(8.4), duration(59.6), duration(75), duration(7260)] == ["8 s", "1 min 00 s", "1 min 15 s", "2 h 01 min"]
    assert reading("num_calls", 3.0) == "num calls 3"


@pytest.fixture
def _interrupts_are_not_ignored() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored; then there is nothing to test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_ends_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_interruptible(work(), str) == 7


@pytest.mark.usefixtures("_interrupts_are_not_ignored")
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
        return "--resume [run]"

    with pytest.raises(typer.Exit) as stop:
        run_interruptible(work(), how_to_go_on)
    assert stop.value.exit_code == 130
    assert events == ["cleaned up", "asked"]
    assert "--resume [run]" in capsys.readouterr().err
