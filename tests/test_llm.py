"""Calls to OpenAI-compatible models."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tests.llm_server import Answer, ScriptedServer, scripted, serve

from journeyman.errors import LlmError, SettingError
from journeyman.llm import PROVIDERS, Llm, LlmEndpoint, LlmSettings

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
ASK = [{"role": "user", "content": "Give a."}]


class Sleeps:
    """Takes the place of waiting and remembers for how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def llm(server: ScriptedServer, sleeps: Sleeps | None = None, **settings: Any) -> Llm:
    endpoint = LlmEndpoint.parse("judge-1", server.base_url)
    return Llm(endpoint, settings=LlmSettings(**settings), sleep=sleeps or Sleeps())


def test_a_provider_prefix_names_the_url_and_the_key_variable() -> None:
    for provider, (url, key_env) in PROVIDERS.items():
        assert LlmEndpoint.parse(f"{provider}/some/model") == LlmEndpoint(model="some/model", base_url=url, api_key_env=key_env)


def test_with_a_base_url_the_whole_name_is_the_models_and_no_key_is_sent_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert LlmEndpoint.parse("openai/x", "http://box:1/v1") == LlmEndpoint(model="openai/x", base_url="http://box:1/v1")
    assert LlmEndpoint.parse("x", "https://openrouter.ai/api/v1/").api_key_env == "OPENROUTER_API_KEY"


def test_a_bare_name_is_openais_unless_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert LlmEndpoint.parse("gpt-5-mini").base_url == PROVIDERS["openai"][0]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert LlmEndpoint.parse("gpt-5-mini").base_url == "http://127.0.0.1:9/v1"


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match="unknown provider 'opnai'") as caught:
        LlmEndpoint.parse("opnai/gpt-5")
    assert "openai/" in str(caught.value)


def test_a_missing_key_is_an_error_at_once_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(LlmError, match="OPENROUTER_API_KEY"):
        Llm(LlmEndpoint.parse("openrouter/x/y"))


async def test_a_json_reply_is_parsed_and_its_usage_counted() -> None:
    with serve(scripted('{"a": 3}')) as server:
        async with llm(server) as model:
            reply = await model.complete_json(ASK, SCHEMA)
        assert (reply.value, reply.mode, reply.usage.prompt_tokens, reply.usage.completion_tokens) == ({"a": 3}, "json_schema", 10, 5)
        assert server.requests[0]["response_format"]["json_schema"] == {"name": "reply", "strict": True, "schema": SCHEMA}


async def test_an_endpoint_that_refuses_the_schema_is_asked_in_weaker_modes_and_that_is_remembered() -> None:
    def script(request: dict[str, Any]) -> Answer:
        if "response_format" in request:
            return Answer.error(400, "response_format is not supported")
        return Answer('Here you are:\n```json\n{"a": 1}\n```')

    with serve(script) as server:
        async with llm(server) as model:
            first = await model.complete_json(ASK, SCHEMA)
            await model.complete_json(ASK, SCHEMA)
        assert (first.value, first.mode) == ({"a": 1}, "plain")
        assert len(server.requests) == 3 + 1
        assert '"required": ["a"]' in server.requests[-1]["messages"][-1]["content"]


async def test_an_endpoint_that_ignores_the_schema_is_told_it_in_words() -> None:
    def script(request: dict[str, Any]) -> Answer:
        return Answer('{"a": 1}' if "JSON schema" in request["messages"][-1]["content"] else "The a is one.")

    with serve(script) as server:
        async with llm(server) as model:
            assert (await model.complete_json(ASK, SCHEMA)).value == {"a": 1}


async def test_parameters_that_an_endpoint_does_not_take_are_left_out_or_renamed() -> None:
    def script(request: dict[str, Any]) -> Answer:
        if "max_tokens" in request:
            return Answer.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in request:
            return Answer.error(400, "Unsupported value: 'temperature' does not support 0")
        return Answer("fine")

    with serve(script) as server:
        async with llm(server) as model:
            assert (await model.complete(ASK)).text == "fine"
            await model.complete(ASK)
        assert len(server.requests) == 4
        assert server.requests[-1]["max_completion_tokens"] == 2048


async def test_a_faulty_reply_is_sent_back_once_with_the_fault_quoted() -> None:
    with serve(scripted('{"a": 9}', '{"a": 1}')) as server:
        async with llm(server) as model:
            reply = await model.complete_json(ASK, SCHEMA, find_fault=lambda value: "a must be below 5" if value["a"] > 5 else None)
        assert reply.value == {"a": 1}
        assert reply.usage.calls == 2
        assert "a must be below 5" in server.requests[1]["messages"][-1]["content"]
        assert server.requests[1]["messages"][-2] == {"role": "assistant", "content": '{"a": 9}'}


