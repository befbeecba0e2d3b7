"""One attention function, registered with transformers, that both the engine and the trainer run through.

An architecture of transformers whose layers only attend calls the registered function with unrepeated key/value heads and passes any
extra keyword of the model's forward on to it; others are refused when they are loaded (`check_packable` in `weights.py`). We pass
`layout`: an object that knows where the tokens of this forward stand (in a KV cache, or in a prefix tree) and what each may attend to. Not
for padding or attention masks: there are none here, a forward is one flat row of real tokens.

Shapes: T tokens of this forward, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from journeyman.errors import EngineError

ATTENTION_NAME = "journeyman"


class Layout(Protocol):
    """Where the T tokens of one forward stand, and what they attend to."""

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        """Attention output, shape [T, H, D]. May store keys and values of `layer`."""
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the layout says what is attended to
    scaling: float | None = None,
    layout: Layout | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if softcap is not None or s_aux is not None:
        raise EngineError(
            "this model's attention has soft-capped scores or attention sinks, which are not supported yet",
            hint="use another base model, for example a Llama, Qwen, Mistral, Granite or SmolLM",
        )
    if layout is None:
        raise ValueError("the journeyman attention needs a `layout` keyword in the model's forward")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    out_THD = layout.attend(layer, query[0], key[0], value[0], scale)
    return out_THD[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def register_attention() -> None:
    """Make `attn_implementation="journeyman"` known to transformers. Idempotent."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)


def causal_attention(query_HTD: Tensor, key_KSD: Tensor, value_KSD: Tensor, scaling: float) -> Tensor:
    """T queries that are the last T of S keys: query t sees keys up to and including S - T + t. Returns [T, H, D]."""
    num_queries, num_keys = query_HTD.shape[1], key_KSD.shape[1]
    repeats = query_HTD.shape[0] // key_KSD.shape[0]
    key_HSD = key_KSD.repeat_interleave(repeats, dim=0)
    value_HSD = value_KSD.repeat_interleave(repeats, dim=0)
    mask_TS = None
    if num_queries > 1:
        mask_TS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query_HTD.device).tril(num_keys - num_queries)
    out_HTD = nn.functional.scaled_dot_product_attention(query_HTD[None], key_HSD[None], value_HSD[None], attn_mask=mask_TS, scale=scaling)[
        0
    ]
    return out_HTD.transpose(0, 1)
