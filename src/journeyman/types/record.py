"""The base of everything that goes over the wire or to disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Record(BaseModel):
    """Frozen, and unknown fields are refused: a misspelt field is an error, not silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SettingsRecord(Record):
    """A record whose parts have defaults of their own: what is given of a part is laid over its default, the rest of which stays.

    Plain pydantic makes a part that is given as a mapping from the defaults of the part's *class*: one value set by the user would
    set back what the record chose for the others. Not for the wire, where a mapping is the whole.

    Example:
        >>> class Step(Record):
        ...     rate: float = 1e-4
        ...     updates: int = 1
        >>> class Run(SettingsRecord):
        ...     step: Step = Step(rate=3e-4)
        >>> Run.model_validate({"step": {"updates": 2}}).step
        Step(rate=0.0003, updates=2)
    """

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults_of_parts(cls, data: object) -> object:
        return {name: _filled(cls, name, value) for name, value in data.items()} if isinstance(data, Mapping) else data


class ForeignRecord(BaseModel):
    """Frozen, and unknown fields are ignored: for what other people's clients send us."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _filled(kind: type[BaseModel], name: str, given: object) -> object:
    """What is `given` for a field, over what the field's default sets; choices between several kinds are taken as they are given."""
    field = kind.model_fields.get(name)
    is_part = isinstance(given, Mapping) and field is not None and field.annotation is type(field.default)
    return _over(field.default, given) if is_part and isinstance(field.default, Record) else given  # type: ignore[union-attr,arg-type]


def _over(default: Record, given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: getattr(default, name) for name in default.model_fields_set if name not in given}
    return kept | {name: _inside(default, name, value) for name, value in given.items()}


def _inside(default: Record, name: str, given: object) -> object:
    """As `_filled`, one level further down, where the default is a value that the record above chose."""
    value = getattr(default, name, None)
    field = type(default).model_fields.get(name)
    is_part = isinstance(given, Mapping) and isinstance(value, Record) and field is not None and field.annotation is type(value)
    return _over(value, given) if is_part else given  # type: ignore[arg-type]
