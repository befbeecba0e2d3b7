"""The LoRA trainer: prefix-tree packed gradients on single-threaded workers, AdamW, exact save and resume.

A step is: pack, compute each micro-batch's gradient (in parallel, summed in order), clip by global norm, update. Gradients are sums over
loss terms divided once by the number of terms of the whole batch, so neither packing nor the split into micro-batches changes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from journeyman.errors import TrainingError
from journeyman.modeling.allocator import keep_freed_memory, return_freed_memory
from journeyman.modeling.base_models import BaseModel
from journeyman.modeling.devices import choose_num_workers
from journeyman.modeling.head import Head, token_logprobs
from journeyman.modeling.lora import adapter_tensors, add_lora, fingerprint, load_adapter, save_adapter
from journeyman.modeling.precision import choose_precision
from journeyman.modeling.weights import load_module, share_weights
from journeyman.trainer.base import OnProgress
from journeyman.trainer.losses.policy import k3, policy_loss
from journeyman.trainer.packing import PackedTree, micro_batches, pack
from journeyman.trainer.tree_layout import TreeLayout
from journeyman.trainer.workers import Workers
from journeyman.types.samples import TrainSample
from journeyman.types.settings import AdamSettings, Grpo, LoraSettings, Sft

Objective = Callable[[PackedTree, Tensor, Tensor], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class _Gradient:
    """The gradient of one micro-batch (a tensor a parameter) and sums of what is logged."""

    gradients: tuple[Tensor, ...]
    sums: dict[str, float]


class LoraTrainer:
    """Owns the LoRA weights and the optimiser of one model; see `journeyman.trainer.base.Trainer`."""

    def __init__(self, base: BaseModel, lora: LoraSettings, num_workers: int | None = None, precision: str = "auto") -> None:
        # Whatever is computed outside the workers (clipping, the update) must not start a second set of threads beside them.
        torch.set_num_threads(1)
        keep_freed_memory()
        module = load_module(base.folder, precision=choose_precision(precision))
        # The reference: the same tensors without adapters, in a module of its own so that workers can use both at once.
        self._reference = share_weights(module).get_decoder()  # type: ignore[operator]
        self._head = Head.of(module)
        self._model = add_lora(module, lora)
        self._model.eval()
        self._decoder = self._model.get_base_model().get_decoder()
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=0.0)
        self._workers = Workers(choose_num_workers(num_workers))
        self._step = 0

    @property
    def step(self) -> int:
        return self._step

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        started = time.perf_counter()
        groups = [trainable for group in groups if (trainable := [sample for sample in group if _is_trainable(sample)])]
        trees = micro_batches(groups, settings.tokens_per_micro_batch)
        metrics: dict[str, float] = {}
        num_terms = sum(len(tree.terms) for tree in trees)
        if num_terms:
            metrics["kl_to_base"] = self._kl_to_base(groups[0])
            with self._whole_or_nothing():
                metrics |= self._policy_updates(trees, num_terms, settings, on_progress)
            metrics["num_tokens"] = float(num_terms)
            metrics["num_computed_tokens"] = float(sum(len(tree.token_ids) for tree in trees))
            metrics["num_unpacked_tokens"] = float(sum(tree.num_unpacked_tokens for tree in trees))
        self._step += 1
        return_freed_memory()
        metrics["compute_seconds"] = time.perf_counter() - started
        return metrics

    def _policy_updates(self, trees: Sequence[PackedTree], num_terms: int, settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        metrics: dict[str, float] = {}
        base_logprobs = self._base_logprobs(trees, settings)
        for update in range(settings.updates):
            result = self._accumulate(
                trees,
                _policy_objective(settings, base_logprobs),
                lambda share, update=update: on_progress((update + share) / settings.updates),  # type: ignore[misc]
            )
            first = update == 0
            if first:
                _check_gap(result.sums["gap"] / num_terms, settings.max_logprob_gap)
            metrics |= _policy_metrics(result.sums, num_terms, first=first)
            metrics["gradient_norm"] = self._apply(result.gradients, num_terms, settings.learning_rate, settings.adam)
        return metrics

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        if not any(_is_trainable(sample) for sample in samples):
            raise TrainingError("no token to train on in these examples", hint="each example needs an assistant message with text")
        started = time.perf_counter()
        batches = _supervised_batches(samples, settings)
        total_loss = total_terms = 0.0
        norm = 0.0
        with self._whole_or_nothing():
            for index, batch in enumerate(batches):
                # A part for each worker: the drills' common prompt is computed that often, and every worker has something to do.
                parts = [batch[number :: self._workers.count] for number in range(self._workers.count)]
                trees = micro_batches([part for part in parts if part], settings.tokens_per_micro_batch)
                num_terms = sum(len(tree.terms) for tree in trees)
                result = self._accumulate(trees, _supervised_objective, lambda _: None)
                norm = self._apply(result.gradients, num_terms, settings.learning_rate, settings.adam)
                total_loss += result.sums["loss"]
                total_terms += num_terms
                on_progress((index + 1) / len(batches))
        self._step += 1
        return_freed_memory()
        return {
            "loss": total_loss / total_terms,
            "gradient_norm": norm,
            "num_tokens": total_terms,
            "num_updates": float(len(batches)),
            "compute_seconds": time.perf_counter() - started,
        }

    def logprobs(self, samples: Sequence[TrainSample]) -> list[list[float]]:
        """The current policy's log-probability of each sampled token, per sample (for checks; no gradient)."""
        out: list[list[float]] = [[] for _ in samples]
        with torch.no_grad():
            for tree in micro_batches([samples], 1 << 30):
                scored, _ = token_logprobs(self._hidden(tree), self._head, torch.tensor(tree.targets))
                for term in tree.terms:
                    out[term.sample].append(float(scored[term.scored]))
        return out

    def save_adapter(self, folder: Path) -> str:
        return save_adapter(self._model, folder)

    def save_state(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self._model, folder / "adapter")
        tensors: dict[str, Tensor] = {"step": torch.tensor(self._step)}
        for index, parameter in enumerate(self._parameters):
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{index}.{key}"] = torch.as_tensor(value).clone()
        save_file(tensors, str(folder / "optimizer.safetensors"))

    def load_state(self, folder: Path) -> None:
        load_adapter(self._model, folder / "adapter")
        tensors = load_file(str(folder / "optimizer.safetensors"))
        self._step = int(tensors.pop("step"))
        self._optimizer.state.clear()
        for name, tensor in tensors.items():
            index, key = name.split(".", 1)
            self._optimizer.state[self._parameters[int(index)]][key] = tensor

    def fingerprint(self) -> str:
        return fingerprint(adapter_tensors(self._model))

    def close(self) -> None:
        self._workers.close()

    def _hidden(self, tree: PackedTree, decoder: nn.Module | None = None) -> Tensor:
        """Hidden states that predict the scored tokens, [M, E]."""
        output = (decoder or self._decoder)(
            input_ids=torch.tensor([tree.token_ids]),
            position_ids=torch.tensor([tree.positions]),
            use_cache=False,
            layout=TreeLayout(tree),
        )
        return output.last_hidden_state[0][torch.tensor(tree.predictors, dtype=torch.long)]  # type: ignore[no-any-return]

    def _accumulate(self, trees: Sequence[PackedTree], objective: Objective, on_progress: OnProgress) -> _Gradient:
        done = 0

        def compute(numbered: tuple[int, PackedTree]) -> _Gradient:
            nonlocal done
            number, tree = numbered
            with torch.enable_grad():
                scored, entropy = token_logprobs(self._hidden(tree), self._head, torch.tensor(tree.targets))
                loss, sums = objective(tree, scored, entropy)
                gradients = torch.autograd.grad(loss, self._parameters)
            done += 1
            on_progress(done / len(trees))
            return _Gradient(gradients, {**sums, "tree": float(number)})

        # Largest first keeps the workers busy to the end; the sum is taken in the original order, so the result does not depend on it.
        order = sorted(range(len(trees)), key=lambda index: -len(trees[index].token_ids))
        results = dict(zip(order, self._workers.map(compute, [(index, trees[index]) for index in order]), strict=True))
        total = [torch.zeros_like(parameter) for parameter in self._parameters]
        sums: dict[str, float] = {}
        for index in range(len(trees)):
            for accumulated, gradient in zip(total, results[index].gradients, strict=True):
                accumulated.add_(gradient)
            for key, value in results[index].sums.items():
                sums[key] = max(sums.get(key, 0.0), value) if key.endswith("_max") else sums.get(key, 0.0) + value
        return _Gradient(tuple(total), sums)

    def _apply(self, gradients: Sequence[Tensor], num_terms: int, learning_rate: float, adam: AdamSettings) -> float:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient / num_terms
        norm = float(torch.nn.utils.get_total_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None]))
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise TrainingError(f"the gradient is not finite (norm {norm}); the update was not made", hint="lower the learning rate")
        torch.nn.utils.clip_grads_with_norm_(self._parameters, adam.max_gradient_norm, torch.tensor(norm))
        for group in self._optimizer.param_groups:
            group |= {
                "lr": learning_rate,
                "betas": (adam.beta1, adam.beta2),
                "eps": adam.epsilon,
                "weight_decay": adam.weight_decay,
            }
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """A step of several updates that fails in a later one takes the earlier ones back."""
        parameters = [parameter.detach().clone() for parameter in self._parameters]
        state = {key: {name: tensor.clone() for name, tensor in value.items()} for key, value in self._optimizer.state.items()}
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for parameter, before in zip(self._parameters, parameters, strict=True):
                    parameter.copy_(before)
            self._optimizer.state.clear()
            self._optimizer.state.update(state)
            raise

    def _kl_to_base(self, group: Sequence[TrainSample]) -> float:
        """k3 estimate per token, on two trajectories of one group: enough to see where it goes."""
        tree = pack(group[:2])

        def compute(decoder: nn.Module) -> Tensor:
            with torch.no_grad():
                return token_logprobs(self._hidden(tree, decoder), self._head, torch.tensor(tree.targets))[0]

        current, base = self._workers.map(compute, [self._decoder, self._reference])
        return float(k3(current, base).mean()) if len(tree.targets) else 0.0

    def _base_logprobs(self, trees: Sequence[PackedTree], settings: Grpo) -> dict[int, Tensor]:
        if settings.kl_coefficient == 0.0:
            return {}

        def compute(tree: PackedTree) -> Tensor:
            with torch.no_grad():
                return token_logprobs(self._hidden(tree, self._reference), self._head, torch.tensor(tree.targets))[0]

        return {id(tree): base for tree, base in zip(trees, self._workers.map(compute, trees), strict=True)}


