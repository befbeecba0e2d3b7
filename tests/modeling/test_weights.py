"""Loading a base model's weights: what is said of files that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from journeyman.errors import ModelNotFoundError
from journeyman.modeling.weights import load_module


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_of_weights_is_named_with_what_to_do(tiny_model: Path, tmp_path: Path, share: float) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors are damaged or incomplete") as caught:
        load_module(folder)
    assert "download the file again" in str(caught.value.hint)
