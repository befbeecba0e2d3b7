"""The door to the terminal: what the program prints passes here, and nothing else writes to it.

Texts of others (models, MCP servers, data, file names) pass it too: secrets are hidden, and signs that would steer the terminal are written
out. A text is printed as it is, never as markup; what is to have a style is told so: `styled(("error:", "bold red"), " …")`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from journeyman.redaction import printable, redact

if TYPE_CHECKING:
    from journeyman.errors import JourneymanError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""

OUTPUT_CLOSED = 141
"""Exit code when whoever read the output went away, as in `| head` (128 + SIGPIPE)."""

BUG = 70
"""Exit code of what nobody foresaw (EX_SOFTWARE)."""


class OutputClosedError(SystemExit):
    """Nobody reads the output any more. It ends the program as an exit does, not as a failure of the work."""

    def __init__(self) -> None:
        super().__init__(OUTPUT_CLOSED)


class Terminal(Console):
    """rich's console, for texts that others wrote: no markup, no emoji names, no colours by content, no links, no control characters.

    Lines are never wrapped: what is printed can be searched, cut and copied.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, piece by piece. Only pieces marked as control, which rich itself makes, may move the cursor."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                style = segment.style.update_link(None) if segment.style is not None and segment.style.link else segment.style
                yield Segment(printable(redact(segment.text)), style)

    def render_str(self, text: str, **how: Any) -> Text:
        """A plain text, written out before it is laid out: what is measured is what will be seen."""
        return super().render_str(printable(redact(text)), **how)

    @property
    def file(self) -> IO[str]:
        """The stream behind the door, also where a live block stands before it."""
        file = super().file
        return getattr(file, "rich_proxied_file", file)

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise OutputClosedError


class _Door:
    """A standard stream for everybody else: warnings, logs and progress bars of libraries, tracebacks of threads, what a user's function
    prints. Consoles write past it, to `rich_proxied_file` (rich's name): what they write has passed `Terminal.render`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        lines = text.replace("\r\n", "\n").replace("\r", "\n")  # a bar that goes back to the start of its line gets lines of its own
        self.rich_proxied_file.write(printable(redact(lines)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Around the whole program: signs that an output cannot show are written out, a closed stream leads nowhere, and all writers pass the
    door."""
    before = sys.stdin, sys.stdout, sys.stderr
    os.environ.setdefault("TQDM_MININTERVAL", "5")  # seconds between two lines of a library's progress bar
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "r+", encoding="utf-8"))
        for stream, errors in zip(before, ("replace", "backslashreplace", "backslashreplace"), strict=True):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=errors)
        sys.stdin = before[0] or nowhere
        sys.stdout, sys.stderr = (cast("TextIO", _Door(stream or nowhere)) for stream in before[1:])
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


def flush() -> None:
    """Put out what is still held back, so that nothing is left that fails when Python ends. Raises OSError."""
    sys.stdout.flush()


def silence() -> None:
    """Nobody reads the output: what is still held back goes nowhere, instead of failing when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except io.UnsupportedOperation:
        return  # an output without a file, as in tests, cannot be closed by a reader


def output() -> Terminal:
    """Standard output. Tables are wide where there is no terminal."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=max(console.width, 160))


def failures() -> Terminal:
    """Standard error."""
    return Terminal(stderr=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Texts in a row, each with a style or without.

    Example:
        >>> styled(("error:", "bold red"), " [no markup]").plain
        'error: [no markup]'
    """
    return Text.assemble(*parts)


def write_json(value: object) -> None:
    """A value as JSON to standard output and nothing else; what cannot be shown is escaped as JSON does."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower()
    text = json.dumps(value, indent=2, ensure_ascii=not encoding.startswith("utf"))
    try:
        sys.stdout.write(printable(redact(text), escape=lambda sign: json.dumps(sign)[1:-1]) + "\n")
    except BrokenPipeError as error:
        raise OutputClosedError from error


def show_failure(error: JourneymanError) -> int:
    """Print an error that was raised on purpose, with what to do about it; returns the exit code."""
    console = failures()
    console.print(styled(("error:", "bold red"), f" {error.message}"))
    if error.hint:
        console.print(styled(("what to do:", "bold"), f" {error.hint}"))
    return error.exit_code


def show_bug(error: BaseException) -> int:
    """Print an error nobody foresaw in one line; the traceback goes to a file, for the report. Returns the exit code."""
    console = failures()
    console.print(styled(("unexpected", "bold red"), f" {''.join(traceback.format_exception_only(error)).strip()}"))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="journeyman-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(f"{_command_line()}\n{redact(_traceback(error))}")
    except OSError:
        show_traceback(error)
    else:
        console.print(f"This is a bug. The traceback is in {file.name}; --debug shows it here.")
    return BUG


def show_traceback(error: BaseException) -> None:
    """Print a traceback, for --debug."""
    failures().print(_traceback(error).rstrip())


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _command_line() -> str:
    """How the program was called, without secrets."""
    from journeyman.types.secrets import hide_in_command

    words = " ".join(str(word) for word in hide_in_command(sys.argv))
    return re.sub(r"(target\.(?:env|headers)\.[^=\s]*=).*", r"\1***", words)
