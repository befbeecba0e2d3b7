"""The `openai.AsyncOpenAI` that we use for models of others: it learns which parameters a model takes, checks every answer, and keeps to
our rules for proxies and redirects. Not for our own server's API (`client/wire.py`), nor for reading an answer (`answers.py`).

`openai` is imported when a client is opened: that takes a second.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from journeyman.config import checked_header, checked_key, environment, environment_key
from journeyman.errors import LlmSettingError, SettingError
from journeyman.http_clients import open_http_client, proxy_note, redirect_of, without_credentials
from journeyman.llm.answers import check_stream, give_error_its_status, read_answer
from journeyman.llm.dialect import Dialect

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_OPENAI_URL = "https://api.openai.com/v1"
_COMPLETIONS = "/completions"
_RAW_HEADER = "x-stainless-raw-response"
_NO_STREAMS = ("html", "json", "xml")


def open_openai(
    base_url: str | None,
    api_key: str | None,
    *,
    kind: type[AsyncOpenAI] | None = None,
    timeout_seconds: float = 600.0,
    max_retries: int = 2,
) -> AsyncOpenAI:
    """A client for the server at `base_url`; whoever opens it closes it.

    Args:
        base_url: up to and including `/v1`; None: OPENAI_BASE_URL, or OpenAI itself.
        api_key: None: OPENAI_API_KEY, which must be set then. For a server that needs none give any text.
        kind: `model_client_class()` when None.

    Raises LlmSettingError: no_url, missing_key, malformed_key, bad_proxy.
    """
    import openai

    url = (base_url or environment("OPENAI_BASE_URL") or _OPENAI_URL).strip()
    try:
        _check_url(url)
        key = environment_key("OPENAI_API_KEY") if api_key is None else checked_key(api_key, "the API key")
        if key is None:
            raise SettingError(
                "this model needs an API key", hint="set OPENAI_API_KEY, or give Model(..., api_key=...)", reason="missing_key"
            )
        # The library sends these too, and as they are.
        organization, project = environment_key("OPENAI_ORG_ID"), environment_key("OPENAI_PROJECT_ID")
        for line in (environment("OPENAI_CUSTOM_HEADERS") or "").split("\n"):
            name, colon, value = line.partition(":")
            if colon:
                checked_header(name, value, "OPENAI_CUSTOM_HEADERS")
        http_client = open_http_client(url, openai.DefaultAsyncHttpxClient, timeout=timeout_seconds)
    except SettingError as error:
        raise LlmSettingError(error.message, hint=error.hint, reason=error.reason) from error
    hooks = http_client.event_hooks
    http_client.event_hooks = {**hooks, "response": [*hooks["response"], give_error_its_status]}
    return (kind or model_client_class())(
        base_url=url,
        api_key=key,
        organization=organization,
        project=project,
        timeout=timeout_seconds,
        max_retries=max_retries,
        http_client=http_client,
    )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0 and url.isprintable() and " " not in url
        )
    except ValueError:
        is_one = False
    if not is_one:
        shown = without_credentials(url)
        raise SettingError(f"{shown!r} is not the address of a server", hint="write it like http://host:8000/v1", reason="no_url")


@functools.cache
def shared_client_class() -> type[AsyncOpenAI]:
    """AsyncOpenAI whose copies (`with_options`) share its connections for good: `async with` over one of them closes nothing.

    `dialects`: what was learnt of each model that it or a copy of it called.
    """
    import openai

    class SharedOpenAI(openai.AsyncOpenAI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dialects: dict[str, Dialect] = {}
            self.is_borrowing = False

        def copy(self, **options: Any) -> Any:
            copied = super().copy(**options)
            copied.dialects, copied.is_borrowing = self.dialects, options.get("http_client") is None
            return copied

        def with_options(self, **options: Any) -> Any:
            return self.copy(**options)

        async def close(self) -> None:
            if not self.is_borrowing:
                await super().close()

    return SharedOpenAI


@functools.cache
def model_client_class() -> type[AsyncOpenAI]:
    """`shared_client_class()` with its one public `post` overridden."""
    import openai

    parent: Any = shared_client_class()

    class ModelOpenAI(parent):  # type: ignore[misc]  # a class that is made when it is needed
        async def post(self, path: str, **options: Any) -> Any:
            body = options.get("body")
            if not path.endswith(_COMPLETIONS) or not isinstance(body, dict):
                return await super().post(path, **options)
            dialect = self._dialect(body)
            while True:
                sent = dialect.body(body)
                try:
                    return await _checked_answer(super().post, path, {**options, "body": sent}, dialect.where, str(self.base_url))
                except openai.APIStatusError as error:
                    check_redirect(error, dialect.where)
                    if not _is_learnt(dialect, error, sent):
                        raise
                except openai.APIConnectionError as error:
                    error.args = (f"{error}{proxy_note(str(self.base_url))}",)  # the library says "Connection error." and no more
                    raise

        def as_sent(self, body: dict[str, Any]) -> dict[str, Any]:
            """A call's body without what its model was found not to take."""
            return self._dialect(body).body(body)

        def _dialect(self, body: dict[str, Any]) -> Dialect:
            model = str(body.get("model"))
            where = f"model {model!r} at {without_credentials(str(self.base_url)).rstrip('/')}"
            dialects: dict[str, Dialect] = self.dialects
            return dialects.setdefault(model, Dialect(where))

    return ModelOpenAI


def _is_learnt(dialect: Dialect, error: APIStatusError, sent: dict[str, Any]) -> bool:
    """Whether a refused call is worth another try."""
    is_refusal = error.status_code in (400, 422) and error.code != "context_length_exceeded"
    return is_refusal and dialect.learn(error.message, sent, code=error.code, param=error.param)


async def _checked_answer(post: Callable[..., Awaitable[Any]], path: str, options: dict[str, Any], where: str, base_url: str) -> Any:
    """The answer of one call; whoever asks for the raw response gets it unchecked. Raises LlmError as `answers.read_answer`."""
    given, url = dict(options.get("options") or {}), without_credentials(base_url)
    if any(name.lower() == _RAW_HEADER for name in given.get("headers") or {}):
        return await post(path, **options)
    if options.get("stream"):
        stream = await post(path, **options)
        content_type = stream.response.headers.get("content-type", "")
        if any(word in content_type for word in _NO_STREAMS):
            async with stream:
                check_stream(content_type, await stream.response.aread(), where, url)
        return stream
    finish = given.pop("post_parser", None)  # of the library, for replies that it parses itself
    raw = await post(path, **{**options, "options": given, "cast_to": bytes})
    answer = options["cast_to"].construct(**read_answer(raw, where, url, is_chat=path.endswith("/chat" + _COMPLETIONS)))
    return finish(answer) if callable(finish) else answer


def omitted_of(client: object, model: str) -> tuple[str, ...]:
    """The parameters of sampling that calls of `client` to a model were found to be refused, and are made without."""
    dialect: Dialect | None = getattr(client, "dialects", {}).get(model)
    return () if dialect is None else dialect.omitted


def check_redirect(error: APIStatusError, where: str) -> None:
    """Raise LlmSettingError (redirected) when an error is a redirect that was not followed."""
    target = redirect_of(error.response)
    if target is not None:
        hint = "nothing was sent there: if that server is the right one, give its address as the base URL"
        raise LlmSettingError(f"{where} redirects to {target}", hint=hint, reason="redirected") from error
