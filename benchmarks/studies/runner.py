"""Makes the runs of a study that have no row yet, each in a process of its own. Not for what came of them: see `summary.py`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.cells import Cell, Study
from benchmarks.studies.rows import Row, RowFile, newest

CURVES: Final = (
    "reward/mean",
    "reward/success",
    "reward/with_spread",
    "train/loss",
    "train/entropy",
    "train/gradient_norm",
    "train/reward_margin",
    "train/reward_accuracy",
    "heldout/loss",
    "heldout/ranked_right",
    "heldout/reward_accuracy",
)
_WEIGHTS: Final = ("adapters", "checkpoints")
_MAX_ERROR_CHARACTERS: Final = 600
_END_SECONDS: Final = 20.0


@dataclass(slots=True)
class Runner:
    """Makes runs, some at a time.

    Attributes:
        home: a home folder for the runs of each study.
        command: what is started for a run, before its arguments.
        commit: tells the version of the code; asked when a run begins, because it may change while a study goes on.
        num_at_once: runs beside each other. More than one share the machine, and each draws its tokens in its own process.
        timeout_seconds: for one run.
        keeps_weights: leave adapters and checkpoints of finished runs on disk.
        say: shows a line.
    """

    study: Study
    rows: RowFile
    home: Path
    command: Sequence[str]
    commit: Callable[[], str]
    num_at_once: int = 1
    timeout_seconds: float = 4 * 3600.0
    keeps_weights: bool = False
    say: Callable[[str], None] = print
    _num_running: int = 0
    _seconds: list[float] = field(default_factory=list)

    async def run(self, cells: Sequence[Cell]) -> bool:
        """Make every run that has no row; returns whether all that were tried succeeded. When it is cancelled, so are those that run."""
        made = self.rows.read()
        waiting = deque(cell for cell in cells if newest(made, cell) is None)
        self.say(f"{self.study.name}: {len(cells)} runs, {len(cells) - len(waiting)} of them made before")
        total, states = len(waiting), []

        async def work() -> None:
            while waiting:
                cell = waiting.popleft()
                row = await self._make(cell)
                self.rows.append(row)
                states.append(row.state)
                self._show(row, len(states), total)

        with self.rows.alone():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self.num_at_once, total)):
                    tasks.create_task(work())
        return "failed" not in states

    async def _make(self, cell: Cell) -> Row:
        settings, commit = cell.settings(), self.commit()
        started, stamp = time.monotonic(), time.gmtime()
        # Two runs of a cell may begin in one second: one that fails at once, and its next try.
        run = f"{cell.name}-{time.strftime('%Y%m%d-%H%M%S', stamp)}-{secrets.token_hex(2)}".replace("_", "-")
        home = self.home / self.study.name
        home.mkdir(parents=True, exist_ok=True)
        beside, self._num_running = self._num_running, self._num_running + 1
        try:
            error = await self._execute(self._arguments(cell, home, run), home / f"{run}.log")
        finally:
            self._num_running -= 1
        folder = home / "runs" / run
        result = None if error else _read_result(folder / "report" / "result.json")
        if error is None and result is None:
            error = f"the run ended without {folder / 'report' / 'result.json'}"
        if result is not None and not self.keeps_weights:
            for name in _WEIGHTS:
                shutil.rmtree(folder / name, ignore_errors=True)
        return Row(
            study=self.study.name,
            variant=cell.variant.name,
            seed=cell.seed,
            state="failed" if result is None else "done",
            overrides=cell.overrides,
            settings=settings,
            commit=commit,
            started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", stamp),
            seconds=round(time.monotonic() - started, 1),
            num_beside=max(beside, self._num_running),
            curve={} if result is None else _curve(result["steps"]),
            final={} if result is None else result["final"],
            error=error,
        )

    def _arguments(self, cell: Cell, home: Path, run: str) -> list[str]:
        overrides = [word for override in cell.overrides for word in ("--set", override)]
        return ["train", cell.variant.file, *overrides, "--seed", str(cell.seed), "--home", str(home), "--run", run]

    async def _execute(self, arguments: Sequence[str], log: Path) -> str | None:
        """Run the command to its end; what went wrong, or None."""
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if self.num_at_once > 1:
            environment.setdefault("JOURNEYMAN_ENGINE_PROCESSES", "0")
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches us alone, and all that the run started can be ended together.
            process = await asyncio.create_subprocess_exec(
                *self.command, *arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    code = await process.wait()
            except TimeoutError:
                return f"it did not end within {self.timeout_seconds:g} s; {log} tells how far it came"
            finally:
                await _end(process)
        return None if code == 0 else f"exit code {code}: {_last_words(log)}"

    def _show(self, row: Row, number: int, total: int) -> None:
        self._seconds.append(row.seconds)
        left = (total - number) * sum(self._seconds) / len(self._seconds) / self.num_at_once
        name, _ = self.study.measures[0]
        told = row.error if row.error else "  ".join(f"{key} {value:.3f}" for key, value in row.final.items() if key == name)
        rest = f"; {total - number} left, about {left / 60:.0f} min" if number < total else ""
        self.say(f"[{number}/{total}] {row.variant} seed {row.seed}: {row.state} in {row.seconds:.0f} s  {told}{rest}")


def code_version(folder: Path) -> str:
    """The short commit of the code, with a + when files differ from it; "unknown" outside a repository."""
    try:
        commit, changed = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what is left of a run: itself, and whatever it started."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await process.wait()


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and "steps" in result and "final" in result else None


def _curve(steps: Sequence[dict[str, float]]) -> dict[str, tuple[float | None, ...]]:
    found = {name: tuple(step.get(name) for step in steps) for name in CURVES}
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def _last_words(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return text[-_MAX_ERROR_CHARACTERS:] or "it said nothing"
