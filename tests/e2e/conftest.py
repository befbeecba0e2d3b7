"""A base model for whole recipes: tiny, and with room for what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import build_model


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A tiny random model with room for the tools of a real server, letter by letter."""
    return build_model(tmp_path_factory.mktemp("long-model"), tiny_tokenizer, num_positions=4096)
