"""What a training job names becomes train samples: penalties and masks first, then advantages; what is left out is counted and said."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.reasons import has_reason

from journeyman.errors import InputError, SettingError
from journeyman.service.samples import Policy, PolicyBatch, policy_batch, step_notes
from journeyman.types.messages import Message
from journeyman.types.sampling import SamplingParameters
from journeyman.types.settings import Grpo
from journeyman.types.training import GrpoJob, ScoredGroup, ScoredTrajectory
from journeyman.types.trajectory import Trajectory, Turn


def trajectory(name: str, num_sampled: int, *, is_truncated: bool = False, num_segments: int = 1) -> Trajectory:
    """One turn a segment; each segment's prompt starts with another token."""
    turns = tuple(
        Turn(
            index=index,
            adapter="m@0",
            messages=(Message(role="user", content="hi"),),
            reply=Message(role="assistant", content="hello"),
            prompt_ids=(100 + index, 5, 6),
            sampled_ids=tuple(range(7, 7 + num_sampled)),
            sampled_logprobs=(-1.0,) * num_sampled,
            finish_reason="length" if is_truncated else "stop",
            parameters=SamplingParameters(),
            started_at=0.0,
            seconds=0.0,
        )
        for index in range(num_segments)
    )
    return Trajectory(id=name, scenario_id="s", model="m", run="r", turns=turns)


def batch(groups: list[list[tuple[Trajectory, float | None]]], **settings: Any) -> PolicyBatch:
    stored = {one.id: one for group in groups for one, _ in group}
    scored = tuple(
        ScoredGroup(
            scenario_id=f"s{number}",
            trajectories=tuple(ScoredTrajectory(trajectory_id=one.id, reward=reward) for one, reward in group),
        )
        for number, group in enumerate(groups)
    )
    return policy_batch(GrpoJob(groups=scored, settings=Grpo(**settings)), stored.__getitem__, Policy("r", "m", 0))


def advantages(found: PolicyBatch) -> dict[str, float]:
    return {sample.trajectory_id: sample.advantage for group in found.groups for sample in group}


def test_the_overlong_penalty_changes_rewards_before_advantages() -> None:
    group = [(trajectory("short", 4), 1.0), (trajectory("long", 9), 1.0)]
    assert batch([group], advantage="mean").groups == ()
    found = batch([group], advantage="mean", overlong={"max_tokens": 10, "cache_tokens": 4})
    assert advantages(found) == pytest.approx({"short": 0.375, "long": -0.375})
    assert found.metrics["overlong_penalty_mean"] == pytest.approx(-0.375)
    assert found.metrics["reward_mean"] == 1.0


def test_truncated_trajectories_may_be_left_out_of_the_loss_but_stay_in_the_baseline() -> None:
    group = [(trajectory("cut", 4, is_truncated=True), 0.0), (trajectory("whole", 4), 1.0), (trajectory("other", 4), 0.5)]
    assert advantages(batch([group], advantage="mean")).keys() == {"cut", "whole", "other"}
    found = batch([group], advantage="mean", mask_truncated=True)
    assert advantages(found) == pytest.approx({"whole": 0.5, "other": 0.0})
    assert found.metrics["num_trajectories_masked"] == 1
    assert found.metrics["truncated_fraction"] == pytest.approx(1 / 3)


def test_all_segments_carry_their_trajectorys_id_and_advantage() -> None:
    found = batch([[(trajectory("a", 2, num_segments=3), 1.0), (trajectory("b", 2), 0.0)]], advantage="mean")
    ((*first, last),) = found.groups
    assert [(sample.trajectory_id, sample.advantage) for sample in first] == [("a", 0.5)] * 3
    assert (last.trajectory_id, last.advantage) == ("b", -0.5)


