"""Packed = unpacked over random trees: branches at any depth, prompts longer than a block of attention, sequences that are prefixes of
others, repeated ones, any tokens sampled, trajectories of several segments; whole or split, by one worker or two, on-policy and off it,
with each loss."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import LORA, NAN, base_of, plain_model, write_adapter
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, plain_gradients, plain_terms, taken_gradients, with_old_logprobs

from journeyman.trainer.base import TrainSample
from journeyman.trainer.losses.policy import policy_loss
from journeyman.trainer.losses.terms import BatchTotals, divisor
from journeyman.trainer.trainer import LoraTrainer
from journeyman.trainer.tree_attention import QUERIES_PER_BLOCK
from journeyman.types.settings import Grpo

NUM_EXAMPLES = 24
# Inside the clip of every loss below, where advantages are positive.
SHIFTS = (0.1, -0.15, 0.3, 0.05)
LOSSES = [
    {"loss": "dapo"},
    {"loss": "grpo"},
    {"loss": "dr_grpo"},
    {"loss": "bnpo"},
    {"loss": "cispo"},
    {"loss": "gspo", "clip_low": 0.5, "clip_high": 0.5},
]
Opened = dict[int, tuple[LoraTrainer, Path]]


@pytest.fixture(scope="module")
def opened(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """For one and two workers a trainer, and the state with an adapter that is not zero to which each example returns."""
    found: Opened = {}
    for num_workers in (1, 2):
        trainer = LoraTrainer(base_of(sharp_model), LORA, num_workers, precision="float32")
        state = tmp_path_factory.mktemp("state")
        trainer.save_state(state)
        write_adapter(sharp_model, state / "adapter")
        found[num_workers] = trainer, state
    yield found
    for trainer, _ in found.values():
        trainer.close()


def random_trees(seed: int, longest_prompt: int) -> list[list[TrainSample]]:
    """One to four groups; a sequence grows out of any prefix of an earlier one of its group. Some are segments of one trajectory."""
    choose = random.Random(seed)

    def draw(low: int, high: int) -> list[int]:
        return [choose.randrange(3, 300) for _ in range(choose.randint(low, high))]

    groups, number = [], 0
    for group in range(choose.randint(1, 4)):
        sequences = [draw(3, longest_prompt)]
        samples: list[TrainSample] = []
        for _ in range(choose.randint(2, 6)):
            parent = choose.choice(sequences)
            # Mostly out of its end, as attempts at one prompt do; sometimes nothing follows: a repeat, or a prefix of another.
            kept = choose.choice([len(parent), len(parent), choose.randint(1, len(parent))])
            sequences.append(parent[:kept] + draw(int(kept < 2), 40))
            is_next_segment = bool(samples) and choose.random() < 0.25
            # Of one sign: where the gradients of two attempts cancel, what is left is rounding.
            advantage = samples[-1].advantage if is_next_segment else choose.choice([0.5, 1.0, 2.0])
            number += not is_next_segment
            samples.append(_sample(choose, sequences[-1], advantage, f"t{number - 1}", group))
        groups.append(samples)
    return groups


def _sample(choose: random.Random, ids: list[int], advantage: float, trajectory_id: str, group: int) -> TrainSample:
    # The first token has nothing before it; the last makes the sample trainable.
    sampled = (False, *(choose.random() < 0.5 for _ in ids[2:]), True)
    return TrainSample(tuple(ids), sampled, tuple(NAN if flag else 0.0 for flag in sampled), advantage, trajectory_id, group)


def off_policy(trainer: LoraTrainer, groups: list[list[TrainSample]]) -> list[list[TrainSample]]:
    moved = [with_old_logprobs(group, trainer.logprobs(group), SHIFTS) for group in groups]
    return [
        [replace(left, logprobs=right.logprobs) for left, right in zip(group, other, strict=True)]
        for group, other in zip(groups, moved, strict=True)
    ]


def test_packed_loss_and_gradients_of_random_trees_equal_unpacked_ones(opened: Opened, sharp_model: Path) -> None:
    num_micro_batches: list[int] = []
    longest_nodes: list[int] = []

    @settings(max_examples=NUM_EXAMPLES, derandomize=True, database=None)
    @given(
        seed=st.integers(0, 10_000),
        longest_prompt=st.sampled_from([10, 60, 250]),
        num_workers=st.sampled_from([1, 2]),
        loss=st.sampled_from(LOSSES),
        is_off_policy=st.booleans(),
        tokens_per_micro_batch=st.sampled_from([64, 100, 150, 4096]),
    )
    def check(
        seed: int, longest_prompt: int, num_workers: int, loss: dict[str, object], is_off_policy: bool, tokens_per_micro_batch: int
    ) -> None:
        trainer, state = opened[num_workers]
        trainer.load_state(state)
        groups = random_trees(seed, longest_prompt)
        if is_off_policy:
            groups = off_policy(trainer, groups)
        chosen = Grpo(adam=BARE_ADAM, max_logprob_gap=5.0, tokens_per_micro_batch=tokens_per_micro_batch, **loss)  # type: ignore[arg-type]
        trees = trainer._policy_trees(groups, chosen)
        num_micro_batches.append(len(trees))
        longest_nodes.append(max(node.end - node.start for tree in trees for node in tree.nodes))
        metrics = trainer.policy_step(groups, chosen, lambda _: None)
        assert metrics["num_computed_tokens"] == sum(len(tree.token_ids) for tree in trees) <= metrics["num_unpacked_tokens"]
        model = plain_model(sharp_model, state / "adapter", trainable=True)
        samples = [one for group in groups for one in group]
        logprobs, entropies, terms = plain_terms(model, samples)
        if not is_off_policy:
            # Unknown ones are the current ones: the ratio is 1, and only its gradient is left.
            terms = replace(terms, sampling_logprob_N=logprobs.detach())
        group_of = {int(sample.trajectory_id[1:]): sample.group for sample in samples}
        totals = BatchTotals(torch.bincount(terms.sequence_N), torch.tensor([group_of[number] for number in sorted(group_of)]))
        expected = policy_loss(logprobs, entropies, terms, chosen, totals).loss / divisor(chosen.loss, totals)
        assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=2e-5, abs=1e-6)
        with tempfile.TemporaryDirectory() as folder:
            assert_same_gradients(taken_gradients(trainer, Path(folder)), plain_gradients(model, expected))

    check()
    assert sum(count >= 2 for count in num_micro_batches) >= len(num_micro_batches) // 2
    assert sum(count >= 4 for count in num_micro_batches) >= 2
    assert sum(length > QUERIES_PER_BLOCK for length in longest_nodes) >= 3
