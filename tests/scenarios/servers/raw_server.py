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
#: What the tool of this name answers with, after the id.
REPLIES = {
    "half": b'"result": {"content": [{"type": "text", "text": "a\\ud800b"}]}}',
    "half_in_data": b'"result": {"content": [], "structuredContent": {"a": "\\udfff"}}}',
    "half_in_error": b'"error": {"code": 1, "message": "a\\ud800b"}}',
    "other_encoding": b'"result": {"content": [{"type": "text", "text": "a\xe9b"}]}}',
    "lines": '"result": {"content": [{"type": "text", "text": "a\u2028b\u2029c\x85d"}]}}'.encode(),
    "deep": b'"result": {"content": [], "structuredContent": {"a": ' + b"[" * 3000 + b"]" * 3000 + b"}}}",
    "huge": b'"result": {"content": [], "structuredContent": {"a": 1' + b"0" * 5000 + b"}}}",
    "no_result": b'"result": null}',
    "no_message": b'"error": {"code": 1}}',
}


def tools(cursor: str | None) -> dict[str, object]:
    if KIND == "pages":
        page = int(cursor or 0)
        found = [{"name": f"tool.{page}", "description": "Reads.", "inputSchema": {"type": "object"}}]
        return {"tools": found, **({"nextCursor": str(page + 1)} if page < 2 else {})}
    if KIND == "replies":
        return {"tools": [{"name": name, "description": "Reads.", "inputSchema": {"type": "object"}} for name in REPLIES]}
    good = {"name": "fine", "description": "Reads.", "inputSchema": {"type": "object"}}
    return {"tools": [{"name": "odd", "description": "Reads.", "inputSchema": SCHEMAS[KIND]}, good]}


def reply(request: dict[str, object]) -> dict[str, object]:
    method, params = request["method"], request.get("params") or {}
    assert isinstance(params, dict)
    if method == "initialize":
        capabilities = {"tools": {}}
        info = {"name": "raw", "version": "1"}
        return {"result": {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}}
    if method == "tools/list":
        return {"result": tools(params.get("cursor"))}
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
        if message["method"] == "tools/call":
            sys.stdout.buffer.write(b'{"jsonrpc": "2.0", "id": %d, %s\n' % (message["id"], REPLIES[message["params"]["name"]]))
            sys.stdout.buffer.flush()
        elif "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply(message)}), flush=True)
