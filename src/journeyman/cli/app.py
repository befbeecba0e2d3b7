"""Puts the commands together and is the one place where an error becomes a message and an exit code.

Exit codes: 0 done; 1 something failed; 2 wrong input; 70 a bug; 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from journeyman.cli.chat import chat
from journeyman.cli.console import (
    BUG,
    INTERRUPTED,
    OUTPUT_CLOSED,
    OutputClosedError,
    failures,
    flush,
    output,
    show_bug,
    show_failure,
    show_traceback,
    silence,
    standard_streams,
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
from journeyman.errors import InputError, JourneymanError, StoreError
from journeyman.types.json_text import well_formed
from journeyman.types.secrets import hide_in_command

_HELP = """Train a small open model to be good at one job: your agent's.

Start with [bold]journeyman mcp train --server "CMD"[/bold]; look first with [bold]journeyman mcp tools[/bold] and
[bold]journeyman mcp scenarios[/bold]. Check this machine with [bold]journeyman doctor[/bold]."""

#: typer has no public name for it: what is wrong with the words of a command.
_UsageError: Any = typer.BadParameter.__mro__[1]
_GIVES_NOTHING = re.compile("--[a-z-]+=")
_MAY_BE_EMPTY = ("--system", "--message", "-m")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


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
    with standard_streams():
        remember_environment()
        try:
            code = _run(words, is_debug=is_debug)
            flush()
        except (OutputClosedError, BrokenPipeError):
            silence()
            return OUTPUT_CLOSED
        except OSError as error:
            silence()
            with contextlib.suppress(OSError):
                show_failure(_no_room(error))
            return StoreError.exit_code
        return code


def _run(words: list[str], *, is_debug: bool) -> int:
    try:
        _check_words(words)
        # Not the application itself: it prints what is wrong with the words without our door, and takes any broken pipe for the output's.
        command = typer.main.get_command(build())
        with command.make_context("journeyman", list(words)) as context:
            command.invoke(context)
    except OutputClosedError:
        raise
    except BaseException as error:  # noqa: BLE001 - the top handler of the program
        return _code_of(error, words, is_debug=is_debug)
    return 0


def _code_of(error: BaseException, words: Sequence[str], *, is_debug: bool) -> int:
    """The exit code of what ended the command, once it is shown."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt)):
        failures().print("interrupted")
        return INTERRUPTED
    hide_in_command(words)  # what looks like a key among them is known from now on, and hidden
    if is_debug:
        show_traceback(error)
        return int(getattr(error, "exit_code", BUG))
    if isinstance(error, _UsageError):
        return _show_usage(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return show_failure(_no_room(error))
    return show_failure(error) if isinstance(error, JourneymanError) else show_bug(error)


def _show_usage(error: Any) -> int:
    """Print what typer says of the words of the command."""
    if message := error.format_message().strip():  # blank: the help was wanted, and is printed
        command = error.ctx.command_path if error.ctx is not None else "journeyman"
        show_failure(InputError(message, hint=f"{command} --help shows what can be given"))
    return int(error.exit_code)


def _no_room(error: OSError) -> StoreError:
    return StoreError(f"it cannot be written: {error.strerror}", hint="make room on the disk", reason="no_room")


def _check_words(words: Sequence[str]) -> None:
    """What is typed is printed and kept: it must be text. An empty word is a variable that is not set; as a path it would be this folder.

    Words are not shown, for they may be keys. Raises InputError.
    """
    for number, (before, word) in enumerate(pairwise(["", *words]), start=1):
        if well_formed(word) != word:
            raise InputError(f"word {number} of the command is not UTF-8", hint="type it again", reason="not_utf8")
        is_empty = word == "" or _GIVES_NOTHING.fullmatch(word) is not None
        if is_empty and before not in _MAY_BE_EMPTY and word.removesuffix("=") not in _MAY_BE_EMPTY:
            hint = "leave the option out, or set the variable that it takes"
            raise InputError(f"word {number} of the command is empty, or gives an option nothing", hint=hint, reason="empty_word")


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
