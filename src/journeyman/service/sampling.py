"""Serving model calls: a request becomes a prompt, the engine continues it, the reply is taken apart and, in a rollout, recorded.

The path of a call: route -> here -> renderer -> engine -> recorder. Not for HTTP: statuses and wire shapes are the server's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from journeyman.chat.renderer import Renderer, Stored
from journeyman.chat.reply import RawFormat, ReplyFormat, cut_at_stop
from journeyman.engine.base import Engine
from journeyman.errors import ContextLengthError, NotFoundError, SettingError
from journeyman.service.capture import Recorder
from journeyman.service.requests import ChatRequest, CompletionRequest, grammar_of
from journeyman.service.sessions import Session
from journeyman.service.streaming import ReplyDelta, live_reply, merged, reply_message, whole_replies
from journeyman.store.models import AdapterRow
from journeyman.types.messages import Tool
from journeyman.types.names import BASE
from journeyman.types.sampling import Grammar, Sample, SampleDelta, SampleRequest, SamplingParameters
from journeyman.types.trajectory import Turn

_Result = TypeVar("_Result")

_LONG_PROMPT_CHARACTERS = 8000
_NUM_SEEDS = 2**64


class Versions(Protocol):
    """Which version a model name means, None for the base; it stays loaded while the block runs. `journeyman.service.weights.Weights`
    is one."""

    def using(self, model: str) -> AbstractAsyncContextManager[AdapterRow | None]: ...


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where a call came from. `body_hash` identifies its body; `retry_count` is the client's count, None if it does not count; `key` its
    idempotency key, if it has one."""

    session: Session | None = None
    body_hash: str = ""
    retry_count: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A complete answer: one turn for each of the n replies asked for, stored already when the call was in a rollout."""

    model: str
    turns: tuple[Turn, ...]

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.turns[0].prompt_ids)

    @property
    def num_sampled_tokens(self) -> int:
        return sum(len(turn.sampled_ids) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation of a raw text; `text` is cut at a stop string."""

    text: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class CompletionReply:
    """`prompt_ids` and one completion for each of the n asked for."""

    model: str
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]


