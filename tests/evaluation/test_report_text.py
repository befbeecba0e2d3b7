"""Text of models, servers and settings in reports: shown as it is, in every form."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from journeyman.evaluation.markdown import escaped
from journeyman.evaluation.report import Report
from journeyman.evaluation.write import write_report

NASTY = "![x](http://evil/p.png) <img src=//evil> [a](javascript:x) **b** `c` | \x1b[2J \u202e"


STEERING = {"link_open", "image", "html_inline", "html_block", "code_inline"}


def kinds(markdown: str) -> set[str]:
    """What a page of this Markdown consists of."""
    return {token.type for block in MarkdownIt().parse(markdown) for token in (block, *(block.children or ()))}


@given(st.text("ab *_`[]()!<>|\\&#-\n", max_size=40))
def test_escaped_text_makes_no_link_picture_tag_or_code_in_markdown(text: str) -> None:
    assert not kinds(f"x {escaped(text)}") & STEERING


def test_a_report_shows_what_others_wrote_and_obeys_none_of_it(tmp_path: Path) -> None:
    report = Report(
        run="r", title=NASTY, base=NASTY, target=NASTY, judge=NASTY, created_at=0.0, settings={"rubric": NASTY}, machine={"cpu": NASTY},
        evaluations=(), steps=(), phases=(), examples=(), notes=(NASTY,),
    )  # fmt: skip
    page = write_report(report, tmp_path).read_text()
    assert "<img src=//evil>" not in page
    assert "javascript" in page
    text = (tmp_path / "report.md").read_text()
    assert not kinds(text) & STEERING
    assert "\x1b" not in text
    assert "\u202e" not in text
