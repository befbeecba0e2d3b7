"""What a run costs: time and tokens of its phases, kept with the run so that a run that goes on adds to them, and its judging model.

Not for training steps: their rows in the store have their own time and tokens (`run_report.step_costs`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from journeyman.errors import StoreError
from journeyman.evaluation.report import JudgeCost, PhaseCost
from journeyman.rewards import Ruler
from journeyman.store.durable import write_durably

_PHASES = TypeAdapter(tuple[PhaseCost, ...])


class Costs:
    """The phases of a run that leave no step behind, one entry a name.

    In memory, until `keep_in` names the run's file: then what earlier sessions wrote there counts too, and every phase that ends is kept.
    """

    def __init__(self) -> None:
        self._phases: dict[str, PhaseCost] = {}
        self._path: Path | None = None
        self._num_sampled: Callable[[], int] = int
        self._judge: Ruler | None = None
        self._judged_before = JudgeCost(judge="")

    @property
    def phases(self) -> tuple[PhaseCost, ...]:
        """In the order in which they were first entered."""
        return tuple(self._phases.values())

    def count_tokens(self, num_sampled: Callable[[], int]) -> None:
        """From now on a phase's tokens are by how much `num_sampled()`, the tokens drawn so far, grows in it."""
        self._num_sampled = num_sampled

    def keep_in(self, path: Path) -> None:
        """Add what this file holds, and keep the sums there from now on. Raises StoreError for a file that cannot be read or written."""
        now, self._phases = self.phases, {}
        for phase in (*_read(path), *now):
            self._add(phase)
        self._path = path
        self._write()

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        """Count the block, however it ends. Raises StoreError when it cannot be kept."""
        started, drawn = time.perf_counter(), self._num_sampled()

        async def add() -> None:
            self._add(PhaseCost(name=name, seconds=time.perf_counter() - started, sampled_tokens=self._num_sampled() - drawn))
            await asyncio.to_thread(self._write)

        try:
            yield
        except BaseException:
            with suppress(StoreError):  # what ended the block says more
                await add()
            raise
        await add()

    def watch(self, judge: Ruler) -> None:
        """The model that judges; what it has used before is told apart from what it uses from now on."""
        self._judge, self._judged_before = judge, _judge_cost(judge)

    def judge(self, *, is_whole: bool) -> JudgeCost | None:
        """What the judging model used in all sessions (`is_whole`) or since it is watched; None when there is none, or it used nothing
        since then."""
        if self._judge is None:
            return None
        whole = _judge_cost(self._judge)
        if is_whole:
            return whole
        since = whole.minus(self._judged_before)
        return since if since.calls else None

    def _add(self, phase: PhaseCost) -> None:
        before = self._phases.get(phase.name)
        self._phases[phase.name] = phase if before is None else before.plus(phase)

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            write_durably(self._path, _PHASES.dump_json(self.phases, indent=2) + b"\n")
        except StoreError as error:
            raise StoreError(f"what the run costs cannot be kept: {error.message}", hint=error.hint) from error


def _read(path: Path) -> Sequence[PhaseCost]:
    try:
        return _PHASES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise StoreError(
            f"what the run has cost so far cannot be read from {path}: {error}",
            hint="delete the file and go on: only the costs of earlier sessions are missing in the report then",
        ) from error


def _judge_cost(judge: Ruler) -> JudgeCost:
    usage = judge.spending.usage
    return JudgeCost(
        judge=judge.name,
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_usd=judge.spending.cost_usd,
    )
