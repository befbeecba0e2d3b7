"""GGUF files: what is in them, and how far they answer as the engine does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.export.runs import RUN, make_run

from journeyman.chat.renderer import Renderer
from journeyman.errors import AdapterError
from journeyman.export.export import Exported, export_run
from journeyman.export.llama_cpp_check import HOW_TO_GET, check_in_llama_cpp, is_available
from journeyman.export.probes import Probe
from journeyman.export.settings import ExportSettings
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
    assert f16.agreement.share >= 0.98, f16.agreement.text()
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
    assert 0.5 < result.agreement.share <= 1.0
    record = json.loads((result.folder / "journeyman.json").read_text())
    assert record["agreement"]["num_tokens"] == result.agreement.num_tokens
    from gguf import GGUFReader

    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(next(result.folder.glob("*.gguf"))).tensors}
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_down.weight"] == "F16", "rows of 48 weights do not divide into blocks of 32"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.skipif(not is_available(), reason=f"no llama.cpp here: {HOW_TO_GET}")
def test_llama_cpp_reads_the_file_as_we_do(f16: Exported) -> None:
    agreement = f16.measured["in llama.cpp"]
    assert agreement.share >= 0.98, agreement.text()


@pytest.mark.skipif(not is_available(), reason=f"no llama.cpp here: {HOW_TO_GET}")
def test_a_file_that_llama_cpp_would_tokenise_differently_is_refused(f16: Exported, tiny_tokenizer: Any, tmp_path: Path) -> None:
    class Wrong(Renderer):
        def render(self, messages: Any, tools: Any, stored: Any = None) -> tuple[int, ...]:
            return (*super().render(messages, tools), 65)

    probe = Probe((1, 5, 9), (7,), (1.0,))
    with pytest.raises(AdapterError, match=r"llama\.cpp reads .* differently"):
        check_in_llama_cpp(Wrong(tiny_tokenizer, 512), next(f16.folder.glob("*.gguf")), [probe])
    assert not list(f16.folder.glob("*.json*")) or {path.name for path in f16.folder.glob("*.json")} == {"journeyman.json"}
