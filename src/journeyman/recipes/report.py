"""What a run came to: its report, `result.json` beside it (the same in numbers, for programs that compare runs), and what it cost.

Not for training steps: their rows in the store have their own time and tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import shlex
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from journeyman.config import command_line
from journeyman.errors import StoreError
from journeyman.evaluation import Evaluation, PhaseCost, Report, pick_examples, write_report
from journeyman.evaluation.report import JudgeCost
from journeyman.recipes.settings import McpTrain, NamedTraining, non_default_settings
from journeyman.rewards import Ruler
from journeyman.service.backend import Backend
from journeyman.store.home import write_durably
from journeyman.types.record import Record
from journeyman.types.runs import StepMetrics
from journeyman.types.secrets import Secret

if TYPE_CHECKING:
    from journeyman.recipes.run import OpenRun

RESULT_FILE = "result.json"
_PHASES = TypeAdapter(tuple[PhaseCost, ...])


class Result(Record):
    """What came of a run, in numbers.

    Attributes:
        recipe, method, seed: of the run.
        settings: those that are not the defaults, by dotted name.
        steps: the metrics of each training step, in order, with what was measured on held-out examples after it (as `heldout/…`).
        final: what the run ends with, by name.
        seconds: that it took, over every session.
    """

    recipe: str
    method: str
    seed: int
    settings: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    final: dict[str, float]
    seconds: float


def make_report(
    opened: OpenRun,
    settings: NamedTraining | McpTrain,
    *,
    title: str,
    target: str,
    judge: str,
    evaluations: Sequence[Evaluation] = (),
    adapter: str,
    curl: str | None = None,
    notes: Sequence[str] = (),
    is_again: bool = False,
) -> Report:
    """Put the report together and write it into the run's folder.

    Args:
        adapter: `model@step`, the version that was trained.
        is_again: an evaluation made again, which has its own costs only and a folder of its own.

    Raises StoreError.
    """
    rows = opened.store.runs.steps(opened.run)
    trained = {row.step for row in rows if row.phase == "train"}
    # Earlier versions kept steps of `method: sft` under both phases.
    steps = tuple(row for row in rows if row.phase != "warmup" or row.step not in trained)
    groups = list(evaluations[0].groups.values()) if evaluations else []
    report = Report(
        run=opened.run,
        title=title,
        base=settings.base,
        target=target,
        judge=judge,
        created_at=time.time(),
        settings=settings.model_dump(mode="json"),
        machine=machine(opened.backend),
        evaluations=tuple(evaluation.summary for evaluation in evaluations),
        steps=steps,
        phases=opened.costs.phases if is_again else (*opened.costs.phases, *step_costs(steps)),
        judge_cost=opened.costs.judge(is_whole=not is_again),
        examples=pick_examples(groups[0], groups[-1]) if len(groups) > 1 else (),
        adapter=str(opened.folder.adapters / adapter),
        serve_command=command_line("serve", "--run", opened.run, "--home", opened.home),
        curl=curl,
        notes=tuple(notes),
    )
    page = write_report(report, _new_folder(opened.folder.evaluations) if is_again else opened.folder.report)
    opened.progress.note(f"report: {page}")
    return report


def _new_folder(parent: Path) -> Path:
    """A folder named after the time, with a number where there is one already."""
    name = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            hint = "check that the folder is writable and the disk not full"
            raise StoreError(f"the evaluation's folder {folder} cannot be made: {error}", hint=hint) from error
        return folder
    raise AssertionError("counting does not end")


def write_result(
    report: Report, opened: OpenRun, settings: NamedTraining | McpTrain, *, recipe: str, method: str, final: Mapping[str, float]
) -> None:
    """Write `result.json` beside the report. Raises StoreError."""
    result = Result(
        recipe=recipe,
        method=method,
        seed=settings.seed,
        settings={name: _plain(value) for name, value in non_default_settings(settings).items()},
        steps=_with_heldout(report.steps),
        final=dict(final),
        seconds=report.seconds,
    )
    path = opened.folder.report / RESULT_FILE
    try:
        path.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the result cannot be written to {path}: {error}", hint="check the folder and the free space") from error


def evaluation_numbers(report: Report) -> dict[str, float]:
    """The held-out numbers of the first evaluation by name: `heldout/<variant>` (success, or the score where nobody tells success) with
    its interval, `heldout/<variant>/<check>`, and `heldout/gain` of the last variant over the first, with its paired interval; where
    there is a warm start between them, `heldout/gain_by_rl` of the last variant over it."""
    if not report.evaluations:
        return {}
    main = report.evaluations[0]
    numbers: dict[str, float] = {}
    for one in main.variants:
        name = f"heldout/{one.name}"
        numbers |= {name: one.success.mean, f"{name}/low": one.success.low, f"{name}/high": one.success.high}
        numbers |= {f"{name}/missing": float(one.num_missing)} if one.num_missing else {}
        numbers |= {f"{name}/{check}": value for check, value in one.checks.items()}
    names = [one.name for one in main.variants]
    for name, before in (("heldout/gain", names[0]), ("heldout/gain_by_rl", "warm")):
        if before in names[:-1] and main.has_comparison(before, names[-1]):
            gain = main.comparison(before, names[-1]).success.difference
            numbers |= {name: gain.mean, f"{name}/low": gain.low, f"{name}/high": gain.high}
    return numbers


def reward_numbers(report: Report, window: int = 5) -> dict[str, float]:
    """The reward of training attempts: `train/reward` of the last step, `train/reward_last` the mean over the last `window` steps, and
    `train/reward_mean` over all of them (how early it learned)."""
    rewards = [step.metrics["reward/mean"] for step in report.steps if step.phase == "train" and "reward/mean" in step.metrics]
    if not rewards:
        return {}
    last = rewards[-window:]
    return {
        "train/reward": rewards[-1],
        "train/reward_last": sum(last) / len(last),
        "train/reward_mean": sum(rewards) / len(rewards),
    }


def heldout_numbers(report: Report) -> dict[str, float]:
    """What was measured on held-out examples: each name as it ended, and `NAME_before` as it began."""
    rows = sorted((step for step in report.steps if step.phase == "eval"), key=lambda row: row.step)
    if not rows:
        return {}
    return dict(rows[-1].metrics) | {f"{name}_before": value for name, value in rows[0].metrics.items()}


def training_numbers(report: Report, names: Sequence[str]) -> dict[str, float]:
    """These metrics of the last training step, where it has them."""
    rows = [step.metrics for step in report.steps if step.phase == "train"]
    return {name: rows[-1][name] for name in names if rows and name in rows[-1]}


def step_costs(steps: Sequence[StepMetrics]) -> tuple[PhaseCost, ...]:
    """What drills and training steps cost, over every session that the run took."""
    costs = []
    drills, train = ([row.metrics for row in steps if row.phase == phase] for phase in ("warmup", "train"))
    if drills:
        costs.append(_row_cost(f"drills, {_counted(drills)}", drills, "train/seconds", trained="train/num_tokens"))
    if any(row.get("rollout/num_sampled_tokens") for row in train):
        costs.append(_row_cost(f"attempts, {_counted(train)}", train, "rollout/seconds", sampled="rollout/num_sampled_tokens"))
    if train:
        costs.append(_row_cost(f"updates, {_counted(train)}", train, "train/seconds", trained="train/num_tokens"))
    return tuple(costs)


def _row_cost(name: str, rows: Sequence[Mapping[str, float]], seconds: str, *, sampled: str = "", trained: str = "") -> PhaseCost:
    def total(metric: str) -> float:
        return sum(row.get(metric, 0.0) for row in rows)

    return PhaseCost(name=name, seconds=total(seconds), sampled_tokens=int(total(sampled)), trained_tokens=int(total(trained)))


def _counted(rows: Sequence[object]) -> str:
    return f"{len(rows)} step{'s' if len(rows) > 1 else ''}"


def machine(backend: Backend) -> dict[str, str]:
    """What it ran on."""
    info = backend.engine.info
    return {
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": f"{info.device}, {info.dtype}, {info.num_workers} workers",
        "python": platform.python_version(),
        "system": platform.system(),
    }


def curl_line(body: Mapping[str, Any]) -> str:
    """A request that works against `journeyman serve` with its defaults."""
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl -s http://127.0.0.1:8100/v1/chat/completions -H 'Content-Type: application/json' -d {data}"


def _with_heldout(steps: Sequence[StepMetrics]) -> tuple[dict[str, float], ...]:
    """The training steps, each with what was measured of the model as it left it. What was measured before the first is no step's."""
    measured = {row.step: row.metrics for row in steps if row.phase == "eval"}
    return tuple(row.metrics | measured.get(row.step, {}) for row in steps if row.phase == "train")


def _plain(value: Any) -> Any:
    """A setting as JSON has it, of a secret what may be shown."""
    if isinstance(value, Record):
        return value.model_dump(mode="json")
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


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
        """The model that judges; what it used before counts apart from what it uses from now on."""
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
