"""The tables of the store and the number of their layout. Not for queries: each noun has its own file."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

#: Raised by one whenever a table changes, with the way there in `UPGRADES`; `database.py` refuses a store with a higher number.
SCHEMA_VERSION: Final = 5

METADATA = MetaData()

SCHEMA = Table(
    "schema",
    METADATA,
    Column("version", Integer, nullable=False),
    Column("written_by", String, nullable=False),
)

RUNS = Table(
    "runs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("base", String, nullable=False),
    Column("state", String, nullable=False),
    Column("phase", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("error", Text),
    Column("settings", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("tokenizer", String),  # fingerprint of the base's vocabulary; NULL before layout 3
)

# (run, phase, step) is the key: a step repeated after a resume replaces its numbers.
STEPS = Table(
    "steps",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("phase", String, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("settings", Text),  # of the step's job, by its kind; NULL where none were given (layout 4)
)

MODELS = Table(
    "models",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("base", String, nullable=False),
    Column("lora", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

ADAPTERS = Table(
    "adapters",
    METADATA,
    Column("run", String, ForeignKey("runs.id"), primary_key=True),
    Column("model", String, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("folder", String, nullable=False),  # relative to the home folder, so that a home can be moved
    Column("fingerprint", String, nullable=False),
    Column("state", String, nullable=False),  # published | orphaned | retired
    Column("created_at", Float, nullable=False),
)

# A rollout's token is a secret while the rollout is open: only its sha256 is kept.
ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("id", String, primary_key=True),
    Column("token_hash", String, nullable=False, unique=True),
    Column("run", String),
    Column("model", String, nullable=False),
    Column("scenario_id", String, nullable=False),
    Column("max_turns", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("outcome", Text),  # FinishRollout as JSON; NULL while the rollout is open
    Column("reward", Float),
    Column("verdict", Text),
    Column("key", String),  # under which an attempt that was made before is found again (layout 2)
    Column("tokenizer", String),  # fingerprint of the vocabulary its ids are of; NULL before layout 3
    Index("rollouts_by_run", "run", "started_at"),
    Index("rollouts_by_key", "run", "key"),
)

TURNS = Table(
    "turns",
    METADATA,
    Column("rollout", String, ForeignKey("rollouts.id"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("adapter", String),
    Column("body_hash", String, nullable=False),
    Column("num_prompt_tokens", Integer, nullable=False),
    Column("num_sampled_tokens", Integer, nullable=False),
    Column("turn", Text, nullable=False),  # Turn as JSON
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("run", String, nullable=False),
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("key", String),
    Column("body_hash", String, nullable=False),
    Column("state", String, nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column("error_code", String),
    Column("error_reason", String),  # layout 5
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("run", "model", "key", name="one_job_per_key"),
)

#: What makes a store of one layout a store of the next.
UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    1: ("ALTER TABLE rollouts ADD COLUMN key VARCHAR", "CREATE INDEX rollouts_by_key ON rollouts (run, key)"),
    2: ("ALTER TABLE runs ADD COLUMN tokenizer VARCHAR", "ALTER TABLE rollouts ADD COLUMN tokenizer VARCHAR"),
    3: ("ALTER TABLE steps ADD COLUMN settings TEXT",),
    4: ("ALTER TABLE jobs ADD COLUMN error_reason VARCHAR",),
}