class SamplingService:
    """Answers chat and completion requests.

    Args:
        engine: samples tokens.
        renderer: of the engine's base model.
        recorder: records the calls of rollouts.
        versions: what a model name outside a rollout means.
    """

    def __init__(self, engine: Engine, renderer: Renderer, recorder: Recorder, versions: Versions) -> None:
        self._engine = engine
        self._renderer = renderer
        self._recorder = recorder
        self._versions = versions
        #: Tokens drawn for replies so far; those of a reply that was given up before it was whole are not among them.
        self.num_sampled_tokens = 0

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    async def chat(self, request: ChatRequest, context: CallContext = CallContext()) -> ChatReply:
        """Answer a chat request.

        In a rollout it is served by the version pinned for the rollout, whatever model it names, and stored before this returns.

        Raises ContextLengthError, SettingError (an unusable schema), NotFoundError (unknown model), ServiceError 410 (the rollout is
        sealed, or its version is another one now).
        """
        session = context.session
        if session is None:
            turns = tuple(await self._sample_turns(request, request.model, None))
        else:

            async def produce() -> Sequence[Turn]:
                return await self._sample_turns(request, session.model, session)

            turns = await self._recorder.record(
                session,
                context.body_hash,
                retry_count=context.retry_count,
                produce=produce,
                key=context.key,
                num_replies=request.n,
            )
        return ChatReply(model=request.model or turns[0].adapter or BASE, turns=turns)

    async def stream_chat(self, request: ChatRequest, context: CallContext = CallContext()) -> AsyncGenerator[ReplyDelta]:
        """As `chat`, while the tokens are drawn. In a rollout each reply comes whole: its turn must be stored before it leaves.

        Closing it frees the replies' places in the engine. Raises as `chat`.
        """
        if context.session is not None:
            for whole in whole_replies((await self.chat(request, context)).turns):
                yield whole
            return
        tools = _offered(request)
        prompt_ids = await self._rendered(request, tools)
        reply_format = self._renderer.reply_format(prompt_ids, stop=request.stop, has_tools=bool(tools))
        async with aclosing(self._stream(request, prompt_ids, grammar_of(request), reply_format)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> CompletionReply:
        """Continue a raw text. Never recorded. Raises as `chat`."""
        prompt_ids = await asyncio.to_thread(self._raw_prompt, request.prompt)
        _, samples = await self._sample(request, request.model, prompt_ids, grammar=None)
        completions = tuple(
            Completion(cut_at_stop(self._renderer.reply_text(sample.token_ids), request.stop), sample) for sample in samples
        )
        return CompletionReply(request.model or BASE, prompt_ids, completions)

    async def stream_completion(self, request: CompletionRequest) -> AsyncGenerator[ReplyDelta]:
        """As `complete`, while the tokens are drawn; the text is in `ReplyDelta.content`."""
        async with aclosing(
            self._stream(request, await asyncio.to_thread(self._raw_prompt, request.prompt), None, RawFormat(request.stop))
        ) as deltas:
            async for delta in deltas:
                yield delta

    async def _rendered(self, request: ChatRequest, tools: tuple[Tool, ...], stored: Stored | None = None) -> tuple[int, ...]:
        """The prompt. A long one takes its tokeniser up to seconds, while every other call would wait for the event loop."""
        num_characters = sum(len(message.content or "") for message in request.messages)
        if num_characters < _LONG_PROMPT_CHARACTERS:
            return self._renderer.render(request.messages, tools, stored)
        return await asyncio.to_thread(self._renderer.render, request.messages, tools, stored)

    async def _sample_turns(self, request: ChatRequest, model: str, session: Session | None) -> list[Turn]:
        started_at, start = time.time(), time.monotonic()
        tools = _offered(request)
        stored = None if session is None else session.stored(request.messages)
        prompt_ids = await self._rendered(request, tools, stored)
        version, samples = await self._sample(request, model, prompt_ids, grammar_of(request), session)
        reply_format = self._renderer.reply_format(prompt_ids, stop=request.stop, has_tools=bool(tools))
        seconds = time.monotonic() - start
        return [
            Turn(
                index=index,
                adapter=sample.adapter,
                messages=request.messages,
                tools=tools,
                reply=reply_message(reply_format.parse(self._renderer.reply_text(sample.token_ids))),
                prompt_ids=prompt_ids,
                sampled_ids=sample.token_ids,
                sampled_logprobs=sample.logprobs,
                finish_reason=sample.finish_reason,
                parameters=self._parameters(request, prompt_ids, index),
                started_at=started_at,
                seconds=seconds,
                fingerprint=None if version is None else version.fingerprint,
            )
            for index, sample in enumerate(samples)
        ]

    async def _sample(
        self,
        request: ChatRequest | CompletionRequest,
        model: str,
        prompt_ids: tuple[int, ...],
        grammar: Grammar | None,
        session: Session | None = None,
    ) -> tuple[AdapterRow | None, list[Sample]]:
        """The version that drew, and a sample for each of the n replies."""
        async with self._versions.using(_named(model)) as version:
            if session is not None:
                session.check_version(version)
            wanted = self._wanted(request, prompt_ids, grammar, version)
            samples = await _all_or_none([self._engine.sample(sample) for sample in wanted])
        self.num_sampled_tokens += sum(len(sample.token_ids) for sample in samples)
        return version, samples

    async def _stream(
        self,
        request: ChatRequest | CompletionRequest,
        prompt_ids: tuple[int, ...],
        grammar: Grammar | None,
        reply_format: ReplyFormat,
    ) -> AsyncGenerator[ReplyDelta]:
        async with self._versions.using(_named(request.model)) as version:
            replies = [
                live_reply(index, len(prompt_ids), self._counted(self._engine.stream(wanted)), self._renderer, reply_format)
                for index, wanted in enumerate(self._wanted(request, prompt_ids, grammar, version))
            ]
            async with aclosing(merged(replies)) as deltas:
                async for delta in deltas:
                    yield delta

    async def _counted(self, drawn: AsyncGenerator[SampleDelta]) -> AsyncGenerator[SampleDelta]:
        async with aclosing(drawn):
            async for delta in drawn:
                self.num_sampled_tokens += len(delta.token_ids)
                yield delta

    def _wanted(
        self,
        request: ChatRequest | CompletionRequest,
        prompt_ids: tuple[int, ...],
        grammar: Grammar | None,
        version: AdapterRow | None,
    ) -> list[SampleRequest]:
        """What to ask the engine for: one sample for each of the n replies."""
        return [
            SampleRequest(
                prompt_ids=prompt_ids,
                parameters=self._parameters(request, prompt_ids, index),
                adapter=None if version is None else version.name,
                stop_token_ids=self._renderer.stop_token_ids,
                grammar=grammar,
            )
            for index in range(request.n)
        ]

    def _parameters(self, request: ChatRequest | CompletionRequest, prompt_ids: Sequence[int], index: int) -> SamplingParameters:
        room = self._renderer.context_length - len(prompt_ids)
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {len(prompt_ids)} tokens and the model's context is {self._renderer.context_length} tokens",
                hint="shorten the conversation, offer fewer tools, or cut long tool results",
                reason="too_long",
            )
        return SamplingParameters(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=max(request.top_k, 0),  # some servers write "off" as -1
            max_tokens=min(request.max_tokens or room, room),
            stop=request.stop,
            # Random numbers know a seed without its sign: of n replies, those with the seeds -1 and 1 would be the same.
            seed=None if request.seed is None else (request.seed + index) % _NUM_SEEDS,
        )

    def _raw_prompt(self, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
        return self._prompt_of_text(prompt) if isinstance(prompt, str) else self._checked_ids(prompt)

    def _prompt_of_text(self, text: str) -> tuple[int, ...]:
        ids = self._renderer.encode_prompt(text)
        if ids:
            return ids
        start = self._renderer.tokenizer.bos_token_id
        if start is None:
            raise SettingError(
                "an empty prompt cannot be continued: this model has no start token", hint="send some text", reason="empty_prompt"
            )
        return (int(start),)

    def _checked_ids(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        size = self._engine.info.vocabulary_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise SettingError(f"token id {wrong} is outside the vocabulary of {size}", reason="unknown_token")
        if not ids:
            raise SettingError("an empty list of token ids cannot be continued", hint="send some text instead", reason="empty_prompt")
        return ids


def _offered(request: ChatRequest) -> tuple[Tool, ...]:
    return () if request.tool_choice == "none" else request.tools


def _named(model: str) -> str:
    if not model:
        raise NotFoundError("the request names no model", hint='send "model": a trained model\'s name, or "base"', reason="no_model")
    return model


async def _all_or_none(calls: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All results in order; when one fails or the caller is cancelled, the others are cancelled and waited for."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
