"""When not to fine-tune: how far prompting takes a model on held-out scenarios, and whether training is worth it.

    settings = PlateauSettings(model="smollm2-135m", target=McpTarget.parse("python -m mcp_server_time"))
    plateau = await measure_plateau(settings, SilentProgress(), home=Path(".journeyman"), folder=Path("plateau"))

Every prompt is tried with every number of worked examples, all on the same held-out scenarios, greedily. A cell is kept as soon as it is
measured: the same call again measures only what is missing. What is prompted on: `prompting.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from journeyman.client.models import Model
from journeyman.config import environment_key
from journeyman.errors import JudgeError, LlmError, StoreError
from journeyman.evaluation.heldout import VariantResult, evaluate, is_lost, scenarios_hash
from journeyman.evaluation.plateau import Plateau, PlateauCell, assess, cell_name, write_plateau
from journeyman.llm import Llm, LlmEndpoint, LlmSettings, names_provider, read_key
from journeyman.local import local, open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.prompting import PlateauSettings, Prompted, Subject, settings_of_run, subject_of
from journeyman.scenarios.proposals import CompletionProposer
from journeyman.store import Store
from journeyman.types.trajectory import Group

_MAX_LOST_SHARE = 0.2
_PROVIDER_CONCURRENCY = 8
_FINISHED_ARE_KEPT = "mend that and run the same command again: finished cells are kept"


async def measure_plateau(
    settings: PlateauSettings, progress: Progress, *, home: Path, folder: Path, scenarios_folder: Path | None = None
) -> Plateau:
    """Measure what is missing in `folder`, assess, and write plateau.json, plateau.md and plateau.png there.

    `scenarios_folder`: where scenarios that are made for a server are kept, for other models too; in `folder` when None.

    Raises:
        SettingError: settings or a run that cannot be used (more worked examples than there are, fewer than two scenarios).
        JudgeError: a reward function failed. McpError: the MCP server cannot be used.
        LlmError: the provider's model cannot be used; finished cells are kept.
        NotFoundError, ModelNotFoundError, StoreError, InputError: as their docstrings say.
    """
    train = None if settings.run is None else await asyncio.to_thread(settings_of_run, settings.run, home)
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(AsyncExitStack())
        model = _PromptedModel(settings.model, home, progress, models)
        path = scenarios_folder or folder / "scenarios"
        subject = await stack.enter_async_context(subject_of(settings, train, home, progress, path, model.proposer))
        cells = [await _cell(model, subject, way, folder, progress) for way in subject.ways]
        await models.aclose()
        trained = await _trained(settings.run, subject, folder, home, progress)
    plateau = assess(
        cells,
        model=settings.model,
        server=subject.name,
        scenarios_hash=scenarios_hash(subject.heldout),
        goal=settings.goal,
        trained=trained,
        can_be_trained=not names_provider(settings.model),
        uses_tools=subject.uses_tools,
        notes=subject.notes,
    )
    await asyncio.to_thread(write_plateau, plateau, folder)
    return plateau


class _PromptedModel:
    """The model that is prompted, a provider's or a base model: opened once, by the first who asks, and closed with `stack`.

    Raises SettingError at once for an unknown provider and a malformed key; a missing one may not be needed (cells are kept).
    """

    def __init__(self, name: str, home: Path, progress: Progress, stack: AsyncExitStack) -> None:
        self.name = name
        self.is_provider = names_provider(name)
        self._home, self._progress, self._stack = home, progress, stack
        self._model: Model | None = None
        self._proposer: CompletionProposer | None = None
        if self.is_provider and (variable := LlmEndpoint.parse(name).api_key_env) is not None:
            environment_key(variable)

    async def open(self) -> Model:
        """Raises LlmError for a provider's model that cannot be used, ModelNotFoundError for an unknown base model."""
        if self._model is None:
            self._progress.phase("load", note=self.name)
            if self.is_provider:
                self._model = await self._stack.enter_async_context(_provider_model(self.name))
            else:
                connection = await self._stack.enter_async_context(local(self.name, home=self._home, note=self._progress.note))
                self._model = connection.base_model()
                self._proposer = CompletionProposer(connection.openai_url, connection.api_key)
                self._stack.push_async_callback(self._proposer.close)
        return self._model

    async def proposer(self) -> CompletionProposer | None:
        """Makes up values for scenarios; None of a provider's model."""
        if not self.is_provider:
            await self.open()
        return self._proposer


