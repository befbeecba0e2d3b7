"""`journeyman eval RUN`: the held-out scenarios of a run again, base against warm start against trained."""

from __future__ import annotations

from typing import Annotated

import typer

from journeyman.cli.options import HomeOption, home_folder


def evaluate(
    run: Annotated[str, typer.Argument(help="Id of a run, as `journeyman runs list` shows it.", metavar="RUN")],
    home: HomeOption = None,
    attempts: Annotated[int, typer.Option(min=1, help="Sampled attempts per scenario, beside the greedy one.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N scenarios [default: all].", show_default=False)] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="Also let this model compare base and trained, e.g. openai/gpt-5-mini.", metavar="MODEL"),
    ] = None,
) -> None:
    """Evaluate a run on its held-out scenarios: paired counts, 95 % intervals, the noise floor, transcripts."""
    from journeyman.cli.console import output
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.progress_view import ProgressView
    from journeyman.cli.runs import open_store
    from journeyman.evaluation.terminal import show_report
    from journeyman.recipes.mcp import evaluate as evaluate_run

    where = home_folder(home)
    with open_store(where) as store:
        store.runs.get(run)
    console = output()
    with ProgressView(console) as view:
        work = evaluate_run(run, home=where, progress=view, attempts=attempts, limit=limit, judge=judge)
        report = run_interruptible(work, lambda: f"again: journeyman eval {run} --home {where}")
    show_report(report, console)
