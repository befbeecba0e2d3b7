"""A call of HTTP: its body read, its answer waited for while the client is there, cancelled when the client is gone, kept alive while a
stream is silent.

Bodies are read by hand: errors have our own shape, and foreign clients send any content type. Not for what a body means.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

from journeyman.errors import InputError, JourneymanError
from journeyman.server.errors import CLIENT_IS_GONE, BadRequestError, error_body
from journeyman.types.json_text import parse_json

_Parsed = TypeVar("_Parsed")
_Reply = TypeVar("_Reply")
_Arrived = str | asyncio.Task[None]

# A stream's status cannot be changed once it began; errors mostly come at once, so its first bytes wait this long.
_BEFORE_STREAM_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 10.0
_KEEP_ALIVE = ": keep-alive\n\n"


async def read_body(request: Request, kind: type[_Parsed] | TypeAdapter[_Parsed]) -> tuple[_Parsed, str]:
    """(the body as `kind`, a hash of its bytes). Raises BadRequestError that names the field."""
    raw = await request.body()
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        value = parse_json(raw)
    except InputError as error:
        raise BadRequestError(f"the body: {error.message}", reason=error.reason) from error
    try:
        return adapter.validate_python(value), hashlib.sha256(raw).hexdigest()
    except ValidationError as error:
        raise _bad_request(error) from error


def records(values: Sequence[BaseModel]) -> Response:
    """Records as a JSON list."""
    return JSONResponse([value.model_dump(mode="json") for value in values])


def record(value: BaseModel, status: int = 200) -> Response:
    """A record as a JSON response."""
    return Response(value.model_dump_json(), status_code=status, media_type="application/json")


async def answer(request: Request, work: Coroutine[Any, Any, _Reply], respond: Callable[[_Reply], Response]) -> Response:
    """Do `work` and respond with its result; cancel it when the client hangs up."""
    async with _watched(request, work) as (task, gone):
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return respond(task.result()) if task.done() else Response(status_code=CLIENT_IS_GONE)


async def stream(request: Request, chunks: AsyncGenerator[str]) -> Response:
    """Send `chunks` as server-sent events, with comment lines while there is nothing to send; close them when the client hangs up."""
    arrived: asyncio.Queue[_Arrived] = asyncio.Queue()

    async def collect() -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                arrived.put_nowait(chunk)

    # One task runs the chunks from beginning to end; another watches the client. Both report when they end.
    collecting, gone = asyncio.create_task(collect()), asyncio.create_task(_until_gone(request))
    for task in (collecting, gone):
        task.add_done_callback(arrived.put_nowait)
    try:
        first = await _next(arrived, _BEFORE_STREAM_SECONDS)
        if first is collecting:
            collecting.result()  # an error gets its own status
    except BaseException:
        await _end(collecting, gone)
        raise

    async def body() -> AsyncIterator[str]:
        item = first
        try:
            while not isinstance(item, asyncio.Task):
                yield _KEEP_ALIVE if item is None else item
                item = await _next(arrived, _KEEP_ALIVE_SECONDS)
            if item is collecting:
                try:
                    collecting.result()
                except JourneymanError as error:
                    yield event(error_body(error))
        finally:
            await _end(collecting, gone)

    return StreamingResponse(body(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _bad_request(error: ValidationError) -> BadRequestError:
    first = error.errors(include_url=False)[0]
    # Our own validators say more exactly where it is, and name what is wrong by the error's type.
    path = first.get("ctx", {}).get("path")
    field = _name((*first["loc"], *(path or ())))
    message = first["msg"].removeprefix("Value error, ")
    reason = "invalid_value" if path is None else first["type"]
    return BadRequestError(f"{field}: {message}" if field else message, field or None, reason=reason)


def _name(path: Sequence[str | int]) -> str:
    """A place in a body as OpenAI writes it: `messages[0].content[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


async def _next(arrived: asyncio.Queue[_Arrived], seconds: float) -> _Arrived | None:
    """What arrives next, None when nothing does in that time."""
    try:
        return await asyncio.wait_for(arrived.get(), seconds)
    except TimeoutError:
        return None


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _watched(request: Request, work: Coroutine[Any, Any, _Reply]) -> AsyncIterator[tuple[asyncio.Task[_Reply], asyncio.Task[None]]]:
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_until_gone(request))
    try:
        yield task, gone
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    # The body has been read: what comes next can only be the disconnect.
    while (await request.receive())["type"] != "http.disconnect":
        pass
