"""Reading tool results: failures that come as ordinary text, and the leaves a question can ask for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from journeyman.mcp.results import parse_result
from journeyman.scenarios.wording import spoken
from journeyman.types.messages import has_mark

Leaf = str | int | float | bool
Path = tuple[str | int, ...]

MAX_ANSWER_CHARS = 60
_MAX_DEPTH = 4
_MAX_ITEMS = 3
_ERROR_START = re.compile(
    r"^[\s\[(<*#-]*(?:error|exception|traceback|failed|failure|invalid|unknown|unable to|cannot|can't|could not|couldn't|no such|not found|"
    r"unsupported|database error|internal error|sorry|missing|permission denied|access denied|unauthori[sz]ed|forbidden)\b",
    re.IGNORECASE,
)
_ERROR_KEYS = ("error", "errors", "exception")


def looks_like_error(text: str) -> bool:
    """Whether a result that is not marked as an error is one all the same (older servers return failures as text)."""
    if not text.strip() or _ERROR_START.match(text):
        return True
    parsed = parse_result(text)
    if not isinstance(parsed, dict):
        return False
    if any(parsed.get(key) for key in _ERROR_KEYS):
        return True
    return parsed.get("success") is False or str(parsed.get("status", "")).casefold() in ("error", "failed", "failure")


def leaves(text: str) -> Iterator[tuple[Path, Leaf]]:
    """The leaves a question could ask for, by their path; one with an empty path for a result in plain text."""
    parsed = parse_result(text)
    if isinstance(parsed, dict | list):
        yield from _walk(parsed, (), 0)
    elif isinstance(text, str) and 0 < len(text.strip()) <= 2 * MAX_ANSWER_CHARS and not has_mark(text):
        yield (), text.strip()


def _walk(node: Any, path: Path, depth: int) -> Iterator[tuple[Path, Leaf]]:
    if isinstance(node, str | int | float | bool):
        if not isinstance(node, str) or 0 < len(node.strip()) <= MAX_ANSWER_CHARS:
            yield path, node
    elif depth < _MAX_DEPTH and isinstance(node, dict):
        for key, value in node.items():
            yield from _walk(value, (*path, key), depth + 1)
    elif depth < _MAX_DEPTH and isinstance(node, list):
        for index, value in enumerate(node[:_MAX_ITEMS]):
            yield from _walk(value, (*path, index), depth + 1)


def is_echo(value: Leaf, arguments: dict[str, Any]) -> bool:
    """Whether a leaf only gives back an argument, or holds one as a whole."""
    text = spoken(value).casefold()
    for argument in arguments.values():
        given = spoken(argument).casefold()
        if text == given or (len(given) >= 3 and given in text) or (len(text) >= 3 and text in given):
            return True
    return False


def texts_in(text: str, limit: int = 40) -> list[tuple[str, str]]:
    """Short texts in a result with the key they stand under ("" in a list): what later calls may take as arguments."""
    parsed = parse_result(text)
    if isinstance(parsed, str) and parsed == text:
        parsed = [line.strip(" -*") for line in text.splitlines()]
    found: list[tuple[str, str]] = []
    _gather(parsed, "", found, limit)
    return found


def _gather(node: Any, key: str, found: list[tuple[str, str]], limit: int) -> None:
    if len(found) >= limit:
        return
    if isinstance(node, str):
        if 0 < len(node.strip()) <= MAX_ANSWER_CHARS:
            found.append((key, node.strip()))
    elif isinstance(node, dict):
        for name, value in node.items():
            _gather(value, str(name), found, limit)
    elif isinstance(node, list | tuple):
        for value in node:
            _gather(value, key, found, limit)


def share_of_commonest(values: Sequence[Any]) -> float:
    """Share of the value that a guess would name; 1.0 when there are none."""
    if not values:
        return 1.0
    return Counter(map(str, values)).most_common(1)[0][1] / len(values)
