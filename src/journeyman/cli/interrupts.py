"""Running asynchronous work from a command so that Ctrl-C ends it cleanly and says how to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from journeyman.cli.console import INTERRUPTED, failures

_Result = TypeVar("_Result")


def run_interruptible(work: Coroutine[Any, Any, _Result], how_to_go_on: Callable[[], str]) -> _Result:
    """Run to the end and return the result; on Ctrl-C let the work clean up, print `how_to_go_on()`, exit with 130.

    The first Ctrl-C cancels the work, which then closes what it opened; a second one ends at once.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        console = failures()
        console.print("\ninterrupted; what was finished is kept", highlight=False)
        text = how_to_go_on()
        if text:
            console.print(text, highlight=False, markup=False)
        raise typer.Exit(INTERRUPTED) from None
