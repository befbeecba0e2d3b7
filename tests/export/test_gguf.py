"""GGUF files: what is in them, and how far they answer as the engine does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.export.runs import RUN, make_run

from journeyman.chat.renderer import Renderer
from journeyman.errors import AdapterError, SettingError
from journeyman.export import export, gguf_check
from journeyman.export.check import FLOORS, answer
from journeyman.export.export import Exported, export_run
from journeyman.export.gguf_check import HOW_TO_GET, check_in_llama_cpp, is_available, read_by_transformers
from journeyman.export.gguf_file import require_writable, splitting_name, write_gguf
from journeyman.export.probes import Agreement, Probe, compare, probe_prompts
from journeyman.export.settings import ExportSettings
from journeyman.export.version import find_adapter, open_version, served_module
from journeyman.store.store import Store

pytestmark = pytest.mark.timeout(300)  # files are loaded again in child processes


@pytest.fixture(scope="module")
def home(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, sharp_model)
    return home


@pytest.fixture(scope="module")
def f16(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    with Store.open(home) as store:
        return export_run(store, RUN, ExportSettings(format="gguf"), out=tmp_path_factory.mktemp("out") / "f16")


def fields(folder: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    reader = GGUFReader(next(folder.glob("*.gguf")))
    return {name: field.contents() for name, field in reader.fields.items()}


def test_a_float16_file_answers_as_the_engine_does(f16: Exported) -> None:
    assert f16.agreement.share >= 0.95, f16.agreement.text()
    assert f16.agreement.num_tokens > 20


def test_the_file_names_the_template_and_the_tokens_that_end_a_turn(f16: Exported, tiny_tokenizer: Any) -> None:
    from journeyman.chat.templates import HERMES_CHATML

    found = fields(f16.folder)
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found["tokenizer.chat_template"] == HERMES_CHATML
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]) == (end, end)
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    assert found["tokenizer.ggml.tokens"] == tiny_tokenizer.convert_ids_to_tokens(range(len(tiny_tokenizer)))


def test_an_eight_bit_file_is_half_as_large_and_measured(home: Path, f16: Exported, tmp_path: Path) -> None:
    with Store.open(home) as store:
        result = export_run(store, RUN, ExportSettings(format="gguf", quant="q8_0"), out=tmp_path / "q8")
    assert FLOORS["q8_0"] <= result.agreement.share <= 1.0
    record = json.loads((result.folder / "journeyman.json").read_text())
    assert record["agreement"]["num_tokens"] == result.agreement.num_tokens
    from gguf import GGUFReader

    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(next(result.folder.glob("*.gguf"))).tensors}
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_down.weight"] == "F16", "rows of 48 weights do not divide into blocks of 32"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.fixture
def without_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check by transformers in this process: starting one takes seconds. Nothing is checked in llama.cpp."""
    monkeypatch.setattr(gguf_check, "run_check", lambda _reader, path, probes: read_by_transformers(path, probes))
    monkeypatch.setattr(gguf_check, "is_available", lambda: False)


@pytest.mark.usefixtures("without_children")
@pytest.mark.parametrize("quant", ["f16", "q8_0"])
def test_a_file_with_a_shuffled_tensor_is_refused_and_removed(
    quant: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def write_shuffled(version: Any, module: Any, path: Path, quant: Any) -> None:
        weight = module.model.layers[0].self_attn.q_proj.weight
        with torch.no_grad():
            weight.copy_(weight[torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))])
        write_gguf(version, module, path, quant)

    monkeypatch.setattr(export, "write_gguf", write_shuffled)
    with Store.open(home) as store, pytest.raises(AdapterError) as caught:
        export_run(store, RUN, ExportSettings.model_validate({"format": "gguf", "quant": quant}), out=tmp_path / "out" / "broken")
    assert caught.value.reason == "answers_differ"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("without_children")
def test_a_file_that_llama_cpp_computes_differently_is_refused_and_removed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_check, "is_available", lambda: True)
    monkeypatch.setattr(gguf_check, "check_in_llama_cpp", lambda *_: Agreement(8, 100, 89))
    with Store.open(home) as store, pytest.raises(AdapterError, match="89 of 100") as caught:
        export_run(store, RUN, ExportSettings(format="gguf"), out=tmp_path / "out" / "broken")
    assert caught.value.reason == "answers_differ"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(not is_available(), reason=f"no llama.cpp here: {HOW_TO_GET}")
