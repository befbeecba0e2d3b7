"""Load a written export again, as its users will, and compare it with the version it came from.

Raises AdapterError for what is wrong beyond rounding; the export is then removed by whoever writes it. GGUF files are compared in
`gguf_check.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from journeyman.errors import AdapterError
from journeyman.export.probes import NUM_TOKENS, Agreement, Probe, compare, conversations, plain_message
from journeyman.export.version import Version
from journeyman.modeling.base_models import load_tokenizer, quiet_libraries
from journeyman.modeling.weights import load_module

FLOORS: Final = {"bfloat16": 0.9, "f16": 0.9, "q8_0": 0.75}
"""The least share of equal greedy tokens, by what weights were rounded to: rounding turns close choices now and then, a shuffled or
misread tensor most of them. 8 bits round more, and llama.cpp rounds what flows through the layers to 8 bits too."""

_HINT = "nothing was kept of this export; please report this with the run's base model and the versions that `journeyman doctor` shows"


def check_peft(version: Version, folder: Path, probes: Sequence[Probe]) -> Agreement:
    """The adapter in `folder` on the base model, through PEFT, in float32. Raises AdapterError unless the greedy tokens are identical."""
    from peft import PeftModel

    base: Any = load_module(version.base.folder)
    base.set_attn_implementation("sdpa")
    with warnings.catch_warnings():
        # peft asks transformers for a property under the name it had before; nothing a user could act on.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    _check_tokenizer(version, folder)
    return _must_agree(model, probes, "adapter")


def check_merged(version: Version, folder: Path, probes: Sequence[Probe], *, is_exact: bool) -> Agreement:
    """The model in `folder` through transformers, in the type it was saved in. Raises AdapterError when it ends no turn by itself where
    the reference does, renders conversations differently, or agrees less than its number type must; with `is_exact` also unless the
    greedy tokens are identical."""
    from transformers import AutoModelForCausalLM

    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, attn_implementation="sdpa", trust_remote_code=False
        ).eval()
    _check_tokenizer(version, folder)
    if set(_as_list(model.generation_config.eos_token_id)) != set(version.renderer.stop_token_ids):
        raise AdapterError(
            f"the exported model stops at other tokens: {model.generation_config.eos_token_id}", hint=_HINT, reason="other_stop_tokens"
        )
    if not is_exact:
        return require_same_model(compare(probes, [preferred(model, probe) for probe in probes]), "bfloat16")
    agreement = _must_agree(model, probes, "merged model")
    _check_generate(model, probes[0])
    return agreement


def require_same_model(agreement: Agreement, rounded_to: str, where: str = "") -> Agreement:
    """Rounded weights may prefer another token now and then; a model that does so more often than `FLOORS` allows is broken.

    `where`: who computed, for the message. Raises AdapterError.
    """
    floor = FLOORS[rounded_to]
    if agreement.num_equal + agreement.num_ties < floor * agreement.num_tokens:
        raise AdapterError(
            f"the export is not the version that it was made of{where and f' {where}'}: {agreement.text()}; "
            f"{rounded_to} must agree at {floor:.0%} or more",
            hint=_HINT,
            reason="answers_differ",
        )
    return agreement


def _must_agree(model: nn.Module, probes: Sequence[Probe], what: str) -> Agreement:
    agreement = compare(probes, [preferred(model, probe) for probe in probes])
    if not agreement.is_identical:
        raise AdapterError(
            f"the exported {what} does not answer as the served version does: {agreement.text()}", hint=_HINT, reason="answers_differ"
        )
    return agreement


def _check_generate(model: Any, probe: Probe) -> None:
    """With nothing but its own generation config, the model writes the reference's tokens and ends where it ends."""
    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([probe.prompt_ids]), attention_mask=torch.ones(1, len(probe.prompt_ids)), max_new_tokens=NUM_TOKENS
        )
    found = tuple(ids[0, len(probe.prompt_ids) :].tolist())
    agreement = compare([probe], [found]) if len(found) == len(probe.reply_ids) else None
    if agreement is None or not (agreement.is_identical or agreement.num_ties):
        raise AdapterError(
            f"the exported model generates {found} where the served version writes {probe.reply_ids}", hint=_HINT, reason="answers_differ"
        )


def _check_tokenizer(version: Version, folder: Path) -> None:
    """The exported tokenizer with its own chat template, called as transformers and vLLM call it, gives the ids that the service gives."""
    tokenizer = load_tokenizer(folder)
    for messages, tools, expected in conversations(version.renderer):
        text = tokenizer.apply_chat_template(
            [plain_message(message) for message in messages],
            tools=[tool.model_dump() for tool in tools] or None,
            add_generation_prompt=True,
            tokenize=False,
        )
        if tuple(tokenizer.encode(text, add_special_tokens=False)) != expected:
            raise AdapterError(
                f"the tokenizer exported to {folder} renders a conversation differently: {text!r}", hint=_HINT, reason="renders_differently"
            )


def _as_list(value: int | list[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


# Greedy tokens under transformers' own attention ----------------------------------------------------------------------


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
