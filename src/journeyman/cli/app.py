"""Puts the commands together and is the one place where an error becomes a message and an exit code.

Exit codes: 0 done; 1 something failed; 2 wrong input; 70 a bug; 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from journeyman.cli.chat import chat
from journeyman.cli.console import (
    INTERRUPTED,
    OUTPUT_CLOSED,
    OutputClosedError,
    end,
    failures,
    output,
    prepare,
    show_bug,
    show_failure,
    show_traceback,
    silence,
)
from journeyman.cli.data import data
from journeyman.cli.doctor import doctor
from journeyman.cli.evaluate import evaluate
from journeyman.cli.export import export
from journeyman.cli.mcp import mcp
from journeyman.cli.models import models
from journeyman.cli.runs import runs
from journeyman.cli.serve import serve
from journeyman.cli.train import train
from journeyman.config import remember_environment
from journeyman.errors import InputError, JourneymanError
from journeyman.types.json_text import well_formed

_HELP = """Train a small open model to be good at one job: your agent's.

Start with [bold]journeyman mcp train --server "CMD"[/bold]; look first with [bold]journeyman mcp tools[/bold] and
[bold]journeyman mcp scenarios[/bold]. Check this machine with [bold]journeyman doctor[/bold]."""


def build() -> typer.Typer:
    """The program as a typer application."""
    app = typer.Typer(
        name="journeyman",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    app.add_typer(mcp, name="mcp")
    app.command("train")(train)
    app.command("eval")(evaluate)
    app.command("export")(export)
    app.command("serve")(serve)
    app.command("chat")(chat)
    app.add_typer(data, name="data")
    app.add_typer(runs, name="runs")
    app.add_typer(models, name="models")
    app.command("doctor")(doctor)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. `--debug` anywhere shows tracebacks instead of messages."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    prepare()
    remember_environment()
    code = _run(words, is_debug=is_debug)
    return end() or code


def _run(words: list[str], *, is_debug: bool) -> int:
    try:
        _refuse_other_bytes(words)
        build()(words, prog_name="journeyman")
    except OutputClosedError:
        silence()
        return OUTPUT_CLOSED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        failures().print("interrupted")
        return INTERRUPTED
    except JourneymanError as error:
        if is_debug:
            show_traceback(error)
            return error.exit_code
        return show_failure(error)
    except Exception as error:  # noqa: BLE001 - the top handler of the program
        if is_debug:
            show_traceback(error)
            return 70
        return show_bug(error)
    return 0


def _refuse_other_bytes(words: Sequence[str]) -> None:
    """What is typed is printed and kept: it must be text. Not shown, for it may be a key. Raises InputError."""
    for number, word in enumerate(words, start=1):
        if well_formed(word) != word:
            raise InputError(f"word {number} of the command is not UTF-8", hint="type it again", reason="not_utf8")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from journeyman import __version__

        output().print(f"journeyman {__version__}")
        raise typer.Exit


_VersionOption = Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)]
_DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks (may stand anywhere).")]


def _program(version: _VersionOption = False, debug: _DebugOption = False) -> None:
    """Both options have done their work when this is called: see `_show_version` and `run`."""
    del version, debug
