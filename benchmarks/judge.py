"""How good is the judging, whatever the judge? `python -m benchmarks.judge [--quick]`: prints tables for docs/results.md.

A simulated judge with dials answers over real HTTP. Compared: (a) one call in fixed order, zipped by position; (b) one shuffled call by
id; (c) Ruler. Agreement with the true quality is Kendall's tau-b and the cosine of centred rewards; both are means over groups that got
rewards. Wrong: rewards further than 0.01 from the quality of their attempt, counted where the judge's only faults are those of form.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from benchmarks.judge_contenders import Contender, FixedOrder, Ours, Shuffled, make_group, quality_of
from benchmarks.judge_learning import learning_table
from benchmarks.simulated_judge import Dials, simulated_judge
from journeyman.rewards import RulerOptions

FORM = Dials(shuffles=True, missing=0.05, duplicate=0.05, out_of_range=0.05, prose=0.05, cut_off=0.05, refusal=0.02, busy=0.03, broken=0.03)
SETTINGS = {
    "perfect": Dials(),
    "noise 0.1": Dials(noise=0.1),
    "bias 0.4, noise 0.05": Dials(bias=0.4, noise=0.05),
    "drift 0.3, noise 0.1": Dials(drift=0.3, noise=0.1),
    "bias, drift and noise": Dials(bias=0.4, drift=0.3, noise=0.1),
    "ids in random order": Dials(shuffles=True),
    "faults of form": FORM,
}
MANY_FAULTS = Dials(
    shuffles=True, missing=0.15, duplicate=0.15, out_of_range=0.15, prose=0.05, cut_off=0.15, refusal=0.05, busy=0.05, broken=0.05
)
SIZES = (4, 8, 16)
TIMEOUT_SECONDS = 20.0
CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "a": lambda url: FixedOrder(url, TIMEOUT_SECONDS),
    "b": lambda url: Shuffled(url, TIMEOUT_SECONDS),
    "c": lambda url: Ours(url, TIMEOUT_SECONDS),
}


@dataclass
class Score:
    """What one contender did in one setting at one size."""

    tau: float
    cosine: float
    wrong: int
    abstained: int
    calls: float
    tokens: float


async def measure(name: str, dials: Dials, size: int, num_groups: int) -> Score:
    with simulated_judge(dials, seed=size) as tally:
        contender = CONTENDERS[name](tally.base_url)
        taus, cosines, wrong, abstained = [], [], 0, 0
        generator = random.Random(size)
        for seed in range(num_groups):
            group = make_group([generator.randrange(21) / 20 for _ in range(size)], seed)
            quality = quality_of(group)
            rewards = await contender.rewards(group)
            if any(reward is None for reward in rewards):
                abstained += 1
                continue
            given = [float(reward) for reward in rewards if reward is not None]
            taus.append(kendall(given, quality))
            cosines.append(cosine(given, quality))
            wrong += sum(abs(one - other) > 0.01 for one, other in zip(given, quality, strict=True))
        await contender.close()
    tokens = (tally.prompt_tokens + tally.completion_tokens) / num_groups
    return Score(mean(taus), mean(cosines), wrong, abstained, tally.requests / num_groups, tokens)


async def many_faults(num_faulty: int) -> str:
    """Ours against a judge that is wrong more often than right, until it gave so many faulty replies."""
    options = RulerOptions(cache=False, tie_width=0.0, min_spread=0.0)
    wrong = scored = abstained = groups = 0
    generator = random.Random(1)
    with simulated_judge(MANY_FAULTS, seed=1) as tally:
        ours = Ours(tally.base_url, TIMEOUT_SECONDS, options)
        while tally.faulty < num_faulty:
            batch = [make_group([generator.randrange(21) / 20 for _ in range(4)], groups + at, num_words=5) for at in range(16)]
            for group, rewards in zip(batch, await asyncio.gather(*[ours.rewards(one) for one in batch]), strict=True):
                pairs = [(reward, quality) for reward, quality in zip(rewards, quality_of(group), strict=True) if reward is not None]
                wrong += sum(abs(reward - quality) > 1e-6 for reward, quality in pairs)
                scored += len(pairs)
                abstained += not pairs
            groups += len(batch)
        await ours.close()
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(tally.kinds.items()))
    if wrong:
        raise SystemExit(f"{wrong} of {scored} rewards were given to the wrong attempt")
    return (
        f"{tally.faulty} faulty of {tally.requests} replies ({kinds}): {wrong} wrong assignments among {scored} rewards, {groups} groups, "
        f"{abstained} groups abstained"
    )


async def hanging_judge() -> str:
    """A judge that hangs now and then: the time limit and a retry, no wrong reward."""
    options = RulerOptions(cache=False, tie_width=0.0, min_spread=0.0)
    with simulated_judge(Dials(hangs=0.1, shuffles=True), seed=3) as tally:
        ours = Ours(tally.base_url, 0.5, options)
        batch = [make_group([at / 10, 0.5, 0.9 - at / 20], at) for at in range(10)]
        found = await asyncio.gather(*[ours.rewards(group) for group in batch])
        await ours.close()
    wrong = sum(
        reward is None or abs(reward - quality) > 1e-6
        for group, rewards in zip(batch, found, strict=True)
        for reward, quality in zip(rewards, quality_of(group), strict=True)
    )
    if wrong:
        raise SystemExit(f"{wrong} rewards were wrong or missing after calls that hung")
    return f"{tally.kinds.get('hangs', 0)} of {tally.requests} calls hung: {wrong} rewards wrong or missing"


def kendall(left: Sequence[float], right: Sequence[float]) -> float:
    """Tau-b."""
    concordant = ties_left = ties_right = 0.0
    pairs = list(combinations(range(len(left)), 2))
    for one, other in pairs:
        a, b = _sign(left[one] - left[other]), _sign(right[one] - right[other])
        concordant += a * b
        ties_left += a == 0
        ties_right += b == 0
    size = math.sqrt((len(pairs) - ties_left) * (len(pairs) - ties_right))
    return concordant / size if size else 0.0


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    one, other = [value - mean(left) for value in left], [value - mean(right) for value in right]
    size = math.sqrt(sum(value * value for value in one) * sum(value * value for value in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / size if size > 1e-12 else 0.0


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)


async def agreement_table(num_groups: int) -> str:
    lines = [
        "| judge | size | tau a / b / c | cosine a / b / c | abstained a/b/c | calls a / b / c | tokens c : a |",
        "|---|---|---|---|---|---|---|",
    ]
    wrong = []
    for setting, dials in SETTINGS.items():
        for size in SIZES:
            found = {name: await measure(name, dials, size, num_groups) for name in CONTENDERS}
            values = list(found.values())
            cells = [
                " / ".join(f"{one.tau:.3f}" for one in values),
                " / ".join(f"{one.cosine:.3f}" for one in values),
                " / ".join(str(one.abstained) for one in values),
                " / ".join(f"{one.calls:.1f}" for one in values),
                f"{found['c'].tokens / found['a'].tokens:.2f}",
            ]
            lines.append(f"| {setting} | {size} | {' | '.join(cells)} |")
            if dials.noise == dials.bias == dials.drift == 0.0:
                wrong.append(f"{setting}, {size}: " + " / ".join(str(one.wrong) for one in values))
    return "\n".join(lines) + f"\n\nWrong assignments a / b / c in {num_groups} groups: " + "; ".join(wrong)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure judging against a simulated judge.")
    parser.add_argument("--quick", action="store_true", help="few groups, for continuous integration")
    parser.add_argument("--parts", nargs="+", choices=("agreement", "faults", "hangs", "learning"), help="only these [default: all]")
    given = parser.parse_args()
    quick = given.quick
    parts: dict[str, Callable[[], Awaitable[str]]] = {
        "agreement": lambda: agreement_table(3 if quick else 20),
        "faults": lambda: many_faults(200 if quick else 10_000),
        "hangs": hanging_judge,
        "learning": lambda: learning_table(num_seeds=1 if quick else 2, num_steps=10 if quick else 30),
    }
    for name in given.parts or parts:
        started = time.perf_counter()
        print(f"\n## {name}\n\n{await parts[name]()}\n\n{time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