def test_llama_cpp_reads_the_file_as_we_do(f16: Exported) -> None:
    agreement = f16.measured["in llama.cpp"]
    assert agreement.share >= 0.95, agreement.text()


@pytest.mark.skipif(not is_available(), reason=f"no llama.cpp here: {HOW_TO_GET}")
def test_a_file_that_llama_cpp_would_tokenise_differently_is_refused(f16: Exported, tiny_tokenizer: Any, tmp_path: Path) -> None:
    class Wrong(Renderer):
        def render(self, messages: Any, tools: Any, stored: Any = None) -> tuple[int, ...]:
            return (*super().render(messages, tools), 65)

    probe = Probe((1, 5, 9), (7,), (1.0,))
    with pytest.raises(AdapterError, match=r"llama\.cpp reads .* differently"):
        check_in_llama_cpp(Wrong(tiny_tokenizer, 512), next(f16.folder.glob("*.gguf")), [probe])
    assert [path.name for path in f16.folder.glob("*.json")] == ["journeyman.json"]


def other_model(kind: str, folder: Path, tokenizer: Any) -> Path:
    """A tiny random model of another architecture: biases that are not zero, a head of its own, heads wider than their share."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    wide = {"head_dim": 128} if kind == "qwen3" else {}  # the only width that transformers reads such a file with
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer) + 5, max_position_embeddings=512, tie_word_embeddings=False, **shape, **ids, **wide
    )
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + ("norm" in name))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_architectures_answer_as_their_merged_model_does(kind: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "home", other_model(kind, tmp_path / "base", tiny_tokenizer))
    with Store.open(tmp_path / "home") as store, open_version(store, find_adapter(store, run)) as version:
        require_writable(version)
        module = served_module(version)
        probes = answer(module, probe_prompts(version.renderer, store, run), version.renderer.stop_token_ids)
        write_gguf(version, module, tmp_path / "tiny.gguf", "f16")
        agreement = compare(probes, read_by_transformers(tmp_path / "tiny.gguf", probes)["choices"])
        assert agreement.share >= 0.97, agreement.text()
        if is_available():
            agreement = check_in_llama_cpp(version.renderer, tmp_path / "tiny.gguf", probes)
            assert agreement.share >= 0.97, agreement.text()


BYTES = {"type": "ByteLevel", "add_prefix_space": False}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (BYTES | {"use_regex": True}, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}]}, "smollm"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
                    BYTES | {"use_regex": False},
                ],
            },
            "qwen2",
        ),
    ],
)
def test_the_splitting_rule_goes_under_llama_cpps_name(rule: dict[str, Any], name: str) -> None:
    model = {"type": "BPE", "ignore_merges": False, "byte_fallback": False}
    assert splitting_name({"model": model, "normalizer": None, "pre_tokenizer": rule}) == name


@pytest.mark.parametrize(
    "given",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": BYTES | {"use_regex": True, "add_prefix_space": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, BYTES]}},
        {"model": {"type": "Unigram"}},
        {"normalizer": {"type": "Lowercase"}},
        {"model": {"type": "BPE", "byte_fallback": True}},
        {"model": {"type": "BPE", "ignore_merges": True}},
    ],
)
def test_a_tokenizer_that_llama_cpp_might_read_otherwise_is_refused(given: dict[str, Any]) -> None:
    fine = {"model": {"type": "BPE"}, "normalizer": None, "pre_tokenizer": BYTES | {"use_regex": True}}
    assert splitting_name(fine) == "gpt-2"
    with pytest.raises(SettingError) as caught:
        splitting_name(fine | given)
    assert caught.value.reason == "not_for_gguf"


@pytest.mark.real_model
def test_the_real_model_in_float16_answers_as_it_is_served(smollm2_folder: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, smollm2_folder, steps=(1,))
    with Store.open(tmp_path) as store:
        result = export_run(store, run, ExportSettings(format="gguf"))
    assert result.agreement.share >= 0.95, result.agreement.text()
    if is_available():
        assert result.measured["in llama.cpp"].share >= 0.95, result.measured["in llama.cpp"].text()
