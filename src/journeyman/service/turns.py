"""The tokens of a rollout's turns: put back where an agent sends our own replies again, and joined to segments that are trained.

A segment is a run of token ids that grew only by exact extension. Pure. Not for rendering (`chat/renderer.py` splices in what is recognised
here), rewards or packing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from journeyman.chat.reply import parse_arguments, without_reasoning
from journeyman.trainer.base import TrainSample
from journeyman.types.messages import FunctionCall, Message
from journeyman.types.trajectory import Trajectory, Turn

SegmentReason = Literal["first", "resampled", "branched", "rewritten"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. `token_ids`, `is_sampled` and `logprobs` have the same length; logprobs are 0.0 where a token was given.

    Attributes:
        adapter: the version that sampled every sampled token, None for the base.
        turns: indexes of the turns in it, in order.
        reason: why it starts here: the `first` of the rollout; `resampled`, another reply to a prompt seen before; `branched`,
            it goes on from a turn that was already continued otherwise; `rewritten`, its prompt starts with no earlier turn's
            tokens.
        shared: how many leading tokens it has in common with an earlier segment. They count as given here, even those sampled
            there: each sampled token is trained once.
    """

    token_ids: tuple[int, ...]
    is_sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    adapter: str | None
    turns: tuple[int, ...]
    reason: SegmentReason
    shared: int

    @property
    def num_sampled(self) -> int:
        return sum(self.is_sampled)


def segments(trajectory: Trajectory) -> tuple[Segment, ...]:
    """The segments of a trajectory, in the order in which they began.

    A turn extends the longest segment whose tokens its prompt starts with; a new segment starts where there is none, or where the
    version changed.
    """
    growing: list[_Growing] = []
    for turn in trajectory.turns:
        parents = [segment for segment in growing if segment.adapter == turn.adapter and _starts_with(turn.prompt_ids, segment.ids)]
        if parents:
            max(parents, key=lambda segment: len(segment.ids)).extend(turn)
        else:
            growing.append(_begin(turn, growing))
    return tuple(segment.finished() for segment in growing)


def sampled_segments(trajectory: Trajectory, advantage: float = 1.0) -> list[TrainSample]:
    """The segments that have sampled tokens as train samples, which carry the trajectory's id: exactly what was drawn."""
    return [
        TrainSample(segment.token_ids, segment.is_sampled, segment.logprobs, advantage, trajectory.id)
        for segment in segments(trajectory)
        if segment.num_sampled
    ]


@dataclass(slots=True)
class _Growing:
    adapter: str | None
    reason: SegmentReason
    shared: int
    ids: list[int] = field(default_factory=list)
    is_sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # where each turn's reply ended

    def extend(self, turn: Turn) -> None:
        new_ids = turn.prompt_ids[len(self.ids) :]
        self.prompt_lengths.append(len(turn.prompt_ids))
        self.ids += [*new_ids, *turn.sampled_ids]
        self.is_sampled += [False] * len(new_ids) + [True] * len(turn.sampled_ids)
        self.logprobs += [0.0] * len(new_ids) + list(turn.sampled_logprobs)
        self.turns.append(turn.index)
        self.ends.append(len(self.ids))

    def finished(self) -> Segment:
        return Segment(
            tuple(self.ids),
            tuple(self.is_sampled),
            tuple(self.logprobs),
            self.adapter,
            tuple(self.turns),
            self.reason,
            self.shared,
        )


def _begin(turn: Turn, before: list[_Growing]) -> _Growing:
    shared = max((_common_length(turn.prompt_ids, earlier.ids) for earlier in before), default=0)
    new = _Growing(adapter=turn.adapter, reason=_reason(turn, before), shared=shared)
    new.extend(turn)
    return new


def _reason(turn: Turn, before: list[_Growing]) -> SegmentReason:
    if not before:
        return "first"
    prompt, length = list(turn.prompt_ids), len(turn.prompt_ids)
    if any(length in earlier.prompt_lengths and earlier.ids[:length] == prompt for earlier in before):
        return "resampled"
    if any(end <= length and earlier.ids[:end] == prompt[:end] for earlier in before for end in earlier.ends):
        return "branched"
    return "rewritten"


def _starts_with(prompt_ids: tuple[int, ...], ids: list[int]) -> bool:
    return len(prompt_ids) >= len(ids) and list(prompt_ids[: len(ids)]) == ids


def _common_length(left: tuple[int, ...], right: list[int]) -> int:
    length = 0
    for first, second in zip(left, right, strict=False):
        if first != second:
            break
        length += 1
    return length


# Echoes ---------------------------------------------------------------------------------------------------------------
#
# Tool-call ids come back unchanged from every framework we know; arguments are re-dumped, text and thinking get lost. So the ids are the
# key, and what was re-serialised is compared parsed.


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
