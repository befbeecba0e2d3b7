"""Text of models, servers and settings in reports: shown as it is, in every form."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from journeyman.evaluation import Report, read_report, show_report, write_report
from journeyman.evaluation.document import escaped
from journeyman.evaluation.transcripts import Example, Transcript, TranscriptLine
from journeyman.redaction import HIDDEN, remember
from journeyman.types.runs import StepMetrics

NASTY = "![x](http://evil/p.png) <img src=//evil> [a](javascript:x) **b** `c` | \x1b[2J \u202e"


STEERING = {
    "link_open",
    "image",
    "html_inline",
    "html_block",
    "code_inline",
    "em_open",
    "strong_open",
    "s_open",
    "heading_open",
    "list_item_open",
}


def kinds(markdown: str) -> set[str]:
    """What a page of this Markdown consists of."""
    return {
        token.type for block in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown) for token in (block, *(block.children or ()))
    }


@given(st.text("ab1. *_~`[]()!<>|\\&#+=-\n", max_size=40))
def test_escaped_text_makes_nothing_but_text_in_markdown(text: str) -> None:
    assert not kinds(escaped(text)) & STEERING


def report_of(text: str) -> Report:
    """A report that says `text` wherever others have a say."""
    side = Transcript(
        trajectory_id="t", model="m", lines=(TranscriptLine(kind="result", text=text),), score=None, is_success=False, explanation=text
    )
    return Report(
        run="r", title=text, base=text, target=text, judge=text, created_at=0.0, settings={"rubric": text, text: 1}, machine={"cpu": text},
        steps=(StepMetrics(run="r", phase="train", step=1, time=0.0, metrics={"reward/mean": 0.5}),), notes=(text,), adapter=f"/{text}",
        examples=(Example(scenario_id="s", task=text, outcome="both", before=side, after=side),),
    )  # fmt: skip


def test_a_report_shows_what_others_wrote_and_obeys_none_of_it(tmp_path: Path) -> None:
    page = write_report(report_of(NASTY), tmp_path).read_text()
    assert "<img src=//evil>" not in page
    assert "javascript" in page
    text = (tmp_path / "report.md").read_text()
    own = "![Reward and success per training step](steps.png)"
    assert own in text
    assert not kinds(text.replace(own, "")) & STEERING - {"heading_open", "list_item_open", "strong_open"}  # the report has such of its own
    for form in (page, text, (tmp_path / "report.json").read_text()):
        assert not set(form) & {"\x1b", "\u202e"}


SECRETS = ("ab&cd<ef>gh", "one'two\"three\\four", "st*r|p_pe`tick", "drei-ß-日本語", "two  spaces in it")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_in_no_form_of_a_report_whatever_it_is_made_of(secret: str, tmp_path: Path) -> None:
    remember([secret])
    write_report(report_of(f"said {secret} and {json.dumps({'key': secret})}"), tmp_path)
    out = io.StringIO()
    show_report(report_of(f"{'x' * 70} {secret}"), Console(file=out, width=80))
    whole = json.loads((tmp_path / "report.json").read_text())
    shown = [(tmp_path / name).read_text() for name in ("report.md", "report.html")]
    shown = [html.unescape(re.sub(r"\\\\(?=\W)", "", form)) for form in shown]  # as a reader of the form sees it
    for form in (*shown, out.getvalue(), json.dumps(whole, ensure_ascii=False)):
        assert HIDDEN in form
        assert not any(part in form for part in (secret, secret[-6:], json.dumps(secret)[1:-1]))


PICTURED = ("$x_{$", "--in $HOME --out $HOME", "日本語", "_hidden", "\x00\x1b", "half \ud83d", "\u2028", "word " * 400, "A" * 5000, "")


@pytest.mark.parametrize("text", PICTURED, ids=ascii)
def test_any_text_can_stand_in_a_report_and_its_pictures(text: str, tmp_path: Path) -> None:
    write_report(report_of(text), tmp_path)
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    assert read_report(tmp_path).run == "r"
