"""Keys, tokens and header values: what cannot be sent is refused at once, by the name of what holds it; the value is never told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm_server import Answer, scripted, serve

import journeyman as jm
from journeyman.cli.app import run
from journeyman.cli.options import TargetOptions
from journeyman.client.backend import connect
from journeyman.config import check_hub_token
from journeyman.errors import JourneymanError, LlmError, SettingError
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.mcp import McpTarget
from journeyman.redaction import redact
from journeyman.server.auth import Gate
from journeyman.types.secrets import checked_header, checked_key

MALFORMED = [
    "sk-geheim\nsk-zwei",
    "sk-geheim\r\nX-Other: 1",
    "sk-\x00geheim",
    "sk-gehe\x1bim",
    "\u201csk-geheim\u201d",
    "\u2018sk-geheim\u2019",
    '"sk-geheim"',
    "'sk-geheim'",
    "sk-geheim mit-rest",
    "sk-\tgeheim",
    "sk-geheim\u2028rest",
    "sk-geheim\u200b",
    "sk-geheim\xa0rest",
    "sk-gehéim",
    "sk-geheim\N{GRINNING FACE}",
    " ",
    "\n",
]


def assert_told(error: JourneymanError, name: str, value: str) -> None:
    assert (error.reason, error.exit_code) == ("malformed_key", 2)
    assert name in error.message
    assert "gehe" not in str(error)
    assert "rest" not in str(error)
    assert len(value.strip()) <= 3 or value.strip() not in str(error)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_key_is_named_by_what_holds_it_and_never_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError) as caught:
        checked_key(value, "SOME_KEY")
    assert_told(caught.value, "SOME_KEY", value)
    if "\0" in value:
        return  # no environment variable can hold it
    for variable, name in (("OPENAI_API_KEY", "openai/m"), ("OPENROUTER_API_KEY", "openrouter/m"), ("VLLM_API_KEY", "vllm/m")):
        monkeypatch.setenv(variable, value)
        with pytest.raises(LlmError) as refused:
            Llm(LlmEndpoint.parse(name))
        assert_told(refused.value, variable, value)
    monkeypatch.setenv("HF_TOKEN", value)
    with pytest.raises(SettingError) as unsent:
        check_hub_token()
    assert_told(unsent.value, "HF_TOKEN", value)


@pytest.mark.parametrize("value", [one for one in MALFORMED if "\0" not in one])
def test_both_sides_of_our_own_wire_refuse_a_malformed_key(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for make in (lambda: connect("http://127.0.0.1:9", value), lambda: Gate(value)):
        with pytest.raises(SettingError) as caught:
            make()
        assert_told(caught.value, "API key", value)
    monkeypatch.setenv("JOURNEYMAN_API_KEY", value)
    assert run(["serve", "--base", "smollm2-135m"]) == 2
    told = capsys.readouterr().err
    assert "JOURNEYMAN_API_KEY" in told
    assert "gehe" not in told


@pytest.mark.parametrize(
    ("name", "value"), [("X-Key", "ge\nheim"), ("X-Key", "geheim\u201d"), ("X-Key", "  "), ("X Key", "geheim"), ("X-Kéy", "geheim")]
)
def test_a_header_that_cannot_be_sent_is_refused_by_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/mcp"
    monkeypatch.setenv("OF_A_HEADER", value)
    for make in (
        lambda: McpTarget.model_validate({"url": url, "headers": {name: value}}).revealed(),
        lambda: McpTarget.model_validate({"url": url, "headers": {name: "${OF_A_HEADER}"}}).revealed(),
        lambda: TargetOptions(url=url, headers=[f"{name}: {value}"]).target(),
    ):
        with pytest.raises(SettingError) as caught:
            make()
        assert (caught.value.reason, caught.value.exit_code) == ("malformed_key", 2)
        assert "heim" not in str(caught.value)
        assert "X-Key" in caught.value.message or "name" in caught.value.message
    assert checked_header("Authorization", " Bearer abc\n", "it") == ("Authorization", "Bearer abc")


def test_what_was_checked_is_sent_but_neither_stored_nor_shown() -> None:
    key = checked_key(" k3y-of-a-judge\r\n", "KEY")
    target = TargetOptions(url="https://me:passw0rd@h/mcp", headers=["X-Token:  t0ken-of-a-header "]).target()
    assert target.revealed().headers["X-Token"] == "t0ken-of-a-header"
    assert target.revealed().url == "https://h/mcp"
    assert not any(text in target.model_dump_json() + repr(target) for text in ("t0ken", "passw0rd"))
    assert redact(f"{key}, t0ken-of-a-header and passw0rd") == "***, *** and ***"


def test_a_header_or_variable_without_its_name_is_not_repeated() -> None:
    for arguments in ((None, "http://h/mcp", ["geheimer-schluessel"], None), ("python x.py", None, None, ["geheimer-schluessel"])):
        with pytest.raises(SettingError) as caught:
            TargetOptions(*arguments).target()
        assert caught.value.reason == "malformed_key"
        assert "geheim" not in str(caught.value)


async def test_a_key_with_a_line_end_after_it_is_sent_without() -> None:
    with serve(scripted("fine")) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), api_key="sk-1\r\n", settings=LlmSettings()) as llm:
            await llm.complete([{"role": "user", "content": "Hi"}])
        assert server.keys == ["Bearer sk-1"]


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_key_that_the_server_repeats_is_not_told(status: int) -> None:
    for body in (b'{"error": {"message": "wrong key sk-geheim"}}', b'{"detail": "wrong key sk-geheim"}', b"wrong key sk-geheim"):
        with serve(scripted(Answer(status=status, raw=body))) as server, pytest.raises(LlmError) as caught:
            async with Llm(LlmEndpoint.parse("m", server.base_url), api_key="sk-geheim", settings=LlmSettings(max_retries=0)) as llm:
                await llm.complete([{"role": "user", "content": "Hi"}])
        assert "wrong key" in caught.value.message
        assert "geheim" not in str(caught.value)


def test_a_missing_key_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "")
    with pytest.raises(LlmError) as caught:
        jm.Ruler("openrouter/m")
    assert (caught.value.reason, caught.value.exit_code) == ("missing_key", 2)


@given(st.text(min_size=1))
def test_what_passes_can_stand_in_a_header(value: str) -> None:
    key = value.strip()
    if re.fullmatch(r"[!-~]+", key) and not (len(key) > 1 and key[0] == key[-1] and key[0] in "\"'`"):
        assert checked_key(value, "KEY") == key
        return
    with pytest.raises(SettingError) as caught:
        checked_key(value, "KEY")
    assert caught.value.reason == "malformed_key"
