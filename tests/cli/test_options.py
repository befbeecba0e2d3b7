"""What is read from the options that several commands share."""

from __future__ import annotations

import pytest

from journeyman.cli.options import TargetOptions, pairs
from journeyman.errors import SettingError


def test_headers_and_variables_are_split_at_the_first_separator() -> None:
    assert pairs(["Authorization: Bearer a:b"], ":", "--header") == {"Authorization": "Bearer a:b"}
    assert pairs(["KEY=a=b", "EMPTY="], "=", "--env") == {"KEY": "a=b", "EMPTY": ""}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (TargetOptions(), "no_target"),
        (TargetOptions(env=["A=b"]), "no_target"),
        (TargetOptions("cmd", "http://localhost/mcp"), "both_targets"),
        (TargetOptions("", ""), "both_targets"),
        (TargetOptions("cmd", headers=["A: b"]), "other_kind_of_target"),
        (TargetOptions(url="http://localhost/mcp", env=["A=b"]), "other_kind_of_target"),
        (TargetOptions(url="localhost:8000"), "no_url"),
        (TargetOptions(url=""), "no_url"),
        (TargetOptions("cmd", env=["novalue"]), "malformed_key"),
        (TargetOptions("cmd", env=["=value"]), "malformed_key"),
    ],
)
def test_options_that_name_no_server_are_refused(options: TargetOptions, reason: str) -> None:
    with pytest.raises(SettingError) as caught:
        options.target()
    assert caught.value.reason == reason


def test_a_command_is_split_as_a_shell_would_and_keeps_its_variables() -> None:
    target = TargetOptions("python -m 'my server'", env=["A=b"]).target()
    assert target.command == ("python", "-m", "my server")
    assert target.revealed().env == {"A": "b"}


def test_a_url_keeps_its_headers() -> None:
    target = TargetOptions(url="http://localhost/mcp", headers=["Authorization: Bearer x"]).target()
    assert (target.url, target.revealed().headers) == ("http://localhost/mcp", {"Authorization": "Bearer x"})
