"""What a plateau is measured with: the prompted model, opened when first needed, and cells, kept as soon as they are measured.

Not for what is prompted and who judges: `plateau.py` (scenarios of an MCP server), `prompted_grpo.py` (tasks and rewards of a run).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from journeyman.client.attempts import RolloutFunction
from journeyman.client.backend import Connection
from journeyman.client.models import Model
from journeyman.config import environment_key
from journeyman.errors import JudgeError, LlmError, StoreError
from journeyman.evaluation.heldout import VariantResult, evaluate, scenarios_hash
from journeyman.evaluation.plateau import PlateauCell, cell_name
from journeyman.llm import Llm, LlmEndpoint, LlmSettings, names_provider, read_key
from journeyman.local import local, open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.rewards.judge import Judge
from journeyman.store import Store
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group

PROVIDER_MAX_TOKENS = 1024  # models that think need room for it
_MAX_FAILED_SHARE = 0.2
_PROVIDER_CONCURRENCY = 8
_FINISHED_ARE_KEPT = "mend that and run the same command again: finished cells are kept"


class PromptedModel:
    """The model that is prompted, a provider's or a base model: opened once, by the first who asks, and closed with `stack`.

    Raises SettingError at once for an unknown provider and a malformed key; a missing one may not be needed (cells are kept).
    """

    def __init__(self, name: str, home: Path, progress: Progress, stack: AsyncExitStack) -> None:
        self.name = name
        self.connection: Connection | None = None
        self._home, self._progress, self._stack = home, progress, stack
        self._model: Model | None = None
        if self.is_provider and (variable := LlmEndpoint.parse(name).api_key_env) is not None:
            environment_key(variable)

    @property
    def is_provider(self) -> bool:
        return names_provider(self.name)

    async def open(self) -> Model:
        """Raises LlmError for a provider's model that cannot be used, ModelNotFoundError for an unknown base model."""
        if self._model is None:
            self._progress.phase("load", note=self.name)
            if self.is_provider:
                self._model = await self._stack.enter_async_context(_provider_model(self.name))
            else:
                self.connection = await self._stack.enter_async_context(local(self.name, home=self._home, note=self._progress.note))
                self._model = self.connection.base_model()
        return self._model


@dataclass(frozen=True, slots=True)
class Prompted:
    """One way to prompt. `contents`: all that its outcome depends on beside the model and the scenarios, as JSON can hold it."""

    prompt: str
    num_shots: int
    agent: RolloutFunction
    contents: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """The same held-out scenarios for every cell, the same judge, one folder of kept cells."""

    folder: Path
    progress: Progress
    heldout: tuple[Scenario, ...]
    judge: Judge
    timeout_seconds: float
    max_concurrent: int
    seed: int | None = None

    async def cell(self, model: PromptedModel, way: Prompted) -> PlateauCell:
        """The cell as it was measured before with the very same prompt, scenarios and judge, else measured now and kept."""
        name = cell_name(way.prompt, way.num_shots)
        path = self._path(name, model.name, way)
        kept = _read(path)
        if kept is not None:
            self.progress.note(f"{name}: {kept.result.success.text()} (measured before)")
            return kept
        result, groups = await self._attempt(name, await model.open(), way, _PROVIDER_CONCURRENCY if model.is_provider else None)
        turns = [one.turns for group in groups for one in group]
        tokens = [sum(len(turn.prompt_ids) for turn in of_attempt) for of_attempt in turns]
        is_told = any(tokens) and all(turn.prompt_ids for of_attempt in turns for turn in of_attempt)
        cell = PlateauCell(
            prompt=way.prompt, num_shots=way.num_shots, result=result, prompt_tokens=sum(tokens) / len(tokens) if is_told else None
        )
        _write(path, cell)
        self.progress.note(f"{name}: {result.success.text()}")
        return cell

    async def trained(self, adapter: str, way: Prompted, *, run: str, base: str, home: Path) -> VariantResult:
        """A version that the run trained, on the same scenarios: measured before, or now and kept."""
        path = self._path(adapter, adapter, way)
        kept = _read(path)
        if kept is None:
            backend = await asyncio.to_thread(open_backend, base, home=home, note=self.progress.note)
            async with serving(backend) as connection:
                await asyncio.to_thread(backend.serve_run, run)
                result, _ = await self._attempt(adapter, connection.served_model(adapter), way)
            kept = PlateauCell(prompt=adapter, num_shots=0, result=result)
            _write(path, kept)
        self.progress.note(f"{adapter}: {kept.result.success.text()}")
        return kept.result

    async def _attempt(
        self, name: str, model: Model, way: Prompted, max_concurrent: int | None = None
    ) -> tuple[VariantResult, list[Group]]:
        try:
            evaluation = await evaluate(
                way.agent,
                self.heldout,
                {name: model},
                self.judge,
                max_concurrent=max_concurrent or self.max_concurrent,
                timeout_seconds=self.timeout_seconds,
                progress=self.progress,
                seed=self.seed,
            )
        except JudgeError as error:
            if error.reason != "nothing_measured":
                raise
            raise LlmError(error.message, hint=_FINISHED_ARE_KEPT, reason=error.reason) from error
        groups = evaluation.groups[name]
        failures = [one.error for group in groups for one in group if one.error is not None and not one.error.is_of_model]
        if len(failures) > _MAX_FAILED_SHARE * len(groups):
            raise LlmError(
                f"{len(failures)} of {len(groups)} attempts failed, which says nothing about {name!r}: "
                f"{failures[0].type}: {failures[0].message[:300]}",
                hint=_FINISHED_ARE_KEPT,
            )
        if failures:
            first = f"{failures[0].type}: {failures[0].message[:200]}"
            self.progress.warn(f"{len(failures)} attempts of {name} failed and are left out: {first}")
        return evaluation.summary.variants[0], groups

    def _path(self, name: str, model: str, way: Prompted) -> Path:
        """Named by eight hex digits over all that a cell's numbers depend on."""
        text = json.dumps([model, scenarios_hash(self.heldout), *way.contents], ensure_ascii=False)
        slug = "".join(sign if sign.isalnum() or sign in "@." else "-" for sign in name)
        return self.folder / "cells" / f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def trained_adapter(run: str, home: Path, progress: Progress) -> str | None:
    """The newest version that the run trained; None, and a note, when it has none."""
    with Store.open(home) as store:
        newest = [one.name for model in store.models.list(run) for one in store.models.adapters(run, model.name)[-1:]]
    if not newest or newest[0].endswith("@0"):
        progress.note(f"run {run} has no trained model to compare with")
        return None
    return newest[0]


@asynccontextmanager
async def _provider_model(name: str) -> AsyncIterator[Model]:
    """A provider's model, tried once: a wrong key or name is told at once, not by every attempt."""
    endpoint = LlmEndpoint.parse(name)
    async with Llm(endpoint, settings=LlmSettings(max_tokens=256, max_retries=2)) as llm:
        await llm.check()
    model = Model(endpoint.model, endpoint.base_url, read_key(endpoint) or "none")
    try:
        yield model
    finally:
        await model.close()


def _read(path: Path) -> PlateauCell | None:
    """A kept cell; None when there is none, or one of another version."""
    try:
        return PlateauCell.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _write(path: Path, cell: PlateauCell) -> None:
    """Aside and renamed: a kill never leaves half a cell behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(cell.model_dump_json(indent=2) + "\n", encoding="utf-8")
        aside.rename(path)
    except OSError as error:
        raise StoreError(f"the cell cannot be kept in {path.parent}: {error}", hint="give another folder with --out") from error
