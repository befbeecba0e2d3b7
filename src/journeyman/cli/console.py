"""Where the program prints, and how it says that something failed."""

from __future__ import annotations

import sys
import tempfile
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from journeyman.errors import JourneymanError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""


def output() -> Console:
    """Standard output. Long lines are not wrapped where there is no terminal, so that they can be searched and cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 160))


def failures() -> Console:
    """Standard error."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def show_failure(error: JourneymanError) -> int:
    """Print an error that was raised on purpose, with what to do about it; returns the exit code."""
    from rich.markup import escape

    console = failures()
    console.print(f"[bold red]error:[/] {escape(error.message)}", highlight=False)
    if error.hint:
        console.print(f"[bold]what to do:[/] {escape(error.hint)}", highlight=False)
    return error.exit_code


def show_bug(error: Exception) -> int:
    """Print an error nobody foresaw in one line; the traceback goes to a file, for the report. Returns the exit code."""
    from rich.markup import escape

    console = failures()
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="journeyman-", suffix=".txt", delete=False) as file:
        file.write(f"{' '.join(sys.argv)}\n{text}")
    console.print(f"[bold red]unexpected {type(error).__name__}:[/] {escape(str(error))}", highlight=False)
    console.print(f"This is a bug. The traceback is in {file.name}; --debug shows it here.", highlight=False)
    return 70
