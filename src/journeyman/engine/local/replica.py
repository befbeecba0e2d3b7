"""The parent's handle of one engine process: starts it, talks to it, and says why it ended. Not for choosing among several."""

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
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from journeyman.engine.local.replica_messages import (
    Answer,
    Cancel,
    Close,
    Command,
    CommandName,
    Done,
    Failed,
    Instruction,
    Load,
    Ready,
    Start,
    Tokens,
)
from journeyman.engine.local.rows import into
from journeyman.errors import EngineError, WaitTimeoutError
from journeyman.types.sampling import EngineInfo, SampleDelta, SampleRequest

_MODULE = "journeyman.engine.local.replica_process"
_END_SECONDS = 10.0
#: With something to answer. Longer than the longest reply takes: one that is not streamed comes whole.
SILENCE_TIMEOUT_SECONDS = 3600.0

_log = logging.getLogger(__name__)

Deliver = Callable[[SampleDelta | str | Exception | None], None]


class Replica:
    """One engine process. `wait_until_ready` comes first; then `sample`, `cancel` and `call` may be used from any thread.

    Args:
        number, count: "engine process 1 of 2", for messages.
    """

    def __init__(self, load: Load, number: int, count: int) -> None:
        self.name = f"engine process {number} of {count}"
        self.failure: EngineError | None = None
        self._load = load
        self._is_ready = False
        self._heard_at = time.monotonic()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Deliver] = {}
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[Instruction] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, name=self.name, daemon=True) for work in (self._write, self._read)]
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start(theirs)
        self._outbox.put(load)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting)

    def wait_until_ready(self, deadline: float) -> EngineInfo:
        """What was loaded. Raises what loading raised, or WaitTimeoutError when `deadline` (of time.monotonic) passes."""
        begin = time.monotonic()
        self._threads[0].start()
        if not self._connection.poll(max(0.0, deadline - begin)):
            raise WaitTimeoutError(
                f"{self.name} did not load {self._load.base.name} within {time.monotonic() - begin:.0f} s",
                hint="the machine may be busy or short of memory: use fewer engine processes, or 0 to draw in the server's process",
            )
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, Failed):
            raise answer.error()
        assert isinstance(answer, Ready)
        self._threads[1].start()
        self._is_ready = True
        return answer.info

    def sample(self, request: SampleRequest, deliver: Deliver, *, is_streaming: bool) -> int:
        """Begin; `deliver` is called from another thread with each delta, or with the error. Returns the number to cancel it by."""
        return self._ask(lambda number: Start(number, request, is_streaming), deliver)

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
            self._outbox.put(Cancel(number))

    async def call(self, name: CommandName, *arguments: str | Path, timeout_seconds: float) -> str | None:
        """Call a method of the engine there. Raises what it raises, or WaitTimeoutError."""
        answers: asyncio.Queue[Any] = asyncio.Queue()
        number = self._ask(lambda number: Command(number, name, arguments), into(answers))
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await answers.get()
        except TimeoutError as error:
            raise WaitTimeoutError(f"{self.name} did not answer to {name} within {timeout_seconds:.0f} s") from error
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def post(self, name: CommandName) -> None:
        """As `call`, for whoever cannot wait for an answer. A process that has ended does nothing any more."""
        with contextlib.suppress(EngineError):
            self._ask(lambda number: Command(number, name), lambda _: None)

    def end(self) -> None:
        """End the process, at the latest after some seconds by force; what runs fails. Blocks. Idempotent."""
        self._fail(EngineError("the engine was closed"))
        self._outbox.put(Close())
        if not self._is_ready:
            self._process.kill()  # it is loading, or never began
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_SECONDS)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_END_SECONDS)
        self._connection.close()

    def _ask(self, message: Callable[[int], Instruction], deliver: Deliver) -> int:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if not self._waiting:
                self._heard_at = time.monotonic()
            number = next(self._numbers)
            self._waiting[number] = deliver
            self._outbox.put(message(number))
        return number

    def _write(self) -> None:
        # In a thread of its own: a full pipe must not stop the event loop.
        while True:
            instruction = self._outbox.get()
            try:
                self._connection.send(instruction)
            except OSError:
                return  # the process ended: the reader says so
            except Exception as error:  # noqa: BLE001 - what cannot be sent fails alone, the writer lives
                wrapped = EngineError(f"{self.name} cannot be asked: {type(error).__name__}: {error}")
                self._deliver(Failed.of(instruction.number if isinstance(instruction, Start | Command) else 0, wrapped))
            if isinstance(instruction, Close):
                return

    def _read(self) -> None:
        while True:
            try:
                answer: Answer = self._connection.recv()
            except (EOFError, OSError):
                return self._end_reading(self._ended())
            except Exception as error:  # noqa: BLE001 - the thread's top handler: whoever waits is told
                return self._end_reading(EngineError(f"{self.name} (process {self.pid}) said what nobody understands: {error!r}"))
            self._heard_at = time.monotonic()
            self._deliver(answer)

    def _end_reading(self, error: EngineError) -> None:
        self._fail(error)
        self._outbox.put(Close())

    def _deliver(self, answer: Answer) -> None:
        is_last = not isinstance(answer, Tokens) or answer.delta.finish_reason is not None
        with self._lock:
            deliver = self._waiting.pop(answer.number, None) if is_last else self._waiting.get(answer.number)
        if deliver is None:
            return  # cancelled meanwhile
        match answer:
            case Tokens():
                self._tell(deliver, answer.delta)
            case Done():
                self._tell(deliver, answer.value)
            case Failed():
                self._tell(deliver, answer.error())

    def _tell(self, deliver: Deliver, item: SampleDelta | str | Exception | None) -> None:
        try:
            deliver(item)
        except Exception:  # noqa: BLE001 - who asked cannot be told; the others can
            _log.exception("an answer of %s reached nobody", self.name)

    def _fail(self, error: EngineError) -> None:
        with self._lock:
            self.failure = self.failure or error
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for deliver in waiting:
            self._tell(deliver, error)

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
