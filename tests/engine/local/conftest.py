"""Local engines of the tiny model in float32, closed after the test; adapters that change what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import base_of, write_adapter

from journeyman.engine.local.engine import LocalEngine

MakeEngine = Callable[..., LocalEngine]


@pytest.fixture(scope="session")
def adapter_folders(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three adapters by name."""
    folders = {f"model@{seed}": tmp_path_factory.mktemp(f"adapter-{seed}") for seed in (1, 2, 3)}
    for seed, folder in enumerate(folders.values(), start=1):
        write_adapter(sharp_model, folder, seed=seed)
    return folders


@pytest.fixture
async def make_engine(sharp_model: Path) -> AsyncIterator[MakeEngine]:
    engines: list[LocalEngine] = []

    def make(folder: Path = sharp_model, **settings: Any) -> LocalEngine:
        engine = LocalEngine.create(base_of(folder), **({"num_workers": 1, "device": "cpu", "precision": "float32"} | settings))
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.close()


@pytest.fixture
async def engine(make_engine: MakeEngine) -> LocalEngine:
    return make_engine()
