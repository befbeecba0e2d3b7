"""A server that speaks JSON-RPC by hand, to send what the library would never send: pages of tools, odd schemas, junk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from odd_tools import FINE, HINTS, NAMELESS, NOTHING, ODD, PROMISE, RESULTS, USABLE, unreadable_page

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


NUMBER = {"type": "object", "properties": {"side": {"type": "integer", "minimum": 1, "maximum": 40}}, "required": ["side"]}
NO_NUMBER = {"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 5}
PAGES: dict[str, list[object]] = {
    "latin1": [FINE],
    "same_cursor": [FINE],
    "number_cursor": [FINE],
    "endless_copies": [FINE],
    "page_that_hangs": [FINE],
    "page_that_fails": [FINE],
    "page_that_is_text": [FINE],
    "odd_tools": [*ODD.values(), *NAMELESS, *USABLE, FINE],
    "no_json": [{**FINE, "description": "Half \ud800.", "inputSchema": {**NOTHING, "examples": [float("nan")]}}, {**FINE, "name": "other"}],
    "many_at_once": [{**FINE, "name": f"fine{number}"} for number in range(1500)],
    "twice": [FINE, FINE, {**FINE, "name": "x"}, {**FINE, "name": "x", "annotations": {}}],
    "hints": [{"name": name, "inputSchema": NOTHING, **more} for name, more in HINTS],
    "alike_names": [{**FINE, "name": "a.b", "annotations": {}}, {**FINE, "name": "a_b"}],
    "results": [{**FINE, "name": name, **(PROMISE if "promise" in name else {})} for name in RESULTS],
    "breaks_promise": [
        {**FINE, "name": "impossible", "inputSchema": {**NUMBER, "properties": {"side": NO_NUMBER}}},
        {**FINE, "name": "square", "inputSchema": NUMBER},
        {**FINE, "name": "broken_promise", **PROMISE},
    ],
}


def tools(page: int) -> list[object]:
    if KIND == "pages":
        return [{"name": f"tool.{page}", "description": "Reads.", "inputSchema": {"type": "object"}}]
    if KIND == "endless_news":
        return [{**FINE, "name": f"fine{page}"}]
    if KIND == "empty_pages":
        return [FINE] if page == 2 else []
    return PAGES[KIND] if KIND in PAGES else [{"name": "odd", "description": "Reads.", "inputSchema": SCHEMAS[KIND]}, FINE]


def next_cursor(page: int) -> object:
    if KIND in ("pages", "empty_pages"):
        return str(page + 1) if page < 2 else None
    if KIND in ("endless_copies", "endless_news"):
        return str(page + 1)
    return {"number_cursor": 1}.get(KIND, "1" if "page_that" in KIND or KIND == "same_cursor" else None)


def listed(cursor: str | None) -> dict[str, object]:
    if cursor and KIND == "page_that_fails":
        return {"error": {"code": -32603, "message": "the disk is full"}}
    if cursor and KIND == "page_that_is_text":
        return {"result": "fine"}
    if KIND == "unreadable":
        return {"result": "UNREADABLE"}
    page = int(cursor or 0)
    following = next_cursor(page)
    return {"result": {"tools": tools(page), **({} if following is None else {"nextCursor": following})}}


def called(name: str, arguments: dict[str, int]) -> object:
    if name == "square":
        return {"content": [{"type": "text", "text": json.dumps({"area": arguments["side"] ** 2})}]}
    if KIND == "latin1":
        return {"content": [{"type": "text", "text": "café"}]}
    if KIND == "no_json":
        return {"content": [{"type": "text", "text": "half \udc00"}], "structuredContent": {"a": float("inf")}}
    return RESULTS.get(name, {"content": [{"type": "text", "text": f"called {name}"}]})


def reply(request: dict[str, object]) -> dict[str, object]:
    method, params = request["method"], request.get("params") or {}
    assert isinstance(params, dict)
    if method == "initialize":
        capabilities = {"tools": {}}
        info = {"name": "raw", "version": "1"}
        return {"result": {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}}
    if method == "tools/list" and KIND != "no_such_method":
        return listed(params.get("cursor"))
    if method == "tools/call":
        return {"result": called(params["name"], params["arguments"])}
    return {"error": {"code": -32601, "message": "no such method"}}


if __name__ == "__main__":
    if KIND == "junk":
        print("Starting up, please wait!", flush=True)
        sys.stdin.read()
    if KIND == "json_junk":
        print(json.dumps({"level": 30, "msg": "Starting up"}), flush=True)
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
            answer = {"jsonrpc": "2.0", "id": message["id"], **reply(message)}
            text = json.dumps(answer, ensure_ascii=KIND != "latin1").encode("latin-1")
            sys.stdout.buffer.write(text.replace(b'"UNREADABLE"', unreadable_page()) + b"\n")
            sys.stdout.buffer.flush()
