"""Settings of learning from pairs: a loss by name or choice, each with its own parameters only, and nothing that would be ignored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.types.losses import HingeLoss, IpoLoss, OrpoLoss, SigmoidLoss, SigmoidNormLoss, SimpoLoss
from journeyman.types.settings import Dpo, needs_reference

LOSSES = {
    "sigmoid": SigmoidLoss, "hinge": HingeLoss, "ipo": IpoLoss, "sigmoid_norm": SigmoidNormLoss, "simpo": SimpoLoss, "orpo": OrpoLoss,
}  # fmt: skip


def test_the_defaults_are_dpo_as_published() -> None:
    settings = Dpo()
    assert settings.loss == SigmoidLoss(beta=0.1, label_smoothing=0.0)
    assert (settings.learning_rate, settings.sft_weight, settings.reference, settings.epochs) == (1e-5, 0.0, "precomputed", 1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_name_stands_for_the_choice_and_its_parameters_may_stand_beside_it(name: str) -> None:
    kind = LOSSES[name]
    assert Dpo(loss=name).loss == kind()
    assert Dpo(loss=name, beta=0.7).loss == Dpo(loss=kind(), beta=0.7).loss == Dpo(loss={"kind": name, "beta": 0.7}).loss == kind(beta=0.7)
    settings = Dpo(loss=name, beta=0.7, batch_size=3)
    assert Dpo.model_validate_json(settings.model_dump_json()) == settings


def test_only_simpo_and_orpo_have_no_reference() -> None:
    assert [name for name, kind in LOSSES.items() if not needs_reference(kind())] == ["simpo", "orpo"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"loss": "dpo"}, "sigmoid_norm"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing"),
        ({"gamma": 1.0}, "gamma"),
        ({"loss": {"kind": "simpo", "beta": 1.0}, "beta": 2.0}, "beta given twice"),
        ({"beta": 0.0}, "greater than 0"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"loss": "orpo", "sft_weight": 0.5}, "in it already"),
        ({"loss": "simpo", "reference": "on_the_fly"}, "has no reference"),
        ({"referense": "on_the_fly"}, "referense"),
    ],
)
def test_what_would_be_ignored_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Dpo(**given)
