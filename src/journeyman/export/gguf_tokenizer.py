"""The tokenizer of a GGUF file: tokens, kinds, merges, and the name that llama.cpp knows its splitting rule by.

Only byte-level BPE (GPT-2's kind). llama.cpp has the splitting rules of tokenizers compiled in and finds them by name: a rule that is not
in the table below is refused, because under a wrong name the file would load and read numbers or spaces differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from journeyman.errors import SettingError

HINT = "export it with --format merged and convert that folder with llama.cpp's own convert_hf_to_gguf.py"

_QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_WORDS = _QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_NAME_OF_REGEX = {_QWEN_WORDS: "qwen2", _LLAMA_WORDS: "llama-bpe"}


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What a GGUF file holds of a tokenizer. `texts` and `kinds` have one entry an embedding row."""

    texts: tuple[str, ...]
    kinds: tuple[TokenType, ...]
    merges: tuple[str, ...]
    splitting: str


def token_table(tokenizer: Any, num_rows: int) -> TokenTable:
    """The table of a fast Hugging Face tokenizer for `num_rows` embedding rows. Raises SettingError when GGUF cannot express it."""
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    splitting = splitting_name(inner)
    added = {int(token["id"]): token for token in inner["added_tokens"]}
    text_of = {int(number): text for text, number in inner["model"]["vocab"].items()} | {
        number: token["content"] for number, token in added.items()
    }
    if max(text_of) >= num_rows:
        raise SettingError(f"the tokenizer has token {max(text_of)}, but the model only {num_rows} embedding rows", hint=HINT)
    texts, kinds = [], []
    for number in range(num_rows):
        texts.append(text_of.get(number, f"[PAD{number}]"))
        kinds.append(_kind(number in text_of, added.get(number)))
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in inner["model"]["merges"])
    return TokenTable(tuple(texts), tuple(kinds), merges, splitting)


def splitting_name(inner: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rule that splits text before merging, from a `tokenizer.json`.

    Raises SettingError for any tokenizer whose rule llama.cpp is not known to have.

    Example:
        >>> bpe = {"type": "BPE", "ignore_merges": False, "byte_fallback": False}
        >>> splitting_name({"model": bpe, "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "use_regex": True}})
        'gpt-2'
    """
    model, rule = inner["model"], inner["pre_tokenizer"] or {}
    normalizer = (inner["normalizer"] or {}).get("type")
    name = _name_of_rule(rule.get("pretokenizers", [rule]))
    is_expected = model["type"] == "BPE" and not model.get("byte_fallback") and normalizer in (None, "NFC")
    if name is None or not is_expected or bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise SettingError(f"this model's tokenizer ({model['type']}, {_words(rule)}) cannot be written to GGUF here", hint=HINT)
    return name


def _name_of_rule(parts: list[Mapping[str, Any]]) -> str | None:
    *before, last = parts
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        digits = [part.get("type") == "Digits" and part.get("individual_digits") is True for part in before]
        return {(): "gpt-2", (True,): "smollm"}.get(tuple(digits))
    if len(before) != 1 or before[0].get("type") != "Split" or before[0].get("behavior") != "Isolated" or before[0].get("invert"):
        return None
    return _NAME_OF_REGEX.get(before[0]["pattern"].get("Regex", ""))


def _kind(is_known: bool, added: Mapping[str, Any] | None) -> TokenType:
    if not is_known:
        return TokenType.UNUSED
    if added is None:
        return TokenType.NORMAL
    return TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED


def _words(rule: Mapping[str, Any]) -> str:
    return " + ".join(str(part.get("type", "no splitting")) for part in rule.get("pretokenizers", [rule]))
