"""A conversation with a model, held by a person: messages, replies that stream, tools that are run between them.

Not for training or judging: nothing is recorded (attempts are `ToolLoop`'s). Not for showing: whoever holds the conversation gets
events, and draws them. `openai` is imported when the first message is sent.

    conversation = Conversation(client, "agent@12", ConversationSettings(seed=1))
    async for event in conversation.say("What time is it in Tokyo?"):
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.agents.server_pool import ServerPool
from journeyman.agents.tool_loop import ToolLoopSettings, ToolRunner
from journeyman.errors import ContextLengthError, JourneymanError, LlmError, LlmOutageError, LlmSettingError
from journeyman.http_clients import http_library, proxy_note, without_credentials
from journeyman.llm.answers import address_hint, chunk_calls, count_of, read_chunk, say_words, status_inside
from journeyman.llm.replies import shorten
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall
from journeyman.types.trajectory import ToolEvent


@dataclass(frozen=True, slots=True)
class ConversationSettings(ToolLoopSettings):
    """How replies are drawn, and the bounds of what follows one message: as in a rollout, for a person to read.

    Attributes:
        seed: reply n of a conversation is drawn with seed + n, so that two models can be compared with the same luck.
        timeout_seconds: for the model's server to begin, or go on, with a reply.
    """

    max_turns: int = 8
    max_tokens: int = 256
    max_result_chars: int = 4000
    temperature: float = 0.0
    seed: int = 0
    timeout_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More of a reply."""

    text: str
    is_thinking: bool = False


