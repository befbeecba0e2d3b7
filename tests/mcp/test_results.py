"""Results are read as what they say: JSON, Python's own form, or plain text."""

from __future__ import annotations

import pytest

from journeyman.mcp.results import parse_result


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"total": 21}', {"total": 21}),
        ("[{'total': 21, 'name': None}]", [{"total": 21, "name": None}]),
        ("[(1, 'a'), (2, 'b')]", [[1, "a"], [2, "b"]]),
        ("21", 21),
        ("21 rows", "21 rows"),
        ("[note] nothing found", "[note] nothing found"),
        ("{1, 2}", "{1, 2}"),
        ("[open('x')]", "[open('x')]"),
        ('{"town": "K\\ud83d", "\\udc00": [1]}', {"town": "K\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}": [1]}),
        ('["\\ud83d\\ude00", "\ud83d"]', ["\N{GRINNING FACE}", "\N{REPLACEMENT CHARACTER}"]),
        ("", ""),
    ],
)
def test_a_result_is_read_as_what_it_says(text: str, data: object) -> None:
    assert parse_result(text) == data
