"""A packed tree holds every prefix once, each token at its depth, and every loss term of every sample."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.trainer.base import TrainSample
from journeyman.trainer.packing import PackedTree, pack


@st.composite
def groups(draw: st.DrawFn) -> list[TrainSample]:
    """Sequences over three tokens, many of which grow out of one another, with any tokens sampled."""
    token = st.integers(0, 2)
    sequences: list[list[int]] = []
    for _ in range(draw(st.integers(1, 6))):
        parent = draw(st.sampled_from(sequences)) if sequences else []
        kept = draw(st.integers(0, len(parent)))
        sequences.append(parent[:kept] + draw(st.lists(token, min_size=0 if kept else 1, max_size=6)))
    samples = []
    for number, ids in enumerate(sequences):
        sampled = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        logprobs = tuple(-0.01 * (100 * number + index) for index in range(len(ids)))
        samples.append(TrainSample(tuple(ids), tuple(sampled), logprobs, float(number)))
    return samples


def ancestors(tree: PackedTree, node: int) -> tuple[int, ...]:
    """Indexes of the node's ancestors, root first, without itself."""
    parent = tree.nodes[node].parent
    return () if parent < 0 else (*ancestors(tree, parent), parent)


def prefix_of_each_token(tree: PackedTree) -> list[tuple[int, ...]]:
    """The token ids on the way from the root to each flat position, that position included."""
    out: list[tuple[int, ...]] = []
    for number, node in enumerate(tree.nodes):
        above = [token for index in ancestors(tree, number) for token in tree.token_ids[tree.nodes[index].start : tree.nodes[index].end]]
        out.extend((*above, *tree.token_ids[node.start : end + 1]) for end in range(node.start, node.end))
    return out


def prefixes_of(samples: list[TrainSample]) -> set[tuple[int, ...]]:
    return {sample.token_ids[:end] for sample in samples for end in range(1, len(sample.token_ids) + 1)}


def terms_of(samples: list[TrainSample]) -> Counter[tuple[tuple[int, ...], float, float]]:
    """(prefix up to and with the sampled token, old log-probability, advantage) of every trainable token."""
    return Counter(
        (sample.token_ids[: index + 1], sample.logprobs[index], sample.advantage)
        for sample in samples
        for index in range(1, len(sample.token_ids))
        if sample.is_sampled[index]
    )


def terms_in(tree: PackedTree) -> Counter[tuple[tuple[int, ...], float, float]]:
    prefixes = prefix_of_each_token(tree)
    return Counter(
        ((*prefixes[tree.predictors[term.scored]], tree.targets[term.scored]), term.sampling_logprob, term.advantage) for term in tree.terms
    )


@given(groups())
def test_every_distinct_prefix_is_computed_exactly_once(samples: list[TrainSample]) -> None:
    tree = pack(samples)
    prefixes = prefix_of_each_token(tree)
    assert len(prefixes) == len(tree.token_ids)
    assert Counter(prefixes) == Counter(prefixes_of(samples))
    assert tree.num_unpacked_tokens == sum(len(sample.token_ids) for sample in samples)


@given(groups())
def test_a_token_stands_at_its_depth(samples: list[TrainSample]) -> None:
    tree = pack(samples)
    assert list(tree.positions) == [len(prefix) - 1 for prefix in prefix_of_each_token(tree)]


@given(groups())
def test_nodes_tile_the_row_and_parents_come_first(samples: list[TrainSample]) -> None:
    tree = pack(samples)
    assert [node.start for node in tree.nodes[1:]] == [node.end for node in tree.nodes[:-1]]
    for number, node in enumerate(tree.nodes):
        path = ancestors(tree, number)
        assert all(index < number for index in path)
        assert node.depth == sum(tree.nodes[index].end - tree.nodes[index].start for index in path)
        assert (path[-1] if path else -1) == node.parent


@given(groups())
def test_each_sampled_token_is_a_term_predicted_by_what_stands_before_it(samples: list[TrainSample]) -> None:
    tree = pack(samples)
    assert terms_in(tree) == terms_of(samples)
    assert len(set(zip(tree.predictors, tree.targets, strict=True))) == len(tree.targets), "no log-probability is computed twice"
    assert [term.sample for term in tree.terms] == sorted(term.sample for term in tree.terms)


@given(groups())
def test_a_node_ends_where_something_branches_and_not_where_a_sample_ends(samples: list[TrainSample]) -> None:
    tree = pack(samples)
    assert 1 not in Counter(node.parent for node in tree.nodes if node.parent >= 0).values()


def test_samples_that_are_beginnings_of_another_make_one_node() -> None:
    ids = tuple(range(20))
    tree = pack([TrainSample(ids[:end], (False, *[True] * (end - 1)), (0.0,) * end, 1.0) for end in (5, 20, 12)])
    assert [(node.start, node.end, node.parent) for node in tree.nodes] == [(0, 20, -1)]
    assert [len([term for term in tree.terms if term.sample == number]) for number in range(3)] == [4, 19, 11]


def test_the_first_token_of_a_sequence_is_never_a_term() -> None:
    tree = pack([TrainSample((5, 6), (True, True), (-1.0, -2.0), 1.0)])
    assert [(tree.predictors, tree.targets, len(tree.terms))] == [((0,), (6,), 1)]


def test_a_sample_of_uneven_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        TrainSample((1, 2), (True,), (0.0, 0.0), 1.0)
