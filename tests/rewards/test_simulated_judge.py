"""Against a judge that is wrong more often than right, over real HTTP: what is assigned is right, or nothing is."""

from __future__ import annotations

from benchmarks.judge import Dials, measure, simulated_judge
from benchmarks.judge_contenders import Ours, make_group, quality_of

from journeyman.rewards import RulerOptions


async def test_faulty_replies_never_assign_a_wrong_score() -> None:
    bad = Dials(
        shuffles=True, missing=0.15, duplicate=0.15, out_of_range=0.15, prose=0.1, cut_off=0.15, refusal=0.05, busy=0.05, broken=0.05
    )
    scored = 0
    with simulated_judge(bad, seed=2) as tally:
        ours = Ours(tally.base_url, 20.0, RulerOptions(cache=False, tie_width=0.0, min_spread=0.0))
        for seed in range(10):
            group = make_group([0.1, 0.4, 0.6, 0.95], seed, num_words=5)
            for reward, quality in zip(await ours.rewards(group), quality_of(group), strict=True):
                assert reward is None or abs(reward - quality) < 1e-6
                scored += reward is not None
        await ours.close()
    assert tally.faulty > 20
    assert scored >= 8


async def test_a_biased_judge_is_read_better_in_mirrored_places_than_in_one_order() -> None:
    biased = Dials(bias=0.4, noise=0.05)
    fixed, ours = await measure("a", biased, 8, 6), await measure("c", biased, 8, 6)
    assert ours.cosine > fixed.cosine
    assert ours.tokens <= 2.2 * fixed.tokens


async def test_a_judge_without_faults_is_read_exactly() -> None:
    found = await measure("c", Dials(), 8, 3)
    assert (found.tau, found.wrong, found.abstained) == (1.0, 0, 0)
