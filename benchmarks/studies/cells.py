"""Which studies there are: their variants, the numbers that they compare and the curves that they draw. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from journeyman.recipes.methods import find_file, load_recipe

DEFAULT: Final = "default"
"""The variant that the others of a study are compared with, where there is one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train: a settings file (a path, or the name of a shipped one) and what is changed in it."""

    name: str
    file: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a study's picture: a metric over the steps, for some variants; `<metric>_before` of a run's end is step 0."""

    title: str
    metric: str
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared.

    Attributes:
        measures: final numbers of a run by name, with words for them; variants are compared by the first that they have.
        challenger_of: a study that has the same variants; only the best of those is run beside the default here. Empty: all are run.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    measures: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    challenger_of: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study."""

    variant: Variant
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.variant.name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """All settings of the run, defaults included. Raises SettingError and InputError."""
        return load_recipe(find_file(Path(self.variant.file)), self.overrides, {"seed": self.seed}).model_dump(mode="json")


def cells(study: Study, seeds: Sequence[int], only: Sequence[str] = (), extra: Sequence[str] = ()) -> list[Cell]:
    """The runs of a study, seed by seed: when it is stopped early all variants have as many seeds. `extra` are overrides for all."""
    chosen = [variant for variant in study.variants if not only or variant.name in only]
    return [Cell(variant, seed, (*variant.overrides, *extra)) for seed in seeds for variant in chosen]


SHARES: Final = frozenset(
    {
        *("reward/mean", "reward/success", "reward/with_spread", "train/reward_accuracy"),
        *("train/reward_mean", "train/reward_last", "heldout/warm", "heldout/trained"),
        *("heldout/ranked_right", "heldout/ranked_right_before"),
    }
)
"""Metrics of a step, and measures of a run, that lie between 0 and 1 in every study."""

_LOSSES: Final = ("grpo", "dr_grpo", "bnpo", "cispo", "gspo")
_ADVANTAGES: Final = ("mean", "rank", "rloo", "batch_std")


def _challengers(file: str) -> tuple[Variant, ...]:
    """Each loss with the default advantage and each advantage with the default loss. The default itself (dapo, zscore) is none."""
    return (
        *(Variant(loss, file, (f"grpo.loss={loss}",)) for loss in _LOSSES),
        *(Variant(advantage, file, (f"grpo.advantage={advantage}",)) for advantage in _ADVANTAGES),
    )


YES_NO_MAYBE: Final = Study(
    name="yes_no_maybe",
    title="Yes, no, maybe: losses and advantages",
    variants=(Variant(DEFAULT, "yes_no_maybe.yaml"), *_challengers("yes_no_maybe.yaml")),
    measures=(
        ("train/reward_mean", "reward, mean of all steps"),
        ("train/reward_last", "reward, last 5 steps"),
        ("heldout/trained", "held-out reward"),
    ),
    panels=(
        Panel("losses, advantage zscore", "reward/mean", (DEFAULT, *_LOSSES)),
        Panel("advantages, loss dapo", "reward/mean", (DEFAULT, *_ADVANTAGES)),
    ),
)

MCP: Final = Study(
    name="mcp",
    title="A 135M model learns to use the time server",
    variants=(Variant(DEFAULT, "mcp.yaml"), *_challengers("mcp.yaml")),
    measures=(
        ("heldout/trained", "held-out success"),
        ("heldout/gain", "gain over base"),
        ("heldout/warm", "after the warm start"),
        ("heldout/gain_by_rl", "gain by RL"),
    ),
    panels=(Panel("success of training attempts", "reward/success", (DEFAULT, *_LOSSES, *_ADVANTAGES)),),
    challenger_of="yes_no_maybe",
)

RECIPES: Final = Study(
    name="recipes",
    title="The other recipes",
    variants=(Variant("r1_zero", "r1_zero.yaml"), Variant("sft", "sft.yaml"), Variant("dpo", "dpo.yaml")),
    measures=(
        ("heldout/trained", "held-out score"),
        ("heldout/gain", "gain over base"),
        ("heldout/loss_before", "held-out loss before"),
        ("heldout/loss", "held-out loss"),
        ("heldout/ranked_right_before", "held-out pairs ranked right before"),
        ("heldout/ranked_right", "held-out pairs ranked right"),
    ),
    panels=(
        Panel("r1_zero: reward", "reward/mean", ("r1_zero",)),
        Panel("sft: training loss", "train/loss", ("sft",)),
        Panel("sft: held-out loss", "heldout/loss", ("sft",)),
        Panel("dpo: training pairs, margin above 0", "train/reward_accuracy", ("dpo",)),
        Panel("dpo: held-out pairs ranked right", "heldout/ranked_right", ("dpo",)),
    ),
)

# In this order: the challenger of the second is the best of the first.
STUDIES: Final = {study.name: study for study in (YES_NO_MAYBE, MCP, RECIPES)}
