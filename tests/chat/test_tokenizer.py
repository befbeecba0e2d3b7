"""The bytes of tokens are those that they stand for, also where a character is split over several; a fingerprint changes with what an id
stands for, and with nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import build_tiny_tokenizer

from journeyman.chat.tokenizer import TokenBytes, vocabulary_fingerprint
from journeyman.modeling.base_models import load_tokenizer

TEXTS = ["ä", "你好", "🙂 and 👩‍👩‍👧", "a b  c\n", "naïve – “quoted”", " leading", "<|im_end|>", "<0xE4>", "\u2028"]


def sentencepiece_like(decoder: Any) -> Any:
    """A vocabulary of pieces with ▁ for a space and a token for each byte."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "</s>", *(f"<0x{number:02X}>" for number in range(256)), "▁", *"abcdefghij", "▁a", "▁b"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁", "b")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def llama2() -> Any:
    from tokenizers import decoders

    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentencepiece_like(decoders.Sequence(steps))


def gemma() -> Any:
    from tokenizers import decoders

    return sentencepiece_like(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@pytest.fixture(scope="module", params=["byte-level", "llama2", "gemma"])
def tokenizer(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Any:
    return {"byte-level": lambda: tiny_tokenizer, "llama2": llama2, "gemma": gemma}[request.param]()


@pytest.mark.parametrize("make", [build_tiny_tokenizer, llama2, gemma])
def test_added_tokens_stand_for_what_the_decoder_makes_of_them(make: Callable[[], Any]) -> None:
    tokenizer = make()
    tokenizer.add_tokens(["<tool x>", "äö", "▁odd", "Ġraw", "｜end｜"])
    for token in range(len(tokenizer) - 5, len(tokenizer)):
        ids = [token, *tokenizer.encode("b", add_special_tokens=False)]
        assert b"".join(TokenBytes(tokenizer).of(ids)).decode(errors="replace") == text_of(tokenizer, ids)


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_all_tokens_are_those_of_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    told = TokenBytes(tokenizer).of(ids)
    assert b"".join(told).decode() == text_of(tokenizer, ids)


@given(st.text(max_size=12))
def test_they_are_so_for_any_text_in_pieces(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    bytes_of = TokenBytes(tokenizer)
    half = len(ids) // 2
    pieces = [*bytes_of.of(ids[:half]), *bytes_of.of(ids[half:], is_start=half == 0)]
    assert pieces == bytes_of.of(ids)
    assert b"".join(pieces).decode() == text_of(tokenizer, ids)


def test_a_split_character_has_its_own_bytes_not_those_of_a_replacement(tokenizer: Any) -> None:
    ids = tokenizer.encode("你", add_special_tokens=False)
    assert TokenBytes(tokenizer).of(ids) == [b"\xe4", b"\xbd", b"\xa0"]


def test_what_an_unfinished_character_begins_with_is_told(tokenizer: Any) -> None:
    ids = tokenizer.encode("a🙂", add_special_tokens=False)[:-1]
    assert b"".join(TokenBytes(tokenizer).of(ids)) == "a🙂".encode()[:-1]


def test_the_tokenizer_in_another_folder_and_with_another_template_has_the_same_fingerprint(tiny_tokenizer: Any, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    again.chat_template = "{{ messages[0].content }}"
    assert vocabulary_fingerprint(again) == vocabulary_fingerprint(tiny_tokenizer)


def test_one_more_token_changes_it(tiny_tokenizer: Any) -> None:
    changed = copy.deepcopy(tiny_tokenizer)
    changed.add_tokens(["hello there"])
    assert vocabulary_fingerprint(changed) != vocabulary_fingerprint(tiny_tokenizer)


def test_two_tokens_that_change_places_change_it() -> None:
    assert vocabulary_fingerprint(_words("yes", "no")) != vocabulary_fingerprint(_words("no", "yes"))


def test_a_token_that_becomes_special_changes_it() -> None:
    marked = _words("yes", "no")
    marked.add_special_tokens({"additional_special_tokens": ["no"]})
    assert vocabulary_fingerprint(marked) != vocabulary_fingerprint(_words("yes", "no"))


def _words(*words: str) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(words)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=words[0])))
