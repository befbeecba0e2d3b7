"""A device or a number of workers is honoured or refused; by default it is measured."""

from __future__ import annotations

import os

import pytest

from journeyman.errors import SettingError
from journeyman.modeling.allocator import keep_freed_memory
from journeyman.modeling.devices import choose_device, choose_num_workers, usable_cores


def test_the_processor_is_always_there() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device() in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("wanted", ["tpu", "gpu", "cuda:nine"])
def test_an_unknown_device_is_refused(wanted: str) -> None:
    import torch

    if wanted.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(SettingError, match=wanted.split(":")[0]):
        choose_device(wanted)


def test_a_wanted_number_of_workers_is_taken_as_it_is() -> None:
    assert choose_num_workers(7) == 7
    with pytest.raises(SettingError, match="at least 1"):
        choose_num_workers(0)


def test_a_measured_number_of_workers_is_at_most_one_a_core() -> None:
    assert 1 <= choose_num_workers(seconds=0.01) <= usable_cores() <= (os.cpu_count() or 1)


def test_keeping_freed_memory_may_be_asked_twice() -> None:
    assert keep_freed_memory() == keep_freed_memory()
