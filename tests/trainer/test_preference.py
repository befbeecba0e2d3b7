"""A preference step moves both sides the right way; packing, splitting and when the reference is computed change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.tiny import make_sample, plain_logprobs, plain_model
from tests.trainer.conftest import MakeTrainer
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, plain_gradients, taken_gradients
from tests.trainer.pairs import LOSSES, plain_reference, plain_sides, random_pairs, two_samples
from tests.trainer.test_trainer import assert_equal_states, state_of
from torch import nn

from journeyman.errors import ContextLengthError, TrainingError
from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.trainer.losses.preference import Side, preference_loss
from journeyman.trainer.packing import PackedTree, pack
from journeyman.trainer.pairs import pack_pairs
from journeyman.trainer.preference import ReferenceSums
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Dpo, needs_reference


def quiet(_: float) -> None:
    return None


def bare(loss: str, **others: object) -> Dpo:
    """Settings of one update whose gradient can be read from the optimiser."""
    return Dpo.model_validate({"loss": loss, "adam": BARE_ADAM, "batch_size": 64} | others)


def gradients_of(trainer: LoraTrainer, pairs: list[SamplePair], settings: Dpo, folder: Path) -> list[torch.Tensor]:
    trainer.preference_step(pairs, settings, quiet)
    return taken_gradients(trainer, folder)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("max_tokens", [4096, 64])
def test_packed_pairs_give_the_gradient_of_single_rows(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path, loss: str, max_tokens: int
) -> None:
    pairs, settings = random_pairs(), bare(loss, tokens_per_micro_batch=max_tokens, sft_weight=0.0 if loss == "orpo" else 0.3)
    model = plain_model(sharp_model, adapter, trainable=True)
    chosen, rejected = plain_sides(model, pairs)
    if needs_reference(settings.loss):
        known = plain_reference(sharp_model, pairs)
        chosen, rejected = (Side(side.logprob_P, side.num_terms_P, sums) for side, sums in zip((chosen, rejected), known, strict=True))
    expected = preference_loss(chosen, rejected, settings, float(chosen.num_terms_P.sum()) / len(pairs)).loss_P.mean()
    metrics = trainer.preference_step(pairs, settings, quiet)
    assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_same_gradients(taken_gradients(trainer, tmp_path), plain_gradients(model, expected))


def test_a_pair_larger_than_a_micro_batch_is_split_and_gives_the_same(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    uniform = torch.Generator().manual_seed(3)
    ids = [torch.randint(3, 300, (length,), generator=uniform).tolist() for length in (10, 40, 50, 60)]
    segments = tuple(make_sample([*ids[0], *more], 10) for more in ids[1:])
    pairs = [SamplePair(segments[:2], segments[2:]), *random_pairs()[:2]]
    assert bool(pack_pairs(pairs, 64).is_split_P[0])
    for loss in LOSSES:
        found = []
        for max_tokens in (4096, 64):
            trainer, settings = make_trainer(), bare(loss, tokens_per_micro_batch=max_tokens)
            metrics = trainer.preference_step(pairs, settings, quiet)
            found.append((metrics, taken_gradients(trainer, tmp_path / f"{loss}-{max_tokens}")))
        (whole, whole_gradients), (split, split_gradients) = found
        assert_same_gradients(split_gradients, whole_gradients)
        same = ("loss", "reward_margin", "reward_accuracy", "chosen_logprob_change", "num_tokens", "num_pairs_seen")
        assert [split[name] for name in same] == pytest.approx([whole[name] for name in same], rel=1e-4, abs=1e-5)


def test_the_common_prompt_of_a_pair_is_computed_once(trainer: LoraTrainer) -> None:
    (pair,) = random_pairs(1)
    metrics = trainer.preference_step([pair], Dpo(), quiet)
    assert metrics["num_computed_tokens"] == len(pack(pair.samples).token_ids)
    assert metrics["num_unpacked_tokens"] == sum(len(sample.token_ids) for sample in pair.samples) > metrics["num_computed_tokens"]


def test_pairs_are_dealt_out_evenly_and_each_stays_whole() -> None:
    def pair_of(length: int) -> SamplePair:
        ids = list(range(1000 * length, 1000 * length + length))
        return SamplePair((make_sample(ids, 2),), (make_sample([*ids[:2], 5], 2),))

    pairs = [pair_of(length) for length in (90, 10, 80, 20)]
    packed = pack_pairs(pairs, 4096, num_parts=2)
    assert [len(one.tree.token_ids) for one in packed.trees] == [102, 102]
    assert [one.pairs.tolist() for one in packed.trees] == [[0, 1], [2, 3]]
    assert not bool(packed.is_split_P.any())
    assert len(pack_pairs(pairs[:1], 4096, num_parts=2).trees) == 1


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "sigmoid_norm"])
def test_the_reference_with_the_adapter_off_equals_a_second_model(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, loss: str
) -> None:
    pairs, settings = random_pairs(), bare(loss)
    with torch.no_grad():
        chosen, rejected = plain_sides(plain_model(sharp_model, adapter), pairs)
    known = plain_reference(sharp_model, pairs)
    sides = [Side(side.logprob_P, side.num_terms_P, sums) for side, sums in zip((chosen, rejected), known, strict=True)]
    expected = preference_loss(sides[0], sides[1], settings, 1.0)
    metrics = trainer.preference_step(pairs, settings, quiet)
    assert metrics["reward_chosen"] == pytest.approx(float(expected.chosen_reward_P.mean()), rel=1e-4)
    assert metrics["reward_rejected"] == pytest.approx(float(expected.rejected_reward_P.mean()), rel=1e-4)
    margins = expected.chosen_reward_P - expected.rejected_reward_P
    assert metrics["reward_margin"] == pytest.approx(float(margins.mean()), rel=1e-4, abs=1e-5)
    assert metrics["reward_accuracy"] == pytest.approx(float((margins > 0).float().mean()))


def test_a_reference_computed_before_or_on_the_fly_gives_the_same_weights(make_trainer: MakeTrainer) -> None:
    pairs, after = random_pairs(), []
    for reference in ("precomputed", "on_the_fly"):
        trainer = make_trainer()
        trainer.preference_step(pairs, Dpo(learning_rate=1e-3, reference=reference, batch_size=2, epochs=3), quiet)
        after.append(trainer.logprobs([sample for pair in pairs for sample in pair.samples]))
    before, on_the_fly = (torch.tensor([value for sample in one for value in sample]) for one in after)
    torch.testing.assert_close(before, on_the_fly, rtol=1e-4, atol=1e-4)


def count_references(trainer: LoraTrainer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sides each pass through the reference scores, from now on."""
    score, found = trainer._score, []

    def counted(trees: Sequence[PackedTree], decoder: nn.Module | None = None) -> list[torch.Tensor]:
        if decoder is trainer._reference:
            found.append(sum(len(tree.samples) for tree in trees))
        return score(trees, decoder)

    monkeypatch.setattr(trainer, "_score", counted)
    return found


