"""A trainer of the tiny model whose adapter is not zero: gradients of A vanish where B is zero, and would hide mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.tiny import LORA, base_of, write_adapter

from journeyman.trainer.trainer import LoraTrainer

MakeTrainer = Callable[..., LoraTrainer]


@pytest.fixture(scope="session")
def adapter(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(sharp_model, folder)
    return folder


@pytest.fixture
def make_trainer(sharp_model: Path, tmp_path: Path) -> Iterator[MakeTrainer]:
    """A new trainer in float32; with `is_new=False` it resumes from a state whose adapter is not zero."""
    trainers: list[LoraTrainer] = []

    def make(num_workers: int = 1, *, is_new: bool = False) -> LoraTrainer:
        trainer = LoraTrainer(base_of(sharp_model), LORA, num_workers, precision="float32")
        trainers.append(trainer)
        if not is_new:
            state = tmp_path / f"start-{len(trainers)}"
            trainer.save_state(state)
            write_adapter(sharp_model, state / "adapter")
            trainer.load_state(state)
        return trainer

    yield make
    for trainer in trainers:
        trainer.close()


@pytest.fixture
def trainer(make_trainer: MakeTrainer) -> LoraTrainer:
    return make_trainer()
