"""The losses of policy and supervised steps over packed trees: terms, totals of the whole batch, what is logged of them.

Segments of one trajectory may lie in different trees. Where the policy loss needs a mean over a trajectory (GSPO, the geometric mask),
the trees of such trajectories are scored once more without gradient before each update; all others give their means in the pass itself.

Shapes: N terms of one tree, M scored positions of it, S sequences of the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from journeyman.trainer.base import OnProgress, TrainSample
from journeyman.trainer.batches import is_trainable, shuffled_batches
from journeyman.trainer.bins import ALL_ALIKE, fill_bins
from journeyman.trainer.losses.policy import Precomputed, gaps, log_ratios, policy_loss
from journeyman.trainer.losses.terms import BatchTotals, Terms, divisor, sequence_sums
from journeyman.trainer.packing import PackedTree, pack
from journeyman.types.losses import GeometricMask
from journeyman.types.settings import TOKENS_PER_MICRO_BATCH, Grpo, Sft, has_sequence_ratio

# Number of the tree, log-probabilities and entropies of its scored positions -> summed loss, sums of what is logged.
Objective = Callable[[int, Tensor, Tensor], tuple[Tensor, dict[str, float]]]
# Log-probabilities of each tree's scored positions, without gradient: M each, in the order of the trees asked for.
Score = Callable[[Sequence[PackedTree]], Sequence[Tensor]]
_SAMPLES_AT_A_TIME = 64


class PolicyObjective:
    """One step's loss; call `prepare` before each update, the object itself for each tree, `finish` after each update.

    Args:
        trees: the micro-batches; each sample has at least one term.
        base_logprobs: of the base model for each tree's scored positions; empty without a KL coefficient.
    """

    def __init__(self, trees: Sequence[PackedTree], settings: Grpo, base_logprobs: Sequence[Tensor] = ()) -> None:
        self._trees = trees
        self._settings = settings
        self._index = [torch.tensor([term.scored for term in tree.terms]) for tree in trees]
        self._base = [base[index] for base, index in zip(base_logprobs, self._index, strict=bool(base_logprobs))]
        self._terms, self.totals = _terms(trees)
        self._first: list[Tensor | None] = [None] * len(trees)
        self._seen: list[Tensor | None] = [None] * len(trees)
        self._spread = self._spread_sequences()
        self._log_ratio_S: Tensor | None = None
        self._gap_S: Tensor | None = None

    @property
    def divisor(self) -> float:
        """What the sums of loss and gradients over all trees are divided by."""
        return divisor(self._settings.loss, self.totals)

    def prepare(self, score: Score) -> None:
        """Compute the means of trajectories that lie in several trees, if the loss needs them."""
        if self._spread is None:
            return
        numbers = [number for number, terms in enumerate(self._terms) if bool(self._spread[terms.sequence_N].any())]
        log_ratio_S = torch.zeros(self.totals.num_sequences)
        gap_S = torch.zeros(self.totals.num_sequences)
        for number, scored_M in zip(numbers, score([self._trees[number] for number in numbers]), strict=True):
            logprob_N, terms = scored_M[self._index[number]], self._terms[number]
            first_N = self._first[number]
            ratio_N = log_ratios(logprob_N, terms, self._settings, first_N)
            gap_N = gaps(logprob_N if first_N is None else first_N, terms.sampling_logprob_N)
            log_ratio_S += sequence_sums(ratio_N, terms.sequence_N, self.totals)
            gap_S += sequence_sums(gap_N, terms.sequence_N, self.totals)
        unknown = torch.tensor(float("nan"))
        self._log_ratio_S = torch.where(self._spread, log_ratio_S / self.totals.num_terms_S, unknown)
        self._gap_S = torch.where(self._spread, gap_S / self.totals.num_terms_S, unknown)

    def __call__(self, number: int, scored_M: Tensor, entropy_M: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The summed loss of tree `number`, and sums of what is logged."""
        index = self._index[number]
        logprob_N = scored_M[index]
        self._seen[number] = logprob_N.detach()
        precomputed = Precomputed(
            first_logprob_N=self._first[number],
            base_logprob_N=self._base[number] if self._base else None,
            log_ratio_S=self._log_ratio_S,
            gap_S=self._gap_S,
        )
        result = policy_loss(logprob_N, entropy_M[index], self._terms[number], self._settings, self.totals, precomputed)
        return result.loss, result.sums

    def finish(self) -> None:
        """After an update: what was seen in the first one stays the policy before the step."""
        self._first = [seen if first is None else first for first, seen in zip(self._first, self._seen, strict=True)]

    def _spread_sequences(self) -> Tensor | None:
        """Which sequences have terms in several trees, [S]; None when there are none, or the loss needs no mean of a trajectory."""
        settings = self._settings
        if not (has_sequence_ratio(settings.loss) or isinstance(settings.mismatch, GeometricMask)):
            return None
        num_trees_S = torch.zeros(self.totals.num_sequences, dtype=torch.long)
        for terms in self._terms:
            num_trees_S += torch.bincount(terms.sequence_N, minlength=self.totals.num_sequences) > 0
        return num_trees_S > 1 if bool((num_trees_S > 1).any()) else None