@pytest.mark.parametrize("reward", [None, math.nan, math.inf])
def test_a_reward_that_is_no_number_excludes_its_trajectory(reward: float | None) -> None:
    found = batch([[(trajectory("a", 2), 1.0), (trajectory("b", 2), 0.0), (trajectory("odd", 2), reward)]], advantage="mean")
    assert advantages(found) == {"a": 0.5, "b": -0.5}
    assert found.metrics["num_trajectories_excluded"] == 1
    assert found.metrics["reward_mean"] == 0.5


def test_a_reward_beyond_what_gradients_can_hold_is_refused_by_its_trajectory() -> None:
    with pytest.raises(InputError, check=has_reason("reward_too_large")):
        batch([[(trajectory("a", 4), 1.0), (trajectory("b", 4), 1e200)]])
    assert len(batch([[(trajectory("a", 4), -1e15), (trajectory("b", 4), 1e15)]]).groups) == 1


def test_groups_without_spread_and_ties_are_counted() -> None:
    flat = [(trajectory("a", 2), 0.5), (trajectory("b", 2), 0.5)]
    near = [(trajectory("c", 2), 0.5), (trajectory("d", 2), 0.51), (trajectory("e", 2), 0.9)]
    found = batch([flat, near], tie_width=0.02)
    assert found.metrics["groups_without_spread_fraction"] == 0.5
    assert found.metrics["tied_fraction"] == pytest.approx(4 / 5)
    assert advantages(found)["c"] == advantages(found)["d"] < 0


def test_the_spread_of_the_whole_batch_scales_every_group() -> None:
    groups = [
        [(trajectory(f"{n}{m}", 2), reward) for m, reward in enumerate(rewards)] for n, rewards in enumerate([(1.0, 0.0), (0.6, 0.4)])
    ]
    found = advantages(batch(groups, advantage="batch_std"))
    assert found["00"] / found["10"] == pytest.approx(5.0)


def test_a_trajectory_twice_in_a_job_is_refused() -> None:
    twice = trajectory("a", 2)
    with pytest.raises(InputError, check=has_reason("trajectory_twice")):
        batch([[(twice, 1.0), (trajectory("b", 2), 0.0)], [(twice, 0.0), (trajectory("c", 2), 1.0)]])


def test_what_the_trainer_left_out_is_said() -> None:
    assert step_notes({"train/loss": 0.1, "train/num_updates_skipped": 0.0, "train/num_trajectories_too_long": 0.0}) == ()
    (skipped,) = step_notes({"train/num_updates_skipped": 2.0, "train/num_skipped_in_a_row": 1.0})
    assert "skipped (1 in a row" in skipped
    assert step_notes({"train/num_updates_skipped": 2.0}) == ("2 updates were skipped: their gradient was not finite",)
    assert step_notes({"train/num_examples_too_long": 3.0}) == ("3 examples were longer than the model's context and were dropped",)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy("r", "n", 0), "other_model"),
        (Policy("other", "m", 0), "other_run"),
        (Policy("r", "m", -1), "undone_version"),
        (Policy("r", "m", 3, {0: "other weights"}), "undone_version"),
        (Policy("r", "m", 3, {0: "weights", 3: "newer"}), None),
        (Policy("r", "m", 3), None),
    ],
)
def test_only_versions_of_the_policy_itself_are_on_policy(policy: Policy, reason: str | None) -> None:
    made = trajectory("a", 4)
    made = made.model_copy(update={"turns": tuple(turn.model_copy(update={"fingerprint": "weights"}) for turn in made.turns)})
    scored = (ScoredTrajectory(trajectory_id="a", reward=1.0), ScoredTrajectory(trajectory_id="b", reward=0.0))
    job = GrpoJob(groups=(ScoredGroup(scenario_id="s", trajectories=scored),))
    if reason is None:
        assert policy_batch(job, lambda name: made, policy).metrics["staleness"] == 3.0
        return
    with pytest.raises(SettingError) as caught:
        policy_batch(job, lambda name: made, policy)
    assert caught.value.reason == reason
