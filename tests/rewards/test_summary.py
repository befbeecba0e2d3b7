"""The interval of a step's mean reward is that of the rewards, whatever their range."""

from __future__ import annotations

import pytest

from journeyman.rewards import reward_metrics
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory


def groups(*rewards: float) -> list[Group]:
    made = [Trajectory(id=str(number), scenario_id="s", model="m", reward=reward) for number, reward in enumerate(rewards)]
    return [Group(scenario=Scenario(id="s", task="t"), trajectories=(one,)) for one in made]


@pytest.mark.parametrize("rewards", [(5.0, 7.0, 9.0), (-3.0, -1.0), (-0.5, 1.5), (100.0, 0.0), (1.0, 1.5), (-2.0, 0.0, 1.0)])
def test_rewards_outside_0_to_1_have_an_interval_around_their_mean(rewards: tuple[float, ...]) -> None:
    found = reward_metrics(groups(*rewards))
    low, mean, high = (found[f"reward/{name}"] for name in ("low", "mean", "high"))
    assert low < mean < high
    assert mean - low == pytest.approx(high - mean)


def test_the_interval_of_scores_from_0_to_1_stays_there() -> None:
    found = reward_metrics(groups(0.0, 0.0, 1.0))
    assert found["reward/low"] == 0.0
    assert found["reward/high"] <= 1.0
