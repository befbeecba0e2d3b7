"""What the text of a tool's result says: JSON, Python's own form of it, or plain text. Not for judging it."""

from __future__ import annotations

import ast
import json
from typing import Any

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json


def parse_result(text: str) -> Any:
    """The result as data; the text itself when it is plain text.

    Servers that print Python's form of a list or an object (SQL tools do) are read as if they had written JSON; tuples become lists.

    Example:
        >>> parse_result('{"total": 21}'), parse_result("[{'total': 21}]"), parse_result("21 rows")
        ({'total': 21}, [{'total': 21}], '21 rows')
    """
    try:
        return parse_json(text, nan_is_null=True)
    except InputError:
        pass
    if not text.lstrip().startswith(("{", "[", "(")):
        return text
    try:
        return parse_json(json.dumps(ast.literal_eval(text.strip())), nan_is_null=True)
    except (InputError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
