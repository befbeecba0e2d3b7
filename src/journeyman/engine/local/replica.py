"""The parent's handle of one engine process: starts it, talks to it, and says why it ended. Not for choosing among several.

Parent and process say `Call` and `Answer` to each other, over a pipe of pickled objects that only the two of them have.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from journeyman.errors import EngineError, WaitTimeoutError
from journeyman.modeling.base_models import BaseModel
from journeyman.types.sampling import EngineInfo, SampleDelta, SampleRequest

CommandName = Literal["load_adapter", "unload_adapter", "sleep", "wake"]

_MODULE = "journeyman.engine.local.replica_process"
_END_SECONDS = 10.0
#: With something to answer. Longer than the longest reply takes: one that is not streamed comes whole.
SILENCE_TIMEOUT_SECONDS = 3600.0

_log = logging.getLogger(__name__)

Deliver = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Call:
    """Call this method of the engine. Answered under its number.

    `create` comes first, with keyword arguments of `LocalEngine.create`; `deltas` takes a request and whether to stream. Without an answer:
    `cancel`, nobody waits for the answer to this number any more; and `close`, the last one.
    """

    number: int
    name: CommandName | Literal["create", "deltas", "cancel", "close"]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned, or the JourneymanError that it raised. Only `deltas` has several; they end with a finish_reason or an error."""

    number: int
    value: EngineInfo | SampleDelta | str | Exception | None

    @property
    def is_last(self) -> bool:
        return not isinstance(self.value, SampleDelta) or self.value.finish_reason is not None


