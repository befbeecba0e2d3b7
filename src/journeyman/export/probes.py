"""What an export is checked with: prompts, and the greedy tokens that the served version answers with.

The reference is the served version in float32: the base model plus the adapter, as the engine merges them. Greedy tokens are compared
along the reference's own path: at each of its tokens the exported model must prefer the same one. That is the case at every token if and
only if both write the same text by themselves. Not for prompts of a user: see `evaluation/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from journeyman.errors import SettingError
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall, ToolFunction

if TYPE_CHECKING:  # a child process that only compares starts without the libraries behind these
    from journeyman.chat.renderer import Renderer
    from journeyman.store.store import Store

NUM_TOKENS = 16
TIE_LOGITS = 1e-3  # float32 kernels differ by less; a difference in a choice closer than this is rounding
_NUM_OF_RUN = 3

_TOOL = Tool(
    function=ToolFunction(
        name="get_weather",
        description="The weather of a city.",
        parameters={"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
    )
)
_CALL = ToolCall(id="call_1", function=FunctionCall(name="get_weather", arguments=json.dumps({"city": "Lima", "days": 2})))
_QUESTION = Message(role="user", content="What is the weather in Lima? It is 12:30, and I pay 45 euros.")

#: Conversations that use each part of a template: system, several turns, tools, calls and their results.
CONVERSATIONS: tuple[tuple[tuple[Message, ...], tuple[Tool, ...]], ...] = (
    ((Message(role="user", content="What can you do?"),), ()),
    ((Message(role="system", content="Answer in one word."), Message(role="user", content="Which planet is the largest?")), ()),
    (
        (
            Message(role="user", content="Count: 1, 2, 3"),
            Message(role="assistant", content="4, 5, 6"),
            Message(role="user", content="Go on, up to 1000."),
        ),
        (),
    ),
    ((_QUESTION,), (_TOOL,)),
    (
        (
            _QUESTION,
            Message(role="assistant", content="", tool_calls=(_CALL,)),
            Message(role="tool", content='{"sky": "clear", "high": 24}', tool_call_id="call_1"),
        ),
        (_TOOL,),
    ),
)


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and what the reference answers. `gaps`: by how many logits each token was ahead of the next best."""

    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the exported model first prefers another token than the reference."""

    probe: int
    position: int
    expected: int
    found: int
    gap: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of the reference's greedy tokens the exported model chooses too. `num_ties` are differences within rounding."""

    num_probes: int
    num_tokens: int
    num_equal: int
    num_ties: int = 0
    first: Difference | None = None

    @property
    def share(self) -> float:
        return self.num_equal / self.num_tokens if self.num_tokens else 1.0

    @property
    def is_identical(self) -> bool:
        """Equal, but where rounding decided."""
        return self.num_equal + self.num_ties == self.num_tokens

    def text(self) -> str:
        out = f"{self.num_equal} of {self.num_tokens} greedy tokens equal on {self.num_probes} probe prompts ({self.share:.1%})"
        if self.num_ties:
            out += f", {self.num_ties} within rounding"
        if self.first is None:
            return out
        where = f"probe {self.first.probe + 1}, token {self.first.position + 1}: {self.first.found} instead of {self.first.expected}"
        return f"{out}; first difference: {where}, which was ahead by {self.first.gap:.4f} logits"

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def conversations(renderer: Renderer) -> list[tuple[tuple[Message, ...], tuple[Tool, ...], tuple[int, ...]]]:
    """`CONVERSATIONS` with their prompt ids; those that this model's template refuses (no tools, no system message) are left out."""
    out = []
    for messages, tools in CONVERSATIONS:
        try:
            out.append((messages, tools, renderer.render(messages, tools)))
        except SettingError:
            continue
    return out


def probe_prompts(renderer: Renderer, store: Store, run: str) -> tuple[tuple[int, ...], ...]:
    """The prompts of `conversations`, and the first prompts of a few scenarios that the run attempted last."""
    prompts = [ids for _messages, _tools, ids in conversations(renderer)]
    seen: set[str] = set()
    for row in reversed(store.rollouts.list_of_run(run)):
        if len(seen) == _NUM_OF_RUN:
            break
        turns = () if row.scenario_id in seen else store.rollouts.turns(row.id)
        if turns:
            seen.add(row.scenario_id)
            prompts.append(turns[0].prompt_ids)
    room = renderer.context_length - NUM_TOKENS
    return tuple(prompt for prompt in prompts if len(prompt) <= room)


def compare(probes: Sequence[Probe], choices: Sequence[Sequence[int]]) -> Agreement:
    """What was preferred at each token of each probe, against the reference."""
    num_tokens = num_equal = num_ties = 0
    first = None
    for number, (probe, choice) in enumerate(zip(probes, choices, strict=True)):
        for position, (expected, found) in enumerate(zip(probe.reply_ids, choice, strict=True)):
            num_tokens += 1
            num_equal += found == expected
            if found == expected:
                continue
            is_tie = probe.gaps[position] < TIE_LOGITS
            num_ties += is_tie
            if first is None and not is_tie:
                first = Difference(number, position, expected, found, probe.gaps[position])
    return Agreement(len(probes), num_tokens, num_equal, num_ties, first)


def plain_message(message: Message) -> dict[str, Any]:
    """OpenAI's JSON, with the arguments of calls parsed, as servers hand it to a template."""
    out = message.wire()
    for call in out.get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return out
