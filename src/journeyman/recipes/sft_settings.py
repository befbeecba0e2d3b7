"""Settings of `method: sft`: imitate examples. Each default is written here or in `types/settings.py`, once."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from journeyman.recipes.data_settings import DataSource
from journeyman.recipes.grpo_settings import ShortName, own_name
from journeyman.types.record import SettingsRecord
from journeyman.types.retention import Retention
from journeyman.types.settings import LoraSettings, Seed, Sft


class SftData(DataSource):
    """Examples to imitate.

    Attributes:
        min_reward: with `from_run`: only attempts of at least this reward (rejection sampling).
        max_per_task: with `from_run`: the best so many attempts at one task.
    """

    min_reward: float = 1.0
    max_per_task: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _of_a_run(self) -> Self:
        for name in ("min_reward", "max_per_task"):
            if self.from_run is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` belongs to `from_run`")
        return self


class SftTrain(SettingsRecord):
    """Everything about a run of `method: sft`.

    Attributes:
        name: of the trained model; the file's name when not given.
        base: base model: a known name, a folder, or a Hugging Face id.
        seed: of the held-out examples and the order; `sft.seed` is of the order inside a step.
        sft: of each update. The learning rate rises over `warmup_steps` and falls in equal parts to `decay_to` of itself.
        updates_per_step: a step is so many updates; it is kept when it is done, and a run that was stopped goes on behind it.
        steps: stop after this many; None: all that `sft.epochs` passes over the data take.
        evaluate_every: the held-out loss is measured after every so many steps, before the first and after the last.
        retention: which checkpoints and adapters stay on disk; the best are those with the lowest held-out loss.
        heldout_replies: held-out conversations that base and trained model also answer, greedily; a reply counts when it is the example's.
        reply_tokens: of such a reply.
    """

    method: Literal["sft"] = "sft"
    name: ShortName = "model"
    base: str = "smollm2-135m"
    seed: Seed = 0
    data: SftData
    lora: LoraSettings = LoraSettings()
    sft: Sft = Sft()
    updates_per_step: int = Field(default=4, ge=1)
    steps: int | None = Field(default=None, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay_to: float = Field(default=0.1, gt=0.0, le=1.0)
    evaluate_every: int = Field(default=4, ge=1)
    retention: Retention = Retention(metric="heldout/loss", best_is="lowest")
    heldout_replies: int = Field(default=16, ge=0)
    reply_tokens: int = Field(default=96, ge=1)

    _own_name = model_validator(mode="after")(own_name)
