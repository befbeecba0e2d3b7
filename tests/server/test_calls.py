"""Whatever a client sends in a body, a header or a path is served or refused: nobody is answered with 500."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

import journeyman as jm
from journeyman.errors import InputError, SettingError
from journeyman.types.trajectory import ToolEvent

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}
DEEP = b'{"a":' * 2000 + b"1" + b"}" * 2000
REFUSED: dict[str, tuple[bytes, str | None]] = {
    "no JSON": (b"{", "no_json"),
    "UTF-16": (json.dumps(CHAT).encode("utf-16"), "other_encoding"),
    "half a character in a message": (b'{"model": "base", "messages": [{"role": "user", "content": "\\ud83d"}]}', "half_surrogate"),
    "half a character in a key": (b'{"model": "base", "messages": [], "\\udfff": 1}', "half_surrogate"),
    "a deep schema": (
        json.dumps(CHAT).encode()[:-1] + b', "tools": [{"function": {"name": "f", "parameters": ' + DEEP + b"}}]}",
        "too_deep",
    ),
    "an endless list": (b"[" * 100_000, "too_deep"),
    "a text for the chosen function": (json.dumps({**CHAT, "tool_choice": {"function": "f"}}).encode(), "invalid_value"),
    "a list for the chosen function": (json.dumps({**CHAT, "tool_choice": {"function": ["f"]}}).encode(), "invalid_value"),
}


def status(running: Any, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(running.url + path, body, headers or {}), timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


def test_bodies_that_cannot_be_read_are_refused_with_their_reason(running: Any) -> None:
    for name, (body, reason) in REFUSED.items():
        code, error = status(running, "/v1/chat/completions", body)
        assert (code, error["code"], error.get("reason")) == (400, "invalid_input", reason), name


def test_a_body_with_a_byte_order_mark_and_odd_lines_is_served(running: Any) -> None:
    odd = {**CHAT, "messages": [{"role": "user", "content": "a\u2028b\x85c\0d"}]}
    assert status(running, "/v1/chat/completions", b"\xef\xbb\xbf" + json.dumps(odd, ensure_ascii=False).encode())[0] == 200


@pytest.mark.parametrize("count", ["9" * 5000, "9" * 10, "-1", "1e3"])
def test_a_count_of_retries_that_is_none_is_refused(running: Any, count: str) -> None:
    code, error = status(running, "/v1/chat/completions", json.dumps(CHAT).encode(), {"x-stainless-retry-count": count})
    assert (code, error["code"]) == (400, "invalid_header")


def test_numbers_that_the_store_cannot_keep_are_refused(running: Any) -> None:
    for number in (2**63, 10**30, 10**299):
        body = json.dumps({"model": "base", "scenario_id": "s", "max_turns": number}).encode()
        assert status(running, "/api/rollouts", body)[1]["param"] == "max_turns"
    assert status(running, "/api/models", b'{"name": "m", "run": "r", "lora": {"seed": 1%s}}' % (b"0" * 30))[1]["param"] == "lora.seed"


def test_a_version_is_named_by_its_number_as_it_is_written(running: Any) -> None:
    status(running, "/api/models", b'{"name": "m", "run": "r"}')
    assert status(running, "/v1/models/m@0")[0] == 200
    for version in ("9" * 5000, "00", "%D9%A0", "-0", "1"):
        assert status(running, f"/v1/models/m@{version}")[0] == 404


def test_a_query_that_lacks_something_is_refused_in_the_shape_of_every_error(running: Any) -> None:
    code, error = status(running, "/api/rollouts?model=base")
    assert (code, error["code"], error["param"]) == (400, "invalid_input", "key")


async def test_names_that_cannot_be_are_refused_before_anything_is_asked(running: Any) -> None:
    async with jm.connect(running.url) as connection:
        await connection.create_run("r", kind="grpo")
        for name in ("r?x", "r#x", "r%20", "r\n", "r\ud800"):
            with pytest.raises(InputError) as caught:
                await connection.run(name)
            assert caught.value.reason == "invalid_name"


@pytest.mark.parametrize("given", [{"key": "k" * 300}, {"max_turns": 2**63}])
async def test_an_attempt_that_cannot_be_opened_as_asked_is_refused_here(running: Any, given: dict[str, Any]) -> None:
    async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
        raise AssertionError("no attempt is made")

    async with jm.connect(running.url) as connection:
        model = await connection.model("m", run="r")
        with pytest.raises(SettingError) as caught:
            await jm.gather(agent, [jm.Scenario(id="s", task="t")], model=model, group_size=1, **given)
        assert caught.value.reason == ("key_too_long" if "key" in given else "invalid_number")
        with pytest.raises(InputError):
            await jm.gather(agent, [jm.Scenario(id="s", task="t")], model=model, group_size=1, key="\udfff")


async def test_a_tool_result_of_half_characters_is_kept_with_the_attempt(running: Any) -> None:
    async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
        kept = {"turn": 0, "call_id": "c", "name": "f", "arguments": {}, "is_known": True, "is_valid": True, "is_error": False}
        run.record_tool(ToolEvent(**kept, result="a\ud800b"))

    async with jm.connect(running.url) as connection:
        ((attempt,),) = await jm.gather(agent, [jm.Scenario(id="s", task="t")], model=connection.base_model(), group_size=1)
    assert (attempt.error, attempt.tool_events[0].result) == (None, "a\ufffdb")
