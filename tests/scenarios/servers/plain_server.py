"""An MCP server with a bit of everything; argument 1 names the set of tools."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

READS = ToolAnnotations(read_only_hint=True)
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Chad": "N'Djamena",
}
CAPITALS |= {"Norway": "Oslo", "Poland": "Warsaw", "Cuba": "Havana", "Egypt": "Cairo", "India": "New Delhi"}


class Box(BaseModel):
    """Nested, so that the schema has a $ref."""

    width: int = Field(ge=1, le=50)
    height: int = Field(ge=1, le=50)


def add_good(server: MCPServer) -> None:
    @server.tool(annotations=READS)
    def findCapital(country_name: Annotated[str, Field(description="Country name in English, e.g. 'France', 'Italy'")]) -> dict[str, str]:
        """Find the capital of a country."""
        if country_name not in CAPITALS:
            raise ValueError("no such country")
        return {"country": country_name, "capital_city": CAPITALS[country_name]}

    @server.tool()
    def box_area(box: Box, unit: Literal["cm", "inch"] = "cm") -> str:
        """Compute the area of a box."""
        return f"{box.width * box.height} square {unit}"

    @server.tool()
    def delete_everything() -> str:
        """Delete everything."""
        open(os.environ["MARK"], "w").close()
        return "gone"


def add_ends(server: MCPServer) -> None:
    @server.tool(annotations=READS)
    def die(code: int) -> str:
        """End the server."""
        print("dying now", file=sys.stderr, flush=True)
        os._exit(code)

    @server.tool(annotations=READS)
    async def hang() -> str:
        """Never answer."""
        import anyio

        await anyio.sleep_forever()
        return ""

    @server.tool(annotations=READS)
    def number() -> str:
        """The process that answers."""
        return str(os.getpid())


def add_writes(server: MCPServer) -> None:
    @server.tool()
    def create_note(text: str) -> str:
        """Create a note."""
        return "ok"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True))
    def tidy() -> str:
        """Tidy."""
        return "ok"


def add_old_style(server: MCPServer) -> None:
    @server.tool()
    def lookup(word: Annotated[str, Field(description="A word such as 'cat', 'dog', 'xyz' or 'qqq'")]) -> str:
        """Looks up a word."""
        return f"{word} has {len(word)} letters" if word.isalpha() and word not in ("xyz", "qqq") else f"Error: no such word {word}"


SETS = {"good": add_good, "ends": add_ends, "writes": add_writes, "old": add_old_style, "none": lambda _: None}

if __name__ == "__main__":
    made = MCPServer("test")
    SETS[sys.argv[1]](made)
    made.run()
