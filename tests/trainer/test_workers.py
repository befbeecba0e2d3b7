"""Work is spread over threads, results come in order, and an error waits for the others to end."""

from __future__ import annotations

import threading

import pytest
import torch

from journeyman.trainer.workers import Workers


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
