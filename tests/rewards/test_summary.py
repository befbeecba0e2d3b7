"""Metrics of scored groups: their interval, alike at the bottom or at the top, and by kind of task."""

from __future__ import annotations

import math

import pytest

from journeyman.observe.health import findings
from journeyman.rewards import reward_metrics
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness, WitnessCall, kind_name, kind_of
from journeyman.types.trajectory import Group, Trajectory, Verdict


def group(kind: str, *rewards: float, is_told: bool = True) -> Group:
    scenario = Scenario(id=f"{kind}-{rewards}", task="t", data={"kind": kind})
    attempts = []
    for number, reward in enumerate(rewards):
        verdict = Verdict(judge="j", score=reward, explanation="", is_success=reward > 0.5) if is_told else None
        attempts.append(Trajectory(id=f"{number}", scenario_id=scenario.id, model="m", turns=(), reward=reward, verdict=verdict))
    return Group(scenario=scenario, trajectories=tuple(attempts))


@pytest.mark.parametrize("is_told", [True, False])
def test_groups_without_spread_are_counted_where_they_are(is_told: bool) -> None:
    groups = [
        group("a", 0.0, 0.0, is_told=is_told),
        group("b", 1.0, 1.0, is_told=is_told),
        group("c", 1.0, 1.0, is_told=is_told),
        group("d", 0.0, 1.0, is_told=is_told),
    ]
    found = reward_metrics(groups)
    assert (found["reward/num_alike_at_bottom"], found["reward/num_alike_at_top"], found["reward/with_spread"]) == (1.0, 2.0, 0.25)
    kinds = {name: value for name, value in found.items() if name.startswith("reward/kind/")}
    assert kinds == {"reward/kind/a": 0.0, "reward/kind/b": 1.0, "reward/kind/c": 1.0, "reward/kind/d": 0.5}


def test_groups_that_are_alike_in_between_are_neither() -> None:
    found = reward_metrics([group("a", 0.45, 0.45, is_told=False)])
    assert (found["reward/num_alike_at_bottom"], found["reward/num_alike_at_top"]) == (0.0, 0.0)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_finite_number_is_excluded_and_counted(reward: float) -> None:
    with_it, without = (group("a", 0.25, 0.75, is_told=False), group("b", 0.5, is_told=False))
    odd = without.trajectories[0].model_copy(update={"reward": reward})
    found = reward_metrics([with_it.model_copy(update={"trajectories": (*with_it.trajectories, odd)}), without])
    assert found == reward_metrics([with_it, without]) | {"reward/num_excluded": 1.0}
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (2.0, 4.0), (-2.0, -1.0)])
def test_rewards_beyond_0_and_1_are_not_clamped(low: float, high: float) -> None:
    found = reward_metrics([group("a", low, is_told=False), group("b", high, is_told=False)])
    assert found["reward/mean"] == (low + high) / 2
    assert found["reward/low"] < low + (high - low) / 2 < found["reward/high"]
    assert found["reward/high"] - found["reward/mean"] > 0.5


def test_a_kind_that_never_succeeds_is_named_although_most_attempts_succeed() -> None:
    groups = [group("easy", 1.0, 1.0)] * 9 + [group("hard", 0.0, 0.0)]
    (finding,) = findings([reward_metrics(groups)] * 3)
    assert "hard" in finding.text
    assert "easy" not in finding.text
    assert "solved" not in finding.text


def test_a_kind_is_what_is_asked_of_which_tools_or_what_the_scenario_says() -> None:
    def scenario(tool: str, *path: str, **data: str) -> Scenario:
        witness = Witness(calls=(WitnessCall(tool=tool, arguments={}, result="{}"),), answers=(ExpectedAnswer(path=path, value=1),))
        return Scenario(id="s", task="t", witness=witness, data=data)

    one, same, other = scenario("add", "sum"), scenario("add", "sum"), scenario("add", "carry")
    assert kind_of(one) == kind_of(same) != kind_of(other)
    assert kind_name(one) == kind_name(same) != kind_name(other)
    assert "add" in kind_name(one)
    plain = Scenario(id="s", task="t", data={"kind": "sums"})
    assert (kind_of(plain), kind_name(plain)) == ("sums", "sums")
    nothing = Scenario(id="s", task="t", data={"kind": ["no", "text"]})
    assert (kind_of(nothing), kind_name(nothing)) == (None, "")
    assert len(kind_name(scenario("x" * 500, "y" * 500))) <= 100


def groups_of_one(*rewards: float) -> list[Group]:
    made = [Trajectory(id=str(number), scenario_id="s", model="m", reward=reward) for number, reward in enumerate(rewards)]
    return [Group(scenario=Scenario(id="s", task="t"), trajectories=(one,)) for one in made]


@pytest.mark.parametrize("rewards", [(5.0, 7.0, 9.0), (-3.0, -1.0), (-0.5, 1.5), (100.0, 0.0), (1.0, 1.5), (-2.0, 0.0, 1.0)])
def test_rewards_outside_0_to_1_have_an_interval_around_their_mean(rewards: tuple[float, ...]) -> None:
    found = reward_metrics(groups_of_one(*rewards))
    low, mean, high = (found[f"reward/{name}"] for name in ("low", "mean", "high"))
    assert low < mean < high
    assert mean - low == pytest.approx(high - mean)


def test_the_interval_of_scores_from_0_to_1_stays_there() -> None:
    found = reward_metrics(groups_of_one(0.0, 0.0, 1.0))
    assert found["reward/low"] == 0.0
    assert found["reward/high"] <= 1.0
