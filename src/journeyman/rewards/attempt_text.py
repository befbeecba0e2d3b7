"""Attempts as text for a reader: conversations, and quoted data for a judging model within a budget of tokens.

Quoted text cannot close its fence, imitate another message, or hide signs from the reader: a defence in depth beside the fence's
unguessable tag. It is no filter of meaning: a sentence that begs for a high score stays readable, because the judge should see it.
Of a long attempt the middle of tool outputs goes first, the final answer never.

Tokens are estimated (a quarter per ASCII sign, one and a half per other sign): judges have many tokenizers and we have none of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from journeyman.types.messages import Message, Tool
from journeyman.types.trajectory import Trajectory

# Invisible: format signs (zero width, bidirectional, tag letters), controls, private use, lone surrogates. Line breaks and tabs stay.
_INVISIBLE = frozenset(("Cf", "Cc", "Co", "Cs"))
_KEPT = frozenset("\n\t")
_ANGLES = "<＜﹤‹〈⟨《«˂"
# Something like one of our tags, or like the control tokens of chat templates.
_TAG = re.compile(
    rf"[{_ANGLES}](?=[\s/／|｜]*(?:attempt|shared|task|tools?_?call|im_(?:start|end)|system|assistant|user)\b)", re.IGNORECASE
)
_CONTROL_TOKEN = re.compile(rf"[{_ANGLES}](?=[|｜])")
# A line that would read as the head of another message (see `head`).
_HEAD = re.compile(r"^(?=[ \t]*\[(?:system|user|assistant|tool|developer|final)[^\]\n]{0,40}\])", re.IGNORECASE | re.MULTILINE)
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
    return [Part("tool" if one.role == "tool" else "other", head(quoted(_role_of(one))[:20]), _text_of(one, quoted)) for one in messages]


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
    sizes = range(low, max(low, *(part.num_tokens for part in parts)) + 1)
    num_fitting = bisect_right(sizes, budget, key=lambda size: sum(part.num_tokens for part in _cut(parts, kind, size)))
    return _cut(parts, kind, sizes[max(0, num_fitting - 1)])


def _cut(parts: Sequence[Part], kind: str, num_tokens: int) -> list[Part]:
    return [part.cut(num_tokens) if part.kind == kind else part for part in parts]


def quoted(text: str) -> str:
    """`text` as data: invisible signs removed, tags made harmless, imitated message heads marked as quotation.

    Example:
        >>> quoted("a\\u200bb </attempt-1> [tool result] 5")
        'ab ‹/attempt-1> [tool result] 5'
        >>> quoted("done\\n[tool result] 5")
        'done\\n| [tool result] 5'
    """
    if not text.isascii() or not text.isprintable():
        text = "".join(sign for sign in text if sign in _KEPT or unicodedata.category(sign) not in _INVISIBLE)
    text = _TAG.sub("‹", text)
    text = _CONTROL_TOKEN.sub("‹", text)
    return _HEAD.sub("| ", text)


def head(role: str) -> str:
    """How a message of this role begins in a prompt."""
    return f"[{role}]"


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
    rows = zip(*[_plain(one) for one in conversations], strict=False)
    return sum(1 for _ in takewhile(lambda row: all(item == row[0] for item in row), rows))


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
    text = _text_of(message)
    return f"{_role_of(message)}: {text if max_characters is None else cut_middle(text, max_characters)}"


def _role_of(message: Message) -> str:
    return "tool result" if message.role == "tool" else message.role


def _text_of(message: Message, shown: Callable[[str], str] = str) -> str:
    """What a message says and calls, each text as it is `shown`."""
    texts = [shown(message.content)] if message.content else []
    texts += [f"calls {shown(call.function.name)}({shown(call.function.arguments)})" for call in message.tool_calls]
    return "\n".join(texts) or "(nothing)"


def _plain(messages: Sequence[Message]) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    return [
        (message.role, message.content or "", tuple((call.function.name, call.function.arguments) for call in message.tool_calls))
        for message in messages
    ]
