"""Secrets as a type, and where in URLs and commands they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from journeyman.errors import SettingError
from journeyman.mcp.target import McpTarget
from journeyman.types.secrets import ALL_HIDDEN, Secret, hide_in_command, hide_in_settings, hide_in_url

VARIABLES = {"TOKEN": "from-the-environment", "HOST": "example.org"}


def shown(*words: str) -> str:
    return " ".join(str(word) for word in hide_in_command(words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--token", "abc"), "--token ***"),
        (("-token", "abc"), "-token ***"),
        (("--apiKey=abc",), "--apiKey=***"),
        (("--password", "-abc"), "--password ***"),
        (("-H", "X-Anything: abc"), "-H X-Anything: ***"),
        (("--header=X-Anything: abc",), "--header=X-Anything: ***"),
        (("-e", "ANYTHING=abc"), "-e ANYTHING=***"),
        (("-eANYTHING=abc",), "-eANYTHING=***"),
        (("GITHUB_PAT=abc",), "GITHUB_PAT=***"),
        (("postgres://me:abc@db/x?sslpassword=abc",), "postgres://***@db/x?sslpassword=***"),
        (("ghp_abcdefgh12345",), "***"),
        (("--any", "0123456789abcdef01234567"), "--any ***"),
        (("sh", "-c", "export KEY=abc; serve --token abc"), "sh -c export KEY=***; serve --token ***"),
        (('{"apiKey": "abc", "port": 3}',), '{"apiKey": "***", "port": 3}'),
        (("Server=h;Password=abc;",), "Server=h;Password=***;"),
        (("--token", "${TOKEN}"), "--token ${TOKEN}"),
        (("--key=${TOKEN}",), "--key=${TOKEN}"),
        # These are no secrets.
        (("python", "-m", "mcp_server_time", "--local-timezone=Europe/Berlin"), "python -m mcp_server_time --local-timezone=Europe/Berlin"),
        (("npx", "-y", "@scope/server@2025.1.10", "/data/key/token.db"), "npx -y @scope/server@2025.1.10 /data/key/token.db"),
        (("--max-tokens", "50", "--keyword", "red", "--tokenizer", "bert"), "--max-tokens 50 --keyword red --tokenizer bert"),
        (("sh", "-c", "echo ${PWD}"), "sh -c echo ${PWD}"),
    ],
)
def test_what_is_secret_in_a_command_is_hidden_and_nothing_else(words: tuple[str, ...], expected: str) -> None:
    assert shown(*words) == expected
    # What was stored hides the same.
    assert shown(*map(str, hide_in_command(words))) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host:80/mcp", "https://host:80/mcp"),
        ("https://me:pw@host/mcp", "https://***@host/mcp"),
        ("https://host/mcp?token=abc&x=1&flag", "https://host/mcp?token=***&x=***&***"),
        ("https://host/mcp#abc", "https://host/mcp#***"),
        ("HTTP://[::1]:80/?a=b?c=d", "HTTP://[::1]:80/?a=***"),
        ("host/mcp?token=abc", "host/mcp?token=***"),
        ("https://${HOST}/mcp?token=${TOKEN}&v=1", "https://${HOST}/mcp?token=${TOKEN}&v=***"),
    ],
)
def test_of_a_url_scheme_host_and_path_are_shown(url: str, expected: str) -> None:
    assert str(hide_in_url(url)) == expected


@given(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=24, max_size=40))
def test_no_way_to_write_a_target_down_holds_its_secrets(secret: str) -> None:
    target = McpTarget.model_validate(
        {"url": f"https://u:{secret}@h/mcp?a={secret}#{secret}", "headers": {"Authorization": f"Bearer {secret}", "X": secret}}
    )
    command = McpTarget.model_validate({"command": ["x", "--token", secret, f"--key={secret}"], "env": {"A": secret}})
    for one in (target, command):
        texts = [repr(one), str(one), str(one.model_dump()), one.model_dump_json(), json.dumps(one.model_dump(mode="json")), one.label]
        assert not [text for text in [*texts, one.title, repr(one.revealed())] if secret in text]
        # In this process it is whole.
        assert McpTarget.model_validate(one.model_dump()) == one
    assert target.revealed().headers["X"] == secret
    assert command.revealed().command == ("x", "--token", secret, f"--key={secret}")


def test_a_password_in_a_url_is_sent_as_a_header() -> None:
    revealed = McpTarget.parse("https://me:p%40w@host/mcp?x=1").revealed()
    assert (revealed.url, revealed.headers) == ("https://host/mcp?x=1", {"Authorization": "Basic bWU6cEB3"})


def test_references_are_kept_and_replaced_when_the_value_is_needed() -> None:
    secret = Secret("Bearer ${TOKEN} at ${HOST}")
    assert (str(secret), secret.hidden) == ("Bearer ${TOKEN} at ${HOST}", "***")
    assert secret.value(VARIABLES.get) == "Bearer from-the-environment at example.org"
    with pytest.raises(SettingError) as caught:
        Secret("${NOT_THERE}").value(VARIABLES.get)
    assert (caught.value.reason, "NOT_THERE" in caught.value.message, caught.value.exit_code) == ("secret_not_set", True, 2)
    with pytest.raises(SettingError) as caught:
        Secret("***").value(VARIABLES.get)
    assert caught.value.reason == "secret_missing"


def test_a_secret_beside_a_reference_is_hidden_all_the_same() -> None:
    assert str(Secret("k3y-in-clear-${TOKEN}")) == "***"


def test_braces_in_a_script_are_the_scripts_own() -> None:
    (_, _, script) = hide_in_command(["sh", "-c", "TOKEN=in-clear; echo ${TOKEN}"])
    assert isinstance(script, Secret)
    assert script.value({}.get) == "TOKEN=in-clear; echo ${TOKEN}"
    assert "in-clear" not in str(script)


def test_however_a_secret_is_given_it_compares_equal() -> None:
    first, second = (
        McpTarget.model_validate({"url": f"https://h/mcp?token={token}", "headers": {"A": header}})
        for token, header in (("abc", "Bearer ${TOKEN}"), ("${TOKEN}", "other"))
    )
    assert first.model_dump(mode="json") != second.model_dump(mode="json")
    assert first.model_dump(mode="json", context=ALL_HIDDEN) == second.model_dump(mode="json", context=ALL_HIDDEN)


def test_what_does_not_fit_is_not_quoted() -> None:
    with pytest.raises(ValidationError) as caught:
        McpTarget.model_validate({"url": "https://h/mcp?token=abcdef", "command": ["x"], "headers": {"A": ["planted"]}})
    assert "planted" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_settings_of_any_program_are_stored_without_their_secrets() -> None:
    given = {
        "api_key": "abc",
        "judge": {"api_key_env": "OPENAI_API_KEY", "base_url": "https://u:p@h/v1", "max_tokens": 5, "rubric": "see http://x?y=z, ok"},
        "target": {"command": ["x", "--token", "abc"], "env": {"A": "b", "B": "${B}"}, "headers": {"C": "d"}, "cwd": None},
        "servers": [{"password": "abc", "name": "one"}],
        "Extra_Headers": {"X": "abc"}, "tokens": ["abc", "${T}"], "note": "send Authorization: Bearer abc",
    }  # fmt: skip
    shown = hide_in_settings(given)
    assert shown == {
        "api_key": "***",
        "judge": {"api_key_env": "OPENAI_API_KEY", "base_url": "https://***@h/v1", "max_tokens": 5, "rubric": "see http://x?y=z, ok"},
        "target": {"command": ["x", "--token", "***"], "env": {"A": "***", "B": "${B}"}, "headers": {"C": "***"}, "cwd": None},
        "servers": [{"password": "***", "name": "one"}],
        "Extra_Headers": {"X": "***"},
        "tokens": ["***", "${T}"],
        "note": "send Authorization: Bearer ***",
    }
    assert hide_in_settings(shown) == shown