def _policy_objective(settings: Grpo, base_logprobs: dict[int, Tensor]) -> Objective:
    def objective(tree: PackedTree, scored: Tensor, entropy: Tensor) -> tuple[Tensor, dict[str, float]]:
        index = torch.tensor([term.scored for term in tree.terms])
        old = torch.tensor([term.old_logprob for term in tree.terms], dtype=torch.float32)
        advantage = torch.tensor([term.advantage for term in tree.terms], dtype=torch.float32)
        base = base_logprobs.get(id(tree))
        result = policy_loss(
            scored[index],
            old,
            advantage,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            base_logprob_N=None if base is None else base[index],
            kl_coefficient=settings.kl_coefficient,
        )
        sums = {
            "loss": float(result.loss.detach()),
            "ratio": float(result.ratio),
            "clipped": float(result.clipped),
            "gap": float(result.gap),
            "gap_max": float(result.gap_max),
            "entropy": float(entropy[index].sum()),
        }
        return result.loss, sums

    return objective


def _supervised_objective(tree: PackedTree, scored: Tensor, entropy: Tensor) -> tuple[Tensor, dict[str, float]]:
    del entropy
    loss = -scored[torch.tensor([term.scored for term in tree.terms])].sum()
    return loss, {"loss": float(loss.detach())}


