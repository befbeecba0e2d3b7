"""Adapter and merged folders: what is in them, and that other libraries answer with them as the engine does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.runs import RUN, make_run
from tests.tiny import base_of, plain_model

from journeyman.chat.renderer import Renderer
from journeyman.engine.local.engine import LocalEngine
from journeyman.export.export import Exported, export_run
from journeyman.export.settings import ExportSettings
from journeyman.store.store import Store
from journeyman.types.messages import Message
from journeyman.types.sampling import SampleRequest, SamplingParameters

QUESTION = Message(role="user", content="hello, what is the name?")


@pytest.fixture(scope="module")
def home(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, sharp_model)
    return home


def exported(home: Path, out: Path, **settings: Any) -> Exported:
    with Store.open(home) as store:
        return export_run(store, RUN, ExportSettings(**settings), out=out)


def engine_answer(base: Path, adapter: Path, prompt: tuple[int, ...], stops: tuple[int, ...], num_tokens: int) -> list[int]:
    async def sample() -> list[int]:
        engine = LocalEngine.create(base_of(base), device="cpu", precision="float32")
        try:
            await engine.load_adapter("time@3", adapter)
            parameters = SamplingParameters(temperature=0.0, max_tokens=num_tokens)
            return list((await engine.sample(SampleRequest(prompt, parameters, adapter="time@3", stop_token_ids=stops))).token_ids)
        finally:
            await engine.close()

    return asyncio.run(sample())


def generated(model: Any, prompt: tuple[int, ...], num_tokens: int, **settings: Any) -> list[int]:
    with torch.inference_mode():
        out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=num_tokens, **settings)
    ids: list[int] = out[0, len(prompt) :].tolist()
    return ids


def test_the_merged_model_generates_what_the_engine_serves(home: Path, sharp_model: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = exported(home, tmp_path / "merged", format="merged")
    renderer = Renderer(tiny_tokenizer, 512)
    prompt = renderer.render([QUESTION], [])
    served = engine_answer(sharp_model, home / "runs" / RUN / "adapters" / "time@3", prompt, renderer.stop_token_ids, 24)
    assert served != engine_answer(sharp_model, home / "runs" / RUN / "adapters" / "time@0", prompt, renderer.stop_token_ids, 24)

    model = AutoModelForCausalLM.from_pretrained(result.folder)
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    assert generated(model, prompt, 24) == served
    assert tokenizer.apply_chat_template([QUESTION.wire()], add_generation_prompt=True, return_dict=False) == list(prompt)
    assert model.generation_config.eos_token_id == list(renderer.stop_token_ids)
    assert result.agreement.is_identical
    assert result.agreement.num_tokens > 20


def test_the_adapter_folder_answers_through_peft_as_the_engine_serves(
    home: Path, sharp_model: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    result = exported(home, tmp_path / "adapter")
    renderer = Renderer(tiny_tokenizer, 512)
    prompt = renderer.render([QUESTION], [])
    served = engine_answer(sharp_model, home / "runs" / RUN / "adapters" / "time@3", prompt, renderer.stop_token_ids, 24)
    model = plain_model(sharp_model, result.folder)
    assert generated(model, prompt, 24, eos_token_id=list(renderer.stop_token_ids)) == served


def test_the_adapter_config_is_one_that_vllm_takes(home: Path, sharp_model: Path, tmp_path: Path) -> None:
    folder = exported(home, tmp_path / "adapter").folder
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(sharp_model)
    assert (config["r"], config["bias"], config["modules_to_save"], config["use_dora"]) == (4, "none", None, False)
    assert isinstance(config["target_modules"], list)
    assert "lm_head" not in config["target_modules"]
    assert "--max-lora-rank 8" in (folder / "README.md").read_text()


def test_readers_older_than_this_transformers_find_the_positions_and_the_tokenizers_class(home: Path, tmp_path: Path) -> None:
    folder = exported(home, tmp_path / "merged", format="merged").folder
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only"} & set(tokenizer)


def test_a_bfloat16_export_is_measured_not_refused(home: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result = exported(home, tmp_path / "half", format="merged", dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(result.folder).dtype == torch.bfloat16
    assert 0.5 < result.agreement.share <= 1.0


def test_the_card_says_where_the_weights_come_from_and_keeps_secrets(home: Path, tmp_path: Path) -> None:
    folder = exported(home, tmp_path / "adapter").folder
    card = (folder / "README.md").read_text()
    assert f"`{RUN}`" in card
    assert "| lora.rank | 4 |" in card
    assert "greedy tokens equal" in card
    assert "secret-key" not in "".join(path.read_text(errors="replace") for path in folder.iterdir())
