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
ZONE = "IANA timezone name (e.g., 'America/New_York', 'Europe/London'). Use 'Etc/UTC' as local timezone if none is given."
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


def add_clock_and_calculator(server: MCPServer) -> None:
    """Shapes of well-known servers (free text with an example, a format in the description), with results that never change."""

    def hour_of(name: str) -> int:
        if not name.istitle() and "_" not in name:
            raise ValueError(f"no time zone {name}")
        return sum(map(ord, name)) % 24

    @server.tool(annotations=READS)
    def get_current_time(timezone: Annotated[str, Field(description=ZONE)]) -> dict[str, object]:
        """Get current time in a specific timezone"""
        hour = hour_of(timezone)
        return {"timezone": timezone, "hour": f"{hour:02d}:00", "day_of_week": ("Monday", "Tuesday", "Friday")[hour % 3]}

    @server.tool(annotations=READS)
    def convert_time(
        source_timezone: Annotated[str, Field(description=ZONE)],
        time: Annotated[str, Field(description="Time to convert in 24-hour format (HH:MM)")],
        target_timezone: Annotated[str, Field(description=ZONE)],
    ) -> dict[str, object]:
        """Convert time between timezones"""
        apart = hour_of(target_timezone) - hour_of(source_timezone)
        return {
            "source": source_timezone,
            "target": {"datetime": f"{(int(time[:2]) + apart) % 24:02d}h{time[3:]}"},
            "apart": f"{apart:+d}h",
        }

    @server.tool()
    def calculate(expression: str) -> str:
        """Calculates/evaluates the given expression."""
        left, _, right = expression.partition("+")
        return str(int(left) + int(right))


def add_codes(server: MCPServer) -> None:
    """Values that only a pattern or a format describes, and one in a type that may be null."""

    @server.tool(annotations=READS)
    def order_total(order_id: Annotated[str, Field(pattern=r"^ORD-[0-9]{3}$")]) -> dict[str, int]:
        """Look up the total of an order."""
        return {"total_price": 7 * int(order_id[4:]) + 3}

    @server.tool(annotations=READS)
    def mailbox_size(
        owner: Annotated[str, Field(json_schema_extra={"format": "email"})],
        folder: Annotated[str, Field(description="Such as 'inbox' or 'sent'", json_schema_extra={"type": ["string", "null"]})],
    ) -> dict[str, int]:
        """Look up the size of a mailbox."""
        if "@" not in owner:
            raise ValueError("no address")
        return {"num_messages": sum(map(ord, owner)) % 977 + len(folder)}


SETS = {"good": add_good, "ends": add_ends, "writes": add_writes, "old": add_old_style, "none": lambda _: None}
SETS |= {"shapes": add_clock_and_calculator, "codes": add_codes}

if __name__ == "__main__":
    made = MCPServer("test")
    SETS[sys.argv[1]](made)
    made.run()
