from __future__ import annotations

import pytest

from journeyman.cli.mcp_target import pairs, target_from_options
from journeyman.errors import SettingError


def test_headers_and_variables_are_split_at_the_first_separator() -> None:
    assert pairs(["Authorization: Bearer a:b"], ":", "--header") == {"Authorization": "Bearer a:b"}
    assert pairs(["KEY=a=b", "EMPTY="], "=", "--env") == {"KEY": "a=b", "EMPTY": ""}


@pytest.mark.parametrize("word", ["novalue", "=value"])
def test_a_word_without_name_or_separator_is_refused(word: str) -> None:
    with pytest.raises(SettingError, match="--env"):
        pairs([word], "=", "--env")


@pytest.mark.parametrize(
    ("server", "url", "headers", "env", "said"),
    [
        (None, None, None, None, "no MCP server was given"),
        ("cmd", "http://localhost/mcp", None, None, "both --server and --url"),
        ("cmd", None, ["A: b"], None, "--header is for --url"),
        (None, "http://localhost/mcp", None, ["A=b"], "--env is for --server"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    server: str | None, url: str | None, headers: list[str] | None, env: list[str] | None, said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        target_from_options(server, url, headers, env)


def test_a_command_is_split_as_a_shell_would_and_keeps_its_variables() -> None:
    target = target_from_options("python -m 'my server'", None, None, ["A=b"])
    assert target.command == ("python", "-m", "my server")
    assert target.revealed().env == {"A": "b"}


def test_a_url_keeps_its_headers() -> None:
    target = target_from_options(None, "http://localhost/mcp", ["Authorization: Bearer x"], None)
    assert (target.url, target.revealed().headers) == ("http://localhost/mcp", {"Authorization": "Bearer x"})
