"""A step moves the policy the right way, can be undone by nothing but a restart from disk, and a failed one never happened."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import NAN, make_sample, plain_logprobs, plain_model, random_group
from tests.trainer.conftest import MakeTrainer
from tests.trainer.gradients import with_old_logprobs

from journeyman.errors import AdapterError, ContextLengthError, StoreError, TrainingError
from journeyman.modeling.lora import fingerprint, read_adapter
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Grpo, Sft
from journeyman.types.training import TrainResult

SETTINGS = Grpo(learning_rate=1e-3)
WILD = Sft(learning_rate=1e30)  # after one update nothing can be computed any more


def quiet(_: float) -> None:
    return None


def group(seed: int = 1) -> list[TrainSample]:
    """Samples with unknown old log-probabilities: what they would be right after sampling."""
    return random_group(seed, vocabulary=300)


def state_of(trainer: LoraTrainer, folder: Path) -> dict[str, torch.Tensor]:
    trainer.save_state(folder)
    return load_file(str(folder / "optimizer.safetensors")) | load_file(str(folder / "adapter" / "adapter_model.safetensors"))


def assert_equal_states(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_a_step_makes_rewarded_tokens_likelier_and_others_less_likely(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(is_new=True)
    prompt = list(range(10, 22))
    samples = [make_sample([*prompt, 100 + n, 200 + n], 12, advantage=1.0 if n < 2 else -1.0) for n in range(4)]
    before = trainer.logprobs(samples)
    metrics = trainer.policy_step([samples], SETTINGS, quiet)
    after = trainer.logprobs(samples)
    for number in range(4):
        assert (sum(after[number]) > sum(before[number])) == (number < 2)
    assert trainer.step == 1
    assert metrics["ratio_mean"] == pytest.approx(1.0)
    assert metrics["kl_to_base"] == 0.0
    assert metrics["num_tokens"] == 8
    assert 0 < metrics["entropy"] <= math.log(313)
    assert metrics["gradient_norm"] > 0


def test_without_groups_the_step_advances_and_nothing_else_changes(trainer: LoraTrainer, tmp_path: Path) -> None:
    trainer.policy_step([group()], SETTINGS, quiet)
    before = state_of(trainer, tmp_path / "before")
    for groups in ([], [[]], [[make_sample([5, 6, 7], 3)]]):
        trainer.policy_step(groups, SETTINGS, quiet)
    after = state_of(trainer, tmp_path / "after")
    assert (int(before.pop("step")), int(after.pop("step"))) == (1, 4)
    assert_equal_states(before, after)


def test_samples_without_a_trainable_token_beside_others_change_nothing(make_trainer: MakeTrainer) -> None:
    alone, beside = make_trainer(), make_trainer()
    alone.policy_step([group()], SETTINGS, quiet)
    beside.policy_step([[make_sample([5, 6, 7], 3)], group()], SETTINGS, quiet)
    assert alone.fingerprint() == beside.fingerprint()


def spoiled(seed: int = 2, advantage: float = math.nan) -> list[TrainSample]:
    """A group with one sample whose gradient cannot be computed."""
    sample = make_sample([9, 8, 7], 1, advantage=advantage)
    return [*group(seed), TrainSample(sample.token_ids, sample.is_sampled, sample.logprobs, advantage, "the-odd-one")]


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("advantage", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_is_skipped_named_and_counted(
    trainer: LoraTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture, advantage: float, updates: int
) -> None:
    trainer.policy_step([group()], SETTINGS, quiet)
    before = state_of(trainer, tmp_path / "before")
    metrics = trainer.policy_step([group(3), spoiled(2, advantage)], SETTINGS.model_copy(update={"updates": updates}), quiet)
    assert metrics["num_updates_skipped"] == updates
    assert metrics["num_skipped_in_a_row"] == 1
    assert all(map(math.isfinite, metrics.values()))
    assert "(with the-odd-one)" in caplog.text
    after = state_of(trainer, tmp_path / "after")
    assert (int(before.pop("step")), int(after.pop("step"))) == (1, 2)
    assert (int(before.pop("skipped_in_a_row")), int(after.pop("skipped_in_a_row"))) == (0, 1)
    assert_equal_states(before, after)


def test_a_step_whose_forward_pass_is_not_finite_is_skipped_and_its_result_can_be_read(trainer: LoraTrainer) -> None:
    poison(trainer)
    metrics = trainer.policy_step([group()], SETTINGS, quiet)
    result = TrainResult(step=trainer.step, adapter="m@1", metrics=metrics)
    assert TrainResult.model_validate_json(result.model_dump_json()) == result
    assert (result.metrics["num_skipped_in_a_row"], result.metrics["num_metrics_not_finite"]) == (1, 1)
    assert "kl_to_base" not in result.metrics


def test_the_third_skipped_step_in_a_row_stops_training(trainer: LoraTrainer, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    for _ in range(2):
        trainer.policy_step([spoiled()], SETTINGS, quiet)
    assert trainer.policy_step([group()], SETTINGS, quiet)["num_skipped_in_a_row"] == 0
    for _ in range(2):
        trainer.policy_step([spoiled()], SETTINGS, quiet)
    trainer.save_state(tmp_path / "before")
    resumed = make_trainer(is_new=True)
    resumed.load_state(tmp_path / "before")
    for each in (trainer, resumed):
        with pytest.raises(TrainingError, match=r"step 6: .*the-odd-one") as caught:
            each.policy_step([spoiled()], SETTINGS, quiet)
        assert caught.value.reason == "not_finite"
        assert each.step == 5
    assert_equal_states(state_of(trainer, tmp_path / "after"), state_of(resumed, tmp_path / "resumed"))


def test_a_later_update_that_fails_takes_the_earlier_ones_back(trainer: LoraTrainer, tmp_path: Path) -> None:
    trainer.policy_step([group()], SETTINGS, quiet)
    before = state_of(trainer, tmp_path / "before")
    metrics = trainer.policy_step([group()], SETTINGS.model_copy(update={"updates": 3, "learning_rate": 1e30}), quiet)
    assert metrics["num_updates_skipped"] == 3
    metrics = trainer.supervised_step(group(), WILD.model_copy(update={"batch_size": 4}), quiet)
    assert (metrics["num_updates_skipped"], metrics["num_skipped_in_a_row"]) == (2, 2)
    after = state_of(trainer, tmp_path / "after")
    assert (int(before.pop("step")), int(after.pop("step"))) == (1, 3)
    assert (int(before.pop("skipped_in_a_row")), int(after.pop("skipped_in_a_row"))) == (0, 2)
    assert_equal_states(before, after)


def poison(trainer: LoraTrainer) -> None:
    """From now on every forward pass is not finite."""
    with torch.no_grad():
        trainer._parameters[0].fill_(math.nan)


def test_supervised_steps_of_one_batch_are_skipped_named_and_counted_over_jobs_and_a_resume(
    trainer: LoraTrainer, make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.save_state(tmp_path / "sound")
    poison(trainer)
    samples = [TrainSample(one.token_ids, one.is_sampled, one.logprobs, 1.0, "example 0") for one in group()[:1]]
    heard: list[float] = []
    metrics = trainer.supervised_step(samples, Sft(), heard.append)
    assert (metrics["num_updates_skipped"], metrics["num_skipped_in_a_row"], trainer.step, heard[-1]) == (1, 1, 1, 1.0)
    assert "loss" not in metrics
    assert "example 0" in caplog.text
    assert trainer.policy_step([group()], SETTINGS, quiet)["num_skipped_in_a_row"] == 2
    trainer.save_state(tmp_path / "before")
    resumed = make_trainer(is_new=True)
    resumed.load_state(tmp_path / "before")
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"step 3: .*example 0") as caught:
            resumed.supervised_step(samples, Sft(), quiet)
        assert caught.value.reason == "not_finite"
        assert resumed.step == 2
    trainer.load_state(tmp_path / "sound")
    assert trainer.supervised_step(samples, Sft(), quiet)["num_skipped_in_a_row"] == 0


def test_three_batches_of_one_job_that_are_not_finite_stop_training_and_are_forgotten_with_it(trainer: LoraTrainer) -> None:
    for _ in range(2):
        with pytest.raises(TrainingError, match="batch 4 of 7") as caught:
            trainer.supervised_step(group(), WILD.model_copy(update={"batch_size": 1}), quiet)
        assert caught.value.reason == "not_finite"
        assert trainer.step == 0


@pytest.mark.parametrize("is_named", [True, False])
def test_a_trajectory_longer_than_the_context_is_refused_by_its_id_or_dropped(
    trainer: LoraTrainer, make_trainer: MakeTrainer, tmp_path: Path, is_named: bool
) -> None:
    name = "trajectory-7" if is_named else ""
    long, short = make_sample([5, *range(3, 283), *range(3, 283)], 1, advantage=1.0), make_sample([5, 6, 7], 1, advantage=-1.0)
    segments = [TrainSample(one.token_ids, one.is_sampled, one.logprobs, one.advantage, name) for one in (long, short)]
    with pytest.raises(ContextLengthError, match=r"561 tokens.*512") as refused:
        trainer.policy_step([[*group(), *segments]], SETTINGS, quiet)
    assert name in str(refused.value)
    assert trainer.step == 0
    metrics = trainer.policy_step([[*group(), *segments]], SETTINGS.model_copy(update={"when_too_long": "drop"}), quiet)
    assert metrics["num_trajectories_too_long"] == 1
    beside = make_trainer()
    # A trajectory goes with all its segments.
    beside.policy_step([group() if is_named else [*group(), segments[1]]], SETTINGS, quiet)
    assert_equal_states(state_of(trainer, tmp_path / "dropped"), state_of(beside, tmp_path / "without"))
    with pytest.raises(ContextLengthError, match="561 tokens"):
        trainer.supervised_step(segments, Sft(), quiet)
    assert trainer.supervised_step([*group(), *segments], Sft(when_too_long="drop"), quiet)["num_examples_too_long"] == 1


def test_samples_of_another_policy_are_refused(trainer: LoraTrainer, tmp_path: Path) -> None:
    before = state_of(trainer, tmp_path / "before")
    samples = group()
    shifted = with_old_logprobs(samples, trainer.logprobs(samples), [0.2])
    with pytest.raises(TrainingError, match="max_logprob_gap"):
        trainer.policy_step([shifted], SETTINGS, quiet)
    assert_equal_states(before, state_of(trainer, tmp_path / "after"))
    metrics = trainer.policy_step([shifted], SETTINGS.model_copy(update={"max_logprob_gap": 0.3}), quiet)
    assert metrics["logprob_gap_mean"] == pytest.approx(0.2, rel=1e-4)
    assert metrics["logprob_gap_max"] == pytest.approx(0.2, rel=1e-4)


def test_a_resumed_trainer_goes_on_bit_for_bit(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"updates": 2})
    through = make_trainer()
    through.policy_step([group(1)], settings, quiet)
    through.supervised_step(group(2), Sft(batch_size=3), quiet)
    through.save_state(tmp_path / "middle")
    resumed = make_trainer(is_new=True)
    resumed.load_state(tmp_path / "middle")
    assert resumed.step == 2
    for trainer in (through, resumed):
        trainer.policy_step([group(3), group(4)], settings, quiet)
    assert_equal_states(state_of(through, tmp_path / "through"), state_of(resumed, tmp_path / "resumed"))


@pytest.mark.parametrize("num_workers", [2, 3])
def test_the_number_of_workers_does_not_change_the_result(make_trainer: MakeTrainer, tmp_path: Path, num_workers: int) -> None:
    states = []
    for count in (1, num_workers):
        trainer = make_trainer(count)
        trainer.policy_step([group(seed) for seed in range(4)], SETTINGS.model_copy(update={"tokens_per_micro_batch": 64}), quiet)
        states.append(state_of(trainer, tmp_path / str(count)))
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-6, atol=1e-6, msg=name)


def after_a_common_beginning(groups: list[list[TrainSample]], num_tokens: int = 40) -> list[list[TrainSample]]:
    start = [*range(3, 3 + num_tokens)]
    return [
        [make_sample([*start, *one.token_ids], num_tokens + one.is_sampled.index(True), advantage=one.advantage) for one in group]
        for group in groups
    ]


def test_what_packed_groups_have_in_common_is_computed_once_in_a_micro_batch(make_trainer: MakeTrainer) -> None:
    groups = after_a_common_beginning([random_group(seed, vocabulary=300) for seed in range(4)])
    trainers = {count: make_trainer(count) for count in (1, 2)}
    apart = sum(trainers[1].policy_step([group], Grpo(), quiet)["num_computed_tokens"] for group in groups)
    together = {count: trainer.policy_step(groups, Grpo(), quiet)["num_computed_tokens"] for count, trainer in trainers.items()}
    assert together[1] == apart - 3 * 40
    assert together[1] < together[2] < apart
    assert trainers[2].policy_step(groups, Grpo(loss="bnpo"), quiet)["num_computed_tokens"] == together[2]


def test_the_distance_to_the_base_is_measured(trainer: LoraTrainer, sharp_model: Path, adapter: Path) -> None:
    samples = group()[:2]
    metrics = trainer.policy_step([samples], SETTINGS, quiet)
    differences = []
    for sample in samples:
        at = [index for index, sampled in enumerate(sample.is_sampled[1:]) if sampled]
        base, current = (
            plain_logprobs(model, sample.token_ids)[at] for model in (plain_model(sharp_model), plain_model(sharp_model, adapter))
        )
        differences.append(base - current)
    difference = torch.cat(differences)
    assert metrics["kl_to_base"] == pytest.approx(float((difference.exp() - difference - 1).detach().mean()), rel=1e-3)


def test_progress_rises_to_one(trainer: LoraTrainer) -> None:
    for step in (
        lambda on_progress: trainer.policy_step([group(1), group(2), group(3)], SETTINGS, on_progress),
        lambda on_progress: trainer.supervised_step(group(), Sft(batch_size=2), on_progress),
    ):
        seen: list[float] = []
        step(seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0


def test_supervised_steps_lower_the_loss(trainer: LoraTrainer) -> None:
    settings = Sft(learning_rate=5e-3, batch_size=4)
    losses = [trainer.supervised_step(group(), settings, quiet)["loss"] for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.step == 6
    metrics = trainer.supervised_step(group(), Sft(epochs=3, batch_size=4), quiet)
    assert metrics["num_updates"] == 6.0
    assert metrics["num_tokens"] == 3 * sum(sample.num_sampled for sample in group())


@pytest.mark.parametrize("samples", [[], [make_sample([5, 6, 7], 3)], [make_sample([5], 0)]])
def test_examples_without_a_token_to_train_on_are_refused(trainer: LoraTrainer, samples: list[TrainSample]) -> None:
    with pytest.raises(TrainingError, match="no token"):
        trainer.supervised_step(samples, Sft(), quiet)
    assert trainer.step == 0


def test_examples_without_a_trainable_token_beside_others_change_nothing(make_trainer: MakeTrainer) -> None:
    settings = Sft(batch_size=64, tokens_per_micro_batch=64)
    alone, beside = make_trainer(), make_trainer()
    samples = group()
    alone.supervised_step(samples, settings, quiet)
    beside.supervised_step([*samples, make_sample(range(3, 103), 100), make_sample([5], 0)], settings, quiet)
    torch.testing.assert_close(alone.logprobs(samples), beside.logprobs(samples), rtol=1e-5, atol=1e-5)


def test_the_saved_adapter_is_the_trained_one(trainer: LoraTrainer, tmp_path: Path) -> None:
    trainer.policy_step([group()], SETTINGS, quiet)
    written = trainer.save_adapter(tmp_path)
    assert written == trainer.fingerprint() == fingerprint(read_adapter(tmp_path)[0])


def test_a_state_of_another_model_is_refused(trainer: LoraTrainer, tmp_path: Path) -> None:
    trainer.save_state(tmp_path)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterError):
        trainer.load_state(tmp_path)


def test_old_logprobs_may_be_unknown(trainer: LoraTrainer) -> None:
    samples = [make_sample([5, 6, 7, 8], 2, logprobs=[NAN, NAN], advantage=1.0), make_sample([5, 6, 9, 9], 2, advantage=-1.0)]
    metrics = trainer.policy_step([samples], SETTINGS, quiet)
    assert metrics["logprob_gap_mean"] == 0.0
    assert math.isfinite(metrics["loss"])


@pytest.mark.parametrize("damage", ["zeros", "cut", "gone", "another file"])
def test_an_optimiser_state_that_cannot_be_read_is_named(trainer: LoraTrainer, tmp_path: Path, damage: str) -> None:
    trainer.policy_step([group()], SETTINGS, quiet)
    trainer.save_state(tmp_path)
    path = tmp_path / "optimizer.safetensors"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        other = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
        path.write_bytes({"zeros": bytes(len(whole)), "cut": whole[:-8], "another file": other}[damage])
    with pytest.raises(StoreError, match=str(tmp_path)):
        trainer.load_state(tmp_path)
