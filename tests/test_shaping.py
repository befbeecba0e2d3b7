"""Trainer, rewards and recipes agree on which groups can teach."""

from __future__ import annotations

import pytest

from journeyman.rewards import reward_metrics
from journeyman.shaping import differ, has_spread, overlong_penalties, penalised, tied
from journeyman.trainer.advantages import batch_advantages
from journeyman.types.losses import OverlongPenalty
from journeyman.types.messages import Message
from journeyman.types.sampling import SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Grpo
from journeyman.types.trajectory import Group, Trajectory, Turn

SCENARIO = Scenario(id="s", task="t")


def attempt(number: int, reward: float | None, length: int) -> Trajectory:
    turn = Turn(
        index=0, messages=(), reply=Message(role="assistant", content="x"), prompt_ids=(1,), sampled_ids=(2,) * length,
        sampled_logprobs=(-1.0,) * length, finish_reason="stop", adapter="m@0", parameters=SamplingParameters(),
        started_at=0.0, seconds=0.0,
    )  # fmt: skip
    return Trajectory(id=f"t{number}", scenario_id="s", model="m", turns=(turn,), reward=reward)


def group_of(*rewards: float | None, lengths: tuple[int, ...] = ()) -> Group:
    sizes = lengths or (3,) * len(rewards)
    return Group(scenario=SCENARIO, trajectories=tuple(map(attempt, range(len(rewards)), rewards, sizes)))


@pytest.mark.parametrize(
    ("group", "settings", "expected"),
    [
        (group_of(0.5, 0.55, 0.5), Grpo(), True),
        (group_of(0.5, 0.55, 0.5), Grpo(tie_width=0.1), False),
        (group_of(0.5, 0.55, 0.7), Grpo(tie_width=0.1), True),
        (group_of(0.5, 0.55, 0.5), Grpo(min_spread=0.1), False),
        (group_of(0.5, 0.5), Grpo(), False),
        (group_of(0.5, None), Grpo(), False),
        (group_of(0.5, float("nan"), 0.1), Grpo(), True),
        # Only the length tells these apart, and only where it counts.
        (group_of(0.5, 0.5, lengths=(3, 10)), Grpo(), False),
        (group_of(0.5, 0.5, lengths=(3, 10)), Grpo(overlong=OverlongPenalty(max_tokens=10, cache_tokens=5)), True),
        (group_of(0.0, 1.0, lengths=(3, 10)), Grpo(overlong=OverlongPenalty(max_tokens=10, cache_tokens=5)), False),
    ],
)
def test_a_group_has_spread_exactly_when_the_trainer_takes_it(group: Group, settings: Grpo, expected: bool) -> None:
    shaped = penalised(group.rewards, overlong_penalties(group.trajectories, settings.overlong))
    (advantages,) = batch_advantages([shaped], settings.advantage, min_spread=settings.min_spread, tie_width=settings.tie_width).groups
    is_taken = advantages is not None
    assert (has_spread(group, settings), is_taken) == (expected, expected)
    assert reward_metrics([group], settings)["reward/with_spread"] == float(expected)


def test_ties_share_their_mean_and_what_is_no_reward_is_none() -> None:
    assert tied([0.5, 0.75, 1.0, None, float("inf")], 0.25) == [0.625, 0.625, 1.0, None, None]
    assert tied([0.5, 0.75], 0.0) == [0.5, 0.75]


@pytest.mark.parametrize("low", [0, 5, 30, 40, 70, 80, 90])
def test_the_gate_and_the_tie_rule_see_decimal_fractions_not_what_binary_makes_of_them(low: int) -> None:
    pair = [low / 100, (low + 5) / 100]
    assert not differ(pair, 0.05)
    assert differ(pair, 0.049)
    assert len(set(tied(pair, 0.05))) == 1


def test_one_reward_differs_from_none() -> None:
    assert not differ([1.0, None], 0.0)
