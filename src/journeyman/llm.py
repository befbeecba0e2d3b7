"""One call to any OpenAI-compatible model: text, or JSON under a schema; retries, timeout, usage.

For judges, task writers and comparisons. Not for the model that is trained: its calls go through a rollout (`client`), which records
them. The `openai` package is imported on the first call only.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.errors import LlmError, SettingError
from journeyman.types.record import Record

Messages = Sequence[Mapping[str, Any]]
JsonMode = Literal["json_schema", "json_object", "plain"]

# Base URL and key variable of each provider, as documented by the providers for their OpenAI-compatible endpoints. None: no key needed.
PROVIDERS: Mapping[str, tuple[str, str | None]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "ollama": ("http://127.0.0.1:11434/v1", None),
    "vllm": ("http://127.0.0.1:8000/v1", None),
}

_JSON_MODES: tuple[JsonMode, ...] = ("json_schema", "json_object", "plain")
_MAX_WAIT_SECONDS = 120.0
_REFUSES_FORMAT = re.compile(r"response_format|json_schema|json_object|json mode|structured|schema|guided|grammar", re.IGNORECASE)


class LlmEndpoint(Record):
    """Where a model is and which environment variable holds its key (the key itself is never stored).

    Example:
        >>> LlmEndpoint.parse("openai/gpt-5-mini").api_key_env
        'OPENAI_API_KEY'
    """

    model: str
    base_url: str
    api_key_env: str | None = None

    @classmethod
    def parse(cls, name: str, base_url: str | None = None, *, api_key_env: str | None = None) -> LlmEndpoint:
        """Read `provider/model`. With `base_url` the whole name is the model's, and no key is sent unless the URL is a provider's or
        `api_key_env` is given: a key never goes to a server it is not for. A bare name is a model of OpenAI, or of the server that
        OPENAI_BASE_URL names. Raises SettingError for an unknown provider."""
        if not name.strip():
            raise SettingError("the model's name is empty", hint=f"give provider/model; providers: {', '.join(PROVIDERS)}")
        if base_url is not None:
            known = [key for url, key in PROVIDERS.values() if base_url.rstrip("/") == url.rstrip("/")]
            return cls(model=name, base_url=base_url, api_key_env=api_key_env or (known[0] if known else None))
        provider, slash, model = name.partition("/")
        if not slash:
            url = os.environ.get("OPENAI_BASE_URL")
            key = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else None
            return cls.parse(name, url, api_key_env=api_key_env or key) if url else cls.parse(f"openai/{name}", api_key_env=api_key_env)
        if provider not in PROVIDERS:
            raise SettingError(
                f"unknown provider {provider!r} in the model name {name!r}",
                hint=f"use one of {', '.join(f'{one}/…' for one in PROVIDERS)}, or give the server's base URL as well",
            )
        url, key = PROVIDERS[provider]
        return cls(model=model, base_url=url, api_key_env=api_key_env or key)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed, and calls made (retries that reached a reply included)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens, self.calls + other.calls)


@dataclass(frozen=True, slots=True)
class TextReply:
    """A reply: its text, why it ended, what it cost."""

    text: str
    finish_reason: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class JsonReply:
    """A reply read as JSON. `mode` is how the endpoint was asked; `usage` counts every call that was needed."""

    value: Any
    text: str
    mode: JsonMode
    usage: Usage


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """How to call. `timeout_seconds` bounds one HTTP call, `max_retries` the further tries after a failure that may pass."""

    temperature: float | None = 0.0
    max_tokens: int = 2048
    seed: int | None = None
    timeout_seconds: float = 120.0
    max_retries: int = 5
    max_concurrent: int = 8


class Llm:
    """Calls one endpoint. Use as an async context manager, or `await close()`.

    Raises LlmError at once when the key's variable is not set: better than after the work that leads up to the first call.
    """

    def __init__(
        self,
        endpoint: LlmEndpoint,
        *,
        api_key: str | None = None,
        settings: LlmSettings | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings or LlmSettings()
        self.usage = Usage()
        self._api_key = api_key or _read_key(endpoint)
        self._sleep = sleep
        self._random = random.Random(0)
        self._client: Any = None
        self._places = asyncio.Semaphore(self.settings.max_concurrent)
        self._json_mode: JsonMode = "json_schema"
        # What this endpoint was found not to take; learnt from its refusals.
        self._without: set[str] = set()
        self._renames_max_tokens = False

    async def __aenter__(self) -> Llm:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def complete(self, messages: Messages) -> TextReply:
        """One reply as text. Raises LlmError."""
        return await self._call(messages, None)

    async def complete_json(
        self,
        messages: Messages,
        schema: Mapping[str, Any],
        *,
        name: str = "reply",
        find_fault: Callable[[Any], str | None] | None = None,
    ) -> JsonReply:
        """One reply as JSON that fits `schema` as far as the endpoint can promise it; what it promises less is checked by `find_fault`.

        `find_fault` gets the parsed value and says what is wrong with it, or None. A faulty reply is sent back once with the fault
        quoted; a second one raises LlmError.
        """
        conversation = list(messages)
        usage = Usage()
        fault = ""
        for _ in range(2):
            reply, mode = await self._call_json(conversation, schema, name)
            usage += reply.usage
            value, found = _read_json(reply)
            if found is None and find_fault is not None:
                found = find_fault(value)
            if found is None:
                return JsonReply(value, reply.text, mode, usage)
            fault = found
            if value is None and mode == "json_schema":
                self._json_mode = "plain"  # the endpoint takes the format and ignores it: the message must state the schema
            conversation += [
                {"role": "assistant", "content": reply.text or "(nothing)"},
                {"role": "user", "content": f"That reply cannot be used: {fault}. Answer again with the corrected JSON only."},
            ]
        raise self._error(f"gave an unusable reply twice: {fault}", hint="use a stronger model, or raise its token limit")

    async def _call_json(self, messages: Messages, schema: Mapping[str, Any], name: str) -> tuple[TextReply, JsonMode]:
        """Ask in the strictest mode that the endpoint takes, and remember which one that is."""
        start = _JSON_MODES.index(self._json_mode)
        for mode in _JSON_MODES[start:]:
            try:
                reply = await self._call(_with_schema(messages, schema, mode), _response_format(schema, name, mode))
            except LlmError as error:
                if mode == "plain" or not _is_format_refusal(error):
                    raise
                continue
            self._json_mode = mode
            return reply, mode
        raise AssertionError("the plain mode returns or raises")

    async def _call(self, messages: Messages, response_format: Mapping[str, Any] | None) -> TextReply:
        async with self._places:
            for attempt in range(self.settings.max_retries + 1):
                try:
                    return await self._once(messages, response_format)
                except _PassingError as failure:
                    wait = failure.wait_seconds if failure.wait_seconds is not None else self._backoff(attempt)
                    if attempt == self.settings.max_retries or wait > _MAX_WAIT_SECONDS:
                        raise self._error(
                            f"{failure} (tried {attempt + 1} times)",
                            hint="check that the server runs and its limits, or try later",
                        ) from failure.__cause__
                    await self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _backoff(self, attempt: int) -> float:
        """Half to one of 1, 2, 4 … seconds, at most 30: jitter keeps parallel calls apart."""
        return min(30.0, 2.0**attempt) * (0.5 + 0.5 * self._random.random())

    async def _once(self, messages: Messages, response_format: Mapping[str, Any] | None) -> TextReply:
        import openai

        try:
            completion = await self._open().chat.completions.create(**self._body(messages, response_format))
        except openai.APITimeoutError as error:
            raise _PassingError(f"did not answer within {self.settings.timeout_seconds:g} s") from error
        except openai.APIConnectionError as error:
            raise _PassingError(f"cannot be reached: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            if error.status_code in (400, 422) and self._learn(error.message):
                return await self._once(messages, response_format)
            raise self._map_status(error) from error
        except openai.OpenAIError as error:
            raise self._error(f"call failed: {error}") from error
        return self._read(completion)

    def _body(self, messages: Messages, response_format: Mapping[str, Any] | None) -> dict[str, Any]:
        limit = "max_completion_tokens" if self._renames_max_tokens else "max_tokens"
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": list(messages), limit: self.settings.max_tokens}
        optional = {"temperature": self.settings.temperature, "seed": self.settings.seed, "response_format": response_format}
        return body | {key: value for key, value in optional.items() if value is not None and key not in self._without}

    def _learn(self, message: str) -> bool:
        """Whether a refusal names a parameter that can be left out or renamed (reasoning models take no temperature, for one)."""
        if not self._renames_max_tokens and "max_completion_tokens" in message:
            self._renames_max_tokens = True
            return True
        for parameter in ("temperature", "seed"):
            if parameter in message and parameter not in self._without:
                self._without.add(parameter)
                return True
        return False

    def _map_status(self, error: Any) -> Exception:
        """A status that may pass becomes _PassingError; the others say what to set."""
        status, text = error.status_code, _shorten(error.message)
        headers = error.response.headers
        should_retry = headers.get("x-should-retry")
        is_out_of_money = getattr(error, "code", None) == "insufficient_quota"
        may_pass = (status in (408, 409, 429) or status >= 500) and not is_out_of_money
        if should_retry == "true" or (may_pass and should_retry != "false"):
            return _PassingError(f"answered {status}: {text}", _retry_after(headers))
        hints = {
            401: f"set {self.endpoint.api_key_env} to a valid key" if self.endpoint.api_key_env else "give the server's API key",
            403: f"the key in {self.endpoint.api_key_env or 'use'} may not use this model",
            404: "check the model's name and the base URL (it usually ends in /v1)",
            429: "the account has no quota left",
        }
        return self._error(f"answered {status}: {text}", hint=hints.get(status))

    def _read(self, completion: Any) -> TextReply:
        counted = completion.usage
        usage = Usage(counted.prompt_tokens or 0, counted.completion_tokens or 0, 1) if counted else Usage(calls=1)
        self.usage += usage
        if not completion.choices:
            raise self._error("answered without a choice", hint="check that the URL is a chat completions server")
        choice = completion.choices[0]
        if getattr(choice.message, "refusal", None):
            raise self._error(f"refused: {_shorten(choice.message.refusal)}")
        return TextReply(choice.message.content or "", choice.finish_reason or "stop", usage)

    def _open(self) -> Any:
        if self._client is None:
            from openai import AsyncOpenAI

            # Retries are ours: the client's own give up after about two seconds.
            self._client = AsyncOpenAI(
                api_key=self._api_key or "none",
                base_url=self.endpoint.base_url,
                timeout=self.settings.timeout_seconds,
                max_retries=0,
            )
        return self._client

    def _error(self, what: str, *, hint: str | None = None) -> LlmError:
        return LlmError(f"model {self.endpoint.model!r} at {self.endpoint.base_url} {what}", hint=hint)


class _PassingError(Exception):
    """A failure that may pass; `wait_seconds` is what the server asked for."""

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def _read_key(endpoint: LlmEndpoint) -> str | None:
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        raise LlmError(
            f"no API key for model {endpoint.model!r} at {endpoint.base_url}",
            hint=f"set the environment variable {endpoint.api_key_env}",
        )
    return key


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


def _read_json(reply: TextReply) -> tuple[Any, str | None]:
    """The first JSON object or array in the text (thinking and code fences around it are passed over), or what is wrong."""
    text = re.sub(r"<think>.*?</think>", "", reply.text, flags=re.DOTALL)
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", text):
        with contextlib.suppress(ValueError):
            return decoder.raw_decode(text, match.start())[0], None
    if reply.finish_reason == "length":
        return None, "it was cut off at the token limit before the JSON was complete"
    return None, f"it holds no JSON object: {_shorten(reply.text)!r}"


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


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
