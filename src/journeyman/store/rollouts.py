"""Rollouts and their turns: opened, filled while they are served, sealed, read back as trajectories."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select, update

from journeyman.errors import NotFoundError, StoreError
from journeyman.store.database import ROLLOUTS, TURNS, Database
from journeyman.types.training import FinishRollout
from journeyman.types.trajectory import Failure, Trajectory, Turn, Verdict


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout without its turns. `model` is the pinned version (`model@step`, or "base"); `run` is the run of that model; `key` what it
    was opened under, if anything.

    `tokenizer` is the fingerprint of the vocabulary that its token ids are of; None when an earlier version recorded it.
    """

    id: str
    model: str
    scenario_id: str
    max_turns: int
    run: str | None = None
    key: str | None = None
    tokenizer: str | None = None
    started_at: float = field(default_factory=time.time)
    is_sealed: bool = False

    @property
    def gathering(self) -> str | None:
        """What the attempts at one scenario that were gathered together have in common: their key without the number of the attempt."""
        return None if self.key is None else self.key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class KeyedRow:
    """A sealed rollout that was opened under a key: what tells whether it can stand for an attempt that is wanted again."""

    id: str
    key: str
    scenario_id: str
    error: Failure | None
    is_judged: bool


class Rollouts:
    """The rollouts of a store. Unknown ids raise NotFoundError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, row: RolloutRow, token: str) -> None:
        """Record a rollout that begins. The token itself is not stored, only its hash."""
        values = {name: value for name, value in asdict(row).items() if name != "is_sealed"}
        with self._database.write() as connection:
            connection.execute(insert(ROLLOUTS).values(token_hash=_hash(token), **values))

    def get(self, rollout_id: str) -> RolloutRow:
        with self._database.read() as connection:
            return _row(_find(connection, rollout_id))

    def find_by_token(self, token: str) -> RolloutRow | None:
        """The rollout that a token opens, sealed or not; None for a token that was never given out."""
        with self._database.read() as connection:
            row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.token_hash == _hash(token))).first()
        return None if row is None else _row(row)

    def list_idle(self, since: float) -> tuple[RolloutRow, ...]:
        """The open rollouts that began, and had their last turn, before that time (of time.time), whichever server opened them."""
        ended = func.json_extract(TURNS.c.turn, "$.started_at") + func.json_extract(TURNS.c.turn, "$.seconds")
        has_later = select(TURNS.c.rollout).where(TURNS.c.rollout == ROLLOUTS.c.id, ended >= since).exists()
        query = select(ROLLOUTS).where(ROLLOUTS.c.outcome.is_(None), ROLLOUTS.c.started_at < since, ~has_later)
        with self._database.read() as connection:
            return tuple(_row(row) for row in connection.execute(query.order_by("started_at")))

    def append_turn(self, rollout_id: str, *turns: Turn) -> None:
        """Store a turn, or several of one call, all or none; they are durable when this returns.

        Raises StoreError when the rollout is sealed or an index is not the next.
        """
        with self._database.write() as connection:
            if _find(connection, rollout_id).outcome is not None:
                raise StoreError(f"rollout {rollout_id} is sealed: its turn {turns[0].index} was not stored", reason="rollout_sealed")
            first = connection.execute(select(func.count()).select_from(TURNS).where(TURNS.c.rollout == rollout_id)).scalar_one()
            for expected, turn in enumerate(turns, start=first):
                if turn.index != expected:
                    raise StoreError(f"rollout {rollout_id}: the next turn has index {expected}, got {turn.index}", reason="wrong_index")
                connection.execute(
                    insert(TURNS).values(
                        rollout=rollout_id,
                        index=turn.index,
                        adapter=turn.adapter,
                        body_hash=turn.body_hash,
                        num_prompt_tokens=len(turn.prompt_ids),
                        num_sampled_tokens=len(turn.sampled_ids),
                        turn=turn.model_dump_json(),
                    )
                )

    def turns(self, rollout_id: str) -> tuple[Turn, ...]:
        with self._database.read() as connection:
            return _turns(connection, rollout_id)

    def seal(self, rollout_id: str, outcome: FinishRollout) -> Trajectory:
        """End a rollout. Sealing again changes nothing and returns the trajectory as it was sealed first."""
        with self._database.write() as connection:
            if _find(connection, rollout_id).outcome is None:
                connection.execute(
                    update(ROLLOUTS).where(ROLLOUTS.c.id == rollout_id).values(outcome=outcome.model_dump_json(), reward=outcome.reward)
                )
            return _trajectory(connection, rollout_id)

    def trajectory(self, rollout_id: str) -> Trajectory:
        """The complete record, also of a rollout that is still open (then with the turns so far)."""
        with self._database.read() as connection:
            return _trajectory(connection, rollout_id)

    def list_of_run(self, run: str) -> tuple[RolloutRow, ...]:
        with self._database.read() as connection:
            rows = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.run == run).order_by("started_at"))
            return tuple(_row(row) for row in rows)

    def list_keyed(self, run: str, model: str, key: str) -> tuple[KeyedRow, ...]:
        """The sealed rollouts of a version that were opened under `key/...`, oldest first."""
        error, where = func.json_extract(ROLLOUTS.c.outcome, "$.error"), _is_under(run, key)
        query = select(ROLLOUTS.c.id, ROLLOUTS.c.key, ROLLOUTS.c.scenario_id, error, ROLLOUTS.c.verdict.is_not(None))
        query = query.where(where, ROLLOUTS.c.model == model, ROLLOUTS.c.outcome.is_not(None)).order_by(ROLLOUTS.c.started_at)
        with self._database.read() as connection:
            return tuple(
                KeyedRow(row[0], row[1], row[2], None if row[3] is None else Failure.model_validate_json(row[3]), bool(row[4]))
                for row in connection.execute(query)
            )

    def forget_key(self, run: str, key: str) -> None:
        """Rollouts opened under `key/...` are not found by it any more; they stay."""
        with self._database.write() as connection:
            connection.execute(update(ROLLOUTS).where(_is_under(run, key)).values(key=None))

    def forget_verdicts(self, run: str, key: str) -> None:
        """Undo `set_rewards` for rollouts opened under `key/...`: their rewards are those they were sealed with."""
        sealed_with = func.json_extract(ROLLOUTS.c.outcome, "$.reward")
        with self._database.write() as connection:
            connection.execute(update(ROLLOUTS).where(_is_under(run, key)).values(reward=sealed_with, verdict=None))

    def set_rewards(self, rewards: Mapping[str, float | None], verdicts: Mapping[str, Verdict] | None = None) -> None:
        """Keep what a judge said, by trajectory id."""
        with self._database.write() as connection:
            for rollout_id, reward in rewards.items():
                _find(connection, rollout_id)
                values: dict[str, Any] = {"reward": reward}
                if verdicts is not None and rollout_id in verdicts:
                    values["verdict"] = verdicts[rollout_id].model_dump_json()
                connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.id == rollout_id).values(**values))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _is_under(run: str, key: str) -> ColumnElement[bool]:
    # Compared, not LIKE: an index serves it, and no character of a key has a meaning. "0" comes right after "/".
    return and_(ROLLOUTS.c.run == run, ROLLOUTS.c.key > f"{key}/", ROLLOUTS.c.key < f"{key}0")


def _find(connection: Connection, rollout_id: str) -> Row[Any]:
    row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.id == rollout_id)).first()
    if row is None:
        raise NotFoundError(f"there is no rollout {rollout_id!r}", hint="it may belong to another home folder", reason="no_rollout")
    return row


def _row(row: Row[Any]) -> RolloutRow:
    names = ("id", "model", "scenario_id", "max_turns", "run", "key", "tokenizer", "started_at")
    return RolloutRow(**{name: getattr(row, name) for name in names}, is_sealed=row.outcome is not None)


def _turns(connection: Connection, rollout_id: str) -> tuple[Turn, ...]:
    rows = connection.execute(select(TURNS.c.turn).where(TURNS.c.rollout == rollout_id).order_by(TURNS.c.index))
    return tuple(Turn.model_validate_json(text) for (text,) in rows)


def _trajectory(connection: Connection, rollout_id: str) -> Trajectory:
    row = _find(connection, rollout_id)
    outcome = FinishRollout() if row.outcome is None else FinishRollout.model_validate_json(row.outcome)
    return Trajectory(
        id=row.id,
        scenario_id=row.scenario_id,
        model=row.model,
        run=row.run,
        turns=_turns(connection, rollout_id),
        tool_events=outcome.tool_events,
        reward=row.reward,
        metrics=outcome.metrics,
        error=outcome.error,
        verdict=None if row.verdict is None else Verdict.model_validate_json(row.verdict),
        started_at=row.started_at,
        seconds=outcome.seconds,
    )
