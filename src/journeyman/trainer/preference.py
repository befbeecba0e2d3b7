"""One preference step: the reference's log-probabilities, batch after batch with its objective, and what is logged.

The reference is the base model, the same weights without the adapter: its log-probabilities are needed once a side, as a sum, which is
kept for later steps (`ReferenceSums`). Where a pair lies in several trees, these are scored once more without gradient before the update;
the sums are known then, and each tree gives its own part of the gradient.

Shapes: S sides (2p chosen, 2p + 1 rejected), P pairs of the batch, Q pairs of one tree, M scored positions of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from journeyman.trainer.base import OnProgress, SamplePair
from journeyman.trainer.batches import Skips, each_batch, shuffled_batches
from journeyman.trainer.bins import ALL_ALIKE
from journeyman.trainer.losses.preference import PairLoss, Side, preference_loss
from journeyman.trainer.objectives import Objective, Score, tree_counts
from journeyman.trainer.packing import PackedTree
from journeyman.trainer.pairs import PackedPairs, pack_pairs
from journeyman.types.settings import Dpo, needs_reference

# Trees, the summed loss of one of them, what the sums are divided by -> norm of the gradient, sums of what is logged.
Update = Callable[[Sequence[PackedTree], Objective, float], tuple[float, dict[str, float]]]
MAX_PAIRS_COMPARED = 32
_REFERENCES_FILE = "references.safetensors"


def name_of(pair: SamplePair) -> bytes:
    """What a pair is known by: a hash of the tokens of both sides, and which of them are compared."""
    sides = [[(sample.token_ids, sample.is_sampled) for sample in side] for side in (pair.chosen, pair.rejected)]
    return hashlib.sha256(repr(sides).encode()).digest()


class ReferenceSums:
    """The reference's log-probability of both sides of pairs, by name.

    They are part of a trainer's state: computed anew in other company they would differ by rounding, and a resumed run with them.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, float]] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def keep(self, name: bytes, chosen: float, rejected: float) -> None:
        self._known[name] = (chosen, rejected)

    def of(self, names: list[bytes]) -> Tensor:
        """The sums of these pairs, [pairs, 2]; all of them must be known."""
        return torch.tensor([self._known[name] for name in names])

    def save(self, folder: Path) -> None:
        path = folder / _REFERENCES_FILE
        if not self._known:
            path.unlink(missing_ok=True)
            return
        names = torch.tensor([list(name) for name in self._known], dtype=torch.uint8)
        save_file({"names": names, "sums": self.of(list(self._known))}, str(path))

    def load(self, folder: Path) -> None:
        """Those of a saved state in place of these; states of runs without pairs have none."""
        self._known = {}
        path = folder / _REFERENCES_FILE
        if path.is_file():
            tensors = load_file(str(path))
            for name, (chosen, rejected) in zip(tensors["names"].tolist(), tensors["sums"].tolist(), strict=True):
                self.keep(bytes(name), chosen, rejected)


@dataclass(frozen=True, slots=True)
class Computing:
    """What scoring pairs needs of the trainer: log-probabilities under the policy as it is now, and under the reference; how many trees
    are computed at a time, and up to how many tokens of one a gradient needs no second pass (`assign_bins`); and the reference's sums
    that are known from earlier steps."""

    score: Score
    score_reference: Score
    num_workers: int
    num_free_tokens: int | None
    known: ReferenceSums


def preference_updates(
    pairs: Sequence[SamplePair], settings: Dpo, computing: Computing, make_update: Update, on_progress: OnProgress, skips: Skips
) -> dict[str, float]:
    """All updates of a step on usable pairs; returns metrics: means per pair over all batches, each measured before its update.

    Raises NotFiniteError and TrainingError as `each_batch`; whoever calls takes back what was updated until then.
    """
    references = References(pairs, settings, computing)
    # A forward pass, of what is not known yet, beside the forward and backward passes of each epoch.
    share = references.share_unknown / (references.share_unknown + 3.0 * settings.epochs)
    if references.is_precomputed:
        references.precompute(lambda done: on_progress(share * done))

    def update(numbers: list[int]) -> dict[str, float]:
        batch = [pairs[number] for number in numbers]
        packed = pack_pairs(batch, settings.tokens_per_micro_batch, computing.num_workers, computing.num_free_tokens)
        reference_S = references.of(numbers, packed) if needs_reference(settings.loss) else None
        objective = PreferenceObjective(packed, settings, reference_S)
        objective.prepare(computing.score)
        norm, sums = make_update(packed.packed, objective, objective.divisor)
        return sums | tree_counts(packed.packed) | {"num_pairs_seen": float(packed.num_pairs), "gradient_norm": norm}

    batches = shuffled_batches(len(pairs), settings.batch_size, settings.epochs, settings.seed)
    updates = each_batch(batches, update, lambda done: on_progress(share + (1.0 - share) * done), skips)
    num_updates = {"num_updates": float(len(updates)), "num_updates_skipped": float(len(batches) - len(updates))}
    return _means(updates) | num_updates | _changes(pairs, references, settings, computing)


