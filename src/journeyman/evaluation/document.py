"""A document of a few kinds of blocks as one HTML page, as Markdown, and in the terminal. Not for what is said in it: `report.py`.

The texts in it are those of a `readable` record: secrets are hidden before a form escapes, cuts or breaks them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from journeyman.evaluation.transcripts import LINE_NAMES, Example, Transcript, score_text, transcript_text
from journeyman.redaction import printable, redact
from journeyman.types.record import Record

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, slots=True)
class Title:
    text: str
    headline: str


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Paragraphs of a line each, items of a list, or notes that nobody should miss."""

    lines: Sequence[str]
    kind: Literal["text", "item", "note"] = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, the header first."""

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file; not in the terminal."""

    title: str
    path: Path


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in characters; in the terminal only."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied as it is."""

    text: str
    language: str


Block = Title | Heading | Lines | Table | Picture | Chart | Code | Example


def readable(record: _R) -> _R:
    """The record with every text in it as it may be shown: secrets hidden, signs that steer a reader written out. To be done before a
    text is escaped, cut or broken into lines: a secret in another form is not found."""
    return type(record).model_validate(_readable(record.model_dump()))


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(redact(value))
    if isinstance(value, Mapping):
        return {_readable(key): _readable(inner) for key, inner in value.items()}
    return tuple(map(_readable, value)) if isinstance(value, tuple | list) else value


