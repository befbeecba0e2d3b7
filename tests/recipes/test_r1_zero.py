"""The tasks and rewards of the R1-Zero recipe."""

from __future__ import annotations

import pytest

from journeyman.recipes.r1_zero import SHOWN, accuracy, form, is_solution, scenarios
from journeyman.types.messages import Message
from journeyman.types.sampling import FinishReason, SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Trajectory, Turn

SUM = Scenario(id="s", task="7 + 5", data={"kind": "sum", "target": 12, "numbers": []})
COUNTDOWN = Scenario(id="c", task="Make 4 from 5, 9", data={"kind": "countdown", "target": 4, "numbers": [5, 9]})


def attempt(content: str, thought: str | None = "hm", finish: FinishReason = "stop") -> Trajectory:
    reply = Message(role="assistant", content=content, reasoning_content=thought)
    turn = Turn(
        index=0,
        adapter=None,
        messages=(),
        reply=reply,
        prompt_ids=(),
        sampled_ids=(1,),
        sampled_logprobs=(-1.0,),
        finish_reason=finish,
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
    )
    return Trajectory(id="t", scenario_id="s", model="m", turns=(turn,))


def test_tasks_are_of_both_kinds_all_different_and_none_is_shown() -> None:
    tasks = scenarios(seed=1)
    assert len(tasks) == len({one.task for one in tasks}) == 192
    kinds = [one.data["kind"] for one in tasks]
    assert abs(kinds.count("sum") - kinds.count("countdown")) <= 2
    assert not {one.task for one in tasks} & {task for shown in SHOWN.values() for task, _, _ in shown}
    assert [one.task for one in tasks] != [one.task for one in scenarios(seed=2)]
    assert [one.task for one in tasks] == [one.task for one in scenarios(seed=1)]
    sums = [frozenset(one.task.split(" + ")) for one in scenarios(1000) if one.data["kind"] == "sum"]
    assert len(sums) == len(set(sums))
    for one in tasks:
        if one.data["kind"] == "countdown":
            left, right = one.data["numbers"]
            assert any(
                is_solution(text, [left, right], one.data["target"]) for text in (f"{left}+{right}", f"{left}-{right}", f"{right}-{left}")
            )


@pytest.mark.parametrize(
    ("content", "thought", "right", "kept"),
    [
        ("<answer>12</answer>", "7 + 5 = 12", 1.0, 1.0),
        ("<answer>11</answer>", "7 + 5 = 11", 0.0, 1.0),
        ("\n<answer> 12 </answer>\n", "x", 1.0, 1.0),
        ("<answer>12</answer>", None, 1.0, 0.0),
        ("The answer: <answer>12</answer>", "x", 1.0, 0.0),
        ("12", None, 0.0, 0.0),
        ("", "7 + 5 = 12", 0.0, 0.0),
    ],
)
def test_a_right_answer_and_the_form_are_scored_apart(content: str, thought: str | None, right: float, kept: float) -> None:
    assert (accuracy(SUM, attempt(content, thought)), form(SUM, attempt(content, thought))) == (right, kept)


def test_a_reply_that_was_cut_off_scores_nothing() -> None:
    cut = attempt("<answer>12</answer>", finish="length")
    assert (accuracy(SUM, cut), form(SUM, cut)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("9 - 5", 1.0),
        ("-5 + 9", 0.0),
        ("5 - 9", 0.0),
        ("4", 0.0),
        ("9 - 5 + 0", 0.0),
        ("9 - 5 = 4", 0.0),
        ("(9) - (5)", 1.0),
        ("9.0 - 5", 0.0),
        ("True - 5", 0.0),
        ("__import__('os').getpid()", 0.0),
        ("9 - ", 0.0),
        ("(" * 500, 0.0),
    ],
)
def test_an_expression_is_computed_and_must_use_the_numbers(answer: str, right: float) -> None:
    assert accuracy(COUNTDOWN, attempt(f"<answer>{answer}</answer>")) == right
