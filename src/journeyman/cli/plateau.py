"""The work behind `journeyman eval --prompt-only`: from options to settings, and the plateau shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.cli.options import TargetOptions, ToolOptions, given, target_of_run
from journeyman.config import path_of
from journeyman.errors import InputError, SettingError
from journeyman.types.text_files import read_text

if TYPE_CHECKING:
    from journeyman.recipes.prompting import PlateauSettings


def run_plateau(
    model: str,
    run: str | None,
    home: Path,
    server: TargetOptions,
    choice: ToolOptions,
    *,
    prompts: Sequence[Path],
    shots: str | None,
    goal: float | None,
    limit: int | None,
    seed: int | None,
    out: Path | None,
) -> None:
    """Measure, show, and say where the files are. What was measured before in the same folder is not measured again."""
    from journeyman.cli.console import output
    from journeyman.cli.progress import ProgressView, run_interruptible
    from journeyman.config import load_settings
    from journeyman.evaluation.plateau import show_plateau
    from journeyman.recipes.plateau import measure_plateau
    from journeyman.recipes.prompting import PlateauSettings

    of_server = choice.given() | given(seed=seed)
    if run is not None and of_server:
        raise SettingError(
            "a run has its tools and its scenarios already, or its tasks and rewards",
            hint="give RUN, or --server and its options",
            reason="run_and_server",
        )
    target = server.target() if run is None else target_of_run(run, home, server) if server else None
    all_prompts = _default_prompts(run, home)
    all_prompts |= read_prompts(prompts, taken=[*all_prompts, "own"])
    counts = None if shots is None else read_counts(shots)
    known = given(model=model, run=run, goal=goal, limit=limit, shots=counts, target=None if target is None else target.model_dump())
    settings = load_settings(PlateauSettings, given=known | of_server | {"prompts": all_prompts})
    folder, scenarios = folders_of(settings, home, out)
    console = output()
    with ProgressView(console) as view:
        work = measure_plateau(settings, view, home=home, folder=folder, scenarios_folder=scenarios)
        plateau = run_interruptible(work, lambda: f"finished cells are kept in {folder}: the same command measures the rest")
    show_plateau(plateau, console, folder)


def _default_prompts(run: str | None, home: Path) -> dict[str, str]:
    """Raises NotFoundError, and SettingError for a run that cannot be prompted."""
    from journeyman.cli.runs import open_store
    from journeyman.recipes.prompting import TASK_PROMPTS, TOOL_PROMPTS, settings_of_run
    from journeyman.recipes.settings import GrpoTrain

    if run is None:
        return dict(TOOL_PROMPTS)
    open_store(home, run).close()  # a wrong run is found out before anything is shown
    return dict(TASK_PROMPTS if isinstance(settings_of_run(run, home), GrpoTrain) else TOOL_PROMPTS)


def folders_of(settings: PlateauSettings, home: Path, out: Path | None) -> tuple[Path, Path]:
    """Where the results go, and where the scenarios of a server are kept: the same for every model that is tried on it."""
    from journeyman.store.home import HomeFolder

    label = "" if settings.target is None else settings.target.label
    if settings.run is None:
        what = repr((label, settings.tools, settings.read_only, settings.allow_writes, settings.seed))
        folder = home / "plateau" / f"{_slug(label)[-40:]}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    else:
        folder = HomeFolder(home).run(settings.run).report
    results = folder / f"plateau-{_slug(settings.model)}" if out is None else path_of(out)
    return results.absolute(), folder / "scenarios"


def read_counts(text: str) -> tuple[int, ...]:
    """`0,2,4` as numbers, each once and in order. Raises SettingError."""
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise SettingError(f"--shots {text!r} is not a list of numbers", hint="write it like 0,2,4", reason="no_counts") from error
    if counts[0] < 0:
        raise SettingError(f"--shots {text!r} has a number below 0", hint="write it like 0,2,4", reason="no_counts")
    return tuple(counts)


def read_prompts(paths: Sequence[Path], *, taken: Collection[str]) -> dict[str, str]:
    """System messages by the names of their files. Raises InputError for one that cannot be read, is empty, or has a taken name."""
    prompts: dict[str, str] = {}
    for path in paths:
        text = read_text(path_of(path)).strip()
        if not text:
            raise InputError(f"the prompt {path} is empty", hint="write a system message into it", reason="empty_prompt")
        if path.stem in prompts or path.stem in taken:
            raise InputError(f"there is a prompt named {path.stem!r} already", hint="rename the file", reason="taken_name")
        prompts[path.stem] = text
    return prompts


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
