"""SFT is TRL's: a real SFTTrainer on the same tokens and masks gives the same loss and gradients, and makes the same masks of texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import plain_model, random_group
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, taken_gradients
from torch import Tensor

from journeyman.chat.renderer import Renderer
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Sft

pytestmark = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl: pip install 'journeyman[parity]'")


def trl_trainer(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], folder: Path, *, batch_size: int, accumulate: int = 1) -> Any:
    """A real SFTTrainer for one optimiser step over all rows, without clipping; its gradients are in `.seen` after `train()`."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    seen: list[Tensor] = []

    class Keep(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *args: Any, **others: Any) -> None:
            seen.extend(parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad)

    settings = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate, gradient_checkpointing=False, max_grad_norm=0.0, max_length=None,
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(model, settings, train_dataset=Dataset.from_list(list(rows)), processing_class=tokenizer, callbacks=[Keep()])
    trainer.seen = seen
    return trainer


def labelled(samples: Sequence[TrainSample]) -> list[dict[str, Any]]:
    """Rows as TRL has them after its own preparation: what is not trained has the label -100."""
    return [
        {
            "input_ids": list(sample.token_ids),
            "labels": [token if trained else -100 for token, trained in zip(sample.token_ids, sample.is_sampled, strict=True)],
        }
        for sample in samples
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("accumulate", [1, 7])
def test_supervised_loss_and_gradients_parity_with_trl(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tiny_tokenizer: Any, tmp_path: Path, accumulate: int
) -> None:
    samples = [*random_group(1, vocabulary=300), *random_group(2, vocabulary=300, num_prompt=40)]
    assert len(samples) % accumulate == 0
    found = trainer.supervised_step(samples, Sft(adam=BARE_ADAM, batch_size=64, tokens_per_micro_batch=128), lambda _: None)
    model = plain_model(sharp_model, adapter, trainable=True)
    theirs = trl_trainer(model, tiny_tokenizer, labelled(samples), tmp_path, batch_size=len(samples) // accumulate, accumulate=accumulate)
    result = theirs.train()
    assert found["loss"] == pytest.approx(result.training_loss, rel=1e-5)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), theirs.seen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_tokens_and_masks_of_prompt_and_completion_texts_parity_with_trl(
    sharp_model: Path, adapter: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": "Two and two is", "completion": " four."}, {"prompt": "Red:", "completion": " rouge"}]
    model = plain_model(sharp_model, adapter, trainable=True)
    theirs = trl_trainer(model, tiny_tokenizer, rows, tmp_path, batch_size=2).train_dataset
    renderer = Renderer(tiny_tokenizer, 512)
    for row, prepared in zip(rows, theirs, strict=True):
        ids, trained = renderer.render_text(row["completion"], row["prompt"])
        assert list(ids) == prepared["input_ids"]
        assert [token if taught else -100 for token, taught in zip(ids, trained, strict=True)] == prepared["labels"]
