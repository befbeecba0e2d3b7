"""Work is spread over threads; results come in order, and gradients are summed in order, to the same bits whichever comes first."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence

import pytest
import torch
from tests.tiny import random_group
from torch import Tensor

from journeyman.trainer import trainer as trainer_module
from journeyman.trainer.micro_batches import GradientSum, Workers, together
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Grpo


def summed(order: Sequence[int], gradients: Sequence[Tensor]) -> GradientSum:
    total = GradientSum([torch.zeros(5)])
    counts = [total.add(number, (gradients[number],), {"loss": 0.1 * number, "gap_max": float(number % 3)}) for number in order]
    assert counts == [1, 2, 3, 4, 5, 6]
    return total


def test_the_order_in_which_gradients_come_changes_no_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, generator=generator) * 10.0**number for number in range(6)]
    expected = summed(range(6), gradients)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]):
        found = summed(order, gradients)
        assert torch.equal(found.gradients[0], expected.gradients[0])
        assert found.sums == expected.sums
    assert expected.sums["gap_max"] == 2.0


def test_the_gradients_that_are_not_finite_are_known_by_number() -> None:
    gradients = [torch.ones(5) for _ in range(6)]
    gradients[1][2], gradients[4][0] = math.nan, math.inf
    assert summed([4, 2, 0, 1, 3, 5], gradients).not_finite == {1, 4}


def test_a_step_of_many_micro_batches_holds_the_gradient_of_one(trainer: LoraTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    most = 0

    def watched(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        nonlocal most
        parts = together(tensors)
        made.append(weakref.ref(parts[0]))
        most = max(most, sum(one() is not None for one in made))
        return parts

    monkeypatch.setattr(trainer_module, "together", watched)
    groups = [random_group(seed, vocabulary=300, num_prompt=50) for seed in range(8)]
    trainer.policy_step(groups, Grpo(tokens_per_micro_batch=64, gradient_checkpointing=False), lambda _: None)
    assert len(made) >= 8
    assert most <= 2


def test_results_come_in_the_order_of_the_items() -> None:
    workers = Workers(3)
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(timeout=30)
        if item == 1:
            second_done.set()
        return item * item

    assert workers.map(work, range(6)) == [0, 1, 4, 9, 16, 25]
    workers.close()


def test_the_first_error_is_raised_after_all_have_ended() -> None:
    workers = Workers(2)
    done: list[int] = []

    def work(item: int) -> None:
        if item in (1, 3):
            raise ValueError(f"item {item}")
        done.append(item)

    with pytest.raises(ValueError, match="item 1"):
        workers.map(work, range(6))
    assert sorted(done) == [0, 2, 4, 5]
    workers.close()


def test_a_worker_has_one_thread_of_torch() -> None:
    workers = Workers(2)
    assert set(workers.map(lambda _: torch.get_num_threads(), range(4))) == {1}
    workers.close()
