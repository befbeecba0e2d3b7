"""A server that speaks JSON-RPC by hand, to send what the library would never send: pages of tools, odd schemas, junk."""

from __future__ import annotations

import json
import sys

KIND = sys.argv[1]
SCHEMAS = {
    "invalid": {"type": "object", "properties": {"a": {"type": "banana"}}},
    "ref": {
        "type": "object",
        "properties": {"place": {"$ref": "#/$defs/Place"}, "size": {"oneOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]}},
        "required": ["place"],
        "$defs": {"Place": {"type": "string", "title": "Place", "enum": ["north", "south"]}},
    },
    "lost": {"type": "object", "properties": {"a": {"$ref": "#/$defs/Gone"}}},
}


# Each of these is an entry of the list beside a tool "fine", which must work whatever stands beside it.
NOTHING = {"type": "object"}
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
    "null_properties": {"name": "null_properties", "inputSchema": {"type": "object", "properties": None}},
    "list_properties": {"name": "list_properties", "inputSchema": {"type": "object", "properties": [1]}},
    "array_root": {"name": "array_root", "inputSchema": {"type": "array", "items": {"type": "string"}}},
    "unknown_type": {"name": "unknown_type", "inputSchema": {"type": "object", "properties": {"a": {"type": "banana"}}}},
    "js_pattern": {"name": "js_pattern", "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "\\p{L}("}}}},
    "draft_4": {
        "name": "draft_4",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}},
    },
    "text_required": {"name": "text_required", "inputSchema": {"type": "object", "properties": {"a": {}}, "required": "a"}},
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
    "text",
    None,
]
READS = {"readOnlyHint": True}
FINE = {"name": "fine", "description": "Reads.", "inputSchema": NOTHING, "annotations": READS}
# Odd, but usable: what is odd does not matter for calling them.
USABLE: list[dict[str, object]] = [
    {"name": "empty_schema", "inputSchema": {}, "annotations": READS},
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
RESULTS: dict[str, object] = {
    "null_content": {"content": None, "structuredContent": {"a": 1}},
    "structured_only": {"structuredContent": {"a": 1}},
    "picture": {"content": [{"type": "image", "data": "AA==", "mimeType": "image/png"}]},
    "huge": {"content": [{"type": "text", "text": "x" * 3_000_000}]},
    "text_content": {"content": "hello"},
    "unknown_block": {"content": [{"type": "hologram"}]},
    "nothing": {},
    "broken_promise": {"content": [{"type": "text", "text": "1"}], "structuredContent": {"a": "one"}},
    "forgotten_promise": {"content": [{"type": "text", "text": "1"}]},
}
PROMISE = {"outputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}


def tools(cursor: str | None) -> dict[str, object]:
    page = int(cursor or 0)
    if KIND == "pages":
        found = [{"name": f"tool.{page}", "description": "Reads.", "inputSchema": {"type": "object"}}]
        return {"tools": found, **({"nextCursor": str(page + 1)} if page < 2 else {})}
    match KIND:
        case "same_cursor":
            return {"tools": [FINE], "nextCursor": "1"}
        case "endless_copies":
            return {"tools": [FINE], "nextCursor": str(page + 1)}
        case "endless_news":
            return {"tools": [{**FINE, "name": f"fine{page}"}], "nextCursor": str(page + 1)}
        case "number_cursor":
            return {"tools": [FINE], "nextCursor": 1}
        case "empty_pages":
            return {"tools": [FINE] if page == 2 else [], **({"nextCursor": str(page + 1)} if page < 2 else {})}
        case "odd_tools":
            return {"tools": [*ODD.values(), *NAMELESS, *USABLE, FINE]}
        case "twice":
            return {"tools": [FINE, FINE, {**FINE, "name": "x"}, {**FINE, "name": "x", "annotations": {}}]}
        case "hints":
            return {"tools": [{"name": name, "inputSchema": NOTHING, **more} for name, more in HINTS]}
        case "alike_names":
            return {"tools": [{**FINE, "name": "a.b", "annotations": {}}, {**FINE, "name": "a_b"}]}
        case "results":
            return {"tools": [{**FINE, "name": name, **(PROMISE if "promise" in name else {})} for name in RESULTS]}
    return {"tools": [{"name": "odd", "description": "Reads.", "inputSchema": SCHEMAS[KIND]}, FINE]}


def reply(request: dict[str, object]) -> dict[str, object]:
    method, params = request["method"], request.get("params") or {}
    assert isinstance(params, dict)
    if method == "initialize":
        capabilities = {"tools": {}}
        info = {"name": "raw", "version": "1"}
        return {"result": {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}}
    if method == "tools/list":
        return {"result": tools(params.get("cursor"))}
    if method == "tools/call":
        called = RESULTS.get(params["name"], {"content": [{"type": "text", "text": f"called {params['name']}"}]})
        return {"result": called}
    return {"error": {"code": -32601, "message": "no such method"}}


if __name__ == "__main__":
    if KIND == "junk":
        print("Starting up, please wait!", flush=True)
        sys.stdin.read()
    if KIND == "hang":
        sys.stdin.read()
    if KIND == "exit":
        print("API_TOKEN is not set", file=sys.stderr)
        sys.exit(3)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply(message)}), flush=True)
