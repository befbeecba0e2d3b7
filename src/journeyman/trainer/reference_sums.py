"""What the reference says of pairs that were scored before: its weights never change, so the sums of a pair hold for the whole run.

Not for computing them: `preference.py`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from journeyman.types.samples import SamplePair

_FILE = "references.safetensors"


def name_of(pair: SamplePair) -> bytes:
    """What a pair is known by: a hash of the tokens of both sides, and which of them are compared."""
    sides = [[(one.token_ids, one.is_sampled) for one in side] for side in (pair.chosen, pair.rejected)]
    return hashlib.sha256(repr(sides).encode()).digest()


class ReferenceSums:
    """The reference's log-probability of both sides of pairs, by name.

    They are part of a trainer's state: computed anew in other company they would differ by rounding, and a resumed run with them.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, float]] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def keep(self, name: bytes, chosen: float, rejected: float) -> None:
        self._known[name] = (chosen, rejected)

    def of(self, names: list[bytes]) -> Tensor:
        """The sums of these pairs, [pairs, 2]; all of them must be known."""
        return torch.tensor([self._known[name] for name in names])

    def save(self, folder: Path) -> None:
        path = folder / _FILE
        if not self._known:
            path.unlink(missing_ok=True)
            return
        names = torch.tensor([list(name) for name in self._known], dtype=torch.uint8)
        save_file({"names": names, "sums": self.of(list(self._known))}, str(path))

    def load(self, folder: Path) -> None:
        """Those of a saved state in place of these; states of runs without pairs have none."""
        self._known = {}
        path = folder / _FILE
        if path.is_file():
            found = load_file(str(path))
            for name, (chosen, rejected) in zip(found["names"].tolist(), found["sums"].tolist(), strict=True):
                self.keep(bytes(name), chosen, rejected)
