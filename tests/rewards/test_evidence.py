"""The evidence judge."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from tests.rewards.attempts import GOOD, RESULT, attempt, event, scenario

from journeyman.rewards import EvidenceJudge
from journeyman.rewards.evidence import judge_trajectory
from journeyman.rewards.results import value_at
from journeyman.types.messages import Tool
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness, WitnessCall
from journeyman.types.trajectory import Failure, Group, Trajectory, Verdict

WORDS = "It is 15:05 in Oslo."


def score(trajectory: Trajectory, of: Scenario | None = None) -> float:
    verdict = judge_trajectory(of or scenario(), trajectory)
    assert verdict.score is not None
    return verdict.score


def is_success(trajectory: Trajectory, of: Scenario | None = None) -> bool | None:
    return judge_trajectory(of or scenario(), trajectory).is_success


# From the worst attempt to the best: each one is visibly better than the one before.
LADDER = [
    attempt("I think it is noon."),
    attempt("You could use look_up."),
    attempt('<tool_call>{"name": look_up}</tool_call>'),
    attempt(None, event(None, is_valid=False, is_error=True)),
    attempt(None, event({"place": "Oslo"}, name="find", is_known=False, is_valid=False, is_error=True)),
    attempt(None, event({"place": "Oslo"}, name="other_tool")),
    attempt(None, event({"where": "Oslo"}, is_valid=False, is_error=True)),
    attempt(None, event({"place": "Oxxx"}, is_error=True)),
    attempt(None, event({"place": "Bergen"})),
    attempt(None, GOOD),
    attempt(RESULT, GOOD),
    attempt("It is 11:11 in Oslo.", GOOD),
    attempt(WORDS, GOOD),
]


def test_each_step_towards_success_scores_visibly_more() -> None:
    scores = [score(trajectory) for trajectory in LADDER]
    assert all(later - earlier >= 0.019 for earlier, later in pairwise(scores)), scores
    assert scores[0] == 0.0
    assert scores[-1] == 1.0


def test_only_the_last_step_is_a_success() -> None:
    assert [is_success(trajectory) for trajectory in LADDER] == [False] * (len(LADDER) - 1) + [True]


@pytest.mark.parametrize(
    "answer",
    [
        RESULT,
        f"The result is {RESULT}",
        "{'local': '2026-11-22T15:05:00+01:00'}",
        "place: Oslo\nlocal: 15:05",
        "week_day: Sunday, and it is 15:05",
        "```\n15:05\n```",
        "[15:05]",
    ],
)
def test_copying_the_result_is_not_an_answer_in_words(answer: str) -> None:
    assert is_success(attempt(answer, GOOD)) is False
    assert score(attempt(answer, GOOD)) < score(attempt("It is 11:11.", GOOD))


def test_the_rollouts_own_result_is_the_truth_when_results_change() -> None:
    later = json.dumps({"local": "2026-11-22T16:30:00+01:00"})
    assert is_success(attempt("It is 16:30.", event({"place": "Oslo"}, result=later)))
    assert not is_success(attempt("It is 15:05.", event({"place": "Oslo"}, result=later)))
    # Two executions: an answer from either is right.
    assert is_success(attempt("It is 15:05.", GOOD, event({"place": "Oslo"}, result=later)))


def test_an_answer_computed_from_results_is_taken_as_stored() -> None:
    calls = (
        WitnessCall(tool="look_up", arguments={"place": "Oslo"}, result=RESULT),
        WitnessCall(tool="look_up", arguments={"place": "Rome"}, result=RESULT),
    )
    of = scenario(ExpectedAnswer(value="same"), calls=calls, task="Do Oslo and Rome have equal time?")
    rome = event({"place": "Rome"})
    assert is_success(attempt("They have the same time.", GOOD, rome), of)
    assert not is_success(attempt("They are not the same.", GOOD, rome), of)
    assert not is_success(attempt("They have the same time.", GOOD), of)


def test_several_needed_calls_share_the_credit() -> None:
    calls = tuple(WitnessCall(tool="look_up", arguments={"place": place}, result=RESULT) for place in ("Oslo", "Rome"))
    of = scenario(ExpectedAnswer(call=1, path=("week_day",), value="Sunday"), calls=calls)
    one, both = score(attempt(None, GOOD), of), score(attempt(None, GOOD, event({"place": "Rome"})), of)
    assert 0.25 < one < both < 0.6
    # The same call twice does not stand for both.
    assert score(attempt(None, GOOD, GOOD), of) < both


def test_a_right_value_without_the_call_that_yields_it_is_a_guess() -> None:
    assert score(attempt(WORDS)) == 0.0
    assert score(attempt(WORDS, event({"place": "Bergen"}))) < 0.6
    assert not is_success(attempt(WORDS, event({"place": "Bergen"})))


def test_wasted_calls_cost_a_little_and_never_more_than_a_tenth() -> None:
    one_wasted = score(attempt(WORDS, event({"place": "Bergen"}), GOOD))
    assert one_wasted == pytest.approx(0.98)
    assert score(attempt(WORDS, *[GOOD] * 20)) == pytest.approx(0.9)
    assert is_success(attempt(WORDS, GOOD, GOOD))


def test_a_truncated_answer_is_no_answer() -> None:
    truncated = attempt(WORDS, GOOD, finish="length")
    assert is_success(truncated) is False
    assert score(truncated) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "given", [{"place": " oslo "}, {"place": "Oslo", "limit": 5}, {"place": "Oslo", "limit": None}, {"place": "Oslo", "limit": "5"}]
)
def test_arguments_that_mean_the_same_are_the_same(given: dict[str, object]) -> None:
    assert is_success(attempt(WORDS, event(given)))


def test_arguments_that_differ_are_not_the_same() -> None:
    assert not is_success(attempt(WORDS, event({"place": "Oslo", "limit": 6})))
    assert not is_success(attempt(WORDS, event({"place": "Oslo 2"})))


def test_more_right_arguments_score_more() -> None:
    calls = (WitnessCall(tool="look_up", arguments={"a": 1, "b": 2, "c": 3}, result=RESULT),)
    of = scenario(calls=calls)
    scores = [score(attempt(None, event({"a": 1, "b": b, "c": c})), of) for b, c in ((0, 0), (2, 0), (2, 3))]
    assert scores == sorted(set(scores))


@pytest.mark.parametrize("type_name", ["McpError", "WaitTimeoutError", "TimeoutError", "KeyError"])
def test_a_failure_that_is_not_the_models_is_abstained_never_zero(type_name: str) -> None:
    verdict = judge_trajectory(scenario(), attempt(None, GOOD, error=Failure(type=type_name, message="the server died")))
    assert verdict.score is None
    assert verdict.is_success is None
    assert "the server died" in verdict.explanation


@pytest.mark.parametrize(
    "failure", [Failure(type="ContextLengthError", message="full"), Failure(type="BadRequestError", message="context_length_exceeded")]
)
def test_a_failure_that_is_the_models_is_scored(failure: Failure) -> None:
    assert score(attempt(None, GOOD, error=failure)) == pytest.approx(0.55)


def test_a_scenario_without_witness_and_a_rollout_without_turns_are_abstained() -> None:
    assert judge_trajectory(Scenario(id="s", task="t"), attempt(WORDS, GOOD)).score is None
    assert judge_trajectory(scenario(), attempt(None)).score is None


def test_a_scenario_without_expected_answers_wants_the_calls_and_words_that_say_something_of_the_result() -> None:
    of = Scenario(id="s", task="t", witness=Witness(calls=scenario().witness.calls))  # type: ignore[union-attr]
    grounded = attempt(WORDS, GOOD)
    assert is_success(grounded, of)
    assert score(grounded, of) == 1.0
    elsewhere = attempt("The moon is made of cheese.", GOOD)
    assert not is_success(elsewhere, of)
    assert score(attempt(None, GOOD), of) < score(elsewhere, of) < score(grounded, of) - 0.1
    checks = judge_trajectory(of, elsewhere).checks
    assert (checks["in_words"], checks["answer_right"]) == (1.0, 0.0)
    assert not is_success(attempt(None, GOOD), of)


async def test_groups_come_back_in_order_with_verdicts_and_everything_else_kept() -> None:
    group = Group(scenario=scenario(), trajectories=(attempt(WORDS, GOOD, id="x"), attempt("No.", id="y")))
    judge = EvidenceJudge()
    [scored] = await judge.score([group])
    assert [trajectory.id for trajectory in scored] == ["x", "y"]
    assert scored.rewards == (1.0, 0.0)
    assert scored.trajectories[0].verdict is not None
    assert scored.trajectories[0].verdict.checks["answer_right"] == 1.0
    assert scored.trajectories[0].turns == group.trajectories[0].turns
    assert judge.name == "evidence"
    assert "no model" in judge.description


def test_a_conversion_is_judged_by_the_leaf_that_was_asked_for() -> None:
    result = json.dumps(
        {
            "source": {"timezone": "Asia/Tokyo", "datetime": "2026-11-22T14:30:00+09:00", "day_of_week": "Sunday", "is_dst": False},
            "target": {"timezone": "Asia/Kathmandu", "datetime": "2026-11-22T11:15:00+05:45", "day_of_week": "Sunday", "is_dst": False},
            "time_difference": "-3.25h",
        },
        indent=2,
    )
    arguments = {"from": "Asia/Tokyo", "time": "14:30", "to": "Asia/Kathmandu"}
    calls = (WitnessCall(tool="look_up", arguments=arguments, result=result),)
    done = event(arguments, result=result)
    task = "When it is 14:30 in Asia/Tokyo, what is the target datetime in Asia/Kathmandu?"

    def wants(*path: str) -> Scenario:
        return scenario(ExpectedAnswer(path=path, value=value_of(result, path)), calls=calls, task=task)

    target = wants("target", "datetime")
    for answer in (
        "It is 11:15.",
        "When it is 14:30 in Tokyo, it is 11:15 am in Kathmandu.",
        "The target datetime is 2026-11-22T11:15:00+05:45.",
    ):
        assert is_success(attempt(answer, done), target), answer
    for answer in ("It is 14:30.", "It is 14:15.", result, "source datetime: 14:30, target datetime: 11:15", task):
        assert not is_success(attempt(answer, done), target), answer
    assert is_success(attempt("The difference is -3.25h.", done), wants("time_difference"))
    assert is_success(attempt("No, it is not.", done), wants("target", "is_dst"))
    assert is_success(attempt("Asia/Kathmandu is on Sunday.", done), wants("target", "day_of_week"))


def value_of(result: str, path: tuple[str, ...]) -> str | float | int | bool:
    value = value_at(result, path)
    assert value is not None
    return value


def _state(answer: str, *results: object, tools: tuple[Tool, ...] = (), seen: tuple[str, ...] = ()) -> Verdict:
    """The verdict on an answer to "what state is order 17 in?", whose tool returned `results`; the first is the witness's."""
    texts = [json.dumps(result) for result in results]
    calls = (WitnessCall(tool="look_up", arguments={"place": "17"}, result=texts[0]),)
    of = scenario(ExpectedAnswer(path=("state",), value="open", seen=seen), calls=calls, task="What is the state of order 17?")
    tried = attempt(answer, *(event({"place": "17"}, result=text) for text in texts))
    turns = tuple(turn.model_copy(update={"tools": tools}) for turn in tried.turns)
    return judge_trajectory(of, tried.model_copy(update={"turns": turns}))


