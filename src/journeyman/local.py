"""A Journeyman service in this process: engine, trainer, store and server started, and a client connected to it.

`open_backend` alone is what `journeyman serve` needs. Not for machines with their own server: see `journeyman.connect`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman import config
from journeyman.client.backend import Connection, connect

if TYPE_CHECKING:
    from journeyman.chat.renderer import Renderer
    from journeyman.engine.local.engine import LocalEngine
    from journeyman.engine.local.replicas import ReplicatedEngine
    from journeyman.modeling.base_models import BaseModel
    from journeyman.service.backend import Backend
    from journeyman.service.trainable import Computing
    from journeyman.trainer.base import Trainer
    from journeyman.types.settings import Retention
    from journeyman.types.training import CreateModel

DEFAULT_BASE = "smollm2-135m"


@asynccontextmanager
async def local(
    base: str = DEFAULT_BASE,
    *,
    home: Path | str | None = None,
    num_workers: int | None = None,
    engine_processes: int | None = None,
    note: Callable[[str], None] | None = None,
    retention: Retention | None = None,
    owns_process: bool = False,
) -> AsyncIterator[Connection]:
    """A service for `base` on a free loopback port, and a client of it. Everything is closed when the block ends, also by an error.

    The program around it keeps its process: its random numbers are not touched, its allocator is left alone, and the number of threads
    that torch computes with, which is one in the service's own threads, is afterwards what it was.

    Args:
        base: a known name, a local folder, or a Hugging Face id; see `journeyman models`.
        home: where runs are kept; JOURNEYMAN_HOME or `.journeyman` when None.
        num_workers: threads that compute gradients; measured when None.
        engine_processes: child processes that draw tokens, each with its own copy of the model; 0: this process draws. When None,
            JOURNEYMAN_ENGINE_PROCESSES, else chosen: on a CPU one a core, at most four and what fits into memory; elsewhere 0.
        note: called with a line before anything slow starts.
        retention: which checkpoints and adapters stay on disk; docs/resume.md says what None means.
        owns_process: the process is there for this alone: freed memory stays in it, for the rest of its life, which makes training faster,
            and a model that goes on puts the random state of Python, numpy and torch where it was, as the commands do.

    Raises:
        ModelNotFoundError: the base model cannot be found or fetched.
        StoreError: the home folder cannot be used.
        SettingError: this number of engine processes cannot be had here.
        EngineError, WaitTimeoutError: an engine process did not start.

    Example:
        >>> async with jm.local(base="smollm2-135m") as backend:              # doctest: +SKIP
        ...     model = await backend.model("time-agent")
    """
    opening = partial(
        open_backend,
        base,
        home=home,
        num_workers=num_workers,
        engine_processes=engine_processes,
        note=note,
        retention=retention,
        owns_process=owns_process,
    )
    async with _kept_thread_count():
        # Not in one of the program's threads: torch would have one thread there from now on.
        with ThreadPoolExecutor(1, thread_name_prefix="journeyman-open") as thread:
            backend = await asyncio.get_running_loop().run_in_executor(thread, opening)
        async with serving(backend) as connection:
            yield connection


@asynccontextmanager
async def _kept_thread_count() -> AsyncIterator[None]:
    """Torch's number of threads is afterwards what it was: the service sets it in threads of its own, and new threads take it over."""

    def count() -> int:
        import torch

        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as thread:  # in this one, torch may be there and have another number for it alone
        before = count() if "torch" in sys.modules else await asyncio.get_running_loop().run_in_executor(thread, count)
    try:
        yield
    finally:
        import torch

        torch.set_num_threads(before)


@asynccontextmanager
async def serving(backend: Backend) -> AsyncIterator[Connection]:
    """Serve an open backend on a free loopback port while the block runs, then close it. Yields a connected client."""
    from journeyman.server.app import Server, create_app

    # Loopback is open to every user of this machine; the key is not.
    api_key = secrets.token_urlsafe(24)
    try:
        server = Server(create_app(backend, api_key=api_key), api_key=api_key)
    except BaseException:
        await backend.close()
        raise
    try:
        await asyncio.to_thread(server.start)
        async with connect(server.url, api_key) as connection:
            yield connection
    finally:
        await asyncio.to_thread(server.stop)


