"""The checks of `journeyman doctor`. Each looks at one thing, changes nothing, needs no network, and never raises."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from journeyman.config import engine_processes, path_of
from journeyman.errors import SettingError
from journeyman.http_clients import check_proxy, exempt_hosts, proxies
from journeyman.types.secrets import checked_key

_GIGABYTE = 1e9
_INSTALL = "pip install torch==2.13.0 && pip install 'journeyman[local]' (in a clone: make setup)"
_LIBRARIES = ("transformers", "peft", "safetensors", "fastapi", "uvicorn", "sqlalchemy", "scipy", "openai", "mcp")
_KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "AZURE_OPENAI_API_KEY", "VLLM_API_KEY",
    "OLLAMA_API_KEY", "JOURNEYMAN_API_KEY", "HF_TOKEN",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `broken`: training will not work; `note`: it will, but slower or not with everything."""

    name: str
    state: Literal["fine", "note", "broken"]
    found: str
    advice: str = ""


def all_checks(home: Path, port: int) -> list[Check]:
    """All findings, in the order they are shown."""
    from journeyman.modeling.base_models import default_cache

    cache = default_cache()
    checks = [check_python(sys.version_info[:3]), check_libraries(), check_torch(), check_threads(os.environ), check_memory()]
    checks += [check_folder("home", home, 1.0), check_folder("model cache", cache, 2.0), check_models(cache), check_store(home)]
    return [*checks, check_port(port), check_keys(os.environ), check_proxies()]


def check_python(version: tuple[int, int, int]) -> Check:
    text = f"{'.'.join(map(str, version))} at {sys.executable} on {platform.system()} {platform.machine()}"
    if version >= (3, 11, 0):
        return Check("Python", "fine", text)
    return Check("Python", "broken", text, "install Python 3.11 or newer")


def check_libraries() -> Check:
    """The libraries of the local backend, without importing them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("libraries", "broken", f"not installed: {', '.join(missing)}", _INSTALL)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "peft", "openai", "mcp")]
    return Check("libraries", "fine", ", ".join(versions))


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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _core_quota(Path("/sys/fs/cgroup/cpu.max"))
    found = f"{cores} core{'s' if cores > 1 else ''}"
    if quota is not None and quota < cores:
        found += f", of which this container may use {quota:g}"
    set_threads = environment.get("OMP_NUM_THREADS")
    if set_threads is not None:
        found += f", OMP_NUM_THREADS={set_threads}"
    if importlib.util.find_spec("torch") is not None:
        from journeyman.modeling.devices import choose_num_workers

        workers = choose_num_workers()
        found += f"; {workers} worker{'s' if workers > 1 else ''} of one thread: the fastest choice now"
        found += _engine_processes()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        return Check("processor", "note", f"{found}; load {load:.1f}", "other programs use the cores too: training will be slower")
    return Check("processor", "fine", found)


def _engine_processes() -> str:
    from journeyman.modeling.devices import choose_num_processes

    try:
        count = choose_num_processes(engine_processes())
    except (ImportError, SettingError) as error:
        return f"; engine processes: {error}"
    return f"; {count} engine process{'es' if count > 1 else ''}" if count else "; tokens are drawn in the server's process"


def check_memory() -> Check:
    try:
        import psutil
    except ImportError:
        return Check("memory", "note", "unknown: psutil is not installed", _INSTALL)
    memory = psutil.virtual_memory()
    free, total = memory.available / _GIGABYTE, memory.total / _GIGABYTE
    found = f"{free:.1f} GB free of {total:.1f} GB"
    if free < 2.5:
        return Check("memory", "broken", found, "a 135M model needs about 2.5 GB to train: close other programs")
    if free < 8.0:
        return Check("memory", "note", found, "enough for small steps of a 135M model; a run of the demo holds up to 8 GB on two cores")
    return Check("memory", "fine", found)


def check_folder(name: str, folder: Path, gigabytes: float) -> Check:
    """Whether we may write there and there is room. The folder itself need not exist yet."""
    existing = path_of(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Check(name, "broken", f"{folder}: not writable", "choose another with --home, JOURNEYMAN_HOME or JOURNEYMAN_CACHE")
    free = shutil.disk_usage(existing).free / _GIGABYTE
    found = f"{folder}, {free:.0f} GB free"
    if free < gigabytes:
        return Check(name, "broken", found, f"make room: at least {gigabytes:g} GB")
    return Check(name, "fine", found)


def check_models(cache: Path) -> Check:
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
            infos = store.runs.list()
    except StoreError as error:
        return Check("runs", "broken", error.message, error.hint or "choose another home folder")
    return Check("runs", "fine", f"{len(infos)} in {home}")


def check_port(port: int, host: str = "127.0.0.1") -> Check:
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
    found = [name for name in _KEYS if environment.get(name)]
    for name in found:
        try:
            checked_key(environment[name], name)
        except SettingError as error:
            return Check("API keys", "note", error.message, error.hint or "")
    if found:
        return Check("API keys", "fine", f"set: {', '.join(found)}")
    return Check("API keys", "fine", "none set; none is needed (the evidence judge and the task templates use no model)")


def check_proxies() -> Check:
    """The proxies that requests to other machines take, without their passwords."""
    found = [proxy for _, proxy in proxies()]
    if not found:
        return Check("proxies", "fine", "none set")
    text = ", ".join(f"{proxy.variable}={proxy.text}" for proxy in found)
    text += f"; none for {', '.join(('loopback', *exempt_hosts()))}"
    try:
        for proxy in found:
            check_proxy(proxy)
    except SettingError as error:
        return Check("proxies", "note", f"{text}: {error.message}", error.hint or "")
    return Check("proxies", "fine", text)


def _core_quota(file: Path) -> float | None:
    """Cores that the control group grants, None when it sets no limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
