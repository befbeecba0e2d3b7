"""`journeyman eval RUN`: the held-out scenarios of a run again, base against warm start against trained. With `--prompt-only MODEL`:
how far prompting alone takes a model on them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import (
    HomeOption,
    SeedOption,
    TargetOptions,
    ToolOptions,
    given,
    grouped,
    home_folder,
    target_of_run,
)
from journeyman.config import path_of
from journeyman.errors import InputError, SettingError
from journeyman.types.text_files import read_text

if TYPE_CHECKING:
    from journeyman.recipes.prompting import PlateauSettings

_DEFAULT_ATTEMPTS = 4
_PROMPTING = "Prompting alone (--prompt-only)"

RunArgument = Annotated[
    str | None, typer.Argument(help="Id of a run, as `journeyman runs list` shows it.", metavar="RUN", show_default=False)
]
AttemptsOption = Annotated[
    int | None,
    typer.Option(min=1, help=f"Sampled attempts per scenario, beside the greedy one \\[default: {_DEFAULT_ATTEMPTS}].", show_default=False),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first N scenarios \\[default: all].", show_default=False)]
JudgeOption = Annotated[
    str | None,
    typer.Option("--judge", help="Also let this model compare base and trained, e.g. openai/gpt-5-mini.", metavar="MODEL"),
]
PromptOnlyOption = Annotated[
    str | None,
    typer.Option(
        "--prompt-only",
        help="Is training worth it? Prompt this model (PROVIDER/MODEL or a base model) on the scenarios of RUN or --server.",
        metavar="MODEL",
        show_default=False,
        rich_help_panel=_PROMPTING,
    ),
]
PromptOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--prompt",
        help="Also try the system message in this file; repeatable.",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_PROMPTING,
    ),
]
ShotsOption = Annotated[
    str | None,
    typer.Option("--shots", help="Numbers of worked examples to try \\[default: 0,2,4].", show_default=False, rich_help_panel=_PROMPTING),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        "--target", min=0.0, max=1.0, help="The success that is wanted \\[default: 0.9].", show_default=False, rich_help_panel=_PROMPTING
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the results \\[default: in the home folder].", show_default=False, rich_help_panel=_PROMPTING),
]


@grouped
def evaluate(
    server: TargetOptions,
    choice: ToolOptions,
    run: RunArgument = None,
    home: HomeOption = None,
    attempts: AttemptsOption = None,
    limit: LimitOption = None,
    judge: JudgeOption = None,
    prompt_only: PromptOnlyOption = None,
    prompt: PromptOption = None,
    shots: ShotsOption = None,
    target: TargetOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
) -> None:
    """Evaluate a run on its held-out scenarios: paired counts, 95 % intervals, the noise floor, transcripts.

    With --prompt-only: how far prompts and worked examples take a model without training, and whether training is worth it.
    """
    prompting = {
        "--prompt": prompt, "--shots": shots, "--target": target, "--out": out, "--tools": choice.tools,
        "--read-only": choice.read_only, "--allow-writes": choice.allow_writes or None, "--seed": seed,
    }  # fmt: skip
    if prompt_only is None:
        _refuse(prompting, "belongs to --prompt-only MODEL")
        _evaluate_run(run, server, home_folder(home), attempts or _DEFAULT_ATTEMPTS, limit, judge)
        return
    _refuse(
        {"--attempts": attempts, "--judge": judge},
        "is not for --prompt-only: attempts are greedy, judged by evidence or the run's own rewards",
    )
    counts = None if shots is None else read_counts(shots)
    wanted = given(model=prompt_only, run=run, goal=target, limit=limit, shots=counts)
    _prompt(wanted, choice.given() | given(seed=seed), server, home_folder(home), prompt or (), out)


def _refuse(options: Mapping[str, object], why: str) -> None:
    refused = [name for name, value in options.items() if value is not None]
    if refused:
        raise SettingError(f"{refused[0]} {why}", hint="see journeyman eval --help", reason="other_mode")


def _evaluate_run(run: str | None, options: TargetOptions, home: Path, attempts: int, limit: int | None, judge: str | None) -> None:
    from journeyman.cli.progress import run_and_report
    from journeyman.cli.runs import open_store
    from journeyman.config import command_line
    from journeyman.recipes.train import evaluate as evaluate_run

    if run is None:
        hint = "give RUN (journeyman runs list), or --prompt-only MODEL --server CMD"
        raise SettingError("no run to evaluate was given", hint=hint, reason="no_run")
    open_store(home, run).close()  # a wrong run is found out before anything is shown
    target = target_of_run(run, home, options) if options else None
    run_and_report(
        lambda view: evaluate_run(run, home=home, progress=view, attempts=attempts, limit=limit, judge=judge, target=target),
        lambda: f"again: {command_line('eval', run, '--home', home)}",
    )


# Prompting alone ------------------------------------------------------------------------------------------------------


def _prompt(
    wanted: dict[str, Any], of_server: dict[str, Any], server: TargetOptions, home: Path, prompts: Sequence[Path], out: Path | None
) -> None:
    """Measure, show, and say where the files are. What was measured before in the same folder is not measured again."""
    from journeyman.cli.console import output
    from journeyman.cli.progress import ProgressView, run_interruptible
    from journeyman.config import load_settings
    from journeyman.evaluation.plateau import show_plateau
    from journeyman.recipes.plateau import measure_plateau
    from journeyman.recipes.prompting import PlateauSettings

    run = wanted.get("run")
    if run is not None and of_server:
        raise SettingError(
            "a run has its tools and its scenarios already, or its tasks and rewards",
            hint="give RUN, or --server and its options",
            reason="run_and_server",
        )
    target = server.target() if run is None else target_of_run(run, home, server) if server else None
    texts = _default_prompts(run, home)
    texts |= read_prompts(prompts, taken=[*texts, "own"])
    named = given(target=None if target is None else target.model_dump())
    settings = load_settings(PlateauSettings, given=wanted | of_server | named | {"prompts": texts})
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