STATES = Tool.model_validate(
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {"type": "object", "properties": {"filter": {"type": "string", "enum": ["open", "on hold", "lost at sea"]}}},
        },
    }
)


def test_naming_another_value_known_to_stand_in_the_place_is_no_success() -> None:
    order = {"state": "open", "notes": [{"state": "archived"}]}
    assert _state("It is open.", order).is_success
    for rival in ("archived", "on hold", "sent back"):
        found = _state(f"It is open, and it is {rival}.", order, tools=(STATES,), seen=("sent back",))
        assert found.is_success is False
        assert _state(f"It is open, it is not {rival}.", order, tools=(STATES,), seen=("sent back",)).is_success


def test_an_answer_that_can_be_read_in_two_ways_is_told_and_is_no_success() -> None:
    found = judge_trajectory(scenario(), attempt("It is 3:05 in Oslo.", GOOD))
    assert found.is_success is False
    assert found.checks["undecidable"] == 1.0
    assert judge_trajectory(scenario(), attempt(WORDS, GOOD)).checks["undecidable"] == 0.0
    assert judge_trajectory(scenario(), attempt("It is 11:11.", GOOD)).checks["undecidable"] == 0.0


ROOM = {"room": "R12", "seats": 14, "projector": True, "opens": "08:30", "closes": "18:00", "floor": 2, "wind": 12, "direction": "NW"}


