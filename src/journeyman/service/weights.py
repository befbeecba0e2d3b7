"""Versions of trainable models: published from a trainer, loaded into the engine, resolved by name, unloaded when unneeded.

The only link between trainer and engine: a folder `model@step` and its fingerprint. Not for training or sampling.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from journeyman.engine.base import Engine
from journeyman.errors import AdapterError, NotFoundError, SettingError, StoreError
from journeyman.store.checkpoints import Reached, pass_by, replaced_folder
from journeyman.store.locks import Claim, ServedFolder, claim
from journeyman.store.models import AdapterRow
from journeyman.store.store import Store
from journeyman.trainer.base import Trainer
from journeyman.types.names import BASE, Version, check_model_name
from journeyman.types.sampling import Sample, SampleRequest, SamplingParameters

_log = logging.getLogger(__name__)

_PROBE_TOKENS = 4
_KEEP_NEWEST_LOADED = 2


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish found out. `probe_change` is the largest change of a probe log-probability against the version before."""

    adapter: AdapterRow
    probe_change: float
    notes: tuple[str, ...] = ()


class Weights:
    """Publishes and serves versions.

    Args:
        engine: where adapters are loaded.
        store: where versions are registered.
        probe_ids: a short prompt, sampled greedily after each publish.
        pinned: the versions that open rollouts are served by; they stay loaded.
        reached: called with the points on the way of a write.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        probe_ids: tuple[int, ...],
        pinned: Callable[[], frozenset[str]],
        reached: Reached = pass_by,
    ) -> None:
        self._engine = engine
        self._store = store
        self._probe_ids = probe_ids
        self._versions: dict[str, dict[int, AdapterRow]] = {}
        self._pinned = pinned
        self._reached = reached
        self._served: dict[str, ServedFolder] = {}  # loaded versions: no process may delete their folders
        self._in_use: Counter[str] = Counter()
        self._probes: dict[str, Sample] = {}  # model -> probe of its newest version
        self._changing = asyncio.Lock()

    @property
    def models(self) -> Mapping[str, Mapping[int, AdapterRow]]:
        """Every served model and its versions by step."""
        return self._versions

    def add_model(self, run: str, name: str) -> None:
        """Serve the versions of a model that the store knows; loading them happens when they are asked for.

        Raises InputError for a name that means the base; SettingError when a model of that name of another run is served: its versions
        would stand for this one's.
        """
        check_model_name(name, self._engine.info.base)
        others = {row.run for row in self._versions.get(name, {}).values()} - {run}
        if others:
            raise SettingError(
                f"model {name!r} of run {others.pop()!r} is served here, so that of run {run!r} cannot be",
                hint="a server has one model of a name: start another server for the other run",
                reason="model_name_taken",
            )
        self._versions[name] = {row.step: row for row in self._store.models.adapters(run, name)}

    def find(self, model: str) -> AdapterRow | None:
        """The version that serves a model name: `name` (the newest), `name@step`; None for "base" and the base's own name.

        Raises NotFoundError for any other name.
        """
        if model in (BASE, self._engine.info.base):
            return None
        name, at, step = model.partition("@")
        versions = self._versions.get(name)
        if not versions:
            known = ", ".join([BASE, *(known for known, steps in self._versions.items() if steps)])
            raise NotFoundError(f"there is no model {model!r} here", hint=f"models served now: {known}", reason="no_model")
        if not at:
            return versions[max(versions)]
        version = Version.parse(model)
        if version is None or version.step not in versions:
            steps = ", ".join(str(number) for number in sorted(versions)[-10:])
            raise NotFoundError(f"model {name!r} has no version {step[:80]!r}", hint=f"its newest versions: {steps}", reason="no_version")
        return versions[version.step]

    @asynccontextmanager
    async def using(self, model: str) -> AsyncIterator[AdapterRow | None]:
        """Find a version as `find` does, load it if it is not, and keep it loaded while the block runs: for one request."""
        row = self.find(model)
        if row is None:
            yield None
            return
        self._in_use[row.name] += 1
        try:
            await self._ensure_loaded(row)
            yield row
        finally:
            self._in_use[row.name] -= 1

    def write(self, run: str, model: str, trainer: Trainer) -> AdapterRow:
        """Write the trainer's adapter to its folder, whole or not at all. Blocks; call it from a worker thread."""
        folder = self._store.home.run(run).adapters / str(Version(model, trainer.step))
        with replaced_folder(folder, self._reached, "adapter") as aside:
            fingerprint = trainer.save_adapter(aside)
        return AdapterRow(run, model, trainer.step, folder, fingerprint)

    async def publish(self, row: AdapterRow) -> Published:
        """Load a written adapter, prove that the engine serves exactly it, register it, and make it the newest version.

        Raises AdapterError when the fingerprints differ or the probe is not finite, StoreError when the version cannot be registered;
        then nothing is published, and the version can be written and published once more.
        """
        async with self._changing:
            await self._load(row)
            try:
                probe = await self._probe(row.name)
                await self._register(row)
            except BaseException:
                # The step is made again under the same name, and a name is loaded once.
                await self._unload_now(row.name)
                raise
        change, notes = self._compare(row, probe)
        self._versions.setdefault(row.model, {})[row.step] = row
        self._probes[row.model] = probe
        await self._unload_unneeded(row.model)
        return Published(row, change, notes)

    async def _register(self, row: AdapterRow) -> None:
        """Into the store. When whoever publishes is cancelled meanwhile, it is not there."""
        adding = asyncio.ensure_future(asyncio.to_thread(self._store.models.add_adapter, row))
        try:
            await asyncio.shield(adding)
        except asyncio.CancelledError:
            await asyncio.wait({adding})  # the store gives up by itself
            if not adding.cancelled() and adding.exception() is None:
                await asyncio.to_thread(self._store.models.orphan_adapters, row.run, row.model, row.step - 1)
            raise

    async def restore(self, row: AdapterRow, trainer: Trainer) -> None:
        """Write a published version that cannot be loaded anew, from a trainer that holds its weights, and load it.

        Raises AdapterError when the trainer holds other weights than were published or the engine still does not load them, StoreError
        when the folder cannot be written.
        """
        async with self._changing:
            await asyncio.to_thread(self.write, row.run, row.model, trainer)
            await self._load(row)

    async def withdraw(self, model: str, after_step: int) -> None:
        """Forget versions newer than `after_step`: their training step is undone."""
        versions = self._versions.get(model, {})
        for step in [step for step in versions if step > after_step]:
            row = versions.pop(step)
            await asyncio.to_thread(self._store.models.orphan_adapters, row.run, model, after_step)
            await self._unload(row.name)
        self._probes.pop(model, None)

    async def retire(self, model: str, keep: Container[int]) -> None:
        """Delete the versions of `model` that are not in `keep`; the newest and what is in use or served anywhere stays all the same.

        Raises StoreError when the store cannot be written.
        """
        versions = self._versions[model]
        for step in sorted(versions)[:-1]:
            if step not in keep:
                await self._retire(versions, step)

    async def _retire(self, versions: dict[int, AdapterRow], step: int) -> None:
        row = versions[step]
        async with self._changing:
            if self._is_wanted(row.name):
                return
            await self._unload_unwanted(row.name)
            # The engine may have taken its time, and somebody may have asked for this version meanwhile. Between here and `del` nothing
            # else runs; afterwards nobody here finds it, and no other process can take the folder.
            if self._is_wanted(row.name) or row.name in self._engine.adapters() or (claimed := claim(row.folder)) is None:
                return
            del versions[step]
        try:
            await asyncio.to_thread(self._delete, row, claimed)
        except StoreError:
            versions[step] = row
            raise

    def _delete(self, row: AdapterRow, claimed: Claim) -> None:
        try:
            # Withdrawn first: a kill in between leaves a folder that nobody finds, and `clean` removes it.
            self._store.models.retire_adapter(row)
            claimed.delete()
        finally:
            claimed.release()

    def _is_wanted(self, name: str) -> bool:
        return bool(self._in_use[name]) or name in self._pinned()

    def clean(self, run: str, model: str) -> None:
        """Remove the folders of retired versions that a kill left behind. Blocks. Only for the one process that trains the run."""
        for row in self._store.models.retired_adapters(run, model):
            shutil.rmtree(row.folder, ignore_errors=True)

    def close(self) -> None:
        """Hold no folder any more; the engine is closed by its owner."""
        for folder in self._served.values():
            folder.release()
        self._served.clear()

    async def _ensure_loaded(self, row: AdapterRow) -> None:
        if row.name not in self._engine.adapters():
            # To its end, also when the client that asked first hangs up: a version is loaded whole and checked, or not at all.
            await asyncio.shield(asyncio.ensure_future(self._load_version(row)))

    async def _load_version(self, row: AdapterRow) -> None:
        async with self._changing:
            if row.name not in self._engine.adapters():
                await self._load(row)

    async def _load(self, row: AdapterRow) -> None:
        name, expected = row.name, row.fingerprint
        try:
            served = await asyncio.to_thread(ServedFolder, row.folder)
        except OSError as error:
            raise AdapterError(
                f"the folder of version {name} is gone: {row.folder}",
                hint="older versions are deleted as the run goes on; take a newer one",
                reason="version_gone",
            ) from error
        self._served[name] = served
        try:
            loaded = await self._engine.load_adapter(name, row.folder)
        except BaseException:
            self._served.pop(name).release()
            raise
        if loaded != expected:
            await self._unload_now(name)
            raise AdapterError(
                f"the engine loaded another adapter as {name} than was trained: fingerprint {loaded[:12]}…, expected {expected[:12]}…",
                hint=f"was {row.folder} changed by hand? Restore it, or go on from an older version",
                reason="other_weights",
            )

    async def _probe(self, name: str) -> Sample:
        parameters = SamplingParameters(temperature=0.0, max_tokens=_PROBE_TOKENS)
        sample = await self._engine.sample(SampleRequest(self._probe_ids, parameters, adapter=name))
        if not all(math.isfinite(logprob) for logprob in sample.logprobs):
            raise AdapterError(
                f"version {name} gives log-probabilities that are not finite on a probe prompt",
                hint="lower the learning rate; the version before is still served",
                reason="not_finite",
            )
        return sample

    def _compare(self, row: AdapterRow, probe: Sample) -> tuple[float, tuple[str, ...]]:
        before = self._probes.get(row.model)
        versions = self._versions.get(row.model, {})
        if before is None or not versions:
            return 0.0, ()
        pairs = zip(before.logprobs, probe.logprobs, strict=False)
        change = max((abs(old - new) for old, new in pairs), default=0.0)
        has_same_weights = versions[max(versions)].fingerprint == row.fingerprint
        if change == 0.0 and before.token_ids == probe.token_ids and not has_same_weights:
            return 0.0, (
                f"{row.name} has new weights, but a probe prompt gives exactly the old log-probabilities: "
                "the update was too small to matter, or the engine does not apply it",
            )
        return change, ()

    async def _unload_unneeded(self, model: str) -> None:
        """Step 0, the newest two and pinned versions stay loaded; folders always stay."""
        versions = self._versions[model]
        needed = {0, *sorted(versions)[-_KEEP_NEWEST_LOADED:]}
        for step, row in versions.items():
            if step not in needed and not self._is_wanted(row.name):
                await self._unload(row.name)

    async def _unload(self, name: str) -> None:
        async with self._changing:
            await self._unload_unwanted(name)

    async def _unload_unwanted(self, name: str) -> None:
        if name not in self._engine.adapters() or self._in_use[name]:
            return
        try:
            await self._unload_now(name)
        except AdapterError as error:
            # In use after all. It costs memory, not correctness: the next publish tries again.
            _log.debug("%s stays loaded: %s", name, error)

    async def _unload_now(self, name: str) -> None:
        await self._engine.unload_adapter(name)
        if (served := self._served.pop(name, None)) is not None:
            served.release()
