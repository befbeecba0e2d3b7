"""After a resume every global source of random numbers draws what it would have drawn."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import torch

from journeyman.service.trainable import load_random_state, save_random_state


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(numpy.random.normal()), float(torch.rand(())), float(torch.randn(()))]


def test_a_resume_brings_the_random_state_of_every_source_back(tmp_path: Path) -> None:
    draws()  # half of a pair of normal numbers is kept by both `random` and numpy: that is state too
    save_random_state(tmp_path)
    expected = draws()
    assert draws() != expected
    load_random_state(tmp_path)
    assert draws() == expected


def test_a_resume_from_a_checkpoint_without_random_state_changes_none(tmp_path: Path) -> None:
    random.seed(1)
    load_random_state(tmp_path)
    first = random.random()
    random.seed(1)
    assert random.random() == first
