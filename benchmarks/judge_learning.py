"""Does a policy learn from the judge alone? GRPO on a task small enough for seconds, the true reward for comparison.

The policy is a table of logits (scenario, place, letter); an attempt draws a word of letters, and its quality is the share of letters
that are right. Advantages are those of training (`trainer.advantages`); the gradient is written out here, because no network is involved.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from benchmarks.judge_contenders import TASK, Contender, FixedOrder, Ours, Shuffled, make_attempt
from benchmarks.simulated_judge import Dials, simulated_judge
from journeyman.trainer.advantages import batch_advantages
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group

LETTERS = "abcdef"
NUM_SCENARIOS, NUM_PLACES, GROUP_SIZE, LEARNING_RATE = 4, 4, 8, 0.8
NOISE = {
    "bias 0.8, noise 0.1": Dials(bias=0.8, noise=0.1),
    "bias 0.8, drift 0.3, noise 0.25": Dials(bias=0.8, drift=0.3, noise=0.25),
    "ids in random order, noise 0.1": Dials(noise=0.1, shuffles=True),
}


class TruthItself:
    """The true reward."""

    async def rewards(self, group: Group) -> list[float | None]:
        return [int((one.answer or "0").rpartition("mark ")[2].rstrip(".")) / 100 for one in group]

    async def close(self) -> None: ...


async def learn(judge: Contender, num_steps: int, seed: int) -> float:
    """True mean reward of the last fifth of the steps."""
    generator = random.Random(seed)
    targets = [[generator.choice(LETTERS) for _ in range(NUM_PLACES)] for _ in range(NUM_SCENARIOS)]
    logits = [[[0.0] * len(LETTERS) for _ in range(NUM_PLACES)] for _ in range(NUM_SCENARIOS)]
    history = []
    for step in range(num_steps):
        total = 0.0
        for at, target in enumerate(targets):
            chances = [_softmax(row) for row in logits[at]]
            words = [[generator.choices(LETTERS, row)[0] for row in chances] for _ in range(GROUP_SIZE)]
            quality = [sum(a == b for a, b in zip(word, target, strict=True)) / NUM_PLACES for word in words]
            total += sum(quality) / GROUP_SIZE / NUM_SCENARIOS
            attempts = tuple(
                make_attempt(f"{step}-{at}-{index}", f"I say {''.join(word)}, mark {round(100 * worth)}.", "ok")
                for index, (word, worth) in enumerate(zip(words, quality, strict=True))
            )
            if len(set(map(tuple, words))) == 1:
                continue  # all alike: nothing to compare, for nobody
            rewards = await judge.rewards(Group(scenario=Scenario(id=str(at), task=TASK), trajectories=attempts))
            _update(logits[at], chances, words, batch_advantages([rewards], "zscore").groups[0])
        history.append(total)
    last = history[-max(1, num_steps // 5) :]
    return sum(last) / len(last)


def _update(
    logits: list[list[float]], chances: Sequence[Sequence[float]], words: Sequence[Sequence[str]], advantages: list[float] | None
) -> None:
    """One policy-gradient step; None: no spread, nothing to learn."""
    for word, advantage in zip(words, advantages or (), strict=False):
        for place, letter in enumerate(word):
            for index, other in enumerate(LETTERS):
                gradient = float(other == letter) - chances[place][index]
                logits[place][index] += LEARNING_RATE * advantage * gradient / GROUP_SIZE


def _softmax(row: Sequence[float]) -> list[float]:
    top = max(row)
    values = [math.exp(value - top) for value in row]
    return [value / sum(values) for value in values]


async def learning_table(num_seeds: int, num_steps: int) -> str:
    """Mean true reward at the end, for the true reward and each contender as the only reward."""
    lines = ["| judge | true reward | a | b | c | c of true |", "|---|---|---|---|---|---|"]
    truth = [await learn(TruthItself(), num_steps, seed) for seed in range(num_seeds)]
    for name, dials in NOISE.items():
        means = []
        for make in (FixedOrder, Shuffled, Ours):
            found = []
            for seed in range(num_seeds):
                with simulated_judge(dials, seed) as tally:
                    judge = make(tally.base_url, 20.0)
                    found.append(await learn(judge, num_steps, seed))
                    await judge.close()
            means.append(sum(found) / num_seeds)
        true = sum(truth) / num_seeds
        lines.append(f"| {name} | {true:.3f} | {' | '.join(f'{value:.3f}' for value in means)} | {means[-1] / true:.0%} |")
    return "\n".join(lines)
