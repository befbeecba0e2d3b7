"""`journeyman train FILE.yaml`, and the work of `journeyman mcp train`: settings from a file, options and an earlier run; then the recipe.
Also the schema of settings files, and their check without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import (
    AllowChangedOption,
    ColumnOption,
    HomeOption,
    SeedOption,
    SetOption,
    SkipBadOption,
    TargetOptions,
    columns_of,
    given,
    home_folder,
)
from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.recipes.methods import Settings
    from journeyman.recipes.settings import McpTrain

FileArgument = Annotated[
    Path | None,
    typer.Argument(help="Settings file, or the name of a shipped one, e.g. yes_no_maybe.yaml.", metavar="FILE.yaml", show_default=False),
]
ValidateOption = Annotated[bool, typer.Option("--validate", help="Check the settings, functions and data; train nothing.")]
RunOption = Annotated[
    str | None, typer.Option("--run", help="Id of the new run \\[default: its name and the time].", metavar="ID", show_default=False)
]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", help="Go on with this run where it stopped; FILE may be left out.", metavar="RUN")
]
SchemaOption = Annotated[
    bool, typer.Option("--schema", help="Print the JSON schema of settings files, for editors; a method's own: --schema grpo.")
]
FromRunOption = Annotated[
    str | None,
    typer.Option("--from-run", help="Learn from this run's own scored attempts, not from the file's data (sft, dpo).", metavar="RUN"),
]
MinRewardOption = Annotated[
    float | None, typer.Option("--min-reward", help="With --from-run, sft: only attempts of at least this reward.", metavar="R")
]
MarginOption = Annotated[
    float | None,
    typer.Option("--margin", help="With --from-run, dpo: best against worst where they differ by more than this.", metavar="D"),
]
#: The methods that have each of the options about examples.
_METHODS_OF = {
    "from_run": ("sft", "dpo"),
    "min_reward": ("sft",),
    "margin": ("dpo",),
    "columns": ("sft", "dpo"),
    "skip_bad": ("sft", "dpo"),
}


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asked for. `given` holds only options that were given; `target` is of `journeyman mcp train`."""

    home: Path
    file: Path | None = None
    overrides: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    target: TargetOptions = field(default_factory=TargetOptions)
    run: str | None = None
    resume: str | None = None
    allow_changed: bool = False


def train(
    file: FileArgument = None,
    settings: SetOption = None,
    validate: ValidateOption = False,
    home: HomeOption = None,
    run: RunOption = None,
    resume: ResumeOption = None,
    allow_changed_settings: AllowChangedOption = False,
    seed: SeedOption = None,
    from_run: FromRunOption = None,
    min_reward: MinRewardOption = None,
    margin: MarginOption = None,
    column: ColumnOption = None,
    skip_bad: SkipBadOption = False,
    schema: SchemaOption = False,
) -> None:
    """Train as a settings file says: `method: grpo`, `sft`, `dpo` or `mcp`.

    A later source wins: defaults, the file, --set, options. Ctrl-C stops cleanly and says how to go on. docs/recipes.md lists the files.
    """
    if schema:
        from journeyman.cli.console import write_json
        from journeyman.recipes.methods import schema as schema_of

        write_json(schema_of(None if file is None else str(file)))
        return
    columns = columns_of(column) or None
    data = given(from_run=from_run, min_reward=min_reward, margin=margin, columns=columns, skip_bad=skip_bad or None)
    request = TrainRequest(
        file=file,
        overrides=tuple(settings or ()),
        given=given(seed=seed, data=data or None),
        home=home_folder(home),
        run=run,
        resume=resume,
        allow_changed=allow_changed_settings,
    )
    recipe = read_settings(request)
    if validate:
        show_valid(recipe, request)
    else:
        run_recipe(recipe, request)


def read_settings(request: TrainRequest) -> Settings:
    """The settings to train with, for a new run or one that goes on. Raises SettingError, InputError, NotFoundError."""
    from journeyman.recipes.methods import find_file, load_recipe, method_of
    from journeyman.types.names import check_name

    if request.resume is not None:
        if request.run is not None:
            raise SettingError("--run names a new run and --resume an old one: give one of them", reason="two_runs")
        return _resumed(request, request.resume)
    if request.file is None:
        hint = "journeyman train FILE.yaml, or go on with a run: --resume RUN"
        raise SettingError("no settings file was given", hint=hint, reason="no_file")
    if request.run is not None:
        check_name(request.run, "the id of a run (--run)")
    path = find_file(request.file)
    _check_data_options(request, method_of(path, request.overrides))
    settings = load_recipe(path, request.overrides, request.given)
    _check_chosen_attempts(request, settings)
    return settings


def show_valid(settings: Settings, request: TrainRequest) -> None:
    """Check what can be checked without a model, and say what a run would do."""
    from journeyman.cli.console import output
    from journeyman.recipes.settings import non_default_settings
    from journeyman.recipes.train import check

    work = check(settings, request.home)
    changed = ", ".join(f"{name} = {value}" for name, value in non_default_settings(settings).items())
    console = output()
    console.print(f"{request.file or request.resume} is valid: method {settings.method}, {work}")
    console.print(f"not the defaults: {changed or 'nothing'}")


def run_recipe(settings: Settings, request: TrainRequest) -> None:
    """Train, show the report; after Ctrl-C or an error say how to go on."""
    from journeyman.cli.progress import run_and_report
    from journeyman.cli.runs import how_to_resume
    from journeyman.recipes.train import new_run_id, train

    home, run, is_resumed = request.home, request.resume or request.run or new_run_id(settings), request.resume is not None
    run_and_report(
        lambda view: train(settings, view, home=home, run=run, is_resumed=is_resumed, allow_changed_settings=request.allow_changed),
        lambda: how_to_resume(home, run, "train"),
        also_after_errors=True,
    )


