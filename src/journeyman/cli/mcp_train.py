"""The work behind `journeyman mcp train`: settings from file, options and an earlier run; then the recipe, with its progress shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.cli.mcp_target import TargetOptions, options_over, target_from_options
from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.recipes.mcp_settings import McpTrain


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. `given` holds only options that were given."""

    target: TargetOptions
    given: Mapping[str, Any]
    config: Path | None
    overrides: tuple[str, ...]
    resume: str | None
    home: Path
    allow_changed: bool = False


def run_training(request: Request) -> None:
    """Train, show the report; after Ctrl-C or an error say how to go on with this very run."""
    from journeyman.cli.console import output
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.progress_view import ProgressView
    from journeyman.cli.runs import how_to_resume
    from journeyman.evaluation.terminal import show_report
    from journeyman.recipes.mcp import new_run_id, train

    settings = resumed_settings(request, request.resume) if request.resume is not None else new_settings(request)
    run = new_run_id(settings) if request.resume is None else request.resume
    console = output()
    with ProgressView(console) as view:
        work = train(settings, view, home=request.home, run=run, resume=request.resume, allow_changed_settings=request.allow_changed)
        report = run_interruptible(work, lambda: how_to_resume(request.home, run, "mcp", "train"), is_told_after_errors=True)
    show_report(report, console)


def new_settings(request: Request) -> McpTrain:
    """The settings of a new run: the file, changed by --set, changed by options. Raises SettingError."""
    from journeyman.config import checked, merged, overridden
    from journeyman.recipes.mcp_settings import McpTrain

    given, file = dict(request.given), settings_in(request.config)
    asked = request.target
    if asked.server or asked.url or "target" not in file:
        target = target_from_options(asked.server, asked.url, asked.headers, asked.env)
        given["target"] = target.model_dump(exclude={"start_timeout_seconds"})  # it has no option of its own: the file or --set may say it
    elif asked:
        raise SettingError("--header and --env belong to --server or --url", hint=f"write them under `target` in {request.config}")
    where = "the settings" if request.config is None else str(request.config)
    return checked(McpTrain, merged(overridden(file, request.overrides), given), where)


def settings_in(path: Path | None) -> dict[str, Any]:
    """What a settings file says, without its `method`; nothing when there is no file. Raises SettingError, also for another method."""
    from journeyman.config import command_line, read_yaml

    data = {} if path is None else read_yaml(path)
    method = data.pop("method", "mcp")
    if method != "mcp":
        raise SettingError(f"{path} is for `method: {method}`, not for mcp", hint=f"train with it: {command_line('train', str(path))}")
    return data


def resumed_settings(request: Request, run: str) -> McpTrain:
    """The settings a run goes on with: its own, changed by the file, --set and options. Raises SettingError, NotFoundError.

    A change is refused unless it is allowed (`--allow-changed-settings`); only the steps and the judge's budget may always change.
    """
    from journeyman.cli.runs import open_store
    from journeyman.config import load_settings, merged, parse_override
    from journeyman.recipes.mcp_settings import McpTrain
    from journeyman.recipes.resume import changed_settings, run_settings

    with open_store(request.home, run) as store:
        info = store.runs.get(run)
        if info.kind != "mcp":
            raise SettingError(f"run {run!r} was not made by `journeyman mcp train`", hint="its own program goes on with it")
        run_settings(store, run, McpTrain)  # what cannot be read in them is no fault of what is given here
        data = merged(info.settings, settings_in(request.config))
        for text in request.overrides:
            names, value = parse_override(text)
            for name in reversed(names):
                value = {name: value}
            data = merged(data, value)
        if request.target:
            data = data | {"target": options_over(data["target"], request.target)}
        settings = load_settings(McpTrain, given=merged(data, request.given))
        changed_settings(store, run, settings, are_allowed=request.allow_changed)
        settings.target.revealed()  # a secret that must be given again is told before anything is loaded
    return settings
