"""TRL's own loss on tensors of ours: a bare GRPOTrainer with the attributes that `_compute_loss` reads and nothing else.

TRL is imported when the first test asks for it: it takes seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from journeyman.types.losses import CispoLoss, GspoLoss
from journeyman.types.settings import Grpo, has_sequence_ratio


@dataclass(frozen=True)
class Rows:
    """A padded batch as TRL has it: B rows of T tokens; `mask` is True where a token is trained."""

    logprobs: Tensor
    sampler: Tensor
    advantages: Tensor
    mask: Tensor
    entropies: Tensor
    base: Tensor


TrlLoss = Callable[..., Tensor]


class OneProcess:
    """What TRL asks of accelerate, for one process."""

    num_processes = 1
    process_index = 0
    device = torch.device("cpu")
    sync_gradients = True

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor


def trl_loss() -> TrlLoss:
    """The function (rows, settings, ...) -> TRL's loss of them."""
    from trl import GRPOTrainer

    class BareTrainer(GRPOTrainer):  # type: ignore[misc]
        """Log-probabilities come from the rows instead of a model."""

        def __init__(self, **attributes: Any) -> None:
            for name, value in attributes.items():
                setattr(self, name, value)

        def _get_per_token_logps_and_entropies(self, model: Rows, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
            return model.logprobs, model.entropies, None

    def loss(
        rows: Rows,
        settings: Grpo,
        *,
        old: Tensor | None = None,
        weights: Tensor | None = None,
        num_items: int | None = None,
        num_micro_batches: int = 1,
    ) -> Tensor:
        trainer = BareTrainer(**_attributes(settings, has_weights=weights is not None, num_micro_batches=num_micro_batches))
        nothing = torch.zeros(len(rows.mask), 0, dtype=torch.long)
        inputs = {
            "prompt_ids": nothing,
            "prompt_mask": nothing,
            "completion_ids": torch.zeros(rows.mask.shape, dtype=torch.long),
            "completion_mask": rows.mask.long(),
            "advantages": rows.advantages,
            "num_items_in_batch": torch.tensor(float(num_items or int(rows.mask.sum()))),
            "ref_per_token_logps": rows.base,
        }
        if old is not None:
            inputs["old_per_token_logps"] = old
        if weights is not None:
            inputs["importance_sampling_ratio"] = weights
        return trainer._compute_loss(rows, inputs)

    return loss


def _attributes(settings: Grpo, *, has_weights: bool, num_micro_batches: int) -> dict[str, Any]:
    loss = settings.loss
    return {
        "loss_type": "grpo" if isinstance(loss, GspoLoss) else loss.kind,
        "importance_sampling_level": "sequence" if has_sequence_ratio(loss) else "token",
        "epsilon_low": getattr(loss, "clip_low", None),
        "epsilon_high": loss.max_weight if isinstance(loss, CispoLoss) else loss.clip_high,
        "beta": settings.kl_coefficient,
        "args": SimpleNamespace(
            delta=getattr(loss, "delta", None),
            use_bias_correction_kl=settings.kl_importance_weight,
            steps_per_generation=num_micro_batches,
        ),
        "max_completion_length": getattr(loss, "max_length", None),
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": has_weights,
        "vllm_importance_sampling_correction": has_weights,
        "current_gradient_accumulation_steps": num_micro_batches,
        "accelerator": OneProcess(),
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": settings.entropy_bonus > 0,
        "use_adaptive_entropy": False,
        "entropy_coef": settings.entropy_bonus,
        "_metrics": {"train": defaultdict(list)},
    }