def policy_metrics(sums: dict[str, float], objective: PolicyObjective, *, first: bool) -> dict[str, float]:
    """Sums over the whole batch as means per token. What compares sampler and trainer is only there for a step's first update."""
    num_terms = objective.totals.num_terms
    metrics = {
        "loss": sums["loss"] / objective.divisor,
        "ratio_mean": sums["ratio"] / num_terms,
        "clip_fraction": (sums["clipped_low"] + sums["clipped_high"]) / num_terms,
        "clip_fraction_low": sums["clipped_low"] / num_terms,
        "clip_fraction_high": sums["clipped_high"] / num_terms,
        "entropy": sums["entropy"] / num_terms,
    }
    if "kl_penalty" in sums:
        metrics["kl_penalty"] = sums["kl_penalty"] / num_terms
    if first:
        metrics |= {
            "logprob_gap_mean": sums["gap"] / num_terms,
            "logprob_gap_max": sums["gap_max"],
            "probability_gap_mean": sums["probability_gap"] / num_terms,
            "probability_gap_max": sums["probability_gap_max"],
            "mismatch_kl": sums["gap_k3"] / num_terms,
            "mismatch_masked_fraction": sums["masked"] / num_terms,
            "mismatch_truncated_fraction": sums["truncated_weights"] / num_terms,
            # (sum w)^2 / (N sum w^2) of the weights trainer / sampler: 1 when all are equal.
            "effective_sample_fraction": sums["weight"] ** 2 / (num_terms * sums["squared_weight"]),
        }
    return metrics


def _terms(trees: Sequence[PackedTree]) -> tuple[list[Terms], BatchTotals]:
    """Terms of each tree and the totals of all. Samples of one trajectory id are one sequence; a sample without id is its own."""
    number_of: dict[str, int] = {}
    groups: list[int] = []
    all_terms = []
    for tree in trees:
        numbers = []
        for sample in tree.samples:
            number = number_of.get(sample.trajectory_id, len(groups)) if sample.trajectory_id else len(groups)
            if number == len(groups):
                groups.append(sample.group)
                number_of[sample.trajectory_id] = number
            numbers.append(number)
        all_terms.append(
            Terms(
                torch.tensor([term.sampling_logprob for term in tree.terms], dtype=torch.float32),
                torch.tensor([term.advantage for term in tree.terms], dtype=torch.float32),
                torch.tensor([numbers[term.sample] for term in tree.terms]),
            )
        )
    counts_S = torch.bincount(torch.cat([terms.sequence_N for terms in all_terms]), minlength=len(groups))
    return all_terms, BatchTotals(counts_S, torch.tensor(groups))


def supervised_batches(samples: Sequence[TrainSample], settings: Sft) -> list[list[TrainSample]]:
    """Batches of all epochs, in a random order that `settings.seed` decides; samples without a term are left out."""
    numbers = shuffled_batches(len(samples), settings.batch_size, settings.epochs, settings.seed)
    batches = [[samples[index] for index in batch if is_trainable(samples[index])] for batch in numbers]
    return [batch for batch in batches if batch]


def supervised_loss(trees: Sequence[PackedTree]) -> Objective:
    """The sum of -log-probability over the terms of tree `number`; the caller divides by the terms of the whole batch."""

    def objective(number: int, scored_M: Tensor, entropy_M: Tensor) -> tuple[Tensor, dict[str, float]]:
        del entropy_M
        loss = -scored_M[torch.tensor([term.scored for term in trees[number].terms])].sum()
        return loss, {"loss": float(loss.detach())}

    return objective


def tree_counts(trees: Sequence[PackedTree]) -> dict[str, float]:
    """Loss terms, tokens computed, and tokens there would be without common beginnings."""
    return {
        "num_tokens": float(sum(len(tree.terms) for tree in trees)),
        "num_computed_tokens": float(sum(len(tree.token_ids) for tree in trees)),
        "num_unpacked_tokens": float(sum(tree.num_unpacked_tokens for tree in trees)),
    }


def supervised_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a step logs of its updates: the token mean of the loss, each batch's taken before its update."""
    totals = {name: sum(update[name] for update in updates) for name in ("loss", *tree_counts(()))}
    return totals | {
        "loss": totals["loss"] / totals["num_tokens"],
        "gradient_norm": updates[-1]["gradient_norm"],
        "num_updates": float(len(updates)),
    }


def measured_loss(samples: Sequence[TrainSample], score: Score, num_workers: int, on_progress: OnProgress) -> dict[str, float]:
    """The token mean of -log-probability of the sampled tokens, without training.

    Args:
        score: log-probabilities of each tree's scored positions, without gradient, M each.
    """
    usable = [sample for sample in samples if is_trainable(sample)]
    total = 0.0
    counts: Counter[str] = Counter()
    for start in range(0, len(usable), _SAMPLES_AT_A_TIME):
        chunk = usable[start : start + _SAMPLES_AT_A_TIME]
        trees = [pack(part) for part in fill_bins(chunk, num_workers, TOKENS_PER_MICRO_BATCH, ALL_ALIKE)]
        for tree, scored_M in zip(trees, score(trees), strict=True):
            total -= float(scored_M[torch.tensor([term.scored for term in tree.terms])].double().sum())
        counts.update(tree_counts(trees))
        on_progress(min((start + _SAMPLES_AT_A_TIME) / len(usable), 1.0))
    return dict(counts) | {"loss": total / counts["num_tokens"]}
