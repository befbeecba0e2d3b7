"""A merged model as one GGUF file, in float16 or in 8-bit blocks, for llama.cpp, Ollama and whatever else reads GGUF, with a Modelfile.

Architectures: Llama (SmolLM2 among them), Qwen2 and Qwen3 without sliding windows or scaled positions. The file carries the tokenizer, the
chat template that the model was trained with, and the tokens that end a turn. Not for other quantisations: llama.cpp's `llama-quantize`
makes those from the f16 file. Not for checking the file: `gguf_check.py`.

Tokenizers: byte-level BPE only (GPT-2's kind). llama.cpp has the splitting rules of tokenizers compiled in and finds them by name: a rule
that is not in the table below is refused, because under a wrong name the file would load and read numbers or spaces differently.
Ollama writes conversations by a Go template, not by the Jinja template in the file. For Journeyman's own template there is one here that
writes the same text; the tools that the run was trained with come out letter for letter, other tools without the descriptions of their
arguments. What Go's templates cannot do: keep the order of a call's arguments (they are sorted by name) and put spaces into nested
objects. A base model's own template is left to Ollama, which knows many of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import TokenType
from torch import Tensor, nn

from journeyman.chat.renderer import Renderer
from journeyman.chat.templates import END_OF_TURN_TOKENS
from journeyman.errors import SettingError
from journeyman.export.settings import Quant
from journeyman.export.version import Version
from journeyman.store.store import Store
from journeyman.types.messages import Message, Tool
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
        raise SettingError(
            f"the base model {version.run.base!r} cannot be written to GGUF: {'; '.join(faults)}", hint=HINT, reason="not_for_gguf"
        )
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
        kinds = {name: _storage(tensor, quant) for name, tensor in tensors.items()}
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
            raise SettingError(f"GGUF has no place for the tensor {name}", hint=HINT, reason="not_for_gguf")
        yield found, tensor


def _storage(tensor: Tensor, quant: Quant) -> gguf.GGMLQuantizationType:
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


# Tokenizer ------------------------------------------------------------------------------------------------------------


HINT = "export it with --format merged and convert that folder with llama.cpp's own convert_hf_to_gguf.py"

_QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_WORDS = _QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_NAME_OF_REGEX = {_QWEN_WORDS: "qwen2", _LLAMA_WORDS: "llama-bpe"}


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What a GGUF file holds of a tokenizer. `texts` and `kinds` have one entry an embedding row."""

    texts: tuple[str, ...]
    kinds: tuple[TokenType, ...]
    merges: tuple[str, ...]
    splitting: str


def token_table(tokenizer: Any, num_rows: int) -> TokenTable:
    """The table of a fast Hugging Face tokenizer for `num_rows` embedding rows. Raises SettingError when GGUF cannot express it."""
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    splitting = splitting_name(inner)
    added = {int(token["id"]): token for token in inner["added_tokens"]}
    text_of = {int(number): text for text, number in inner["model"]["vocab"].items()} | {
        number: token["content"] for number, token in added.items()
    }
    if max(text_of) >= num_rows:
        raise SettingError(
            f"the tokenizer has token {max(text_of)}, but the model only {num_rows} embedding rows", hint=HINT, reason="not_for_gguf"
        )
    texts, kinds = [], []
    for number in range(num_rows):
        texts.append(text_of.get(number, f"[PAD{number}]"))
        kinds.append(_token_kind(number in text_of, added.get(number)))
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in inner["model"]["merges"])
    return TokenTable(tuple(texts), tuple(kinds), merges, splitting)


