"""The gradient a step took, read from the saved optimiser, and the same gradient computed one trajectory a row without packing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file
from tests.tiny import plain_logprobs
from torch import Tensor

from journeyman.trainer.base import TrainSample
from journeyman.trainer.losses.terms import Terms
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import AdamSettings, Grpo

# With beta1 = 0 and no clipping the optimiser's first moment is the gradient itself.
BARE_ADAM = AdamSettings(beta1=0.0, max_gradient_norm=1e9)
PerToken = Callable[[Tensor, Tensor, float], Tensor]


def taken_gradients(trainer: LoraTrainer, folder: Path) -> list[Tensor]:
    """The gradient of the last step made with `BARE_ADAM`, a tensor a LoRA parameter in the model's order."""
    trainer.save_state(folder)
    tensors = load_file(str(folder / "optimizer.safetensors"))
    return [tensors[f"{index}.exp_avg"] for index in range(sum(name.endswith(".exp_avg") for name in tensors))]


def with_old_logprobs(samples: Sequence[TrainSample], current: Sequence[Sequence[float]], shifts: Sequence[float]) -> list[TrainSample]:
    """The samples with old log-probabilities that differ from the current ones by `shifts`, taken in turn."""
    out = []
    for sample, own in zip(samples, current, strict=True):
        values = iter(own)
        old = [next(values) + shifts[index % len(shifts)] if sampled else 0.0 for index, sampled in enumerate(sample.is_sampled)]
        out.append(TrainSample(sample.token_ids, sample.is_sampled, tuple(old), sample.advantage))
    return out


def plain_loss(model: Any, samples: Sequence[TrainSample], loss_of: PerToken) -> Tensor:
    """The token mean of a loss over all sampled tokens of all samples, each computed by itself."""
    losses = []
    for sample in samples:
        is_sampled = torch.tensor(sample.is_sampled[1:])
        logprobs = plain_logprobs(model, sample.token_ids)[is_sampled]
        losses.append(loss_of(logprobs, torch.tensor(sample.logprobs[1:])[is_sampled], sample.advantage))
    return torch.cat(losses).mean()


def plain_terms(model: Any, samples: list[TrainSample]) -> tuple[Tensor, Tensor, Terms]:
    """Log-probabilities and entropies of all sampled tokens, one row a sample, and their terms."""
    logprobs, entropies, old, advantages, sequences = [], [], [], [], []
    for sample in samples:
        row = torch.tensor([sample.token_ids])
        scores = torch.log_softmax(model(input_ids=row).logits[0, :-1].float(), dim=-1)
        own = torch.tensor(sample.is_sampled[1:])
        logprobs.append(scores.gather(1, row[0, 1:, None])[:, 0][own])
        entropies.append(-(scores.exp() * scores).sum(-1)[own])
        old.append(torch.tensor(sample.logprobs[1:])[own])
        advantages += [sample.advantage] * int(own.sum())
        sequences += [int(sample.trajectory_id[1:])] * int(own.sum())
    return torch.cat(logprobs), torch.cat(entropies), Terms(torch.cat(old), torch.tensor(advantages), torch.tensor(sequences))


def clipped(settings: Grpo) -> PerToken:
    """The clipped loss, written a second time."""
    low, high = settings.loss.clip_low, settings.loss.clip_high

    def loss_of(logprob: Tensor, old: Tensor, advantage: float) -> Tensor:
        ratio = (logprob - old).exp()
        bounded = ratio.clamp(1 - low, 1 + high)
        return torch.max(-ratio * advantage, -bounded * advantage)

    return loss_of


def plain_gradients(model: Any, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad]))


def assert_same_gradients(actual: Sequence[Tensor], expected: Sequence[Tensor], relative: float = 1e-5) -> None:
    """Every tensor differs from the expected one by no more than `relative` of its norm.

    Except where there is nothing but rounding: with one key to attend to, queries and keys have no gradient, and what floating point
    leaves of them (below a millionth of the whole) only has to stay that small.
    """
    assert len(actual) == len(expected)
    whole = float(torch.stack([tensor.norm() for tensor in expected]).norm())
    differences = []
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        norm = float(right.norm())
        assert norm > 0, f"the gradient of parameter {index} is zero: the comparison says nothing"
        if norm < 1e-6 * whole:
            assert float(left.norm()) < 1e-6 * whole, f"the gradient of parameter {index} should be zero but for rounding"
            continue
        differences.append(float((left - right).norm()) / norm)
    worst = max(differences)
    assert worst <= relative, (
        f"the gradient of parameter {differences.index(worst)} differs by {worst:.1e}, the median is {median(differences):.1e}"
    )
