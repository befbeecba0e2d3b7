"""TRL's own preference losses on tensors of ours: bare DPO, CPO and ORPO trainers with the attributes that their losses read.

TRL is imported when the first test asks for it: it takes seconds.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from journeyman.types.losses import OrpoLoss, PreferenceLoss, SimpoLoss


@dataclass(frozen=True)
class PairRows:
    """A padded batch as TRL has it: 2P rows of T tokens, first all chosen, then all rejected; `mask` is True where one is trained."""

    logprobs: Tensor
    reference: Tensor
    mask: Tensor

    @property
    def num_pairs(self) -> int:
        return len(self.mask) // 2


class _OneProcess:
    """What TRL asks of accelerate, for one process."""

    device = torch.device("cpu")

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    gather_for_metrics = gather


class _Model:
    """Gives the log-probabilities of the rows as the outputs of TRL's fused head."""

    training = True

    def __init__(self, logprobs: Tensor) -> None:
        self._logprobs = logprobs

    def __call__(self, **_: Any) -> SimpleNamespace:
        nothing = torch.zeros_like(self._logprobs)
        return SimpleNamespace(log_probs=self._logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


class TrlPreference:
    """TRL's loss of a batch for the same settings."""

    def __init__(self) -> None:
        from trl import DPOTrainer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these two are experimental in TRL
            from trl.experimental.cpo import CPOTrainer
            from trl.experimental.orpo import ORPOTrainer

        self._kinds = {"dpo": DPOTrainer, "cpo": CPOTrainer, "orpo": ORPOTrainer}

    def __call__(self, rows: PairRows, loss: PreferenceLoss, *, sft_weight: float = 0.0) -> Tensor:
        if isinstance(loss, OrpoLoss):
            return self._orpo(rows, loss)
        if isinstance(loss, SimpoLoss):
            means = (rows.logprobs * rows.mask).sum(1) / rows.mask.sum(1)
            return self._cpo(means, "simpo", loss, loss.gamma) + sft_weight * _nll(rows)
        if getattr(loss, "label_smoothing", 0.0):
            # Not in TRL's DPO, but CPO's sigmoid smooths whatever two numbers it is given.
            changes = ((rows.logprobs - rows.reference) * rows.mask).sum(1)
            changes = changes / rows.mask.sum(1) if loss.kind == "sigmoid_norm" else changes
            return self._cpo(changes, "sigmoid", loss, 0.0) + sft_weight * _nll(rows)
        return self._dpo(rows, loss, sft_weight)

    def whole(self, model: Any, batch: dict[str, Tensor], loss: SimpoLoss | OrpoLoss) -> Tensor:
        """The loss of TRL's CPO or ORPO trainer with its own forward pass of `model` over a collated batch."""
        shared = {"accelerator": _OneProcess(), "beta": loss.beta, "is_encoder_decoder": False, "aux_loss_enabled": False}
        if isinstance(loss, OrpoLoss):
            trainer = self._bare("orpo", padding_value=0, **shared)
        else:
            trainer = self._bare("cpo", pad_token_id=0, cpo_alpha=0.0, **shared, **_cpo_attributes(loss, "simpo", loss.gamma))
        return trainer.get_batch_loss_metrics(model, batch)[0]  # type: ignore[no-any-return]

    def _bare(self, kind: str, **attributes: Any) -> Any:
        trainer = self._kinds[kind].__new__(self._kinds[kind])
        for name, value in attributes.items():
            setattr(trainer, name, value)
        return trainer

    def _dpo(self, rows: PairRows, loss: PreferenceLoss, sft_weight: float) -> Tensor:
        trainer = self._bare(
            "dpo",
            model=_Model(rows.logprobs * rows.mask),
            accelerator=_OneProcess(),
            beta=loss.beta,
            loss_types=[loss.kind, "sft"] if sft_weight else [loss.kind],
            loss_weights=[1.0, sft_weight] if sft_weight else [1.0],
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            label_smoothing=0.0,
            ld_alpha=None,
            use_weighting=False,
            aux_loss_enabled=False,
            _total_train_tokens=0,
            _tp_size=1,
            _metrics={"train": defaultdict(list)},
        )
        reference = (rows.reference * rows.mask).sum(1)
        # The first token has nothing before it: TRL shifts it away.
        mask = torch.cat([torch.zeros(len(rows.mask), 1, dtype=torch.long), rows.mask.long()], dim=1)
        inputs = {
            "input_ids": torch.zeros_like(mask),
            "attention_mask": torch.ones_like(mask),
            "completion_mask": mask,
            "ref_chosen_logps": reference[: rows.num_pairs],
            "ref_rejected_logps": reference[rows.num_pairs :],
        }
        return trainer._compute_loss(trainer.model, inputs, return_outputs=False)  # type: ignore[no-any-return]

    def _cpo(self, values: Tensor, kind: str, loss: Any, gamma: float) -> Tensor:
        trainer = self._bare("cpo", accelerator=_OneProcess(), beta=loss.beta, **_cpo_attributes(loss, kind, gamma))
        chosen, rejected = values.chunk(2)
        return trainer.cpo_loss(chosen, rejected)[0].mean()  # type: ignore[no-any-return]

    def _orpo(self, rows: PairRows, loss: OrpoLoss) -> Tensor:
        trainer = self._bare("orpo", accelerator=_OneProcess(), beta=loss.beta)
        chosen, rejected = ((rows.logprobs * rows.mask).sum(1) / rows.mask.sum(1)).chunk(2)
        return _nll(rows) - trainer.odds_ratio_loss(chosen, rejected)[0].mean()  # type: ignore[no-any-return]


def _cpo_attributes(loss: Any, kind: str, gamma: float) -> dict[str, Any]:
    return {"alpha": 0.0, "loss_type": kind, "simpo_gamma": gamma, "label_smoothing": loss.label_smoothing}


def _nll(rows: PairRows) -> Tensor:
    """Mean over the chosen tokens of the batch, as `cross_entropy_loss` of TRL's trainers."""
    chosen = slice(0, rows.num_pairs)
    return -rows.logprobs[chosen][rows.mask[chosen]].mean()
