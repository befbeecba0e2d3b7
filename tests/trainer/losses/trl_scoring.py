"""TRL's own advantages and weights against mismatch: a bare GRPOTrainer whose generation, forward pass and rewards are ours.

TRL computes both between generating and training, in one method; everything it asks for on the way is given here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import torch
from tests.trainer.losses.trl import OneProcess
from torch import Tensor

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
TrlScoring = Callable[..., dict[str, Tensor]]


def trl_scoring() -> TrlScoring:
    """The function (rewards, group size, ...) -> TRL's `advantages`, and with log-probabilities its `importance_sampling_ratio`."""
    from trl import GRPOTrainer

    class BareTrainer(GRPOTrainer):  # type: ignore[misc]
        def __init__(self, **attributes: Any) -> None:
            for name, value in attributes.items():
                setattr(self, name, value)

        def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
            ids = [[1] * self.trained.shape[1] for _ in prompts]
            sampled = [[None if value != value else value for value in row] for row in self.sampled.tolist()]
            return [[1]] * len(ids), ids, None, ["x"] * len(ids), sampled, {}, None, None

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None, None]:
            return self.trained, None, None

        def _calculate_rewards(self, *args: Any) -> Tensor:
            return self.rewards[:, None]

    def scored(
        rewards: Tensor,
        group_size: int,
        *,
        scale: Literal["group", "batch", "none"] = "group",
        trained: Tensor | None = None,
        sampled: Tensor | None = None,
        mode: Mode = "token_truncate",
        bounds: tuple[float | None, float | None] = (None, None),
    ) -> dict[str, Tensor]:
        nothing = torch.zeros(len(rewards), 1)
        trainer = BareTrainer(
            rewards=rewards,
            trained=nothing if trained is None else trained,
            sampled=nothing if sampled is None else sampled,
            num_generations=group_size,
            scale_rewards=scale,
            use_vllm=trained is not None,
            vllm_importance_sampling_correction=trained is not None,
            vllm_importance_sampling_mode=mode,
            vllm_importance_sampling_clip_min=bounds[0],
            vllm_importance_sampling_clip_max=bounds[1],
            **_untouched(),
        )
        found: dict[str, Tensor] = trainer._generate_and_score_completions([{"prompt": "x"} for _ in rewards])
        return found

    return scored


def _untouched() -> dict[str, Any]:
    """What the method reads and none of its arithmetic depends on."""
    return {
        "accelerator": OneProcess(),
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "args": SimpleNamespace(
            per_device_train_batch_size=1, gradient_checkpointing_kwargs=None, steps_per_generation=1, gradient_accumulation_steps=1
        ),
        "num_iterations": 1,
        "environment_factories": None,
        "environments": None,
        "tools": None,
        "_tokenizer": SimpleNamespace(pad_token_id=0),
        "pad_to_multiple_of": None,
        "mask_truncated_completions": False,
        "beta": 0.0,
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": torch.ones(1),
        "reward_func_names": ["reward"],
        "log_multimodal": False,
        "_metrics": {"train": defaultdict(list)},
        "_logs": {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": defaultdict(list)},
        "_pending_extra_logs": {},
        "_pending_metrics": {},
    }
