"""Tools as servers list them now and then, and results as they give them; `raw_server` sends these."""

from __future__ import annotations

# Each of these is an entry of the list beside a tool "fine", which must work whatever stands beside it.
NOTHING = {"type": "object"}
NULLS = {"type": "integer", "minimum": None, "enum": [1, None], "description": None}
DEEP: dict[str, object] = {"type": "string"}
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}
MUTUAL = {f"T{one}": {"type": "object", "properties": {f"p{two}": {"$ref": f"#/$defs/T{two}"} for two in range(12)}} for one in range(12)}
ODD: dict[str, object] = {
    "no_schema": {"name": "no_schema"},
    "null_schema": {"name": "null_schema", "inputSchema": None},
    "list_schema": {"name": "list_schema", "inputSchema": []},
    "text_schema": {"name": "text_schema", "inputSchema": "object"},
    "true_schema": {"name": "true_schema", "inputSchema": True},
    "list_properties": {"name": "list_properties", "inputSchema": {"type": "object", "properties": [1]}},
    "array_root": {"name": "array_root", "inputSchema": {"type": "array", "items": {"type": "string"}}},
    "unknown_type": {"name": "unknown_type", "inputSchema": {"type": "object", "properties": {"a": {"type": "banana"}}}},
    "js_pattern": {"name": "js_pattern", "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "\\p{L}("}}}},
    "draft_4": {
        "name": "draft_4",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}},
    },
    "draft_3": {"name": "draft_3", "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "required": True}}}},
    "false_schema": {"name": "false_schema", "inputSchema": False},
    "text_required": {"name": "text_required", "inputSchema": {"type": "object", "properties": {"a": {}}, "required": "a"}},
    "endless_repeat": {
        "name": "endless_repeat",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "a{99999999999}"}}},
    },
    "lost_ref": {"name": "lost_ref", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/Gone"}}}},
    "far_ref": {"name": "far_ref", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}},
    "too_many_parts": {
        "name": "too_many_parts",
        "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/T0"}}, "$defs": MUTUAL},
    },
    "list_output": {"name": "list_output", "inputSchema": NOTHING, "outputSchema": []},
    "odd_output": {
        "name": "odd_output",
        "inputSchema": NOTHING,
        "outputSchema": {"type": "object", "properties": {"a": {"type": "banana"}}},
    },
    "lost_output": {
        "name": "lost_output",
        "inputSchema": NOTHING,
        "outputSchema": {"type": "object", "properties": {"a": {"$ref": "#/x"}}},
    },
}
NAMELESS: list[object] = [
    {"name": "", "inputSchema": NOTHING},
    {"name": None, "inputSchema": NOTHING},
    {"inputSchema": NOTHING},
    {"name": "x" * 100_000, "inputSchema": NOTHING},
    "text",
    None,
]
READS = {"readOnlyHint": True}
FINE = {"name": "fine", "description": "Reads.", "inputSchema": NOTHING, "annotations": READS}
# Odd, but usable: what is odd does not matter for calling them.
USABLE: list[dict[str, object]] = [
    {"name": "empty_schema", "inputSchema": {}, "annotations": READS},
    {"name": "null_properties", "inputSchema": {"type": "object", "properties": None, "required": None}, "annotations": READS},
    {"name": "null_keywords", "inputSchema": {"type": "object", "properties": {"a": NULLS}, "$defs": None}, "annotations": READS},
    {
        "name": "odd_pattern",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[[a]b$"}}},
        "annotations": READS,
    },
    {"name": "no_type", "inputSchema": {"properties": {"a": {"type": "string"}}}, "annotations": READS},
    {"name": "long_" + "x" * 500, "inputSchema": NOTHING, "annotations": READS},
    {"name": "deep", "inputSchema": {"type": "object", "properties": {"a": DEEP}}, "annotations": READS},
    {
        "name": "tree",
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/N"}},
            "$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}}},
        },
        "annotations": READS,
    },
    {"name": "flag", "inputSchema": {"type": "object", "properties": {"a": True}}, "annotations": READS},
    {
        "name": "said_badly",
        "inputSchema": NOTHING,
        "description": 7,
        "title": [],
        "annotations": {**READS, "idempotentHint": "often", "x": 1},
    },
    {"name": "list_of_icons", "inputSchema": NOTHING, "icons": "none", "_meta": [], "execution": 3, "annotations": READS},
]
HINTS = [
    ("plain", {}),
    ("null", {"annotations": None}),
    ("text", {"annotations": "readOnlyHint"}),
    ("as_text", {"annotations": {"readOnlyHint": "true"}}),
    ("as_number", {"annotations": {"readOnlyHint": 1}}),
    ("as_null", {"annotations": {"readOnlyHint": None}}),
    ("says_no", {"annotations": {"readOnlyHint": False}}),
    ("says_harmless", {"annotations": {"destructiveHint": False, "idempotentHint": True}}),
    ("says_both", {"annotations": {"readOnlyHint": True, "destructiveHint": True}}),
    ("delete_all", {"annotations": {"readOnlyHint": True}}),
    ("says_yes", {"annotations": {"readOnlyHint": True}}),
    ("says_yes_and_text", {"annotations": {"readOnlyHint": True, "destructiveHint": "no"}}),
]
# Texts that a strict parser refuses as a whole; each is what one tool says of its argument.
UNREADABLE: dict[str, bytes] = {
    "nested": b'{"items":' * 3000 + b"{}" + b"}" * 3000,
    "huge_number": b'{"type": "integer", "maximum": ' + b"9" * 5000 + b"}",
    "half": b'{"type": "string", "description": "half \\ud83d"}',
    "bell": b'{"type": "string", "description": "ring \x07\x1b[31m"}',
    "latin_1": b'{"type": "string", "description": "caf\xe9"}',
}
CANNOT_BE_USED = {"nested", "huge_number"}


def unreadable_page() -> bytes:
    tools = [b'{"name": "%s", "inputSchema": {"properties": {"a": %s}}}' % (name.encode(), text) for name, text in UNREADABLE.items()]
    return b'{"tools": [%s]}' % b", ".join(tools)


RESULTS: dict[str, object] = {
    "null_content": {"content": None, "structuredContent": {"a": 1}},
    "structured_only": {"structuredContent": {"a": 1}},
    "picture": {"content": [{"type": "image", "data": "AA==", "mimeType": "image/png"}]},
    "huge": {"content": [{"type": "text", "text": "x" * 3_000_000}]},
    "text_content": {"content": "hello"},
    "unknown_block": {"content": [{"type": "hologram"}]},
    "nothing": {},
    "null_fields": {"content": [{"type": "text", "text": "1"}], "isError": None, "structuredContent": None, "_meta": None},
    "odd_remarks": {"content": [{"type": "text", "text": "1", "annotations": {"priority": 9}, "_meta": 3}]},
    "null_result": None,
    "list_result": [1],
    "text_result": "fine",
    "broken_promise": {"content": [{"type": "text", "text": "1"}], "structuredContent": {"a": "one"}},
    "forgotten_promise": {"content": [{"type": "text", "text": "1"}]},
}
PROMISE = {"outputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
