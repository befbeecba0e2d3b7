"""However pairs are laid out, every trained token of a side is summed once, and every pair is new_pairs once."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_sample

from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.trainer.pairs import pack_pairs


@st.composite
def samples(draw: st.DrawFn) -> TrainSample:
    """Few different tokens, so that beginnings are often shared; at least one trained token with something before it."""
    ids = draw(st.lists(st.integers(3, 5), min_size=2, max_size=30))
    num_given = draw(st.integers(1, len(ids) - 1))
    return make_sample(ids, num_given, given=draw(st.sets(st.integers(num_given, len(ids) - 1), max_size=len(ids) - num_given - 1)))


sides = st.lists(samples(), min_size=1, max_size=3).map(tuple)
pairs_of_any_kind = st.lists(st.builds(SamplePair, sides, sides), min_size=1, max_size=5)


def value(token: int, position: int) -> float:
    return token + 10.0 * position


def expected(side: tuple[TrainSample, ...]) -> tuple[float, int]:
    values = [
        value(token, position)
        for sample in side
        for position, token in enumerate(sample.token_ids)
        if position and sample.is_sampled[position]
    ]
    return sum(values), len(values)


@settings(max_examples=60, deadline=None)
@given(pairs_of_any_kind, st.sampled_from([1, 8, 25, 60, 1000]), st.integers(1, 4))
def test_sums_over_sides_do_not_depend_on_the_layout(pairs: list[SamplePair], max_tokens: int, num_parts: int) -> None:
    packed = pack_pairs(pairs, max_tokens, num_parts)
    scored = [
        torch.tensor([value(target, tree.positions[at] + 1) for at, target in zip(tree.predictors, tree.targets, strict=True)])
        for tree in packed.packed
    ]
    wanted = [expected(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    assert list(zip(packed.side_sums(scored).tolist(), packed.num_terms_S.tolist(), strict=True)) == wanted
    new_pairs = torch.cat([one.pairs[one.new_pairs] for one in packed.trees])
    assert sorted(new_pairs.tolist()) == list(range(len(pairs)))
    present = torch.cat([one.pairs for one in packed.trees])
    assert packed.is_split_P.tolist() == [bool((present == number).sum() > 1) for number in range(len(pairs))]
