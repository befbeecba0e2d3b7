"""Choosing a version, and what happens when an export would not be what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.export.runs import MODEL, RUN, make_run
from tests.tiny import LORA

from journeyman.errors import AdapterError, NotFoundError, SettingError
from journeyman.export import export
from journeyman.export.card import use
from journeyman.export.check import require_same_model
from journeyman.export.export import export_run
from journeyman.export.gguf_file import require_writable
from journeyman.export.probes import Agreement, Probe, compare
from journeyman.export.settings import ExportSettings
from journeyman.export.version import base_reference, find_adapter, open_version, write_peft
from journeyman.modeling.base_models import BaseModel
from journeyman.modeling.weights import load_module
from journeyman.store.models import ModelRow
from journeyman.store.store import Store


@pytest.fixture
def home(sharp_model: Path, tmp_path: Path) -> Path:
    make_run(tmp_path / "home", sharp_model)
    return tmp_path / "home"


def test_the_newest_version_is_exported_unless_a_step_is_given(home: Path) -> None:
    with Store.open(home) as store:
        assert find_adapter(store, RUN).step == 3
        assert find_adapter(store, RUN, step=0).step == 0


def test_a_wrong_run_step_or_model_is_named_with_what_there_is(home: Path) -> None:
    with Store.open(home) as store:
        store.runs.create("empty", kind="mcp", base="smollm2-135m")
        for wrong, reason in (
            ({"run": "empty"}, "nothing_trained"),
            ({"run": RUN, "step": 7}, "no_such_step"),
            ({"run": RUN, "model": "other"}, "no_such_model"),
        ):
            with pytest.raises(NotFoundError) as caught:
                find_adapter(store, **wrong)  # type: ignore[arg-type]
            assert (caught.value.reason, bool(caught.value.hint)) == (reason, True)
        with pytest.raises(NotFoundError, match="no-such"):
            find_adapter(store, "no-such")


def test_a_run_with_several_models_needs_a_choice(home: Path, sharp_model: Path) -> None:
    with Store.open(home) as store:
        store.models.create(ModelRow(RUN, "second", str(sharp_model), LORA))
        with pytest.raises(SettingError) as caught:
            find_adapter(store, RUN)
        assert caught.value.reason == "several_models"
        assert find_adapter(store, RUN, model=MODEL).step == 3


def test_an_adapter_that_was_changed_by_hand_is_not_exported(home: Path, tmp_path: Path) -> None:
    file = home / "runs" / RUN / "adapters" / f"{MODEL}@3" / "adapter_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file)
    with Store.open(home) as store, pytest.raises(AdapterError) as caught:
        export_run(store, RUN, ExportSettings(), out=tmp_path / "out")
    assert caught.value.reason == "adapter_changed"
    assert not (tmp_path / "out").exists()


def test_an_export_that_answers_differently_is_removed(
    home: Path, sharp_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_the_base(version: Any, module: Any, folder: Path, dtype: str) -> None:
        base = load_module(sharp_model)
        base.set_attn_implementation("sdpa")  # type: ignore[operator]
        written(version, base, folder, dtype)

    written = export.write_merged
    monkeypatch.setattr(export, "write_merged", write_the_base)
    with Store.open(home) as store, pytest.raises(AdapterError) as caught:
        export_run(store, RUN, ExportSettings(format="merged"), out=tmp_path / "out" / "merged")
    assert caught.value.reason == "answers_differ"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_template_that_was_lost_on_the_way_is_noticed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_without_template(version: Any, folder: Path) -> None:
        written(version, folder)
        (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")

    written = export.write_peft
    monkeypatch.setattr(export, "write_peft", write_without_template)
    with Store.open(home) as store, pytest.raises(AdapterError) as caught:
        export_run(store, RUN, ExportSettings(), out=tmp_path / "out")
    assert caught.value.reason == "renders_differently"
    assert not (tmp_path / "out").exists()


def test_exporting_again_needs_force_and_then_replaces(home: Path) -> None:
    with Store.open(home) as store:
        first = export_run(store, RUN, ExportSettings())
        assert first.folder == home / "runs" / RUN / "exports" / "time-step3-peft"
        with pytest.raises(SettingError) as caught:
            export_run(store, RUN, ExportSettings(), step=3)
        assert caught.value.reason == "already_exported"
        again = export_run(store, RUN, ExportSettings(), may_replace=True)
    assert again.folder == first.folder
    record = json.loads((again.folder / "journeyman.json").read_text())
    assert (record["run"], record["version"], record["agreement"]["share"]) == (RUN, "time@3", 1.0)


def test_settings_that_do_not_belong_to_the_format_are_refused() -> None:
    for given in ({"format": "peft", "quant": "q8_0"}, {"format": "gguf", "dtype": "bfloat16"}, {"format": "merged", "quant": "f16"}):
        with pytest.raises(ValueError, match=r"quant|dtype"):
            ExportSettings.model_validate(given)


def test_an_architecture_that_gguf_is_not_written_for_is_refused_with_the_way_round(home: Path) -> None:
    with Store.open(home) as store, open_version(store, find_adapter(store, RUN)) as version:
        require_writable(version)
        version.config.model_type = "granite"
        with pytest.raises(SettingError, match="architecture is granite") as caught:
            require_writable(version)
        assert "convert_hf_to_gguf.py" in str(caught.value)
        version.config.model_type = "llama"
        version.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}
        with pytest.raises(SettingError, match="positions are scaled"):
            require_writable(version)


def test_a_base_from_the_hub_is_named_by_its_id_and_revision(home: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--clock" / "snapshots" / "abc123"
    with Store.open(home) as store, open_version(store, find_adapter(store, RUN)) as version:
        assert base_reference(version) == (str(version.base.folder), None)
        hub = replace(version, base=BaseModel("org/clock", snapshot))
        write_peft(hub, tmp_path)
        python, vllm = use(hub, ExportSettings(), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/clock", "abc123")
    assert "from_pretrained('org/clock', dtype='float32', revision='abc123')" in python
    assert vllm.startswith("vllm serve org/clock ")
    assert vllm.endswith("--revision abc123")


def test_lines_for_the_hub_name_the_repository(home: Path) -> None:
    with Store.open(home) as store, open_version(store, find_adapter(store, RUN)) as version:
        peft = use(version, ExportSettings(), "me/clock")
        gguf = use(version, ExportSettings(format="gguf", quant="q8_0"), "me/clock")
    assert "hf download me/clock chat_template.jinja" in peft[1]
    assert "--lora-modules time-step3=me/clock" in peft[1]
    assert gguf[0] == "llama-server -hf me/clock --hf-file time-step3-q8_0.gguf --jinja"


def test_agreement_counts_ties_apart_and_names_the_first_difference() -> None:
    probes = [Probe((1,), (5, 6, 7), (2.0, 1e-6, 3.0)), Probe((2,), (8,), (1.5,))]
    assert compare(probes, [[5, 6, 7], [8]]) == Agreement(2, 4, 4)
    rounding = compare(probes, [[5, 9, 7], [8]])
    assert (rounding.num_equal, rounding.is_identical, rounding.first) == (3, True, None)
    wrong = compare(probes, [[5, 6, 7], [4]])
    assert not wrong.is_identical
    assert "probe 2, token 1: 4 instead of 8, which was ahead by 1.5000 logits" in wrong.text()


@pytest.mark.parametrize(("rounded_to", "least"), [("bfloat16", 90), ("f16", 90), ("q8_0", 75)])
def test_rounded_weights_may_differ_now_and_then_but_not_often(rounded_to: str, least: int) -> None:
    assert require_same_model(Agreement(1, 100, least), rounded_to).share == least / 100
    # A choice within rounding is no difference.
    require_same_model(Agreement(1, 100, least - 1, num_ties=1), rounded_to)
    with pytest.raises(AdapterError) as caught:
        require_same_model(Agreement(1, 100, least - 1), rounded_to)
    assert caught.value.reason == "answers_differ"
