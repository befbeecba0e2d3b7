"""Adapters beyond those kept merged are rebuilt from their folder, and a folder that changed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import write_adapter

from journeyman.engine.local.variants import Variants
from journeyman.errors import AdapterError
from journeyman.modeling.lora import fingerprint, read_adapter
from journeyman.modeling.weights import load_module

LAYER = "model.layers.1.mlp.down_proj.weight"


def test_loading_returns_the_fingerprint_of_the_folder(sharp_model: Path, adapter_folders: dict[str, Path]) -> None:
    variants = Variants(load_module(sharp_model))
    for name, folder in adapter_folders.items():
        assert variants.load(name, folder) == fingerprint(read_adapter(folder)[0])
    assert variants.names() == tuple(adapter_folders)


def test_an_adapter_that_was_not_kept_comes_back_the_same(sharp_model: Path, adapter_folders: dict[str, Path]) -> None:
    base = load_module(sharp_model)
    variants = Variants(base, max_resident=1)
    weights = {}
    for name, folder in adapter_folders.items():
        variants.load(name, folder)
        weights[name] = variants.module(name).get_parameter(LAYER).clone()
    for name, weight in weights.items():
        assert torch.equal(variants.module(name).get_parameter(LAYER), weight)
        assert not torch.equal(base.get_parameter(LAYER), weight)
    assert variants.module(None) is base


def test_a_folder_that_changed_since_it_was_loaded_is_refused(sharp_model: Path, tmp_path: Path, adapter_folders: dict[str, Path]) -> None:
    write_adapter(sharp_model, tmp_path, seed=5)
    variants = Variants(load_module(sharp_model), max_resident=1)
    variants.load("model@5", tmp_path)
    variants.load("model@1", adapter_folders["model@1"])
    write_adapter(sharp_model, tmp_path, seed=6)
    with pytest.raises(AdapterError, match="changed"):
        variants.module("model@5")


def test_a_broken_adapter_leaves_no_name_behind(sharp_model: Path, tmp_path: Path) -> None:
    variants = Variants(load_module(sharp_model))
    with pytest.raises(AdapterError):
        variants.load("model@1", tmp_path)
    assert variants.names() == ()
    with pytest.raises(AdapterError, match="not loaded"):
        variants.module("model@1")