STEP = Dpo(learning_rate=1e-3, batch_size=2)


def test_the_reference_of_a_pair_is_computed_once_for_the_whole_run(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe makes its epochs of steps that see each pair once."""
    trainer, forgetful, pairs = make_trainer(), make_trainer(), random_pairs()
    counts, all_counts = count_references(trainer, monkeypatch), count_references(forgetful, monkeypatch)
    for _epoch in range(2):
        for part in (pairs[:4], pairs[4:]):
            forgetful._known = ReferenceSums()
            # The same losses, to the bit, as with a reference that is computed before every step.
            kept, anew = (one.preference_step(part, STEP, quiet) for one in (trainer, forgetful))
            assert {name: value for name, value in kept.items() if name != "compute_seconds"} == {
                name: value for name, value in anew.items() if name != "compute_seconds"
            }
    assert sum(counts) == 2 * len(pairs)
    assert sum(all_counts) == 2 * sum(counts)
    # Shuffled, repeated or measured, none is scored again; held-out ones are scored when they are first measured.
    trainer.preference_step([*pairs[::-1], pairs[0]], STEP, quiet)
    for _time in range(2):
        trainer.measure_pairs(random_pairs(2, seed=9), STEP, quiet)
    assert sum(counts) == 2 * len(pairs) + 4
    trainer.preference_step(pairs, STEP.model_copy(update={"reference": "on_the_fly"}), quiet)
    assert sum(counts) > 2 * len(pairs) + 4


def test_references_are_kept_with_the_state(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through, first, second, pairs = make_trainer(), make_trainer(), make_trainer(is_new=True), random_pairs()
    for trainer in (through, first):
        trainer.preference_step(pairs, STEP, quiet)
    first.save_state(tmp_path / "half")
    second.load_state(tmp_path / "half")
    counts = count_references(second, monkeypatch)
    for trainer in (through, second):
        trainer.preference_step(pairs[::-1], STEP, quiet)
    assert counts == []
    assert_equal_states(state_of(through, tmp_path / "through"), state_of(second, tmp_path / "second"))
    # A state from before the first pair has none.
    second.load_state(tmp_path / "start-1")
    second.preference_step(pairs, STEP, quiet)
    assert sum(counts) == 2 * len(pairs)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_tiny_model_learns_to_prefer_what_was_chosen(make_trainer: MakeTrainer, loss: str) -> None:
    trainer, pairs = make_trainer(is_new=True), random_pairs()
    before = trainer.logprobs([sample for pair in pairs for sample in pair.samples])
    settings = Dpo(loss=loss, learning_rate=1e-2, epochs=8, batch_size=3)
    first = trainer.preference_step(pairs, settings, quiet)
    last = trainer.preference_step(pairs, settings, quiet)
    after = trainer.logprobs([sample for pair in pairs for sample in pair.samples])
    margins = [
        sum(two[0]) - sum(two[1]) - sum(one[0]) + sum(one[1]) for one, two in zip(two_samples(before), two_samples(after), strict=True)
    ]
    assert all(margin > 0 for margin in margins)
    assert last["loss"] < first["loss"]
    assert last["reward_accuracy"] == 1.0
    assert last["reward_margin"] > first["reward_margin"]
    assert last["chosen_logprob_change"] > last["rejected_logprob_change"]
    assert (trainer.step, last["num_updates"]) == (2, 8 * math.ceil(len(pairs) / 3))


def test_the_log_likelihood_of_the_chosen_holds_it_up(make_trainer: MakeTrainer) -> None:
    pairs = random_pairs()
    changes = []
    for weight in (0.0, 1.0):
        metrics = make_trainer(is_new=True).preference_step(pairs, Dpo(learning_rate=1e-2, epochs=8, sft_weight=weight), quiet)
        changes.append(metrics["chosen_logprob_change"])
    assert changes[1] > changes[0] + 0.1


def test_changes_are_measured_after_the_last_update_against_the_reference(trainer: LoraTrainer, sharp_model: Path) -> None:
    pairs = random_pairs()
    for loss in ("sigmoid", "simpo"):
        metrics = trainer.preference_step(pairs, Dpo(loss=loss, learning_rate=1e-3), quiet)
        for place, name in ((0, "chosen"), (1, "rejected")):
            samples = [pair.samples[place] for pair in pairs]
            with torch.no_grad():
                base = sum(float(plain_logprobs(plain_model(sharp_model), one.token_ids)[trained(one)].sum()) for one in samples)
            now = sum(value for one in trainer.logprobs(samples) for value in one)
            count = sum(one.num_sampled for one in samples)
            assert metrics[f"{name}_logprob_change"] == pytest.approx((now - base) / count, abs=1e-4)


def test_measuring_pairs_tells_what_a_step_would_log_first_and_changes_nothing(trainer: LoraTrainer, tmp_path: Path) -> None:
    before = state_of(trainer, tmp_path / "before")
    for loss in LOSSES:
        settings = bare(loss, sft_weight=0.0 if loss == "orpo" else 0.3)
        seen: list[float] = []
        measured = trainer.measure_pairs(random_pairs(), settings.model_copy(update={"batch_size": 4}), seen.append)
        assert_equal_states(before, state_of(trainer, tmp_path / "after"))
        assert (seen, trainer.step) == ([pytest.approx(4 / 6), 1.0], 0)
        values = [torch.tensor(sum(one)) / len(one) for one in trainer.logprobs([one for pair in random_pairs() for one in pair.samples])]
        ranked = [float(chosen > rejected) for chosen, rejected in zip(values[0::2], values[1::2], strict=True)]
        assert measured["ranked_right"] == pytest.approx(sum(ranked) / len(ranked))
        logged = trainer.preference_step(random_pairs(), settings, quiet)
        same = ("loss", "reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
        assert [measured[name] for name in same] == pytest.approx([logged[name] for name in same], rel=1e-4, abs=1e-5)
        after = trainer.measure_pairs(random_pairs(), settings, quiet)
        assert after["chosen_logprob_change"] == pytest.approx(logged["chosen_logprob_change"], abs=1e-5)
        trainer.load_state(tmp_path / "after")


def trained(sample: TrainSample) -> torch.Tensor:
    return torch.tensor(sample.is_sampled[1:])


def test_the_same_seed_gives_the_same_weights_with_one_worker_or_more(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    settings = Dpo(learning_rate=1e-3, batch_size=2, epochs=2, seed=5)
    states = []
    for number, workers in enumerate((1, 1, 2)):
        trainer = make_trainer(workers)
        trainer.preference_step(random_pairs(), settings, quiet)
        states.append(state_of(trainer, tmp_path / str(number)))
    assert_equal_states(states[0], states[1])
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[2][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_resumed_trainer_goes_on_to_the_same_bits(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    through, first, second = make_trainer(), make_trainer(), make_trainer(is_new=True)
    settings = Dpo(learning_rate=1e-3, batch_size=2)
    for trainer in (through, first):
        trainer.preference_step(random_pairs(), settings, quiet)
    first.save_state(tmp_path / "half")
    second.load_state(tmp_path / "half")
    for trainer in (through, second):
        trainer.preference_step(random_pairs(seed=7), settings, quiet)
    assert_equal_states(state_of(through, tmp_path / "through"), state_of(second, tmp_path / "second"))


def test_progress_rises_to_one_with_the_reference_in_it(trainer: LoraTrainer) -> None:
    for settings in (Dpo(batch_size=2, epochs=2), Dpo(batch_size=2, reference="on_the_fly")):
        seen: list[float] = []
        trainer.preference_step(random_pairs(), settings, seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert len(seen) == (9 if settings.epochs == 2 else 3)


def spoil(trainer: LoraTrainer, monkeypatch: pytest.MonkeyPatch, updates: set[int]) -> None:
    """Make the gradient of these updates infinite, counted from 0."""
    apply, count = trainer._optimizer.apply, iter(range(1000))

    def spoiled(gradients: list[torch.Tensor], *others: object) -> float:
        return apply([one * math.inf for one in gradients] if next(count) in updates else gradients, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer._optimizer, "apply", spoiled)


def test_a_batch_whose_gradient_is_not_finite_is_skipped_and_counted(trainer: LoraTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(trainer, monkeypatch, {0, 2})
    metrics = trainer.preference_step(random_pairs(), Dpo(batch_size=2, epochs=2), quiet)
    assert (metrics["num_updates"], metrics["num_updates_skipped"], metrics["num_pairs_seen"]) == (4.0, 2.0, 8.0)
    assert all(map(math.isfinite, metrics.values()))


def test_three_batches_in_a_row_stop_training_and_take_all_updates_back(
    trainer: LoraTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(trainer, tmp_path / "before")
    spoil(trainer, monkeypatch, {1, 2, 3})
    with pytest.raises(TrainingError, match="batch 4 of 6") as caught:
        trainer.preference_step(random_pairs(), Dpo(batch_size=2, epochs=2), quiet)
    assert caught.value.reason == "not_finite"
    assert_equal_states(before, state_of(trainer, tmp_path / "after"))


def test_a_step_whose_last_batch_is_not_finite_is_skipped_as_a_whole_and_the_third_stops_training(
    trainer: LoraTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = state_of(trainer, tmp_path / "before")
    spoil(trainer, monkeypatch, {5, 6, 7})
    metrics = trainer.preference_step(random_pairs(), Dpo(batch_size=2, epochs=2), quiet)
    assert (metrics["num_updates_skipped"], metrics["num_skipped_in_a_row"]) == (6, 1)
    assert [record.args[:2] for record in caplog.records if isinstance(record.args, tuple)] == [("step 1", 1)]
    assert trainer.preference_step(random_pairs(), Dpo(batch_size=6), quiet)["num_skipped_in_a_row"] == 2
    after = state_of(trainer, tmp_path / "after")
    assert (int(before.pop("step")), int(after.pop("step"))) == (0, 2)
    assert (int(before.pop("skipped_in_a_row")), int(after.pop("skipped_in_a_row"))) == (0, 2)
    assert_equal_states(before, after)
    with pytest.raises(TrainingError, match="step 3") as caught:
        trainer.preference_step(random_pairs(), Dpo(batch_size=6), quiet)
    assert caught.value.reason == "not_finite"
    assert trainer.preference_step(random_pairs(), Dpo(batch_size=6), quiet)["num_skipped_in_a_row"] == 0


def test_a_pair_longer_than_the_context_is_refused_by_name_or_dropped_and_counted(trainer: LoraTrainer) -> None:
    long = SamplePair((make_sample(range(3, 303), 3),), (make_sample([*range(3, 303), *range(3, 303)], 3),), "pair 7")
    with pytest.raises(ContextLengthError, match=r"pair 7.* 600 .* 512"):
        trainer.preference_step([*random_pairs(), long], Dpo(), quiet)
    metrics = trainer.preference_step([*random_pairs(), long], Dpo(when_too_long="drop"), quiet)
    assert (metrics["num_pairs_too_long"], metrics["num_pairs_seen"]) == (1.0, 6.0)
    with pytest.raises(TrainingError) as caught:
        trainer.preference_step([long], Dpo(when_too_long="drop"), quiet)
    assert caught.value.reason == "all_too_long"


def test_a_side_without_a_token_to_train_on_is_refused_by_name(trainer: LoraTrainer) -> None:
    pair = SamplePair((make_sample([5, 6, 7], 1),), (make_sample([5, 6, 7], 3),), "pair 2")
    with pytest.raises(TrainingError, match=r"pair 2 .* rejected") as caught:
        trainer.preference_step([pair], Dpo(), quiet)
    assert caught.value.reason == "no_trained_token"
    with pytest.raises(TrainingError) as caught:
        trainer.preference_step([], Dpo(), quiet)
    assert caught.value.reason == "no_pairs"
    assert trainer.step == 0