def splitting_name(inner: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rule that splits text before merging, from a `tokenizer.json`.

    Raises SettingError for any tokenizer whose rule llama.cpp is not known to have.

    Example:
        >>> bpe = {"type": "BPE", "ignore_merges": False, "byte_fallback": False}
        >>> splitting_name({"model": bpe, "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "use_regex": True}})
        'gpt-2'
    """
    model, rule = inner["model"], inner["pre_tokenizer"] or {}
    normalizer = (inner["normalizer"] or {}).get("type")
    name = _name_of_rule(rule.get("pretokenizers", [rule]))
    is_expected = model["type"] == "BPE" and not model.get("byte_fallback") and normalizer in (None, "NFC")
    if name is None or not is_expected or bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise SettingError(
            f"this model's tokenizer ({model['type']}, {_words(rule)}) cannot be written to GGUF here", hint=HINT, reason="not_for_gguf"
        )
    return name


def _name_of_rule(parts: list[Mapping[str, Any]]) -> str | None:
    *before, last = parts
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        digits = [part.get("type") == "Digits" and part.get("individual_digits") is True for part in before]
        return {(): "gpt-2", (True,): "smollm"}.get(tuple(digits))
    if len(before) != 1 or before[0].get("type") != "Split" or before[0].get("behavior") != "Isolated" or before[0].get("invert"):
        return None
    return _NAME_OF_REGEX.get(before[0]["pattern"].get("Regex", ""))


def _token_kind(is_known: bool, added: Mapping[str, Any] | None) -> TokenType:
    if not is_known:
        return TokenType.UNUSED
    if added is None:
        return TokenType.NORMAL
    return TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED


def _words(rule: Mapping[str, Any]) -> str:
    return " + ".join(str(part.get("type", "no splitting")) for part in rule.get("pretokenizers", [rule]))


# Modelfile ------------------------------------------------------------------------------------------------------------


_MAX_CONTEXT = 8192  # memory for keys and values is taken at once; more only on request
_RECENT_ROLLOUTS = 50

# Written without "{{-": there is no white space in it that is not meant.
_BEFORE_TOOLS = (
    '{{ $first := "" }}{{ if .Messages }}{{ with index .Messages 0 }}{{ if eq .Role "system" }}{{ $first = .Content }}{{ end }}'
    "{{ end }}{{ end }}"
    "{{ if or $first .Tools }}<|im_start|>system\n{{ $first }}"
    "{{ if .Tools }}{{ if $first }}\n\n{{ end }}Tools:\n<tools>\n"
    "{{ range .Tools }}{{ $name := .Function.Name }}"
)
_OTHER_TOOL = (
    '{{ $name }}({{ $comma := "" }}{{ $required := .Function.Parameters.Required }}'
    '{{ range $key, $value := .Function.Parameters.Properties }}{{ $comma }}{{ $key }}{{ $mark := "?" }}'
    '{{ range $required }}{{ if eq . $key }}{{ $mark = "" }}{{ end }}{{ end }}{{ $mark }}: '
    "{{ if $value.Enum }}{{ range $at, $one := $value.Enum }}{{ if $at }}|{{ end }}{{ json $one }}{{ end }}"
    "{{ else }}{{ range $at, $one := $value.Type }}{{ if $at }}|{{ end }}{{ $one }}{{ end }}{{ end }}"
    '{{ $comma = ", " }}{{ end }}){{ if .Function.Description }} - {{ .Function.Description }}{{ end }}\n'
)
_AFTER_TOOLS = (
    '{{ end }}</tools>\nTo call a tool, reply <tool_call>{{ "{" }}"name": ..., "arguments": {{ "{...}}" }}</tool_call>{{ end }}<|im_end|>\n'
    "{{ end }}"
)
# Ollama finds out what calls begin with by looking for the first text below `if .ToolCalls`: it must be <tool_call>.
_MESSAGES = (
    '{{ $before := "" }}'
    "{{ range $at, $message := .Messages }}"
    '{{ if and (eq $before "tool") (ne .Role "tool") }}<|im_end|>\n{{ end }}'
    '{{ if and (eq $at 0) (eq .Role "system") }}'
    '{{ else if eq .Role "tool" }}'
    '{{ if ne $before "tool" }}<|im_start|>user{{ end }}\n<tool_response>{{ .Content }}</tool_response>'
    "{{ else }}<|im_start|>{{ .Role }}\n{{ .Content }}"
    "{{ $calls := .ToolCalls }}{{ if and .Content $calls }}\n{{ end }}"
    "{{ if .ToolCalls }}{{ range $number, $call := .ToolCalls }}{{ if $number }}\n<tool_call>{{ else }}<tool_call>{{ end }}"
    '{{ "{" }}"name": {{ json $call.Function.Name }}, "arguments": {{ "{" }}'
    '{{ $comma := "" }}{{ range $key, $value := $call.Function.Arguments }}{{ $comma }}{{ json $key }}: {{ json $value }}'
    '{{ $comma = ", " }}{{ end }}{{ "}}" }}</tool_call>{{ end }}{{ end }}<|im_end|>\n{{ end }}'
    "{{ $before = .Role }}{{ end }}"
    '{{ if eq $before "tool" }}<|im_end|>\n{{ end }}<|im_start|>assistant\n'
)


def write_modelfile(version: Version, folder: Path, file_name: str, tools: Sequence[Tool]) -> None:
    """Write `folder/Modelfile` for the GGUF file beside it."""
    renderer = version.renderer
    lines = [f"FROM ./{file_name}"]
    if not renderer.template.is_own:
        lines.append(f'TEMPLATE """{go_template(renderer, tools)}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in version.stop_texts]
    # Ollama's own defaults (top_k 40, top_p 0.9, a repetition penalty) are not the distribution that was trained and measured.
    neutral: Mapping[str, float] = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1}
    lines += [f"PARAMETER {name} {value}" for name, value in neutral.items()]
    lines.append(f"PARAMETER num_ctx {min(renderer.context_length, _MAX_CONTEXT)}")
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")


def go_template(renderer: Renderer, tools: Sequence[Tool]) -> str:
    """The Go template that writes what `HERMES_CHATML` writes; `tools` come out exactly as there."""
    choice = "{{ if false }}{{ end }}"
    for tool in tools:
        line = tool_line(renderer, tool)
        choice = (
            choice.removesuffix("{{ end }}")
            + f"{{{{ else if eq $name {_go_text(tool.function.name)} }}}}{{{{ {_go_text(line)} }}}}{{{{ end }}}}"
        )
    choice = choice.removesuffix("{{ end }}") + "{{ else }}" + _OTHER_TOOL + "{{ end }}"
    return _BEFORE_TOOLS + choice + _AFTER_TOOLS + _MESSAGES


def tool_line(renderer: Renderer, tool: Tool) -> str:
    """The line that our template writes for one tool, with its line break."""
    text = renderer.decode(renderer.render([Message(role="user", content="")], [tool]))
    return text.partition("<tools>\n")[2].partition("</tools>")[0]


def tools_of_run(store: Store, run: str) -> tuple[Tool, ...]:
    """The tools that the last rollouts of a run were offered, by name, as they were offered last."""
    found: dict[str, Tool] = {}
    for row in store.rollouts.list_of_run(run)[: -_RECENT_ROLLOUTS - 1 : -1]:
        for turn in store.rollouts.turns(row.id)[:1]:
            for tool in turn.tools:
                found.setdefault(tool.function.name, tool)
    return tuple(found[name] for name in sorted(found))


def _go_text(text: str) -> str:
    """A Go string literal, without a quotation mark inside: three in a row would end the Modelfile's own quotation."""
    return json.dumps(text, ensure_ascii=False).replace('\\"', "\\x22")
