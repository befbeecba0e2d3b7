"""The choices inside one policy update: loss, mismatch correction, overlong penalty. Tagged unions; each default is written here, once.

Every choice has its own parameters only: a clip width given to a loss that has no clip is refused. A plain name ("gspo") stands for
the choice with its defaults. What the choices compute is in `journeyman.trainer.losses`; when to use which is in docs/training.md
(policy losses) and docs/dpo.md (preference losses).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from journeyman.types.record import Record, SettingsRecord

Advantage = Literal["zscore", "mean", "rank", "rloo", "batch_std"]
KlEstimator = Literal["k1", "k2", "k3"]
Importance = Literal["token", "sequence"]
_Choice = TypeVar("_Choice", bound=Record)


class _ClippedLoss(SettingsRecord):
    """What the losses that clip the ratio have in common.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high] (0.28 above: DAPO's "clip higher", 2503.14476).
        delta: two-sided clip (INTELLECT-2 2505.07291): with a negative advantage the ratio counts as `delta` at most; None = off.
        importance: `token`, a ratio a token; `sequence`, exp of the mean log-ratio of the trajectory (GSPO 2507.18071).
    """

    clip_low: float = Field(default=0.2, gt=0, le=1)
    clip_high: float = Field(default=0.28, gt=0)
    delta: float | None = Field(default=None, gt=1)
    importance: Importance = "token"

    @model_validator(mode="after")
    def _delta_is_outside_the_clip(self) -> Self:
        return _outside(self)


class GrpoLoss(_ClippedLoss):
    """Mean over trajectories of each one's token mean (DeepSeekMath 2402.03300): in short ones a token weighs more."""

    kind: Literal["grpo"] = "grpo"


class DrGrpoLoss(_ClippedLoss):
    """Token sum / (trajectories x `max_length`) (Dr. GRPO 2503.20783): no length bias. Meant with `advantage="mean"`."""

    kind: Literal["dr_grpo"] = "dr_grpo"
    max_length: int = Field(default=512, ge=1)


class BnpoLoss(_ClippedLoss):
    """Token mean of each group, then the mean over groups: TRL's `bnpo` with a group as its local batch."""

    kind: Literal["bnpo"] = "bnpo"


class DapoLoss(_ClippedLoss):
    """Token mean over the whole optimiser batch (DAPO 2503.14476): every token weighs the same."""

    kind: Literal["dapo"] = "dapo"


class CispoLoss(SettingsRecord):
    """-weight * advantage * log-probability, weight = the ratio clamped to [min_weight, max_weight] and detached (2506.13585).

    The weight is clipped, never the gradient: no token is dropped. Token mean over the whole batch. With `importance="sequence"` the
    ratio is the trajectory's, as in the clipped losses.
    """

    kind: Literal["cispo"] = "cispo"
    min_weight: float = Field(default=0.0, ge=0)
    max_weight: float = Field(default=5.0, gt=0)
    importance: Importance = "token"

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        return _ordered(self, "min_weight", "max_weight")


class GspoLoss(SettingsRecord):
    """One ratio a trajectory, exp of its mean log-ratio, clipped as a whole (2507.18071); mean over trajectories.

    `delta`: as in the clipped losses, of the trajectory's ratio.
    """

    kind: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0, le=1)
    clip_high: float = Field(default=4e-4, gt=0)
    delta: float | None = Field(default=None, gt=1)

    @model_validator(mode="after")
    def _delta_is_outside_the_clip(self) -> Self:
        return _outside(self)


class NoCorrection(SettingsRecord):
    """The ratio is to the sampler's own log-probabilities, so it corrects the mismatch itself, inside the clip."""

    kind: Literal["none"] = "none"


class TokenTruncate(SettingsRecord):
    """Each token's loss is multiplied by min(trainer's / sampler's probability, max_weight), both before the step (truncated IS).

    The clipped ratio is then to the trainer's own log-probabilities before the step: the two are not counted twice.
    """

    kind: Literal["token_truncate"] = "token_truncate"
    max_weight: float = Field(default=2.0, gt=0)


class TokenMask(SettingsRecord):
    """As `token_truncate`, but a weight outside [min_weight, max_weight] is 0: the token is left out (IcePop)."""

    kind: Literal["token_mask"] = "token_mask"
    min_weight: float = Field(default=0.5, ge=0)
    max_weight: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        return _ordered(self, "min_weight", "max_weight")