class References:
    """The reference's log-probability of both sides of each pair: computed once for the whole run, or each time they are asked for."""

    def __init__(self, pairs: Sequence[SamplePair], settings: Dpo, computing: Computing) -> None:
        self._pairs = pairs
        self._settings = settings
        self._computing = computing
        self._names = [name_of(pair) for pair in pairs] if self.is_precomputed else []
        self._known: Tensor | None = None  # [pairs of the step, 2]

    @property
    def is_precomputed(self) -> bool:
        return self._settings.reference == "precomputed" and needs_reference(self._settings.loss)

    @property
    def share_unknown(self) -> float:
        """How many of the pairs are still to be precomputed, as a share."""
        return len(self._unknown()) / len(self._pairs)

    def precompute(self, on_progress: OnProgress) -> None:
        """Score the pairs that were never scored before, a batch at a time."""
        unknown = self._unknown()
        for start in range(0, len(unknown), self._settings.batch_size):
            numbers = unknown[start : start + self._settings.batch_size]
            packed = self._packed(numbers)
            sums = packed.side_sums(self._computing.score_reference(packed.packed)).view(-1, 2).tolist()
            for number, (chosen, rejected) in zip(numbers, sums, strict=True):
                self._computing.known.keep(self._names[number], chosen, rejected)
            on_progress((start + len(numbers)) / len(unknown))
        self._known = self._computing.known.of(self._names)

    def _unknown(self) -> list[int]:
        """Numbers of the pairs to score: each of its name the first."""
        first = {name: number for number, name in reversed(list(enumerate(self._names))) if name not in self._computing.known}
        return sorted(first.values())

    def _packed(self, numbers: Sequence[int]) -> PackedPairs:
        pairs = [self._pairs[number] for number in numbers]
        return pack_pairs(pairs, self._settings.tokens_per_micro_batch, self._computing.num_workers, ALL_ALIKE)

    def of(self, numbers: Sequence[int], packed: PackedPairs) -> Tensor:
        """Sums of the sides of the pairs `numbers`, which `packed` holds in this order, [S]."""
        if self._known is not None:
            return self._known[list(numbers)].flatten()
        return packed.side_sums(self._computing.score_reference(packed.packed))

    def part(self, numbers: Sequence[int]) -> References:
        """Those of some of the pairs, numbered anew."""
        part = References([self._pairs[number] for number in numbers], self._settings, self._computing)
        part._known = None if self._known is None else self._known[list(numbers)]
        return part


