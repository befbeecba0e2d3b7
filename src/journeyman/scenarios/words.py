"""Identifiers and schema texts in plain words. English only, by rule; knows no server's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from journeyman.mcp.tools import split_identifier


def humanise(name: str) -> str:
    """An identifier as words: `day_of_week` -> "day of week"."""
    return " ".join(split_identifier(name))


def humanise_path(path: Sequence[str | int]) -> str:
    """A path into a result as words: ("target", "day_of_week") -> "target day of week"; indexes as "first", "second", …"""
    ordinals = ("first", "second", "third", "fourth", "fifth")
    words: list[str] = []
    for part in path:
        if isinstance(part, int):
            words.append(ordinals[part] if part < len(ordinals) else f"number {part + 1}")
        else:
            words.append(humanise(part))
    return " ".join(word for word in words if word)


def is_plain_word(name: str) -> bool:
    """Whether an identifier reads as an ordinary word, so that using it gives nothing away."""
    return re.fullmatch(r"[a-z]+|[A-Z][a-z]*", name) is not None


def intent(description: str, name: str) -> str:
    """What a tool does, as the object of "please …": the first sentence of its description in the imperative, else its name in words.

    Example:
        >>> intent("Calculates/evaluates the given expression. Safe.", "calculate")
        'calculate the given expression'
    """
    first_line = description.strip().split("\n")[0]
    sentence = re.split(r"(?<=[a-z)\]])[.:;](?:\s|$)", first_line)[0].strip(" .:;")
    sentence = re.sub(r"\s*\([^)]*\)", "", sentence)
    words = sentence.split()
    if not words or len(words) > 14:
        return humanise(name)
    words[0] = imperative(words[0].split("/")[0])
    text = " ".join(words)
    # A description that names the tool itself would give it away.
    return humanise(name) if name in text and not is_plain_word(name) else text


def imperative(word: str) -> str:
    """A verb in the third person as an imperative ("Returns" -> "return"); any other word in lower case unless it is an acronym."""
    lower = word.casefold()
    if word.isupper() and len(word) > 1:
        return word
    if len(lower) <= 3 or not lower.endswith("s") or lower.endswith(("ss", "us", "is")):
        return lower
    if lower.endswith(("shes", "ches", "sses", "xes", "zzes")):
        return lower[:-2]
    if lower.endswith("ies"):
        return lower[:-3] + "y"
    return lower[:-1]


def label(parameter: str, schema: dict[str, Any]) -> str:
    """What a parameter is called in a task: its name in words, a trailing number or single letter kept as it is."""
    words = humanise(parameter)
    if len(words) > 2:
        return words
    described = re.split(r"[.,;:(\n]", str(schema.get("description", "")))[0].strip()
    return described.casefold() if 0 < len(described.split()) <= 4 else words


def spoken(value: Any) -> str:
    """A value as it stands in a task: text as it is, numbers and flags plainly, lists joined by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(spoken(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{humanise(key)} {spoken(item)}" for key, item in value.items())
    return str(value)


def join_words(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
