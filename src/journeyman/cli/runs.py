"""`journeyman runs list | show | compare`: what was trained here, and how it went."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.cli.options import HomeOption, JsonOption, home_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from journeyman.cli.console import Terminal
    from journeyman.observe.health import Finding
    from journeyman.store.store import Store
    from journeyman.types.runs import RunInfo, StepMetrics

runs = typer.Typer(help="Runs: list them, look at one, compare several.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(help="Id of a run, as `journeyman runs list` shows it.", metavar="RUN")]

GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group", help="Show the judged attempts at this scenario (ID, or ID@STEP) side by side.", metavar="G", show_default=False
    ),
]


@runs.command("list")
def list_runs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """All runs of the home folder, the newest first."""
    from rich.table import Table

    from journeyman.cli.console import output, styled, write_json
    from journeyman.config import program
    from journeyman.store.run_lock import as_it_is
    from journeyman.types.names import is_name

    console, where = output(), home_folder(home)
    with open_store(where) as store:
        # Earlier versions took ids that can name no folder; such a run has none.
        infos = [as_it_is(info, store.home.run(info.id).lock) if is_name(info.id) else info for info in store.runs.list()]
    if as_json:
        write_json([info.model_dump() for info in infos])
        return
    if not infos:
        console.print(f'no runs in {where} yet; start one with: {program()} mcp train --server "CMD"')
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("run", "state", "phase", "step", "base", "started"):
        table.add_column(name)
    for info in infos:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created_at))
        table.add_row(info.id, styled(*_state(info, why=True)), info.phase, str(info.step), info.base, started)
    console.print(table)


@runs.command("show")
def show_run(run: RunArgument, home: HomeOption = None, group: GroupOption = None, as_json: JsonOption = False) -> None:
    """One run: steps, how healthy it is, adapters, report, and how to serve or resume it."""
    from journeyman.cli.console import output, styled, write_json
    from journeyman.observe.health import findings, run_history
    from journeyman.observe.savings import packing_saving
    from journeyman.store.run_lock import as_it_is

    where = home_folder(home)
    if group is not None:
        from journeyman.cli.judged_group import show_group

        show_group(where, run, group, as_json=as_json)
        return
    with open_store(where, run) as store:
        info = as_it_is(store.runs.get(run), store.home.run(run).lock)
        steps = store.runs.steps(run)
        adapters = [adapter for model in store.models.list(run) for adapter in store.models.adapters(run, model.name)]
        report = store.home.run(run).report
        again = sorted(path for path in store.home.run(run).evaluations.glob("*") if path.is_dir())
    history = [step.metrics for step in steps if step.phase == "train"]
    found, saving = findings(run_history(steps)), packing_saving(history)
    if as_json:
        shown = info.model_dump() | {
            "steps": [step.model_dump() for step in steps],
            "adapters": [{"name": one.name, "folder": str(one.folder), "fingerprint": one.fingerprint} for one in adapters],
            "report": str(report) if report.is_dir() else None,
            "evaluations": [str(path) for path in again],
            "findings": [asdict(finding) for finding in found],
            "packing_saving": saving,
        }
        write_json(shown)
        return
    console = output()
    console.print(styled((info.id, "bold"), f"  {info.kind}  base {info.base}  ", *_state(info), f"  step {info.step}"))
    if info.error:
        console.print(info.error, style="red")
    console.print(_step_table(steps) if steps else "no steps yet")
    if not info.settings and (line := _last_settings(steps)):
        console.print(f"settings        {line}")
    show_findings(console, found)
    if saving is not None:
        console.print(f"packing         shared prefixes saved {saving:.2f}x of the tokens to compute")
    for adapter in adapters[-1:]:
        console.print(f"newest adapter  {adapter.name}  {adapter.folder}")
    if report.is_dir():
        console.print(f"report          {report}")
    for path in again:
        console.print(f"evaluation      {path}")
    for line in _next_commands(info, where, bool(adapters)):
        console.print(line)


@runs.command("compare")
def compare_runs(
    names: Annotated[list[str], typer.Argument(help="Two or more run ids.", metavar="RUN RUN...")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Settings that differ between runs, and the readings of their last step side by side."""
    from rich.table import Table

    from journeyman.cli.console import output, write_json
    from journeyman.errors import SettingError
    from journeyman.types.differences import flat

    if len(names) < 2:
        raise SettingError("comparing needs at least two runs", hint="journeyman runs compare RUN RUN")
    with open_store(home_folder(home), *names) as store:
        infos = [store.runs.get(name) for name in names]
        lasts = [_last_metrics(store.runs.steps(name, "train")) for name in names]
    rows = {name: [str(info.step) for info in infos] for name in ("step",)}
    rows |= _differences([flat(info.settings) | {"base": info.base} for info in infos])
    for name in sorted({name for last in lasts for name in last}):
        rows[name] = [f"{last[name]:.4g}" if name in last else "" for last in lasts]
    if as_json:
        write_json({run: {name: values[at] for name, values in rows.items()} for at, run in enumerate(names)})
        return
    table = Table("", *names, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, values in rows.items():
        table.add_row(name, *values)
    output().print(table)


def open_store(home: Path, *runs: str) -> Store:
    """The store of a home folder that is there already, with these runs in it; looking at runs never makes one.

    Raises NotFoundError, which names the run and the folder.
    """
    from journeyman.config import program
    from journeyman.errors import NotFoundError
    from journeyman.store.store import Store

    if not home.is_dir():
        wanted = f"there is no run {runs[0]!r}: " if runs else ""
        hint = f'give --home, or start a run: {program()} mcp train --server "CMD"'
        raise NotFoundError(f"{wanted}there is no home folder {home}", hint=hint)
    store = Store.open(home)
    try:
        for run in runs:
            store.runs.get(run)
    except NotFoundError as error:
        store.close()
        raise NotFoundError(f"{error.message} in {home}", hint=error.hint) from error
    return store


def how_to_resume(home: Path, run: str, *command: str) -> str:
    """The command that goes on with a run; empty for one that was never registered in the home folder: there is nothing to go on with."""
    from journeyman.config import command_line
    from journeyman.errors import JourneymanError

    try:
        with open_store(home) as store:
            store.runs.get(run)
    except JourneymanError:
        return ""
    return f"go on with: {command_line(*command, '--resume', run, '--home', home)}"


def show_findings(console: Terminal, found: Sequence[Finding]) -> None:
    """A line a finding; docs/health.md has a paragraph for each name."""
    from journeyman.cli.console import styled

    colours = {"problem": "red", "watch": "yellow", "normal": "dim"}
    for finding in found:
        advice = f"; try: {finding.advice}" if finding.advice else ""
        name = (f"{finding.level:<8}{finding.name}", colours[finding.level])
        console.print(styled(name, f"  {finding.text}{advice}"))


def _last_settings(steps: Sequence[StepMetrics]) -> str:
    """What the newest training job set otherwise than the defaults: for runs of programs, which have no settings of their own."""
    from journeyman.types.differences import differences
    from journeyman.types.settings import Dpo, Grpo, Sft

    made = next((step.settings for step in reversed(steps) if step.settings), {})
    defaults = {"grpo": Grpo(), "sft": Sft(), "dpo": Dpo()}
    known = {kind: defaults[kind].model_dump(mode="json") for kind in made if kind in defaults}
    changes = differences(known, {kind: made[kind] for kind in known})
    changed = ", ".join(f"{change.name} = {change.after or 'not set'}" for change in changes)
    return f"not the defaults in the last step: {changed}" if changed else ""


def _state(info: RunInfo, *, why: bool = False) -> tuple[str | tuple[str, str], ...]:
    from journeyman.store.run_lock import GONE

    colours = {"running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}
    return (info.state, colours.get(info.state, "default")), f" ({GONE})" if why and info.error == GONE else ""


def _step_table(steps: Sequence[StepMetrics]) -> object:
    from rich.table import Table

    columns = {
        "reward/mean": "reward", "reward/success": "success", "train/kl_to_base": "KL to base", "train/entropy": "entropy",
        "train/num_groups_without_spread": "no spread", "train/seconds": "seconds",
    }  # fmt: skip
    table = Table("phase", "step", *columns.values(), box=None, header_style="dim", padding=(0, 2, 0, 0))
    for step in steps[-20:]:
        cells = [f"{step.metrics[name]:.3g}" if name in step.metrics else "" for name in columns]
        table.add_row(step.phase, str(step.step), *cells)
    return table


def _next_commands(info: RunInfo, home: Path, has_adapters: bool) -> list[str]:
    from journeyman.config import command_line
    from journeyman.recipes.methods import METHODS

    lines = []
    if info.state != "done" and info.kind in METHODS:
        command = ("mcp", "train") if info.kind == "mcp" else ("train",)
        lines.append(f"resume          {command_line(*command, '--resume', info.id, '--home', home)}")
    if has_adapters:
        lines.append(f"serve           {command_line('serve', '--run', info.id, '--home', home)}")
        if info.kind in ("mcp", "grpo"):
            lines.append(f"evaluate        {command_line('eval', info.id, '--home', home)}")
    return lines


def _last_metrics(steps: Sequence[StepMetrics]) -> dict[str, float]:
    return steps[-1].metrics if steps else {}


def _differences(settings: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    names = sorted({name for one in settings for name in one})
    rows = {name: [one.get(name, "") for one in settings] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}
