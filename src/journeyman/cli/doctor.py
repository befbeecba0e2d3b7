"""`journeyman doctor`: what on this machine is fine, what is not, and what to do. A check looks at one thing and changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer

from journeyman.cli.options import HomeOption, JsonOption, home_folder
from journeyman.config import cache_folder
from journeyman.errors import JourneymanError, SettingError

_INSTALL = "pip install torch==2.13.0 && pip install 'journeyman[local]' (in a clone: make setup)"
_SHOWN_VERSIONS = ("transformers", "peft", "openai", "mcp")
_LIBRARIES = (*_SHOWN_VERSIONS, "safetensors", "fastapi", "uvicorn", "sqlalchemy", "scipy", "psutil")
_COLOURS: Final = {"fine": "green", "note": "yellow", "broken": "red"}
GIGABYTE: Final = 1e9


class Finding(NamedTuple):
    """`broken`: training will not work; `note`: it will, but slower or not with everything."""

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

    findings = {name: finding_of(check) for name, check in checks(home_folder(home), port).items()}
    is_fine = all(finding.state != "broken" for finding in findings.values())
    if as_json:
        write_json({"is_fine": is_fine, "checks": [{"name": name} | finding._asdict() for name, finding in findings.items()]})
        raise typer.Exit(int(not is_fine))
    console = output()
    for name, finding in findings.items():
        console.print(styled((f"{finding.state:<6}", _COLOURS[finding.state]), f"  {name:<12} {finding.found}"))
        if finding.advice:
            console.print(f"                      -> {finding.advice}")
    console.print(styled(("This machine can train.", "green") if is_fine else ("Something is missing; see above.", "red")))
    raise typer.Exit(int(not is_fine))


def checks(home: Path, port: int) -> dict[str, Callable[[], Finding]]:
    """All checks, in the order they are shown."""
    cache = cache_folder()
    return {
        "Python": lambda: Finding("fine", f"{platform.python_version()} at {sys.executable} on {platform.system()} {platform.machine()}"),
        "libraries": libraries,
        "torch": torch_device,
        "processor": processor,
        "memory": memory,
        "home": lambda: folder(home, 1.0),
        "model cache": lambda: folder(cache, 2.0),
        "base models": lambda: base_models(cache),
        "runs": lambda: stored_runs(home),
        "port": lambda: free_port(port),
        "API keys": keys,
        "proxies": proxies,
    }


def finding_of(check: Callable[[], Finding]) -> Finding:
    """What a check finds; what stops it is a finding too."""
    try:
        return check()
    except ImportError as error:
        return Finding("broken", f"cannot be imported: {error}", _INSTALL)
    except JourneymanError as error:
        return Finding("broken", error.message, error.hint or "")


def libraries() -> Finding:
    """The libraries of the local backend, without importing them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("broken", f"not installed: {', '.join(missing)}", _INSTALL)
    return Finding("fine", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN_VERSIONS))


def torch_device() -> Finding:
    """The device that torch will compute on, and the number format."""
    import torch

    from journeyman.modeling.devices import choose_device, training_device
    from journeyman.modeling.precision import choose_precision

    device, fastest = training_device(), choose_device()
    found = f"{torch.__version__}, trains and serves on {device}, linear layers in {choose_precision(device=device)}"
    if fastest == device:
        return Finding("fine", found)
    return Finding("note", f"{found}; there is {fastest} too", f"only `journeyman chat` uses {fastest}: training is for {device}")


