"""A trajectory as one conversation, and conversations as text for a reader (a judge model, a report)."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.types.messages import Message
from journeyman.types.trajectory import Trajectory


def conversation(trajectory: Trajectory) -> list[Message]:
    """What the last turn saw, and its reply: the whole of it for an agent that only appends. Empty without turns.

    Turns whose history was rewritten meanwhile (an agent that compacts) are shown before it, each with what was new to it.
    """
    if not trajectory.turns:
        return []
    out: list[Message] = []
    for turn in trajectory.turns:
        history = [*turn.messages, turn.reply]
        shared = num_shared([out, history])
        out = history if shared == len(out) else [*out, *history[shared:]]
    return out


def num_shared(conversations: Sequence[Sequence[Message]]) -> int:
    """How many messages all conversations have in common at their beginning (call ids aside: they are minted per call)."""
    if not conversations:
        return 0
    plain = [_plain(one) for one in conversations]
    count = 0
    for row in zip(*plain, strict=False):
        if any(item != row[0] for item in row):
            break
        count += 1
    return count


def render_messages(messages: Sequence[Message], *, max_characters: int | None = None) -> str:
    """One block per message, `role: text`, calls as `name(arguments)`. Longer messages are cut in the middle, with a marker."""
    return "\n".join(_render(message, max_characters) for message in messages)


def cut_middle(text: str, max_characters: int) -> str:
    """Keep both ends of a long text; the marker says how much is missing."""
    if len(text) <= max_characters:
        return text
    keep = max(1, max_characters // 2)
    return f"{text[:keep]} […{len(text) - 2 * keep} characters left out…] {text[-keep:]}"


def _render(message: Message, max_characters: int | None) -> str:
    parts = [message.content] if message.content else []
    parts += [f"calls {call.function.name}({call.function.arguments})" for call in message.tool_calls]
    text = "\n".join(parts) or "(nothing)"
    role = "tool result" if message.role == "tool" else message.role
    return f"{role}: {text if max_characters is None else cut_middle(text, max_characters)}"


def _plain(messages: Sequence[Message]) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    return [
        (message.role, message.content or "", tuple((call.function.name, call.function.arguments) for call in message.tool_calls))
        for message in messages
    ]
