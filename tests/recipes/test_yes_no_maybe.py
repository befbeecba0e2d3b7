"""The tasks and the reward of yes, no, maybe."""

from __future__ import annotations

import pytest
from tests.recipes.test_r1_zero import attempt

from journeyman.recipes.yes_no_maybe import reward, scenarios
from journeyman.types.scenarios import Scenario


def test_there_are_108_different_prompts_in_an_order_of_the_seed() -> None:
    tasks = [one.task for one in scenarios()]
    assert len(set(tasks)) == len(tasks) == 108
    assert all(word in task for task in tasks for word in ("yes", "no", "maybe"))
    assert sorted(tasks) == sorted(one.task for one in scenarios(seed=1))
    assert tasks != [one.task for one in scenarios(seed=1)]


@pytest.mark.parametrize(
    ("reply", "worth"),
    [("maybe", 1.0), ("Maybe.", 1.0), ("'no'", 0.75), ("No\n", 0.75), ("YES!", 0.5), ("yes, no", 0.0), ("maybe not", 0.0), ("", 0.0)],
)
def test_only_the_word_alone_is_worth_something(reply: str, worth: float) -> None:
    assert reward(Scenario(id="a", task="?"), attempt(reply)) == worth


def test_a_reply_that_was_cut_off_is_worth_nothing() -> None:
    assert reward(Scenario(id="a", task="?"), attempt("maybe", finish="length")) == 0.0
