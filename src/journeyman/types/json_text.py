"""The one door for text and JSON that others wrote: files, requests, tools, models. What passes it can be written and read again.

Not for files of lines (`text_files.py`) nor for what the JSON means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from journeyman.errors import InputError

#: Levels of lists and objects. Parsers, templates and pydantic each break at a depth of their own, the first of them at 200.
MAX_DEPTH = 100
_MAX_DIGITS = 300  # of a whole number: a longer one is no float either
_TOO_LARGE = 10**_MAX_DIGITS
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def decoded(raw: bytes) -> str:
    """Bytes of a file or a request as text: UTF-8, with or without a byte order mark.

    Raises InputError: not_utf8, with the place of the first wrong byte; other_encoding, for a mark of UTF-16 or UTF-32.
    """
    refuse_other_encoding(raw)
    body = raw.removeprefix(_MARK)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start)
        column = error.start - body.rfind(b"\n", 0, error.start)
        where = f"in line {line + 1}, column {column}" if line else f"at column {column}"
        fault = f"not UTF-8: byte 0x{body[error.start]:02x} {where}"
        raise InputError(fault, hint="convert it: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW", reason="not_utf8") from error


def refuse_other_encoding(start: bytes) -> None:
    """Raise InputError (other_encoding) when a text begins with the mark of UTF-16 or UTF-32."""
    if start.startswith(_OTHER_MARKS):
        way = "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        raise InputError("encoded as UTF-16 or UTF-32, not as UTF-8", hint=way, reason="other_encoding")


def parse_json(text: str | bytes, *, nan_is_null: bool = False) -> Any:
    """What a JSON text says.

    Stricter than `json.loads` where it lets through what breaks later or is lost in silence.

    Args:
        nan_is_null: NaN and Infinity, which many programs write though JSON has no such numbers, are None; otherwise refused.

    Raises InputError, with the place where there is one: no_json, not_utf8, other_encoding, too_deep (`MAX_DEPTH`), half_surrogate (half
    of a character, such as "\\ud800" alone), number_too_large, not_a_number, repeated_key.

    Example:
        >>> parse_json(b'\\xef\\xbb\\xbf{"total": 21}'), parse_json("[NaN]", nan_is_null=True)
        ({'total': 21}, [None])
    """
    text = decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        value = (_LENIENT if nan_is_null else _STRICT).decode(text)
    except json.JSONDecodeError as error:
        where = f"at column {error.colno}" if "\n" not in text.strip() else f"in line {error.lineno}, column {error.colno}"
        raise InputError(f"no JSON: {error.msg} {where}", reason="no_json") from error
    except RecursionError as error:
        raise _too_deep() from error
    if text.count("[") + text.count("{") > MAX_DEPTH or _HALF.search(text) or _ESCAPED_HALF.search(text):
        check_json(value)
    return value


def check_json(value: object) -> None:
    """Refuse what could not be written as JSON text and read again: half surrogates, also in keys, whole numbers that are too large, and
    more than `MAX_DEPTH` levels (so also a value that holds itself). Raises InputError.

    Example:
        >>> check_json({"text": ["a", 1, None]})
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: dict[int, object] = {}  # each once: values may be shared
        for node in level:
            if isinstance(node, str):
                if (half := _HALF.search(node)) is not None:
                    raise InputError(
                        f"the text {_around(node, half.start())} has half of a character (a lone surrogate, U+{ord(half.group()):04X})",
                        hint="repair the text where it was cut, or leave it out",
                        reason="half_surrogate",
                    )
                continue
            if isinstance(node, int) and not -_TOO_LARGE < node < _TOO_LARGE:
                raise _too_large(f"of {node.bit_length()} bits")
            parts = (*node.keys(), *node.values()) if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
            below.update((id(part), part) for part in parts)
        if not below:
            return
        level = list(below.values())
    raise _too_deep()


def well_formed(text: str) -> str:
    """The text with U+FFFD in the place of half surrogates; two halves that belong together become their character.

    Example:
        >>> well_formed("a\\ud800b") == "a\\ufffdb", well_formed("\\ud83d\\ude00") == "\\N{GRINNING FACE}"
        (True, True)
    """
    return text if _HALF.search(text) is None else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _around(text: str, place: int) -> str:
    return ascii(text[max(place - 20, 0) : place + 20])


def _too_deep() -> InputError:
    return InputError(f"lists and objects stand in each other more than {MAX_DEPTH} deep", hint="make it flatter", reason="too_deep")


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise _too_large(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _too_large(text)
    return value


def _too_large(text: str) -> InputError:
    return InputError(f"the number {text[:20]}{'…' * (len(text) > 20)} is too large", reason="number_too_large")


def _constant(text: str) -> NoReturn:
    raise InputError(f"{text} is no JSON number", hint="write null for a missing number", reason="not_a_number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the key {repeated!a} is there twice in one object", hint="keep one of them", reason="repeated_key")
    return fields


_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object)
_LENIENT = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=lambda _: None, object_pairs_hook=_object)
