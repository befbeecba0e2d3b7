"""The work behind `journeyman mcp train`: settings from file, options and an earlier run; then the recipe, with its progress shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.recipes.mcp_settings import McpTrain


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. `given` holds only options that were given."""

    server: str | None
    url: str | None
    headers: Sequence[str] | None
    env: Sequence[str] | None
    given: Mapping[str, Any]
    config: Path | None
    overrides: tuple[str, ...]
    resume: str | None
    home: Path


def run_training(request: Request) -> None:
    """Train, show the report, and on Ctrl-C say how to go on."""
    from journeyman.cli.console import output
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.progress_view import ProgressView
    from journeyman.evaluation.terminal import show_report
    from journeyman.recipes.mcp import train

    settings = resumed_settings(request, request.resume) if request.resume else new_settings(request)
    console = output()
    with ProgressView(console) as view:
        work = train(settings, view, home=request.home, resume=request.resume)
        report = run_interruptible(work, lambda: how_to_resume(request.home))
    show_report(report, console)


def new_settings(request: Request) -> McpTrain:
    """The settings of a new run: the file, changed by --set, changed by options. Raises SettingError."""
    from journeyman.cli.mcp_target import target_from_options
    from journeyman.config import load_settings, read_yaml
    from journeyman.recipes.mcp_settings import McpTrain

    given = dict(request.given)
    is_in_file = request.config is not None and "target" in read_yaml(request.config)
    if request.server or request.url or not is_in_file:
        target = target_from_options(request.server, request.url, request.headers, request.env)
        given["target"] = target.model_dump(exclude={"start_timeout_seconds"})  # it has no option of its own: the file or --set may say it
    elif request.headers or request.env:
        raise SettingError("--header and --env belong to --server or --url", hint=f"write them under `target` in {request.config}")
    return load_settings(McpTrain, request.config, request.overrides, given)


def resumed_settings(request: Request, run: str) -> McpTrain:
    """The settings a run was started with; only the steps and the judge's budget may change. Raises SettingError, NotFoundError."""
    from journeyman.cli.runs import open_store
    from journeyman.config import load_settings, merged
    from journeyman.recipes.mcp_settings import McpTrain

    other = [name for name in request.given if name not in ("steps", "judge_options")]
    other += [name for name in ("server", "url", "headers", "env", "config", "overrides") if getattr(request, name)]
    if other:
        raise SettingError(
            f"--resume {run} goes on with the settings of that run; also given: {', '.join(other)}",
            hint="leave them out (--steps and --judge-budget may change), or start a new run without --resume",
        )
    with open_store(request.home) as store:
        info = store.runs.get(run)
    if info.kind != "mcp":
        raise SettingError(f"run {run!r} was not made by `journeyman mcp train`", hint="its own program goes on with it")
    return load_settings(McpTrain, given=merged(info.settings, request.given))


def how_to_resume(home: Path) -> str:
    """The command that goes on with the newest unfinished run of a home folder; empty when there is none."""
    from journeyman.cli.runs import open_store

    if not home.is_dir():
        return ""
    with open_store(home) as store:
        unfinished = [info.id for info in store.runs.list() if info.kind == "mcp" and info.state != "done"]
    return f"go on with: journeyman mcp train --resume {unfinished[0]} --home {home}" if unfinished else ""
