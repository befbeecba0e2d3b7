"""Which values belong to training and which are held out. Deterministic by seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.scenarios.pools import Pool, canonical
from journeyman.types.scenarios import Split

_SMALL_POOL = 6


@dataclass(frozen=True, slots=True)
class ValueSplit:
    """Sides of values. A value of a small or closed pool has no side: there, whole calls are split instead.

    A value has one side wherever it occurs: a number held out for one parameter is not trained on in another.
    """

    sides: dict[str, Split]
    seed: int
    heldout_share: float

    def values(self, pool: Pool, side: Split) -> list[Any]:
        """The pool's good values that calls of a side may use."""
        if is_shared(pool):
            return list(pool.good)
        return [value for value in pool.good if self.sides.get(canonical(value)) == side]

    def side_of_call(self, key: str) -> Split:
        """Side of a call none of whose values has a side."""
        digest = hashlib.sha256(f"{self.seed} {key}".encode()).digest()
        return "heldout" if int.from_bytes(digest[:4], "big") / 2**32 < self.heldout_share else "train"


def is_shared(pool: Pool) -> bool:
    """Both sides use the pool's values: the schema lists them all, or there are too few to split."""
    return pool.is_closed or len(pool.good) < _SMALL_POOL


def split_values(pools: Sequence[Pool], seed: int, heldout_share: float) -> ValueSplit:
    """Give every good value of the large pools a side, `heldout_share` of each pool held out."""
    sides: dict[str, Split] = {}
    for number, pool in enumerate(pools):
        if is_shared(pool):
            continue
        keys = [canonical(value) for value in pool.good]
        free = [key for key in keys if key not in sides]
        random.Random(f"{seed} {number}").shuffle(free)
        num_heldout = round(heldout_share * len(keys)) - sum(sides.get(key) == "heldout" for key in keys)
        for index, key in enumerate(free):
            sides[key] = "heldout" if index < num_heldout else "train"
    return ValueSplit(sides, seed, heldout_share)
