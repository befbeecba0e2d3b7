"""What of a run stays on disk. Not for what is in memory: the service unloads versions by its own rules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.types.record import Record


class Retention(Record):
    """Which checkpoints and adapters are kept; everything else is deleted after each step.

    Always kept, whatever is set here: the newest of both, the untrained adapter, the one at the end of the warm start, and every adapter
    that is loaded anywhere on this machine or pinned by an open rollout.

    Attributes:
        checkpoints: how many of the newest checkpoints stay (a checkpoint is about three times the size of an adapter).
        adapters: how many of the newest adapters stay.
        best: how many of the best of both stay, by `metric`; the newest wins a tie.
        metric: a metric of the steps, e.g. `train/reward_mean`, `reward/success` or `heldout/loss`.
        best_is: which of its values is the best: the highest, or the lowest (of a loss).
        every: the checkpoints and adapters of every n-th step stay too; 0 = off.
    """

    checkpoints: int = Field(default=3, ge=1)
    adapters: int = Field(default=16, ge=1)
    best: int = Field(default=1, ge=0)
    metric: str = "train/reward_mean"
    best_is: Literal["highest", "lowest"] = "highest"
    every: int = Field(default=0, ge=0)


class ServerSettings(Record):
    """Settings of a server that trains for its clients (`journeyman serve --set NAME=VALUE`)."""

    retention: Retention = Retention()
