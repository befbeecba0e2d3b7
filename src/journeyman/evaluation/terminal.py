"""The report in the terminal (rich): result first, then the curve, examples, cost, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from journeyman.evaluation.chart import chart_lines
from journeyman.evaluation.report import (
    HELDOUT_LOSS,
    LOSS,
    REWARD,
    SUCCESS,
    Report,
    cost_rows,
    finding_lines,
    headline,
    readable,
    series,
    variant_rows,
)
from journeyman.evaluation.transcripts import Example, transcript_text

_MAX_EXAMPLES = 2


def show_report(report: Report, console: Console) -> None:
    """Print a report. Commands are printed unwrapped, so that they can be copied."""
    report = readable(report)  # whole: a secret that is broken over two lines would not be known
    for part in render_report(report):
        console.print(part)
    if report.serve_command:
        console.print(Rule("use it", align="left", style="dim"))
        if report.adapter:
            console.print(Text(f"adapter: {report.adapter}"), soft_wrap=True)
        for command in filter(None, (report.serve_command, report.curl)):
            console.print(Text(command, style="bold"), soft_wrap=True)


def render_report(report: Report) -> Iterator[RenderableType]:
    """The parts of the report, top to bottom."""
    yield Panel(Text(headline(report), style="bold"), title=Text(report.title), title_align="left", border_style="green")
    for note in report.notes:
        yield Text(f"! {note}", style="yellow")
    for evaluation in report.evaluations:
        yield Rule(Text(f"held-out, {evaluation.sampling}, {evaluation.num_scenarios} scenarios"), align="left", style="dim")
        yield _table(variant_rows(evaluation))
        yield Padding(Group(*[Text(line) for line in finding_lines(evaluation)]), (0, 0, 1, 1))
    yield from _charts(report)
    for example in report.examples[:_MAX_EXAMPLES]:
        yield _example(example)
    if report.phases:
        yield Rule("cost", align="left", style="dim")
        yield _table(cost_rows(report))
    if report.judge_cost:
        yield Text(report.judge_cost.text())


def _charts(report: Report) -> Iterator[RenderableType]:
    for names, title in ((REWARD, "reward per step (mean, 0 to 1)"), (SUCCESS, "success per step (share of attempts, 0 to 1)")):
        lines = chart_lines(series(report.steps, names), width=60, height=6)
        if lines:
            yield Rule(title, align="left", style="dim")
            yield Text("\n".join(lines), style="cyan", no_wrap=True)
    for names, phase, title in ((LOSS, "train", "loss per step"), (HELDOUT_LOSS, "eval", "held-out loss, by steps made")):
        points = series(report.steps, names, phase)
        if points and not any(series(report.steps, REWARD)):
            yield Rule(title, align="left", style="dim")
            yield Text("\n".join(chart_lines(points, width=60, height=6, top=max(one.value for one in points))), style="cyan", no_wrap=True)


def _example(example: Example) -> RenderableType:
    title = Rule(Text(f"example: {example.outcome}"), align="left", style="dim")
    before = Text(transcript_text(example.before), style="dim")
    after = Text(transcript_text(example.after))
    return Group(title, Text("before", style="bold"), before, Text("after", style="bold"), after)


def _table(rows: Sequence[Sequence[str]]) -> Table:
    header, *body = rows
    table = Table(box=None, header_style="dim", pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index == 0 else "right")
    for row in body:
        table.add_row(*[Text(cell) for cell in row])
    return table
