"""Running asynchronous work from a command so that Ctrl-C ends it cleanly and says how to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from journeyman.cli.console import INTERRUPTED, failures

if TYPE_CHECKING:
    from journeyman.cli.console import Terminal

_Result = TypeVar("_Result")


def run_interruptible(
    work: Coroutine[Any, Any, _Result], how_to_go_on: Callable[[], str], *, is_told_after_errors: bool = False
) -> _Result:
    """Run to the end and return the result; on Ctrl-C let the work clean up, print `how_to_go_on()`, exit with 130.

    The first Ctrl-C cancels the work, which then closes what it opened; a second one ends at once. An error passes; with
    `is_told_after_errors` how to go on is printed before it is.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        console = failures()
        console.print("\ninterrupted; what was finished is kept")
        _tell(console, how_to_go_on())
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        if is_told_after_errors and (text := how_to_go_on()):
            _tell(failures(), f"stopped by an error; what was finished is kept; when it is mended, {text}")
        raise


def _tell(console: Terminal, text: str) -> None:
    if text:
        console.print(text)
