"""Recognise our own replies when an agent sends them back, however its framework re-serialised them.

Tool-call ids come back unchanged from every framework we know; arguments are re-dumped, text and thinking get lost. So the ids
are the key, and what was re-serialised is compared parsed. Not for rendering: `chat/renderer.py` splices in what is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from journeyman.chat.reply import parse_arguments, without_reasoning
from journeyman.types.messages import FunctionCall, Message
from journeyman.types.trajectory import Turn


def splices(messages: Sequence[Message], turns: Sequence[Turn]) -> Callable[[Message], tuple[int, ...] | None]:
    """A function that gives the sampled ids of the assistant messages among `messages` that are replies of `turns`.

    It knows messages by identity: call it with the very objects given here.
    """
    known: dict[int, tuple[int, ...]] = {}
    for position, message in enumerate(messages):
        if message.role == "assistant":
            turn = _find(message, position, turns)
            if turn is not None:
                known[id(message)] = turn.sampled_ids
    return lambda message: known.get(id(message))


def is_echo(message: Message, reply: Message) -> bool:
    """Whether `message` is `reply` come back. Edited arguments or text make it another message."""
    if {call.id for call in message.tool_calls} != {call.id for call in reply.tool_calls}:
        return False
    if len(message.tool_calls) != len(reply.tool_calls):
        return False
    if not reply.tool_calls:
        return _plain(message.content) == _plain(reply.content)
    echoed = {call.id: call.function for call in message.tool_calls}
    if not all(_is_same_call(echoed[call.id], call.function) for call in reply.tool_calls):
        return False
    # Some frameworks drop the text beside a call, or move thinking elsewhere.
    return not _plain(message.content) or _plain(message.content) == _plain(reply.content)


def _find(message: Message, position: int, turns: Sequence[Turn]) -> Turn | None:
    """The newest matching turn; one that answered exactly the messages before `position` is preferred.

    Without tool calls only such a one counts: short texts ("Done.") repeat in other branches.
    """
    matching = [turn for turn in reversed(turns) if is_echo(message, turn.reply)]
    in_place = [turn for turn in matching if len(turn.messages) == position]
    if in_place:
        return in_place[0]
    return matching[0] if matching and message.tool_calls else None


def _is_same_call(echoed: FunctionCall, original: FunctionCall) -> bool:
    if echoed.name != original.name:
        return False
    arguments = parse_arguments(original.arguments or "{}")
    # What never parsed comes back verbatim, as {} or wrapped in an error object: id and name suffice.
    return arguments is None or parse_arguments(echoed.arguments or "{}") == arguments


def _plain(text: str | None) -> str:
    return " ".join(without_reasoning(text or "").split())
