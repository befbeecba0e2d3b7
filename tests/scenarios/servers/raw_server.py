"""A server that speaks JSON-RPC by hand, to send what the library would never send: pages of tools, odd schemas, junk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from odd_tools import FINE, HINTS, NAMELESS, NOTHING, ODD, PROMISE, RESULTS, USABLE  # noqa: E402

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
        case "page_that_hangs" | "page_that_fails" | "page_that_is_text":
            return {"tools": [FINE], "nextCursor": "1"}
        case "list_of_text":
            return {"tools": "fine"}
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
        case "breaks_promise":
            number = {"type": "object", "properties": {"side": {"type": "integer", "minimum": 1, "maximum": 40}}, "required": ["side"]}
            return {"tools": [{**FINE, "name": "square", "inputSchema": number}, {**FINE, "name": "broken_promise", **PROMISE}]}
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
    if method == "tools/list" and params.get("cursor") and KIND == "page_that_fails":
        return {"error": {"code": -32603, "message": "the disk is full"}}
    if method == "tools/list" and params.get("cursor") and KIND == "page_that_is_text":
        return {"result": "fine"}
    if method == "tools/list":
        return {"result": tools(params.get("cursor"))}
    if method == "tools/call" and params["name"] == "square":
        area = params["arguments"]["side"] ** 2
        return {"result": {"content": [{"type": "text", "text": json.dumps({"area": area})}]}}
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
        if message.get("params", {}).get("cursor") and KIND == "page_that_hangs":
            continue
        if "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply(message)}), flush=True)
