"""A device, a number of workers or of processes is honoured or refused; by default it is measured or chosen."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from journeyman.errors import SettingError
from journeyman.modeling import devices
from journeyman.modeling.devices import choose_device, choose_num_processes, choose_num_workers, keep_freed_memory, usable_cores


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


def test_the_number_of_engine_processes_is_honoured_or_refused() -> None:
    assert (choose_num_processes(0), choose_num_processes(3)) == (0, 3)
    for wanted in (-1, -7):
        with pytest.raises(SettingError, match=str(wanted)):
            choose_num_processes(wanted)


def test_engine_processes_are_chosen_for_cores_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gigabyte = 1 << 30
    free = SimpleNamespace(available=64 * gigabyte)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    for cores, wanted in ((1, 0), (2, 2), (3, 3), (64, 4)):
        monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
        assert choose_num_processes(None, "cpu") == wanted
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(gigabyte)  # sparse: takes no room
    for gigabytes, wanted in ((64, 4), (32, 3), (20, 2), (10, 0)):
        free.available = gigabytes * gigabyte
        assert choose_num_processes(None, "cpu", base_folder=tmp_path) == wanted