def open_backend(
    base: str = DEFAULT_BASE,
    *,
    home: Path | str | None = None,
    num_workers: int | None = None,
    engine_processes: int | None = None,
    note: Callable[[str], None] | None = None,
    rollout_expiry_seconds: float | None = None,
    retention: Retention | None = None,
    is_trained: bool = True,
    owns_process: bool = True,
) -> Backend:
    """Load the base model and open the home folder. Blocks for seconds; arguments and errors as `local`.

    `is_trained`: models can be trained here; then everything computes on the CPU, where the trainer does, and a GPU is left alone. False:
    tokens are drawn on the fastest device, and training is refused.

    `rollout_expiry_seconds`: a rollout without a call for so long is sealed, with an error; two hours when None.

    `owns_process`: as for `local`; a command's process is its own.

    What it returns belongs to the server it is given to (`create_app`), which closes it.
    """
    from journeyman.chat.renderer import Renderer
    from journeyman.modeling.base_models import load_tokenizer, resolve_base
    from journeyman.modeling.devices import keep_freed_memory
    from journeyman.service.backend import Backend
    from journeyman.service.capture import EXPIRY_SECONDS
    from journeyman.store import Store

    model = resolve_base(base, cache=config.cache_folder(), note=note)

    num_processes = config.engine_processes(engine_processes)
    store = Store.open(config.home_folder(home))
    try:
        tokenizer = load_tokenizer(model.folder)
        engine = _open_engine(model, num_processes, note, is_trained=is_trained)
        try:
            renderer = Renderer(tokenizer, engine.info.context_length)
            expiry = EXPIRY_SECONDS if rollout_expiry_seconds is None else rollout_expiry_seconds
            make_trainer = partial(make_lora_trainer, model, num_workers) if is_trained else None
            if owns_process:
                keep_freed_memory()
            return Backend(
                engine, renderer, store, make_trainer, retention=retention, rollout_expiry_seconds=expiry, owns_process=owns_process
            )
        except BaseException:
            engine.end()
            raise
    except BaseException:
        store.close()
        raise


def make_lora_trainer(base: BaseModel, num_workers: int | None, request: CreateModel, before: Computing) -> tuple[Trainer, Computing]:
    """A trainer with so many workers, and how it computes. None: as many as before, else measured."""
    import torch

    from journeyman.modeling.devices import choose_num_workers, usable_cores
    from journeyman.modeling.precision import choose_precision
    from journeyman.trainer.trainer import LoraTrainer

    kept = before.get("num_workers")
    if kept is not None and kept > usable_cores():
        kept = None  # it would be slower than need be, for as long as the run lasts
    count = choose_num_workers(kept if num_workers is None else num_workers)
    precision = choose_precision()
    trainer = LoraTrainer(base, request.lora, count, precision)
    return trainer, {"num_workers": count, "precision": precision, "torch": torch.__version__}


def open_renderer(base: str = DEFAULT_BASE, *, note: Callable[[str], None] | None = None) -> Renderer:
    """What writes the conversations of a base model as tokens. Loads its tokenizer, no weights.

    `note`: called with a line before anything slow starts. Raises ModelNotFoundError.
    """
    from journeyman.chat.renderer import Renderer
    from journeyman.modeling.base_models import load_tokenizer, read_context_length, resolve_base

    model = resolve_base(base, cache=config.cache_folder(), note=note)
    return Renderer(load_tokenizer(model.folder), read_context_length(model.folder))


def _open_engine(
    base: BaseModel, num_processes: int | None, note: Callable[[str], None] | None, *, is_trained: bool
) -> LocalEngine | ReplicatedEngine:
    """The engine in this process, or in as many as were asked for or chosen; where the trainer computes, if there may be one."""
    from journeyman.engine.local.engine import LocalEngine
    from journeyman.engine.local.replicas import ReplicatedEngine
    from journeyman.modeling.devices import choose_device, choose_num_processes, training_device

    fastest = choose_device()
    device = training_device() if is_trained else fastest
    if note is not None and device != fastest:
        note(f"this machine has {fastest}, but models are trained on the {device}: tokens are drawn there too, from the same numbers")
    count = choose_num_processes(num_processes, device, base_folder=base.folder)
    if not count:
        return LocalEngine.create(base, device=device)
    if note is not None:
        note(f"starting {count} engine process{'es' if count > 1 else ''}")
    return ReplicatedEngine.create(base, count, device=device)
