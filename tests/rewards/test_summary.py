"""Metrics of scored groups: alike at the bottom or at the top, and by kind of task."""

from __future__ import annotations

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
