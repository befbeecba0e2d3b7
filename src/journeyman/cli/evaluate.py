"""`journeyman eval RUN`: the held-out scenarios of a run again, base against warm start against trained. With `--prompt-only MODEL`:
how far prompting alone takes a model on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from journeyman.cli.options import (
    HomeOption,
    SeedOption,
    TargetOptions,
    ToolOptions,
    grouped,
    home_folder,
    target_of_run,
)
from journeyman.errors import SettingError

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
    from journeyman.cli.plateau import run_plateau

    _refuse(
        {"--attempts": attempts, "--judge": judge},
        "is not for --prompt-only: attempts are greedy, judged by evidence or the run's own rewards",
    )
    run_plateau(
        prompt_only,
        run,
        home_folder(home),
        server,
        choice,
        prompts=prompt or (),
        shots=shots,
        goal=target,
        limit=limit,
        seed=seed,
        out=out,
    )


def _refuse(options: Mapping[str, object], why: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise SettingError(f"{given[0]} {why}", hint="see journeyman eval --help", reason="other_mode")


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
