"""The whole step against TRL 1.16: the gradient of the LoRA parameters that the trainer takes on packed pairs is that of TRL's loss on
padded rows of the same model, loaded with transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import plain_model
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, plain_gradients, taken_gradients
from tests.trainer.losses.trl_preference import PairRows, TrlPreference
from tests.trainer.pairs import LOSSES, random_pairs

from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Dpo


@pytest.fixture(scope="module")
def trl() -> TrlPreference:
    return TrlPreference()


def padded(samples: list[TrainSample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, attention mask, trained mask), padded on the right as TRL's collator does it."""
    length = max(len(sample.token_ids) for sample in samples)
    ids, attention, trained = (torch.zeros(len(samples), length, dtype=torch.long) for _ in range(3))
    for row, sample in enumerate(samples):
        count = len(sample.token_ids)
        ids[row, :count] = torch.tensor(sample.token_ids)
        attention[row, :count] = 1
        trained[row, :count] = torch.tensor(sample.is_sampled)
    return ids, attention, trained


def rows_of(model: Any, reference: Any, pairs: list[SamplePair]) -> PairRows:
    ids, attention, trained = padded([pair.chosen[0] for pair in pairs] + [pair.rejected[0] for pair in pairs])

    def logprobs(one: Any) -> torch.Tensor:
        logits = one(input_ids=ids, attention_mask=attention).logits[:, :-1].float()
        return torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None])[:, :, 0]

    with torch.no_grad():
        known = logprobs(reference)
    return PairRows(logprobs(model), known, trained[:, 1:].bool())


CASES = [
    *({"loss": loss} for loss in LOSSES),
    *({"loss": loss, "sft_weight": 0.2} for loss in LOSSES if loss != "orpo"),
    *({"loss": loss, "label_smoothing": 0.1} for loss in ("sigmoid", "sigmoid_norm", "simpo")),
]


def bare(**given: Any) -> Dpo:
    """Settings of one update whose gradient can be read from the optimiser."""
    return Dpo.model_validate({"adam": BARE_ADAM, "batch_size": 64} | given)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(str(value) for value in case.values()))
def test_parity_of_the_gradient_of_a_step(
    trl: TrlPreference, trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path, case: dict[str, Any]
) -> None:
    settings, pairs = bare(**case), random_pairs()
    model = plain_model(sharp_model, adapter, trainable=True)
    expected = trl(rows_of(model, plain_model(sharp_model), pairs), settings.loss, sft_weight=settings.sft_weight)
    metrics = trainer.preference_step(pairs, settings, lambda _: None)
    assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_same_gradients(taken_gradients(trainer, tmp_path), plain_gradients(model, expected))


def batch_of(pairs: list[SamplePair]) -> dict[str, torch.Tensor]:
    """What the collators of TRL's CPO and ORPO trainers give."""
    batch = {}
    for side, samples in (("chosen", [pair.chosen[0] for pair in pairs]), ("rejected", [pair.rejected[0] for pair in pairs])):
        ids, attention, trained = padded(samples)
        labels = ids.masked_fill(trained == 0, -100)
        batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": attention, f"{side}_labels": labels}
    return batch


def test_parity_of_simpo_with_the_whole_step_of_trls_trainer(
    trl: TrlPreference, trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path
) -> None:
    settings, pairs = bare(loss="simpo"), random_pairs()
    model = plain_model(sharp_model, adapter, trainable=True)
    expected = trl.whole(model, batch_of(pairs), settings.loss)
    trainer.preference_step(pairs, settings, lambda _: None)
    assert_same_gradients(taken_gradients(trainer, tmp_path), plain_gradients(model, expected))


def shortened(pairs: list[SamplePair]) -> list[SamplePair]:
    """The pairs with one token before the trained ones."""

    def cut(sample: TrainSample) -> TrainSample:
        start = sample.is_sampled.index(True) - 1
        return TrainSample(sample.token_ids[start:], sample.is_sampled[start:], sample.logprobs[start:], 0.0)

    return [SamplePair((cut(pair.chosen[0]),), (cut(pair.rejected[0]),)) for pair in pairs]


def test_parity_of_orpo_with_the_whole_step_of_trls_trainer_ends_where_it_imitates_the_prompt_too(
    trl: TrlPreference, trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path
) -> None:
    settings, pairs = bare(loss="orpo"), random_pairs()
    model = plain_model(sharp_model, adapter, trainable=True)
    trainer.save_state(tmp_path / "start")
    # Of a prompt of one token nothing is predicted: there both imitate the same.
    expected = trl.whole(model, batch_of(shortened(pairs)), settings.loss)
    assert trainer.preference_step(shortened(pairs), settings, lambda _: None)["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "one"), plain_gradients(model, expected))
    trainer.load_state(tmp_path / "start")
    with torch.no_grad():
        theirs = float(trl.whole(model, batch_of(pairs), settings.loss))
    assert trainer.preference_step(pairs, settings, lambda _: None)["loss"] != pytest.approx(theirs, rel=1e-2)
