"""Recording rollouts: every turn is stored before its reply leaves, a client's retry (`sessions.py`) is answered from the record.

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

from journeyman.errors import ServiceError, SettingError, StoreError, WaitTimeoutError
from journeyman.service.sessions import Attempt, Call, Calls, Session
from journeyman.store import RolloutRow, Store
from journeyman.store.models import AdapterRow
from journeyman.types.names import BASE
from journeyman.types.training import CreateRollout, FinishRollout, RolloutTicket
from journeyman.types.trajectory import Failure, Trajectory, Turn

_log = logging.getLogger(__name__)

EXPIRY_SECONDS = 2 * 3600.0
_LOOK_SECONDS = 60.0
_GIVE_UP_SECONDS = 60.0
Produce = Callable[[], Awaitable[Sequence[Turn]]]


class Recorder:
    """Opens, fills and seals rollouts.

    Args:
        store: keeps them.
        expiry_seconds: a rollout without a call for so long is sealed, with an error.
        clock: seconds that only grow.
        wall_clock: as time.time, by which rollouts are known to be old that another server opened.
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
        wall_clock: Callable[[], float] = time.time,
        tokenizer: str | None = None,
    ) -> None:
        if not expiry_seconds > 0:
            raise SettingError(f"rollouts must be given some time before they expire, got {expiry_seconds} s", hint="two hours are 7200")
        self._rollouts = store.rollouts
        self._sessions: dict[str, Session] = {}
        self._expiry_seconds = expiry_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._tokenizer = tokenizer

    async def open(self, create: CreateRollout, version: AdapterRow | None = None) -> RolloutTicket:
        """Open a rollout whose calls are all served by `version`; None: by the base."""
        model, run = (BASE, None) if version is None else (version.name, version.run)
        rollout_id, token = f"ro_{secrets.token_hex(8)}", secrets.token_urlsafe(24)
        row = RolloutRow(rollout_id, model, create.scenario_id, create.max_turns, run, create.key, self._tokenizer)
        session = self._session(row, token)
        # Known before it is stored: the version must count as pinned from this moment on.
        self._sessions[rollout_id] = session
        try:
            await asyncio.to_thread(self._rollouts.open, row, token)
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
            raise ServiceError(f"wrong token for rollout {rollout_id}", status=401, code="invalid_token", reason="invalid_token")
        return await self._live(row, token)

    async def session_by_token(self, token: str) -> Session | None:
        """The rollout whose token this is, None when it is no rollout's. Raises ServiceError 410 when it is sealed."""
        row = await asyncio.to_thread(self._rollouts.find_by_token, token)
        return None if row is None else await self._live(row, token)

    async def record(
        self,
        session: Session,
        body_hash: str,
        *,
        retry_count: int | None,
        produce: Produce,
        key: str | None = None,
        num_replies: int = 1,
    ) -> tuple[Turn, ...]:
        """Serve one call: run `produce`, store its turns, return them.

        A retry of a call that was answered gets the stored turns, of one being served joins it: see `Calls.tried_before`. Every other
        request is a call of its own, also with a body that came before. When every waiting client is cancelled, so is the sampling.

        Args:
            body_hash: identifies the request's body within the rollout.
            retry_count: how often the client tried this call before; None if it does not count.
            produce: samples; its turns get their index, hash and call here.
            key: the request's idempotency key.
            num_replies: turns that `produce` makes; each counts against the rollout's `max_turns`.

        Raises ServiceError 410 when the rollout is sealed or has no turns left for so many replies, 400 for a key with another body.
        """
        attempt = Attempt(body_hash, retry_count, key, num_replies)
        session.used_at = self._clock()
        call = session.calls.tried_before(attempt)
        await _given_up(call)
        if session.is_sealed:
            raise _sealed(session.id)
        if call is None or not (call.turns or call.task):
            session.check_room(num_replies)
        call = call or session.calls.add(attempt)
        call.tries = max(call.tries, retry_count or 0)
        if call.turns:
            call.is_lost = False
            return call.turns
        if call.task is None:
            call.task = asyncio.create_task(self._serve(session, call, produce))
            call.task.add_done_callback(lambda _: self._ended(session, call))
        return await self._wait(session, call)

    async def finish(self, rollout_id: str, outcome: FinishRollout) -> Trajectory:
        """Seal a rollout: calls still being served are cancelled. Finishing twice returns the trajectory as sealed first."""
        session = self._sessions.get(rollout_id)
        if session is not None:
            session.is_sealed = True
            running = session.calls.running
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
        return frozenset(session.model for session in self._sessions.values() if session.model != BASE and not self._is_expired(session))

    async def expire(self) -> tuple[str, ...]:
        """Seal the rollouts that nobody used for too long, also those that a server left open that is gone; returns their ids."""
        expired = tuple(session for session in self._sessions.values() if self._is_expired(session))
        for session in expired:
            await self._seal_expired(session)
        since = self._wall_clock() - self._expiry_seconds
        left = [row for row in await asyncio.to_thread(self._rollouts.list_idle, since) if row.id not in self._sessions]
        for row in left:
            await self._seal_idle(row.id, self._wall_clock() - row.started_at, 0.0)
        return (*(session.id for session in expired), *(row.id for row in left))

    async def keep_expiring(self) -> None:
        """`expire` now, and then now and again, until cancelled."""
        while True:
            try:
                await self.expire()
            except StoreError as error:
                _log.warning("rollouts that nobody finished could not be sealed; trying again: %s", error)
            await asyncio.sleep(min(_LOOK_SECONDS, self._expiry_seconds))

    async def close(self) -> None:
        """Cancel what is being served. The rollouts stay open in the store."""
        running = [task for session in self._sessions.values() for task in session.calls.running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _live(self, row: RolloutRow, token: str) -> Session:
        session = self._sessions.get(row.id)
        if session is None and not row.is_sealed:  # opened before this server started
            turns = await asyncio.to_thread(self._rollouts.turns, row.id)
            _check_tokenizer(row, self._tokenizer)
            opened = self._session(row, token)
            opened.turns.extend(turns)
            opened.calls = Calls.answered(turns)
            session = self._sessions.setdefault(row.id, opened)
        if session is None or session.is_sealed:
            raise _sealed(row.id)
        return await self._unexpired(session)

    def _session(self, row: RolloutRow, token: str) -> Session:
        now = self._clock()
        return Session(row.id, token, row.model, row.max_turns, row.run, opened_at=now, used_at=now)

    def _is_expired(self, session: Session) -> bool:
        return not session.calls.running and self._clock() - session.used_at >= self._expiry_seconds

    async def _unexpired(self, session: Session) -> Session:
        if self._is_expired(session) and not session.is_sealed:
            await self._seal_expired(session)
            raise _sealed(session.id)
        return session

    async def _seal_expired(self, session: Session) -> None:
        await self._seal_idle(session.id, self._clock() - session.used_at, session.used_at - session.opened_at)

    async def _seal_idle(self, rollout_id: str, idle: float, seconds: float) -> None:
        _log.warning("rollout %s had no call for %.0f s and was never finished: sealed", rollout_id, idle)
        message = f"no call for {idle:.0f} s, and nobody finished it: sealed by the server"
        await self.finish(rollout_id, FinishRollout(error=Failure(type="RolloutExpired", message=message), seconds=seconds))

    def _ended(self, session: Session, call: Call) -> None:
        task, call.task = call.task, None
        session.used_at = self._clock()
        if task is not None and not task.cancelled() and task.exception() is not None:  # seen, also when every client is gone
            call.is_lost = True

    async def _wait(self, session: Session, call: Call) -> tuple[Turn, ...]:
        task = call.task
        assert task is not None
        call.num_waiting += 1
        call.is_lost = False
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and session.is_sealed:
                raise _sealed(session.id) from None
            if call.num_waiting == 1:
                call.is_lost = True
                task.cancel()
            raise
        finally:
            call.num_waiting -= 1

    async def _serve(self, session: Session, call: Call, produce: Produce) -> tuple[Turn, ...]:
        produced = await produce()
        storing = asyncio.ensure_future(self._store(session, call, produced))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            # Memory and store must agree on the number of turns: a write that began is waited for.
            await storing
            raise

    async def _store(self, session: Session, call: Call, produced: Sequence[Turn]) -> tuple[Turn, ...]:
        async with session.lock:
            first, kept = len(session.turns), {"body_hash": call.body_hash, "call": call.id}
            turns = tuple(turn.model_copy(update={"index": first + number, **kept}) for number, turn in enumerate(produced))
            await asyncio.to_thread(self._rollouts.append_turn, session.id, *turns)
            session.turns.extend(turns)
            call.turns = turns
            return turns


async def _given_up(call: Call | None) -> None:
    """Wait while the call is being given up, because all its clients hung up: what it is storing may still count."""
    while call is not None and call.task is not None and not call.num_waiting:
        _, pending = await asyncio.wait({call.task}, timeout=_GIVE_UP_SECONDS)
        if pending:
            waited_for = "the try of this call before, whose client hung up"
            raise WaitTimeoutError(f"{waited_for}, did not end within {_GIVE_UP_SECONDS:.0f} s", reason="call_not_given_up")


def _check_tokenizer(row: RolloutRow, tokenizer: str | None) -> None:
    """A rollout of an earlier server goes on only where its token ids stand for the same text."""
    if None not in (row.tokenizer, tokenizer) and row.tokenizer != tokenizer:
        raise ServiceError(
            f"rollout {row.id} was opened with another tokenizer than this server's base model has",
            status=410,
            code="other_weights",
            hint="open a new rollout; or start the server with the base model that the rollout began with",
            reason="other_tokenizer",
        )


def _sealed(rollout_id: str) -> ServiceError:
    return ServiceError(
        f"rollout {rollout_id} is finished: it takes no more calls",
        status=410,
        code="rollout_sealed",
        hint="an agent's task or thread outlived its rollout; await it before the rollout function returns",
        reason="rollout_sealed",
    )
