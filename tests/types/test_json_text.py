"""JSON that others wrote: what is refused, by its stable reason, and what passes unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.types.json_text import MAX_DEPTH, check_json, decoded, parse_json, well_formed

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_can_be_written_is_read_as_it_was(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == parse_json(b"\xef\xbb\xbf" + text.encode()) == value
    check_json(value)


REFUSED = {
    "no_json": ["", "{", "[1,]", "nul", "{'a': 1}", "\x00"],
    "half_surrogate": ['"\\ud800"', '{"\\udfff": 1}', '["ok", {"a": ["\\uDC00x"]}]', '"\\ude00\\ud83d"'],
    "too_deep": ["[" * 10_000 + "]" * 10_000, '{"a":' * 200 + "1" + "}" * 200, "[" * 100_000],
    "number_too_large": ["1e400", "-1e999", "9" * 5_000, '{"a": [1' + "0" * 400 + "]}"],
    "not_a_number": ["NaN", "[Infinity]", '{"a": -Infinity}'],
    "repeated_key": ['{"a": 1, "a": 2}', '[{"b": {"x": 0, "y": 1, "x": 0}}]'],
}


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in REFUSED.items() for text in texts], ids=repr)
def test_what_would_break_later_is_refused_by_its_reason(reason: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'"\xff"', "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        ('"a"'.encode("utf-16"), "other_encoding"),
        ('"a"'.encode("utf-32"), "other_encoding"),
    ],
)
def test_bytes_that_are_no_utf8_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(raw)
    assert caught.value.reason == reason


@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_a_named_error(raw: bytes) -> None:
    try:
        check_json(parse_json(raw))
    except InputError as error:
        reason = error.reason
    else:
        reason = "none"
    assert reason in {*REFUSED, "not_utf8", "other_encoding", "none"}


def test_missing_numbers_may_be_null_where_the_caller_says_so() -> None:
    assert parse_json('{"a": [NaN, Infinity, 1]}', nan_is_null=True) == {"a": [None, None, 1]}


def test_the_depth_that_is_allowed_passes_and_one_more_does_not() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(InputError):
        parse_json("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InputError) as caught:
        check_json(value)
    assert caught.value.reason == "too_deep"


def test_the_place_of_a_wrong_byte_is_told() -> None:
    with pytest.raises(InputError) as caught:
        decoded(b"fine\nab\xffc")
    assert all(part in caught.value.message for part in ("0xff", "line 2", "column 3"))


@given(st.text())
def test_a_text_made_well_formed_can_be_written_and_one_that_was_is_left_alone(text: str) -> None:
    mended = well_formed(text)
    mended.encode()
    assert well_formed(mended) == mended
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert mended == text


@pytest.mark.parametrize("number", [10**300, -(10**300), 1 << 50_000], ids=["just", "negative", "huge"])
def test_a_number_that_cannot_be_read_again_is_refused_before_it_is_written(number: int) -> None:
    with pytest.raises(InputError) as caught:
        check_json({"a": [number]})
    assert caught.value.reason == "number_too_large"
    assert parse_json(f"[{10**300 - 1}, {1 - 10**300}]") == [10**300 - 1, 1 - 10**300]
