"""What an engine process and its parent say to each other, over a pipe of pickled objects that only the two of them have.

Every request has a number that its answers carry. Not for the wire: that is `journeyman.types`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from journeyman.errors import EngineError, JourneymanError, error_code, error_from_code
from journeyman.modeling.base_models import BaseModel
from journeyman.types.sampling import EngineInfo, SampleDelta, SampleRequest

CommandName = Literal["load_adapter", "unload_adapter", "sleep", "wake"]


@dataclass(frozen=True, slots=True)
class Load:
    """The first message to a process: what to load. Answered by `Ready` or `Failed`."""

    base: BaseModel
    device: str
    precision: str
    max_rows: int
    cache_gigabytes: float


@dataclass(frozen=True, slots=True)
class Start:
    """Continue a prompt: answered by `Tokens` until one has a finish_reason (one message with all, unless streaming), or by `Failed`."""

    number: int
    request: SampleRequest
    is_streaming: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the answer to this number any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Command:
    """Call this method of the engine: answered by `Done` or `Failed`."""

    number: int
    name: CommandName
    arguments: tuple[str | Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """End. The last message."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class Tokens:
    """Sampled tokens of a `Start`."""

    number: int
    delta: SampleDelta


@dataclass(frozen=True, slots=True)
class Done:
    """What a command returned: a fingerprint, or nothing."""

    number: int
    value: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The error that answers a number; the number of `Load` is 0."""

    number: int
    code: str
    text: str
    reason: str | None = None

    @classmethod
    def of(cls, number: int, error: JourneymanError) -> Failed:
        return cls(number, error_code(error), str(error), error.reason)

    def error(self) -> JourneymanError:
        """The same class of error, with the same message and hint."""
        return error_from_code(self.code, self.text, self.reason) or EngineError(self.text)


Instruction = Load | Start | Cancel | Command | Close
Answer = Tokens | Done | Failed
