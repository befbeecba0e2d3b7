"""What a tool gave back: as text for the model, what that text says, and the leaves that a question can ask for. Not for judging it."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from journeyman.errors import InputError
from journeyman.mcp.messages import repaired_json
from journeyman.redaction import redact
from journeyman.types.json_text import parse_json, well_formed
from journeyman.types.messages import has_mark, left_out, size_of_base64

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
_MAX_RESULT_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back. `text` is for the model: text blocks joined, or the structured content as JSON when there is none; marks
    stand for images, sound and other blocks that are no text; at most a million characters.
    """

    text: str
    is_error: bool
    seconds: float = 0.0


def shown(text: str) -> str:
    """What a server says, as the model and the store get it: a secret that it was given does not come back."""
    return redact(well_formed(text))


def read_result(result: Any, seconds: float) -> ToolResult:
    """A call's result as text, from either major version of the library."""
    blocks = field_of(result, "content") or ()
    parts = [_block_text(block) for block in blocks]
    structured = field_of(result, "structured_content")
    if structured is not None and not any(getattr(block, "type", "") == "text" for block in blocks):
        parts.append(json.dumps(structured, ensure_ascii=False))
    text = shown("\n".join(parts))
    return ToolResult(text[:_MAX_RESULT_CHARS], bool(field_of(result, "is_error")), seconds)


def _block_text(block: Any) -> str:
    """A block of a result as text; a mark for what is none."""
    kind = getattr(block, "type", "") or "content"
    if kind == "text":
        return str(block.text)
    if kind == "resource_link":  # a name and an address: text that the model may need
        return f"[resource {block.name}: {block.uri}]"
    held = getattr(block, "resource", None) or block
    text = getattr(held, "text", None)
    if isinstance(text, str):
        return text
    data = getattr(held, "blob", None) or getattr(held, "data", None)
    return left_out(kind, field_of(held, "mime_type") or "", size_of_base64(data), str(getattr(held, "uri", None) or ""))


def parse_result(text: str) -> Any:
    """The result as data; the text itself when it is plain text.

    Servers that print Python's form of a list or an object (SQL tools do) are read as if they had written JSON; tuples become lists. Half
    of a character becomes U+FFFD.

    Example:
        >>> parse_result('{"total": 21}'), parse_result("[{'total': 21}]"), parse_result("21 rows")
        ({'total': 21}, [{'total': 21}], '21 rows')
    """
    try:
        return parse_json(text, nan_is_null=True)
    except InputError as error:
        if error.reason == "half_surrogate":
            with contextlib.suppress(InputError):
                return parse_json(repaired_json(well_formed(text).encode()), nan_is_null=True)
    if not text.lstrip().startswith(("{", "[", "(")):
        return text
    try:
        return parse_json(json.dumps(ast.literal_eval(text.strip())), nan_is_null=True)
    except (InputError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def compact(text: str) -> str:
    """A JSON result without the blanks between its parts (a fifth fewer tokens than an indented one); other text as it is.

    Example:
        >>> compact('{\\n  "a": [1, 2]\\n}')
        '{"a":[1,2]}'
    """
    try:
        value = parse_json(text)
    except InputError:
        return text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict | list) else text


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


def texts_in(text: str, limit: int = 40) -> list[tuple[str, str]]:
    """Short texts in a result with the key they stand under ("" in a list): what later calls may take as arguments."""
    parsed = parse_result(text)
    if isinstance(parsed, str) and parsed == text:
        parsed = [line.strip(" -*") for line in re.split(r"\r?\n", text)]
    pairs: list[tuple[str, str]] = []
    _gather(parsed, "", pairs, limit)
    return pairs


def _gather(node: Any, key: str, pairs: list[tuple[str, str]], limit: int) -> None:
    if len(pairs) >= limit:
        return
    if isinstance(node, str):
        if 0 < len(node.strip()) <= MAX_ANSWER_CHARS:
            pairs.append((key, node.strip()))
    elif isinstance(node, dict):
        for name, value in node.items():
            _gather(value, str(name), pairs, limit)
    elif isinstance(node, list | tuple):
        for value in node:
            _gather(value, key, pairs, limit)


def field_of(thing: Any, snake: str) -> Any:
    """A field by its name in mcp 2 (snake_case), or in mcp 1 (camelCase)."""
    if hasattr(thing, snake):
        return getattr(thing, snake)
    head, *rest = snake.split("_")
    return getattr(thing, head + "".join(word.capitalize() for word in rest), None)
