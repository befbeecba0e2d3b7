"""Conversations in the terminal: a line is read, a command is done or a message is sent, and what comes is drawn. Ctrl-C stops a reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from journeyman.agents.conversation import CallAsked, CallDone, Conversation, Event, OutOfTurns, ReplyDone, TextPiece
from journeyman.agents.tool_loop import cut
from journeyman.cli.console import Terminal, show_failure
from journeyman.config import path_of
from journeyman.errors import InputError, JourneymanError, StoreError
from journeyman.types.text_files import json_line, json_lines, open_to_append

_COMMANDS = {
    "/reset": "begin anew: the model forgets the conversation",
    "/system [TEXT]": "show the system message, or set it (`/system -`: none)",
    "/tools": "the tools that the model is offered",
    "/save FILE.jsonl": "add the conversation to FILE as a row of training data",
    "/help": "this list",
    "/exit": "end, as Ctrl-D does; Ctrl-C stops a reply",
}
_SHOWN_RESULT_CHARS = 400
_NAME, _THINKING, _CALL, _FAULT, _FAINT, _STOPPED = "bold magenta", "dim italic", "cyan", "red", "dim", "yellow"


class Talk:
    """Holds conversations side by side: one, or two that are compared.

    Args:
        runner: where they run.
        context_length: tokens that prompt and reply may have together, where it is known.
    """

    def __init__(
        self, conversations: Sequence[Conversation], context_length: int | None, runner: asyncio.Runner, console: Terminal
    ) -> None:
        self._conversations = conversations
        self._context_length = context_length
        self._runner = runner
        self._console = console

    def hold(self, read_line: Callable[[], str]) -> None:
        """Until /exit or the end of the input, of which `read_line` raises EOFError. Errors are shown and the talk goes on."""
        while True:
            try:
                line = read_line().strip()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print("\n/exit or Ctrl-D ends", style=_FAINT)
                continue
            if line in ("/exit", "/quit"):
                return
            try:
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self.send(line)
            except KeyboardInterrupt:
                self._console.print("stopped", style=_STOPPED)
            except JourneymanError as error:
                show_failure(error)

    def send(self, text: str) -> None:
        """One message and all that follows it. Raises as `Conversation.say`, and KeyboardInterrupt.

        Where one of several conversations fails, the others go on, and its column says why.
        """
        self._runner.run(self._one(text) if len(self._conversations) == 1 else self._several(text))

    def save(self, path: Path) -> None:
        """Add the first conversation to a JSON lines file. Raises InputError when nothing was said yet, StoreError."""
        if self._conversations[0].is_empty:
            raise InputError("nothing to save: nothing was said yet", reason="nothing_said")
        try:
            with open_to_append(path_of(path)) as file:
                file.write(json_line(self._conversations[0].row()))
            number = sum(1 for _ in json_lines(path_of(path)))
        except OSError as error:
            raise StoreError(
                f"the conversation cannot be saved to {path}: {error}", hint="give another file", reason="not_written"
            ) from error
        self._console.print(f"saved as row {number} of {path}", style=_FAINT)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/help":
            for command, meaning in _COMMANDS.items():
                self._console.print(f"{command:<18}{meaning}")
        elif name == "/reset":
            for conversation in self._conversations:
                conversation.reset()
            self._console.print("begun anew", style=_FAINT)
        elif name == "/system":
            for conversation in self._conversations if rest else ():
                conversation.system = "" if rest == "-" else rest
            self._console.print(self._conversations[0].system or "no system message", style=_FAINT)
        elif name == "/tools":
            self._show_tools()
        elif name == "/save" and rest:
            self.save(Path(rest))
        elif name == "/save":
            raise InputError("/save needs a file", hint="/save conversations.jsonl", reason="no_file")
        else:
            names = ", ".join(command.split()[0] for command in _COMMANDS)
            raise InputError(f"there is no command {name}", hint=f"there are {names}", reason="unknown_command")

    def _show_tools(self) -> None:
        tools = [tool.function for tool in self._conversations[0].tools]
        if not tools:
            self._console.print("no tools in this conversation; --server or --url offers some", style=_FAINT)
        for tool in tools:
            self._console.print(Text(f"{tool.name}({', '.join(tool.parameters.get('properties', {}))})", "bold"))
            if description := (tool.description or "").strip():
                self._console.print(Text(f"  {description.splitlines()[0]}", _FAINT))

    async def _one(self, text: str) -> None:
        conversation, writer = self._conversations[0], _Writer(self._context_length)
        self._console.print(Text(conversation.label, _NAME))
        try:
            async with contextlib.aclosing(conversation.say(text)) as events:
                async for event in events:
                    self._console.print(writer.take(event), end="")
        finally:
            # Also when it was stopped in the middle of a line.
            self._console.print(writer.end_of_line(), end="")

    async def _several(self, text: str) -> None:
        columns = [Text() for _ in self._conversations]

        def grid() -> Table:
            table = Table.grid(padding=(0, 2), expand=True)
            for _ in columns:
                table.add_column(ratio=1, overflow="fold")
            table.add_row(*[Text(conversation.label, _NAME) for conversation in self._conversations])
            table.add_row(*columns)
            return table

        async def fill(conversation: Conversation, column: Text) -> None:
            writer = _Writer(self._context_length)
            try:
                async with contextlib.aclosing(conversation.say(text)) as events:
                    async for event in events:
                        column.append_text(writer.take(event))
            except JourneymanError as error:
                column.append(f"{writer.end_of_line()}{error.message}\n", _FAULT)

        with Live(console=self._console, get_renderable=grid, refresh_per_second=12):
            await asyncio.gather(*map(fill, self._conversations, columns))


class _Writer:
    """Events as text; knows whether a line has begun, and what the message has cost so far."""

    def __init__(self, context_length: int | None) -> None:
        self._context_length = context_length
        self._num_tokens = 0
        self._seconds = 0.0
        self._is_in_line = False
        self._is_thinking = False

    def take(self, event: Event) -> Text:
        """What to add to the screen."""
        if isinstance(event, TextPiece):
            return self._piece(event)
        out = Text(self.end_of_line())
        if isinstance(event, CallAsked):
            return out.append(f"  → {event.call.function.name} {event.call.function.arguments}\n", _CALL)
        if isinstance(event, CallDone):
            mark, style = ("✗", _FAULT) if event.event.is_error else ("←", _FAINT)
            return out.append(f"  {mark} {cut(event.event.result, _SHOWN_RESULT_CHARS)}\n", style)
        if isinstance(event, OutOfTurns):
            return out.append(f"  stopped: the model still calls tools after {event.num_turns} replies\n", _STOPPED)
        return out.append(self._figures(event))

    def end_of_line(self) -> str:
        """What ends the line that has begun; nothing otherwise."""
        was_in_line, self._is_in_line = self._is_in_line, False
        return "\n" if was_in_line else ""

    def _piece(self, piece: TextPiece) -> Text:
        out = Text(self.end_of_line() if piece.is_thinking != self._is_thinking else "")
        self._is_thinking = piece.is_thinking
        self._is_in_line = not piece.text.endswith("\n") if piece.text else self._is_in_line
        return out.append(piece.text, _THINKING if piece.is_thinking else "")

    def _figures(self, reply: ReplyDone) -> Text:
        """What the message has cost, once it is answered."""
        text = Text()
        if reply.is_cut:
            text.append("  cut off: at --max-tokens, or because the context is full (/reset begins anew)\n", _STOPPED)
        self._num_tokens += reply.num_tokens or 0
        self._seconds += reply.seconds
        if reply.num_calls or reply.num_tokens is None or reply.num_prompt_tokens is None:
            return text
        context = f" · context {reply.num_prompt_tokens + reply.num_tokens:,} of {self._context_length:,}" if self._context_length else ""
        return text.append(f"  {self._num_tokens} tokens in {self._seconds:.1f} s{context}\n", _FAINT)
