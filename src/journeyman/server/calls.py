"""Waiting for an answer while its client is there: cancelled when the client is gone, kept alive while a stream is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from journeyman.errors import JourneymanError
from journeyman.server.errors import error_body
from journeyman.server.wire import KEEP_ALIVE, event

_Reply = TypeVar("_Reply")

# A stream's status cannot be changed once it began; errors mostly come at once, so its first bytes wait this long.
_BEFORE_STREAM_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 10.0
_CLIENT_IS_GONE = 499  # nobody reads it


async def answer(request: Request, work: Coroutine[Any, Any, _Reply], respond: Callable[[_Reply], Response]) -> Response:
    """Do `work` and respond with its result; cancel it when the client hangs up."""
    async with _watched(request, work) as (task, gone):
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return respond(task.result()) if task.done() else Response(status_code=_CLIENT_IS_GONE)


async def stream(request: Request, work: Coroutine[Any, Any, _Reply], chunks: Callable[[_Reply], Iterator[str]]) -> Response:
    """As `answer`, in server-sent events, with comment lines while there is nothing to send yet."""
    watch = _watched(request, work)
    task, gone = await watch.__aenter__()
    try:
        await asyncio.wait({task, gone}, timeout=_BEFORE_STREAM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # an error gets its own status
    except BaseException:
        await watch.__aexit__(None, None, None)
        raise

    async def body() -> AsyncIterator[str]:
        try:
            while not task.done() and not gone.done():
                yield KEEP_ALIVE
                await asyncio.wait({task, gone}, timeout=_KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return
            try:
                reply = task.result()
            except JourneymanError as error:
                yield event(error_body(error))
                return
            for chunk in chunks(reply):
                yield chunk
        finally:
            await watch.__aexit__(None, None, None)

    return StreamingResponse(body(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


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