@dataclass(frozen=True, slots=True)
class CallAsked:
    """The model asks for a tool call; it is run next."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class CallDone:
    """What became of a call."""

    event: ToolEvent


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """A reply is complete. `is_cut`: at the token limit, or because the context is full; `num_calls`: it asks for so many tool calls.
    Token counts are None where the server tells none."""

    is_cut: bool
    num_calls: int
    seconds: float
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class OutOfTurns:
    """The model still calls tools after all the turns that one message may have."""

    num_turns: int


Event = TextPiece | CallAsked | CallDone | ReplyDone | OutOfTurns


class Conversation:
    """One model, one history. `say` is not for several messages at once.

    Args:
        client: an `openai.AsyncOpenAI`, e.g. from `llm.open_openai`, which learns what a model takes; it stays the caller's.
        model: the name to send.
        system: the system message; none when empty.
        pool: MCP servers whose tools are offered; none when None.
        label: how the model is called where it is shown.
    """

    def __init__(
        self,
        client: Any,
        model: str,
        settings: ConversationSettings | None = None,
        *,
        system: str = "",
        pool: ServerPool | None = None,
        label: str | None = None,
    ) -> None:
        self.model = model
        self.label = label or model
        self.settings = settings or ConversationSettings()
        self.system = system
        self._client = client
        self._history: list[Message] = []
        self._num_replies = 0
        self._runner = None if pool is None else ToolRunner(pool, self.settings)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that was said, the system message first."""
        head = (Message(role="system", content=self.system),) if self.system else ()
        return *head, *self._history

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as the model is offered them."""
        return () if self._runner is None else tuple(tool.function for tool in self._runner.tools.values())

    @property
    def is_empty(self) -> bool:
        return not self._history

    def reset(self) -> None:
        """Begin anew, with the same system message and tools, and the same seeds."""
        self._history.clear()
        self._num_replies = 0

    def row(self) -> dict[str, Any]:
        """The conversation as one row of training data: `messages`, and `tools` where there are some."""
        row: dict[str, Any] = {"messages": [message.wire() for message in self.messages]}
        return row | {"tools": [tool.model_dump() for tool in self.tools]} if self.tools else row

    async def say(self, text: str) -> AsyncGenerator[Event]:
        """Send a message and yield what happens, until the model has answered.

        Close or cancel it to stop: what the model had said by then stays, with calls that were not run answered as such. After an
        error, or a stop before the first word, the message counts as never sent.

        Raises:
            ContextLengthError: the conversation no longer fits; `reset` begins anew.
            McpError: the tools' server failed; a dead one is replaced for the next message.
            LlmError: the model's server refuses, is gone, or is silent.
        """
        before = len(self._history)
        self._history.append(Message(role="user", content=text))
        is_kept = False
        try:
            for turn in range(self.settings.max_turns):
                reply = _Reply()
                try:
                    async with contextlib.aclosing(self._draw(reply)) as pieces:
                        async for piece in pieces:
                            yield piece
                except (asyncio.CancelledError, GeneratorExit):
                    is_kept = self._keep(reply, before)
                    raise
                self._history.append(reply.message())
                yield reply.done()
                if not reply.calls:
                    is_kept = True
                    return
                try:
                    async for event in self._run(reply.calls, turn):
                        yield event
                except (asyncio.CancelledError, GeneratorExit):
                    self._answer_open_calls(reply.calls)
                    is_kept = True
                    raise
            is_kept = True
            yield OutOfTurns(self.settings.max_turns)
        finally:
            if not is_kept:
                del self._history[before:]

    def _keep(self, reply: _Reply, before: int) -> bool:
        """Whether anything of a stopped message stays; calls of a reply that was not complete do not."""
        if reply.text:
            self._history.append(Message(role="assistant", content=reply.text))
        return bool(reply.text) or len(self._history) > before + 1

    def _answer_open_calls(self, calls: Sequence[ToolCall]) -> None:
        """Every call needs a result, or servers refuse the conversation."""
        answered = {message.tool_call_id for message in self._history}
        for call in calls:
            if call.id not in answered:
                self._history.append(Message(role="tool", tool_call_id=call.id, content="Error: stopped by the user"))

    async def _run(self, calls: Sequence[ToolCall], turn: int) -> AsyncGenerator[Event]:
        for call in calls:
            yield CallAsked(call)
        for call, outcome in zip(calls, await self._outcomes(calls, turn), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self._history.append(Message(role="tool", tool_call_id=call.id, content=outcome.result))
            yield CallDone(outcome)

    async def _outcomes(self, calls: Sequence[ToolCall], turn: int) -> Sequence[ToolEvent | BaseException]:
        if self._runner is None:
            return [_no_tools(call, turn) for call in calls]
        async with self._runner.pool.lease() as server:
            return await self._runner.run(calls, turn, server)

    async def _draw(self, reply: _Reply) -> AsyncGenerator[TextPiece]:
        """Stream one reply; it is put together in `reply`."""
        import openai

        settings = self.settings
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.wire() for message in self.messages],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed + self._num_replies,
        }
        if self._runner is not None:
            body["tools"] = [tool.model_dump() for tool in self.tools]
        self._num_replies += 1
        try:
            create = self._client.chat.completions.create
            asked = {**body, "stream_options": {"include_usage": True}, "stream": True, "timeout": self.settings.timeout_seconds}
            async with await create(**asked) as stream:
                async for chunk in stream:
                    for piece in reply.add(chunk, self._where):
                        yield piece
            if not reply.has_begun:
                raise LlmError(f"{self._where} answered with nothing", hint="check its base URL", reason="empty_answer")
            if not all(name for _, name, _ in reply.parts.values()):
                raise LlmError(f"{self._where} called a tool without its name", hint="ask again", reason="no_tool_call")
        except openai.APIError as error:
            raise self._mapped(error) from error
        except http_library(openai.DefaultAsyncHttpxClient).HTTPError as error:  # the library maps errors of the request only
            raise LlmOutageError(f"{self._where} broke off its reply: {error}", reason="broken_off") from error
        except (ValueError, RecursionError) as error:  # of a chunk that is no JSON
            raise LlmError(f"{self._where} streamed something that is no JSON: {error}", reason="no_json") from error

    @property
    def _where(self) -> str:
        return f"model {self.model!r} at {without_credentials(str(self._client.base_url)).rstrip('/')}"

    def _mapped(self, error: Any) -> JourneymanError:
        import openai

        where = self._where
        if isinstance(error, openai.APIConnectionError):
            why = f"{proxy_note(str(self._client.base_url))}: {error.__cause__ or error}"
            return LlmOutageError(f"{where} cannot be reached{why}", hint="is the server running?", reason="outage")
        say_words(error)  # of an error inside a stream
        if error.code == "context_length_exceeded" or "maximum context" in error.message:
            return ContextLengthError("the conversation no longer fits the model's context", hint="begin anew with /reset")
        status = getattr(error, "status_code", None) or status_inside({"error": error.body or error.message}) or 400
        if status in (408, 409, 429) or status >= 500:
            return LlmOutageError(f"{where} is out of service: {shorten(error.message)}", hint="try again later", reason="outage")
        if status == 404:
            hint = f"check the model's name, or {address_hint(without_credentials(str(self._client.base_url)))}"
            return LlmSettingError(f"{where} refused: {shorten(error.message)}", hint=hint, reason="not_found")
        if status in (401, 403):
            return LlmSettingError(f"{where} refused: {shorten(error.message)}", hint="check the API key", reason="unauthorized")
        return LlmError(f"{where} refused: {shorten(error.message)}", reason="refused")


@dataclass(slots=True)
class _Reply:
    """A reply that is put together from chunks."""

    text: str = ""
    thinking: str = ""
    parts: dict[int, list[str]] = field(default_factory=dict)  # index of a call -> [id, name, arguments]
    is_cut: bool = False
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    has_begun: bool = False
    started: float = field(default_factory=time.perf_counter)

    def add(self, chunk: Any, where: str) -> list[TextPiece]:
        """Take in a chunk; returns what of it is to be shown. Raises LlmError as `read_chunk`."""
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self.num_prompt_tokens = count_of(getattr(usage, "prompt_tokens", None))
            self.num_tokens = count_of(getattr(usage, "completion_tokens", None))
        choice = read_chunk(chunk, where)
        pieces = []
        if choice is not None:
            self.has_begun = True
            self.is_cut = self.is_cut or getattr(choice, "finish_reason", None) == "length"
            thinking = getattr(choice.delta, "reasoning_content", None) or ""
            if thinking:
                self.thinking += thinking
                pieces.append(TextPiece(thinking, is_thinking=True))
            if choice.delta.content:
                self.text += choice.delta.content
                pieces.append(TextPiece(choice.delta.content))
            for piece in chunk_calls(choice.delta, where):
                part = self.parts.setdefault(piece.index, ["", "", ""])
                part[0] = part[0] or piece.id
                part[1] += piece.name
                part[2] += piece.arguments
        return pieces

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(id=ident or f"call_{number}", function=FunctionCall(name=name, arguments=arguments))
            for number, (ident, name, arguments) in sorted(self.parts.items())
        )

    def done(self) -> ReplyDone:
        return ReplyDone(self.is_cut, len(self.parts), time.perf_counter() - self.started, self.num_prompt_tokens, self.num_tokens)

    def message(self) -> Message:
        text = None if self.calls and not self.text else self.text
        return Message(role="assistant", content=text, tool_calls=self.calls, reasoning_content=self.thinking or None)


def _no_tools(call: ToolCall, turn: int) -> ToolEvent:
    """A model may call tools that nobody offered."""
    return ToolEvent(
        turn=turn,
        call_id=call.id,
        name=call.function.name,
        arguments=None,
        is_known=False,
        is_valid=False,
        is_error=True,
        result="Error: there are no tools in this conversation",
    )