def _policy_metrics(sums: dict[str, float], num_terms: int, *, first: bool) -> dict[str, float]:
    metrics = {
        "loss": sums["loss"] / num_terms,
        "ratio_mean": sums["ratio"] / num_terms,
        "clip_fraction": sums["clipped"] / num_terms,
        "entropy": sums["entropy"] / num_terms,
    }
    if first:
        metrics |= {"logprob_gap_mean": sums["gap"] / num_terms, "logprob_gap_max": sums["gap_max"]}
    return metrics


def _is_trainable(sample: TrainSample) -> bool:
    """Whether it gives a loss term: a sampled token with something before it."""
    return any(sample.is_sampled[1:])


def _check_gap(gap: float, limit: float) -> None:
    if not gap <= limit:
        raise TrainingError(
            f"sampler and trainer disagree: mean |log-probability difference| {gap:.4f} is above max_logprob_gap {limit}; "
            "nothing was trained",
            hint="trajectories of older versions need a higher max_logprob_gap; otherwise the engine does not serve the trained weights",
        )


def _supervised_batches(samples: Sequence[TrainSample], settings: Sft) -> list[list[TrainSample]]:
    generator = torch.Generator().manual_seed(settings.seed)
    batches = []
    for _ in range(settings.epochs):
        order = torch.randperm(len(samples), generator=generator).tolist()
        for start in range(0, len(order), settings.batch_size):
            batch = [samples[index] for index in order[start : start + settings.batch_size] if _is_trainable(samples[index])]
            if batch:
                batches.append(batch)
    return batches
