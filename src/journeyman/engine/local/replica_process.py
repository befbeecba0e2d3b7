"""An engine process: one `LocalEngine` that does what its parent says over a pipe. `python -m journeyman.engine.local.replica_process FD`.

It ends when the parent closes the pipe, however the parent ended. Not for use by hand: see `journeyman.engine.local.replicas`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from journeyman.engine.local.engine import LocalEngine
from journeyman.engine.local.replica import Answer, Call
from journeyman.engine.local.rows import as_ours
from journeyman.errors import JourneymanError
from journeyman.modeling.devices import keep_freed_memory, return_freed_memory


class ReplicaServer:
    """Serves one engine to the other end of a pipe. For one event loop."""

    def __init__(self, engine: LocalEngine, connection: Connection[Any, Any]) -> None:
        self._engine = engine
        self._connection = connection
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, inbox: asyncio.Queue[Call]) -> None:
        """Do what arrives until `close`."""
        while (call := await inbox.get()).name != "close":
            if call.name == "cancel":
                await self._cancel(call.number)
            else:
                self._running[call.number] = asyncio.create_task(self._answer(call))
        await self._engine.close()

    async def _cancel(self, number: int) -> None:
        """Waits until the task is gone: a command that follows must not find its adapter in use."""
        task = self._running.pop(number, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _answer(self, call: Call) -> None:
        try:
            if call.name == "deltas":
                request, is_streaming = call.arguments
                async with contextlib.aclosing(self._engine.deltas(request, is_streaming=is_streaming)) as deltas:
                    async for delta in deltas:
                        self._connection.send(Answer(call.number, delta))
            else:
                value = await getattr(self._engine, call.name)(*call.arguments)
                if call.name == "sleep":
                    # The trainer works in another process: what is free here is of no use to it until the kernel has it.
                    return_freed_memory()
                self._connection.send(Answer(call.number, value))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the process's top handler: the request fails (its code may panic), the process lives
            self._connection.send(Answer(call.number, as_ours(error)))
        finally:
            self._running.pop(call.number, None)


async def run(connection: Connection[Any, Any]) -> None:
    """Load what the first call names and serve it until the parent closes or ends."""
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[Call] = asyncio.Queue()

    def read() -> None:
        # From the start, so that a parent that ends while the model is loaded leaves no orphan.
        while True:
            try:
                call = connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            loop.call_soon_threadsafe(inbox.put_nowait, call)
            if call.name == "close":
                return

    threading.Thread(target=read, name="pipe-reader", daemon=True).start()
    keep_freed_memory()
    create = await inbox.get()
    base, settings = create.arguments
    try:
        engine = await asyncio.to_thread(LocalEngine.create, base, **settings)
    except JourneymanError as error:
        connection.send(Answer(create.number, error))
        return
    return_freed_memory()
    connection.send(Answer(create.number, engine.info))
    await ReplicaServer(engine, connection).serve(inbox)


def main() -> None:
    # A parent that is gone takes no answers; its pipe's reader ends this process.
    with contextlib.suppress(BrokenPipeError), Connection(int(sys.argv[1])) as connection:
        asyncio.run(run(connection))


if __name__ == "__main__":
    main()
