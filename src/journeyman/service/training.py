"""Training jobs on the server: samples, the trainer's step, a checkpoint, a published version; or everything as it was before.

Where trainer, engine and store meet. Not for gradients (trainer/) nor for what a version is (`weights.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from journeyman.chat.renderer import Renderer
from journeyman.engine.base import Engine
from journeyman.errors import JourneymanError, StoreError, TrainingError, WaitTimeoutError
from journeyman.observe.health import news
from journeyman.service.examples import preference_batch, readable_trajectories, supervised_samples
from journeyman.service.jobs import JobRequest, Jobs
from journeyman.service.samples import Policy, policy_batch, step_notes
from journeyman.service.trainable import TrainableModel, save_random_state
from journeyman.service.weights import Published, Weights
from journeyman.store.checkpoints import Checkpoint, Reached, kept_steps, missing_metric, pass_by, version_scores
from journeyman.store.runs import Change, differences
from journeyman.store.store import Store
from journeyman.trainer.base import OnProgress
from journeyman.types.runs import StepMetrics, finite_metrics
from journeyman.types.settings import Retention
from journeyman.types.training import DpoJob, JobStatus, MeasureJob, PairLossJob, SftJob, TrainJob, TrainResult, UpdateJob

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_QUIET_SECONDS = 600.0
_DROP_SECONDS = 120.0
_RETENTION_METRIC = "retention.metric"


@dataclass(frozen=True, slots=True)
class _Plan:
    """A job ready to compute. `update` blocks and returns the trainer's metrics; `is_idle`: there is nothing to compute.

    `measured` and `settings`, by the job's kind, are the job's.
    """

    update: Callable[[OnProgress], dict[str, float]]
    metrics: dict[str, float]
    notes: tuple[str, ...]
    phase: str
    is_idle: bool = False
    measured: Mapping[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class _StepDroppedError(TrainingError):
    """The server is stopping: the step is given up."""


class TrainingService:
    """Trains models one job after the other; the engine sleeps meanwhile.

    Args:
        retention: what stays on disk after a step; `Retention()` when None.
        reached: called with the points that a step passes.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        store: Store,
        weights: Weights,
        jobs: Jobs,
        *,
        retention: Retention | None = None,
        reached: Reached = pass_by,
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._store = store
        self._weights = weights
        self._jobs = jobs
        self._retention = retention or Retention()
        self._reached = reached
        self._load = readable_trajectories(store, engine.info.base, renderer.fingerprint)
        self._computing = asyncio.Lock()  # models share the processor: one step at a time
        self._dropping = threading.Event()

    def submit(
        self, model: TrainableModel, job: TrainJob, key: str | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> JobStatus:
        """Queue a training job. The same `key` again gives the same job. `loop`: as for `Jobs.submit`."""
        # What was measured is not asked for: a step that is asked for again has other times.
        body_hash = hashlib.sha256(job.model_dump_json(exclude={"measured"}).encode()).hexdigest()
        request = JobRequest(model.row.run, model.name, job.kind, body_hash, key)
        if isinstance(job, MeasureJob):
            return self._jobs.submit(request, lambda _, on_progress: self._measure(model, job, on_progress), loop)
        return self._jobs.submit(request, lambda job_id, on_progress: self._train(model, job, job_id, on_progress), loop)

    async def close(self) -> None:
        """Drop what is queued or running."""
        self._dropping.set()
        await self._jobs.close()

    async def _measure(self, model: TrainableModel, job: MeasureJob, on_progress: OnProgress) -> TrainResult:
        """The loss of examples or pairs; nothing is trained, kept or published."""
        async with self._computing:
            measure = await asyncio.to_thread(self._measurement, model, job)
            report = self._reporter(on_progress)
            async with self._resting(needed=True):
                metrics = await self._in_thread(lambda: measure(report))
            version = model.version
        if not math.isfinite(metrics["loss"]):
            raise TrainingError(
                f"the loss of these examples is not finite ({metrics['loss']}) for {version}",
                hint="its weights have gone astray: go back to an earlier version; or the base model is damaged",
                reason="not_finite",
            )
        return TrainResult(step=version.step, adapter=str(version), metrics=metrics)

    def _measurement(self, model: TrainableModel, job: MeasureJob) -> Callable[[OnProgress], dict[str, float]]:
        load = self._load
        if isinstance(job, PairLossJob):
            compared = preference_batch(job, self._renderer, load)
            return lambda on_progress: compared.metrics | model.trainer.measure_pairs(compared.pairs, job.settings, on_progress)
        samples = supervised_samples(job.examples, self._renderer, load, job.when_too_long)
        return lambda on_progress: model.trainer.measure_loss(samples, job.when_too_long, on_progress)

    async def _train(self, model: TrainableModel, job: UpdateJob, job_id: str, on_progress: OnProgress) -> TrainResult:
        async with self._computing:
            started = time.perf_counter()
            plan = await asyncio.to_thread(self._noted_plan, model, job)
            self._reached("planned")
            step = model.trainer.step
            try:
                published, row = await self._step(model, plan, job_id, on_progress)
            except BaseException as error:
                await self._restore(model, step)
                if isinstance(error, JourneymanError) or not isinstance(error, Exception):
                    raise
                _log.exception("step %d of %s failed", step + 1, model.name)
                raise TrainingError(
                    f"step {step + 1} of {model.name} could not be computed: {type(error).__name__}: {error}",
                    hint=f"the model is still at step {step}; out of memory? lower tokens_per_micro_batch",
                    reason="step_failed",
                ) from error
            later = {"train/probe_change": published.probe_change, "train/seconds": time.perf_counter() - started}
            row = row.model_copy(update={"time": time.time(), "metrics": row.metrics | later})
            # From here on the step is done and served: what fails now is noted, and undoes nothing.
            late = await self._conclude(model, row)
            self._reached("concluded")
            notes = (*plan.notes, *step_notes(row.metrics), *published.notes, *late)
            return TrainResult(step=row.step, adapter=published.adapter.name, metrics=row.metrics, notes=notes)

    def _noted_plan(self, model: TrainableModel, job: UpdateJob) -> _Plan:
        """The plan, with what the job has set otherwise than the one before it, also before a restart, among its notes: but the learning
        rate, which schedules change in every step."""
        plan = self._plan(model, job)
        settings = job.settings.model_dump(mode="json")
        before = _job_settings(model.checkpoints.newest()).get(job.kind)
        changed = () if before is None else differences({job.kind: before}, {job.kind: settings})
        new = [change for change in changed if change.name not in {*model.reported, f"{job.kind}.learning_rate"}]
        model.reported.update(change.name for change in new)
        opened = model.take_opening_notes()
        for note in opened:  # nobody asked for them when the model was opened: the log of a server has them too
            _log.warning("%s", note)
        return replace(plan, measured=job.measured, settings={job.kind: settings}, notes=(*opened, *plan.notes, *_settings_notes(new)))

    def _plan(self, model: TrainableModel, job: UpdateJob) -> _Plan:
        if isinstance(job, SftJob):
            samples = supervised_samples(job.examples, self._renderer, self._load, job.settings.when_too_long)
            return _Plan(
                lambda on_progress: model.trainer.supervised_step(samples, job.settings, on_progress),
                {"num_examples": float(len(samples))},
                (),
                job.phase,
            )
        if isinstance(job, DpoJob):
            compared = preference_batch(job, self._renderer, self._load)
            return _Plan(
                lambda on_progress: model.trainer.preference_step(compared.pairs, job.settings, on_progress),
                compared.metrics,
                compared.notes,
                "train",
            )
        row = model.row
        policy = Policy(row.run, row.name, model.trainer.step, self._store.models.fingerprints(row.run, row.name))
        batch = policy_batch(job, self._load, policy)
        rewards = {scored.trajectory_id: scored.reward for group in job.groups for scored in group.trajectories}
        self._store.rollouts.set_rewards(rewards)
        return _Plan(
            lambda on_progress: model.trainer.policy_step(batch.groups, job.settings, on_progress),
            batch.metrics,
            batch.notes,
            "train",
            is_idle=not batch.groups,
        )

    async def _step(self, model: TrainableModel, plan: _Plan, job_id: str, on_progress: OnProgress) -> tuple[Published, StepMetrics]:
        """The published version and the step's row, which its checkpoint has: a kill before it is in the table loses nothing."""
        report = self._reporter(on_progress)

        def compute() -> dict[str, float]:
            metrics = finite_metrics(plan.metrics | plan.update(report))
            return dict(plan.measured) | {f"train/{name}": value for name, value in metrics.items()}

        async with self._resting(needed=not plan.is_idle):
            self._reached("engine asleep")
            metrics = await self._in_thread(compute)
            self._reached("computed")
            settings = _job_settings(model.checkpoints.newest()) | plan.settings
            run, step, now = model.row.run, model.trainer.step, time.time()
            row = StepMetrics(run=run, phase=plan.phase, step=step, time=now, metrics=metrics, settings=plan.settings)
            memo = {"job": job_id, "row": row.model_dump(mode="json"), "notes": plan.notes, "job_settings": settings}
            await self._in_thread(lambda: self.save(model, memo, num_groups=_num_groups(row)))
            self._reached("checkpoint kept")
            written = await self._in_thread(lambda: self._weights.write(run, model.name, model.trainer))
            self._reached("adapter kept")
        published = await self._weights.publish(written)
        self._reached("published")
        return published, row

    def _reporter(self, on_progress: OnProgress) -> OnProgress:
        def report(fraction: float) -> None:
            if self._dropping.is_set():
                raise _StepDroppedError("the server is stopping: this step was given up")
            self._reached("computing")
            on_progress(fraction)

        return report

    def save(self, model: TrainableModel, memo: Mapping[str, Any], *, num_groups: float = 0.0) -> None:
        """Save the model's state as a checkpoint: what the trainer needs, the random state of the process, and how it came about."""
        before = model.checkpoints.newest()
        num_groups += 0.0 if before is None else before.memo.get("num_groups", 0.0)
        place = {
            "model": model.name,
            "base": model.row.base,
            "tokenizer": self._renderer.fingerprint,
            "settings": self._store.runs.get(model.row.run).settings,
            "computing": dict(model.computing),
            # The place in the scenarios: groups trained on so far. The recipe reads the same number from the rows of the steps.
            "num_groups": num_groups,
        }

        def write(folder: Path) -> None:
            model.trainer.save_state(folder)
            save_random_state(folder)

        model.checkpoints.save(model.trainer.step, write, place | dict(memo))

    async def _conclude(self, model: TrainableModel, row: StepMetrics) -> tuple[str, ...]:
        run, step = row.run, row.step

        def keep_row() -> tuple[StepMetrics, ...]:
            self._store.runs.add_step(row)
            self._store.runs.update(run, step=step)
            return self._store.runs.steps(run)

        try:
            rows = await self._in_thread(keep_row)
            self._reached("metrics kept")
        except StoreError as error:
            _log.warning("after step %d of %s: %s", step, model.name, error)
            return (f"step {step} is done, but its metrics could not be kept: {error}",)
        # Rows of later steps may be left of a checkpoint that was damaged.
        findings = news([other.metrics for other in rows if other.phase == row.phase and other.step <= step])
        notes = tuple(map(str, findings))
        try:
            await self._clear(model, rows)
        except (StoreError, OSError) as error:
            _log.warning("after step %d of %s: %s", step, model.name, error)
            return (*notes, f"step {step} is done, but older ones could not be deleted: {error}")
        note = missing_metric(rows, self._retention)
        if note is None or _RETENTION_METRIC in model.reported:
            return notes
        model.reported.add(_RETENTION_METRIC)
        return (*notes, note)

    async def clear(self, model: TrainableModel) -> None:
        """Delete what a kill right after a step left standing; for a model that was just opened."""
        try:
            await self._clear(model, await asyncio.to_thread(self._store.runs.steps, model.row.run))
        except (StoreError, OSError) as error:
            _log.warning("older versions of %s could not be deleted: %s", model.name, error)

    async def _clear(self, model: TrainableModel, rows: tuple[StepMetrics, ...]) -> None:
        """Delete what the retention does not keep."""
        retention = self._retention
        scores = version_scores(rows, retention.metric)
        saved = [checkpoint.step for checkpoint in await asyncio.to_thread(model.checkpoints.list)]
        await self._in_thread(lambda: model.checkpoints.keep(kept_steps(saved, retention.checkpoints, retention, scores)))
        self._reached("checkpoints cleared")
        # The start and the end of the warm start are what a report compares with.
        warm = max((row.step for row in rows if row.phase == "warmup"), default=0)
        versions = self._weights.models[model.name]
        await self._weights.retire(model.name, kept_steps(versions, retention.adapters, retention, scores) | {0, warm})

    async def _restore(self, model: TrainableModel, step: int) -> None:
        """Back to `step`: trainer, checkpoints, and served versions."""
        await self._weights.withdraw(model.name, step)
        await asyncio.to_thread(self._restore_files, model, step)

    def _restore_files(self, model: TrainableModel, step: int) -> None:
        for checkpoint in model.checkpoints.list():
            if checkpoint.step > step:
                model.checkpoints.delete(checkpoint)
        newest = model.checkpoints.newest()
        if newest is None or newest.step != step:
            raise TrainingError(
                f"{model.name} could not go back to step {step}: its checkpoint is gone from disk",
                hint="stop, and resume the run: it goes on from the newest complete checkpoint",
                reason="no_checkpoint",
            )
        model.trainer.load_state(newest.folder)

    @asynccontextmanager
    async def _resting(self, *, needed: bool) -> AsyncIterator[None]:
        """The engine leaves the processor to the trainer while the block runs."""
        if not needed:
            yield
            return
        try:
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._engine.sleep()
            except TimeoutError as error:
                raise WaitTimeoutError(f"waited {_QUIET_SECONDS:.0f} s for the engine's running requests to end before training") from error
            yield
        finally:
            await self._engine.wake()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run in a thread that is never left alone with the trainer: a cancel makes the work stop, and waits for that."""
        future = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._dropping.set()
            done, _ = await asyncio.wait([future], timeout=_DROP_SECONDS)
            if not done:
                _log.warning("the training step did not stop within %.0f s", _DROP_SECONDS)
            elif future.exception() is not None:
                _log.debug("the dropped step ended with %r", future.exception())
            raise


def _num_groups(row: StepMetrics) -> float:
    """Groups of scenarios that the step used up; drills use none."""
    return row.metrics.get("train/num_groups", 0.0) if row.phase == "train" else 0.0


def _job_settings(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The settings of the newest job of each kind that led to a checkpoint; checkpoints of earlier versions have none."""
    return {} if checkpoint is None else dict(checkpoint.memo.get("job_settings", {}))


def _settings_notes(changes: Sequence[Change]) -> tuple[str, ...]:
    if not changes:
        return ()
    listed = "; ".join(str(change) for change in changes)
    return (f"other settings than in the step before: {listed} (noted once; each step's settings are kept with it)",)
