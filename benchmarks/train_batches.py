"""The batches, and the plain Hugging Face + PEFT path, that the training benchmarks measure the trainer against."""

from __future__ import annotations

import argparse
import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from journeyman.modeling.lora import add_lora
from journeyman.trainer.base import TrainSample
from journeyman.types.settings import AdamSettings, Grpo, LoraSettings

_QUICK = {"groups": 1, "attempts": 4, "prompt_tokens": 64, "tokens": 8}
# Token ids are drawn below it.
_NUM_IDS = 40_000
# With beta1 = 0 and no clipping the optimiser's first moment is the gradient itself. Unknown old log-probabilities: the ratio is 1.
SETTINGS = Grpo(learning_rate=1e-9, adam=AdamSettings(beta1=0.0, max_gradient_norm=1e9))


def batch_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that say which batch is computed; read them with `parse_batch`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--attempts", type=int, default=8, help="in a group; they share its prompt")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64, help="new ones of an attempt")
    parser.add_argument("--rows-at-once", type=int, default=8, help="of the padded path, which is given one group at a time")
    parser.add_argument("--quick", action="store_true", help="1 group x 4, prompt 64, 8 new tokens: does it run?")
    return parser


def parse_batch(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    if arguments.quick:
        vars(arguments).update(_QUICK)
    return arguments


def batch_of(arguments: argparse.Namespace) -> list[list[TrainSample]]:
    return make_groups(arguments.groups, arguments.attempts, arguments.prompt_tokens, arguments.tokens)


def make_groups(num_groups: int, group_size: int, num_prompt: int, num_new: int, seed: int = 0) -> list[list[TrainSample]]:
    """Attempts of one turn: each group has a prompt of its own, each attempt its own new tokens and an advantage."""
    uniform = random.Random(seed)

    def draw(count: int) -> list[int]:
        return [uniform.randrange(100, _NUM_IDS) for _ in range(count)]

    is_sampled = (False,) * num_prompt + (True,) * num_new
    logprobs = (0.0,) * num_prompt + (math.nan,) * num_new
    groups = []
    for _ in range(num_groups):
        prompt = draw(num_prompt)
        advantages = [uniform.uniform(-1.5, 1.5) for _ in range(group_size)]
        groups.append([TrainSample((*prompt, *draw(num_new)), is_sampled, logprobs, advantage) for advantage in advantages])
    return groups


def plain_model(base: Path, adapter: Path | None) -> Any:
    """The base as transformers loads it, with its own attention, and the adapter as PEFT loads it (a new one if None), in float32."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="sdpa")
    if adapter is None:
        return add_lora(model, LoraSettings()).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=True).eval()


def plain_gradients(model: Any, groups: Sequence[Sequence[TrainSample]], *, rows_at_once: int) -> list[Tensor]:
    """The gradient of the token mean of -advantage * ratio at ratio 1: padded rows, logits of every position, autograd.

    Rows are right-padded; padding comes after every trained token, so causal attention needs no mask for it.
    """
    samples = [sample for group in groups for sample in group]
    num_terms = sum(sample.num_sampled for sample in samples)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for start in range(0, len(samples), rows_at_once):
        rows = samples[start : start + rows_at_once]
        length = max(len(sample.token_ids) for sample in rows)
        ids_BT = torch.tensor([[*sample.token_ids, *[0] * (length - len(sample.token_ids))] for sample in rows])
        weight_BT = torch.zeros(ids_BT.shape)
        for row, sample in enumerate(rows):
            weight_BT[row, : len(sample.token_ids)] = torch.tensor(sample.is_sampled) * sample.advantage
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].float()
        logprob_BT = torch.log_softmax(logits_BTV, dim=-1).gather(2, ids_BT[:, 1:, None])[:, :, 0]
        loss = -(logprob_BT * weight_BT[:, 1:]).sum() / num_terms
        for summed, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            summed.add_(gradient)
    return total
