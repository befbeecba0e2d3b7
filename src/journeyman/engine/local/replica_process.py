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
from journeyman.engine.local.replica_messages import Cancel, Close, Command, Done, Failed, Instruction, Load, Ready, Start, Tokens
from journeyman.errors import EngineError, JourneymanError
from journeyman.modeling.devices import keep_freed_memory, return_freed_memory
from journeyman.types.sampling import SampleDelta


class ReplicaServer:
    """Serves one engine to the other end of a pipe. For one event loop."""

    def __init__(self, engine: LocalEngine, connection: Connection[Any, Any]) -> None:
        self._engine = engine
        self._connection = connection
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, inbox: asyncio.Queue[Instruction]) -> None:
        """Do what arrives until `Close`."""
        while not isinstance(instruction := await inbox.get(), Close):
            if isinstance(instruction, Cancel):
                await self._cancel(instruction.number)
                continue
            assert isinstance(instruction, Start | Command)
            task = asyncio.create_task(self._answer(instruction))
            self._running[instruction.number] = task
        await self._engine.close()

    async def _cancel(self, number: int) -> None:
        """Waits until the task is gone: a command that follows must not find its adapter in use."""
        task = self._running.pop(number, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _answer(self, instruction: Start | Command) -> None:
        try:
            if isinstance(instruction, Start):
                await self._sample(instruction)
            else:
                self._connection.send(Done(instruction.number, await self._command(instruction)))
        except JourneymanError as error:
            self._connection.send(Failed.of(instruction.number, error))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the process's top handler: the request fails (its code may panic), the process lives
            wrapped = EngineError(f"the engine failed: {type(error).__name__}: {error}")
            self._connection.send(Failed.of(instruction.number, wrapped))
        finally:
            self._running.pop(instruction.number, None)

    async def _sample(self, start: Start) -> None:
        if start.is_streaming:
            async with contextlib.aclosing(self._engine.stream(start.request)) as deltas:
                async for delta in deltas:
                    self._connection.send(Tokens(start.number, delta))
        else:
            sample = await self._engine.sample(start.request)
            self._connection.send(Tokens(start.number, SampleDelta(sample.token_ids, sample.logprobs, sample.finish_reason)))

    async def _command(self, command: Command) -> str | None:
        value: str | None = await getattr(self._engine, command.name)(*command.arguments)
        if command.name == "sleep":
            # The trainer works in another process: what is free here is of no use to it until the kernel has it.
            return_freed_memory()
        return value


async def run(connection: Connection[Any, Any]) -> None:
    """Load what the first message names and serve it until the parent closes or ends."""
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[Instruction] = asyncio.Queue()

    def read() -> None:
        # From the start, so that a parent that ends while the model is loaded leaves no orphan.
        while True:
            try:
                instruction = connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            loop.call_soon_threadsafe(inbox.put_nowait, instruction)
            if isinstance(instruction, Close):
                return

    threading.Thread(target=read, name="pipe-reader", daemon=True).start()
    keep_freed_memory()
    load = await inbox.get()
    assert isinstance(load, Load)
    try:
        engine = await asyncio.to_thread(_create, load)
    except JourneymanError as error:
        connection.send(Failed.of(0, error))
        return
    return_freed_memory()
    connection.send(Ready(engine.info))
    await ReplicaServer(engine, connection).serve(inbox)


def _create(load: Load) -> LocalEngine:
    return LocalEngine.create(
        load.base, device=load.device, precision=load.precision, max_rows=load.max_rows, cache_gigabytes=load.cache_gigabytes
    )


def main() -> None:
    # A parent that is gone takes no answers; its pipe's reader ends this process.
    with contextlib.suppress(BrokenPipeError), Connection(int(sys.argv[1])) as connection:
        asyncio.run(run(connection))


if __name__ == "__main__":
    main()
