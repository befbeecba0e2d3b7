"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import House


@pytest.fixture
async def house(tmp_path: Path, tiny_tokenizer: Any) -> AsyncIterator[House]:
    house = House(tmp_path / "home", tiny_tokenizer)
    yield house
    for backend in list(house.open):
        await house.stop(backend)
