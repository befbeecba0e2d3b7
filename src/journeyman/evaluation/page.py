"""The report as one self-contained HTML page: pictures inside, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from journeyman.evaluation.report import Report, cost_rows, finding_lines, headline, variant_rows
from journeyman.evaluation.transcripts import LINE_NAMES, Example, Transcript, score_text

_STYLE = """
:root { color-scheme: light dark; --line: #d5d9de; --soft: #f4f6f8; --text: #1c2127; --dim: #5d6670; --good: #2e8b57; --bad: #b3402f; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4149; --soft: #1e2329; --text: #e4e7ea; --dim: #9aa4ae; --good: #58b986; --bad: #e0806f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.headline { font-size: 1.05rem; font-weight: 600; }
.note { border-left: 3px solid var(--bad); padding-left: .7rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; } dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
img { max-width: 100%; background: #fff; border-radius: 6px; margin: .6rem 0; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem; margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } @media (max-width: 46rem) { .pair { grid-template-columns: 1fr; } }
.line { display: grid; grid-template-columns: 3.4rem 1fr; gap: .5rem; margin: .25rem 0; } .line b { color: var(--dim); font-weight: 500; }
.line span { white-space: pre-wrap; overflow-wrap: anywhere; } .call span, .result span, .error span { font-family: ui-monospace, monospace; font-size: .85rem; }
.error span { color: var(--bad); } .yes { color: var(--good); } .no { color: var(--bad); }
pre { background: var(--soft); padding: .7rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
"""  # noqa: E501


def report_page(report: Report, pictures: Mapping[str, Path]) -> str:
    """`pictures`: title -> PNG file, put into the page."""
    parts = [f"<h1>{escape(report.title)}</h1>", f'<p class="headline">{escape(headline(report))}</p>', _facts(report)]
    parts += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    for evaluation in report.evaluations:
        parts.append(f"<h2>Held-out: {escape(evaluation.sampling)}, {evaluation.num_scenarios} scenarios</h2>")
        parts.append(_table(variant_rows(evaluation)))
        parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in finding_lines(evaluation)) + "</ul>")
    parts += [_picture(title, path) for title, path in pictures.items()]
    if report.examples:
        parts += ["<h2>Examples</h2>", *[_example(one, index == 0) for index, one in enumerate(report.examples)]]
    if report.phases:
        parts += ["<h2>Cost</h2>", _table(cost_rows(report))]
    if report.judge_cost:
        parts.append(f"<p>{escape(report.judge_cost.text())}</p>")
    parts += _use(report)
    if report.settings:
        parts += ["<h2>Settings</h2>", f"<pre>{escape(json.dumps(report.settings, indent=2, ensure_ascii=False, default=str))}</pre>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(report.title)}</title><style>{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _facts(report: Report) -> str:
    made = datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"run": report.run, "made": made, "base model": report.base, "target": report.target, "judge": report.judge}
    rows = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in (facts | report.machine).items()]
    return f"<dl>{''.join(rows)}</dl>"


def _use(report: Report) -> list[str]:
    if not report.adapter and not report.serve_command:
        return []
    parts = ["<h2>Use it</h2>"]
    if report.adapter:
        parts.append(f"<p>The adapter is in <code>{escape(report.adapter)}</code>.</p>")
    if report.serve_command:
        parts.append(f"<pre>{escape(report.serve_command)}{escape(chr(10) + report.curl) if report.curl else ''}</pre>")
    return parts


def _picture(title: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _example(example: Example, is_open: bool) -> str:
    sides = "".join(
        f"<div><h3>{name}</h3>{_transcript(side)}</div>" for name, side in (("before", example.before), ("after", example.after))
    )
    opened = " open" if is_open else ""
    return f'<details{opened}><summary>{escape(example.task)} ({example.outcome})</summary><div class="pair">{sides}</div></details>'


def _transcript(transcript: Transcript) -> str:
    lines = [
        f'<div class="line {line.kind}"><b>{LINE_NAMES[line.kind]}</b><span>{escape(line.text)}</span></div>'
        for line in transcript.lines
        if line.kind != "task"
    ]
    mark = "yes" if transcript.is_success else "no"
    return "".join(lines) + f'<p class="{mark}">{escape(score_text(transcript))}</p>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
