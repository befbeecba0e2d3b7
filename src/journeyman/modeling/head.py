"""The language-model head: hidden states to logits, and token log-probabilities with their gradient in bounded memory.

The head is frozen (LoRA never adapts it), so the gradient of a token's log-probability with respect to its hidden state is known in
closed form while the logits are at hand: W[target] - softmax(logits) @ W. We keep that [M, E] matrix instead of [M, V] logits:
nothing is recomputed and nothing of vocabulary size outlives its chunk. (TRL and Liger recompute or fuse kernels for the same end.)

Shapes: M scored positions, E hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ROWS_PER_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Head:
    """The output projection of a model with the scalings that some architectures put after it."""

    weight_VE: Tensor
    bias_V: Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, module: nn.Module) -> Head:
        """Read the head of a transformers causal language model (Cohere's logit_scale, Granite's logits_scaling, Gemma's soft cap)."""
        projection = module.get_output_embeddings()  # type: ignore[operator]
        config = module.config.get_text_config()  # type: ignore[union-attr, operator]
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(
            projection.weight,
            getattr(projection, "bias", None),
            scale,
            getattr(config, "final_logit_softcapping", None),
        )

    def logits(self, hidden_ME: Tensor) -> Tensor:
        """Logits in float32, [M, V]."""
        logits_MV = nn.functional.linear(hidden_ME, self.weight_VE, self.bias_V).float()
        if self.scale != 1.0:
            logits_MV = logits_MV * self.scale
        if self.softcap is not None:
            logits_MV = torch.tanh(logits_MV / self.softcap) * self.softcap
        return logits_MV


class _TokenLogprobs(torch.autograd.Function):
    """Log-probability and entropy of each scored position; the gradient is prepared in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden_ME: Tensor, head: Head, targets_M: Tensor, needs_entropy: bool) -> tuple[Tensor, Tensor]:
        logprob_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_ME.device)
        entropy_M = torch.empty_like(logprob_M)
        logprob_slope_ME = torch.empty(hidden_ME.shape, dtype=torch.float32, device=hidden_ME.device)
        entropy_slope_ME = torch.empty_like(logprob_slope_ME) if needs_entropy else None
        for start in range(0, len(targets_M), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            logits_MV = head.logits(hidden_ME[rows])
            log_probs_MV = torch.log_softmax(logits_MV, dim=-1)
            # Two tensors of vocabulary size at a time: what is not needed any more is let go or written over.
            capped_MV = logits_MV if head.softcap is not None else None
            del logits_MV
            probs_MV = log_probs_MV.exp()
            targets = targets_M[rows, None]
            logprob_M[rows] = log_probs_MV.gather(1, targets)[:, 0]
            if entropy_slope_ME is None:
                entropy_M[rows] = -log_probs_MV.mul_(probs_MV).sum(-1)
            else:
                entropy_M[rows] = -(probs_MV * log_probs_MV).sum(-1)
                slope_MV = log_probs_MV.add_(entropy_M[rows, None]).mul_(probs_MV).neg_()
                entropy_slope_ME[rows] = _through_head(slope_MV, capped_MV, head)
            slope_MV = probs_MV.neg_()
            slope_MV.scatter_add_(1, targets, torch.ones_like(targets, dtype=slope_MV.dtype))
            logprob_slope_ME[rows] = _through_head(slope_MV, capped_MV, head)
        ctx.slopes = (logprob_slope_ME, entropy_slope_ME, hidden_ME.dtype)
        return logprob_M, entropy_M

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logprob_slope_ME, entropy_slope_ME, dtype = ctx.slopes
        out_ME = gradients[0][:, None] * logprob_slope_ME
        if entropy_slope_ME is not None:
            out_ME = out_ME + gradients[1][:, None] * entropy_slope_ME
        return out_ME.to(dtype), None, None, None


def _through_head(slope_MV: Tensor, capped_MV: Tensor | None, head: Head) -> Tensor:
    """Gradient at the logits to gradient at the hidden state, [M, E]; `capped_MV`: the logits, where the head caps them."""
    if head.softcap is not None and capped_MV is not None:
        slope_MV = slope_MV * (1.0 - (capped_MV / head.softcap) ** 2)
    if head.scale != 1.0:
        slope_MV = slope_MV * head.scale
    return (slope_MV.to(head.weight_VE.dtype) @ head.weight_VE).float()


def token_logprobs(hidden_ME: Tensor, head: Head, targets_M: Tensor, *, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
    """Natural-log probability of each target and entropy (nats) of each position, float32, both [M].

    The log-probabilities carry gradients to `hidden_ME`; the entropies do only when `entropy_gradient` is set.
    """
    if not (torch.is_grad_enabled() and hidden_ME.requires_grad):
        return _logprobs_without_gradient(hidden_ME, head, targets_M)
    logprob_M, entropy_M = _TokenLogprobs.apply(hidden_ME, head, targets_M, entropy_gradient)  # type: ignore[no-untyped-call]
    return logprob_M, entropy_M if entropy_gradient else entropy_M.detach()


def _logprobs_without_gradient(hidden_ME: Tensor, head: Head, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    logprobs, entropies = [], []
    for start in range(0, len(targets_M), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        log_probs_MV = torch.log_softmax(head.logits(hidden_ME[rows]), dim=-1)
        logprobs.append(log_probs_MV.gather(1, targets_M[rows, None])[:, 0])
        entropies.append(-log_probs_MV.mul_(log_probs_MV.exp()).sum(-1))
    if not logprobs:
        empty = torch.zeros(0, dtype=torch.float32, device=hidden_ME.device)
        return empty, empty
    return torch.cat(logprobs), torch.cat(entropies)
