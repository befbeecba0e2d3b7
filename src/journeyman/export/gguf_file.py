"""Write a merged model as one GGUF file, in float16 or in 8-bit blocks, for llama.cpp, Ollama and whatever else reads GGUF.

Architectures: Llama (SmolLM2 among them), Qwen2 and Qwen3 without sliding windows or scaled positions. The file carries the tokenizer, the
chat template that the model was trained with, and the tokens that end a turn. Not for other quantisations: llama.cpp's `llama-quantize`
makes those from the f16 file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor, nn

from journeyman.chat.templates import END_OF_TURN_TOKENS
from journeyman.errors import SettingError
from journeyman.export.gguf_tokenizer import HINT, token_table
from journeyman.export.settings import Quant
from journeyman.export.version import Version
from journeyman.version import __version__

_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
_F32, _F16, _Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
_BLOCK = 32  # weights of a row that share one scale in q8_0


def require_writable(version: Version) -> None:
    """Raises SettingError when this base model cannot be written to GGUF here; cheap, so that it is known before anything is loaded."""
    config = version.config.get_text_config()
    kind = config.model_type
    faults = []
    if kind not in _ARCHITECTURES:
        faults.append(f"its architecture is {kind}; here: {', '.join(_ARCHITECTURES)}")
    if (config.rope_parameters or {}).get("rope_type", "default") != "default":
        faults.append(f"its positions are scaled ({config.rope_parameters['rope_type']})")
    if getattr(config, "use_sliding_window", False) or (kind == "llama" and getattr(config, "sliding_window", None)):
        faults.append("it attends to a sliding window")
    if kind in ("llama", "qwen3") and (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)):
        faults.append("its linear layers have biases")
    if faults:
        raise SettingError(f"the base model {version.run.base!r} cannot be written to GGUF: {'; '.join(faults)}", hint=HINT)
    token_table(version.tokenizer, int(config.vocab_size))


def write_gguf(version: Version, module: nn.Module, path: Path, quant: Quant) -> None:
    """Write `module` (the merged version, float32) to `path`. One tensor at a time is converted."""
    config = version.config.get_text_config()
    architecture = _ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _add_origin(writer, version, quant)
        _add_shape(writer, config)
        _add_tokenizer(writer, version, int(config.vocab_size))
        names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        tensors = dict(_named_tensors(module, names, is_tied=bool(config.tie_word_embeddings)))
        kinds = {name: _kind(tensor, quant) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            _announce(writer, name, tuple(tensor.shape), kinds[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            values = _for_llama(name, tensor.detach().float().cpu().numpy(), config)
            writer.write_tensor_data(gguf.quants.quantize(values, kinds[name]))
    finally:
        writer.close()


def _add_origin(writer: Any, version: Version, quant: Quant) -> None:
    writer.add_type("model")
    writer.add_name(version.slug)
    writer.add_description(f"{version.adapter.name} of run {version.run.id}, trained with Journeyman {__version__}")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, Path(version.base.name).name)
    writer.add_file_type(_FILE_TYPES[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: Any, version: Version, num_rows: int) -> None:
    tokenizer, stops = version.tokenizer, version.renderer.stop_token_ids
    table = token_table(tokenizer, num_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(table.splitting)
    writer.add_token_list(table.texts)
    writer.add_token_types(table.kinds)
    writer.add_token_merges(table.merges)
    for token, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token is not None:
            add(token)
    ends = [token for token in END_OF_TURN_TOKENS if token in version.renderer.template.text]
    end = tokenizer.convert_tokens_to_ids(ends[0]) if ends else None
    if end in stops:
        writer.add_eot_token_id(end)
    # The template writes every marker; a reader that adds its own would change the prompt.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(version.renderer.template.text)


def _named_tensors(module: nn.Module, names: Any, *, is_tied: bool) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in module.state_dict().items():
        if is_tied and name == "lm_head.weight":
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise SettingError(f"GGUF has no place for the tensor {name}", hint=HINT)
        yield found, tensor


def _kind(tensor: Tensor, quant: Quant) -> gguf.GGMLQuantizationType:
    """Vectors stay in float32; rows that do not divide into blocks stay in float16, as llama.cpp's own converter has it."""
    if tensor.dim() == 1:
        return _F32
    return _Q8_0 if quant == "q8_0" and tensor.shape[-1] % _BLOCK == 0 else _F16


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
    if kind is _Q8_0:
        stored = gguf.quants.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
    else:
        dtype = np.dtype(np.float32 if kind is _F32 else np.float16)
        writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)


def _for_llama(name: str, values: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """llama.cpp rotates neighbouring pairs of a Llama head, transformers its two halves: queries and keys change places accordingly."""
    if config.model_type != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return values
    heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
    paired = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return np.ascontiguousarray(paired.swapaxes(1, 2).reshape(values.shape))
