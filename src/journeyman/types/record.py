"""The base of everything that goes over the wire or to disk."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator


class Record(BaseModel):
    """Frozen, and unknown fields are refused: a misspelt field is an error, not silence."""

    # What was given is not in the text of an error: it may hold a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SettingsRecord(Record):
    """Settings: what is given of a part is laid over the part's default, the rest of which stays; numbers are finite.

    Plain pydantic makes a part that is given as a mapping from the defaults of the part's *class*: one value set by the user would
    set back what the record chose for the others. An infinite number would be `null` in JSON.

    Example:
        >>> class Step(Record):
        ...     rate: float = 1e-4
        ...     updates: int = 1
        >>> class Run(SettingsRecord):
        ...     step: Step = Step(rate=3e-4)
        >>> Run.model_validate({"step": {"updates": 2}}).step
        Step(rate=0.0003, updates=2)
    """

    model_config = ConfigDict(allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults_of_parts(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {name: _laid_over(cls, name, defaults.get(name), value) for name, value in data.items()}


class ForeignRecord(BaseModel):
    """Frozen, and unknown fields are ignored: for what other people's clients send us."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _laid_over(kind: type[BaseModel], name: str, default: object, given: object) -> object:
    """What is `given` for a field, over what its default sets; a choice between several kinds is taken as it is given."""
    field = kind.model_fields.get(name)
    if not isinstance(given, Mapping) or not isinstance(default, Record) or field is None or field.annotation is not type(default):
        return given
    kept = {inner: getattr(default, inner) for inner in default.model_fields_set if inner not in given}
    return kept | {inner: _laid_over(type(default), inner, getattr(default, inner, None), value) for inner, value in given.items()}
