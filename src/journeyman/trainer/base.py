"""The trainer protocol: samples in, a better adapter out. Knows nothing of engines, chat, HTTP or the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from journeyman.types.settings import Dpo, Grpo, Sft, WhenTooLong


@dataclass(frozen=True, slots=True)
class TrainSample:
    """One segment: a run of token ids that grew only by exact extension.

    All four sequences have the same length. `is_sampled[t]` is True where the policy sampled the token (it is trained) and False
    where it was given. `logprobs[t]` is the sampler's log-probability of token t (0.0 where given). `advantage` holds for every
    sampled token of the segment. `trajectory_id` names where it came from: segments of one trajectory count as one. `group` is the
    number of its group within a batch of several.
    """

    token_ids: tuple[int, ...]
    is_sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    advantage: float
    trajectory_id: str = ""
    group: int = 0

    def __post_init__(self) -> None:
        if not len(self.token_ids) == len(self.is_sampled) == len(self.logprobs):
            raise ValueError("token_ids, is_sampled and logprobs differ in length")

    @property
    def num_sampled(self) -> int:
        return sum(self.is_sampled)


@dataclass(frozen=True, slots=True)
class SamplePair:
    """A preference: what was chosen and what was rejected, each as one sample or more (the segments of a trajectory).

    `name` says in messages which pair it is; advantages and old log-probabilities of the samples have no meaning here.
    """

    chosen: tuple[TrainSample, ...]
    rejected: tuple[TrainSample, ...]
    name: str = "a pair"

    @property
    def samples(self) -> tuple[TrainSample, ...]:
        return self.chosen + self.rejected


OnProgress = Callable[[float], None]


class Trainer(Protocol):
    """Owns the LoRA weights and the optimiser of one model. Methods block; call them from a worker thread.

    A step that cannot be computed raises TrainingError and leaves weights, optimiser and random state as they were.
    """

    @property
    def step(self) -> int:
        """Updates made so far; what `save_adapter` writes is `model@step`."""
        ...

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        """One GRPO step on groups whose samples already carry advantages; returns metrics without the `train/` prefix.

        An empty `groups` advances the step number and changes nothing else.
        """
        ...

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        """SFT over all samples: `settings.epochs` passes in batches of `settings.batch_size`, a step an optimiser update."""
        ...

    def preference_step(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        """Learn from all pairs: `settings.epochs` passes in batches of `settings.batch_size`, a step an optimiser update."""
        ...

    def measure_loss(self, samples: Sequence[TrainSample], when_too_long: WhenTooLong, on_progress: OnProgress) -> dict[str, float]:
        """The loss that `supervised_step` would see before its first update, over all samples, without training: `loss`, and counts."""
        ...

    def measure_pairs(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        """What `preference_step` would log of all pairs before its first update, without training; and how they rank."""
        ...

    def save_adapter(self, folder: Path) -> str:
        """Write the adapter in PEFT format and return its fingerprint (the one `Engine.load_adapter` computes)."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write everything that a resume needs: adapter, optimiser, step, random state."""
        ...

    def load_state(self, folder: Path) -> None: ...

    def close(self) -> None: ...
