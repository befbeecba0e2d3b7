"""Live progress in the terminal, and plain lines where there is no terminal. Implements `observe.progress.Progress`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from journeyman.cli.console import OutputClosedError, Terminal, styled
from journeyman.cli.progress_state import FinishedStep, ProgressState, duration, reading, sparkline

_PLAIN_SECONDS = 15.0
_SILENT_SECONDS = 30.0
_TABLE_STEPS = 8


class ProgressView:
    """Shows a job while it runs; use it as a context manager. Safe to call from any thread.

    In a terminal one live block (phase, bar, readings, time left, the last steps, a small chart of the reward) stays at the bottom,
    and notes scroll above it. Elsewhere each phase, step and note is one line, and a phase speaks at most every 15 seconds, and at
    least every 30 seconds or so, also while nothing is counted (a model loads, a server thinks).

    Args:
        console: where to.
        is_live: None = live when the console is a terminal.
        clock: seconds from anywhere; tests pass their own.
        silent_seconds: how long nothing is said outside a terminal, at most about.
    """

    def __init__(
        self,
        console: Terminal,
        *,
        is_live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        silent_seconds: float = _SILENT_SECONDS,
    ) -> None:
        self._console = console
        self._is_live = console.is_terminal if is_live is None else is_live
        self._state = ProgressState(clock)
        self._lock = threading.Lock()
        self._clock = clock
        self._spoken = 0.0
        self._live: Live | None = None
        self._silent_seconds = silent_seconds
        self._is_over = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> ProgressView:
        if self._is_live:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        self._is_over.set()
        if self._ticker is not None:
            self._ticker.join()

    # The state has its own lock, never held while printing: the live block's thread holds rich's lock when it asks for ours.

    def phase(self, name: str, total: int | None = None, note: str = "") -> None:
        with self._lock:
            self._state.begin(name, total, note)
            self._spoken = self._clock()
        amount = "" if total is None else f" ({total})"
        self._console.print(styled((name, "bold cyan"), amount, f"  {note}" if note else ""))

    def advance(self, amount: int = 1, **values: float) -> None:
        line = ""
        with self._lock:
            self._state.advance(amount, values)
            if not self._is_live and self._clock() - self._spoken >= _PLAIN_SECONDS:
                self._spoken = self._clock()
                line = _phase_line(self._state)
        if line:
            self._console.print(line)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        with self._lock:
            finished = self._state.finish_step(step, metrics)
            self._spoken = self._clock()
        if not self._is_live:
            self._console.print(_step_line(finished))

    def note(self, text: str) -> None:
        self._has_spoken()
        self._console.print(text)

    def warn(self, text: str) -> None:
        self._has_spoken()
        self._console.print(styled(("note:", "yellow"), f" {text}"))

    def _has_spoken(self) -> None:
        with self._lock:
            self._spoken = self._clock()

    def _tick(self) -> None:
        while not self._is_over.wait(self._silent_seconds / 2):
            line = ""
            with self._lock:
                if self._state.name and self._clock() - self._spoken >= self._silent_seconds / 2:
                    self._spoken = self._clock()
                    line = f"{_phase_line(self._state)}  {duration(self._state.phase_seconds)} so far"
            if not line:
                continue
            try:
                self._console.print(line)
            except OutputClosedError:
                self._console.quiet = False  # this thread cannot end the program: the next word of the work does
                return

    def _render(self) -> RenderableType:
        with self._lock:
            state = self._state
            if not state.name:
                return Text("")
            parts: list[RenderableType] = [_head(state)]
            if state.steps:
                rewards = [one.reward for one in state.steps if one.reward is not None]
                parts += [_table(state.steps[-_TABLE_STEPS:]), Text(f"reward per step  {sparkline(rewards)}", "green")]
            return Group(*parts)


def _head(state: ProgressState) -> RenderableType:
    left = state.seconds_left
    cells = [Text(state.name, "bold cyan")]
    if state.total:
        cells.append(Text(f"{min(state.done, state.total)}/{state.total}"))
    elif state.done:
        cells.append(Text(str(state.done)))
    readings = "  ".join(reading(name, value) for name, value in state.values.items())
    time_left = f"{duration(left)} left" if left is not None else ""
    grid = Table.grid(padding=(0, 1))
    bar: RenderableType = ProgressBar(total=state.total, completed=min(state.done, state.total or 0), width=24)
    if not state.total:
        bar = ProgressBar(total=None, pulse=True, width=24)
    grid.add_row(*cells, bar, readings, time_left, Text(f"{duration(state.elapsed_seconds)} in all", "dim"))
    return grid


def _table(steps: list[FinishedStep]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("step", "reward", "success", "tok/s", "groups without spread", "time"):
        table.add_column(name, justify="right")
    for one in steps:
        table.add_row(
            str(one.step),
            "" if one.reward is None else f"{one.reward:.2f}",
            "" if one.success is None else f"{100 * one.success:.0f} %",
            "" if one.tokens_per_second is None else f"{one.tokens_per_second:.0f}",
            "" if one.groups_without_spread is None else f"{one.groups_without_spread:.0f}",
            duration(one.seconds),
        )
    return table


def _phase_line(state: ProgressState) -> str:
    amount = f" {state.done}/{state.total}" if state.total else f" {state.done}" if state.done else ""
    left = state.seconds_left
    parts = [f"  {state.name}{amount}", *(reading(name, value) for name, value in state.values.items())]
    if left is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def _step_line(one: FinishedStep) -> str:
    readings = [("reward", one.reward), ("success", one.success), ("tokens_per_second", one.tokens_per_second)]
    parts = [f"  step {one.step}", *(reading(name, value) for name, value in readings if value is not None)]
    if one.groups_without_spread:
        parts.append(f"{one.groups_without_spread:.0f} groups without spread")
    return "  ".join([*parts, duration(one.seconds)])
