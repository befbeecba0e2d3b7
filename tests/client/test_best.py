"""What is imitated are the best attempts at each scenario, above a threshold."""

from __future__ import annotations

import math

import pytest
from tests.client.test_pairs import FAILURE, attempt

from journeyman.client.best import best_trajectories
from journeyman.errors import SettingError
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory


def group(scenario: str, *attempts: Trajectory) -> Group:
    return Group(scenario=Scenario(id=scenario, task="say"), trajectories=attempts)


def best(*groups: Group, min_reward: float = 0.5, at_most: int = 1) -> list[str]:
    return [one.trajectory_id for one in best_trajectories(groups, min_reward=min_reward, at_most=at_most)]


def test_the_best_attempt_of_each_scenario_is_taken_if_it_is_good_enough() -> None:
    first = group("s1", attempt("a", 0.6), attempt("b", 0.9), attempt("c", 0.9))
    second, third = group("s2", attempt("d", 0.4)), group("s3", attempt("e", 0.5))
    assert best(first, second, third) == ["b", "e"]
    assert best(first, second, third, at_most=2) == ["b", "c", "e"]
    assert best(first, second, third, min_reward=-1.0) == ["b", "d", "e"]


def test_groups_of_one_scenario_are_taken_together() -> None:
    assert best(group("s1", attempt("a", 0.6)), group("s1", attempt("b", 0.7))) == ["b"]


def test_attempts_that_failed_or_have_no_reward_are_never_imitated() -> None:
    odd = [attempt("a", None), attempt("b", math.nan), attempt("c", 1.0, error=FAILURE), attempt("d", 1.0, tokens=())]
    assert best(group("s1", *odd, attempt("e", 0.5))) == ["e"]


def test_attempts_that_were_cut_off_are_never_imitated() -> None:
    assert best(group("s1", attempt("a", 1.0, finish_reason="length"), attempt("b", 0.6))) == ["b"]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="min_reward is nan"):
        best(min_reward=math.nan)
    with pytest.raises(SettingError, match="at_most is 0"):
        best(at_most=0)
