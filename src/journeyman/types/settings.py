"""Settings of training, and of what of a run stays on disk. Each default is written here, once.

Choices are tagged unions; unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from journeyman.types.losses import Advantage as Advantage
from journeyman.types.losses import DapoLoss, KlEstimator, Loss, Mismatch, NoCorrection, OverlongPenalty, PreferenceLoss, SigmoidLoss
from journeyman.types.record import Record, SettingsRecord

WhenTooLong = Literal["refuse", "drop"]
Checkpointing = bool | Literal["auto"]
WhenEqual = Literal["refuse", "drop"]
Reference = Literal["precomputed", "on_the_fly"]

#: Computed tokens of a micro-batch unless told otherwise; what is only measured is computed in as many at a time.
TOKENS_PER_MICRO_BATCH: Final = 4096
#: Updates in a row whose gradient is not finite, after which training stops.
MAX_SKIPPED_IN_A_ROW: Final = 3

#: Where chance begins: a number that every generator takes.
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]

# Parameters of the losses that `Grpo` and `Dpo` also take by their own names.
_POLICY_LOSS_PARAMETERS = ("clip_low", "clip_high", "delta", "importance", "min_weight", "max_weight", "max_length")
_PREFERENCE_LOSS_PARAMETERS = ("beta", "gamma", "label_smoothing")


class LoraSettings(SettingsRecord):
    """LoRA on all linear layers (LoRA Without Regret, Thinking Machines 2025): scaling is alpha / rank."""

    rank: int = Field(default=16, ge=1, le=512)
    alpha: float = Field(default=32.0, gt=0)
    seed: Seed = 0


class AdamSettings(SettingsRecord):
    """AdamW (Loshchilov & Hutter 2019). No weight decay: an adapter starts at zero and is small."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)


class Grpo(SettingsRecord):
    """One GRPO policy update (DeepSeekMath 2402.03300); by default DAPO's token mean and asymmetric clip (2503.14476).

    Attributes:
        learning_rate: of the LoRA parameters.
        loss: `dapo` (default), `grpo`, `dr_grpo`, `bnpo`, `cispo` or `gspo`: a name, or an object of `journeyman.types.losses`. Its
            parameters may also be given here by their own names: `Grpo(loss="dapo", clip_low=0.1)`.
        mismatch: how a difference between sampler and trainer is corrected: `none` (the ratio does it), `token_truncate`,
            `token_mask`, `geometric_mask`.
        advantage: `zscore` (r - mean) / (population std + 1e-6), `mean`, `rank` (centred average ranks in [-1, 1]), `rloo` (r - mean
            of the others), `batch_std` ((r - mean) / (population std of the whole batch + 1e-6)).
        min_spread: a group whose rewards differ by no more than this carries no gradient: skipped before compute, counted.
        tie_width: rewards of a group that lie within this of the lowest of them count as one, their mean; 0 = off.
        overlong: penalty on the rewards of long trajectories; None = off.
        mask_truncated: leave trajectories that were cut off (finish reason `length`) out of the loss; they stay in the baseline.
        kl_coefficient: weight of the penalty to the base model (adapter off); 0 = off, the KL is still measured now and then.
        kl_estimator: of that penalty. `k3` is the published one. As a loss, `k1` has no expected gradient on-policy, `k2` that of
            KL(policy || base), `k3` that of KL(base || policy).
        kl_importance_weight: multiply the penalty of a token by its ratio (DeepSeek-V3.2), exact off-policy.
        entropy_bonus: this times the mean entropy of the tokens (nats) is subtracted from the loss; 0 = off.
        updates: optimiser steps on the same groups (ratios are clipped from the second on).
        max_logprob_gap: refuse to train when |trainer - sampler| log-probabilities differ by more than this on average.
        when_too_long: a trajectory longer than the model's context is refused by its id, or dropped and counted.
        gradient_checkpointing: keep only the inputs of layers and compute the rest again in the backward pass: the same gradients, a
            second forward pass, far less memory. `auto`: for micro-batches that would not fit otherwise.
    """

    short_forms: ClassVar = _POLICY_LOSS_PARAMETERS
    method: Literal["grpo"] = "grpo"
    learning_rate: float = Field(default=1e-4, gt=0)
    loss: Loss = DapoLoss()
    mismatch: Mismatch = NoCorrection()
    advantage: Advantage = "zscore"
    min_spread: float = Field(default=1e-3, ge=0)
    tie_width: float = Field(default=0.0, ge=0)
    overlong: OverlongPenalty | None = None
    mask_truncated: bool = False
    kl_coefficient: float = Field(default=0.0, ge=0)
    kl_estimator: KlEstimator = "k3"
    kl_importance_weight: bool = False
    entropy_bonus: float = Field(default=0.0, ge=0)
    updates: int = Field(default=1, ge=1, le=16)
    max_logprob_gap: float = Field(default=0.05, gt=0)
    when_too_long: WhenTooLong = "refuse"
    tokens_per_micro_batch: int = Field(default=TOKENS_PER_MICRO_BATCH, ge=64)
    gradient_checkpointing: Checkpointing = "auto"
    adam: AdamSettings = AdamSettings()

    @model_validator(mode="before")
    @classmethod
    def _gather_loss_parameters(cls, data: object) -> object:
        return _with_loss_parameters(data, _POLICY_LOSS_PARAMETERS, DapoLoss()) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        is_by_token = self.mismatch.kind in ("token_truncate", "token_mask")
        if is_by_token and has_sequence_ratio(self.loss):
            raise ValueError(
                f"mismatch {self.mismatch.kind!r} weighs tokens, but the loss has one ratio a trajectory; use 'geometric_mask' or 'none'"
            )
        if self.kl_coefficient == 0 and (self.kl_estimator != type(self).model_fields["kl_estimator"].default or self.kl_importance_weight):
            raise ValueError("kl_estimator and kl_importance_weight say how the penalty is computed: set kl_coefficient too")
        return self