def processor() -> Finding:
    """Cores we may use, how many workers a measurement picks, how many processes draw tokens. Raises SettingError for their variable."""
    from journeyman.config import engine_processes
    from journeyman.modeling.devices import choose_num_processes, choose_num_workers, usable_cores

    num_processes = choose_num_processes(engine_processes())
    cores, quota, threads = usable_cores(), core_quota(Path("/sys/fs/cgroup/cpu.max")), os.environ.get("OMP_NUM_THREADS")
    parts = [f"{cores} cores" if quota is None or quota >= cores else f"{cores} cores, of which this container may use {quota:g}"]
    parts += [f"OMP_NUM_THREADS={threads}"] if threads else []
    parts.append(f"workers of one thread: {choose_num_workers()} (the fastest choice now)")
    parts.append(f"engine processes: {num_processes or 'none, the server draws tokens itself'}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        return Finding("note", f"{'; '.join(parts)}; load {load:.1f}", "other programs use the cores too: training will be slower")
    return Finding("fine", "; ".join(parts))


def core_quota(file: Path) -> float | None:
    """Cores that the control group grants, None when it sets no limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Finding:
    """What a run may take."""
    import psutil

    free, total = psutil.virtual_memory().available / GIGABYTE, psutil.virtual_memory().total / GIGABYTE
    found = f"{free:.1f} GB free of {total:.1f} GB"
    if free < 2.5:
        return Finding("broken", found, "a 135M model needs about 2.5 GB to train: close other programs")
    if free < 8.0:
        return Finding("note", found, "enough for small steps of a 135M model; a run of the demo holds up to 8 GB on two cores")
    return Finding("fine", found)


def folder(path: Path, gigabytes: float) -> Finding:
    """Whether we may write there and there is room. The folder itself need not exist yet."""
    from journeyman.config import path_of

    existing = path_of(path).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free / GIGABYTE
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "not writable" if existing.is_dir() else f"{existing} is no folder"
        return Finding("broken", f"{path}: {what}", "choose another with --home, JOURNEYMAN_HOME or JOURNEYMAN_CACHE")
    is_enough = free >= gigabytes
    return Finding("fine" if is_enough else "broken", f"{path}, {free:.0f} GB free", "" if is_enough else f"make room: {gigabytes:g} GB")


def base_models(cache: Path) -> Finding:
    """The base models that need no hub."""
    from journeyman.modeling.base_models import known_names, missing_parts

    here = [name for name in known_names() if not missing_parts(cache / "models" / name)]
    if here:
        return Finding("fine", f"{', '.join(here)} in the cache")
    return Finding("note", "none in the cache", f"fetched at first use, or now: journeyman models fetch {known_names()[0]}")


def stored_runs(home: Path) -> Finding:
    """The runs database of the home folder. Raises StoreError."""
    from journeyman.store.home import HomeFolder
    from journeyman.store.store import Store

    if not HomeFolder(home).database.is_file():
        return Finding("fine", "none yet")
    with Store.open(home) as store:
        return Finding("fine", f"{len(store.runs.list())} in {home}")


def free_port(port: int, host: str = "127.0.0.1") -> Finding:
    """Whether `journeyman serve` could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = "serve on another: journeyman serve --port N (training picks a free one by itself)"
            return Finding("note", f"{host}:{port} cannot be taken: {error.strerror}", advice)
    return Finding("fine", f"{host}:{port} is free")


def keys() -> Finding:
    """Which keys of model services are set: names only, never values."""
    from journeyman.config import environment_key
    from journeyman.llm.openai_client import AZURE_KEY_ENV, PROVIDERS

    names = [key or f"{name.upper()}_API_KEY" for name, (_, key) in PROVIDERS.items()]
    found = [name for name in (*names, AZURE_KEY_ENV, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    if not found:
        return Finding("fine", "none set; none is needed (the evidence judge and the task templates use no model)")
    return _with_faults(f"set: {', '.join(found)}", found, environment_key)


def proxies() -> Finding:
    """The proxies that requests to other machines take, without their passwords."""
    from journeyman import http_clients

    found = [proxy for _, proxy in http_clients.proxies()]
    if not found:
        return Finding("fine", "none set")
    shown = ", ".join(f"{proxy.variable}={proxy.text}" for proxy in found)
    return _with_faults(f"{shown}; none for {', '.join(('loopback', *http_clients.exempt_hosts()))}", found, http_clients.check_proxy)


def _with_faults(text: str, things: Iterable[Any], check: Callable[[Any], object]) -> Finding:
    """A note that names every fault that `check` raises; what is fine when there is none."""
    faults = []
    for thing in things:
        try:
            check(thing)
        except SettingError as error:
            faults.append(error)
    hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
    return Finding("note" if faults else "fine", "; ".join([text, *(fault.message for fault in faults)]), "; ".join(hints))
