"""Recording rollouts: every turn is stored before its reply leaves, a client's retry is answered from the record.

A rollout opens, serves calls, and is sealed; later calls get 410. One that nobody finishes expires: it is sealed with an error, and
its version need not stay loaded any more. Not for sampling (`sampling.py`) nor for rewards. Locks and
tasks are per rollout; everything here runs on one event loop, the store's work in threads.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from journeyman.errors import NotFoundError, ServiceError, SettingError, StoreError
from journeyman.service.echo import splices
from journeyman.service.segments import Segment, segments
from journeyman.store import RolloutRow, Store
from journeyman.types.messages import Message
from journeyman.types.training import CreateRollout, FinishRollout, RolloutTicket
from journeyman.types.trajectory import Failure, Trajectory, Turn

__all__ = ["EXPIRY_SECONDS", "Recorder", "Segment", "Session", "segments"]

_log = logging.getLogger(__name__)

BASE = "base"
EXPIRY_SECONDS = 2 * 3600.0
_LOOK_SECONDS = 60.0
Produce = Callable[[], Awaitable[Sequence[Turn]]]


@dataclass(slots=True, eq=False)
class _Call:
    """A call being served; several clients may wait for it (a retry joins the first)."""

    body_hash: str
    task: asyncio.Task[tuple[Turn, ...]]
    num_waiting: int = 0


@dataclass(slots=True, eq=False)
class Session:
    """An open rollout in memory. `model` is the version pinned for it; `adapter` the same for the engine (None = base).

    `opened_at` and `used_at` (when its last call came or ended) are readings of the recorder's clock.
    """

    id: str
    token: str
    model: str
    max_turns: int
    turns: list[Turn] = field(default_factory=list)
    is_sealed: bool = False
    calls: list[_Call] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    opened_at: float = 0.0
    used_at: float = 0.0

    @property
    def adapter(self) -> str | None:
        return None if self.model == BASE else self.model

    def stored(self, messages: Sequence[Message]) -> Callable[[Message], tuple[int, ...] | None]:
        """For `Renderer.render`: the sampled ids of those messages that are this rollout's own replies."""
        return splices(messages, self.turns)

    def replay(self, body_hash: str) -> tuple[Turn, ...]:
        """The newest stored turns that answered this very body; () when there are none."""
        found: list[Turn] = []
        for turn in reversed(self.turns):
            if turn.body_hash == body_hash:
                found.append(turn)
            elif found:
                break
        return tuple(reversed(found))


