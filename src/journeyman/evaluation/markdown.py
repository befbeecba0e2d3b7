"""The report as Markdown, with the pictures beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from journeyman.evaluation.report import Report, cost_rows, finding_lines, headline, variant_rows
from journeyman.evaluation.transcripts import Example, transcript_text


def report_markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """`pictures`: title -> file name relative to the report."""
    parts = [f"# {escaped(report.title)}", f"**{escaped(headline(report))}**", _facts(report)]
    parts += [f"> {escaped(note)}" for note in report.notes]
    for evaluation in report.evaluations:
        parts.append(f"## Held-out: {evaluation.sampling}, {evaluation.num_scenarios} scenarios (set {evaluation.scenarios_hash})")
        parts.append(_table(variant_rows(evaluation)))
        parts.append("\n".join(f"- {escaped(line)}" for line in finding_lines(evaluation)))
    parts += [f"![{title}]({name})" for title, name in pictures.items()]
    if report.examples:
        parts += ["## Examples", *[_example(one) for one in report.examples]]
    if report.phases:
        parts += ["## Cost", _table(cost_rows(report))]
    if report.judge_cost:
        parts.append(escaped(report.judge_cost.text()))
    parts += _use(report)
    if report.settings:
        parts += ["## Settings", _fenced(json.dumps(report.settings, indent=2, ensure_ascii=False, default=str), "json")]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report) -> str:
    made = datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"run": report.run, "made": made, "base model": report.base, "target": report.target, "judge": report.judge}
    return "\n".join(f"- {name}: {escaped(value)}" for name, value in (facts | report.machine).items())


def _use(report: Report) -> list[str]:
    parts = []
    if report.adapter:
        parts.append(f"## Use it\n\nThe adapter is in {escaped(report.adapter)}.")
    if report.serve_command:
        commands = report.serve_command + (f"\n{report.curl}" if report.curl else "")
        parts.append(_fenced(commands, "sh"))
    return parts


def _example(example: Example) -> str:
    body = f"before\n{transcript_text(example.before)}\n\nafter\n{transcript_text(example.after)}"
    return f"**{escaped(example.task)}** ({example.outcome})\n\n{_fenced(body, 'text')}"


def _fenced(text: str, language: str) -> str:
    # A fence longer than any run of backticks inside: model output may hold fences itself.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = [[escaped(cell) for cell in row] for row in rows]
    rule = ["---" if index == 0 else "---:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *body))


def escaped(text: str) -> str:
    """One line of text in Markdown that shows it as it is: no link, picture, tag or emphasis of its own.

    Example:
        >>> escaped("![x](http://host) <b>*|`")
        '!\\\\[x\\\\](http://host) &lt;b&gt;\\\\*\\\\|\\\\`'
    """
    text = " ".join(text.split())
    signs = r"([\\`*|\[\]])" if re.search(r"\][(\[:]", text) else r"([\\`*|])"  # brackets alone, as of an interval, stay readable
    text = re.sub(signs, r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~", r"\\\g<0>", text)
    text = re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", text)  # no heading or list where it begins a line
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
