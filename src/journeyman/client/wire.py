"""Requests to a Journeyman server and its errors as ours. Paths and JSON only; their meaning is in `backend.py` and `models.py`."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from journeyman.errors import InputError, JourneymanError, ServiceError, SettingError, error_from_code
from journeyman.http_clients import proxy_note, redirect_of, without_credentials
from journeyman.llm.answers import words_of
from journeyman.llm.openai_client import open_openai, shared_client_class
from journeyman.types.json_text import check_json
from journeyman.types.record import Record
from journeyman.types.secrets import checked_key

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_R = TypeVar("_R")
_Asked = TypeVar("_Asked", bound=Record)

_CONNECT_TIMEOUT_SECONDS = 600.0


class Wire:
    """One connection (with its pool) to a Journeyman server.

    Args:
        url: where the server is, with or without a trailing `/v1`.
        api_key: the server's key, None when it needs none. Raises SettingError (malformed_key).
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = _base_url(url)
        self.api_key = "none" if api_key is None else checked_key(api_key, "the server's API key")
        self._client: AsyncOpenAI | None = None

    @property
    def shown(self) -> str:
        """The address for messages."""
        return without_credentials(self.url)

    @property
    def client(self) -> AsyncOpenAI:
        """An `openai.AsyncOpenAI` on the server's root; made when it is first needed, because importing openai takes a second."""
        if self._client is None:
            url, kind = f"{self.url}/", _keyed_class()
            self._client = open_openai(url, self.api_key, kind=kind, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
        return self._client

    async def get(self, path: str, kind: type[_R], *, query: Mapping[str, str] | None = None) -> _R:
        """GET `path` (no leading slash) as `kind`. Raises the error the server raised, or ServiceError."""
        check_json([path, dict(query or {})])
        return _parsed(await self._send("get", path, {"params": dict(query or {})}), kind, path, self.shown)

    async def post(self, path: str, body: Record, kind: type[_R], *, headers: Mapping[str, str] | None = None, unset: bool = True) -> _R:
        """POST a record; as `get`. With `unset=False` fields that were not given are left out, so that the server knows."""
        try:
            data = body.model_dump(mode="json", exclude_unset=not unset)
            check_json(data)
            json.dumps(data, allow_nan=False)
        except ValueError as error:  # pydantic's, for values that JSON cannot say
            raise InputError(f"what is sent to /{path} cannot be written as JSON: {error}", reason="not_json") from error
        return _parsed(await self._send("post", path, {"headers": dict(headers or {})}, data), kind, path, self.shown)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _send(self, method: str, path: str, options: Any, body: object = None) -> object:
        import openai

        try:
            if method == "get":
                return await self.client.get(path, cast_to=object, options=options)
            return await self.client.post(path, cast_to=object, body=body, options=options)
        except openai.APIStatusError as error:
            raise service_error(error, self.shown) from error
        except openai.APITimeoutError as error:
            text = f"the Journeyman server at {self.shown} did not answer {method.upper()} /{path} in time{proxy_note(self.url)}"
            raise ServiceError(text, reason="timeout") from error
        except openai.APIConnectionError as error:
            raise ServiceError(
                f"no Journeyman server at {self.shown}{proxy_note(self.url)}: {error.__cause__ or error}",
                hint="start one with `journeyman serve`, or give the address of one that runs",
                reason="unreachable",
            ) from error
        except (ValueError, RecursionError) as error:  # the library lets through what its JSON parser raises
            raise _not_journeyman(self.shown, "answers with something that is no JSON") from error


@functools.cache
def _keyed_class() -> type[AsyncOpenAI]:
    """AsyncOpenAI with its one public `post` overridden, so that every call has a key of its own, the same in all its tries: the server
    then knows which of several equal calls is tried again. Made when first needed, because openai is imported lazily."""
    parent: Any = shared_client_class()

    class KeyedOpenAI(parent):  # type: ignore[misc]  # a class that is made when it is needed
        async def post(self, path: str, **options: Any) -> Any:
            request = options.get("options") or {}
            headers = dict(request.get("headers") or {})
            if not any(name.lower() == "idempotency-key" for name in headers):
                headers["Idempotency-Key"] = uuid.uuid4().hex
            return await super().post(path, **{**options, "options": {**request, "headers": headers}})

    return KeyedOpenAI


def service_error(error: APIStatusError, url: str) -> JourneymanError:
    """The error a server answered with: the class it raised there, or a ServiceError."""
    target = redirect_of(error.response)
    if target is not None:
        return _not_journeyman(url, f"redirects to {target}, which is not followed", reason="redirected")
    body = error.body if isinstance(error.body, dict) else {}
    if error.status_code in (404, 405, 501) and "message" not in body:
        return _not_journeyman(url, f"answers {error.status_code}")
    text = words_of(error.body) or error.message
    known = error_from_code(str(body.get("code")), text, body.get("reason"))
    if known is not None:
        return known
    hint = None
    if error.status_code in (401, 403):
        hint = "give the server's API key: connect(url, api_key=...)"
    elif error.status_code == 404:
        hint = f"is {url} a Journeyman server, and as new as this client?"
    code = body.get("code")
    return ServiceError(
        f"the server at {url} answered {error.status_code}: {text}",
        status=error.status_code,
        code=None if code is None else str(code),
        hint=hint,
        reason=body.get("reason"),
    )


def _not_journeyman(url: str, what: str, reason: str = "not_journeyman") -> ServiceError:
    error = ServiceError(
        f"{url} is not a Journeyman server: it {what}", hint="give the address that `journeyman serve` prints", reason=reason
    )
    error.exit_code = SettingError.exit_code
    return error


def asked(kind: type[_Asked], /, **fields: Any) -> _Asked:
    """What is asked of the server, as a record. Raises SettingError that names what does not fit."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise SettingError(f"{name}: {first['msg']} (given: {first['input']!a:.80})", reason="wrong_request") from error


def _base_url(url: str) -> str:
    trimmed = url.strip().rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(trimmed)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one:
        error = ServiceError(
            f"{without_credentials(url)!r} is not the address of a server", hint="write it like http://127.0.0.1:8100", reason="no_url"
        )
        error.exit_code = SettingError.exit_code
        raise error
    return trimmed


def _parsed(data: object, kind: type[_R], path: str, url: str) -> _R:
    if not isinstance(data, dict | list):
        raise _not_journeyman(url, f"answers with {'a web page or a text' if isinstance(data, str) else 'no object'}")
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise ServiceError(
            f"the answer of {url} to /{path} is not what this client understands: {error.errors()[0]['msg']}",
            hint=f"is {url} a Journeyman server, and of the same version as this client?",
            reason="unknown_answer",
        ) from error
