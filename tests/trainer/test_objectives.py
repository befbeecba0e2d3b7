"""The loss of a step does not depend on the split into micro-batches, and a trajectory of several segments counts once.

The "model" here is a table of one log-probability a token id, so that losses and gradients are exact and cheap.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.trainer.losses.test_parity import Rows, ours
from torch import Tensor

from journeyman.trainer.base import TrainSample
from journeyman.trainer.bins import fill_bins
from journeyman.trainer.objectives import PolicyObjective, policy_metrics
from journeyman.trainer.packing import PackedTree, pack
from journeyman.types.settings import Grpo

VOCABULARY = 40
LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "grpo"},
    {"loss": "grpo", "importance": "sequence"},
    {"loss": "dr_grpo"},
    {"loss": "bnpo"},
    {"loss": "dapo"},
    {"loss": "cispo"},
    {"loss": "gspo", "clip_low": 0.02, "clip_high": 0.02},
    {"loss": "dapo", "mismatch": "token_truncate"},
    {"loss": "dapo", "mismatch": "token_mask"},
    {"loss": "gspo", "mismatch": {"kind": "geometric_mask", "min_ratio": 0.95, "max_ratio": 1.05}},
    {"loss": "grpo", "mismatch": {"kind": "geometric_mask", "min_ratio": 0.95, "max_ratio": 1.05}},
    {"loss": "grpo", "kl_coefficient": 0.3, "kl_estimator": "k2"},
    {"loss": "dr_grpo", "entropy_bonus": 0.1},
)


def table(seed: int) -> Tensor:
    return -torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2 - 0.1


def trajectories(seed: int, policy: Tensor) -> list[list[TrainSample]]:
    """Two groups whose trajectories have one to three segments, sampled near `policy`."""
    uniform = random.Random(seed)
    group = []
    for number in range(5):
        advantage = uniform.uniform(-2, 2)
        segments = []
        for _ in range(uniform.randrange(1, 4)):
            ids = tuple(uniform.randrange(VOCABULARY) for _ in range(uniform.randrange(3, 8)))
            sampled = tuple(index >= 2 for index in range(len(ids)))
            logprobs = tuple(float(policy[token]) + uniform.gauss(0, 0.2) if own else 0.0 for token, own in zip(ids, sampled, strict=True))
            segments.append(TrainSample(ids, sampled, logprobs, advantage, f"t{number}", group=number // 3))
        group.append(segments)
    return group


def step_gradients(
    trees: Sequence[PackedTree], settings: Grpo, policies: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor, dict[str, float]]]:
    """Loss, gradient to the table, and metrics of each update; `policies` are the tables the updates lead through."""
    base = [table(99)[torch.tensor(tree.targets)] for tree in trees] if settings.kl_coefficient else []
    objective = PolicyObjective(trees, settings, base)
    out = []
    for update, policy in enumerate(policies):
        leaf = policy.clone().requires_grad_()
        objective.prepare(lambda chosen, policy=policy: [policy[torch.tensor(tree.targets)] for tree in chosen])
        total, sums = torch.zeros(()), {}
        for number, tree in enumerate(trees):
            scored = leaf[torch.tensor(tree.targets)]
            loss, own = objective(number, scored, -scored)
            total = total + loss
            sums = {name: sums.get(name, 0.0) + value for name, value in own.items()}
        (gradient,) = torch.autograd.grad(total, leaf)
        objective.finish()
        divisor = objective.divisor
        out.append((total.detach() / divisor, gradient / divisor, policy_metrics(sums, objective, first=update == 0)))
    return out


@pytest.mark.parametrize("settings", LOSSES, ids=lambda given: "-".join(str(value) for value in given.values())[:40])
def test_no_split_into_micro_batches_changes_the_result(settings: dict[str, Any]) -> None:
    chosen = Grpo(**settings)
    for seed in range(4):
        policies = [table(seed), table(seed) + 0.1 * torch.sin(torch.arange(VOCABULARY))]
        segments = list(itertools.chain(*trajectories(seed, policies[0])))
        whole = step_gradients([pack(segments)], chosen, policies)
        bins = fill_bins(segments, 2, 20)
        for parts in ([[one] for one in segments], [segments[:3], segments[3:]], bins):
            splits = [pack(part) for part in parts]
            for (loss, gradient, metrics), (other_loss, other_gradient, other_metrics) in zip(
                whole, step_gradients(splits, chosen, policies), strict=True
            ):
                torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-6)
                assert float((other_gradient - gradient).norm()) <= 1e-5 * float(gradient.norm())
                assert other_metrics.keys() == metrics.keys()
                for name in {"clip_fraction", "ratio_mean", "mismatch_masked_fraction"} & metrics.keys():
                    assert other_metrics[name] == pytest.approx(metrics[name], rel=1e-5)


@pytest.mark.parametrize(
    ("mismatch", "masked"),
    [
        ("none", 0.0),
        ("token_truncate", 0.0),
        ({"kind": "token_mask", "min_weight": 0.9, "max_weight": 1.1}, 3 / 5),
        ({"kind": "geometric_mask", "min_ratio": 0.9, "max_ratio": 1.1}, 2 / 5),
    ],
    ids=str,
)
def test_the_masked_share_of_the_tokens_is_logged_with_every_correction(mismatch: Any, masked: float) -> None:
    policy = table(1)
    # Gaps of the tokens of two trajectories: -0.2, 0.2, 0.0 and 0.2, 0.05.
    samples = [
        TrainSample(
            (0, *ids),
            (False, *(True for _ in ids)),
            (0.0, *(float(policy[one]) - gap for one, gap in zip(ids, found, strict=True))),
            1.0,
            name,
        )
        for name, ids, found in (("a", (1, 2, 3), (-0.2, 0.2, 0.0)), ("b", (4, 5), (0.2, 0.05)))
    ]
    ((_, _, metrics),) = step_gradients([pack(samples)], Grpo(mismatch=mismatch), [policy])
    assert metrics["mismatch_masked_fraction"] == pytest.approx(masked)


def test_bnpo_gives_each_group_the_same_say() -> None:
    policy = table(1)
    groups = [list(itertools.chain(*found)) for found in (trajectories(1, policy)[:3], trajectories(1, policy)[3:])]
    apart = [float(step_gradients([pack(group)], Grpo(loss="dapo"), [policy])[0][0]) for group in groups]
    ((together, _, _),) = step_gradients([pack(list(itertools.chain(*groups)))], Grpo(loss="bnpo"), [policy])
    assert apart[0] != pytest.approx(apart[1], rel=0.1)
    assert float(together) == pytest.approx(sum(apart) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo"])
def test_a_trajectory_of_several_segments_counts_once(loss: str) -> None:
    policy = table(3)
    group = trajectories(3, policy)
    assert any(len(segments) > 1 for segments in group)
    ((value, _, _),) = step_gradients([pack(list(itertools.chain(*group)))], Grpo(loss=loss), [policy])
    # One padded row a trajectory, its segments' sampled tokens in a row.
    tokens = [[(token, own) for part in parts for token, own in zip(part.token_ids[2:], part.logprobs[2:], strict=True)] for parts in group]
    shape = len(group), max(map(len, tokens))
    logprobs, sampler, mask = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for row, pairs in enumerate(tokens):
        for column, (token, own) in enumerate(pairs):
            logprobs[row, column], sampler[row, column], mask[row, column] = policy[token], own, True
    advantages = torch.tensor([parts[0].advantage for parts in group])
    assert float(value) == pytest.approx(
        float(ours(Rows(logprobs, sampler, advantages, mask, -logprobs, logprobs), Grpo(loss=loss))), rel=1e-5
    )


def test_only_trajectories_that_lie_in_several_trees_are_scored_twice() -> None:
    policy = table(5)
    group = trajectories(5, policy)
    together, apart = group[0] + group[1], next(parts for parts in group[2:] if len(parts) > 1)
    trees = [pack(together), pack(apart[:1]), pack(apart[1:])]
    asked: list[int] = []

    def score(chosen: Sequence[PackedTree]) -> list[Tensor]:
        asked.extend(trees.index(tree) for tree in chosen)
        return [policy[torch.tensor(tree.targets)] for tree in chosen]

    PolicyObjective(trees, Grpo(loss="gspo")).prepare(score)
    assert asked == [1, 2]
    PolicyObjective(trees, Grpo(loss="grpo")).prepare(score)
    assert asked == [1, 2]
