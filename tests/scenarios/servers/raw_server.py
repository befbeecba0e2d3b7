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


def tools(cursor: str | None) -> dict[str, object]:
    if KIND == "pages":
        page = int(cursor or 0)
        found = [{"name": f"tool.{page}", "description": "Reads.", "inputSchema": {"type": "object"}}]
        return {"tools": found, **({"nextCursor": str(page + 1)} if page < 2 else {})}
    good = {"name": "fine", "description": "Reads.", "inputSchema": {"type": "object"}}
    if KIND == "latin1":
        return {"tools": [good]}
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
    if method == "tools/call":
        return {"result": {"content": [{"type": "text", "text": "café"}], "isError": False}}
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
            answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply(message)}, ensure_ascii=False)
            sys.stdout.buffer.write(f"{answer}\n".encode("latin-1" if KIND == "latin1" else "utf-8"))
            sys.stdout.flush()