class Sft(SettingsRecord):
    """Supervised fine-tuning: token mean of the negative log-likelihood over assistant tokens, the end-of-turn token included.

    `when_too_long`: an example longer than the model's context is refused by its number, or dropped and counted.
    `gradient_checkpointing`: as in `Grpo`.
    """

    method: Literal["sft"] = "sft"
    learning_rate: float = Field(default=2e-4, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: Seed = 0
    when_too_long: WhenTooLong = "refuse"
    tokens_per_micro_batch: int = Field(default=TOKENS_PER_MICRO_BATCH, ge=64)
    gradient_checkpointing: Checkpointing = "auto"
    adam: AdamSettings = AdamSettings()


class Dpo(SettingsRecord):
    """Learning from pairs, a chosen and a rejected reply to one prompt: DPO (Rafailov and others 2305.18290) and its relatives.

    Attributes:
        learning_rate: of the LoRA parameters.
        loss: `sigmoid` (default), `hinge`, `ipo`, `sigmoid_norm`, `simpo` or `orpo`: a name, or an object of
            `journeyman.types.losses`. Its parameters may also be given here by their own names: `Dpo(loss="simpo", beta=2.0)`.
        sft_weight: this times the negative log-likelihood of the chosen (token mean) is added (RPO 2404.19733): holds up what DPO
            alone tends to push down; 0 = off. ORPO has that term already.
        epochs, batch_size, seed: passes over the pairs, pairs an optimiser update, and what their order is drawn from.
        reference: the base model's log-probabilities (adapter off) are computed once a pair, before the first update with it, and kept
            with the model for later epochs and calls; or for each batch when it comes: the same numbers, at more cost from the second
            epoch on.
        when_too_long: a pair with a side longer than the model's context is refused by its number, or dropped and counted.
        when_equal: the same for a pair whose chosen and rejected tokens are equal.
        tokens_per_micro_batch: pairs are computed together up to this many tokens, a shared beginning counted once.
    """

    short_forms: ClassVar = _PREFERENCE_LOSS_PARAMETERS
    method: Literal["dpo"] = "dpo"
    learning_rate: float = Field(default=1e-5, gt=0)
    loss: PreferenceLoss = SigmoidLoss()
    sft_weight: float = Field(default=0.0, ge=0)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: Seed = 0
    reference: Reference = "precomputed"
    when_too_long: WhenTooLong = "refuse"
    when_equal: WhenEqual = "refuse"
    tokens_per_micro_batch: int = Field(default=TOKENS_PER_MICRO_BATCH, ge=64)
    gradient_checkpointing: Checkpointing = "auto"
    adam: AdamSettings = AdamSettings()

    @model_validator(mode="before")
    @classmethod
    def _gather_loss_parameters(cls, data: object) -> object:
        return _with_loss_parameters(data, _PREFERENCE_LOSS_PARAMETERS, SigmoidLoss()) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if self.loss.kind == "orpo" and self.sft_weight > 0:
            raise ValueError("loss 'orpo' has the log-likelihood of the chosen in it already: leave sft_weight at 0")
        if not needs_reference(self.loss) and self.reference != "precomputed":
            raise ValueError(f"loss {self.loss.kind!r} has no reference: leave out reference={self.reference!r}")
        return self


class Retention(Record):
    """Which checkpoints and adapters are kept; everything else is deleted after each step.

    Always kept, whatever is set here: the newest of both, the untrained adapter, the one at the end of the warm start, and every adapter
    that is loaded anywhere on this machine or pinned by an open rollout.

    Attributes:
        checkpoints: how many of the newest checkpoints stay (a checkpoint is about three times the size of an adapter).
        adapters: how many of the newest adapters stay.
        best: how many of the best of both stay, by `metric`; the newest wins a tie.
        metric: a metric of the steps, e.g. `train/reward_mean`, `reward/success` or `heldout/loss`.
        best_is: which of its values is the best: the highest, or the lowest (of a loss).
        every: the checkpoints and adapters of every n-th step stay too; 0 = off.
    """

    checkpoints: int = Field(default=3, ge=1)
    adapters: int = Field(default=16, ge=1)
    best: int = Field(default=1, ge=0)
    metric: str = "train/reward_mean"
    best_is: Literal["highest", "lowest"] = "highest"
    every: int = Field(default=0, ge=0)


class ServerSettings(Record):
    """Settings of a server that trains for its clients (`journeyman serve --set NAME=VALUE`)."""

    retention: Retention = Retention()


def needs_reference(loss: PreferenceLoss) -> bool:
    """Whether the loss compares with the base model's log-probabilities."""
    return loss.kind not in ("simpo", "orpo")


def has_sequence_ratio(loss: Loss) -> bool:
    """Whether the loss has one ratio a trajectory rather than one a token."""
    return loss.kind == "gspo" or getattr(loss, "importance", "token") == "sequence"


def _with_loss_parameters(data: Mapping[str, Any], names: Sequence[str], default: Record) -> dict[str, Any]:
    """`loss="dapo", clip_low=0.1` as `loss={"kind": "dapo", "clip_low": 0.1}`. What does not fit the loss is refused by the loss."""
    beside = {name: data[name] for name in names if name in data}
    rest = {name: value for name, value in data.items() if name not in beside}
    if not beside:
        return rest
    loss = rest.get("loss", default)
    if not isinstance(loss, str | Mapping | BaseModel):
        return rest  # no loss at all: what is wrong with it is said where it is checked
    inner = {"kind": loss} if isinstance(loss, str) else loss.model_dump(exclude_unset=True) if isinstance(loss, BaseModel) else dict(loss)
    if isinstance(loss, BaseModel):
        inner["kind"] = loss.kind  # type: ignore[attr-defined]
    twice = sorted(inner.keys() & beside.keys())
    if twice:
        raise ValueError(f"{', '.join(twice)} given twice: once for the loss, once beside it")
    return {**rest, "loss": inner | beside}