class GeometricMask(SettingsRecord):
    """Leave out a trajectory whose geometric mean of trainer's / sampler's probability is outside [min_ratio, max_ratio].

    A mean, so long trajectories are not dropped for their length. The ratio stays the one to the sampler.
    """

    kind: Literal["geometric_mask"] = "geometric_mask"
    min_ratio: float = Field(default=0.99, ge=0)
    max_ratio: float = Field(default=1.01, gt=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        return _ordered(self, "min_ratio", "max_ratio")


class SigmoidLoss(SettingsRecord):
    """DPO (Rafailov and others 2305.18290): -log sigmoid(beta * D), D = how much the chosen gained on the rejected since the reference.

    Attributes:
        beta: how far the policy may go from the reference; smaller = farther.
        label_smoothing: the share of pairs believed to be the wrong way round (cDPO, Mitchell 2023); 0 = off.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    beta: float = Field(default=0.1, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class HingeLoss(SettingsRecord):
    """max(0, 1 - beta * D) (SLiC 2305.10425, RSO 2309.06657): a pair that is far enough apart no longer pulls."""

    kind: Literal["hinge"] = "hinge"
    beta: float = Field(default=0.1, gt=0)


class IpoLoss(SettingsRecord):
    """(D - 1 / (2 * beta))^2 with D from means per token (IPO 2310.12036): a margin to reach, not to exceed."""

    kind: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.1, gt=0)


class SigmoidNormLoss(SettingsRecord):
    """As `sigmoid`, with D from means per token, so that length does not count (Tulu 3 2411.15124); beta is larger to match."""

    kind: Literal["sigmoid_norm"] = "sigmoid_norm"
    beta: float = Field(default=5.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class SimpoLoss(SettingsRecord):
    """-log sigmoid(beta * D - gamma), D the difference of mean log-probabilities: no reference (SimPO 2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.5, gt=0)
    gamma: float = Field(default=1.375, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class OrpoLoss(SettingsRecord):
    """NLL of the chosen - beta * log sigmoid(log odds ratio), of mean log-probabilities: no reference (ORPO 2403.07691, its lambda)."""

    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0)


class OverlongPenalty(SettingsRecord):
    """DAPO's soft overlong punishment (2503.14476, eq. 13), added to the reward before advantages are computed.

    0 up to `max_tokens - cache_tokens` sampled tokens, falling linearly to -1 at `max_tokens`, -1 beyond; times `coefficient`.
    """

    max_tokens: int = Field(ge=1)
    cache_tokens: int = Field(ge=1)
    coefficient: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _cache_is_part_of_the_length(self) -> Self:
        if self.cache_tokens > self.max_tokens:
            raise ValueError(f"cache_tokens {self.cache_tokens} must not be above max_tokens {self.max_tokens}")
        return self


def _outside(choice: _Choice) -> _Choice:
    """Refuse a two-sided clip that lies inside the other."""
    delta, clip_high = (getattr(choice, name) for name in ("delta", "clip_high"))
    if delta is not None and delta <= 1 + clip_high:
        raise ValueError(f"delta {delta:g} must be above 1 + clip_high = {1 + clip_high:g}: below it, it is the only clip")
    return choice


def _ordered(choice: _Choice, low: str, high: str) -> _Choice:
    lower, upper = getattr(choice, low), getattr(choice, high)
    if lower >= upper:
        raise ValueError(f"{low} {lower:g} must be below {high} {upper:g}")
    return choice


def _expanded(choice: object) -> object:
    """A plain name stands for the choice with its defaults."""
    return {"kind": choice} if isinstance(choice, str) else choice


Loss = Annotated[
    Annotated[GrpoLoss | DrGrpoLoss | BnpoLoss | DapoLoss | CispoLoss | GspoLoss, Field(discriminator="kind")],
    BeforeValidator(_expanded),
]
Mismatch = Annotated[
    Annotated[NoCorrection | TokenTruncate | TokenMask | GeometricMask, Field(discriminator="kind")],
    BeforeValidator(_expanded),
]
PreferenceLoss = Annotated[
    Annotated[SigmoidLoss | HingeLoss | IpoLoss | SigmoidNormLoss | SimpoLoss | OrpoLoss, Field(discriminator="kind")],
    BeforeValidator(_expanded),
]
