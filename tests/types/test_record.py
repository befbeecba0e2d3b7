"""What is given of a part of some settings is laid over the part's own default."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import ValidationError

from journeyman.types.record import Record, SettingsRecord


class Moments(Record):
    first: float = 0.9
    second: float = 0.99


class Fast(Record):
    kind: Literal["fast"] = "fast"
    rate: float = 1.0


class Slow(Record):
    kind: Literal["slow"] = "slow"
    rate: float = 0.1


class Step(SettingsRecord):
    rate: float = 1e-4
    updates: int = 1
    moments: Moments = Moments()


class Run(SettingsRecord):
    step: Step = Step(rate=3e-4, moments=Moments(second=0.95))
    pace: Fast | Slow = Fast(rate=2.0)
    maybe: Step | None = None
    name: str = "a"


def test_what_is_given_of_a_part_leaves_the_rest_of_its_default() -> None:
    assert Run.model_validate({"step": {"updates": 2}}).step == Step(rate=3e-4, updates=2, moments=Moments(second=0.95))
    assert Run.model_validate({"step": {"rate": 1e-4}}).step == Step(moments=Moments(second=0.95))
    assert Run.model_validate({"step": {"moments": {"first": 0.5}}}).step == Step(rate=3e-4, moments=Moments(first=0.5, second=0.95))


def test_a_whole_part_a_choice_and_an_optional_part_are_taken_as_they_are() -> None:
    assert Run(step=Step(updates=2)).step == Step(updates=2)
    assert Run.model_validate({"pace": {"kind": "slow"}}).pace == Slow()
    assert Run.model_validate({"maybe": {"updates": 2}}).maybe == Step(updates=2)


def test_what_was_written_down_comes_back() -> None:
    for run in (Run(), Run(step=Step()), Run(step=Step(rate=2.0, moments=Moments()), pace=Slow())):
        assert Run.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize("data", [{"step": {"rats": 1}}, {"stop": {}}, {"step": 3}, {"step": {"moments": {"third": 1}}}])
def test_what_does_not_belong_is_refused_as_ever(data: object) -> None:
    with pytest.raises(ValidationError):
        Run.model_validate(data)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_settings_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Run.model_validate({"step": {"rate": value}})
