"""One call to one endpoint: modes that it takes, retries, timeout, usage.

For judges, task writers and comparisons. Not for the model that is trained: its calls go through a rollout (`client`), which records
them. The `openai` package is imported on the first call only.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from journeyman.errors import LlmError, LlmOutageError, LlmRefusalError, LlmSettingError
from journeyman.http_clients import proxy_note, without_credentials
from journeyman.llm.answers import address_hint
from journeyman.llm.dialect import refused_parameter
from journeyman.llm.openai_client import LlmEndpoint, omitted_of, open_openai, read_key
from journeyman.llm.replies import FindFault, JsonMode, JsonReply, TextReply, TokenChoice, Usage, read_json, shorten
from journeyman.types.secrets import checked_key

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Messages = Sequence[Mapping[str, Any]]

_JSON_MODES: tuple[JsonMode, ...] = ("json_schema", "json_object", "plain")
_MAX_WAIT_SECONDS = 120.0
_CHARACTERS_PER_TOKEN = 4
_STRONGER = "use a stronger model, or raise its token limit"
_REFUSES_FORMAT = re.compile(r"response_format|json_schema|json_object|json mode|structured|schema|guided|grammar", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """How to call. `timeout_seconds` bounds one HTTP call, `max_retries` the further tries after a failure that may pass."""

    temperature: float | None = 0.0
    max_tokens: int = 2048
    seed: int | None = None
    timeout_seconds: float = 120.0
    max_retries: int = 5
    max_concurrent: int = 8


class Meter(Protocol):
    """Watches what calls cost; shared by everything that pays from one purse."""

    def allow(self, prompt_tokens: int) -> None:
        """Called before each HTTP call with its estimated size. Raises to forbid it."""
        ...

    def pay(self, prompt_tokens: int, usage: Usage | None) -> None:
        """Called after each allowed call, with the same estimate and what it cost (None: it brought no reply)."""
        ...


class Llm:
    """Calls one endpoint. Use as an async context manager, or `await close()`.

    Raises LlmSettingError (missing_key, malformed_key) at once: better than after the work that leads up to the first call.
    """

    def __init__(
        self,
        endpoint: LlmEndpoint,
        *,
        api_key: str | None = None,
        settings: LlmSettings | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        meter: Meter | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings or LlmSettings()
        self.usage = Usage()
        self._api_key = read_key(endpoint) if api_key is None else checked_key(api_key, "api_key")
        self._sleep = sleep
        self._meter = meter
        self._random = random.Random(0)
        self._client: AsyncOpenAI | None = None
        self._places = asyncio.Semaphore(self.settings.max_concurrent)
        self._json_mode: JsonMode = "json_schema"

    async def __aenter__(self) -> Llm:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def check(self) -> None:
        """Ask for one word, trying twice at most; no meter sees it. Raises LlmError when the model does not answer."""
        async with Llm(self.endpoint, api_key=self._api_key, settings=replace(self.settings, max_retries=1)) as other:
            await other._call([{"role": "user", "content": "Reply with the word: ready"}], {})  # one that only thinks is there, too

    @property
    def omitted(self) -> tuple[str, ...]:
        """Parameters of sampling that the endpoint was found not to take: replies since then were drawn without them."""
        return omitted_of(self._client, self.endpoint.model)

    async def complete(self, messages: Messages) -> TextReply:
        """One reply as text. Raises LlmError; LlmRefusalError (empty_reply) for one that says nothing."""
        reply = await self._call(messages, {})
        if not reply.text.strip():
            why = "its token limit was used up before" if reply.finish_reason == "length" else f"it ended with {reply.finish_reason!r}"
            hint = "ask another model" if reply.finish_reason == "content_filter" else _STRONGER
            raise LlmRefusalError(self._named(f"answered with no text: {why}"), hint=hint, reason="empty_reply", usage=reply.usage)
        return reply

    async def complete_json(
        self,
        messages: Messages,
        schema: Mapping[str, Any],
        *,
        name: str = "reply",
        find_fault: FindFault | None = None,
        with_tokens: bool = False,
    ) -> JsonReply:
        """One reply as JSON that fits `schema` as far as the endpoint can promise it; what it promises less is checked by `find_fault`.

        `find_fault` gets a parsed value and says what is wrong with it, or None. A faulty reply is sent back once with the fault
        quoted; a second one raises LlmRefusalError.
        `with_tokens` asks for the probabilities of tokens; endpoints that have none leave them out.
        """
        usage = Usage()
        fault = ""
        conversation = list(messages)
        for _ in range(2):
            reply, mode = await self._call_json(conversation, schema, name, with_tokens)
            usage += reply.usage
            value, problem = read_json(reply, find_fault)
            if problem is None:
                return JsonReply(value, reply.text, mode, usage, reply.tokens)
            fault = problem
            if value is None and mode == "json_schema":
                self._json_mode = "plain"  # the endpoint takes the format and ignores it: the message must state the schema
            conversation += [
                {"role": "assistant", "content": reply.text or "(nothing)"},
                {"role": "user", "content": f"That reply cannot be used: {fault}. Answer again with the corrected JSON only."},
            ]
        what = self._named(f"gave an unusable reply twice: {fault}")
        raise LlmRefusalError(what, hint=_STRONGER, reason="unusable_reply", usage=usage)

    async def _call_json(self, messages: Messages, schema: Mapping[str, Any], name: str, with_tokens: bool) -> tuple[TextReply, JsonMode]:
        """Ask in the strictest mode that the endpoint takes, and remember which one that is."""
        start = _JSON_MODES.index(self._json_mode)
        wanted = {"logprobs": True, "top_logprobs": 20} if with_tokens else {}
        for mode in _JSON_MODES[start:]:
            asked = {**wanted, "response_format": _response_format(schema, name, mode)}
            try:
                reply = await self._call(_with_schema(messages, schema, mode), asked)
            except LlmError as error:
                if mode == "plain" or not _is_format_refusal(error):
                    raise
                continue
            self._json_mode = mode
            return reply, mode
        raise AssertionError("the plain mode returns or raises")

    async def _call(self, messages: Messages, wanted: Mapping[str, Any]) -> TextReply:
        async with self._places:
            for attempt in range(self.settings.max_retries + 1):
                try:
                    return await self._metered(messages, wanted)
                except _PassingError as failure:
                    wait = failure.wait_seconds if failure.wait_seconds is not None else self._backoff(attempt)
                    if attempt == self.settings.max_retries or wait > _MAX_WAIT_SECONDS:
                        what = self._named(f"{failure} (tried {attempt + 1} times)")
                        hint = "check that the server runs and its limits, or try later"
                        raise LlmOutageError(what, hint=hint, reason="outage") from failure.__cause__
                    await self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _metered(self, messages: Messages, wanted: Mapping[str, Any]) -> TextReply:
        """One try, under the eyes of whoever pays."""
        if self._meter is None:
            return await self._once(messages, wanted)
        size = sum(math.ceil(len(str(message.get("content") or "")) / _CHARACTERS_PER_TOKEN) for message in messages)
        self._meter.allow(size)
        spent: Usage | None = None
        try:
            reply = await self._once(messages, wanted)
            spent = reply.usage
        except LlmRefusalError as error:
            spent = error.usage if isinstance(error.usage, Usage) else None
            raise
        finally:
            self._meter.pay(size, spent)
        return reply

    def _backoff(self, attempt: int) -> float:
        """Half to one of 1, 2, 4 … seconds, at most 30: jitter keeps parallel calls apart."""
        return min(30.0, 2.0**attempt) * (0.5 + 0.5 * self._random.random())

    async def _once(self, messages: Messages, wanted: Mapping[str, Any]) -> TextReply:
        import openai

        try:
            completion = await self._open().chat.completions.create(**self._body(messages, wanted))
        except openai.APITimeoutError as error:
            raise _PassingError(f"did not answer within {self.settings.timeout_seconds:g} s{self._proxy_note()}") from error
        except openai.APIConnectionError as error:
            raise _PassingError(f"cannot be reached{self._proxy_note()}: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            raise self._map_status(error) from error
        except openai.OpenAIError as error:
            raise self._error(f"call failed: {error}") from error
        return self._read(completion)

    def _body(self, messages: Messages, wanted: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.settings
        body = {"model": self.endpoint.model, "messages": list(messages), "max_tokens": settings.max_tokens}
        fields = {**body, "temperature": settings.temperature, "seed": settings.seed, **wanted}
        return {name: value for name, value in fields.items() if value is not None}

    def _map_status(self, error: Any) -> Exception:
        """A status that may pass becomes _PassingError; the others say what to set."""
        status, text = error.status_code, shorten(error.message)
        headers = error.response.headers
        should_retry = headers.get("x-should-retry")
        is_out_of_money = status == 402 or error.code == "insufficient_quota"
        may_pass = (status in (408, 409, 429) or status >= 500) and not is_out_of_money
        if should_retry == "true" or (may_pass and should_retry != "false"):
            return _PassingError(f"answered {status}{self._proxy_note()}: {text}", _retry_after(headers))
        key, address = self.endpoint.api_key_env, address_hint(without_credentials(self.endpoint.base_url))
        hints = {
            401: ("unauthorized", f"set {key} to a valid key" if key else "give the server's API key"),
            403: ("forbidden", f"the key in {key or 'use'} may not use this model"),
            404: ("not_found", f"check the model's name, or {address}"),
            405: ("not_found", address),
            407: ("proxy_refused", "the proxy wants a user and a password"),
        }
        if status in hints:
            reason, hint = hints[status]
            return LlmSettingError(self._named(f"answered {status}{self._proxy_note()}: {text}"), hint=hint, reason=reason)
        name = refused_parameter(error.message, error.param, self._body([], {}))
        if status in (400, 422) and name is not None and "context" not in error.message:
            return LlmSettingError(self._named(f"answered {status}: {text}"), hint=f"change {name}", reason="refused_parameter")
        if is_out_of_money:
            return self._error(f"answered {status}: {text}", hint="the account has no quota left", reason="no_quota")
        return self._error(f"answered {status}: {text}", reason="refused")

    def _read(self, completion: Any) -> TextReply:
        counted = completion.usage
        usage = Usage(counted.prompt_tokens, counted.completion_tokens, 1) if counted else Usage(calls=1)
        self.usage += usage
        choice = completion.choices[0]
        if choice.message.refusal:
            raise LlmRefusalError(self._named(f"refused: {shorten(choice.message.refusal)}"), reason="refused_by_model", usage=usage)
        return TextReply(choice.message.content or "", choice.finish_reason, usage, _tokens(choice))

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            # Retries are ours: the client's own give up after about two seconds.
            self._client = open_openai(
                self.endpoint.base_url, self._api_key or "none", timeout_seconds=self.settings.timeout_seconds, max_retries=0
            )
        return self._client

    def _proxy_note(self) -> str:
        return proxy_note(self.endpoint.base_url)

    def _error(self, what: str, *, hint: str | None = None, reason: str | None = None) -> LlmError:
        return LlmError(self._named(what), hint=hint, reason=reason)

    def _named(self, what: str) -> str:
        return f"model {self.endpoint.model!r} at {without_credentials(self.endpoint.base_url)} {what}"


class _PassingError(Exception):
    """A failure that may pass; `wait_seconds` is what the server asked for."""

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def _tokens(choice: Any) -> tuple[TokenChoice, ...]:
    """The reply's tokens with their likeliest alternatives, where the endpoint returned them."""
    listed = getattr(getattr(choice, "logprobs", None), "content", None) or ()
    return tuple(
        TokenChoice(item.token, tuple((other.token, math.exp(other.logprob)) for other in (item.top_logprobs or ()))) for item in listed
    )


def _response_format(schema: Mapping[str, Any], name: str, mode: JsonMode) -> dict[str, Any] | None:
    if mode == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}
    return {"type": "json_object"} if mode == "json_object" else None


def _with_schema(messages: Messages, schema: Mapping[str, Any], mode: JsonMode) -> list[Mapping[str, Any]]:
    """Where the endpoint does not enforce the schema, the last message states it."""
    if mode == "json_schema":
        return list(messages)
    text = f"Answer with one JSON object only, no other text, that satisfies this JSON schema:\n{json.dumps(schema)}"
    last = messages[-1]
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*messages[:-1], {**last, "content": f"{last['content']}\n\n{text}"}]
    return [*messages, {"role": "user", "content": text}]


def _is_format_refusal(error: LlmError) -> bool:
    return re.search(r"answered (400|404|415|422|500|501)", error.message) is not None and bool(_REFUSES_FORMAT.search(error.message))


def _retry_after(headers: Any) -> float | None:
    """Seconds from `retry-after-ms`, or `retry-after` as seconds or as a date; None when absent or unreadable."""
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(headers.get("retry-after-ms")) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
