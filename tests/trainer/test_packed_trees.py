"""Packed = unpacked over random trees: branches at any depth, sequences that are prefixes of others, repeated ones, any tokens sampled."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import LORA, base_of, plain_model, write_adapter
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, plain_gradients, plain_loss, taken_gradients

from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.samples import TrainSample
from journeyman.types.settings import Grpo

NUM_EXAMPLES = 20


@pytest.fixture(scope="module")
def opened(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoraTrainer, Path]]:
    """A trainer, and the state with an adapter that is not zero to which each example returns."""
    trainer = LoraTrainer(base_of(sharp_model), LORA, 1, precision="float32")
    state = tmp_path_factory.mktemp("state")
    trainer.save_state(state)
    write_adapter(sharp_model, state / "adapter")
    yield trainer, state
    trainer.close()


@st.composite
def trees(draw: st.DrawFn) -> list[list[TrainSample]]:
    """One to three groups; a sequence grows out of any prefix of an earlier one of its group."""
    token = st.integers(3, 250)
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        sequences: list[list[int]] = [draw(st.lists(token, min_size=3, max_size=10))]
        for _ in range(draw(st.integers(0, 5))):
            parent = draw(st.sampled_from(sequences))
            kept = draw(st.integers(1, len(parent)))
            sequences.append(parent[:kept] + draw(st.lists(token, min_size=int(kept < 2), max_size=8)))
        groups.append([_sample(draw, ids) for ids in sequences])
    return groups


def _sample(draw: st.DrawFn, ids: list[int]) -> TrainSample:
    flags = draw(st.lists(st.booleans(), min_size=len(ids) - 1, max_size=len(ids) - 1))
    sampled = (False, *flags[:-1], True)  # the first token has nothing before it; the last makes the sample trainable
    # Of one sign: where the gradients of two attempts cancel, what is left is rounding.
    advantage = draw(st.sampled_from([0.5, 1.0, 2.0]))
    return TrainSample(tuple(ids), sampled, tuple(math.nan if flag else 0.0 for flag in sampled), advantage)


@settings(max_examples=NUM_EXAMPLES, derandomize=True)
@given(groups=trees(), tokens_per_micro_batch=st.sampled_from([64, 4096]))
def test_packed_loss_and_gradients_of_random_trees_equal_unpacked_ones(
    opened: tuple[LoraTrainer, Path], sharp_model: Path, groups: list[list[TrainSample]], tokens_per_micro_batch: int
) -> None:
    trainer, state = opened
    trainer.load_state(state)
    metrics = trainer.policy_step(groups, Grpo(adam=BARE_ADAM, tokens_per_micro_batch=tokens_per_micro_batch), lambda _: None)
    model = plain_model(sharp_model, state / "adapter", trainable=True)
    # Unknown old log-probabilities are the current ones: the ratio is 1, and only its gradient is left.
    loss = plain_loss(
        model, [one for group in groups for one in group], lambda logprob, _old, advantage: -(logprob - logprob.detach()).exp() * advantage
    )
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    assert metrics["num_computed_tokens"] <= metrics["num_unpacked_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        assert_same_gradients(taken_gradients(trainer, Path(folder)), plain_gradients(model, loss))