@pytest.mark.parametrize("text", ["no JSON here", '{"a": ', ""])
async def test_a_reply_that_stays_unusable_is_an_error_that_says_what_was_wrong(text: str) -> None:
    with serve(scripted(text)) as server:
        async with llm(server) as model:
            with pytest.raises(LlmError, match=r"'judge-1' at http.*unusable reply twice"):
                await model.complete_json(ASK, SCHEMA)


async def test_thinking_before_the_json_is_passed_over() -> None:
    with serve(scripted('<think>{"a": 5} or so</think> {"a": 2}')) as server:
        async with llm(server) as model:
            assert (await model.complete_json(ASK, SCHEMA)).value == {"a": 2}


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [({"retry_after": "7"}, 7, 7), ({"retry_after_ms": "1500"}, 1.5, 1.5), ({}, 0.5, 1.0)],
)
async def test_a_busy_server_is_tried_again_after_the_time_it_asks_for(headers: dict[str, str], low: float, high: float) -> None:
    sleeps = Sleeps()
    with serve(scripted(Answer.error(429, "busy", **headers), "fine")) as server:
        async with llm(server, sleeps) as model:
            assert (await model.complete(ASK)).text == "fine"
    assert len(sleeps.seconds) == 1
    assert low <= sleeps.seconds[0] <= high


async def test_retry_after_may_be_a_date() -> None:
    sleeps = Sleeps()
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with serve(scripted(Answer.error(503, "busy", retry_after=date), "fine")) as server:
        async with llm(server, sleeps) as model:
            await model.complete(ASK)
    assert 50 < sleeps.seconds[0] <= 60


async def test_a_server_that_stays_down_is_an_error_after_the_last_try() -> None:
    sleeps = Sleeps()
    with serve(scripted(Answer.error(500, "boom"))) as server:
        async with llm(server, sleeps, max_retries=3) as model:
            with pytest.raises(LlmError, match=r"answered 500: .*boom.*tried 4 times"):
                await model.complete(ASK)
    assert len(sleeps.seconds) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer.error(401, "bad key"), "API key"),
        (Answer.error(404, "no such model"), "model's name"),
        (Answer.error(400, "context too long"), "context too long"),
        (Answer.error(429, "no money", code="insufficient_quota"), "no quota"),
        (Answer.error(429, "later", retry_after="3600"), "answered 429"),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(answer: Answer, words: str) -> None:
    with serve(scripted(answer)) as server:
        async with llm(server) as model:
            with pytest.raises(LlmError, match=words):
                await model.complete(ASK)
        assert len(server.requests) == 1


async def test_an_unreachable_server_is_an_error_that_names_model_and_url() -> None:
    with serve(scripted("x")) as server:
        url = server.base_url
    async with Llm(LlmEndpoint.parse("judge-1", url), settings=LlmSettings(max_retries=1), sleep=Sleeps()) as model:
        with pytest.raises(LlmError, match=rf"'judge-1' at {url} cannot be reached"):
            await model.complete(ASK)


async def test_a_given_key_is_sent_and_a_keyless_server_gets_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serve(scripted("x")) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), api_key="mine") as model:
            await model.complete(ASK)
        async with llm(server) as model:
            await model.complete(ASK)
        assert server.keys[0] == "Bearer mine"
        assert "secret" not in server.keys[1]


def test_importing_does_not_import_openai() -> None:
    code = "import sys, journeyman.llm, journeyman.rewards; assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_azure_needs_its_resource_and_uses_its_compatible_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(SettingError, match="no Azure resource") as caught:
        LlmEndpoint.parse("azure/judge")
    assert "AZURE_OPENAI_ENDPOINT" in str(caught.value)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/")
    found = LlmEndpoint.parse("azure/judge")
    assert (found.model, found.base_url, found.api_key_env) == ("judge", "https://r.openai.azure.com/openai/v1/", "AZURE_OPENAI_API_KEY")


def test_a_server_of_ones_own_may_be_elsewhere_and_have_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYMAN_BASE_URL", "http://box:8100/v1")
    monkeypatch.setenv("JOURNEYMAN_API_KEY", "k")
    found = LlmEndpoint.parse("journeyman/agent@4")
    assert (found.model, found.base_url, found.api_key_env) == ("agent@4", "http://box:8100/v1", "JOURNEYMAN_API_KEY")
