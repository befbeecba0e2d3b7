"""Which fields of a model call are honoured, refused, or change nothing: the one table, which docs/server.md prints.

A field that would change the reply is honoured or refused by name, never dropped; so is one that nobody here has heard of, as OpenAI's own
server does. Not for the fields that are honoured: those are `requests.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic_core import PydanticCustomError

from journeyman.types.secrets import hide_in_settings

#: Taken and ignored: they change no token.
IGNORED: Final = frozenset(
    {
        *("store", "metadata", "user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "prediction", "request_id", "session_id", "trace_id", "priority", "cache_salt", "cache_prompt"),
        *("keep_alive", "guided_decoding_backend", "usage", "strict", "include_obfuscation"),
    }
)

#: Not supported here, with the values that ask for nothing. `null` always asks for nothing.
UNSUPPORTED: Final[Mapping[str, tuple[object, ...]]] = {
    # of OpenAI's API
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "top_logprobs"), (0,)),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "echo": (False,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    **dict.fromkeys(("audio", "reasoning_effort", "web_search_options"), ()),
    # of other servers and their samplers
    **dict.fromkeys(("min_p", "min_tokens", "min_new_tokens", "mirostat", "top_a", "xtc_probability", "dry_multiplier"), (0,)),
    **dict.fromkeys(("dynatemp_range", "smoothing_factor", "no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff"), (0,)),
    **dict.fromkeys(("repetition_penalty", "repeat_penalty", "length_penalty", "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("typical_p", "tfs_z", "num_beams", "guidance_scale", "cfg_scale"), (1,)),
    "top_n_sigma": (-1,),
    **dict.fromkeys(("use_beam_search", "early_stopping", "ignore_eos", "include_stop_str_in_output", "penalize_nl"), (False,)),
    **dict.fromkeys(("continue_final_message", "skip_special_tokens", "no_stop_trim", "safe_prompt", "raw"), (False,)),
    **dict.fromkeys(("return_token_ids", "return_tokens_as_token_ids", "continuous_usage_stats"), (False,)),
    **dict.fromkeys(("add_generation_prompt", "do_sample", "include_reasoning", "separate_reasoning"), (True,)),
    **dict.fromkeys(("stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors", "stop_regex", "documents"), ([],)),
    **dict.fromkeys(("guided_regex", "guided_grammar", "grammar", "regex", "ebnf", "negative_prompt", "format"), ("",)),
    **dict.fromkeys(("structured_outputs", "chat_template_kwargs", "mm_processor_kwargs", "options", "extra_body"), ({},)),
    **dict.fromkeys(("guided_json", "guided_choice", "json_schema", "prompt_logprobs", "truncate_prompt_tokens", "chat_template"), ()),
    **dict.fromkeys(("add_special_tokens", "thinking", "enable_thinking", "max_new_tokens", "n_predict", "random_seed"), ()),
}
_INSTEAD: Final = {
    **dict.fromkeys(("guided_json", "structured_outputs", "json_schema", "format"), "response_format with a json_schema"),
    **dict.fromkeys(("functions", "function_call"), "tools and tool_choice"),
    **dict.fromkeys(("max_new_tokens", "n_predict"), "max_tokens"),
    "random_seed": "seed",
    "extra_body": "its fields themselves",
}
_MAX_SHOWN = 80


def refuse_unsupported(given: Mapping[str, Any], honoured: Collection[str]) -> None:
    """Raises for fields that are neither honoured nor without effect; the error's `path` is the first, its text has all of them."""
    refused = [name for name in given if name not in honoured and not _asks_for_nothing(name, given[name])]
    if not refused:
        return
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in hide_in_settings({name: given[name] for name in refused}).items())
    instead = [f"send {_INSTEAD[name]} instead of {name}" for name in refused if name in _INSTEAD]
    kind = "unsupported_parameter" if refused[0] in UNSUPPORTED else "unknown_parameter"
    raise PydanticCustomError(
        kind,
        "{shown}: not supported by this server; {advice}",
        {"path": (refused[0],), "shown": shown, "advice": "; ".join(instead) or "leave it out"},
    )


def _asks_for_nothing(name: str, value: object) -> bool:
    return value is None or name in IGNORED or any(value == neutral for neutral in UNSUPPORTED.get(name, ()))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
