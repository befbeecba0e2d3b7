"""Greedy tokens of a torch model under transformers' own attention: what the probes of an export are answered with. Not for sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from journeyman.export.probes import NUM_TOKENS, Probe


@torch.inference_mode()
def answer(module: nn.Module, prompts: Sequence[tuple[int, ...]], stop_ids: Sequence[int]) -> tuple[Probe, ...]:
    """The greedy answers of a model that runs transformers' own attention, of up to `NUM_TOKENS` tokens, stop token included."""
    return tuple(_answer_one(module, prompt, frozenset(stop_ids)) for prompt in prompts)


def _answer_one(module: nn.Module, prompt: tuple[int, ...], stop_ids: frozenset[int]) -> Probe:
    reply: list[int] = []
    gaps: list[float] = []
    cache = None
    ids = list(prompt)
    while len(reply) < NUM_TOKENS and not (reply and reply[-1] in stop_ids):
        out = module(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = out.logits[0, -1].float().topk(2)
        reply.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        ids = reply[-1:]
    return Probe(prompt, tuple(reply), tuple(gaps))


@torch.inference_mode()
def preferred(module: nn.Module, probe: Probe) -> list[int]:
    """What a model prefers at each token of a probe's answer, given the answer so far."""
    ids = [*probe.prompt_ids, *probe.reply_ids[:-1]]
    logits_TV = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, len(probe.prompt_ids) - 1 :]
    choice: list[int] = logits_TV.float().argmax(dim=-1).tolist()
    return choice
