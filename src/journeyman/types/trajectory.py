"""Trajectories: the complete record of attempts, and groups of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from journeyman.redaction import redact
from journeyman.types.json_text import well_formed
from journeyman.types.messages import Message, Tool
from journeyman.types.record import Record
from journeyman.types.runs import Metrics
from journeyman.types.sampling import FinishReason, SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.secrets import Redacted

#: Characters of a failure's message: an exception may carry a whole reply.
MAX_MESSAGE: Final = 4_000


class Turn(Record):
    """One model call inside a rollout, stored before its reply left.

    `sampled_logprobs` are of the distribution that is trained (see `Sample.logprobs`); `adapter` is the version that produced the
    tokens (`model@step`, None for the base), `fingerprint` that of its weights: the same step, made again after a resume from an older
    checkpoint, has others. `call` names the call that was answered (a call for n replies has n turns, each of which
    counts against the rollout's `max_turns`); by it and `body_hash` a client's retry is recognised.
    """

    index: int
    adapter: str | None
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    reply: Message
    prompt_ids: tuple[int, ...]
    sampled_ids: tuple[int, ...]
    sampled_logprobs: tuple[float, ...]
    finish_reason: FinishReason
    parameters: SamplingParameters
    started_at: float
    seconds: float
    body_hash: str = ""
    call: str = ""
    fingerprint: str | None = None


class ToolEvent(Record):
    """What became of one tool call that the model asked for.

    Attributes:
        name: as the model wrote it.
        arguments: parsed arguments, None when the call's JSON did not parse.
        is_known: the tool exists.
        is_valid: the arguments satisfy the tool's schema.
        is_error: the tool (or the protocol) reported an error; also True when it was never executed.
        result: the text given back to the model, half characters replaced.
    """

    turn: int
    call_id: str
    name: str
    arguments: dict[str, Any] | None
    is_known: bool
    is_valid: bool
    is_error: bool
    result: Annotated[str, AfterValidator(well_formed)]
    seconds: float = Field(default=0.0, allow_inf_nan=False)


# Failures that are the model's own doing; any other (a server that died, a timeout, a bug in the agent) says nothing about it.
_MODEL_FAILURE_TYPES = frozenset({"ContextLengthError", "MaxTurnsError", "TooManyTurnsError", "LengthFinishReasonError"})
_QUOTES_OTHERS = frozenset({"McpError"})  # its message holds what a server logged
_MODEL_FAILURE_TEXT = re.compile(r"context_length_exceeded|maximum context|max_turns|too many turns", re.IGNORECASE)


class Failure(Record):
    """Why a rollout raised: the exception's class name and its message, without secrets and half characters, which cannot be kept."""

    type: Annotated[str, AfterValidator(well_formed)]
    message: Annotated[Redacted, AfterValidator(well_formed)]

    @property
    def is_of_model(self) -> bool:
        """Whether it is the model's own doing (it filled its context, it never stopped), to be scored and not excluded."""
        if self.type in _MODEL_FAILURE_TYPES or self.type in _QUOTES_OTHERS:
            return self.type in _MODEL_FAILURE_TYPES
        return _MODEL_FAILURE_TEXT.search(self.message) is not None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """An exception as data, of a group its first; also one that cannot tell what it is.

        Example:
            >>> Failure.of(ExceptionGroup("two", [KeyError("x"), ValueError("y")]))
            Failure(type='KeyError', message="'x'")
        """
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        try:
            message = str(error) or repr(error)
        except Exception:  # noqa: BLE001 - the exception is another's: its own text may fail as well
            message = "(its message cannot be read)"
        return cls(type=type(error).__name__, message=redact(message)[:MAX_MESSAGE])  # before it is cut: half a secret is not known


class JudgeCall(Record):
    """What one call of a judging model said of one attempt.

    Attributes:
        call: names the call; all attempts shown in it share the name, and its tokens and cost.
        place: where the attempt stood in it, from 0, of `num_shown`.
        score: None when the call brought no usable reply; `explanation` then says what was wrong.
        raw: the model's own words on this attempt (its part of the reply, as JSON text).
        seconds: how long the call took, waiting for a free place and retries included.
        prompt_tokens, completion_tokens, cost_usd: of the whole call, repairs included; 0 and None when it came from the cache.
        omitted: parameters of sampling that the model's server does not take, so that the call was made without them.
    """

    call: str
    model: str
    place: int
    num_shown: int
    score: float | None
    explanation: str = ""
    raw: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    is_cached: bool = False
    omitted: tuple[str, ...] = ()


class Verdict(Record):
    """What a judge said of one trajectory. `score` None = the judge abstained (never turned into 0). `calls`: every word of a judging
    model that led to it."""

    judge: str
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    explanation: str = ""
    checks: dict[str, float] = Field(default_factory=dict)
    is_success: bool | None = None
    calls: tuple[JudgeCall, ...] = ()


class Trajectory(Record):
    """The complete record of one attempt at a scenario.

    `run` is the run of the model that made it, None for the base and for models served elsewhere. `reward` None = not scored: it is
    excluded from training, counted and shown. A rollout that raised is a trajectory with `error`. `id` is empty where the server refused
    the rollout itself: it has no record there.
    """

    id: str
    scenario_id: str
    model: str
    run: str | None = None
    turns: tuple[Turn, ...] = ()
    tool_events: tuple[ToolEvent, ...] = ()
    reward: float | None = None
    metrics: Metrics = Field(default_factory=dict)
    error: Failure | None = None
    verdict: Verdict | None = None
    started_at: float = 0.0
    seconds: float = 0.0

    @property
    def answer(self) -> str | None:
        """The text of the last reply if it is a final answer: no tool calls asked for, not cut off."""
        if not self.turns:
            return None
        last = self.turns[-1]
        if last.reply.tool_calls or last.finish_reason != "stop":
            return None
        return last.reply.content or ""

    @property
    def is_truncated(self) -> bool:
        """Whether a reply was cut off at the token limit: it has no stop token, so imitating it would teach not to stop."""
        return any(turn.finish_reason == "length" for turn in self.turns)

    @property
    def num_sampled_tokens(self) -> int:
        return sum(len(turn.sampled_ids) for turn in self.turns)


class Group(Record):
    """The trajectories of one scenario: what a judge compares and what advantages are computed over."""

    scenario: Scenario
    trajectories: tuple[Trajectory, ...]

    def __iter__(self) -> Iterator[Trajectory]:  # type: ignore[override]
        return iter(self.trajectories)

    def __len__(self) -> int:
        return len(self.trajectories)

    @property
    def rewards(self) -> tuple[float | None, ...]:
        return tuple(trajectory.reward for trajectory in self.trajectories)
