"""A job in the terminal while it runs: a live block, or plain lines where there is no terminal; and Ctrl-C, which ends it cleanly."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from journeyman.cli.console import INTERRUPTED, OutputClosedError, Terminal, failures, output, styled

if TYPE_CHECKING:
    from journeyman.evaluation.report import Report

_Result = TypeVar("_Result")

#: The readings of a step that are shown, by their metrics.
_READINGS: Final = {
    "reward/mean": "reward",
    "reward/success": "success",
    "rollout/tokens_per_second": "tokens_per_second",
    "train/num_groups_without_spread": "groups_without_spread",
}
_FORMATS = {"reward": ".2f", "tokens_per_second": ".0f", "groups_without_spread": ".0f"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_SECONDS = 15.0
_SILENT_SECONDS = 30.0
_TABLE_STEPS = 8


def run_interruptible(work: Coroutine[Any, Any, _Result], how_to_go_on: Callable[[], str], *, also_after_errors: bool = False) -> _Result:
    """Run to the end and return the result; on Ctrl-C let the work clean up, print `how_to_go_on()`, exit with 130.

    The first Ctrl-C cancels the work, which then closes what it opened; a second one ends at once. An error passes; with
    `also_after_errors` how to go on is printed before it is.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        failures().print("\ninterrupted; what was finished is kept")
        if text := how_to_go_on():
            failures().print(text)
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        if also_after_errors and (text := how_to_go_on()):
            failures().print(f"stopped by an error; what was finished is kept; when it is mended, {text}")
        raise


def run_and_report(
    start: Callable[[ProgressView], Coroutine[Any, Any, Report]], how_to_go_on: Callable[[], str], *, also_after_errors: bool = False
) -> None:
    """Run what ends in a report, its progress shown, and show the report. Otherwise as `run_interruptible`."""
    from journeyman.evaluation import show_report

    console = output()
    with ProgressView(console) as view:
        report = run_interruptible(start(view), how_to_go_on, also_after_errors=also_after_errors)
    show_report(report, console)


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """One line of the step table: what was read of the step, by the names of `_READINGS`."""

    step: int
    readings: dict[str, float]
    seconds: float


@dataclass(slots=True)
class ProgressState:
    """The current phase and everything shown about it. `clock` counts seconds from anywhere."""

    clock: Callable[[], float]
    name: str = ""
    total: int | None = None
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    steps: list[FinishedStep] = field(default_factory=list)
    phase_started: float = 0.0
    step_ended: float = 0.0
    job_started: float | None = None

    def begin(self, name: str, total: int | None) -> None:
        now = self.clock()
        if self.job_started is None:
            self.job_started = now
        self.name, self.total, self.done, self.values = name, total, 0, {}
        self.phase_started = self.step_ended = now

    def advance(self, amount: int, values: dict[str, float]) -> None:
        self.done += amount
        self.values.update(values)

    def finish_step(self, step: int, metrics: dict[str, float]) -> FinishedStep:
        now = self.clock()
        finished = FinishedStep(step, {name: metrics[key] for key, name in _READINGS.items() if key in metrics}, now - self.step_ended)
        self.step_ended = now
        self.steps.append(finished)
        self.values.update({name: value for name, value in finished.readings.items() if name != "groups_without_spread"})
        return finished

    @property
    def elapsed_seconds(self) -> float:
        """Since the first phase began."""
        return 0.0 if self.job_started is None else self.clock() - self.job_started

    @property
    def phase_seconds(self) -> float:
        return self.clock() - self.phase_started

    @property
    def seconds_left(self) -> float | None:
        """Of this phase, at its average pace so far; None until a tenth is done: the first of many attempts that run together comes
        when most of the others are nearly there."""
        if self.total is None or self.done <= 0 or self.done * 10 < self.total:
            return None
        return max(0.0, self.phase_seconds / self.done * (self.total - self.done))


class ProgressView:
    """Shows a job while it runs; use it as a context manager. Safe to call from any thread. Implements `observe.progress.Progress`.

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
            self._state.begin(name, total)
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
                rewards = [step.readings["reward"] for step in state.steps if "reward" in step.readings]
                parts += [_table(state.steps[-_TABLE_STEPS:]), Text(f"reward per step  {sparkline(rewards)}", "green")]
            return Group(*parts)


def _head(state: ProgressState) -> RenderableType:
    cells = [Text(state.name, "bold cyan")]
    if state.total:
        cells.append(Text(f"{min(state.done, state.total)}/{state.total}"))
    elif state.done:
        cells.append(Text(str(state.done)))
    readings = "  ".join(reading(name, value) for name, value in state.values.items())
    time_left = f"{duration(state.seconds_left)} left" if state.seconds_left is not None else ""
    bar = ProgressBar(total=state.total or None, completed=min(state.done, state.total or 0), width=24, pulse=not state.total)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*cells, bar, readings, time_left, Text(f"{duration(state.elapsed_seconds)} in all", "dim"))
    return grid


def _table(steps: list[FinishedStep]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("step", "reward", "success", "tok/s", "groups without spread", "time"):
        table.add_column(name, justify="right")
    for step in steps:
        cells = [_figure(name, step.readings[name]) if name in step.readings else "" for name in _READINGS.values()]
        table.add_row(str(step.step), *cells, duration(step.seconds))
    return table


def _phase_line(state: ProgressState) -> str:
    amount = f" {state.done}/{state.total}" if state.total else f" {state.done}" if state.done else ""
    parts = [f"  {state.name}{amount}", *(reading(name, value) for name, value in state.values.items())]
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    return "  ".join(parts)


def _step_line(step: FinishedStep) -> str:
    shown = {name: value for name, value in step.readings.items() if name != "groups_without_spread" or value}
    return "  ".join([f"  step {step.step}", *(reading(name, value) for name, value in shown.items()), duration(step.seconds)])


def reading(name: str, value: float) -> str:
    """One reading for people, with its unit.

    Example:
        >>> reading("success", 0.25), reading("tokens_per_second", 161.8), reading("loss", 0.0213)
        ('success 25 %', '162 tok/s', 'loss 0.0213')
    """
    figure, words = _figure(name, value), name.replace("_", " ")
    return {"tokens_per_second": f"{figure} tok/s", "groups_without_spread": f"{figure} {words}"}.get(name, f"{words} {figure}")


def _figure(name: str, value: float) -> str:
    if name == "success":
        return f"{100 * value:.0f} %"
    return format(value, _FORMATS.get(name, ".3g"))


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last `width` values as block characters, scaled to [0, 1] when they fit there, else to their own range.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
    """
    finite = [value for value in values if math.isfinite(value)][-width:]
    if not finite:
        return ""
    low, high = min(0.0, *finite), max(1.0, *finite)
    if low < 0.0 or high > 1.0:
        low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[min(7, int((value - low) / span * 8))] for value in finite)


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(8.4), duration(75), duration(7260)
        ('8 s', '1 min 15 s', '2 h 01 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
