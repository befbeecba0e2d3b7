"""An open rollout in memory: its turns, its calls, and which of them a request tries again. Not for serving calls nor for storing their
turns: `capture.py`.

Two requests with the same body are two calls, each with a draw of its own, unless one says that it is a retry of the other: by the same
`Idempotency-Key`, or by counting its tries (`x-stainless-retry-count`, as the SDKs of OpenAI do).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from journeyman.errors import ServiceError
from journeyman.service.turns import splices
from journeyman.store.models import AdapterRow
from journeyman.types.messages import Message
from journeyman.types.trajectory import Turn


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request as it came.

    Attributes:
        body_hash: identifies its body.
        retry_count: how often its client tried this call before; None if it does not count.
        key: its idempotency key, the same in every try; None if it has none.
        num_replies: how many it asks for.
    """

    body_hash: str
    retry_count: int | None = None
    key: str | None = None
    num_replies: int = 1

    @property
    def keyed_id(self) -> str | None:
        """The id of the call that its key names, also after a restart."""
        return None if not self.key else f"key-{hashlib.sha256(self.key.encode()).hexdigest()[:32]}"


@dataclass(slots=True, eq=False)
class Call:
    """A call: being served (`task`), answered (`turns`), or neither, when it failed or all its clients hung up.

    Attributes:
        tries: number of the newest try that came, from 0.
        num_waiting: clients that wait for the answer; a retry joins the one before it.
        is_lost: nobody got an answer to the newest try, as far as we can see.
    """

    id: str
    body_hash: str
    num_replies: int
    tries: int = 0
    turns: tuple[Turn, ...] = ()
    task: asyncio.Task[tuple[Turn, ...]] | None = None
    num_waiting: int = 0
    is_lost: bool = False


@dataclass(slots=True)
class Calls:
    """The calls of a rollout in the order in which they came."""

    _all: list[Call] = field(default_factory=list)

    @classmethod
    def answered(cls, turns: Sequence[Turn]) -> Calls:
        """The calls that these turns answered, as they stand in the store; turns of earlier versions do not say: one call each."""
        groups = (tuple(group) for _, group in groupby(turns, key=lambda turn: turn.call or turn.index))
        return cls([Call(group[0].call, group[0].body_hash, len(group), turns=group) for group in groups])

    @property
    def running(self) -> list[asyncio.Task[tuple[Turn, ...]]]:
        return [call.task for call in self._all if call.task is not None]

    @property
    def num_replies(self) -> int:
        """Replies that were drawn or are being drawn."""
        return sum(len(call.turns) if call.task is None else call.num_replies for call in self._all)

    def tried_before(self, attempt: Attempt) -> Call | None:
        """The call that a request tries again; None for one that is a call of its own.

        A key names its call. A count does not: of calls with equal bodies, try k goes on from the one that got to try k-1, rather one
        that nobody got an answer to, rather the newest. A count that came before for all of them is a repeated request.

        Raises ServiceError 400 when the key came with another body.
        """
        if attempt.keyed_id is not None:
            return self._keyed(attempt.keyed_id, attempt.body_hash)
        if not attempt.retry_count:
            return None
        same = [call for call in self._all if call.body_hash == attempt.body_hash and not call.id.startswith("key-")]
        earlier = [(call.tries, call.is_lost, place, call) for place, call in enumerate(same) if call.tries < attempt.retry_count]
        if earlier:
            return max(earlier)[-1]
        return next((call for call in reversed(same) if call.turns), None)

    def add(self, attempt: Attempt) -> Call:
        call = Call(attempt.keyed_id or secrets.token_hex(8), attempt.body_hash, attempt.num_replies)
        self._all.append(call)
        return call

    def _keyed(self, call_id: str, body_hash: str) -> Call | None:
        call = next((call for call in self._all if call.id == call_id), None)
        if call is not None and call.body_hash != body_hash:
            raise ServiceError(
                "this Idempotency-Key came with another request before",
                status=400,
                code="idempotency_key_reused",
                hint="give every call a key of its own, and repeat a call only unchanged",
                reason="idempotency_key_reused",
            )
        return call


@dataclass(slots=True, eq=False)
class Session:
    """An open rollout in memory. `model` is the version pinned for it, or "base"; `run` is that version's run.

    `opened_at` and `used_at` (when its last call came or ended) are readings of the recorder's clock.
    """

    id: str
    token: str
    model: str
    max_turns: int
    run: str | None = None
    turns: list[Turn] = field(default_factory=list)
    is_sealed: bool = False
    calls: Calls = field(default_factory=Calls)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    opened_at: float = 0.0
    used_at: float = 0.0

    def stored(self, messages: Sequence[Message]) -> Callable[[Message], tuple[int, ...] | None]:
        """For `Renderer.render`: the sampled ids of those messages that are this rollout's own replies."""
        return splices(messages, self.turns)

    def check_room(self, num_replies: int) -> None:
        """Raise ServiceError 410 (turn_limit_reached) when the rollout has no turns left for so many replies."""
        left = self.max_turns - self.calls.num_replies
        if num_replies > left:
            asked = "" if left <= 0 else f" but {left}, and this one asks for {num_replies} replies"
            raise ServiceError(
                f"rollout {self.id} has had all its {self.max_turns} model calls{asked}",
                status=410,
                code="turn_limit_reached",
                hint="end the agent's loop earlier, or open the rollout with a larger max_turns (each of n replies counts as a call)",
                reason="turn_limit_reached",
            )

    def check_version(self, now: AdapterRow | None) -> None:
        """Raise ServiceError 410 (other_weights) when the pinned name means another version `now` (None: the base): of another run, as on
        another server, or made again, as after a resume.
        """
        run, fingerprint = (None, None) if now is None else (now.run, now.fingerprint)
        if run != self.run or {turn.fingerprint for turn in self.turns} - {None, fingerprint}:
            raise ServiceError(
                f"rollout {self.id} was opened with another {self.model} than is served here now",
                status=410,
                code="other_weights",
                hint="open a new rollout; or call the server that opened this one, if it still runs",
                reason="other_weights",
            )
