"""`journeyman train FILE.yaml`: a recipe from a settings file, with its progress shown; its schema; its check without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import ColumnOption, HomeOption, SeedOption, SkipBadOption, columns_of, home_folder
from journeyman.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from journeyman.recipes.methods import Settings

FileArgument = Annotated[
    Path | None,
    typer.Argument(help="Settings file, or the name of a shipped one, e.g. yes_no_maybe.yaml.", metavar="FILE.yaml", show_default=False),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, e.g. grpo.learning_rate=1e-4; repeatable.", metavar="NAME=VALUE")
]
ValidateOption = Annotated[bool, typer.Option("--validate", help="Check the settings, functions and data; train nothing.")]
RunOption = Annotated[
    str | None, typer.Option("--run", help="Id of the new run \\[default: its name and the time].", metavar="ID", show_default=False)
]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", help="Go on with this run where it stopped; FILE may be left out.", metavar="RUN")
]
AllowChangedOption = Annotated[
    bool, typer.Option("--allow-changed-settings", help="With --resume: go on although settings given here differ from the run's.")
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
class Request:
    """What the command line asked for. `given` holds only options that were given."""

    file: Path | None
    overrides: tuple[str, ...]
    given: Mapping[str, Any]
    home: Path
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
        print_schema(None if file is None else str(file))
        return
    examples = {
        "from_run": from_run,
        "min_reward": min_reward,
        "margin": margin,
        "columns": columns_of(column) or None,
        "skip_bad": skip_bad or None,
    }
    data = {name: value for name, value in examples.items() if value is not None}
    request = Request(
        file=file,
        overrides=tuple(settings or ()),
        given=({} if seed is None else {"seed": seed}) | ({"data": data} if data else {}),
        home=home_folder(home),
        run=run,
        resume=resume,
        allow_changed=allow_changed_settings,
    )
    found = read_settings(request)
    if validate:
        show_valid(found, request)
    else:
        run_recipe(found, request)


def print_schema(method: str | None) -> None:
    """The JSON schema, to standard output and nothing else."""
    from journeyman.cli.console import write_json
    from journeyman.recipes.methods import schema

    write_json(schema(method))


def read_settings(request: Request) -> Settings:
    """The settings to train with, for a new run or one that goes on. Raises SettingError, InputError, NotFoundError."""
    from journeyman.recipes.methods import find_file, load_recipe, method_of
    from journeyman.types.names import check_name

    if request.resume is not None:
        if request.run is not None:
            raise SettingError("--run names a new run and --resume an old one: give one of them")
        return _resumed(request, request.resume)
    if request.file is None:
        raise SettingError("no settings file was given", hint="journeyman train FILE.yaml, or go on with a run: --resume RUN")
    if request.run is not None:
        check_name(request.run, "the id of a run (--run)")
    path = find_file(request.file)
    _check_data_options(request, method_of(path, request.overrides))
    settings = load_recipe(path, request.overrides, request.given)
    _check_chosen_attempts(request, settings)
    return settings


def show_valid(settings: Settings, request: Request) -> None:
    """Check what can be checked without a model, and say what a run would do."""
    from journeyman.cli.console import output
    from journeyman.recipes.train import check
    from journeyman.types.settings import changed_settings

    found = check(settings, request.home)
    changed = ", ".join(f"{name} = {value}" for name, value in changed_settings(settings).items())
    console = output()
    console.print(f"{request.file or request.resume} is valid: method {settings.method}, {found}")
    console.print(f"not the defaults: {changed or 'nothing'}")


def run_recipe(settings: Settings, request: Request) -> None:
    """Train, show the report; after Ctrl-C or an error say how to go on."""
    from journeyman.cli.console import output
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.progress_view import ProgressView
    from journeyman.cli.runs import how_to_resume
    from journeyman.evaluation.terminal import show_report
    from journeyman.recipes.train import new_run_id, train

    run = request.resume or request.run or new_run_id(settings)
    console = output()
    with ProgressView(console) as view:
        work = train(
            settings, view, home=request.home, run=run, is_resumed=request.resume is not None, allow_changed_settings=request.allow_changed
        )
        report = run_interruptible(work, lambda: how_to_resume(request.home, run, "train"), is_told_after_errors=True)
    show_report(report, console)


def _resumed(request: Request, run: str) -> Settings:
    """The run's own settings, changed by the file, --set and options; a change is refused unless it is allowed."""
    from journeyman.cli.runs import open_store
    from journeyman.config import overridden
    from journeyman.recipes.methods import METHODS, file_settings, find_file, layered, recipe_settings
    from journeyman.recipes.resume import changed_settings, refuse_newer

    with open_store(request.home, run) as store:
        info = store.runs.get(run)
        if info.kind not in METHODS:
            raise SettingError(f"run {run!r} was not made by `journeyman train`", hint="its own program goes on with it")
        refuse_newer(store, run)
        file = {} if request.file is None else file_settings(find_file(request.file))
        _check_data_options(request, info.kind)
        data = layered(info.settings, file, overridden({}, request.overrides), request.given)
        settings = recipe_settings(info.kind, {"method": info.kind, **data})
        _check_chosen_attempts(request, settings)
        changed_settings(store, run, settings, are_allowed=request.allow_changed)
    return settings


def _check_data_options(request: Request, method: str) -> None:
    """Refuse options about examples that the method has no use for. Raises SettingError."""
    for name in request.given.get("data", {}):
        if method not in _METHODS_OF[name]:
            option = "--column" if name == "columns" else f"--{name.replace('_', '-')}"
            raise SettingError(f"{option} is for `method: {'` and `'.join(_METHODS_OF[name])}`, not for {method}", hint="leave it out")


def _check_chosen_attempts(request: Request, settings: Settings) -> None:
    """Refuse an option that chooses among a run's attempts where examples come from elsewhere. Raises SettingError."""
    data = getattr(settings, "data", None)
    for name in ("min_reward", "margin"):
        if name in request.given.get("data", {}) and data is not None and data.from_run is None:
            raise SettingError(
                f"--{name.replace('_', '-')} chooses among the attempts of a run, and the examples come from {data.source}",
                hint="name the run too: --from-run RUN",
            )
