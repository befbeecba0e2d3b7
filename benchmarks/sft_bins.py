"""How much best-fit bins save of a supervised batch, counted in tokens; nothing is computed, so the numbers are the same everywhere.

    python -m benchmarks.sft_bins

Compared with dealing a batch out to the workers one by one. "last worker": tokens until the last worker ends, over all batches.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Sequence

from journeyman.trainer.base import TrainSample
from journeyman.trainer.bins import fill_bins
from journeyman.trainer.objectives import supervised_batches
from journeyman.trainer.packing import pack
from journeyman.types.settings import Sft

_NUM_IDS = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| data | batch | workers | last worker | all tokens |\n|---|---|---|---|---|")
    for name, make in (("texts", texts), ("chats", chats)):
        samples = make(arguments.samples, random.Random(arguments.seed))
        for batch_size in (8, 32):
            for num_workers in (2, 4, 8):
                print(f"| {name} | {batch_size} | {num_workers} | {saving(samples, batch_size, num_workers, arguments.max_tokens)} |")


def texts(count: int, choose: random.Random) -> list[TrainSample]:
    """Texts with nothing in common, of lognormal lengths, 150 tokens in the middle."""
    return [_sample([], _draw(_length(choose, 5.0), choose)) for _ in range(count)]


def chats(count: int, choose: random.Random) -> list[TrainSample]:
    """Conversations under one of four system messages of 150 tokens, each asked once and answered at length or briefly."""
    systems = [_draw(150, choose) for _ in range(4)]
    return [_sample([*choose.choice(systems), *_draw(30, choose)], _draw(_length(choose, 4.5), choose)) for _ in range(count)]


def saving(samples: Sequence[TrainSample], batch_size: int, num_workers: int, max_tokens: int) -> str:
    """Both counts, dealt out and in bins, of all batches of an epoch."""
    totals = [0, 0, 0, 0]
    for batch in supervised_batches(samples, Sft(batch_size=batch_size)):
        parts = [batch[number::num_workers] for number in range(num_workers)]
        dealt = [size for part in parts for size in _in_order(part, max_tokens)]
        filled = [len(pack(part).token_ids) for part in fill_bins(batch, num_workers, max_tokens)]
        counts = (_last(dealt, num_workers), _last(filled, num_workers), sum(dealt), sum(filled))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    dealt_last, filled_last, dealt_all, filled_all = totals
    return (
        f"{dealt_last:,} → {filled_last:,} ({filled_last / dealt_last:.0%}) | {dealt_all:,} → {filled_all:,} ({filled_all / dealt_all:.0%})"
    )


def _in_order(samples: Sequence[TrainSample], max_tokens: int) -> list[int]:
    """Tokens of the trees when samples are taken in order, a new tree begun where one would hold more than `max_tokens`."""
    sizes: list[int] = []
    pending: list[TrainSample] = []
    for sample in samples:
        if pending and len(pack([*pending, sample]).token_ids) > max_tokens:
            sizes.append(len(pack(pending).token_ids))
            pending = []
        pending.append(sample)
    return [*sizes, len(pack(pending).token_ids)] if pending else sizes


def _last(sizes: Sequence[int], num_workers: int) -> int:
    """When the last worker ends if each free one takes the largest that is left."""
    loads = [0] * num_workers
    for size in sorted(sizes, reverse=True):
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)


def _sample(given: list[int], taught: list[int]) -> TrainSample:
    ids = (*given, *taught)
    return TrainSample(ids, (False,) * len(given) + (True,) * len(taught), (0.0,) * len(ids), 1.0)


def _draw(count: int, choose: random.Random) -> list[int]:
    return [choose.randrange(_NUM_IDS) for _ in range(count)]


def _length(choose: random.Random, mean: float) -> int:
    return max(2, min(2000, int(choose.lognormvariate(mean, 0.8))))


if __name__ == "__main__":
    main()
