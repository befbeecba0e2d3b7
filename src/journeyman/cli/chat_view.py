"""How a conversation looks in the terminal: replies as they come, calls and their results, two conversations side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from journeyman.agents.conversation import CallAsked, CallDone, Conversation, Event, OutOfTurns, ReplyDone, TextPiece
from journeyman.agents.tool_runner import cut
from journeyman.errors import JourneymanError

if TYPE_CHECKING:
    from journeyman.cli.console import Terminal

_SHOWN_RESULT_CHARS = 400
_THINKING, _CALL, _RESULT, _FAULT, _FACTS = "dim italic", "cyan", "dim", "red", "dim"


class ChatView:
    """Draws what conversations say.

    Args:
        console: where to.
        context_length: tokens that prompt and reply may have together, where it is known.
    """

    def __init__(self, console: Terminal, context_length: int | None = None) -> None:
        self._console = console
        self._context_length = context_length

    async def exchange(self, conversations: Sequence[Conversation], text: str) -> None:
        """Send `text` to each conversation and show what comes, side by side when there are several. Raises as `Conversation.say`.

        Where one of several fails, the others go on, and its column says why.
        """
        if len(conversations) == 1:
            await self._one(conversations[0], text)
        else:
            await self._several(conversations, text)

    async def _one(self, conversation: Conversation, text: str) -> None:
        self._console.print(Text(conversation.label, "bold magenta"))
        writer = _Writer(self._context_length)
        try:
            async with contextlib.aclosing(conversation.say(text)) as events:
                async for event in events:
                    self._console.print(writer.take(event), end="")
        finally:
            # Also when it was stopped in the middle of a line.
            self._console.print(writer.end_of_line(), end="")

    async def _several(self, conversations: Sequence[Conversation], text: str) -> None:
        columns = [Text() for _ in conversations]

        def grid() -> Table:
            table = Table.grid(padding=(0, 2), expand=True)
            for _ in columns:
                table.add_column(ratio=1, overflow="fold")
            table.add_row(*[Text(conversation.label, "bold magenta") for conversation in conversations])
            table.add_row(*columns)
            return table

        with Live(console=self._console, get_renderable=grid, refresh_per_second=12):
            await asyncio.gather(
                *(self._fill(conversation, text, column) for conversation, column in zip(conversations, columns, strict=True))
            )

    async def _fill(self, conversation: Conversation, text: str, column: Text) -> None:
        writer = _Writer(self._context_length)
        try:
            async with contextlib.aclosing(conversation.say(text)) as events:
                async for event in events:
                    column.append_text(writer.take(event))
        except JourneymanError as error:
            column.append(f"{writer.end_of_line()}{error.message}\n", _FAULT)


class _Writer:
    """Events as text; remembers whether a line has begun, and what the message has cost so far."""

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
            function = event.call.function
            return out.append(f"  → {function.name} {function.arguments}\n", _CALL)
        if isinstance(event, CallDone):
            mark, style = ("✗", _FAULT) if event.event.is_error else ("←", _RESULT)
            return out.append(f"  {mark} {cut(event.event.result, _SHOWN_RESULT_CHARS)}\n", style)
        if isinstance(event, OutOfTurns):
            return out.append(f"  stopped: the model still calls tools after {event.num_turns} replies\n", "yellow")
        return out.append(self._facts(event))

    def end_of_line(self) -> str:
        """What ends the line that has begun; nothing otherwise."""
        was_in_line, self._is_in_line = self._is_in_line, False
        return "\n" if was_in_line else ""

    def _piece(self, piece: TextPiece) -> Text:
        out = Text(self.end_of_line() if piece.is_thinking != self._is_thinking else "")
        self._is_thinking = piece.is_thinking
        text = piece.text
        self._is_in_line = not text.endswith("\n") if text else self._is_in_line
        return out.append(text, _THINKING if piece.is_thinking else "")

    def _facts(self, reply: ReplyDone) -> Text:
        """What the message has cost, once it is answered."""
        text = Text()
        if reply.is_cut:
            text.append("  cut off: at --max-tokens, or because the context is full (/reset begins anew)\n", "yellow")
        self._num_tokens += reply.num_tokens or 0
        self._seconds += reply.seconds
        if reply.num_calls or reply.num_tokens is None or reply.num_prompt_tokens is None:
            return text
        context = f" · context {reply.num_prompt_tokens + reply.num_tokens:,} of {self._context_length:,}" if self._context_length else ""
        return text.append(f"  {self._num_tokens} tokens in {self._seconds:.1f} s{context}\n", _FACTS)


def show_tools(console: Terminal, conversation: Conversation) -> None:
    """The tools that are offered, one a line, with their parameters."""
    if not conversation.tools:
        console.print("no tools in this conversation; --server or --url offers some", style="dim")
    for tool in conversation.tools:
        function = tool.function
        names = ", ".join(function.parameters.get("properties", {}))
        console.print(Text(f"{function.name}({names})", "bold"))
        if description := (function.description or "").strip():
            console.print(Text(f"  {description.splitlines()[0]}", "dim"))
