"""A running request in a worker's batch."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from journeyman.engine.local.cache import Prefix
from journeyman.engine.local.grammar import TokenGuide
from journeyman.types.sampling import SampleDelta, SampleRequest

_T = TypeVar("_T")
_CHECK_SECONDS = 30.0

Deliver = Callable[[SampleDelta | Exception], None]


def into(answers: asyncio.Queue[Any]) -> Callable[[object], None]:
    """Deliver to a queue of the running event loop, from any thread."""
    loop = asyncio.get_running_loop()

    def deliver(item: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(answers.put_nowait, item)

    return deliver


async def next_answer(answers: asyncio.Queue[_T | Exception], check: Callable[[], None]) -> _T:
    """The next answer; raises it when it is an error. While none comes, `check` raises when none can come any more."""
    while True:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                answer = await answers.get()
        except TimeoutError:
            check()
            continue
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass(slots=True, eq=False)
class Row:
    """One request.

    Attributes:
        pending: ids whose keys are not computed yet: what is left of the prompt, then the last sampled token.
        ids: prompt and sampled ids whose keys are known (prefix included).
        slot: its place in the slab, -1 before it is admitted.
        num_own: how many of `ids` are in the slab (the others are in `prefix`).
        is_streaming: deliver each token as it is drawn rather than all at the end.
        is_fresh: its prompt was in no cache; once computed it is put there for its siblings.
        failure: why no token could be drawn for it.
    """

    request: SampleRequest
    deliver: Deliver
    uniform: random.Random
    guide: TokenGuide | None = None
    prefix: Prefix | None = None
    slot: int = -1
    num_own: int = 0
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    is_streaming: bool = False
    is_fresh: bool = False
    is_cancelled: bool = False
    failure: BaseException | None = None
    logprobs: list[float] = field(default_factory=list)

    @property
    def num_prefix(self) -> int:
        return 0 if self.prefix is None else len(self.prefix.ids)
