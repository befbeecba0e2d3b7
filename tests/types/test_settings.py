"""Settings of a policy update: flat or by choice, each choice with its own parameters only; the header lists what was changed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.config import load_settings
from journeyman.errors import SettingError
from journeyman.types.losses import CispoLoss, DapoLoss, GeometricMask, GspoLoss, OverlongPenalty
from journeyman.types.settings import Grpo, has_sequence_ratio


def test_the_defaults_are_dapos_token_mean_and_asymmetric_clip() -> None:
    settings = Grpo()
    assert settings.loss == DapoLoss(clip_low=0.2, clip_high=0.28, delta=None, importance="token")
    assert (settings.mismatch.kind, settings.advantage, settings.min_spread, settings.tie_width) == ("none", "zscore", 1e-3, 0.0)
    assert (settings.kl_coefficient, settings.entropy_bonus, settings.overlong, settings.mask_truncated) == (0.0, 0.0, None, False)


def test_a_name_stands_for_the_choice_and_its_parameters_may_stand_beside_it() -> None:
    assert Grpo(loss="gspo").loss == GspoLoss()
    assert Grpo(clip_low=0.1).loss == DapoLoss(clip_low=0.1)
    assert Grpo(loss="cispo", max_weight=4).loss == CispoLoss(max_weight=4)
    assert Grpo(loss=CispoLoss(min_weight=0.5), max_weight=4).loss == CispoLoss(min_weight=0.5, max_weight=4)
    assert Grpo(mismatch="geometric_mask").mismatch == GeometricMask()
    assert Grpo(loss={"kind": "dr_grpo", "max_length": 64}).loss.max_length == 64


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"])
def test_every_choice_survives_the_wire(loss: str) -> None:
    settings = Grpo(loss=loss, mismatch="geometric_mask", overlong=OverlongPenalty(max_tokens=10, cache_tokens=2))
    assert Grpo.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"loss": "cispo", "clip_low": 0.1}, "loss.cispo.clip_low"),
        ({"loss": {"kind": "dapo", "clip_low": 0.1}, "clip_low": 0.2}, "given twice"),
        ({"loss": "ppo"}, "'dapo'"),
        ({"loss": "gspo", "mismatch": "token_mask"}, "geometric_mask"),
        ({"loss": "grpo", "importance": "sequence", "mismatch": "token_truncate"}, "geometric_mask"),
        ({"kl_estimator": "k1"}, "kl_coefficient"),
        ({"delta": 1.2}, "must be above 1 \\+ clip_high"),
        ({"loss": "gspo", "delta": 1.0002}, "must be above 1 \\+ clip_high"),
        ({"loss": "cispo", "min_weight": 5.0}, "must be below max_weight"),
        ({"mismatch": {"kind": "token_mask", "min_weight": 6.0}}, "must be below max_weight"),
        ({"overlong": {"max_tokens": 5, "cache_tokens": 6}}, "must not be above max_tokens"),
        ({"learning_rat": 1e-4}, "learning_rat"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Grpo(**given)


def test_settings_files_and_overrides_reach_the_choices() -> None:
    settings = load_settings(Grpo, overrides=["loss=gspo", "clip_high=0.001", "mismatch.kind=geometric_mask", "mismatch.max_ratio=1.1"])
    assert settings.loss == GspoLoss(clip_high=0.001)
    assert settings.mismatch == GeometricMask(max_ratio=1.1)
    with pytest.raises(SettingError, match="clip_hih"):
        load_settings(Grpo, overrides=["loss.kind=gspo", "loss.clip_hih=0.1"])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["loss=null", "clip_low=0.1"], "loss"),
        (["loss=3", "clip_low=0.1"], "loss"),
        (["max_logprob_gap=.inf"], "max_logprob_gap: input should be a finite number"),
        (["clip_high=.inf"], "clip_high: input should be a finite number"),
        (["adam.beta1=.nan"], "beta1: input should be a finite number"),
    ],
)
def test_what_is_no_loss_or_no_finite_number_is_named(overrides: list[str], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        load_settings(Grpo, overrides=overrides)


@pytest.mark.parametrize(
    ("settings", "expected"), [(Grpo(), False), (Grpo(loss="gspo"), True), (Grpo(importance="sequence"), True), (Grpo(loss="cispo"), False)]
)
def test_which_losses_have_one_ratio_a_trajectory(settings: Grpo, expected: bool) -> None:
    assert has_sequence_ratio(settings.loss) is expected
