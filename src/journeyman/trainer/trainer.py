"""The LoRA trainer: prefix-tree packed gradients on single-threaded workers, AdamW, exact save and resume.

A step is: pack, compute each micro-batch's gradient (in parallel, summed in order), clip by global norm, update. Gradients are sums over
loss terms divided once by what is counted over the whole batch, so neither packing nor the split into micro-batches changes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from journeyman.errors import StoreError, TrainingError
from journeyman.modeling.base_models import BaseModel
from journeyman.modeling.devices import choose_num_workers, return_freed_memory
from journeyman.modeling.gradient_checkpointing import LayerCheckpoints
from journeyman.modeling.head import Head, token_logprobs
from journeyman.modeling.lora import adapter_tensors, add_lora, fingerprint, load_adapter, save_adapter
from journeyman.modeling.precision import choose_precision
from journeyman.modeling.weights import context_length, load_module, share_weights
from journeyman.trainer.base import OnProgress, SamplePair, TrainSample
from journeyman.trainer.batches import Skips, each_batch, fitting, is_trainable, num_batches
from journeyman.trainer.bins import fill_bins
from journeyman.trainer.losses.policy import kl_terms
from journeyman.trainer.micro_batches import GradientSum, Workers, together
from journeyman.trainer.objectives import (
    Objective,
    PolicyObjective,
    measured_loss,
    policy_metrics,
    supervised_batches,
    supervised_loss,
    supervised_metrics,
    tree_counts,
)
from journeyman.trainer.optimizer import LoraOptimizer, NotFiniteError, global_norm
from journeyman.trainer.packing import PackedTree, pack
from journeyman.trainer.pairs import usable_pairs
from journeyman.trainer.preference import Computing, ReferenceSums, measured_pairs, preference_updates
from journeyman.trainer.tree_attention import TreeLayout
from journeyman.types.settings import Checkpointing, Dpo, Grpo, LoraSettings, Sft, WhenTooLong

MAX_NAMED = 4


class LoraTrainer:
    """Owns the LoRA weights and the optimiser of one model; see `journeyman.trainer.base.Trainer`."""

    def __init__(self, base: BaseModel, lora: LoraSettings, num_workers: int | None = None, precision: str = "auto") -> None:
        # Whatever is computed outside the workers (clipping, the update) must not start a second set of threads beside them.
        torch.set_num_threads(1)
        module = load_module(base.folder, precision=choose_precision(precision))
        # The reference: the same tensors without adapters, in a module of its own so that workers can use both at once.
        self._reference = share_weights(module).get_decoder()  # type: ignore[operator]
        self._head = Head.of(module)
        self._model = add_lora(module, lora)
        self._model.eval()
        self._decoder = self._model.get_base_model().get_decoder()
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = LoraOptimizer(self._parameters)
        self._workers = Workers(choose_num_workers(num_workers))
        self._checkpoints = LayerCheckpoints(self._model, self._workers.count)
        self._context_length = context_length(module)
        self._skips = Skips()
        self._known = ReferenceSums()
        self._step = 0

    @property
    def step(self) -> int:
        return self._step

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        started = time.perf_counter()
        fitted, num_too_long = fitting(groups, self._context_length, settings.when_too_long)
        chosen = [trainable for group in fitted if (trainable := [sample for sample in group if is_trainable(sample)])]
        trees = self._policy_trees(chosen, settings)
        metrics: dict[str, float] = {"num_trajectories_too_long": float(num_too_long)}
        if trees:
            metrics["kl_to_base"] = self._kl_to_base(chosen[0])
            metrics |= self._whole_step(settings.updates, lambda: self._policy_updates(trees, settings, on_progress), on_progress)
            metrics |= tree_counts(trees)
        self._step += 1
        return_freed_memory()
        metrics["compute_seconds"] = time.perf_counter() - started
        return metrics

    def _policy_trees(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo) -> list[PackedTree]:
        """The micro-batches of a step: what groups have in common (a system prompt, tools) is computed once for all in a micro-batch."""
        return self._trees([replace(sample, group=number) for number, group in enumerate(groups) for sample in group], settings)

    def _trees(self, samples: Sequence[TrainSample], settings: Grpo | Sft) -> list[PackedTree]:
        free = self._checkpoints.free_tokens(settings.gradient_checkpointing)
        return [pack(part) for part in fill_bins(samples, self._workers.count, settings.tokens_per_micro_batch, free)]

    def _whole_step(self, num_updates: int, make_updates: Callable[[], dict[str, float]], on_progress: OnProgress) -> dict[str, float]:
        """All that `make_updates` does, or nothing of it when the gradient it ends with is not finite."""
        in_a_row = self._skips.in_a_row
        try:
            with self._optimizer.whole_or_nothing():
                metrics = make_updates()
        except NotFiniteError as error:
            # Sound updates that are taken back with it do not count: else jobs that all end like this would never stop.
            self._skips.in_a_row = max(in_a_row, self._skips.in_a_row)
            self._skips.skip(f"step {self._step + 1}", error)
            on_progress(1.0)
            return {"num_updates_skipped": float(num_updates), "num_skipped_in_a_row": float(self._skips.in_a_row)}
        except BaseException:
            self._skips.in_a_row = in_a_row
            raise
        self._skips.forget()
        return {"num_updates_skipped": 0.0} | metrics | {"num_skipped_in_a_row": 0.0}

    def _policy_updates(self, trees: Sequence[PackedTree], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        metrics: dict[str, float] = {}
        base_logprobs = self._score(trees, self._reference) if settings.kl_coefficient > 0.0 else []
        objective = PolicyObjective(trees, settings, base_logprobs)
        for update in range(settings.updates):
            objective.prepare(self._score)
            result = self._accumulate(
                trees,
                objective,
                lambda share, update=update: on_progress((update + share) / settings.updates),  # type: ignore[misc]
                checkpointing=settings.gradient_checkpointing,
                entropy_gradient=settings.entropy_bonus > 0.0,
            )
            measured = policy_metrics(result.sums, objective, first=update == 0)
            if update == 0:
                _check_gap(measured["logprob_gap_mean"], settings.max_logprob_gap)
            metrics |= measured
            metrics["gradient_norm"] = self._optimizer.apply(result.gradients, objective.divisor, settings.learning_rate, settings.adam)
            objective.finish()
        return metrics

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        fitted, num_too_long = self._learnable(samples, settings.when_too_long)
        started = time.perf_counter()
        batches = supervised_batches(fitted, settings)

        def make_updates() -> dict[str, float]:
            updates = each_batch(batches, lambda batch: self._supervised_update(batch, settings), on_progress, self._skips)
            return supervised_metrics(updates) | {"num_updates_skipped": float(len(batches) - len(updates))}

        metrics = self._whole_step(len(batches), make_updates, on_progress)
        self._step += 1
        return_freed_memory()
        return metrics | {
            "num_examples_too_long": float(num_too_long),
            "compute_seconds": time.perf_counter() - started,
        }

    def _supervised_update(self, batch: Sequence[TrainSample], settings: Sft) -> dict[str, float]:
        """One optimiser update; the norm of its gradient, the summed loss and counts."""
        trees = self._trees(batch, settings)
        counts = tree_counts(trees)
        norm, sums = self._update(settings, trees, supervised_loss(trees), counts["num_tokens"])
        return sums | counts | {"gradient_norm": norm}

    def measure_loss(self, samples: Sequence[TrainSample], when_too_long: WhenTooLong, on_progress: OnProgress) -> dict[str, float]:
        fitted, num_too_long = self._learnable(samples, when_too_long)
        metrics = measured_loss(fitted, self._score, self._workers.count, on_progress)
        return_freed_memory()
        return metrics | {"num_examples_too_long": float(num_too_long)}

    def _learnable(self, samples: Sequence[TrainSample], when_too_long: WhenTooLong) -> tuple[list[TrainSample], int]:
        """The samples that fit the context, and how many do not. Raises TrainingError when none of them has a token to learn."""
        (fitted,), num_too_long = fitting([samples], self._context_length, when_too_long)
        if not any(is_trainable(sample) for sample in fitted):
            hint = "each example needs an assistant message with text"
            raise TrainingError("no token to train on in these examples", hint=hint, reason="no_trained_token")
        return fitted, num_too_long

    def preference_step(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        usable, num_too_long = usable_pairs(pairs, self._context_length, settings.when_too_long)
        started = time.perf_counter()

        computing, update = self._computing(settings), partial(self._update, settings)
        metrics = self._whole_step(
            num_batches(len(usable), settings.batch_size, settings.epochs),
            lambda: preference_updates(usable, settings, computing, update, on_progress, self._skips),
            on_progress,
        )
        self._step += 1
        return_freed_memory()
        return metrics | {"num_pairs_too_long": float(num_too_long), "compute_seconds": time.perf_counter() - started}

    def measure_pairs(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        usable, num_too_long = usable_pairs(pairs, self._context_length, settings.when_too_long)
        metrics = measured_pairs(usable, settings, self._computing(settings), on_progress)
        return_freed_memory()
        return metrics | {"num_pairs_too_long": float(num_too_long)}

    def _computing(self, settings: Dpo) -> Computing:
        free = self._checkpoints.free_tokens(settings.gradient_checkpointing)
        return Computing(self._score, lambda trees: self._score(trees, self._reference), self._workers.count, free, self._known)

    def _update(
        self, settings: Sft | Dpo, trees: Sequence[PackedTree], objective: Objective, divisor: float
    ) -> tuple[float, dict[str, float]]:
        """One optimiser update; the norm of its gradient and sums of what is logged."""
        result = self._accumulate(trees, objective, lambda _: None, checkpointing=settings.gradient_checkpointing)
        return self._optimizer.apply(result.gradients, divisor, settings.learning_rate, settings.adam), result.sums

    def logprobs(self, samples: Sequence[TrainSample]) -> list[list[float]]:
        """The current policy's log-probability of each sampled token, per sample (for checks; no gradient)."""
        out: list[list[float]] = [[] for _ in samples]
        tree = pack(samples)
        (scored,) = self._score([tree])
        for term in tree.terms:
            out[term.sample].append(float(scored[term.scored]))
        return out

    def save_adapter(self, folder: Path) -> str:
        return save_adapter(self._model, folder)

    def save_state(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self._model, folder / "adapter")
        counts = {"step": torch.tensor(self._step), "skipped_in_a_row": torch.tensor(self._skips.in_a_row)}
        save_file(counts | self._optimizer.tensors(), str(folder / "optimizer.safetensors"))
        self._known.save(folder)

    def load_state(self, folder: Path) -> None:
        """What `save_state` wrote. Raises StoreError, AdapterError for what cannot be read; then another state must be loaded."""
        load_adapter(self._model, folder / "adapter")
        try:
            tensors = load_file(str(folder / "optimizer.safetensors"))
            self._step = int(tensors.pop("step"))
            # States written before steps could be skipped do not have the count.
            self._skips = Skips(int(tensors.pop("skipped_in_a_row", torch.tensor(0))))
            self._optimizer.load(tensors)
            self._known.load(folder)
        except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
            raise StoreError(
                f"the trainer's state in {folder} cannot be read: {type(error).__name__}: {error}",
                hint="go on from another checkpoint; docs/resume.md says what is done with damaged ones",
            ) from error

    def fingerprint(self) -> str:
        return fingerprint(adapter_tensors(self._model))

    def close(self) -> None:
        self._workers.close()

    def _hidden(self, tree: PackedTree, decoder: nn.Module | None = None, checkpointing: Checkpointing = False) -> Tensor:
        """Hidden states that predict the scored tokens, [M, E]."""
        output = (decoder or self._decoder)(
            input_ids=torch.tensor([tree.token_ids]),
            position_ids=torch.tensor([tree.positions]),
            use_cache=False,
            layout=TreeLayout(tree),
            **(self._checkpoints.keywords(len(tree.token_ids), checkpointing) if torch.is_grad_enabled() else {}),
        )
        return output.last_hidden_state[0][torch.tensor(tree.predictors, dtype=torch.long)]  # type: ignore[no-any-return]

    def _accumulate(
        self,
        trees: Sequence[PackedTree],
        objective: Objective,
        on_progress: OnProgress,
        *,
        checkpointing: Checkpointing,
        entropy_gradient: bool = False,
    ) -> GradientSum:
        total = GradientSum(self._parameters)

        def compute(number: int) -> None:
            tree = trees[number]
            with torch.enable_grad():
                targets = torch.tensor(tree.targets)
                hidden = self._hidden(tree, checkpointing=checkpointing)
                scored, entropy = token_logprobs(hidden, self._head, targets, entropy_gradient=entropy_gradient)
                loss, sums = objective(number, scored, entropy)
                gradients = together(torch.autograd.grad(loss, self._parameters))
            on_progress(total.add(number, gradients, sums) / len(trees))

        # Largest first keeps the workers busy to the end; the sum is taken in the original order, so the result does not depend on it.
        self._workers.map(compute, sorted(range(len(trees)), key=lambda index: -len(trees[index].token_ids)))
        if not math.isfinite(global_norm(total.gradients)):
            raise NotFiniteError(self._not_finite(trees, total.not_finite), hint="lower the learning rate, or look at what is named here")
        return total

    def _score(self, trees: Sequence[PackedTree], decoder: nn.Module | None = None) -> list[Tensor]:
        """Log-probabilities of each tree's scored positions, [M] each, without gradient."""
        return self._workers.map(lambda tree: self._scored(tree, decoder or self._decoder), trees)

    def _scored(self, tree: PackedTree, decoder: nn.Module) -> Tensor:
        with torch.no_grad():
            return token_logprobs(self._hidden(tree, decoder), self._head, torch.tensor(tree.targets))[0]

    def _not_finite(self, trees: Sequence[PackedTree], numbers: Set[int]) -> str:
        """Which micro-batches gave a gradient that is not finite, by the trajectories in them that are the cause: those with a term
        that is not finite, else those with the largest advantages. All of them when only their sum is too large."""
        bad = [trees[number] for number in sorted(numbers)] or trees
        samples: list[TrainSample] = []
        for tree, scored_M in zip(bad, self._score(bad), strict=True):
            causes = {term.sample for term in tree.terms if not math.isfinite(float(scored_M[term.scored]) * term.advantage)}
            samples += [tree.samples[number] for number in sorted(causes)] or sorted(
                tree.samples, key=lambda sample: -abs(sample.advantage)
            )
        ids = list(dict.fromkeys(sample.trajectory_id or "a sample" for sample in samples))
        names = ", ".join(ids[:MAX_NAMED]) + (f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else "")
        return f"the gradient is not finite in {len(bad)} of {len(trees)} micro-batches (with {names}); the update was not made"

    def _kl_to_base(self, group: Sequence[TrainSample]) -> float:
        """k3 estimate per token, on two trajectories of one group: enough to see where it goes."""
        names = list(dict.fromkeys(sample.trajectory_id or str(number) for number, sample in enumerate(group)))[:2]
        tree = pack([sample for number, sample in enumerate(group) if (sample.trajectory_id or str(number)) in names])
        current, base = self._workers.map(lambda decoder: self._scored(tree, decoder), [self._decoder, self._reference])
        return float(kl_terms(current, base).mean()) if len(tree.targets) else 0.0


def _check_gap(gap: float, limit: float) -> None:
    if not gap <= limit:
        raise TrainingError(
            f"sampler and trainer disagree: mean |log-probability difference| {gap:.4f} is above max_logprob_gap {limit}; "
            "nothing was trained",
            hint="trajectories of older versions need a higher max_logprob_gap; otherwise the engine does not serve the trained weights",
        )