class Recorder:
    """Opens, fills and seals rollouts.

    Args:
        store: keeps them.
        expiry_seconds: a rollout without a call for so long is sealed, with an error.
        clock: seconds that only grow.
        tokenizer: fingerprint of the vocabulary that all tokens here are of; kept with each rollout.

    Raises SettingError when the expiry is no positive time.

    Example:
        >>> ticket = await recorder.open(CreateRollout(model="m", scenario_id="s"), model="m@3")      # doctest: +SKIP
        >>> turns = await recorder.record(session, body_hash, retry_count=0, produce=sample)          # doctest: +SKIP
        >>> trajectory = await recorder.finish(ticket.id, FinishRollout())                            # doctest: +SKIP
    """

    def __init__(
        self,
        store: Store,
        *,
        expiry_seconds: float = EXPIRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        tokenizer: str | None = None,
    ) -> None:
        if not expiry_seconds > 0:
            raise SettingError(f"rollouts must be given some time before they expire, got {expiry_seconds} s", hint="two hours are 7200")
        self._rollouts = store.rollouts
        self._sessions: dict[str, Session] = {}
        self._expiry_seconds = expiry_seconds
        self._clock = clock
        self._tokenizer = tokenizer

    async def open(self, create: CreateRollout, *, model: str, run: str | None = None) -> RolloutTicket:
        """Open a rollout whose calls are all served by `model` (`name@step`, or "base")."""
        rollout_id, token = f"ro_{secrets.token_hex(8)}", secrets.token_urlsafe(24)
        session = self._session(rollout_id, token, model, create.max_turns)
        # Known before it is stored: the version must count as pinned from this moment on.
        self._sessions[rollout_id] = session
        try:
            await asyncio.to_thread(
                self._rollouts.open,
                rollout_id,
                token,
                model=model,
                scenario_id=create.scenario_id,
                max_turns=create.max_turns,
                run=run,
                key=create.key,
                tokenizer=self._tokenizer,
            )
        except BaseException:
            self._sessions.pop(rollout_id, None)
            raise
        return RolloutTicket(id=rollout_id, token=token, model=model)

    async def session(self, rollout_id: str, token: str) -> Session:
        """The rollout that a recorded URL names.

        Raises NotFoundError (unknown id), ServiceError 401 (wrong token) or 410 (sealed).
        """
        live = self._sessions.get(rollout_id)
        if live is not None and secrets.compare_digest(live.token.encode(), token.encode()):
            return await self._unexpired(live)
        row = await asyncio.to_thread(self._rollouts.find_by_token, token)
        if row is None or row.id != rollout_id:
            await asyncio.to_thread(self._rollouts.get, rollout_id)
            raise ServiceError(f"wrong token for rollout {rollout_id}", status=401, code="invalid_token")
        return await self._live(row, token)

    async def session_by_token(self, token: str) -> Session | None:
        """The rollout whose token this is, None when it is no rollout's. Raises ServiceError 410 when it is sealed."""
        row = await asyncio.to_thread(self._rollouts.find_by_token, token)
        return None if row is None else await self._live(row, token)

    async def record(self, session: Session, body_hash: str, *, retry_count: int | None, produce: Produce) -> tuple[Turn, ...]:
        """Serve one call: run `produce`, store its turns, return them.

        A retry (`retry_count` > 0) of a body served before gets the stored turns, of one being served joins it. So does an
        identical body of a client that does not count its retries (None). When every waiting client is cancelled, so is the
        sampling.

        Args:
            body_hash: identifies the request's body within the rollout.
            produce: samples; its turns get their index and hash here.

        Raises ServiceError 410 when the rollout is sealed or has had all its calls.
        """
        if session.is_sealed:
            raise _sealed(session.id)
        session.used_at = self._clock()
        if retry_count != 0:
            for call in session.calls:
                if call.body_hash == body_hash:
                    return await self._wait(session, call)
        if retry_count:
            replayed = session.replay(body_hash)
            if replayed:
                return replayed
        if len(session.turns) + len(session.calls) >= session.max_turns:
            raise ServiceError(
                f"rollout {session.id} has had all its {session.max_turns} model calls",
                status=410,
                code="turn_limit_reached",
                hint="end the agent's loop earlier, or open the rollout with a larger max_turns",
            )
        call = _Call(body_hash, asyncio.create_task(self._serve(session, body_hash, produce)))
        session.calls.append(call)
        call.task.add_done_callback(lambda _: self._forget(session, call))
        return await self._wait(session, call)

    async def finish(self, rollout_id: str, outcome: FinishRollout) -> Trajectory:
        """Seal a rollout: calls still being served are cancelled. Finishing twice returns the trajectory as sealed first."""
        session = self._sessions.get(rollout_id)
        if session is not None:
            session.is_sealed = True
            running = [call.task for call in session.calls]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        trajectory = await asyncio.to_thread(self._rollouts.seal, rollout_id, outcome)
        self._sessions.pop(rollout_id, None)
        return trajectory

    async def trajectory(self, rollout_id: str) -> Trajectory:
        """The record so far. Raises NotFoundError."""
        return await asyncio.to_thread(self._rollouts.trajectory, rollout_id)

    def pinned(self) -> frozenset[str]:
        """Versions that open rollouts are served by: they must stay loaded."""
        return frozenset(
            session.model for session in self._sessions.values() if session.adapter is not None and not self._is_expired(session)
        )

    async def expire(self) -> tuple[str, ...]:
        """Seal the rollouts that nobody used for too long; returns their ids."""
        expired = tuple(session for session in self._sessions.values() if self._is_expired(session))
        for session in expired:
            await self._seal_expired(session)
        return tuple(session.id for session in expired)

    async def keep_expiring(self) -> None:
        """`expire` now and then, until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._expiry_seconds))
            try:
                await self.expire()
            except StoreError as error:
                _log.warning("rollouts that nobody finished could not be sealed; trying again: %s", error)

    async def close(self) -> None:
        """Cancel what is being served. The rollouts stay open in the store."""
        running = [call.task for session in self._sessions.values() for call in session.calls]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _live(self, row: RolloutRow, token: str) -> Session:
        session = self._sessions.get(row.id)
        if session is None and not row.is_sealed:  # opened before this server started
            turns = await asyncio.to_thread(self._rollouts.turns, row.id)
            opened = self._session(row.id, token, row.model, row.max_turns)
            opened.turns.extend(turns)
            session = self._sessions.setdefault(row.id, opened)
        if session is None or session.is_sealed:
            raise _sealed(row.id)
        return await self._unexpired(session)

    def _session(self, rollout_id: str, token: str, model: str, max_turns: int) -> Session:
        now = self._clock()
        return Session(rollout_id, token, model, max_turns, opened_at=now, used_at=now)

    def _is_expired(self, session: Session) -> bool:
        return not session.calls and self._clock() - session.used_at >= self._expiry_seconds

    async def _unexpired(self, session: Session) -> Session:
        if self._is_expired(session) and not session.is_sealed:
            await self._seal_expired(session)
            raise _sealed(session.id)
        return session

    async def _seal_expired(self, session: Session) -> None:
        idle = self._clock() - session.used_at
        _log.warning("rollout %s had no call for %.0f s and was never finished: sealed", session.id, idle)
        message = f"no call for {idle:.0f} s, and nobody finished it: sealed by the server"
        outcome = FinishRollout(error=Failure(type="RolloutExpired", message=message), seconds=session.used_at - session.opened_at)
        await self.finish(session.id, outcome)

    def _forget(self, session: Session, call: _Call) -> None:
        session.calls.remove(call)
        session.used_at = self._clock()
        if not call.task.cancelled():
            call.task.exception()  # seen, also when every client that waited for it is gone

    async def _wait(self, session: Session, call: _Call) -> tuple[Turn, ...]:
        call.num_waiting += 1
        try:
            return await asyncio.shield(call.task)
        except asyncio.CancelledError:
            if call.task.cancelled() and session.is_sealed:
                raise _sealed(session.id) from None
            if call.num_waiting == 1:
                call.task.cancel()
            raise
        finally:
            call.num_waiting -= 1

    async def _serve(self, session: Session, body_hash: str, produce: Produce) -> tuple[Turn, ...]:
        produced = await produce()
        storing = asyncio.ensure_future(self._store(session, body_hash, produced))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            # Memory and store must agree on the number of turns: a write that began is waited for.
            await storing
            raise

    async def _store(self, session: Session, body_hash: str, produced: Sequence[Turn]) -> tuple[Turn, ...]:
        async with session.lock:
            stored = []
            for turn in produced:
                numbered = turn.model_copy(update={"index": len(session.turns), "body_hash": body_hash})
                await asyncio.to_thread(self._rollouts.append_turn, session.id, numbered)
                session.turns.append(numbered)
                stored.append(numbered)
            return tuple(stored)


def split_rollout_path(name: str) -> tuple[str, str]:
    """(rollout id, token) of the `{id}.{token}` part of a recorded URL. Raises NotFoundError when it is none."""
    rollout_id, dot, token = name.partition(".")
    if not dot or not rollout_id or not token:
        raise NotFoundError("this URL names no rollout", hint="use the base URL of the rollout as it was given: /r/<rollout>.<token>/v1")
    return rollout_id, token


def _sealed(rollout_id: str) -> ServiceError:
    return ServiceError(
        f"rollout {rollout_id} is finished: it takes no more calls",
        status=410,
        code="rollout_sealed",
        hint="an agent's task or thread outlived its rollout; await it before the rollout function returns",
    )
