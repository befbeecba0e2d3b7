"""The loop of `journeyman chat`: a line is read, a command is done or a message is sent. Ctrl-C stops a reply, Ctrl-D ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.cli.chat_view import ChatView, show_tools
from journeyman.cli.console import failures, show_failure
from journeyman.config import path_of
from journeyman.errors import InputError, JourneymanError, StoreError
from journeyman.types.text_files import json_line, json_lines, open_to_append

if TYPE_CHECKING:
    from rich.console import Console

    from journeyman.agents.conversation import Conversation
    from journeyman.cli.chat_open import OpenChat
    from journeyman.cli.loop_thread import LoopThread

COMMANDS = {
    "/reset": "begin anew: the model forgets the conversation",
    "/system [TEXT]": "show the system message, or set it (`/system -`: none)",
    "/tools": "the tools that the model is offered",
    "/save FILE.jsonl": "add the conversation to FILE as a row of training data",
    "/help": "this list",
    "/exit": "end, as Ctrl-D does; Ctrl-C stops a reply",
}


class ChatLoop:
    """Holds an open chat's conversations from the main thread.

    Args:
        loop: where they run.
        read_line: asks for a line; raises EOFError at the end.
    """

    def __init__(self, chat: OpenChat, loop: LoopThread, console: Console, read_line: Callable[[], str]) -> None:
        self._conversations = chat.conversations
        self._loop = loop
        self._console = console
        self._read_line = read_line
        self._view = ChatView(console, chat.context_length)

    def send(self, text: str) -> None:
        """One message and all that follows it. Raises as `Conversation.say`, and KeyboardInterrupt."""
        self._loop.run(self._view.exchange(self._conversations, text))

    def talk(self) -> None:
        """Until /exit or the end of the input. Errors are shown and the talk goes on."""
        while True:
            try:
                line = self._read_line().strip()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print("\n/exit or Ctrl-D ends", style="dim")
                continue
            if line in ("/exit", "/quit"):
                return
            try:
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self.send(line)
            except KeyboardInterrupt:
                self._console.print("stopped", style="yellow")
            except JourneymanError as error:
                show_failure(error)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/help":
            for command, meaning in COMMANDS.items():
                self._console.print(f"{command:<18}{meaning}", markup=False, highlight=False)
        elif name == "/reset":
            for conversation in self._conversations:
                conversation.reset()
            self._console.print("begun anew", style="dim")
        elif name == "/system":
            self._system(rest)
        elif name == "/tools":
            show_tools(self._console, self._conversations[0])
        elif name == "/save":
            self.save(Path(rest) if rest else None)
        else:
            raise InputError(f"there is no command {name}", hint=f"there are {', '.join(one.split()[0] for one in COMMANDS)}")

    def _system(self, text: str) -> None:
        if text:
            for conversation in self._conversations:
                conversation.system = "" if text == "-" else text
        self._console.print(self._conversations[0].system or "no system message", markup=False, highlight=False, style="dim")

    def save(self, path: Path | None) -> None:
        """Add the first conversation to a file. Raises InputError, StoreError."""
        if path is None:
            raise InputError("/save needs a file", hint="/save conversations.jsonl")
        number = save_row(path, self._conversations)
        self._console.print(f"saved as row {number} of {path}", markup=False, highlight=False, style="dim")


def save_row(path: Path, conversations: Sequence[Conversation]) -> int:
    """Add the first of the conversations to a JSON lines file; returns the number of its row, from 1.

    Raises InputError when nothing was said yet, StoreError when the file cannot be written.
    """
    conversation = conversations[0]
    if conversation.is_empty:
        raise InputError("nothing to save: nothing was said yet")
    try:
        with open_to_append(path_of(path)) as file:
            file.write(json_line(conversation.row()))
        return sum(1 for _ in json_lines(path_of(path)))
    except OSError as error:
        raise StoreError(f"the conversation cannot be saved to {path}: {error}", hint="give another file") from error


def line_reader(console: Console) -> Callable[[], str]:
    """Asks for a line, with editing and history where this Python has them."""
    prompt = "you> "
    with contextlib.suppress(ImportError):
        import readline

        readline.set_history_length(1000)
        if console.color_system is not None:
            # The markers tell readline which signs take no room on the line.
            prompt = "\001\033[1;32m\002you>\001\033[0m\002 "
    return lambda: input(prompt)


def note(text: str) -> None:
    """A line about what is being opened. Standard error, so that the replies of `--message` can be piped."""
    failures().print(text, style="dim", markup=False, highlight=False)
