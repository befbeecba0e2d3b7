"""Findings name what is wrong with a run, with its number, and leave healthy runs alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from journeyman.observe.health import NAMES, findings, news, packing_saving, run_history
from journeyman.observe.reward_health import Metrics
from journeyman.types.runs import StepMetrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "health.md"


def step(**changes: float) -> Metrics:
    """A healthy step; `reward__mean=0.2` changes one reading."""
    healthy = {
        "reward/mean": 0.6, "reward/low": 0.5, "reward/high": 0.7, "reward/std": 0.2, "reward/success": 0.4, "reward/with_spread": 0.9,
        "reward/num_excluded": 0.0, "rollout/executed": 0.8, "train/num_trajectories": 36.0, "train/entropy": 0.2, "train/loss": 0.1,
        "train/kl_to_base": 0.5, "train/logprob_gap_mean": 0.003, "train/truncated_fraction": 0.1,
    }  # fmt: skip
    return healthy | {name.replace("__", "/"): value for name, value in changes.items()}


def run(name: str, values: list[float], **changes: float) -> list[Metrics]:
    return [step(**changes) | {name: value} for value in values]


def rewarded(values: list[float], half: float = 0.1, **changes: float) -> list[Metrics]:
    """A healthy run but for its rewards, each with an interval."""
    return [step(reward__mean=value, reward__low=value - half, reward__high=value + half, **changes) for value in values]


def names(history: list[Metrics]) -> list[str]:
    return [finding.name for finding in findings(history) if finding.level != "normal"]


# Rewards, entropies and distances of two real runs of 16 steps: the first collapsed (a learning rate three times too high).
COLLAPSED = {
    "reward/mean": [0.66, 0.78, 0.51, 0.76, 0.61, 0.73, 0.75, 0.74, 0.75, 0.63, 0.54, 0.19, 0.27, 0.42, 0.56, 0.62],
    "train/entropy": [0.191, 0.132, 0.189, 0.158, 0.184, 0.118, 0.094, 0.077, 0.085, 0.053, 0.093, 0.063, 0.091, 0.047, 0.040, 0.054],
    "train/kl_to_base": [5.01, 0.54, 0.84, 0.82, 0.56, 0.40, 0.35, 0.51, 0.61, 0.35, 0.29, 0.73, 0.86, 0.35, 0.66, 0.47],
}
HEALTHY = {
    "reward/mean": [0.66, 0.52, 0.67, 0.54, 0.47, 0.72, 0.72, 0.78, 0.75, 0.83, 0.70, 0.45, 0.76, 0.88, 0.70, 0.86],
    "train/entropy": [0.128, 0.207, 0.128, 0.079, 0.147, 0.094, 0.076, 0.104, 0.125, 0.096, 0.073, 0.113, 0.092, 0.055, 0.056, 0.053],
    "train/kl_to_base": [0.19, 0.47, 0.98, 0.31, 0.39, 0.43, 0.74, 0.37, 0.42, 0.34, 0.33, 1.16, 1.03, 0.56, 0.51, 0.26],
}


def history_of(curves: dict[str, list[float]], half: float = 0.15) -> list[Metrics]:
    rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    return [one | row for one, row in zip(rewarded(curves["reward/mean"], half), rows, strict=True)]


def test_a_real_collapse_is_named_before_the_reward_is_gone() -> None:
    history = history_of(COLLAPSED)
    assert names(history[:9]) == []
    assert names(history[:10]) == names(history[:12]) == ["entropy_collapse"]
    # Of 0.71 in the mean of three, 0.45 is left at step 12, which may be chance, and 0.33 at step 13, which is not.
    assert "reward_falling" in names(history[:13])


def test_a_real_healthy_run_gives_no_finding_at_any_step() -> None:
    history = history_of(HEALTHY)
    assert [names(history[:end]) for end in range(len(history) + 1)] == [[]] * 17


BAD = {
    "no_spread": (run("reward/with_spread", [0.5, 0.0, 0.0], reward__num_groups=4.0), "in 2 steps no group (0%)"),
    "kinds_failing": (
        run("reward/kind/convert", [0.0] * 3, **{"reward/kind/look up": 0.9, "reward__success": 0.45}),
        "1 of 2 kinds of tasks never succeed: convert",
    ),
    "reward_falling": (rewarded([0.5, 0.7, 0.8, 0.8, 0.4, 0.3, 0.2]), "from 0.77 to 0.30"),
    "reward_flat": (rewarded([0.3, 0.31] * 5, half=0.02), "0.30 in 4 steps, 0.30 in the 4 after them"),
    "entropy_collapse": (run("train/entropy", [0.4, 0.4, 0.4, 0.3, 0.2, 0.1]), "from 0.400 to 0.100"),
    "all_truncated": (run("train/truncated_fraction", [0.75]), "75%"),
    "mismatch": (run("train/logprob_gap_mean", [0.031]), "0.0310 nats"),
    "mismatch_masked": (run("train/mismatch_masked_fraction", [0.5]), "50% of the sampled tokens were masked"),
    "kl_running_off": (run("train/kl_to_base", [0.5, 0.5, 0.5, 1, 2, 3, 4]), "from 0.50 to 3.00"),
    "tools_failing": (run("rollout/executed", [0.2, 0.1]), "10%"),
    "judge_abstaining": (run("reward/num_excluded", [12.0]), "12 of 36 attempts have no reward (33%)"),
    "updates_skipped": (run("train/num_updates_skipped", [2.0, 1.0]), "1 update of the last step was not made, because a gradient was not"),
    "chosen_falling": (run("train/chosen_logprob_change", [-0.05, -0.25], train__rejected_logprob_change=-0.9), "0.25 nats per token"),
    "loss_near_zero": (run("train/loss", [0.0012], train__gradient_norm=0.15), "the loss is 0.0012: a loss near zero is normal"),
}


def test_every_finding_has_a_case_here_and_a_heading_on_the_page() -> None:
    assert set(BAD) == set(NAMES)
    assert re.findall(r"^## (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_finding_tells_the_number_and_what_to_try(name: str) -> None:
    history, number = BAD[name]
    (finding,) = [finding for finding in findings(history) if finding.name == name]
    assert number in finding.text
    assert bool(finding.advice) == (finding.level != "normal")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "loss_near_zero"])
def test_a_finding_comes_alone(name: str) -> None:
    assert names(BAD[name][0]) == [name]


def test_a_run_that_solves_its_tasks_is_told_so() -> None:
    (finding,) = findings(run("reward/with_spread", [0.1] * 3, reward__num_groups=8.0, reward__success=0.95, reward__mean=0.97))
    assert (finding.name, finding.level) == ("no_spread", "watch")
    assert "solved" in finding.text


def alike(**more: float) -> list[Metrics]:
    """Three steps in which hardly a group has spread and nearly all attempts succeed."""
    return run("reward/with_spread", [0.1] * 3, reward__num_groups=8.0, reward__success=0.9, reward__mean=0.92, **more)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        ({"convert": 0.0, "look up": 1.0}, ["convert"]),
        ({"convert": 0.0, "look up": 1.0, "add": 0.0}, ["add", "convert"]),
        ({f"kind {number}": float(number > 9) for number in range(30)}, ["kind 0", "kind 1", "and 6 more"]),
    ],
)
def test_tasks_are_not_called_solved_while_a_kind_of_them_never_succeeds(kinds: dict[str, float], named: list[str]) -> None:
    rates = {f"reward/kind/{name}": rate for name, rate in kinds.items()}
    history = alike(reward__num_alike_at_bottom=2.0, reward__num_alike_at_top=5.0, **rates)
    (finding,) = findings(history)
    assert (finding.name, finding.level) == ("no_spread", "problem")
    assert "solved" not in finding.text
    assert all(name in finding.text and name in finding.advice for name in named)
    assert "6 groups" in finding.text
    assert len(finding.text) < 400


def test_tasks_are_not_called_solved_while_all_attempts_at_some_of_them_fail() -> None:
    (finding,) = findings(alike(reward__num_alike_at_bottom=1.0, reward__num_alike_at_top=6.0))
    assert (finding.level, "3 groups" in finding.text, "solved" in finding.text) == ("problem", True, False)


def test_a_kind_that_succeeds_now_and_then_does_not_keep_the_tasks_from_being_solved() -> None:
    history = alike(**{"reward/kind/convert": 0.0, "reward/kind/look up": 1.0})
    history[-1]["reward/kind/convert"] = 0.1
    (finding,) = findings(history)
    assert (finding.level, "solved" in finding.text) == ("watch", True)


def test_groups_that_are_alike_at_the_bottom_and_at_the_top_are_advised_differently() -> None:
    def told(success: float, bottom: float, top: float) -> str:
        (finding,) = findings(run("reward/with_spread", [0.0] * 3, reward__num_groups=8.0, reward__success=success,
                                  reward__num_alike_at_bottom=bottom, reward__num_alike_at_top=top))  # fmt: skip
        return finding.advice

    assert len({told(0.0, 8.0, 0.0), told(0.6, 1.0, 7.0), told(0.5, 0.0, 0.0), told(1.0, 0.0, 8.0)}) == 4


def test_where_every_kind_fails_none_is_singled_out() -> None:
    history = run("reward/kind/a", [0.0] * 4, **{"reward/kind/b": 0.0, "reward__success": 0.0})
    assert names(history) == []


def test_without_told_success_a_low_reward_counts_as_failing() -> None:
    history = run("reward/kind/a", [0.15] * 3, **{"reward/kind/b": 0.9})
    for one in history:
        one.pop("reward/success", None)
    assert names(history) == ["kinds_failing"]


def test_a_finding_is_news_once_while_it_lasts() -> None:
    history = run("train/truncated_fraction", [0.1, 0.6, 0.7, 0.2, 0.8])
    told = [[finding.name for finding in news(history[:end])] for end in range(6)]
    assert told == [[], [], ["all_truncated"], [], [], ["all_truncated"]]


def test_what_is_normal_is_said_once_in_a_run() -> None:
    history = run("train/loss", [0.2, 0.01, 0.2, 0.01])
    assert [[finding.name for finding in news(history[:end])] for end in range(5)] == [[], [], ["loss_near_zero"], [], []]


@pytest.mark.parametrize("history", [[], [{}], [{"train/entropy": float("nan")}] * 9, [{"reward/mean": -3.0}] * 3])
def test_steps_without_readings_give_no_finding(history: list[Metrics]) -> None:
    assert findings(history) == []


def test_a_small_loss_of_learning_from_pairs_is_no_finding() -> None:
    assert findings([{"train/loss": 0.001, "train/reward_margin": 7.0, "train/chosen_logprob_change": -0.05}]) == []


# What a training call returns, where no recipe has measured the rewards.
TRAINED = {
    "train/reward_mean": 0.6, "train/reward_spread": 0.2, "train/groups_without_spread_fraction": 0.1, "train/num_groups": 36.0,
    "train/num_trajectories": 144.0, "train/num_trajectories_excluded": 0.0, "train/entropy": 0.2, "train/loss": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "metric", "values", "number"),
    [
        ("no_spread", "train/groups_without_spread_fraction", [0.5, 1.0], "in the last step no group (0%)"),
        ("reward_falling", "train/reward_mean", [0.5, 0.7, 0.8, 0.8, 0.4, 0.3, 0.2], "from 0.77 to 0.30"),
        ("reward_flat", "train/reward_mean", [0.3, 0.31] * 6, "0.30 in 6 steps, 0.30 in the 6 after them"),
        ("judge_abstaining", "train/num_trajectories_excluded", [48.0], "48 of 144 attempts have no reward (33%)"),
    ],
)
def test_what_a_training_call_returns_is_enough(name: str, metric: str, values: list[float], number: str) -> None:
    (finding,) = findings([TRAINED | {metric: value} for value in values])
    assert finding.name == name
    assert number in finding.text


def test_what_a_recipe_has_measured_goes_before_what_the_training_call_saw() -> None:
    assert names([step() | TRAINED | {"train/groups_without_spread_fraction": 1.0, "train/reward_mean": 0.0}]) == []


def test_a_fall_within_the_noise_of_few_groups_is_no_finding() -> None:
    rewards = [0.8, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5]
    assert names([TRAINED | {"train/reward_mean": reward} for reward in rewards]) == ["reward_falling"]
    few = {"train/num_groups": 2.0, "train/reward_spread": 0.4}
    assert names([TRAINED | few | {"train/reward_mean": reward} for reward in rewards]) == []


def test_a_first_step_without_a_call_that_ran_is_no_finding() -> None:
    assert names(run("rollout/executed", [0.1])) == []
    assert names(run("rollout/executed", [0.4, 0.1])) == []


def test_a_small_loss_of_imitation_is_no_finding() -> None:
    assert findings([{"train/loss": 0.001, "train/num_examples": 8.0}]) == []


def test_one_outlier_of_the_distance_to_the_base_is_no_finding() -> None:
    assert names(run("train/kl_to_base", [0.5, 0.4, 0.6, 0.5, 0.7, 7.5])) == []


def test_problems_come_first() -> None:
    history = [one | {"train/loss": 0.0, "train/truncated_fraction": 1.0} for one in BAD["kl_running_off"][0]]
    assert [finding.level for finding in findings(history)] == ["problem", "watch", "normal"]


@pytest.mark.parametrize(
    ("entropies", "level", "text"),
    [
        ([0.5] + [0.01] * 6, "problem", "from 0.500 to 0.010"),
        ([0.5, 0.01, 0.005, 0.004, 0.004], "problem", "from 0.500 to 0.004"),
        ([0.5, 0.1], "watch", "from 0.500 to 0.100"),
        ([0.1, 0.5, 0.5, 0.12], "watch", "from 0.500 to 0.120"),
    ],
)
def test_a_collapse_of_the_entropy_in_the_first_steps_is_found(entropies: list[float], level: str, text: str) -> None:
    (finding,) = findings(run("train/entropy", entropies))
    assert (finding.name, finding.level) == ("entropy_collapse", level)
    assert text in finding.text


def test_entropy_that_is_spent_on_a_rising_reward_is_no_finding() -> None:
    entropies = {"train/entropy": [3.0, 2.8, 2.5, 1.4, 0.8, 0.6, 0.5, 0.3], "reward/mean": [0.07, 0.05, 0.17, 0.24, 0.45, 0.47, 0.55, 0.6]}
    assert names(history_of(entropies, half=0.1)) == []
    assert names(history_of(entropies | {"reward/mean": [0.3, 0.25, 0.35, 0.3, 0.25, 0.35, 0.3, 0.25]}, half=0.1)) == ["entropy_collapse"]


@pytest.mark.parametrize(
    ("distances", "text"),
    [
        ([0.0] + [9.0] * 3, "from 0.00 to 9.00"),
        ([0.0, 1.0, 5.0, 20.0, 50.0], "from 0.00 to 20.00"),
        ([1.5] * 3 + [5.9] * 3, "from 1.50 to 5.90"),
    ],
)
def test_running_off_in_the_first_steps_or_to_far_away_is_found(distances: list[float], text: str) -> None:
    (finding,) = findings(run("train/kl_to_base", distances))
    assert finding.name == "kl_running_off"
    assert text in finding.text


@pytest.mark.parametrize("distances", [[8.0] * 6, [4.0, 4.5, 5.5, 5.5, 5.5], [0.0, 7.0, 0.3, 0.2, 0.9]])
def test_a_base_that_is_far_away_from_the_start_is_no_finding(distances: list[float]) -> None:
    assert names(run("train/kl_to_base", distances)) == []


@pytest.mark.parametrize(
    ("shares", "num_groups", "is_found"),
    [
        ([0.0], 8.0, True),
        ([0.0], 7.0, False),
        ([0.0] * 3, 2.0, False),
        ([0.0] * 4, 2.0, True),
        ([0.5] + [0.0] * 4, 1.0, False),
        ([0.5] + [0.0] * 5, 1.0, True),
        ([0.2] * 3, 5.0, False),
        ([0.2] * 4, 5.0, True),
        ([0.9, 0.2, 0.2, 0.2], 6.0, True),
        ([0.2, 0.2, 0.3], 8.0, True),
        ([0.25] * 3, 8.0, False),
    ],
)
def test_no_spread_takes_enough_groups(shares: list[float], num_groups: float, *, is_found: bool) -> None:
    assert names(run("reward/with_spread", shares, reward__num_groups=num_groups)) == ["no_spread"] * is_found


@pytest.mark.parametrize("rewards", [[0.1, 0.2, 0.3, 0.4] + [0.45] * 100, [0.3] * 20, [0.0] * 8, [42.0] * 8])
@pytest.mark.parametrize("spread", [{"reward/std": 0.0}, {"reward/std": 0.2}, {}])
def test_a_reward_that_stands_still_is_told_flat(rewards: list[float], spread: Metrics) -> None:
    assert names([{"reward/mean": reward} | spread for reward in rewards]) == ["reward_flat"]


def test_a_fall_that_lasts_is_found_at_the_end_of_a_long_run() -> None:
    assert names(rewarded([0.7, 0.8] * 10 + [0.2, 0.3] * 20)) == ["reward_falling"]


@pytest.mark.parametrize("changes", [{"train/gradient_norm": 0.0}, {"reward/with_spread": 0.0}])
def test_a_loss_of_zero_that_teaches_nothing_is_not_called_normal(changes: Metrics) -> None:
    assert "loss_near_zero" not in [finding.name for finding in findings([step(train__loss=0.0) | changes])]


def test_the_text_of_a_small_loss_holds_for_every_loss() -> None:
    (finding,) = findings(run("train/loss", [0.001], train__gradient_norm=0.15))
    assert "ratio" not in finding.text
    assert "(norm 0.15)" in finding.text


@pytest.mark.parametrize(
    "counts",
    [
        {"reward/num_excluded": 40.0},
        {"reward/num_excluded": 40.0, "train/num_trajectories_excluded": 36.0},
    ],
)
def test_no_more_attempts_are_excluded_than_there_are(counts: Metrics) -> None:
    (finding,) = findings([{"train/num_trajectories": 36.0} | counts])
    assert "36 of 36 attempts have no reward (100%)" in finding.text


@pytest.mark.parametrize(("name", "limit"), [("train/logprob_gap_mean", 0.03), ("train/mismatch_masked_fraction", 0.5)])
def test_a_limit_that_is_reached_is_a_finding(name: str, limit: float) -> None:
    assert len(names(run(name, [limit]))) == 1
    assert names(run(name, [limit - 0.001])) == []


def row(phase: str, number: int, metrics: Metrics) -> StepMetrics:
    return StepMetrics(run="r", phase=phase, step=number, time=float(number), metrics=metrics)


def test_a_program_that_only_imitates_has_its_findings_in_the_rows_of_that() -> None:
    skipped = [row("warmup", number, {"train/num_updates_skipped": 1.0, "train/num_examples": 4.0}) for number in (1, 2, 3)]
    (finding,) = findings(run_history(skipped))
    assert finding.name == "updates_skipped"
    assert "(3 in the run)" in finding.text


def test_training_steps_go_before_the_warm_start_and_its_probes_are_no_finding() -> None:
    probes = [row("warmup", number, {"rollout/executed": 0.0, "reward/with_spread": 0.0, "reward/num_groups": 8.0}) for number in (1, 2)]
    held_out = row("eval", 2, {"train/truncated_fraction": 1.0})
    assert findings(run_history([*probes, held_out])) == []
    assert run_history([*probes, row("train", 3, {"train/loss": 0.1})]) == [{"train/loss": 0.1}]


def test_the_saving_of_a_run_is_over_all_its_tokens() -> None:
    steps = [(300.0, 100.0), (100.0, 100.0)]
    history = [{"train/num_unpacked_tokens": unpacked, "train/num_computed_tokens": computed} for unpacked, computed in steps]
    assert packing_saving([*history, {"train/loss": 0.1}]) == 2.0
    assert packing_saving([{"train/loss": 0.0}]) is None
