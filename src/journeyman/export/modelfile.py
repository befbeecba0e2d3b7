"""An Ollama Modelfile for a GGUF file: where it is, how a conversation is written, what ends a turn, and no sampling of its own.

Ollama writes conversations by a Go template, not by the Jinja template in the file. For Journeyman's own template there is one here that
writes the same text; the tools that the run was trained with come out letter for letter, other tools without the descriptions of their
arguments. What Go's templates cannot do: keep the order of a call's arguments (they are sorted by name) and put spaces into nested
objects. A base model's own template is left to Ollama, which knows many of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.chat.renderer import Renderer
from journeyman.export.version import Version
from journeyman.store.store import Store
from journeyman.types.messages import Message, Tool

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
    stops = renderer.tokenizer.convert_ids_to_tokens(list(renderer.stop_token_ids))
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
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