# HTML -----------------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --line: #d5d9de; --soft: #f4f6f8; --text: #1c2127; --dim: #5d6670; --good: #2e8b57; --bad: #b3402f; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4149; --soft: #1e2329; --text: #e4e7ea; --dim: #9aa4ae; --good: #58b986; --bad: #e0806f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.headline { font-size: 1.05rem; font-weight: 600; }
.note { border-left: 3px solid var(--bad); padding-left: .7rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
img { max-width: 100%; background: #fff; border-radius: 6px; margin: .6rem 0; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem; margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } @media (max-width: 46rem) { .pair { grid-template-columns: 1fr; } }
.line { display: grid; grid-template-columns: 3.4rem 1fr; gap: .5rem; margin: .25rem 0; } .line b { color: var(--dim); font-weight: 500; }
.line span { white-space: pre-wrap; } .call span, .result span, .error span { font-family: ui-monospace, monospace; font-size: .85rem; }
.error span { color: var(--bad); } .yes { color: var(--good); } .no { color: var(--bad); }
pre { background: var(--soft); padding: .7rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
"""  # noqa: E501
_HEAD = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
_LINE_TAGS = {"text": "<p>{}</p>", "item": "<li>{}</li>", "note": '<p class="note">{}</p>'}


def html_page(blocks: Sequence[Block]) -> str:
    """One self-contained page: pictures inside, no scripts, nothing loaded from elsewhere."""
    title = next((block.text for block in blocks if isinstance(block, Title)), "")
    body = "\n".join(map(_html, blocks)).replace("<details>", "<details open>", 1)
    page = f"<head>{_HEAD}<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body>"
    return redact(f'<!doctype html>\n<html lang="en">{page}</html>\n')


def _html(block: Block) -> str:
    match block:
        case Title(text, headline):
            return f'<h1>{escape(text)}</h1>\n<p class="headline">{escape(headline)}</p>'
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Lines(lines, kind):
            shown = "".join(_LINE_TAGS[kind].format(escape(line)) for line in lines)
            return f"<ul>{shown}</ul>" if kind == "item" else shown
        case Table(rows):
            header, *body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
            head = header.replace("<td>", "<th>").replace("</td>", "</th>")
            lines = "".join(f"<tr>{row}</tr>" for row in body)
            return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        case Picture(title, path):
            return f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Example():
            attempts = "".join(_html_of_attempt(name, side) for name, side in (("before", block.before), ("after", block.after)))
            return f'<details><summary>{escape(block.task)} ({block.outcome})</summary><div class="pair">{attempts}</div></details>'
    return ""


def _html_of_attempt(name: str, attempt: Transcript) -> str:
    lines = [
        f'<div class="line {line.kind}"><b>{LINE_NAMES[line.kind]}</b><span>{escape(line.text)}</span></div>'
        for line in attempt.lines
        if line.kind != "task"
    ]
    mark = "yes" if attempt.is_success else "no"
    return f'<div><h3>{name}</h3>{"".join(lines)}<p class="{mark}">{escape(score_text(attempt))}</p></div>'


# Markdown -------------------------------------------------------------------------------------------------------------

_LINE_SIGNS = {"text": "", "item": "- ", "note": "> "}


def markdown_text(blocks: Iterable[Block]) -> str:
    """The pictures lie beside it."""
    return redact("\n\n".join(filter(None, map(_markdown, blocks))) + "\n")


def _markdown(block: Block) -> str:
    match block:
        case Title(text, headline):
            return f"# {escaped(text)}\n\n**{escaped(headline)}**"
        case Heading(text):
            return f"## {escaped(text)}"
        case Lines(lines, kind):
            return ("\n" if kind == "item" else "\n\n").join(_LINE_SIGNS[kind] + escaped(line) for line in lines)
        case Table(rows):
            header, *body = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
            return "\n".join((header, "|---|" + "---:|" * (len(rows[0]) - 1), *body))
        case Picture(title, path):
            return f"![{title}]({path.name})"
        case Code(text, language):
            return _fenced(text, language)
        case Example():
            sides = f"before\n{transcript_text(block.before)}\n\nafter\n{transcript_text(block.after)}"
            return f"**{escaped(block.task)}** ({block.outcome})\n\n{_fenced(sides, 'text')}"
    return ""


def _fenced(text: str, language: str) -> str:
    # A fence longer than any run of backticks inside: model output may hold fences itself.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def escaped(text: str) -> str:
    """One line of text in Markdown that shows it as it is: no link, picture, tag, emphasis, heading or list of its own.

    Example:
        >>> escaped("![x](http://host) <b>*|`")
        '!\\\\[x\\\\](http://host) &lt;b&gt;\\\\*\\\\|\\\\`'
    """
    text = " ".join(text.split())
    signs = r"([\\`*|\[\]])" if re.search(r"\][(\[:]", text) else r"([\\`*|])"  # brackets alone, as of an interval, stay readable
    text = re.sub(signs, r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~", r"\\\g<0>", text)
    text = re.sub(r"^(\d*)([#+=-]|[.)](?=\s|$))", r"\1\\\2", text)  # no heading or list where it begins a line
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Terminal -------------------------------------------------------------------------------------------------------------

_TERMINAL_SIGNS = {"text": "", "item": "• ", "note": "! "}


def show(blocks: Iterable[Block], console: Console) -> None:
    """Print the blocks. Lines and commands are printed unwrapped, so that they can be copied."""
    for block in blocks:
        for part in _renderables(block):
            console.print(part, soft_wrap=isinstance(part, Text))


def _renderables(block: Block) -> Sequence[RenderableType]:
    match block:
        case Title(text, headline):
            return [Panel(Text(headline, style="bold"), title=Text(text), title_align="left", border_style="green")]
        case Heading(text):
            return [_rule(text)]
        case Lines(lines, kind):
            return [Text(_TERMINAL_SIGNS[kind] + line, style="yellow" if kind == "note" else "") for line in lines]
        case Table(rows):
            return [_rich_table(rows)]
        case Chart(title, lines):
            return [_rule(title), Text("\n".join(lines), style="cyan")]
        case Code(text):
            return [Text(text, style="bold")]
        case Example():
            before, after = transcript_text(block.before), transcript_text(block.after)
            names = [Text(name, style="bold") for name in ("before", "after")]
            return [_rule(f"example: {block.outcome}"), names[0], Text(before, style="dim"), names[1], Text(after)]
    return []


def _rule(text: str) -> Rule:
    return Rule(Text(text), align="left", style="dim")


def _rich_table(rows: Sequence[Sequence[str]]) -> RichTable:
    header, *body = rows
    table = RichTable(box=None, header_style="dim", pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index == 0 else "right")
    for row in body:
        table.add_row(*map(Text, row))
    return table
