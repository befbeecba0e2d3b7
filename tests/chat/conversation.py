"""A conversation with a tool, and a chat template in the manner of another family."""

from __future__ import annotations

from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall, ToolFunction

SYSTEM = Message(role="system", content="Use the tools.")
USER = Message(role="user", content="What time is it in Tokyo?")
RESULT = Message(role="tool", tool_call_id="c1", content='{"time": "12:00"}')
TOOL = Tool(
    function=ToolFunction(
        name="get_time",
        description="Get the time.\nLong explanation.",
        parameters={
            "type": "object",
            "properties": {
                "zone": {"type": "string", "description": "IANA name (e.g. 'Asia/Tokyo'). Very long text follows."},
                "style": {"enum": ["short", "long"]},
                "offset": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "days": {"type": "array", "items": {"type": "number"}},
                "any": True,
            },
            "required": ["zone"],
        },
    )
)


def call(arguments: str, name: str = "get_time") -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id="c1", function=FunctionCall(name=name, arguments=arguments)),))


# As Qwen3's: thinking is written for replies after the last user message, and dropped from earlier ones.
THINKING = (
    "{# tools #}{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
