"""Everything a server needs in one object: engine, renderer, store, sampling, training, and the models that are open.

Construct it anywhere; its async methods all belong to one event loop. Not for HTTP.
"""

from __future__ import annotations

import asyncio

from journeyman.chat.renderer import Renderer
from journeyman.engine.base import Engine
from journeyman.errors import AdapterError, NotFoundError, SettingError
from journeyman.service.capture import EXPIRY_SECONDS, Recorder
from journeyman.service.jobs import Jobs, settle_run
from journeyman.service.sampling import SamplingService
from journeyman.service.trainable import MakeTrainer, TrainableModel, computing_note, forget_later, load_newest
from journeyman.service.training import TrainingService
from journeyman.service.weights import Weights
from journeyman.store.checkpoints import Checkpoint, Checkpoints, Reached, clean_leftovers, pass_by
from journeyman.store.locks import RunLock
from journeyman.store.models import AdapterRow, ModelRow
from journeyman.store.store import Store
from journeyman.trainer.base import Trainer
from journeyman.types.messages import Message
from journeyman.types.names import check_model_name
from journeyman.types.runs import CreateRun, RunInfo
from journeyman.types.settings import Retention
from journeyman.types.training import (
    CreateModel,
    CreateRollout,
    FinishRollout,
    JobStatus,
    KeptAttempt,
    ModelInfo,
    RolloutTicket,
    TrainJob,
)
from journeyman.types.trajectory import Trajectory


