"""What an engine is asked for and what it answers: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from journeyman.types.record import Record

FinishReason = Literal["stop", "length", "cancelled"]


class SamplingParameters(Record):
    """How tokens are drawn. Training needs temperature 1, top_p 1 and top_k off, so that the policy is the distribution sampled.

    `stop` holds strings; the token that completes one is kept in `Sample.token_ids`, the string is cut from the text.
    `top_k` 0 means off. `seed` makes one request repeatable on the same engine, but for rounding: that depends on what runs beside it.
    """

    temperature: float = Field(default=1.0, ge=0.0, le=100.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=256, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class JsonSchemaGrammar:
    """Constrain the sample to JSON that satisfies `schema` (a JSON schema as JSON text)."""

    schema: str


@dataclass(frozen=True, slots=True)
class LarkGrammar:
    """Constrain the sample to a Lark grammar in llguidance's dialect (used for a required tool call)."""

    grammar: str


Grammar = JsonSchemaGrammar | LarkGrammar


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt to continue.

    Attributes:
        prompt_ids: token ids of the whole prompt; the engine finds what it already has in its KV cache by itself.
        parameters: how to draw.
        adapter: name of a loaded adapter (`model@step`), or None for the base model.
        stop_token_ids: a sampled one of these ends the sample and is its last token.
        grammar: constrain the tokens; log-probabilities stay those of the unconstrained distribution.
    """

    prompt_ids: tuple[int, ...]
    parameters: SamplingParameters
    adapter: str | None = None
    stop_token_ids: tuple[int, ...] = ()
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished continuation.

    Attributes:
        token_ids: sampled ids, the stop token included when `finish_reason` is "stop" because of one.
        logprobs: natural-log probabilities of those ids under the *unmodified* distribution (temperature 1, no top_p, no grammar):
            the policy that is trained. Same length as token_ids.
        finish_reason: "stop" (stop token or stop string), "length" (max_tokens or context), "cancelled".
        adapter: the adapter that produced every one of the tokens, None for the base.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    adapter: str | None


@dataclass(frozen=True, slots=True)
class SampleDelta:
    """New tokens of a running sample; `finish_reason` is set on the last one only."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is: shown by doctor, /healthz and in a run's header."""

    base: str
    device: str
    dtype: str
    context_length: int
    vocabulary_size: int
    num_workers: int
