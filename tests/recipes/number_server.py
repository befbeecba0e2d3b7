"""An MCP server that doubles numbers: tasks that a script can answer without a model.

It speaks JSON-RPC by hand, with the words that the MCP library's server uses: a run starts a handful of servers, and importing the
library takes each of them a second. It ends in the middle of a call as soon as there is a file where the variable END_WHEN says. With the
variable LEAKS it tells all its arguments and variables in its log and in what it says of failures.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

DOUBLE = {
    "name": "double",
    "description": "Double a number.",
    "annotations": {"readOnlyHint": True},
    "inputSchema": {
        "type": "object",
        "title": "doubleArguments",
        "properties": {"number": {"type": "integer", "title": "Number", "description": "A number", "minimum": 10, "maximum": 99}},
        "required": ["number"],
    },
    "outputSchema": {"type": "object", "title": "doubleDictOutput", "additionalProperties": {"type": "integer"}},
}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name != "double":
        return failure(f"Unknown tool: {name}")
    if os.path.exists(os.environ.get("END_WHEN", "")):
        print("out of paper", file=sys.stderr, flush=True)
        os._exit(3)
    try:
        number = int(arguments["number"])
    except (KeyError, TypeError, ValueError):
        return failure("Error executing tool double: number\n  Input should be a valid integer")
    if not 10 <= number <= 99:
        return failure("Error executing tool double: number\n  Input should be from 10 to 99")
    answer = {"number": number, "twice": 2 * number}
    return {"content": [{"type": "text", "text": json.dumps(answer, indent=2)}], "isError": False, "structuredContent": answer}


def failure(text: str) -> dict[str, Any]:
    told = f"{text} ({leaked()})" if "LEAKS" in os.environ else text
    return {"content": [{"type": "text", "text": told}], "isError": True}


def leaked() -> str:
    return f"{sys.argv[1:]} {dict(os.environ)}"


def reply(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            info = {"name": "numbers", "version": ""}
            return {"result": {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}}
        case "tools/list":
            return {"result": {"tools": [DOUBLE]}}
        case "tools/call":
            return {"result": call(params["name"], params.get("arguments") or {})}
        case "ping":
            return {"result": {}}
    return {"error": {"code": -32601, "message": "no such method"}}


if __name__ == "__main__":
    if "LEAKS" in os.environ:
        print(leaked(), file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            answer = reply(message["method"], message.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