class Backend:
    """The service in this process.

    Args:
        engine: samples from the base model and its adapters.
        renderer: of the same base model.
        store: open; closed by `close`.
        make_trainer: called in a worker thread; None: serving only.
        retention: what of a run stays on disk; `Retention()` when None.
        rollout_expiry_seconds: a rollout without a call for so long is sealed, with an error.
        reached: called with the points that a training step passes; a kill at any of them is survived.
        owns_process: a model that goes on also puts the process's own random state where it was.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        store: Store,
        make_trainer: MakeTrainer | None,
        *,
        retention: Retention | None = None,
        reached: Reached = pass_by,
        rollout_expiry_seconds: float = EXPIRY_SECONDS,
        owns_process: bool = True,
    ) -> None:
        self.engine = engine
        self.renderer = renderer
        self.store = store
        self.recorder = Recorder(store, expiry_seconds=rollout_expiry_seconds, tokenizer=renderer.fingerprint)
        probe_ids = renderer.render([Message(role="user", content="What can you do?")], [])
        self.weights = Weights(engine, store, probe_ids=probe_ids, pinned=self.recorder.pinned, reached=reached)
        self.sampling = SamplingService(engine, renderer, self.recorder, self.weights)
        self.jobs = Jobs(store)
        self.training = TrainingService(engine, renderer, store, self.weights, self.jobs, retention=retention, reached=reached)
        self._reached = reached
        self._owns_process = owns_process
        self._make_trainer = make_trainer
        self._models: dict[str, TrainableModel] = {}
        self._held: dict[str, RunLock] = {}  # runs that nobody else may train, though no model of theirs is open yet
        self._opening = asyncio.Lock()

    @property
    def base(self) -> str:
        """The base model's name."""
        return self.engine.info.base

    # Runs ---------------------------------------------------------------------------------------------------------

    def create_run(self, request: CreateRun) -> RunInfo:
        """Create a run, or find the one of that id. Raises SettingError when that one has another base model or tokenizer."""
        fingerprint = self.renderer.fingerprint
        run = self.store.runs.create(request.id, kind=request.kind, base=self.base, settings=request.settings, tokenizer=fingerprint)
        self._check_run(run)
        return run

    def hold_run(self, run: str) -> None:
        """Nobody else trains in this run from now on, until `close`: for a program that writes to it before it opens its model.

        Raises StoreError when another process trains in it; nothing of it was changed then.
        """
        if run not in self._held and all(model.row.run != run for model in self._models.values()):
            self._held[run] = RunLock(self.store.home.run(run).lock, run)

    def serve_run(self, run: str) -> tuple[str, ...]:
        """Serve the models of an earlier run, without training them. Returns their names; raises NotFoundError, SettingError."""
        self._check_run(self.store.runs.get(run))
        names = tuple(model.name for model in self.store.models.list(run))
        if not names:
            raise NotFoundError(f"run {run!r} has no trained model", hint="train it first, or resume it", reason="no_model")
        for name in names:
            self.weights.add_model(run, name)
        return names

    # Models -------------------------------------------------------------------------------------------------------

    async def create_model(self, request: CreateModel) -> ModelInfo:
        """Create a trainable model, or open the one of that run and name where it stopped.

        Step 0, the untrained adapter, is published at once as `name@0`. `request.lora` counts only when it was given.

        Raises:
            SettingError: other LoRA settings or another base than it was made with; the name or the run is taken.
            InputError: the name means the base model.
            StoreError: another process trains in this run; the home folder cannot be written.
        """
        check_model_name(request.name, self.base)
        async with self._opening:
            if request.name not in self._models:
                self._models[request.name] = await self._open(request)
            model = self._models[request.name]
            if model.row.run != request.run:
                raise SettingError(
                    f"model {request.name!r} is open in run {model.row.run!r} here, not in {request.run!r}",
                    hint="give the model of the other run another name, or another server",
                    reason="model_name_taken",
                )
            _check_lora(model.row, request)
        return self.model_info(request.name)

    def model_info(self, name: str) -> ModelInfo:
        """Raises NotFoundError unless the model was created (or opened) in this process."""
        model, published = self._trainable(name), self.weights.models[name]
        return ModelInfo(
            name=name,
            run=model.row.run,
            base=model.row.base,
            step=model.trainer.step,
            adapter=published[max(published)].name,
            lora=model.row.lora,
            context_length=self.engine.info.context_length,
        )

    def opening_notes(self, name: str) -> tuple[str, ...]:
        """What was found when the model was opened (damaged checkpoints, steps that are made again); the second time nothing.

        Where nobody asks, the first training job has them among its notes.
        """
        return self._trainable(name).take_opening_notes()

    def train(self, name: str, job: TrainJob, key: str | None = None, loop: asyncio.AbstractEventLoop | None = None) -> JobStatus:
        """Queue a training job; `key` is the request's idempotency key, `loop` as for `Jobs.submit`. Raises NotFoundError for an unknown
        model."""
        return self.training.submit(self._trainable(name), job, key, loop)

    # Rollouts -----------------------------------------------------------------------------------------------------

    async def open_rollout(self, request: CreateRollout) -> RolloutTicket:
        """Open a rollout; the version that serves it is fixed now.

        Raises NotFoundError for an unknown model, SettingError for a key with the base.
        """
        async with self.weights.using(request.model) as version:
            if request.key is not None:
                _of_a_run(version)
            return await self.recorder.open(request, version)

    async def kept_attempts(self, model: str, key: str) -> tuple[KeptAttempt, ...]:
        """The finished attempts that a version made under `key/...`: the first of each key.

        One that was cut off (cancelled, expired, its tool server gone) is not among them unless it was judged with its group.
        Raises as `open_rollout`.
        """
        version = _of_a_run(self.weights.find(model))
        rows = await asyncio.to_thread(self.store.rollouts.list_keyed, version.run, version.name, key)
        first: dict[str, KeptAttempt] = {}
        for row in rows:
            if row.is_judged or row.error is None or row.error.is_of_model:
                first.setdefault(row.key, KeptAttempt(key=row.key, scenario_id=row.scenario_id, trajectory_id=row.id))
        return tuple(first.values())

    async def finish_rollout(self, rollout_id: str, outcome: FinishRollout) -> Trajectory:
        return await self.recorder.finish(rollout_id, outcome)

    async def close(self) -> None:
        """Drop running training, then close trainers, engine and store. Nothing published is lost."""
        await self.training.close()
        await self.recorder.close()
        for model in self._models.values():
            await asyncio.to_thread(model.trainer.close)
        for lock in {*self._held.values(), *(model.lock for model in self._models.values())}:
            lock.release()
        self._held.clear()
        self._models.clear()
        self.weights.close()
        await self.engine.close()
        await asyncio.to_thread(self.store.close)

    # Opening ------------------------------------------------------------------------------------------------------

    def _trainable(self, name: str) -> TrainableModel:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            raise NotFoundError(
                f"there is no trainable model {name!r} here", hint=f"create it first; trainable models now: {known}", reason="no_model"
            )
        return self._models[name]

    async def _open(self, request: CreateModel) -> TrainableModel:
        if self._make_trainer is None:
            raise SettingError(
                "this server only serves: it has no trainer",
                hint="start one with `journeyman serve --base ...` to train",
                reason="no_trainer",
            )
        model = await asyncio.to_thread(self._open_files, request, self._make_trainer)
        try:
            await self._publish_current(model)
            await asyncio.to_thread(settle_run, self.store, model.row.run, model.name)
            await self.training.clear(model)
        except BaseException:
            await asyncio.to_thread(model.trainer.close)
            self._release(model.lock)
            raise
        return model

    def _open_files(self, request: CreateModel, make_trainer: MakeTrainer) -> TrainableModel:
        """The blocking part of opening a model: its lock, its row, its trainer at the newest checkpoint that can be read."""
        others = [model.name for model in self.store.models.list(request.run) if model.name != request.name]
        if others:
            raise SettingError(
                f"run {request.run!r} trains model {others[0]!r} already, so it cannot train {request.name!r}",
                hint="one run is the history of one model: give the other one a run of its own",
                reason="run_taken",
            )
        folder = self.store.home.run(request.run)
        lock = self._held.get(request.run) or RunLock(folder.lock, request.run)  # before anything is written
        try:
            self.create_run(CreateRun(id=request.run, kind="model"))
            row = self.store.models.find(request.run, request.name)
            if row is not None:
                _check_lora(row, request)
            lora = request.lora if row is None else row.lora
            checkpoints = Checkpoints(folder.checkpoints, self._reached)
            checkpoints.clean()
            newest = checkpoints.newest()
            before = {} if newest is None else newest.memo.get("computing", {})
            trainer, computing = make_trainer(request.model_copy(update={"lora": lora}), before)
            try:
                clean_leftovers(folder.adapters)
                self.weights.clean(request.run, request.name)
                notes = self._go_on(request.run, request.name, trainer, checkpoints)
                row = self.store.models.create(ModelRow(request.run, request.name, self.base, lora))
                model = TrainableModel(row, trainer, checkpoints, lock, computing, [*notes, *computing_note(before, computing)])
                if checkpoints.newest() is None:
                    self.training.save(model, {})
                return model
            except BaseException:
                trainer.close()
                raise
        except BaseException:
            self._release(lock)
            raise

    def _release(self, lock: RunLock) -> None:
        """A run that is held stays so, whatever became of its model."""
        if lock not in self._held.values():
            lock.release()

    def _go_on(self, run: str, name: str, trainer: Trainer, checkpoints: Checkpoints) -> tuple[str, ...]:
        """Put the trainer, and all that the store has, where the newest readable checkpoint is. Returns notes; for a new model none."""
        published = {row.step: row.fingerprint for row in self.store.models.adapters(run, name)}
        reopened = load_newest(trainer, checkpoints, published, self._check_checkpoint, with_random_state=self._owns_process)
        if reopened is None:
            return ()
        return (*reopened.notes, *forget_later(self.store, run, name, reopened.checkpoint.step))

    def _check_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._check_base(str(checkpoint.memo.get("base", self.base)), checkpoint.memo.get("tokenizer"), f"checkpoint {checkpoint.folder}")

    async def _publish_current(self, model: TrainableModel) -> None:
        """Serve the version of the trainer's step; it may not be published yet when a kill came right after its checkpoint."""
        run, name, step = model.row.run, model.name, model.trainer.step
        await asyncio.to_thread(self.weights.add_model, run, name)
        if step in self.weights.models[name]:
            await self._serve_published(model)
            return
        await self.weights.publish(await asyncio.to_thread(self.weights.write, run, name, model.trainer))
        await asyncio.to_thread(self.store.runs.update, run, step=step)

    async def _serve_published(self, model: TrainableModel) -> None:
        """Its folder may be damaged or gone: the checkpoint, whose adapter was found to be the published one, has the same weights."""
        try:
            async with self.weights.using(model.name):
                return
        except AdapterError as error:
            await self.weights.restore(self.weights.models[model.name][model.trainer.step], model.trainer)
            model.opening_notes.append(
                f"version {model.version} could not be loaded ({error.message}): "
                "its folder is written anew from the checkpoint of that step"
            )

    def _check_run(self, run: RunInfo) -> None:
        self._check_base(run.base, run.tokenizer, f"run {run.id!r}")
        if run.tokenizer is None:  # made by a version, or by a recipe, that did not say
            self.store.runs.update(run.id, tokenizer=self.renderer.fingerprint)

    def _check_base(self, base: str, tokenizer: str | None, whose: str) -> None:
        """Raises SettingError when something was made with another base model, or with another tokenizer under the same name."""
        if base != self.base:
            raise SettingError(
                f"{whose} has the base model {base!r}, this server has {self.base!r}",
                hint=f"start with --base {base}, or use another run",
                reason="other_base",
            )
        if tokenizer not in (None, self.renderer.fingerprint):
            raise SettingError(
                f"{whose} was made with another tokenizer than {base!r} has now: its token ids stand for other text here",
                hint="put the base model back as it was, or use another run",
                reason="other_tokenizer",
            )


def _of_a_run(version: AdapterRow | None) -> AdapterRow:
    """The version that keyed attempts belong to."""
    if version is None:
        raise SettingError(
            "attempts of the base model belong to no run, so none can be found again by a key",
            hint="leave the key out",
            reason="base_has_no_run",
        )
    return version


def _check_lora(row: ModelRow, request: CreateModel) -> None:
    if "lora" in request.model_fields_set and request.lora != row.lora:
        raise SettingError(
            f"model {row.name!r} of run {row.run!r} was made with {row.lora!r}, not with {request.lora!r}",
            hint="leave the LoRA settings out to go on, or use another run",
            reason="other_lora",
        )
