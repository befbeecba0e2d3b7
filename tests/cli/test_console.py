"""The door to the terminal."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from journeyman.cli.console import Terminal, standard_streams, styled, write_json
from journeyman.store.store import Store

NASTY = "\x1b[2J\x1b]0;owned\x07\x9b1m[bold]b[/bold] [link=http://evil]x[/link] :smile: \u202e\u200b\U000e0041\r"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def table_of(text: str) -> Table:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    return table


def group_of(text: str) -> Group:
    return Group(text, styled((text, "bold")))


@pytest.mark.parametrize("make", [str, Text, table_of, Panel, Rule, group_of])
def test_whatever_is_printed_only_the_styles_of_the_program_reach_the_terminal(make: object) -> None:
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, width=200, color_system="standard").print(make(NASTY))  # type: ignore[operator]
    shown = ANSI.sub("", out.getvalue())
    assert [sign for sign in shown if not sign.isprintable() and sign != "\n"] == []
    assert "[link=http://evil]" in shown
    assert ":smile:" in shown
    assert "\\x9b" in shown


def test_a_live_block_is_cleaned_too() -> None:
    out = io.StringIO()
    terminal = Terminal(file=out, force_terminal=True, width=200)
    with Live(table_of(NASTY), console=terminal, auto_refresh=False):
        terminal.print(NASTY)
    assert "\x9b" not in out.getvalue()
    assert "\x1b]0" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_no_link_is_made_of_a_style() -> None:
    out = io.StringIO()
    Terminal(file=out, force_terminal=True).print(Text.from_markup("[link=http://evil]x[/link]"))
    assert "\x1b]8" not in out.getvalue()


def test_a_sequence_that_comes_in_two_pieces_is_shown_not_obeyed() -> None:
    out = io.StringIO()
    terminal = Terminal(file=out, force_terminal=True)
    for piece in ("\x1b", "[2J", "\x1b]0;", "x\x07"):
        terminal.print(piece, end="", soft_wrap=True)
    assert out.getvalue() == "\\x1b[2J\\x1b]0;x\\x07"


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\rb", "\u202ename", "tok\x08\x08\x08en"])
def test_a_cell_is_as_wide_as_what_is_seen_of_it(name: str) -> None:
    out = io.StringIO()
    table = Table(box=None)
    table.add_row(name, "beside")
    Terminal(file=out, width=80).print(table)
    assert out.getvalue().split() == [name.encode("unicode_escape").decode(), "beside"]


def test_json_stays_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    value = {"text": NASTY, "half": "\ud800", "town": "Köln"}
    write_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert "Köln" in shown


def log_of_a_library() -> None:
    handler = logging.StreamHandler()
    handler.handle(logging.LogRecord("library", logging.WARNING, "file.py", 1, NASTY, None, None))


def traceback_of_a_thread() -> None:
    error = RuntimeError(NASTY)
    threading.__excepthook__(threading.ExceptHookArgs((RuntimeError, error, None, None)))


def bar_of_a_library() -> None:
    sys.stderr.writelines([f"\r10 % {NASTY}", f"\r20 % {NASTY}"])


WRITERS = [
    lambda: print(NASTY),
    lambda: print(NASTY, file=sys.stderr),
    log_of_a_library,
    traceback_of_a_thread,
    bar_of_a_library,
]


@pytest.mark.parametrize("write", WRITERS)
def test_whoever_writes_to_a_standard_stream_passes_the_door(write: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with standard_streams():
        write()
    assert (sys.stdout, sys.stderr) == before
    shown = "".join(capsys.readouterr())
    assert ":smile:" in shown
    assert [sign for sign in shown if not sign.isprintable() and sign != "\n"] == []


def test_beside_a_live_block_too_and_the_block_itself_may_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with standard_streams(), Live("block", console=Terminal(force_terminal=True, width=80), auto_refresh=False):
        print(NASTY)
    shown = capsys.readouterr().out
    assert "\x1b[?25l" in shown
    assert [sign for sign in "\x9b\x07\u202e" if sign in shown] == []
    assert "\x1b[2J" not in shown
    assert "\x1b]" not in shown


# The program as a process: its encodings and pipes ------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "home") as store:
        for number in range(400):
            store.runs.create(f"run-{number}", kind="mcp", base=f"köln-✓-{number}")
    return tmp_path / "home"


def program(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    code = "import sys; from journeyman.cli.app import run; sys.exit(run())"
    env = {**os.environ, **environment}
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda one: "-".join(one.values()),
)
def test_an_output_that_is_not_utf8_shows_what_it_can(home: Path, environment: dict[str, str]) -> None:
    with program("runs", "list", "--home", str(home), **environment) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert b"ln-\\u2713-7 " in out


@pytest.mark.parametrize("words", [("runs", "list"), ("runs", "list", "--json")])
def test_a_reader_that_goes_away_ends_the_program_quietly(home: Path, words: tuple[str, ...]) -> None:
    with program(*words, "--home", str(home)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written: a pipe would hold much of it
        err = process.stderr.read()
        assert process.wait(60) == 141
    assert err == b""


@pytest.mark.parametrize(
    ("words", "ending", "code"),
    [
        ("runs list", ">&-", 0),
        ("runs list --json", ">&-", 0),
        ("runs show nope", "2>&-", 2),
        ("chat --base smollm2-135m", "<&-", 2),
        ("runs list", ">/dev/full", 1),
        ("runs list --json", ">/dev/full", 1),
        ("runs show nope", "2>/dev/full", 1),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_bug(home: Path, words: str, ending: str, code: int) -> None:
    script = "import sys; from journeyman.cli.app import run; sys.exit(run())"
    command = f"{shlex.join([sys.executable, '-c', script])} {words} --home {shlex.quote(str(home))} {ending}"
    result = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert result.returncode == code
    assert b"Traceback" not in result.stderr
    assert b"bug" not in result.stderr
