"""Pack samples as a prefix tree: a token shared by several samples is computed once, forward and backward, at any depth.

Sequences are laid out as a compressed trie: each node is a run of tokens with one parent node. The flat row of all nodes' tokens is
one forward pass; a token attends to its ancestors' tokens and to those before it in its own node, and its position is its depth. The
hidden state that predicts a token is that of its predecessor *in the tree*. Where two samples sampled the same token after the same
prefix, its log-probability is computed once and used by a loss term of each.

Not for: choosing what to train on (samples), or the loss. Tree packing as in Tree Training (2602) and PrefixGrouper (2506.05433), but
over arbitrary depth and without padding or custom kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from journeyman.trainer.base import TrainSample


@dataclass(slots=True)
class Node:
    """A run of tokens `[start, end)` of the flat row; `parent` is an index into `PackedTree.nodes` or -1; `depth` its first position."""

    start: int
    end: int
    parent: int
    depth: int


@dataclass(frozen=True, slots=True)
class Term:
    """One loss term: sample `sample` sampled the token whose log-probability is number `scored`."""

    scored: int
    sample: int
    sampling_logprob: float
    advantage: float


@dataclass(frozen=True, slots=True)
class PackedTree:
    """One micro-batch.

    Attributes:
        token_ids, positions: the flat row, one entry a computed token.
        nodes: in an order where parents come before children.
        predictors, targets: for each scored position, the flat index whose hidden state predicts it, and the token id predicted.
        terms: the loss terms, in sample order.
        samples: what was packed; `Term.sample` is an index into it.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    nodes: tuple[Node, ...]
    predictors: tuple[int, ...]
    targets: tuple[int, ...]
    terms: tuple[Term, ...]
    samples: tuple[TrainSample, ...]

    @property
    def num_unpacked_tokens(self) -> int:
        return sum(len(sample.token_ids) for sample in self.samples)


@dataclass(slots=True)
class _Branch:
    tokens: tuple[int, ...]
    children: dict[int, _Branch] = field(default_factory=dict)
    start: int = 0


def pack(samples: Sequence[TrainSample]) -> PackedTree:
    """Lay `samples` out as one prefix tree."""
    roots: dict[int, _Branch] = {}
    for sample in samples:
        _insert(roots, sample.token_ids)
    token_ids, positions, nodes = _flatten(roots)
    predictors: list[int] = []
    targets: list[int] = []
    scored_at: dict[int, int] = {}
    terms: list[Term] = []
    for number, sample in enumerate(samples):
        flat = _locate(roots, sample.token_ids)
        for position in range(1, len(flat)):
            if not sample.is_sampled[position]:
                continue
            at = flat[position]
            if at not in scored_at:
                scored_at[at] = len(targets)
                predictors.append(flat[position - 1])
                targets.append(sample.token_ids[position])
            terms.append(Term(scored_at[at], number, sample.logprobs[position], sample.advantage))
    return PackedTree(tuple(token_ids), tuple(positions), tuple(nodes), tuple(predictors), tuple(targets), tuple(terms), tuple(samples))


def _insert(level: dict[int, _Branch], tokens: tuple[int, ...]) -> None:
    while tokens:
        branch = level.get(tokens[0])
        if branch is None:
            level[tokens[0]] = _Branch(tokens)
            return
        shared = common_length(branch.tokens, tokens)
        if shared < len(branch.tokens):
            tail = _Branch(branch.tokens[shared:], branch.children)
            branch.tokens, branch.children = branch.tokens[:shared], {tail.tokens[0]: tail}
        level, tokens = branch.children, tokens[shared:]


def common_length(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """How many leading tokens two sequences have in common."""
    limit = min(len(left), len(right))
    for index in range(limit):
        if left[index] != right[index]:
            return index
    return limit


def _flatten(roots: dict[int, _Branch]) -> tuple[list[int], list[int], list[Node]]:
    token_ids: list[int] = []
    positions: list[int] = []
    nodes: list[Node] = []
    stack = [(branch, -1, 0, False) for branch in reversed(roots.values())]
    while stack:
        branch, parent, depth, continues = stack.pop()
        branch.start = len(token_ids)
        token_ids.extend(branch.tokens)
        below = depth + len(branch.tokens)
        positions.extend(range(depth, below))
        # Where a sample merely ends, in the middle of another, nothing branches: a node of its own would only cut attention into pieces.
        if continues:
            nodes[parent].end = len(token_ids)
        else:
            nodes.append(Node(branch.start, len(token_ids), parent, depth))
        number = parent if continues else len(nodes) - 1
        stack.extend((child, number, below, len(branch.children) == 1) for child in reversed(branch.children.values()))
    return token_ids, positions, nodes


def _locate(roots: dict[int, _Branch], tokens: tuple[int, ...]) -> list[int]:
    """The flat index of each token of an inserted sequence."""
    return [index for branch in _path(roots, tokens) for index in range(branch.start, branch.start + len(branch.tokens))][: len(tokens)]


def _path(level: dict[int, _Branch], tokens: tuple[int, ...]) -> Iterator[_Branch]:
    """The branches that an inserted sequence consists of."""
    length = 0
    while length < len(tokens):
        branch = level[tokens[length]]
        yield branch
        length += len(branch.tokens)
        level = branch.children


def tree_runs(sequences: Sequence[tuple[int, ...]]) -> list[dict[int, int]]:
    """The runs of tokens that each sequence consists of in the prefix tree of all: where a run starts in the flat row -> its length.

    What two sequences have in common are their common runs.

    Example:
        >>> tree_runs([(1, 2, 3), (1, 2, 4, 5)])
        [{0: 2, 2: 1}, {0: 2, 3: 2}]
    """
    roots: dict[int, _Branch] = {}
    for sequence in sequences:
        _insert(roots, sequence)
    _flatten(roots)
    return [{branch.start: len(branch.tokens) for branch in _path(roots, sequence)} for sequence in sequences]