@pytest.mark.parametrize(
    ("task", "keys", "right", "wrong"),
    [
        (
            "How many seats does room R12 have and does it have a projector?",
            ["seats", "projector"],
            [
                "Room R12 has 14 seats and a projector.",
                "14 seats. Yes, there is a projector.",
                "Yes, it has a projector, and it has 14 seats.",
            ],
            ["14 seats", "It has 14 seats but no projector.", "15 seats and a projector"],
        ),
        (
            "When does room R12 open and close?",
            ["opens", "closes"],
            ["From 08:30 to 18:00.", "It is open between 8:30 and 18:00.", "It opens at 8:30 am and closes at 6 pm."],
            ["It opens at 18:00 and closes at 08:30.", "08:30", "From 08:30 to 19:00."],
        ),
        (
            "On which floor is room R12?",
            ["floor"],
            ["It's on the 2nd floor.", "The second floor.", "Floor 2", "R12 is on floor two."],
            ["3rd floor", "the first and second floor", "Floor 12"],
        ),
        (
            "What is the wind at R12, and from where?",
            ["wind", "direction"],
            ["The wind is 12 km/h from the NW.", "12 m/s, NW", "Wind: 12, direction: NW"],
            ["12", "NW", "12 from NW or NE"],
        ),
    ],
)
def test_several_values_of_one_result_are_told_in_ordinary_sentences(
    task: str, keys: list[str], right: list[str], wrong: list[str]
) -> None:
    result = json.dumps(ROOM)
    calls = (WitnessCall(tool="look_up", arguments={"place": "Oslo"}, result=result),)
    of = scenario(*(ExpectedAnswer(path=(key,), value=ROOM[key]) for key in keys), calls=calls, task=task)
    done = event({"place": "Oslo"}, result=result)
    assert [said for said in right if not is_success(attempt(said, done), of)] == []
    assert [said for said in wrong if is_success(attempt(said, done), of)] == []
