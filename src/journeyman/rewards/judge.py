"""The judge protocol: whoever compares the attempts at one scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from journeyman.types.trajectory import Group


class Judge(Protocol):
    """Scores groups. Returns the same groups in the same order, each trajectory with `verdict` and `reward` set.

    A trajectory that cannot be scored keeps `reward=None` and gets a verdict with `score=None` that says why: a failure never
    becomes reward 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """One sentence: what the score means. Printed when a run starts."""
        ...

    async def score(self, groups: Sequence[Group]) -> list[Group]: ...
