"""The fingerprint of a vocabulary changes with what an id stands for, and with nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from journeyman.chat.vocabulary import vocabulary_fingerprint
from journeyman.modeling.base_models import load_tokenizer


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
