"""An MCP server that doubles numbers: tasks that a script can answer without a model.

It ends in the middle of a call as soon as there is a file where the variable END_WHEN says.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

server = MCPServer("numbers")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def double(number: Annotated[int, Field(ge=10, le=99, description="A number")]) -> dict[str, int]:
    """Double a number."""
    if os.path.exists(os.environ.get("END_WHEN", "")):
        print("out of paper", file=sys.stderr, flush=True)
        os._exit(3)
    return {"number": number, "twice": 2 * number}


if __name__ == "__main__":
    server.run()