@asynccontextmanager
async def _provider_model(name: str) -> AsyncIterator[Model]:
    """A provider's model, tried once: a wrong key or name is said at once, not by every attempt."""
    endpoint = LlmEndpoint.parse(name)
    async with Llm(endpoint, settings=LlmSettings(max_tokens=256, max_retries=2)) as llm:
        await llm.check()
    model = Model(endpoint.model, endpoint.base_url, read_key(endpoint) or "none")
    try:
        yield model
    finally:
        await model.close()


async def _cell(model: _PromptedModel, subject: Subject, way: Prompted, folder: Path, progress: Progress) -> PlateauCell:
    """The cell as it was measured before with the very same prompt, scenarios and judge, else measured now and kept."""
    name = cell_name(way.prompt, way.num_shots)
    path = _path(folder, name, model.name, subject, way)
    kept = _read(path)
    if kept is not None:
        progress.note(f"{name}: {kept.result.success.text()} (measured before)")
        return kept
    max_concurrent = _PROVIDER_CONCURRENCY if model.is_provider else subject.max_concurrent
    result, groups = await _attempt(name, await model.open(), subject, way, max_concurrent, progress)
    turns = [one.turns for group in groups for one in group]
    tokens = [sum(len(turn.prompt_ids) for turn in of_attempt) for of_attempt in turns]
    is_counted = any(tokens) and all(turn.prompt_ids for of_attempt in turns for turn in of_attempt)
    prompt_tokens = sum(tokens) / len(tokens) if is_counted else None
    cell = PlateauCell(prompt=way.prompt, num_shots=way.num_shots, result=result, prompt_tokens=prompt_tokens)
    _write(path, cell)
    progress.note(f"{name}: {result.success.text()}")
    return cell


async def _trained(run: str | None, subject: Subject, folder: Path, home: Path, progress: Progress) -> VariantResult | None:
    """The newest version that the run trained, on the same scenarios, prompted as it was trained: measured before, or now and kept. None,
    and a note, when it has none."""
    if run is None or subject.as_trained is None:
        return None
    adapter = await asyncio.to_thread(_newest_version, run, home)
    if adapter is None:
        progress.note(f"run {run} has no trained model to compare with")
        return None
    path = _path(folder, adapter, adapter, subject, subject.as_trained)
    cell = _read(path)
    if cell is None:
        backend = await asyncio.to_thread(open_backend, subject.base, home=home, note=progress.note)
        async with serving(backend) as connection:
            await asyncio.to_thread(backend.serve_run, run)
            model = connection.served_model(adapter)
            result, _ = await _attempt(adapter, model, subject, subject.as_trained, subject.max_concurrent, progress)
        cell = PlateauCell(prompt=adapter, num_shots=0, result=result)
        _write(path, cell)
    progress.note(f"{adapter}: {cell.result.success.text()}")
    return cell.result


def _newest_version(run: str, home: Path) -> str | None:
    with Store.open(home) as store:
        newest = [row for model in store.models.list(run) for row in store.models.adapters(run, model.name)[-1:]]
    return newest[0].name if newest and newest[0].step else None


async def _attempt(
    name: str, model: Model, subject: Subject, way: Prompted, max_concurrent: int, progress: Progress
) -> tuple[VariantResult, list[Group]]:
    """Raises LlmError when nothing was measured, or too many attempts are lost."""
    try:
        evaluation = await evaluate(
            way.agent,
            subject.heldout,
            {name: model},
            subject.judge,
            max_concurrent=max_concurrent,
            timeout_seconds=subject.timeout_seconds,
            progress=progress,
            seed=subject.seed,
        )
    except JudgeError as error:
        if error.reason != "nothing_measured":
            raise
        raise LlmError(error.message, hint=_FINISHED_ARE_KEPT, reason=error.reason) from error
    groups = evaluation.groups[name]
    lost = [one.error for group in groups for one in group if one.error is not None and is_lost(one)]
    if lost:
        first = f"{lost[0].type}: {lost[0].message[:300]}"
        if len(lost) > _MAX_LOST_SHARE * len(groups):
            problem = f"{len(lost)} of {len(groups)} attempts failed, which says nothing about {name!r}: {first}"
            raise LlmError(problem, hint=_FINISHED_ARE_KEPT, reason="attempts_lost")
        progress.warn(f"{len(lost)} attempts of {name} failed and are left out: {first}")
    return evaluation.summary.variants[0], groups


def _path(folder: Path, name: str, model: str, subject: Subject, way: Prompted) -> Path:
    """Where a cell is kept: named by eight hex digits over all that its numbers depend on."""
    text = json.dumps([model, scenarios_hash(subject.heldout), *way.contents], ensure_ascii=False)
    slug = "".join(sign if sign.isalnum() or sign in "@." else "-" for sign in name)
    return folder / "cells" / f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


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
