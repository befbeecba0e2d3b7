"""Settings of training. Each default is written here, once. Choices are tagged unions; unknown keys are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.types.record import Record

Advantage = Literal["zscore", "mean", "rank"]


class LoraSettings(Record):
    """LoRA on all linear layers (LoRA Without Regret, Thinking Machines 2025): scaling is alpha / rank."""

    rank: int = Field(default=16, ge=1, le=512)
    alpha: float = Field(default=32.0, gt=0)
    seed: int = 0


class AdamSettings(Record):
    """AdamW (Loshchilov & Hutter 2019). No weight decay: an adapter starts at zero and is small."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)


class Grpo(Record):
    """One GRPO policy update (DeepSeekMath 2402.03300) with DAPO's token mean and asymmetric clip (2503.14476).

    Attributes:
        learning_rate: of the LoRA parameters.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        advantage: `zscore` (r - mean) / (population std + 1e-6), `mean`, or `rank` (centred average ranks in [-1, 1]).
        min_spread: a group whose rewards differ by no more than this carries no gradient: skipped before compute, counted.
        kl_coefficient: weight of the k3 penalty to the base model (adapter off); 0 = off, the KL is still measured now and then.
        updates: optimiser steps on the same groups (ratios are clipped from the second on).
        max_logprob_gap: refuse to train when |trainer - sampler| log-probabilities differ by more than this on average.
    """

    method: Literal["grpo"] = "grpo"
    learning_rate: float = Field(default=1e-4, gt=0)
    clip_low: float = Field(default=0.2, gt=0, le=1)
    clip_high: float = Field(default=0.28, gt=0)
    advantage: Advantage = "zscore"
    min_spread: float = Field(default=1e-3, ge=0)
    kl_coefficient: float = Field(default=0.0, ge=0)
    updates: int = Field(default=1, ge=1, le=16)
    max_logprob_gap: float = Field(default=0.05, gt=0)
    tokens_per_micro_batch: int = Field(default=4096, ge=64)
    adam: AdamSettings = AdamSettings()


class Sft(Record):
    """Supervised fine-tuning: token mean of the negative log-likelihood over assistant tokens, the end-of-turn token included."""

    method: Literal["sft"] = "sft"
    learning_rate: float = Field(default=2e-4, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = 0
    tokens_per_micro_batch: int = Field(default=4096, ge=64)
    adam: AdamSettings = AdamSettings()
