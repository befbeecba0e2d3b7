"""Settings of `method: dpo`: learn from pairs of a better and a worse reply. Each default is written here or in `types/settings.py`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from journeyman.recipes.data_settings import DataSource
from journeyman.recipes.grpo_settings import ShortName, own_name
from journeyman.types.record import SettingsRecord
from journeyman.types.retention import Retention
from journeyman.types.settings import Dpo, LoraSettings, Seed


class DpoData(DataSource):
    """Pairs to learn from.

    `margin`: with `from_run`: the best attempt of a group against its worst, where their rewards differ by more than this.
    """

    margin: float = Field(default=0.1, ge=0.0)

    @model_validator(mode="after")
    def _of_a_run(self) -> Self:
        if self.from_run is None and self.margin != type(self).model_fields["margin"].default:
            raise ValueError("`margin` belongs to `from_run`")
        return self


class DpoTrain(SettingsRecord):
    """Everything about a run of `method: dpo`. Attributes are as those of `SftTrain`.

    Held-out pairs are measured without training: `heldout/loss`, `heldout/ranked_right` (the share whose chosen reply has the higher
    log-probability a token), `heldout/chosen_logprob_change` (it tells when DPO pushes the chosen replies down too), and others.
    """

    method: Literal["dpo"] = "dpo"
    name: ShortName = "model"
    base: str = "smollm2-135m"
    seed: Seed = 0
    data: DpoData
    lora: LoraSettings = LoraSettings()
    dpo: Dpo = Dpo()
    updates_per_step: int = Field(default=4, ge=1)
    steps: int | None = Field(default=None, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay_to: float = Field(default=0.1, gt=0.0, le=1.0)
    evaluate_every: int = Field(default=4, ge=1)
    retention: Retention = Retention(metric="heldout/loss", best_is="lowest")

    _own_name = model_validator(mode="after")(own_name)
