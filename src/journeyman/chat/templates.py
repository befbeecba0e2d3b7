"""Which chat template a model is talked to with, and our own for models whose template knows no tools.

Not for rendering: see `renderer.py`. A model whose own template handles tools keeps it. Otherwise, a model that speaks ChatML gets
`HERMES_CHATML`: Hermes' `<tool_call>{json}</tool_call>` on ChatML, no default system prompt, and each tool as one short signature line,
because a small model reads the tools on every turn, on a CPU. It is plain Jinja, so an exported model can carry it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.chat.tokenizer import Tokenizer
from journeyman.errors import SettingError

# Argument descriptions are cut at the first bracket, full stop, comma or semicolon: the rest costs more tokens than
# it helps.
HERMES_CHATML = """\
{%- macro kind(schema) -%}
{%- if schema is not mapping -%}any
{%- elif schema['enum'] is defined and schema['enum'] | length <= 8 -%}
{%- for value in schema['enum'] -%}{{ value | tojson }}{{ '|' if not loop.last }}{%- endfor -%}
{%- elif schema['type'] == 'array' and schema['items'] is mapping -%}{{ kind(schema['items']) }}[]
{%- elif schema['type'] is string -%}{{ schema['type'] }}
{%- elif schema['type'] is defined and schema['type'] is sequence -%}{{ schema['type'] | join('|') }}
{%- elif schema['anyOf'] is defined -%}
{%- for option in schema['anyOf'] -%}{{ kind(option) }}{{ '|' if not loop.last }}{%- endfor -%}
{%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- macro brief(schema) -%}
{%- if schema is mapping and schema['description'] is string -%}
{%- set line = schema['description'].strip().split('\\n')[0].split('(')[0].split('.')[0] -%}
{%- set text = line.split(',')[0].split(';')[0].strip() -%}
{%- if text and text | length <= 40 %} ({{ text }}){% endif -%}
{%- endif -%}
{%- endmacro -%}
{%- macro signature(function) -%}
{%- set schema = function['parameters'] if function['parameters'] is mapping else {} -%}
{%- set required = schema['required'] if schema['required'] is defined and schema['required'] else [] -%}
{{ function['name'] }}(
{%- for name, parameter in (schema['properties'] if schema['properties'] is mapping else {}).items() -%}
{{ name }}{{ '' if name in required else '?' }}: {{ kind(parameter) }}{{ brief(parameter) }}{{ ', ' if not loop.last }}
{%- endfor -%}
)
{%- if function['description'] -%}
{%- set line = function['description'].strip().split('\\n')[0].split('. ')[0] %} - {{ line[:120].rstrip('. ') }}
{%- endif -%}
{%- endmacro -%}
{%- set has_system = messages | length > 0 and messages[0]['role'] == 'system' -%}
{%- if has_system or tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if has_system -%}{{- messages[0]['content'] or '' -}}{%- endif -%}
{%- if tools -%}
{{- '\\n\\n' if has_system and messages[0]['content'] else '' -}}
{{- 'Tools:\\n<tools>\\n' -}}
{%- for tool in tools -%}{{- signature(tool['function']) + '\\n' -}}{%- endfor -%}
{{- '</tools>\\nTo call a tool, reply <tool_call>{"name": ..., "arguments": {...}}</tool_call>' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if loop.first and has_system -%}
{%- elif message['role'] == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>' + (message['content'] or '') + '</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') -}}
{%- for call in message['tool_calls'] or [] -%}
{{- '\\n' if not loop.first or message['content'] else '' -}}
{%- if call['function']['arguments'] is string -%}
{{- '<tool_call>' + call['function']['arguments'] + '</tool_call>' -}}
{%- else -%}
{{- '<tool_call>{"name": ' + call['function']['name'] | tojson -}}
{{- ', "arguments": ' + call['function']['arguments'] | tojson + '}</tool_call>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

# Tokens that end an assistant's turn in the families we know; those a tokenizer lacks are skipped.
END_OF_TURN_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja chat template. `is_own` is True when it is the model's own; without `supports_tools`, tools are
    refused."""

    text: str
    is_own: bool
    supports_tools: bool


def select_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The template to talk to this tokenizer's model with.

    Raises SettingError when the model has no chat template and does not speak ChatML either.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):  # some models keep several templates by name
        own = own.get("tool_use") or own.get("default")
    if own and "tools" in own:
        return ChatTemplate(text=own, is_own=True, supports_tools=True)
    vocabulary = tokenizer.get_vocab()
    if "<|im_start|>" in vocabulary and "<|im_end|>" in vocabulary:
        return ChatTemplate(text=HERMES_CHATML, is_own=False, supports_tools=True)
    if own:
        return ChatTemplate(text=own, is_own=True, supports_tools=False)
    raise SettingError(
        "this base model has no chat template and its tokenizer has no ChatML tokens (<|im_start|>, <|im_end|>)",
        hint="choose an instruction-tuned model (its tokenizer_config.json has a chat_template)",
    )
