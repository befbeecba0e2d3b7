"""The Modelfile: what stands in it, and that Go's template engine writes with it what our Jinja template writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.export.runs import make_run

from journeyman.chat.renderer import Renderer
from journeyman.export.gguf_file import go_template, tool_line, write_modelfile
from journeyman.export.probes import CONVERSATIONS
from journeyman.export.version import find_adapter, open_version
from journeyman.store.store import Store
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall, ToolFunction

HARNESS = Path(__file__).with_name("modelfile_harness.go")
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="no Go here: Ollama's template engine cannot be run (Debian: golang-go)")

CLOCK = Tool(
    function=ToolFunction(
        name="clock",
        description='The time "now" in a {{ zone }}. More words.',
        parameters={
            "type": "object",
            "properties": {
                "zone": {"type": "string", "description": "IANA name, for example Europe/Rome"},
                "style": {"enum": ["short", "long"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["zone"],
        },
    )
)
CITY = Tool(
    function=ToolFunction(
        name="city",
        description="Where a city is",
        parameters={
            "type": "object",
            "properties": {"name": {"type": "string"}, "kind": {"enum": ["short", "long"]}},
            "required": ["name"],
        },
    )
)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="1", function=FunctionCall(name=name, arguments=json.dumps(arguments)))


SYSTEM, USER = Message(role="system", content="You know the time."), Message(role="user", content="hello {{ there }}")
RESULT = Message(role="tool", content='{"time": "12:30"}', tool_call_id="1")
CASES: list[tuple[tuple[Message, ...], tuple[Tool, ...]]] = [
    *CONVERSATIONS,
    ((USER,), (CLOCK,)),
    ((SYSTEM, USER), (CLOCK, CITY)),
    ((SYSTEM, USER, Message(role="assistant", content="hi"), USER), ()),
    ((USER, Message(role="assistant", content="", tool_calls=(call("clock", zone="Europe/Rome"),)), RESULT), (CLOCK,)),
    (
        (USER, Message(role="assistant", content="Wait.", tool_calls=(call("clock", days=3, zone="a"), call("city"))), RESULT, RESULT),
        (CLOCK,),
    ),
    (
        (
            SYSTEM,
            USER,
            Message(role="assistant", content="", tool_calls=(call("clock", zone="x"), call("clock", zone="y"))),
            RESULT,
            RESULT,
            Message(role="assistant", content="Done."),
            USER,
        ),
        (CITY, CLOCK),
    ),
]


def as_ollama_sees_them(tools: tuple[Tool, ...]) -> list[dict[str, Any]]:
    """Property types are lists there."""
    out = []
    for tool in tools:
        one = tool.model_dump()
        for schema in one["function"]["parameters"]["properties"].values():
            kind = schema.get("type", [])
            schema["type"] = [kind] if isinstance(kind, str) else kind
        out.append(one)
    return out


def as_ollama_sees_it(message: Message) -> dict[str, Any]:
    calls = [{"Function": {"Name": one.function.name, "Arguments": json.loads(one.function.arguments)}} for one in message.tool_calls]
    return {"Role": message.role, "Content": message.content, "ToolCalls": calls}


def rendered_by_go(template: str, cases: list[tuple[tuple[Message, ...], tuple[Tool, ...]]]) -> list[str]:
    asked = [
        {"Template": template, "Messages": [as_ollama_sees_it(message) for message in messages], "Tools": as_ollama_sees_them(tools)}
        for messages, tools in cases
    ]
    result = subprocess.run(["go", "run", str(HARNESS)], input=json.dumps(asked), capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    texts: list[str] = json.loads(result.stdout)
    return texts


@needs_go
def test_go_writes_the_conversations_that_our_template_writes(tiny_tokenizer: Any) -> None:
    renderer = Renderer(tiny_tokenizer, 4096)
    known = tuple({tool.function.name: tool for _messages, tools in CASES for tool in tools}.values())
    texts = rendered_by_go(go_template(renderer, known), CASES)
    for (messages, tools), text in zip(CASES, texts, strict=True):
        assert text == renderer.decode(renderer.render(messages, tools))


@needs_go
def test_a_tool_that_the_run_never_saw_is_described_in_the_same_way_without_words_on_arguments(tiny_tokenizer: Any) -> None:
    renderer = Renderer(tiny_tokenizer, 4096)
    (text,) = rendered_by_go(go_template(renderer, ()), [((USER,), (CITY,))])
    expected = renderer.decode(renderer.render((USER,), (CITY,)))
    assert text == expected.replace('city(name: string, kind?: "short"|"long")', 'city(kind?: "short"|"long", name: string)')


def test_a_tools_line_is_the_templates_own(tiny_tokenizer: Any) -> None:
    line = tool_line(Renderer(tiny_tokenizer, 4096), CLOCK)
    assert line == 'clock(zone: string (IANA name), style?: "short"|"long", days?: integer[]) - The time "now" in a {{ zone }}\n'


def test_ollama_finds_the_mark_of_a_call_in_the_template(tiny_tokenizer: Any) -> None:
    # It takes the first text below `if .ToolCalls`, descending into `range` and `if`, and gives up at anything else.
    template = go_template(Renderer(tiny_tokenizer, 4096), ())
    after = template.partition("{{ if .ToolCalls }}")[2]
    assert re.match(r"\{\{ range [^}]*\}\}\{\{ if \$number \}\}\n<tool_call>\{\{ else \}\}<tool_call>\{\{ end \}\}", after)


def test_the_modelfile_stops_where_we_stop_and_samples_without_filters(sharp_model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, sharp_model)
    with Store.open(tmp_path) as store, open_version(store, find_adapter(store, run)) as version:
        write_modelfile(version, tmp_path, "clock.gguf", (CLOCK,))
    text = (tmp_path / "Modelfile").read_text()
    assert text.startswith('FROM ./clock.gguf\nTEMPLATE """')
    assert text.count('"""') == 2
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER repeat_penalty 1\n" in text