def _resumed(request: TrainRequest, run: str) -> Settings:
    """The run's own settings, changed by the file, --set and options; a change is refused unless it is allowed."""
    from journeyman.cli.runs import open_store
    from journeyman.config import overridden
    from journeyman.recipes.methods import METHODS, file_settings, find_file, layered, recipe_settings
    from journeyman.recipes.resume import changed_settings, checkpoint_version

    with open_store(request.home, run) as store:
        info = store.runs.get(run)
        if info.kind not in METHODS:
            raise _other_program(run, "train")
        checkpoint_version(store, run)  # a newer one is refused before settings that only it has
        from_file = {} if request.file is None else file_settings(find_file(request.file))
        _check_data_options(request, info.kind)
        data = layered(info.settings, from_file, overridden({}, request.overrides), request.given)
        settings = recipe_settings(info.kind, {"method": info.kind, **data})
        _check_chosen_attempts(request, settings)
        changed_settings(store, run, settings, are_allowed=request.allow_changed)
    return settings


def _other_program(run: str, command: str) -> SettingError:
    return SettingError(
        f"run {run!r} was not made by `journeyman {command}`", hint="its own program goes on with it", reason="other_program"
    )


def _check_data_options(request: TrainRequest, method: str) -> None:
    """Refuse options about examples that the method has no use for. Raises SettingError."""
    for name in request.given.get("data", {}):
        if method not in _METHODS_OF[name]:
            option = "--column" if name == "columns" else f"--{name.replace('_', '-')}"
            methods = "` and `".join(_METHODS_OF[name])
            raise SettingError(f"{option} is for `method: {methods}`, not for {method}", hint="leave it out", reason="other_method")


def _check_chosen_attempts(request: TrainRequest, settings: Settings) -> None:
    """Refuse an option that chooses among a run's attempts where examples come from elsewhere. Raises SettingError."""
    data = getattr(settings, "data", None)
    for name in ("min_reward", "margin"):
        if name in request.given.get("data", {}) and data is not None and data.from_run is None:
            raise SettingError(
                f"--{name.replace('_', '-')} chooses among the attempts of a run, and the examples come from {data.source}",
                hint="name the run too: --from-run RUN",
                reason="no_run",
            )


# `journeyman mcp train` --------------------------------------------------------------------------------------------------


def run_mcp_recipe(request: TrainRequest) -> None:
    """As `run_recipe`, on an MCP server."""
    from journeyman.cli.progress import run_and_report
    from journeyman.cli.runs import how_to_resume
    from journeyman.recipes.mcp import slug, train
    from journeyman.recipes.run import run_id_of

    settings = new_mcp_settings(request) if request.resume is None else resumed_mcp_settings(request, request.resume)
    home, resume, run = request.home, request.resume, request.resume or run_id_of(slug(settings))
    run_and_report(
        lambda view: train(settings, view, home=home, run=run, resume=resume, allow_changed_settings=request.allow_changed),
        lambda: how_to_resume(home, run, "mcp", "train"),
        also_after_errors=True,
    )


def new_mcp_settings(request: TrainRequest) -> McpTrain:
    """The settings of a new run: the file, changed by --set, changed by options. Raises SettingError."""
    from journeyman.config import checked, merged, overridden
    from journeyman.recipes.settings import McpTrain

    asked, from_file = dict(request.given), _mcp_file(request.file)
    if request.target.names_server or "target" not in from_file:
        target = request.target.target()
        asked["target"] = target.model_dump(exclude={"start_timeout_seconds"})  # it has no option of its own: the file or --set may say it
    elif request.target:
        hint = f"write them under `target` in {request.file}"
        raise SettingError("--header and --env belong to --server or --url", hint=hint, reason="no_target")
    where = "the settings" if request.file is None else str(request.file)
    return checked(McpTrain, merged(overridden(from_file, request.overrides), asked), where)


def resumed_mcp_settings(request: TrainRequest, run: str) -> McpTrain:
    """The settings a run goes on with: its own, changed by the file, --set and options. Raises SettingError, NotFoundError.

    A change is refused unless it is allowed (`--allow-changed-settings`); only the steps and the judge's budget may always change.
    """
    from journeyman.cli.runs import open_store
    from journeyman.config import checked, merged, overridden
    from journeyman.recipes.resume import changed_settings, run_settings
    from journeyman.recipes.settings import McpTrain

    with open_store(request.home, run) as store:
        info = store.runs.get(run)
        if info.kind != "mcp":
            raise _other_program(run, "mcp train")
        run_settings(store, run, McpTrain)  # what cannot be read in them is no fault of what is given here
        data = overridden(merged(info.settings, _mcp_file(request.file)), request.overrides)
        if request.target:
            data["target"] = request.target.over(data["target"])
        settings = checked(McpTrain, merged(data, request.given))
        changed_settings(store, run, settings, are_allowed=request.allow_changed)
        settings.target.revealed()  # a secret that must be given again is named before anything is loaded
    return settings


def _mcp_file(path: Path | None) -> dict[str, Any]:
    """What a settings file says, without its `method`; nothing when there is no file. Raises SettingError, also for another method."""
    from journeyman.config import command_line, read_yaml

    data = {} if path is None else read_yaml(path)
    method = data.pop("method", "mcp")
    if method != "mcp":
        hint = f"train with it: {command_line('train', str(path))}"
        raise SettingError(f"{path} is for `method: {method}`, not for mcp", hint=hint, reason="other_method")
    return data
