"""Whatever a server answers in place of a completion is a named error, or is waited for like the status that it means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.llm_server import Answer, scripted, serve

import journeyman as jm
from journeyman.client.backend import connect
from journeyman.errors import JourneymanError, JudgeError, LlmError, LlmOutageError, LlmSettingError, ServiceError
from journeyman.llm import Llm, LlmEndpoint, LlmSettings, TextReply, open_openai
from journeyman.llm.answers import read_answer, status_inside
from journeyman.mcp.tools import McpTool
from journeyman.scenarios import CompletionProposer
from journeyman.scenarios.writer import ChatWriter
from journeyman.types.scenarios import Scenario

ASK = [{"role": "user", "content": "Hi"}]
HTML = Answer(raw=b"<!doctype html><html><body>Sign in</body></html>", headers={"content-type": "text/html"})


def raw(text: str | bytes, content_type: str = "application/json") -> Answer:
    return Answer(raw=text if isinstance(text, bytes) else text.encode(), headers={"content-type": content_type})


def with_choice(**choice: Any) -> Answer:
    return raw(json.dumps({"id": "c", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", **choice}]}))


def with_message(**message: Any) -> Answer:
    return with_choice(message={"role": "assistant", **message})


def call(**function: Any) -> Answer:
    return with_message(content=None, tool_calls=[{"id": "c1", "type": "function", "function": function}])


# What no trying again mends, by what is wrong; `2`: the address is wrong, which is the user's to mend.
FAULTS: dict[str, tuple[Answer, str, int]] = {
    "web page": (HTML, "web_page", 2),
    "page called JSON": (raw("\ufeff  <HTML>"), "web_page", 2),
    "XML": (raw("<?xml version='1.0'?><e/>", "application/xml"), "web_page", 2),
    "plain text": (raw("Ollama is running", "text/plain"), "no_json", 2),
    "empty": (raw(""), "empty_answer", 1),
    "blanks": (raw(" \r\n"), "empty_answer", 1),
    "null": (raw("null"), "no_completion", 2),
    "list": (raw('[{"choices": []}]'), "no_completion", 2),
    "text": (raw('"hello"'), "no_completion", 2),
    "number": (raw("42"), "no_completion", 2),
    "other object": (raw('{"detail": "Not Found"}'), "no_completion", 2),
    "cut off": (raw('{"id": "c", "choices": [{"mess'), "no_json", 1),
    "half a character": (with_message(content="a\ud83d"), "half_surrogate", 1),
    "too deep": (raw('{"choices": ' + "[" * 9000 + "]" * 9000 + "}"), "too_deep", 1),
    "not UTF-8": (raw(b'{"id": "\xff"}'), "not_utf8", 1),
    "no choices": (raw('{"id": "c", "object": "chat.completion"}'), "no_choices", 1),
    "choices null": (raw('{"id": "c", "choices": null}'), "no_choices", 1),
    "choices empty": (raw('{"id": "c", "choices": []}'), "no_choices", 1),
    "choices an object": (raw('{"id": "c", "choices": {"message": {}}}'), "no_choices", 1),
    "choice null": (raw('{"id": "c", "choices": [null]}'), "no_choices", 1),
    "message null": (with_choice(message=None), "no_message", 1),
    "message missing": (with_choice(), "no_message", 1),
    "message a text": (with_choice(message="hello"), "no_message", 1),
    "content a number": (with_message(content=7), "no_text", 1),
    "content an object": (with_message(content={"text": "a"}), "no_text", 1),
    "content an image": (with_message(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "unknown_part", 1),
    "content with an image": (with_message(content=[{"type": "text", "text": "a"}, {"type": "audio"}]), "unknown_part", 1),
    "part null": (with_message(content=[None]), "unknown_part", 1),
    "nothing said": (with_message(content=None), "empty_reply", 1),
    "calls an object": (with_message(content=None, tool_calls={"name": "f"}), "no_tool_call", 1),
    "call null": (with_message(content=None, tool_calls=[None]), "no_tool_call", 1),
    "call without function": (with_message(content=None, tool_calls=[{"id": "c"}]), "no_tool_call", 1),
    "call without name": (call(arguments="{}"), "no_tool_call", 1),
    "arguments a list": (call(name="f", arguments=[1]), "no_tool_call", 1),
    "error, a text": (raw('{"error": "no such model"}'), "refused", 1),
    "error, of the key": (raw('{"error": {"message": "bad", "type": "authentication_error"}}'), "unauthorized", 2),
    "error, by status": (raw('{"error": {"message": "gone", "code": 404}}'), "not_found", 2),
    "error with half a character": (Answer(status=400, raw=b'{"error": {"message": "a \\ud800 b"}}'), "refused", 1),
    "error of a status, a page": (Answer(status=404, raw=b"<html>Not here</html>", headers={"content-type": "text/html"}), "not_found", 2),
    "wrong method": (Answer(status=405, raw=b""), "not_found", 2),
    "error beside a choice": (raw('{"error": "no", "choices": [{"message": {"content": "a"}}]}'), "refused", 1),
    "of another API": (raw('{"id": "r", "object": "response", "output": []}'), "no_completion", 2),
    "error of Google": (raw('[{"error": {"code": 404, "message": "gone"}}]'), "not_found", 2),
    "no money": (Answer(status=402, raw=b'{"detail": "pay"}'), "no_quota", 1),
    "no gzip": (Answer("a", headers={"content-encoding": "gzip"}), "bad_encoding", 1),
    "a circle": (Answer(raw=b"", status=308, headers={"location": "/v1/chat/completions"}), "redirected", 2),
    "a refusal as part": (with_message(content=[{"type": "refusal", "refusal": "no"}]), "refused_by_model", 1),
    "no quota": (raw('{"error": {"message": "pay", "code": "insufficient_quota"}}'), "no_quota", 1),
}
# What means that the server is busy or broken for now.
PASSING = {
    "limit in code": '{"error": {"message": "slow down", "code": 429}}',
    "limit in words": '{"error": {"message": "slow down", "type": "rate_limit_error"}}',
    "limit as text": '{"error": "Rate limit reached"}',
    "overloaded": '{"error": {"message": "later", "type": "overloaded_error"}}',
    "status in digits": '{"error": {"message": "bad gateway", "status": "502"}}',
    "whole answer": '{"object": "error", "message": "engine died", "code": 500}',
    "in the message": '{"error": {"message": "Rate limit reached"}}',
    "in the message, no type that says it": '{"error": {"type": "error", "message": "Overloaded"}}',
    "a list": '[{"error": {"message": "slow", "status": "RESOURCE_EXHAUSTED"}}]',
    "nothing but words": '{"detail": "too many requests"}',
    "only told": '{"error": true, "message": "model is loading"}',
    "an ending": '{"choices": [{"message": {"content": "half of"}, "finish_reason": "error"}]}',
    "bare": '{"code": 503, "msg": "try later"}',
    "in the choice": '{"id": "c", "choices": [{"error": {"message": "upstream", "code": 502}, "finish_reason": "error"}]}',
    "words of Google": '{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED"}}',
}


class NoWait:
    def __init__(self) -> None:
        self.num_waits = 0

    async def __call__(self, seconds: float) -> None:
        self.num_waits += 1


async def asked(answer: Answer, wait: NoWait | None = None) -> tuple[TextReply, int]:
    with serve(scripted(answer)) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), settings=LlmSettings(max_retries=2), sleep=wait or NoWait()) as llm:
            reply = await llm.complete(ASK)
        return reply, len(server.requests)


@pytest.mark.parametrize("name", FAULTS)
async def test_an_answer_that_is_none_is_told_by_name_and_not_asked_for_again(name: str) -> None:
    answer, reason, exit_code = FAULTS[name]
    wait = NoWait()
    with pytest.raises(LlmError) as caught:
        await asked(answer, wait)
    assert (caught.value.reason, caught.value.exit_code, wait.num_waits) == (reason, exit_code, 0)
    assert "'m'" in caught.value.message
    str(caught.value).encode()
    assert caught.value.hint or reason.startswith("refused")


@pytest.mark.parametrize("name", PASSING)
async def test_an_error_inside_a_200_is_waited_for_like_its_status(name: str) -> None:
    wait = NoWait()
    with serve(scripted(raw(PASSING[name]), "fine")) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), sleep=wait) as llm:
            assert (await llm.complete(ASK)).text == "fine"
    assert wait.num_waits == 1
    with pytest.raises(LlmOutageError) as caught:
        await asked(raw(PASSING[name]))
    assert caught.value.reason == "outage"


WORDS = [
    '{"detail": "no knob"}',
    '{"error": "no knob"}',
    '[{"error": {"message": "no knob"}}]',
    "no knob",
    '{"fault": {"string": "no knob"}}',
]


@pytest.mark.parametrize("body", [*WORDS, '{"detail": [{"loc": ["body"], "msg": "no knob"}]}'])
async def test_the_words_of_an_error_are_told_wherever_they_stand(body: str) -> None:
    with pytest.raises(LlmError) as caught:
        await asked(Answer(status=400, raw=body.encode()))
    assert "no knob" in caught.value.message


@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/completions/"])
async def test_a_base_url_that_goes_on_too_far_is_told_with_the_right_one(path: str) -> None:
    with serve(scripted(Answer(status=404, raw=b""))) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url + path)) as llm:
            with pytest.raises(LlmError) as caught:
                await llm.complete(ASK)
    assert (caught.value.hint or "").endswith(server.base_url)


async def test_a_base_url_without_v1_is_told_with_the_one_to_try() -> None:
    with serve(scripted(HTML)) as server:
        root = server.base_url.removesuffix("/v1")
        async with Llm(LlmEndpoint.parse("m", root)) as llm:
            with pytest.raises(LlmSettingError) as caught:
                await llm.complete(ASK)
    assert caught.value.hint is not None
    assert f"{root}/v1" in caught.value.hint


USABLE: dict[str, tuple[Answer, str]] = {
    "parts": (with_message(content=[{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}, "c", {"text": "d"}]), "abcd"),
    "thinking first": (with_message(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]), "a"),
    "no type": (raw(json.dumps({"choices": [{"message": {"content": "a"}}]}), "text/plain"), "a"),
    "null everywhere": (raw(json.dumps({"error": None, "usage": None, "choices": [{"finish_reason": None, "logprobs": None,
                        "message": {"role": None, "content": "a", "refusal": None, "tool_calls": None}}]})), "a"),
    "unknown ending": (with_choice(message={"content": "a"}, finish_reason="eos_token_found"), "a"),
    "ending a number": (with_choice(message={"content": "a"}, finish_reason=3), "a"),
    "NaN in logprobs": (raw('{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": NaN, '
                            '"top_logprobs": [{"token": "b", "logprob": -Infinity}, {"token": "a", "logprob": 1e300}]}]}}]}'), "a"),
    "byte order mark": (raw('\ufeff{"choices": [{"message": {"content": "a"}}]}'), "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", USABLE)
async def test_what_has_one_meaning_is_read(name: str) -> None:
    answer, text = USABLE[name]
    assert (await asked(answer))[0].text == text


@pytest.mark.parametrize(
    "usage",
    [7, [], {}, {"prompt_tokens": -1}, {"prompt_tokens": "10"}, {"prompt_tokens": True}, {"prompt_tokens": None}, {"prompt_tokens": 1e400}],
)
async def test_odd_numbers_of_tokens_are_not_counted_with(usage: object) -> None:
    reply, _ = await asked(raw(json.dumps({"choices": [{"message": {"content": "a"}}], "usage": usage}).replace("Infinity", "NaN")))
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.calls) == (0, 0, 1)


@pytest.mark.parametrize(("arguments", "text"), [('{"a": 1}', '{"a": 1}'), ({"a": 1}, '{"a": 1}'), (None, "{}"), ("", ""), ("{", "{")])
async def test_arguments_of_calls_are_text(arguments: object, text: str) -> None:
    with serve(scripted(call(name="f", arguments=arguments))) as server:
        async with open_openai(server.base_url, "none") as client:
            reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    (made,) = reply.choices[0].message.tool_calls or ()
    assert made.type == "function"
    assert (made.function.name, made.function.arguments) == ("f", text)


KEYS = ["choices", "message", "content", "tool_calls", "function", "name", "arguments", "error", "code", "usage", "id", "type", "text"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=12
)


@given(VALUES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_a_completion_or_a_named_error(value: object) -> None:
    status_inside(value)
    for is_chat in (True, False):
        try:
            found = read_answer(json.dumps(value).encode(), "model 'm' at http://h", "http://h", is_chat=is_chat)
        except LlmError as error:
            assert error.reason  # noqa: PT017 - either outcome is right
        else:
            message = found["choices"][0]["message"]["content"] if is_chat else found["choices"][0]["text"]
            assert isinstance(message, str | None)


# Everybody who asks a model -------------------------------------------------------------------------------------------

ODD = ["web page", "null", "choices empty", "message null", "cut off", "plain text", "content an image"]


@pytest.mark.parametrize("name", ODD)
async def test_judge_writer_and_proposer_tell_it_by_name(name: str, tmp_path: Any) -> None:
    answer, reason, exit_code = FAULTS[name]
    with serve(scripted(answer)) as server:
        judge = jm.Ruler("m", server.base_url, home=tmp_path)
        scenario = Scenario(id="a", task="t")
        with pytest.raises(JudgeError) as judged:
            await judge.score([jm.Group(scenario=scenario, trajectories=(attempt("x"), attempt("y")))])
        await judge.llm.close()
        assert (judged.value.reason, judged.value.exit_code) == (reason, exit_code)
        writer = ChatWriter(Llm(LlmEndpoint.parse("m", server.base_url)))
        with pytest.raises(LlmError) as written:
            await writer.check()
        await writer.close()
        assert (written.value.reason, written.value.exit_code) == (reason, exit_code)


def attempt(text: str) -> jm.Trajectory:
    from journeyman.types.messages import Message
    from journeyman.types.sampling import SamplingParameters
    from journeyman.types.trajectory import Turn

    turn = Turn(
        index=0, adapter=None, messages=(Message(role="user", content="t"),), tools=(), reply=Message(role="assistant", content=text),
        prompt_ids=(), sampled_ids=(), sampled_logprobs=(), finish_reason="stop", parameters=SamplingParameters(),
        started_at=0.0, seconds=0.0,
    )  # fmt: skip
    return jm.Trajectory(id=text, scenario_id="a", model="m", turns=(turn,), started_at=0.0, seconds=0.0)


@pytest.mark.parametrize("name", ["web page", "null", "choices empty", "plain text", "cut off"])
async def test_the_proposer_of_values_tells_it_by_name(name: str) -> None:
    answer, reason, _ = FAULTS[name]
    with serve(scripted(answer)) as server:
        proposer = CompletionProposer(server.base_url, "none")
        tool = McpTool(name="f", server_name="f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
        with pytest.raises(LlmError) as caught:
            await proposer.propose(tool, "a", {"type": "string"}, ["x"], 2)
        await proposer.close()
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ODD)
async def test_an_attempt_of_a_foreign_model_fails_by_name(name: str) -> None:
    async def rollout(scenario: Scenario, run: jm.Rollout) -> None:
        await run.openai().chat.completions.create(model=run.model, messages=[{"role": "user", "content": scenario.task}])

    answer, _, _ = FAULTS[name]
    with serve(scripted(answer)) as server:
        model = jm.Model("m", server.base_url, "none")
        ((found,),) = await jm.gather(rollout, [Scenario(id="a", task="t")], model=model, group_size=1)
        await model.close()
    assert found.error is not None
    assert found.error.type in ("LlmError", "LlmSettingError")
    assert "'m'" in found.error.message
    assert (found.turns, len(server.requests)) == ((), 1)


# Our own client -------------------------------------------------------------------------------------------------------


async def test_an_address_that_is_none_or_holds_a_password_is_told_without_it() -> None:
    for url in ("localhost:8100", "http://", "ftp://me:geheim@h", "http://me:geheim@h:99999", "http://[", ""):
        with pytest.raises(ServiceError) as refused:
            connect(url)
        assert (refused.value.reason, refused.value.exit_code) == ("no_url", 2)
        assert "geheim" not in str(refused.value)
    with pytest.raises(ServiceError) as caught:
        async with connect("http://me:geheim@127.0.0.1:1") as backend:
            await backend.health()
    assert caught.value.reason == "unreachable"
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [HTML, raw("null"), raw("[]"), raw('{"a": 1}'), raw(""), raw('{"na'), raw("fine", "text/plain"), raw('"x"')]
)
async def test_a_server_that_is_not_journeyman_is_told_as_such(answer: Answer) -> None:
    with serve(scripted(answer)) as server:
        async with connect(server.base_url) as backend:
            with pytest.raises(ServiceError) as caught:
                await backend.model("m")
    told = {b"[]": ("unknown_answer", 1), b'{"a": 1}': ("unknown_answer", 1)}.get(answer.raw or b"", ("not_journeyman", 2))
    assert (caught.value.reason, caught.value.exit_code) == told
    assert server.base_url.removesuffix("/v1") in caught.value.message
    assert isinstance(caught.value, JourneymanError)
