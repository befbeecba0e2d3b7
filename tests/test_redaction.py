from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.redaction import printable, redact, remember

ANY_TEXT = st.text(st.characters(codec=None))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07\tc\n", "a\\x1b[31mb\\x07\tc\n"),
        ("\x1b]8;;http://evil\x1b\\link", "\\x1b]8;;http://evil\\x1b\\link"),
        ("C1: \x9b2J \x85", "C1: \\x9b2J \\x85"),
        ("back\x08\x7f", "back\\x08\\x7f"),
        ("over\rwritten", "over\\rwritten"),
        ("dos\r\nline", "dos\nline"),
        ("\u202eexe.cod\u2066", "\\u202eexe.cod\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("hangul filler \u3164", "hangul filler \\u3164"),
        ("line\u2028separator", "line\\u2028separator"),
        ("half \ud800", "half \\ud800"),
        ("Köln 日本 👍🏽 naïve\u00a0x", "Köln 日本 👍🏽 naïve\u00a0x"),
    ],
)
def test_what_would_steer_a_terminal_or_hide_in_it_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT)
def test_nothing_but_printed_signs_tabs_and_line_ends_passes(text: str) -> None:
    shown = printable(text)
    assert {sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")} <= {"\n", "\t"}
    assert printable(shown) == shown


@given(ANY_TEXT, st.integers(0, 20))
def test_a_text_that_comes_in_pieces_is_as_harmless_as_a_whole_one(text: str, cut: int) -> None:
    pieces = printable(text[:cut]) + printable(text[cut:])
    assert all(sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs" for sign in pieces)


@pytest.mark.parametrize(
    "text",
    [
        "failed: s3cret-value/+",
        "https://host/mcp?token=s3cret-value%2F%2B",
        "header 'Bearer s3cret-value/+' refused",
        "Basic czNjcmV0LXZhbHVlLys=",
        "{'Authorization': 's3cret-value/+'}",
    ],
)
def test_a_known_secret_is_hidden_in_every_form_in_which_it_is_sent(text: str) -> None:
    remember(["s3cret-value/+"])
    shown = redact(text)
    assert "s3cret" not in shown
    assert "czNjcmV0" not in shown
    assert "***" in shown


@pytest.mark.parametrize("secret", ['with "quotes" in it', "back\\slash-and\ttab", "schlüssel-日本"])
def test_a_known_secret_is_hidden_in_json_too(secret: str) -> None:
    remember([secret])
    for text in (json.dumps({"key": secret}), json.dumps({"key": secret}, ensure_ascii=False)):
        assert json.loads(redact(text)) == {"key": "***"}


def test_a_secret_is_known_without_the_word_that_says_its_kind() -> None:
    remember(["Bearer kept-to-ourselves"])
    assert redact("the server said kept-to-ourselves is wrong") == "the server said *** is wrong"


def test_short_secrets_are_not_searched_for_because_they_are_parts_of_words() -> None:
    remember(["the", "a b"])
    assert redact("the cat and a b") == "the cat and a b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:pw@db/x", "postgres://***@db/x"),
        ("GET https://h/p?page=2&api_key=abc failed", "GET https://h/p?page=2&api_key=*** failed"),
        ("https://h/p?access_token=abc#x", "https://h/p?access_token=***#x"),
        ("https://h/p;session_key=abc#access_token=def", "https://h/p;session_key=***#access_token=***"),
        ("https://me:p@ss@h/x and https://h/a@b", "https://***@h/x and https://h/a@b"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_passwords_and_keys_of_urls_are_hidden_although_nobody_named_them(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("{'authorization': 'bearer abc', 'x': 1}", "{'authorization': 'bearer ***', 'x': 1}"),
        ("Authorization: Basic bWU6cHc=", "Authorization: Basic ***"),
        ('("Authorization", "Bearer abc")', '("Authorization", "Bearer ***")'),
        ("authorization = Bearer abc", "authorization = Bearer ***"),
        ("Authorization: ApiKey abc", "Authorization: ApiKey ***"),
        ("{'Authorization': 'sk-abc12'}", "{'Authorization': '***'}"),
        ("Proxy-Authorization: Token abc", "Proxy-Authorization: Token ***"),
        ("got Bearer sk-abc", "got Bearer ***"),
        ("Authorization: Bearer TOKEN-123", "Authorization: Bearer ***"),
        ("Authorization: Bearer KEYS", "Authorization: Bearer ***"),
        ("Authorization: Bearer $ecret", "Authorization: Bearer ***"),
        ("Authorization: Bearer $TOKEN-123", "Authorization: Bearer ***"),
        ("Authorization: Bearer ${TOKEN}abc", "Authorization: Bearer ***"),
    ],
)
def test_what_an_authorization_header_holds_is_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        'pass --header "Authorization: Bearer TOKEN"',
        "send it as `Authorization: Bearer KEY`",
        "Authorization: Bearer KEY, or none",
        "Authorization: Bearer $TOKEN_2",
        "'Authorization': 'Bearer ${TOKEN}'",
        "the bearer of news",
        "the bearer is a person",
        "authorization failed: basic facts",
        "authorization token missing",
        "authorization: required",
        "authorization: 401 Unauthorized",
        "Authorization: $TOKEN_2",
        "Authorization: KEY",
        "Authorization: Bearer ab",
    ],
)
def test_placeholders_references_and_words_of_a_sentence_are_left_alone(text: str) -> None:
    assert redact(text) == text
