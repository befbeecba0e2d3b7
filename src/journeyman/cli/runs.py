"""`journeyman runs list | show | compare`: what was trained here, and how it went."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.cli.options import HomeOption, JsonOption, home_folder
from journeyman.types.names import Version, is_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from journeyman.cli.console import Terminal
    from journeyman.observe.health import Finding
    from journeyman.store.store import Store
    from journeyman.types.runs import RunInfo, StepMetrics
    from journeyman.types.trajectory import Trajectory

runs = typer.Typer(help="Runs: list them, look at one, compare several.", no_args_is_help=True)

_SHOWN_CHARS = 600  # of one message of an attempt

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
    from journeyman.store.locks import as_it_is

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
    from journeyman.observe.health import findings, packing_saving, run_history
    from journeyman.store.locks import as_it_is

    where = home_folder(home)
    if group is not None:
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
    from journeyman.store.runs import flat

    if len(names) < 2:
        raise SettingError("comparing needs at least two runs", hint="journeyman runs compare RUN RUN", reason="one_run")
    with open_store(home_folder(home), *names) as store:
        infos = [store.runs.get(name) for name in names]
        lasts = [_last_metrics(store.runs.steps(name, "train")) for name in names]
    rows = {"step": [str(info.step) for info in infos]} | _differences([flat(info.settings) | {"base": info.base} for info in infos])
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
    from journeyman.store.home import HomeFolder
    from journeyman.store.store import Store

    if not HomeFolder(home).database.is_file():
        wanted = f"there is no run {runs[0]!r}: " if runs else ""
        hint = f'give --home, or start a run: {program()} mcp train --server "CMD"'
        raise NotFoundError(f"{wanted}there is no home folder {home}", hint=hint, reason="no_home")
    store = Store.open(home)
    try:
        for run in runs:
            store.runs.get(run)
    except NotFoundError as error:
        store.close()
        raise NotFoundError(f"{error.message} in {home}", hint=error.hint, reason=error.reason) from error
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
    from journeyman.store.runs import differences
    from journeyman.types.settings import Dpo, Grpo, Sft

    made = next((step.settings for step in reversed(steps) if step.settings), {})
    defaults = {"grpo": Grpo(), "sft": Sft(), "dpo": Dpo()}
    known = {kind: defaults[kind].model_dump(mode="json") for kind in made if kind in defaults}
    changes = differences(known, {kind: made[kind] for kind in known})
    changed = ", ".join(f"{change.name} = {change.after or 'not set'}" for change in changes)
    return f"not the defaults in the last step: {changed}" if changed else ""


def _state(info: RunInfo, *, why: bool = False) -> tuple[str | tuple[str, str], ...]:
    from journeyman.store.locks import GONE

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
    names = sorted({name for values in settings for name in values})
    rows = {name: [values.get(name, "") for values in settings] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


# One group ---------------------------------------------------------------------------------------------------------------


def show_group(home: Path, run: str, group: str, *, as_json: bool = False) -> None:
    """Print a group, best attempt first. `group` is a scenario's id, or `scenario@step` for the attempts of one version.

    Raises NotFoundError, naming groups that there are.
    """
    from journeyman.cli.console import output, write_json

    with open_store(home, run) as store:
        attempts = find_group(store, run, group)
    if as_json:
        write_json([attempt.model_dump(mode="json", exclude={"turns"}) for attempt in attempts])
        return
    console = output()
    for part in render_group(group, attempts):
        console.print(part)


def find_group(store: Store, run: str, group: str) -> list[Trajectory]:
    """The attempts at a scenario, best reward first; of the newest version that has a reward when no step is named."""
    from journeyman.errors import NotFoundError

    rows = store.rollouts.list_of_run(run)
    known = list(dict.fromkeys(row.scenario_id for row in reversed(rows)))
    scenario, _, step = group.rpartition("@") if "@" in group and group not in known else (group, "", "")
    if scenario not in known:
        hint = f"groups of this run: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else "this run has no attempts yet"
        raise NotFoundError(f"run {run!r} has no attempts at scenario {scenario!r}", hint=hint, reason="no_group")
    attempts = [store.rollouts.trajectory(row.id) for row in rows if row.scenario_id == scenario]
    versions = list(dict.fromkeys(attempt.model for attempt in attempts))
    if step:
        chosen = [name for name in versions if (version := Version.parse(name)) is not None and str(version.step) == step]
        if not chosen:
            hint = f"versions: {', '.join(versions)}"
            raise NotFoundError(f"no attempts at {scenario!r} by step {step}", hint=hint, reason="no_group")
    else:
        judged = {attempt.model for attempt in attempts if attempt.verdict is not None}
        chosen = ([name for name in versions if name in judged] or versions)[-1:]
    shown = [attempt for attempt in attempts if attempt.model in chosen]
    return sorted(shown, key=lambda attempt: (attempt.reward is None, -(attempt.reward or 0.0)))


def render_group(group: str, attempts: Sequence[Trajectory]) -> list[RenderableType]:
    """One column per attempt; more attempts than fit side by side go into rows of three."""
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    judges = list(dict.fromkeys(attempt.verdict.judge for attempt in attempts if attempt.verdict is not None))
    parts: list[RenderableType] = [
        Rule(Text(f"{group}: {len(attempts)} attempts by {attempts[0].model}, judged by {', '.join(judges) or 'nobody'}"))
    ]
    for start in range(0, len(attempts), 3):
        row = attempts[start : start + 3]
        table = Table(expand=True, show_lines=True)
        for attempt in row:
            reward = "no reward" if attempt.reward is None else f"reward {attempt.reward:.3f}"
            table.add_column(Text(f"{attempt.id}  {reward}"), ratio=1, overflow="fold")
        table.add_row(*[Text(_conversation(attempt)) for attempt in row])
        table.add_row(*[Text(_verdict(attempt)) for attempt in row])
        parts.append(table)
    return parts


def _conversation(attempt: Trajectory) -> str:
    from journeyman.rewards.attempt_text import conversation, render_messages

    text = render_messages(conversation(attempt)[1:], max_characters=_SHOWN_CHARS) or "(no model call)"
    return text if attempt.error is None else f"{text}\nended by {attempt.error.type}: {attempt.error.message}"


def _verdict(attempt: Trajectory) -> str:
    verdict = attempt.verdict
    if verdict is None:
        return "not judged"
    score = "abstained" if verdict.score is None else f"score {verdict.score:.3f}"
    lines = [f"{score}: {verdict.explanation}"]
    lines += [f"{name} {value:.3g}" for name, value in verdict.checks.items()]
    for call in verdict.calls:
        score = "no score" if call.score is None else f"{call.score:.3f}"
        source = "from the cache" if call.is_cached else f"{call.seconds:.1f} s"
        lines.append(f"place {call.place + 1} of {call.num_shown}: {score}, {call.model}, {source}, call {call.call}: {call.explanation}")
    return "\n".join(lines)
