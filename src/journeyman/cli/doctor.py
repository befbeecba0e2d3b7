"""`journeyman doctor`: what on this machine is fine, what is not, and what to do.

A check looks at one thing, changes nothing, needs no network and never raises.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from journeyman.cli.options import HomeOption, JsonOption, home_folder
from journeyman.errors import SettingError

_GIGABYTE = 1e9
_INSTALL = "pip install torch==2.13.0 && pip install 'journeyman[local]' (in a clone: make setup)"
_SHOWN_VERSIONS = ("transformers", "peft", "openai", "mcp")
_LIBRARIES = (*_SHOWN_VERSIONS, "safetensors", "fastapi", "uvicorn", "sqlalchemy", "scipy", "psutil")
_MORE_KEYS = ("VLLM_API_KEY", "OLLAMA_API_KEY", "JOURNEYMAN_API_KEY", "HF_TOKEN")  # beside those of the providers
_COLOURS = {"fine": "green", "note": "yellow", "broken": "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `broken`: training will not work; `note`: it will, but slower or not with everything."""

    name: str
    state: Literal["fine", "note", "broken"]
    found: str
    advice: str = ""


def doctor(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port that `journeyman serve` would take; 0 is any free one.")] = 8100,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, torch, device, threads, memory, disk, model cache, ports, proxies."""
    from journeyman.cli.console import output, styled, write_json

    checks = all_checks(home_folder(home), port)
    is_fine = all(check.state != "broken" for check in checks)
    if as_json:
        write_json({"is_fine": is_fine, "checks": [asdict(check) for check in checks]})
        raise typer.Exit(int(not is_fine))
    console = output()
    for check in checks:
        console.print(styled((f"{check.state:<6}", _COLOURS[check.state]), f"  {check.name:<12} {check.found}"), soft_wrap=True)
        if check.advice:
            console.print(f"                      -> {check.advice}", soft_wrap=True)
    verdict = ("This machine can train.", "green") if is_fine else ("Something is missing; see above.", "red")
    console.print(styled(verdict))
    raise typer.Exit(int(not is_fine))


def all_checks(home: Path, port: int) -> list[Check]:
    """All findings, in the order they are shown."""
    from journeyman.modeling.base_models import default_cache

    cache = default_cache()
    python = f"{platform.python_version()} at {sys.executable} on {platform.system()} {platform.machine()}"
    checks = [Check("Python", "fine", python), check_libraries(), check_torch(), check_threads(os.environ), check_memory()]
    checks += [check_folder("home", home, 1.0), check_folder("model cache", cache, 2.0), check_models(cache), check_store(home)]
    return [*checks, check_port(port), check_keys(os.environ), check_proxies()]


def check_libraries() -> Check:
    """The libraries of the local backend, without importing them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("libraries", "broken", f"not installed: {', '.join(missing)}", _INSTALL)
    return Check("libraries", "fine", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN_VERSIONS))


def check_torch() -> Check:
    """torch, the device it will compute on, and the number format."""
    try:
        import torch
    except ImportError as error:
        return Check("torch", "broken", f"cannot be imported: {error}", _INSTALL)
    from journeyman.modeling.devices import choose_device, training_device
    from journeyman.modeling.precision import choose_precision

    device, fastest = training_device(), choose_device()
    found = f"{torch.__version__}, trains and serves on {device}, linear layers in {choose_precision(device=device)}"
    if fastest == device:
        return Check("torch", "fine", found)
    return Check("torch", "note", f"{found}; there is {fastest} too", f"only `journeyman chat` uses {fastest}: training is for {device}")


def check_threads(environment: Mapping[str, str]) -> Check:
    """Cores we may use, what a container grants of them, how many workers a measurement picks, and how many processes draw tokens."""
    try:
        from journeyman.config import engine_processes
        from journeyman.modeling.devices import choose_num_processes, choose_num_workers, usable_cores
    except ImportError as error:
        return Check("processor", "note", f"unknown: {error}", _INSTALL)
    cores, quota, threads = usable_cores(), core_quota(Path("/sys/fs/cgroup/cpu.max")), environment.get("OMP_NUM_THREADS")
    parts = [f"{cores} cores" if quota is None or quota >= cores else f"{cores} cores, of which this container may use {quota:g}"]
    parts += [f"OMP_NUM_THREADS={threads}"] if threads else []
    parts.append(f"workers of one thread: {choose_num_workers()} (the fastest choice now)")
    try:
        parts.append(f"engine processes: {choose_num_processes(engine_processes()) or 'none, the server draws tokens itself'}")
    except SettingError as error:
        parts.append(f"engine processes: {error}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        advice = "other programs use the cores too: training will be slower"
        return Check("processor", "note", "; ".join([*parts, f"load {load:.1f}"]), advice)
    return Check("processor", "fine", "; ".join(parts))


def check_memory() -> Check:
    """What a run may take."""
    try:
        import psutil
    except ImportError:
        return Check("memory", "note", "unknown: psutil is not installed", _INSTALL)
    memory = psutil.virtual_memory()
    free = memory.available / _GIGABYTE
    found = f"{free:.1f} GB free of {memory.total / _GIGABYTE:.1f} GB"
    if free < 2.5:
        return Check("memory", "broken", found, "a 135M model needs about 2.5 GB to train: close other programs")
    if free < 8.0:
        return Check("memory", "note", found, "enough for small steps of a 135M model; a run of the demo holds up to 8 GB on two cores")
    return Check("memory", "fine", found)


def check_folder(name: str, folder: Path, gigabytes: float) -> Check:
    """Whether we may write there and there is room. The folder itself need not exist yet."""
    from journeyman.config import path_of

    existing = path_of(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Check(name, "broken", f"{folder}: not writable", "choose another with --home, JOURNEYMAN_HOME or JOURNEYMAN_CACHE")
    free = shutil.disk_usage(existing).free / _GIGABYTE
    found = f"{folder}, {free:.0f} GB free"
    return Check(name, "fine", found) if free >= gigabytes else Check(name, "broken", found, f"make room: at least {gigabytes:g} GB")


def check_models(cache: Path) -> Check:
    """The base models that need no hub."""
    from journeyman.modeling.base_models import known_names, missing_parts

    here = [name for name in known_names() if not missing_parts(cache / "models" / name)]
    if here:
        return Check("base models", "fine", f"{', '.join(here)} in the cache")
    return Check("base models", "note", "none in the cache", f"fetched at first use, or now: journeyman models fetch {known_names()[0]}")


def check_store(home: Path) -> Check:
    """The runs database of the home folder, if there is one and the libraries to read it."""
    from journeyman.errors import StoreError

    if not home.is_dir() or importlib.util.find_spec("sqlalchemy") is None:
        return Check("runs", "fine", "none yet")
    from journeyman.store.store import Store

    try:
        with Store.open(home) as store:
            return Check("runs", "fine", f"{len(store.runs.list())} in {home}")
    except StoreError as error:
        return Check("runs", "broken", error.message, error.hint or "choose another home folder")


def check_port(port: int, host: str = "127.0.0.1") -> Check:
    """Whether `journeyman serve` could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = "serve on another: journeyman serve --port N (training picks a free one by itself)"
            return Check("port", "note", f"{host}:{port} cannot be taken: {error.strerror}", advice)
    return Check("port", "fine", f"{host}:{port} is free")


def check_keys(environment: Mapping[str, str]) -> Check:
    """Which keys of model services are set: names only, never values."""
    from journeyman.llm.endpoint import AZURE_KEY_ENV, PROVIDERS
    from journeyman.types.secrets import checked_key

    names = [name for _, name in PROVIDERS.values() if name is not None] + [AZURE_KEY_ENV, *_MORE_KEYS]
    found = [name for name in names if environment.get(name)]
    if not found:
        return Check("API keys", "fine", "none set; none is needed (the evidence judge and the task templates use no model)")
    return _all_checked("API keys", f"set: {', '.join(found)}", found, lambda name: checked_key(environment[name], name))


def check_proxies() -> Check:
    """The proxies that requests to other machines take, without their passwords."""
    from journeyman.http_clients import check_proxy, exempt_hosts, proxies

    found = [proxy for _, proxy in proxies()]
    shown = ", ".join(f"{proxy.variable}={proxy.text}" for proxy in found)
    if not shown:
        return Check("proxies", "fine", "none set")
    return _all_checked("proxies", f"{shown}; none for {', '.join(('loopback', *exempt_hosts()))}", found, check_proxy)


def core_quota(file: Path) -> float | None:
    """Cores that the control group grants, None when it sets no limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _all_checked(name: str, text: str, things: Iterable[Any], check: Callable[[Any], object]) -> Check:
    """A note that names every fault."""
    faults = []
    for thing in things:
        try:
            check(thing)
        except SettingError as error:
            faults.append(error)
    if not faults:
        return Check(name, "fine", text)
    hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
    return Check(name, "note", f"{text}: {'; '.join(fault.message for fault in faults)}", "; ".join(hints))
