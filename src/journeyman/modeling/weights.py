"""Load a base model's weights into its transformers module, ready for our attention. Not for finding models: see base_models.

Refused are models whose layers carry something from token to token other than through attention: convolutions, state spaces, linear
attention. A forward here is one flat row in which the branches of a tree (or other sequences) follow one another, and only attention is
told which tokens a token may see; such a layer would mix neighbours that have nothing to do with each other, without any error.

Shapes: T tokens of a row, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from journeyman.errors import ModelNotFoundError, SettingError
from journeyman.modeling.attention import ATTENTION_NAME, register_attention
from journeyman.modeling.base_models import config_context_length, quiet_libraries
from journeyman.modeling.precision import Precision, round_linear_layers

# The ones whose only memory are keys and values. `attention` is what models with layers of other kinds call it.
_ATTENTION_TYPES = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
_NUM_SHARED, _NUM_OWN = 4, 3
# In float32 the branches of a sound model differ by 1e-6, those of a hybrid by 0.1 and more.
_MAX_RELATIVE_DIFFERENCE = 1e-3


def load_module(folder: Path, *, precision: Precision = "float32", device: str = "cpu") -> nn.Module:
    """The causal language model in `folder`, frozen, in eval mode, running our attention.

    `precision` "bfloat16" rounds the linear layers' weights and inputs only (see `journeyman.modeling.precision`).

    Raises:
        ModelNotFoundError: the folder holds no model that transformers can load, or a file of weights is damaged.
        SettingError, EngineError: a model that our attention does not compute as transformers does (`check_packable`).
    """
    register_attention()
    try:
        with quiet_libraries():
            module = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, attn_implementation=ATTENTION_NAME, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(
            f"the model in {folder} cannot be loaded: {error}",
            hint="give a folder with config.json, safetensors weights and tokenizer files of a causal language model",
        ) from error
    except SafetensorError as error:
        raise ModelNotFoundError(
            f"the weights in {_damaged_file(folder)} are damaged or incomplete: {error}",
            hint=f"copy or download the file again; a base model that Journeyman fetched: delete {folder}, then `journeyman models fetch`",
            reason="damaged_weights",
        ) from error
    module.requires_grad_(False)
    module.eval()
    check_packable(module)
    if precision == "bfloat16":
        round_linear_layers(module)
    return module.to(device)  # type: ignore[no-any-return]


def _damaged_file(folder: Path) -> Path:
    """The file of weights that cannot be opened; the folder where each can."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return path
    return folder


def share_weights(module: nn.Module) -> nn.Module:
    """A second module over the same tensors: replacing a weight in the copy leaves the original alone."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, memo={id(tensor): tensor for tensor in tensors})


def context_length(module: nn.Module) -> int:
    """Tokens that a prompt and its reply may have together."""
    return config_context_length(module.config.get_text_config())  # type: ignore[union-attr, operator]


def check_packable(module: nn.Module) -> None:
    """Refuse a causal language model (in float32, with our attention) whose layers do more than attend.

    The types of layers that the config names are read first. What that does not show, a forward does: two branches of a few tokens behind
    one beginning, where the second must come out as it does alone. One layer of each structure is enough, so that the check takes
    milliseconds. Not for attention masks: the layouts' own tests do that.

    Raises:
        SettingError: its layers do not only attend.
        EngineError: its attention is of a kind that ours does not compute.
    """
    kinds = set(getattr(module.config.get_text_config(), "layer_types", None) or ())  # type: ignore[union-attr, operator]
    if foreign := sorted(kinds - _ATTENTION_TYPES):
        raise _refusal(module, f"it has layers of type {', '.join(foreign)}")
    difference = _branch_difference(module)
    if not difference <= _MAX_RELATIVE_DIFFERENCE:
        raise _refusal(module, f"a branch of a packed row differs from the same tokens alone by {difference:.1e} of their size")


def _refusal(module: nn.Module, why: str) -> SettingError:
    config: Any = module.config
    return SettingError(
        f"models of architecture {config.model_type} ({type(module).__name__}) are not supported: {why}; sequences that share a row would "
        "change each other's numbers",
        hint="use a base model whose layers only attend, for example a Llama, Qwen2, Qwen3, Mistral, Granite (not hybrid) or SmolLM",
        reason="not_only_attention",
    )


def _branch_difference(module: nn.Module) -> float:
    """How far the second of two branches is from the same tokens alone, relative to the norm of its hidden states."""
    decoder: Any = module.get_decoder()  # type: ignore[operator]
    shared = list(range(_NUM_SHARED))
    first = list(range(_NUM_SHARED, _NUM_SHARED + _NUM_OWN))
    second = [place + _NUM_OWN for place in first]
    num_tokens = _NUM_SHARED + 2 * _NUM_OWN
    ids_T = (7 * torch.arange(num_tokens) + 3) % module.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    seen_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()
    seen_TT[_NUM_SHARED + _NUM_OWN :, _NUM_SHARED : _NUM_SHARED + _NUM_OWN] = False
    alone = [*shared, *second]

    def hidden(places: list[int], positions: list[int]) -> Tensor:
        with torch.no_grad():
            output = decoder(
                input_ids=ids_T[None, places],
                position_ids=torch.tensor([positions]),
                use_cache=False,
                layout=_Seen(seen_TT[places][:, places]),
            )
        return output.last_hidden_state[0, -_NUM_OWN:]  # type: ignore[no-any-return]

    with _one_layer_of_each_structure(decoder):
        packed = hidden(list(range(num_tokens)), [*shared, *first, *first])
        expected = hidden(alone, [*shared, *first])
    return float((packed - expected).norm() / expected.norm())


@contextmanager
def _one_layer_of_each_structure(decoder: nn.Module) -> Iterator[None]:
    """While the block runs, the decoder has the first of its layers of each structure only; all of them where they are not found."""
    for name, layers in decoder.named_children():
        if isinstance(layers, nn.ModuleList) and len(layers) and all(isinstance(layer, GradientCheckpointingLayer) for layer in layers):
            structures = {str(layer): layer for layer in reversed(layers)}
            setattr(decoder, name, nn.ModuleList(reversed(structures.values())))
            try:
                yield
            finally:
                setattr(decoder, name, layers)
            return
    yield


class _Seen:
    """The layout of a row whose token t attends to those marked in row t."""

    def __init__(self, seen_TT: Tensor) -> None:
        self._seen_TT = seen_TT

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        del layer
        repeats = query_HTD.shape[0] // key_KTD.shape[0]
        key_HTD, value_HTD = (states.repeat_interleave(repeats, dim=0) for states in (key_KTD, value_KTD))
        attend = nn.functional.scaled_dot_product_attention
        return attend(query_HTD, key_HTD, value_HTD, attn_mask=self._seen_TT, scale=scaling).transpose(0, 1)
