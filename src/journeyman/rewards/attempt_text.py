"""Attempts as text for a judging model, within a budget of tokens: the middle of tool outputs goes first, the final answer never.

Tokens are estimated (a quarter per ASCII sign, one and a half per other sign): judges have many tokenizers and we have none of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from journeyman.rewards.conversation import conversation, cut_middle, num_shared
from journeyman.rewards.quoting import head, quoted
from journeyman.types.messages import Message, Tool
from journeyman.types.trajectory import Trajectory

_MIN_TOOL_TOKENS = 40
_MIN_OTHER_TOKENS = 24
_MAX_TOOL_DESCRIPTION = 160


@dataclass(frozen=True, slots=True)
class Part:
    """One message of an attempt. `kind` says how willingly it is cut: tool first, then other, final never."""

    kind: str
    head: str
    text: str

    @property
    def num_tokens(self) -> int:
        return estimate_tokens(self.head) + estimate_tokens(self.text) + 1

    def cut(self, num_tokens: int) -> Part:
        """At most about `num_tokens` of text, both ends kept."""
        size = estimate_tokens(self.text)
        if size <= num_tokens:
            return self
        return replace(self, text=cut_middle(self.text, max(1, int(len(self.text) * num_tokens / size))))

    def show(self) -> str:
        return f"{self.head} {self.text}"


@dataclass(frozen=True, slots=True)
class AttemptText:
    """What a judge is shown of one attempt after the beginning that all share. `key` is a hash of all of it, uncut."""

    id: str
    parts: tuple[Part, ...]
    key: str

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.parts)

    @property
    def min_tokens(self) -> int:
        """The size below which no cutting brings it: the final answer whole, something of everything else."""
        return sum(part.num_tokens if part.kind == "final" else min(part.num_tokens, _least(part)) for part in self.parts)

    def fit(self, budget: int) -> str:
        """The text within `budget` tokens, as far as `min_tokens` allows."""
        parts = list(self.parts)
        for kind in ("tool", "other"):
            parts = _shrink(parts, kind, budget)
        return "\n".join(part.show() for part in parts) or "(nothing)"


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is.

    Example:
        >>> estimate_tokens("four"), estimate_tokens("")
        (1, 0)
    """
    others = 0 if text.isascii() else sum(not sign.isascii() for sign in text)
    return math.ceil((len(text) - others) / 4 + 1.5 * others)


def shared_text(attempts: Sequence[Trajectory]) -> tuple[str, int]:
    """The beginning that all attempts share, tools first, as text; and how many messages it is."""
    conversations = [conversation(attempt) for attempt in attempts]
    count = num_shared(conversations)
    tools = next((turn.tools for attempt in attempts for turn in attempt.turns if turn.tools), ())
    lines = [_tool_line(tool) for tool in tools]
    lines += [part.show() for part in _parts(conversations[0][:count])] if count else []
    return "\n".join(lines), count


def attempt_text(attempt: Trajectory, num_shared_messages: int) -> AttemptText:
    """One attempt after its shared beginning, with what the messages do not show: a cut-off reply, a failure."""
    parts = _parts(conversation(attempt)[num_shared_messages:])
    if attempt.answer is not None and parts and parts[-1].kind == "other":
        parts[-1] = replace(parts[-1], kind="final", head=head("final answer"))
    if attempt.turns and attempt.turns[-1].finish_reason == "length":
        parts.append(Part("note", head("note"), "the last reply was cut off at the token limit"))
    if attempt.error is not None:
        parts.append(Part("note", head("note"), f"the attempt ended with {quoted(attempt.error.type)}"))
    whole = json.dumps([(part.head, part.text) for part in parts])
    return AttemptText(attempt.id, tuple(parts), hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:24])


def _parts(messages: Sequence[Message]) -> list[Part]:
    out = []
    for message in messages:
        texts = [quoted(message.content)] if message.content else []
        texts += [f"calls {quoted(call.function.name)}({quoted(call.function.arguments)})" for call in message.tool_calls]
        is_tool = message.role == "tool"
        role = "tool result" if is_tool else quoted(message.role)[:20]
        out.append(Part("tool" if is_tool else "other", head(role), "\n".join(texts) or "(nothing)"))
    return out


def _tool_line(tool: Tool) -> str:
    parameters = tool.function.parameters.get("properties")
    names = ", ".join(str(name) for name in parameters) if isinstance(parameters, dict) else ""
    return quoted(f"{head('tool')} {tool.function.name}({names}): {cut_middle(tool.function.description, _MAX_TOOL_DESCRIPTION)}")[2:]


def _least(part: Part) -> int:
    return (_MIN_TOOL_TOKENS if part.kind == "tool" else _MIN_OTHER_TOKENS) + 16


def _shrink(parts: list[Part], kind: str, budget: int) -> list[Part]:
    """Cut the parts of a kind to one common size, the largest that fits; short ones stay whole."""
    if sum(part.num_tokens for part in parts) <= budget:
        return parts
    low = _MIN_TOOL_TOKENS if kind == "tool" else _MIN_OTHER_TOKENS
    high = max((part.num_tokens for part in parts), default=low)
    best = low
    while low <= high:
        middle = (low + high) // 2
        if sum(part.num_tokens for part in _cut(parts, kind, middle)) <= budget:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return _cut(parts, kind, best)


def _cut(parts: Sequence[Part], kind: str, num_tokens: int) -> list[Part]:
    return [part.cut(num_tokens) if part.kind == kind else part for part in parts]
