"""Stands in for `journeyman` in tests of studies: `train FILE ... --seed N --home H --run R` leaves a result that the seed decides.

A file `fail-N` or `hang-N` beside the home folder makes the run of that seed fail, or wait for ever after noting its process id.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    given = {name: value for name, value in itertools.pairwise(words) if name.startswith("--")}
    seed, home = int(given["--seed"]), Path(given["--home"])
    beside = home.parent.parent
    with (beside / "started").open("a") as started:
        started.write(f"{seed}\n")
    if (beside / f"fail-{seed}").exists():
        sys.exit("there is no such gradient")
    if (beside / f"hang-{seed}").exists():
        (beside / "pid").write_text(str(os.getpid()))
        signal.pause()
    folder = home / "runs" / given["--run"]
    (folder / "report").mkdir(parents=True)
    (folder / "adapters").mkdir()
    steps = [{"reward/mean": 0.1 * seed + 0.2 * step, "train/seconds": 1.0} for step in range(3)]
    gained = 0.3 if "grpo.advantage=rank" in words else 0.25 if "grpo.loss=gspo" in words else 0.2
    final = {"train/reward_mean": 0.1 * seed + gained, "heldout/trained": 0.5}
    (folder / "report" / "result.json").write_text(json.dumps({"steps": steps, "final": final}))


if __name__ == "__main__":
    main(sys.argv[1:])
