"""What a model's server does not take is left out once, aloud and on record; a value that is out of range is the caller's error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm_server import Answer, Script, serve

import journeyman as jm
from journeyman.errors import LlmError
from journeyman.evaluation.heldout import evaluate
from journeyman.evaluation.report import finding_lines
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.llm.dialect import Dialect
from journeyman.observe.progress import SilentProgress
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Verdict

SENT = {
    "model": "m",
    "response_format": {},
    "temperature": 0.0,
    "top_p": 0.9,
    "seed": 3,
    "max_tokens": 9,
    "logprobs": True,
    "top_logprobs": 5,
}
ASK = [{"role": "user", "content": "Hi"}]

UNSUPPORTED = [
    ("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.", "temperature"),
    ("`temperature` is deprecated for this model.", "temperature"),
    ("invalid temperature: only 1 is allowed for this model", "temperature"),
    ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
    ("This model doesn't support the temperature parameter", "temperature"),
    ("temperature is not available with reasoning models", "temperature"),
    ("Unrecognized request argument supplied: seed", "seed"),
    (
        "Error code: 422 - {'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'seed'], 'msg': 'not permitted'}]}",
        "seed",
    ),
    ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
    ("property 'seed' is unsupported", "seed"),
    ("Argument not supported on this model: top_p", "top_p"),
    ("`logprobs` is not supported with this model", "logprobs"),
    ("top_logprobs: unexpected keyword", "logprobs"),
    ("Temperature is not supported with this model.", "temperature"),
    ("Model qwen-max does not support parameter topP", "top_p"),
    ("`top_p` must be unset when thinking is enabled. Please consult our documentation", "top_p"),
    ("temperature must not be set for this model", "temperature"),
    ("temperature is not supported and should be removed", "temperature"),
    ("temperature is fixed at 0.6 for this model", "temperature"),
    ("`temperature` must be set to 1 when thinking is enabled", "temperature"),
    ("body must NOT have additional properties: 'seed'", "seed"),
    ("The parameter `temperature` is not applicable to reasoning models.", "temperature"),
    ("This endpoint has no parameter named 'seed'", "seed"),
    ("temperature must equal 1", "temperature"),
]
CALLERS_ERROR = [
    "temperature must be between 0 and 2",
    "temperature 3 is too high",
    "temperature 0 is not supported. It must be between 0.1 and 2",
    "temperature can only be in [0, 1]",
    "temperature should be less than or equal to 1",
    "Invalid 'temperature': expected a value <= 2, but got 3",
    "top_p must be in (0, 1]",
    "seed must be an integer",
    "temperature=0 is not supported; use 0.01 or more",
    "temperature is not supported below 0.01",
    "Unsupported value: 'temperature' does not support 0 with this model. Supported values are: 0.1 to 2.",
    "temperature: only 1 decimal place is allowed",
    "Unexpected error: temperature 0 leads to a division by zero",
    "With temperature 0, response_format json_schema is not supported.",
    "`temperature` and `top_p` are not supported together",
    "top_p 0.9 is not allowed when temperature is 0",
    "the model bytedance/seed-1.6 is not available",
    "temperature is required",
    "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
    "max_tokens is too large: 99999. This model supports at most 4096 completion tokens",
    "max_tokens or max_completion_tokens is too large",
    "This model's maximum context length is 4096 tokens; reduce the prompt or max_tokens",
    "Unsupported parameter: 'reasoning_effort'. The request was {'temperature': 0, 'seed': 3}",
    "the prompt says that temperature matters",
    "logprobs needs a higher plan: 20 exceeds the maximum of 5 top_logprobs",
    "top_p: unsupported value 0.9, expected (0,0.8]",
    "n must be 1 when temperature is 0",
    "logprobs must be boolean; top_logprobs not allowed without logprobs",
]


@pytest.mark.parametrize(("message", "name"), UNSUPPORTED)
def test_only_what_is_called_unsupported_is_left_out(message: str, name: str) -> None:
    dialect = Dialect()
    assert dialect.learn(message, SENT)
    assert name in dialect.omitted
    assert not set(dialect.body(SENT)) & set(dialect.omitted)
    assert set(dialect.omitted) <= {name, "top_logprobs"}


@pytest.mark.parametrize("message", CALLERS_ERROR)
def test_a_value_that_is_refused_is_the_callers_error(message: str) -> None:
    dialect = Dialect()
    assert not dialect.learn(message, SENT)
    assert dialect.body(SENT) == SENT


async def test_each_fault_of_a_list_counts_for_its_own_place() -> None:
    faults = [("temperature", "less_than_equal", "Input should be less than or equal to 2"), ("seed", "extra_forbidden", "not permitted")]

    def script(request: dict[str, Any]) -> Answer:
        listed = [{"loc": ["body", name], "type": kind, "msg": text, "input": request} for name, kind, text in faults if name in request]
        return Answer(status=422, body={"detail": listed}) if listed else Answer("42")

    with serve(script) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), settings=LlmSettings(temperature=3.0, seed=1)) as llm:
            with pytest.raises(LlmError) as caught:
                await llm.complete(ASK)
            assert llm.omitted == ("seed",)
    assert caught.value.reason == "refused_parameter"


def test_codes_of_the_provider_say_more_than_its_words() -> None:
    assert Dialect().learn("No.", SENT, code="unsupported_parameter", param="temperature")
    assert Dialect().learn("Unsupported value: 'temperature'.", SENT, code="unsupported_value", param="temperature")
    for code in ("decimal_above_max_value", "integer_below_min_value", "invalid_value", "invalid_type"):
        assert not Dialect().learn("temperature is not supported like this", SENT, code=code, param="temperature")
    assert not Dialect().learn("Unsupported parameter (temperature was fine).", SENT, code="unsupported_parameter", param="reasoning")


@pytest.mark.parametrize(("value", "is_left_out"), [(0.0, True), (0.7, True), (1.0, True), (3, False), (-1, False)])
def test_a_refused_value_shows_an_unsupported_parameter_only_where_any_server_would_take_it(value: float, is_left_out: bool) -> None:
    assert Dialect().learn(f"temperature={value} is not supported", {"temperature": value}) is is_left_out


@given(st.sampled_from(["must be", "has to be", "is", "should be"]), st.floats(0, 5), st.floats(0, 5))
def test_a_range_is_never_taken_for_unsupported(words: str, low: float, high: float) -> None:
    for text in (f"temperature {words} between {low} and {high}", f"unsupported temperature: it {words} at most {high}"):
        assert not Dialect().learn(text, SENT)


def test_the_limit_of_a_reply_gets_its_other_name_and_is_never_left_out() -> None:
    dialect = Dialect()
    assert dialect.learn("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", SENT)
    renamed = dialect.body(SENT)
    assert (renamed["max_completion_tokens"], dialect.omitted) == (9, ())
    assert not dialect.learn("Unknown parameter: 'max_completion_tokens'", renamed)
    other = Dialect()
    assert other.learn("Unknown parameter: 'max_completion_tokens'", {"max_completion_tokens": 9})
    assert other.body({"max_completion_tokens": 9}) == {"max_tokens": 9}


def picky(*names: str) -> Script:
    """A server whose model `reasoner` does not take these."""

    def script(request: dict[str, Any]) -> Answer:
        found = [name for name in names if name in request and request["model"] == "reasoner"]
        return Answer.error(400, f"Unsupported parameter: '{found[0]}'", "unsupported_parameter") if found else Answer("42")

    return script


async def test_calls_at_the_same_time_are_each_refused_once_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with serve(picky("temperature", "seed")) as server, caplog.at_level(logging.WARNING, "journeyman"):
        async with Llm(LlmEndpoint.parse("reasoner", server.base_url), settings=LlmSettings(seed=1)) as llm:
            await asyncio.gather(*(llm.complete(ASK) for _ in range(8)))
            num_refused = len(server.requests)
            await llm.complete(ASK)
            assert len(server.requests) == num_refused + 1
            assert llm.omitted == ("temperature", "seed")
    assert num_refused <= 8 * 3
    assert len([one for one in caplog.records if "does not take" in one.getMessage()]) == 2


async def test_a_value_out_of_range_is_told_and_not_tried_again() -> None:
    def script(request: dict[str, Any]) -> Answer:
        return Answer.error(400, "temperature must be between 0 and 2") if "temperature" in request else Answer("42")

    with serve(script) as server:
        async with Llm(LlmEndpoint.parse("m", server.base_url), settings=LlmSettings(temperature=3.0)) as llm:
            with pytest.raises(LlmError) as caught:
                await llm.complete(ASK)
        assert (caught.value.reason, caught.value.exit_code, len(server.requests)) == ("refused_parameter", 2, 1)
        assert "between 0 and 2" in caught.value.message


async def test_what_one_model_refuses_another_of_the_same_server_still_gets() -> None:
    with serve(picky("temperature")) as server:
        client = jm.Model("reasoner", server.base_url, "none").openai()
        for name in ("reasoner", "plain"):
            await client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hi"}], temperature=0.5)
        await client.close()
    assert [(one["model"], one.get("temperature")) for one in server.requests] == [("reasoner", 0.5), ("reasoner", None), ("plain", 0.5)]


class Right:
    """A judge: the last reply is 42 or it is not."""

    name, description = "right", "the last reply is 42"

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        return [group.model_copy(update={"trajectories": tuple(self._judged(one) for one in group.trajectories)}) for group in groups]

    def _judged(self, one: Trajectory) -> Trajectory:
        is_right = one.turns[-1].reply.content == "42"
        return one.model_copy(update={"verdict": Verdict(judge="right", score=float(is_right), is_success=is_right)})


async def test_an_evaluation_says_which_policy_its_numbers_are_for() -> None:
    warnings: list[str] = []

    class Heard(SilentProgress):
        def warn(self, text: str) -> None:
            warnings.append(text)

    async def attempt(scenario: Scenario, run: jm.Rollout) -> None:
        await run.openai().chat.completions.create(model=run.model, messages=[{"role": "user", "content": scenario.task}], temperature=0.0)

    with serve(picky("temperature")) as server:
        models = {name: jm.Model(name, server.base_url, "none") for name in ("plain", "reasoner")}
        found = await evaluate(attempt, [Scenario(id="a", task="6 * 7?")], models, Right(), progress=Heard())
        for model in models.values():
            await model.close()
    plain, reasoner = found.summary.variants
    assert (plain.omitted, reasoner.omitted) == ((), ("temperature",))
    assert type(found.summary).model_validate_json(found.summary.model_dump_json()).variants[1].omitted == ("temperature",)
    assert [one for one in finding_lines(found.summary) if "reasoner" in one and "temperature" in one]
    assert len(warnings) == 1
    ((attempted,),) = found.groups["reasoner"]
    assert attempted.turns[0].parameters.temperature == 1.0
