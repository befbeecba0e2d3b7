"""The base of everything that goes over the wire or to disk."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, and unknown fields are refused: a misspelt field is an error, not silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ForeignRecord(BaseModel):
    """Frozen, and unknown fields are ignored: for what other people's clients send us."""

    model_config = ConfigDict(frozen=True, extra="ignore")
