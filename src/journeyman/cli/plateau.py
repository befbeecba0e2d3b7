"""The work behind `journeyman eval --prompt-only`: from options to settings, and the plateau shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.cli.options import TargetOptions, ToolOptions
from journeyman.config import path_of
from journeyman.errors import InputError, SettingError
from journeyman.types.text_files import read_text

if TYPE_CHECKING:
    from journeyman.recipes.plateau import PlateauSettings
    from journeyman.recipes.prompted_grpo import PromptedGrpo


@dataclass(frozen=True, slots=True)
class PlateauRequest:
    """What the command line asked for; None: not given."""

    model: str
    home: Path
    run: str | None
    limit: int | None
    prompts: tuple[Path, ...]
    shots: str | None
    goal: float | None
    out: Path | None
    target: TargetOptions
    choice: ToolOptions
    seed: int | None


def run_plateau(request: PlateauRequest) -> None:
    """Measure, show, and say where the files are. What was measured before in the same folder is not measured again."""
    from journeyman.cli.console import output
    from journeyman.cli.progress import ProgressView, run_interruptible
    from journeyman.evaluation.plateau import show_plateau
    from journeyman.recipes.plateau import PlateauSettings, measure_plateau
    from journeyman.recipes.prompted_grpo import measure_prompted

    settings = settings_of(request)
    folder, scenarios = folders_of(request, settings)
    console = output()
    with ProgressView(console) as view:
        if isinstance(settings, PlateauSettings):
            work = measure_plateau(settings, view, home=request.home, folder=folder, scenarios_folder=scenarios)
        else:
            work = measure_prompted(settings, view, home=request.home, folder=folder)
        plateau = run_interruptible(work, lambda: f"finished cells are kept in {folder}: the same command measures the rest")
    show_plateau(plateau, console, folder)


def settings_of(request: PlateauRequest) -> PlateauSettings | PromptedGrpo:
    """Raises SettingError, InputError, NotFoundError."""
    from journeyman.cli.runs import open_store
    from journeyman.config import load_settings
    from journeyman.recipes.plateau import PlateauSettings, settings_of_run

    if request.run is None:
        return load_settings(PlateauSettings, given=_given(request) | {"target": request.target.target().model_dump()})
    if request.choice.given() or request.seed is not None:
        raise SettingError(
            "a run has its tools and its scenarios already, or its tasks and rewards",
            hint="give RUN, or --server and its options",
        )
    with open_store(request.home, request.run) as store:
        kind = store.runs.get(request.run).kind
    if kind != "mcp":
        if request.target:
            raise SettingError(f"run {request.run!r} ({kind}) has no MCP server", hint="leave out --server, --url, --header and --env")
        return _of_grpo(request, request.run)
    known = settings_of_run(request.run, request.home, request.model)
    again = {"target": request.target.secrets_of(known.target).model_dump()}
    return load_settings(PlateauSettings, given=known.model_dump() | again | _given(request))


def _given(request: PlateauRequest) -> dict[str, Any]:
    """What was given for a server's scenarios."""
    from journeyman.recipes.plateau import PROMPTS

    return request.choice.given() | _without_none({"seed": request.seed}) | _given_for_any(request, PROMPTS)


def _of_grpo(request: PlateauRequest, run: str) -> PromptedGrpo:
    from journeyman.config import load_settings
    from journeyman.recipes import prompted_grpo

    prompted_grpo.settings_of(run, request.home)  # a run that cannot be prompted is refused before anything is shown
    taken = {prompted_grpo.OWN: "", **prompted_grpo.PROMPTS}
    given = _given_for_any(request, taken)
    del given["prompts"][prompted_grpo.OWN]
    return load_settings(prompted_grpo.PromptedGrpo, given=given | {"run": run})


def _given_for_any(request: PlateauRequest, prompts: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {"model": request.model, "limit": request.limit, "goal": request.goal}
    given["shots"] = None if request.shots is None else read_counts(request.shots)
    given["prompts"] = {**prompts, **read_prompts(request.prompts, taken=prompts)}
    return _without_none(given)


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def folders_of(request: PlateauRequest, settings: PlateauSettings | PromptedGrpo) -> tuple[Path, Path]:
    """Where the results go, and where the scenarios of a server are kept: the same for every model that is tried on it."""
    from journeyman.recipes.prompted_grpo import PromptedGrpo
    from journeyman.store.layout import HomeFolder

    name = "plateau-" + _slug(settings.model)
    if isinstance(settings, PromptedGrpo) or settings.run is not None:
        report = HomeFolder(request.home).run(settings.run or "").report
        return (request.out or report / name).absolute(), report
    what = repr((settings.target.label, settings.tools, settings.read_only, settings.allow_writes, settings.seed))
    server = request.home / "plateau" / f"{_slug(settings.target.label)[-40:]}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    return (request.out or server / name).absolute(), server / "scenarios"


def read_counts(text: str) -> tuple[int, ...]:
    """`0,2,4` as numbers, each once and in order. Raises SettingError."""
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise SettingError(f"--shots {text!r} is not a list of numbers", hint="write it like 0,2,4") from error
    if counts[0] < 0:
        raise SettingError(f"--shots {text!r} has a number below 0", hint="write it like 0,2,4")
    return tuple(counts)


def read_prompts(paths: Sequence[Path], *, taken: Collection[str]) -> dict[str, str]:
    """System messages by the names of their files. Raises InputError for one that cannot be read, is empty, or has a taken name."""
    found: dict[str, str] = {}
    for path in paths:
        text = read_text(path_of(path)).strip()
        if not text:
            raise InputError(f"the prompt {path} is empty", hint="write a system message into it")
        if path.stem in found or path.stem in taken:
            raise InputError(f"there is a prompt named {path.stem!r} already", hint="rename the file")
        found[path.stem] = text
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
