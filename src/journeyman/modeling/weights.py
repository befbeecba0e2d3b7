"""Load a base model's weights into its transformers module, ready for our attention. Not for finding models: see base_models."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM

from journeyman.errors import ModelNotFoundError
from journeyman.modeling.attention import ATTENTION_NAME, register_attention
from journeyman.modeling.base_models import config_context_length, quiet_libraries
from journeyman.modeling.packed_check import check_packable
from journeyman.modeling.precision import Precision, round_linear_layers


def load_module(folder: Path, *, precision: Precision = "float32", device: str = "cpu") -> nn.Module:
    """The causal language model in `folder`, frozen, in eval mode, running our attention.

    `precision` "bfloat16" rounds the linear layers' weights and inputs only (see `journeyman.modeling.precision`).

    Raises:
        ModelNotFoundError: the folder holds no model that transformers can load, or a file of weights is damaged.
        SettingError, EngineError: a model that our attention does not compute as transformers does (`packed_check`).
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
