"""Train samples: token sequences as the trainer sees them, each token with its provenance; and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass


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