class PreferenceObjective:
    """One update's loss; call `prepare` first, then the object itself for each tree.

    Args:
        reference_S: None for a loss without a reference.
    """

    def __init__(self, packed: PackedPairs, settings: Dpo, reference_S: Tensor | None) -> None:
        self._packed = packed
        self._settings = settings
        self._reference_S = reference_S
        self._known_S: Tensor | None = None
        self._mean_chosen_terms = float(packed.num_terms_S[0::2].sum()) / packed.num_pairs

    @property
    def divisor(self) -> float:
        """What the sums of loss and gradients over all trees are divided by."""
        return float(self._packed.num_pairs)

    def prepare(self, score: Score) -> None:
        """Compute the sums of pairs that lie in several trees."""
        is_split_P = self._packed.is_split_P
        if not bool(is_split_P.any()):
            return
        parts = [part for part in self._packed.trees if bool(is_split_P[part.pairs].any())]
        known_S = torch.zeros(self._packed.num_sides)
        for part, scored_M in zip(parts, score([part.tree for part in parts]), strict=True):
            known_S += part.side_sums(scored_M, self._packed.num_sides)
        self._known_S = torch.where(is_split_P.repeat_interleave(2), known_S, torch.nan)

    def __call__(self, number: int, scored_M: Tensor, entropy_M: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The summed loss of the pairs in tree `number`, and sums of what is logged."""
        del entropy_M
        part = self._packed.trees[number]
        sums_S = part.side_sums(scored_M, self._packed.num_sides)
        if self._known_S is not None:
            # The value is that of the whole side, the gradient flows through what lies in this tree.
            sums_S = torch.where(self._known_S.isnan(), sums_S, self._known_S + (sums_S - sums_S.detach()))
        chosen, rejected = (self._side(sums_S, 2 * part.pairs + place) for place in (0, 1))
        result = preference_loss(chosen, rejected, self._settings, self._mean_chosen_terms)
        sums = {name: float(values_Q[part.new_pairs].sum()) for name, values_Q in _readings(result).items()}
        return result.loss_P.sum(), sums

    def _side(self, sums_S: Tensor, at: Tensor) -> Side:
        reference_S = self._reference_S
        return Side(sums_S[at], self._packed.num_terms_S[at], None if reference_S is None else reference_S[at])


def measured_pairs(
    pairs: Sequence[SamplePair], settings: Dpo, computing: Computing, on_progress: OnProgress, references: References | None = None
) -> dict[str, float]:
    """What the pairs cost as things are, without training.

    Returns what an update logs; `ranked_right`, the share of pairs whose chosen side has the higher log-probability per token; and
    `chosen_logprob_change`, `rejected_logprob_change`, how much likelier than under the reference their tokens are, nats per token.

    Args:
        references: of these very pairs, where some are known already.
    """
    if references is None:
        references = References(pairs, settings, computing)
        if references.is_precomputed:
            references.precompute(lambda _: None)
    sums, reference_sums, counts = [], [], []
    for start in range(0, len(pairs), settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, len(pairs)))
        batch = pairs[numbers.start : numbers.stop]
        packed = pack_pairs(batch, settings.tokens_per_micro_batch, computing.num_workers, ALL_ALIKE)
        sums.append(packed.side_sums(computing.score(packed.packed)).view(-1, 2))
        reference_sums.append(references.of(numbers, packed).view(-1, 2))
        counts.append(packed.num_terms_S.view(-1, 2))
        on_progress(numbers.stop / len(pairs))
    logprob_P2, reference_P2, num_terms_P2 = torch.cat(sums), torch.cat(reference_sums), torch.cat(counts)
    chosen, rejected = (Side(logprob_P2[:, place], num_terms_P2[:, place], reference_P2[:, place]) for place in (0, 1))
    result = preference_loss(chosen, rejected, settings, float(num_terms_P2[:, 0].double().mean()))
    metrics = {name: float(values_P.mean()) for name, values_P in _readings(result).items()}
    metrics["ranked_right"] = float(((logprob_P2 / num_terms_P2).diff(dim=1) < 0).float().mean())
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        metrics[f"{name}_logprob_change"] = float(side.change().sum() / side.num_terms_P.sum())
    return metrics


def _changes(pairs: Sequence[SamplePair], references: References, settings: Dpo, computing: Computing) -> dict[str, float]:
    """How far some of the pairs, evenly taken, have moved from the reference."""
    numbers = range(0, len(pairs), -(-len(pairs) // MAX_PAIRS_COMPARED))
    chosen = [pairs[number] for number in numbers]
    measured = measured_pairs(chosen, settings, computing, lambda _: None, references.part(numbers))
    return {name: measured[name] for name in ("chosen_logprob_change", "rejected_logprob_change")}


def _readings(result: PairLoss) -> dict[str, Tensor]:
    """What is logged of each pair."""
    margin_P = result.chosen_reward_P - result.rejected_reward_P
    return {
        "loss": result.loss_P.detach(),
        "reward_chosen": result.chosen_reward_P,
        "reward_rejected": result.rejected_reward_P,
        "reward_margin": margin_P,
        "reward_accuracy": (margin_P > 0).float(),
    }


def _means(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Sums of the updates as means per pair; counts stay sums, and the norm is that of the last gradient."""
    total = {name: sum(update[name] for update in updates) for name in updates[0]}
    means = {name: value if name.startswith("num_") else value / total["num_pairs_seen"] for name, value in total.items()}
    return means | {"gradient_norm": updates[-1]["gradient_norm"]}
