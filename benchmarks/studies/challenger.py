"""Which variant runs beside the default where all would take too long: the best of a study that compared them all. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.studies.cells import DEFAULT, Study, cells
from benchmarks.studies.rows import Row, newest


@dataclass(frozen=True, slots=True)
class Challenger:
    """The best variant that is not the default, and the mean over `seeds` that it was chosen by."""

    name: str
    mean: float
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (mean {self.mean:.3f} over seeds {', '.join(map(str, self.seeds))})"


def best_challenger(study: Study, rows: Sequence[Row]) -> Challenger | None:
    """The variant with the best first measure over the seeds that all challengers of `study` have finished.

    None while there is no such seed: means over different seeds compare seeds, not variants.
    """
    measure, _ = study.measures[0]
    found: dict[str, dict[int, float]] = {variant.name: {} for variant in study.variants if variant.name != DEFAULT}
    for cell in cells(study, sorted({row.seed for row in rows}), tuple(found)):
        row = newest(rows, cell)
        if row is not None and measure in row.final:
            found[cell.variant.name][cell.seed] = row.final[measure]
    seeds = tuple(sorted(set.intersection(*(set(values) for values in found.values()))))
    if not seeds:
        return None
    means = {name: math.fsum(values[seed] for seed in seeds) / len(seeds) for name, values in found.items()}
    best = max(means, key=means.__getitem__)
    return Challenger(best, means[best], seeds)
