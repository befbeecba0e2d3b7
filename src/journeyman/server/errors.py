"""Every error of the server in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`. The top handler of requests.

SDKs retry 408, 409, 429 and 5xx; so what a retry cannot mend is another 4xx, or says `x-should-retry: false`.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ExceptionHandler

from journeyman.errors import (
    AdapterError,
    ContextLengthError,
    InputError,
    JourneymanError,
    NotFoundError,
    ServiceError,
    StoreError,
    TrainingError,
    WaitTimeoutError,
    error_code,
)

_log = logging.getLogger(__name__)

# The most special class first.
_STATUSES: tuple[tuple[type[JourneymanError], int], ...] = (
    (NotFoundError, 404),
    (InputError, 400),
    (WaitTimeoutError, 504),
    (JourneymanError, 500),
)
CLIENT_IS_GONE = 499
_NOT_MENDED_BY_RETRYING = (AdapterError, StoreError, TrainingError)


class BadRequestError(InputError):
    """The request's body cannot be read; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.param = param


def status_of(error: JourneymanError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ServiceError) and error.status is not None:
        return error.status
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def error_body(error: JourneymanError) -> dict[str, Any]:
    """OpenAI's error object; the message carries the hint, the code names the class for our own client, the reason what was wrong."""
    param = "messages" if isinstance(error, ContextLengthError) else getattr(error, "param", None)
    body = {"message": str(error), "type": _type(status_of(error)), "param": param, "code": error_code(error)}
    return {"error": body if error.reason is None else {**body, "reason": error.reason}}


def error_response(error: JourneymanError) -> JSONResponse:
    headers = {"x-should-retry": "false"} if isinstance(error, _NOT_MENDED_BY_RETRYING) else None
    return JSONResponse(error_body(error), status_code=status_of(error), headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make every failure of `app` answer in OpenAI's shape."""
    handlers: dict[type[Exception], ExceptionHandler] = {
        JourneymanError: _on_our_error,
        HTTPException: _on_http_exception,
        ClientDisconnect: _on_hang_up,
        RequestValidationError: _on_wrong_query,
        Exception: _on_anything_else,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, JourneymanError)
    if status_of(error) >= 500:
        _log.error("%s %s failed: %s", request.method, request.url.path, error)
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is no {request.method} {request.url.path} here"
    return JSONResponse(
        {"error": {"message": message, "type": _type(error.status_code), "param": None, "code": None}},
        status_code=error.status_code,
        headers=dict(error.headers or {}),
    )


async def _on_wrong_query(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return error_response(BadRequestError(f"{name}: {first['msg']}", name, reason="invalid_value"))


async def _on_hang_up(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_IS_GONE)  # while its body was read; nobody reads the answer


async def _on_anything_else(request: Request, error: Exception) -> JSONResponse:
    # uvicorn logs the traceback; the caller gets the class only, not our internals.
    message = f"internal error while answering {request.method}: {type(error).__name__}"
    return JSONResponse({"error": {"message": message, "type": "server_error", "param": None, "code": "failed"}}, status_code=500)


def _type(status: int) -> str:
    if status in (401, 403):
        return "authentication_error"
    return "invalid_request_error" if status < 500 else "server_error"