class Replica:
    """One engine process. `wait_until_ready` comes first; then `sample`, `cancel` and `call` may be used from any thread.

    Args:
        settings: keyword arguments of `LocalEngine.create`.
        number, count: "engine process 1 of 2", for messages.
    """

    def __init__(self, base: BaseModel, settings: dict[str, Any], number: int, count: int) -> None:
        self.name = f"engine process {number} of {count}"
        self.failure: EngineError | None = None
        self._base = base
        self._heard_at = time.monotonic()
        self._numbers = itertools.count()
        self._waiting: dict[int, Deliver] = {}
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start(theirs)
        self._info: Future[EngineInfo] = self._ask("create", base, settings)[1]
        self._threads = [threading.Thread(target=work, name=self.name, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting)

    def wait_until_ready(self, deadline: float) -> EngineInfo:
        """What was loaded. Raises what loading raised, or WaitTimeoutError when `deadline` (of time.monotonic) passes."""
        begin = time.monotonic()
        try:
            return self._info.result(max(0.0, deadline - begin))
        except TimeoutError as error:
            raise WaitTimeoutError(
                f"{self.name} did not load {self._base.name} within {time.monotonic() - begin:.0f} s",
                hint="the machine may be busy or short of memory: use fewer engine processes, or 0 to draw in the server's process",
            ) from error

    def sample(self, request: SampleRequest, deliver: Deliver, *, is_streaming: bool) -> int:
        """Begin; `deliver` is called from another thread with each delta, or with the error. Returns the number to cancel it by."""
        return self._send("deltas", (request, is_streaming), deliver)

    def check(self) -> None:
        """Raises what ended the process, or WaitTimeoutError when it has been silent for so long that it is stuck."""
        if self.failure is not None:
            raise self.failure
        seconds = time.monotonic() - self._heard_at
        if seconds > SILENCE_TIMEOUT_SECONDS:
            raise WaitTimeoutError(f"{self.name} (process {self.pid}) has not answered anything for {seconds:.0f} s", hint="start again")

    def cancel(self, number: int) -> None:
        """Forget a sample; one that has ended is none."""
        with self._lock:
            is_running = self._waiting.pop(number, None) is not None
        if is_running:
            self._outbox.put(Call(number, "cancel"))

    async def call(self, name: CommandName, *arguments: str | Path, timeout_seconds: float) -> str | None:
        """Call a method of the engine there. Raises what it raises, or WaitTimeoutError."""
        number, future = self._ask(name, *arguments)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise WaitTimeoutError(f"{self.name} did not answer to {name} within {timeout_seconds:.0f} s") from error
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def post(self, name: CommandName) -> None:
        """As `call`, for whoever cannot wait for an answer. A process that has ended does nothing any more."""
        with contextlib.suppress(EngineError):
            self._ask(name)

    def end(self) -> None:
        """End the process, at the latest after some seconds by force; what runs fails. Blocks. Idempotent."""
        is_ready = self._info.done() and self._info.exception() is None
        self._fail(EngineError("the engine was closed"))
        self._outbox.put(Call(0, "close"))
        if not is_ready:
            self._process.kill()  # it is loading, or never began
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_SECONDS)
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._connection.close()

    def _ask(self, name: CommandName | Literal["create"], *arguments: Any) -> tuple[int, Future[Any]]:
        """The number of a call, and its result."""
        future: Future[Any] = Future()

        def deliver(value: Any) -> None:
            if not future.set_running_or_notify_cancel():
                return  # nobody waits any more
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)

        return self._send(name, arguments, deliver), future

    def _send(self, name: CommandName | Literal["create", "deltas"], arguments: tuple[Any, ...], deliver: Deliver) -> int:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if not self._waiting:
                self._heard_at = time.monotonic()
            number = next(self._numbers)
            self._waiting[number] = deliver
            self._outbox.put(Call(number, name, arguments))
        return number

    def _write(self) -> None:
        # In a thread of its own: a full pipe must not stop the event loop.
        while True:
            call = self._outbox.get()
            try:
                self._connection.send(call)
            except OSError:
                return  # the process ended: the reader says so
            except Exception as error:  # noqa: BLE001 - what cannot be sent fails alone, the writer lives
                wrapped = EngineError(f"{self.name} cannot be asked: {type(error).__name__}: {error}")
                self._deliver(Answer(call.number, wrapped))
            if call.name == "close":
                return

    def _read(self) -> None:
        while True:
            try:
                answer: Answer = self._connection.recv()
            except (EOFError, OSError):
                return self._end_reading(self._ended())
            except Exception as error:  # noqa: BLE001 - the thread's top handler: it becomes the error of whoever waits
                return self._end_reading(EngineError(f"{self.name} (process {self.pid}) said what nobody understands: {error!r}"))
            self._heard_at = time.monotonic()
            self._deliver(answer)

    def _end_reading(self, error: EngineError) -> None:
        self._fail(error)
        self._outbox.put(Call(0, "close"))

    def _deliver(self, answer: Answer) -> None:
        with self._lock:
            deliver = self._waiting.pop(answer.number, None) if answer.is_last else self._waiting.get(answer.number)
        if deliver is not None:  # else cancelled meanwhile
            self._pass_on(deliver, answer.value)

    def _pass_on(self, deliver: Deliver, value: object) -> None:
        try:
            deliver(value)
        except Exception:  # noqa: BLE001 - that caller's; the others get theirs
            _log.exception("an answer of %s reached nobody", self.name)

    def _fail(self, error: EngineError) -> None:
        with self._lock:
            self.failure = self.failure or error
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for deliver in waiting:
            self._pass_on(deliver, error)

    def _ended(self) -> EngineError:
        """The pipe is closed: why."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return EngineError(f"{self.name} (process {self.pid}) does not answer any more")
        if code < 0:
            with contextlib.suppress(ValueError):
                return EngineError(
                    f"{self.name} (process {self.pid}) was ended by {signal.Signals(-code).name}",
                    hint="SIGKILL mostly means that memory ran out: use fewer engine processes (JOURNEYMAN_ENGINE_PROCESSES)",
                )
        return EngineError(f"{self.name} (process {self.pid}) ended with exit code {code}", hint="it wrote why to stderr; start again")


def _start(theirs: Connection[Any, Any]) -> subprocess.Popen[bytes]:
    """A new interpreter (not a copy of this one, and not the user's main module again) that holds one end of the pipe.

    Its own session: Ctrl-C is for the parent. `-P`: the working folder is no place to import from.
    """
    command = [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())]
    try:
        return subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
    except OSError as error:
        raise EngineError(f"cannot start an engine process with {sys.executable!r}: {error}") from error


def _environment() -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    root = str(Path(__file__).resolve().parents[3])
    # Where the package is installed, the interpreter finds it; elsewhere (a source tree on sys.path) it has to be told.
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment
