"""Tasks from an MCP server: connect, look at its tools, try them, write tasks whose answers are known to exist."""

from journeyman.scenarios.build import ScenarioSettings, build_scenarios
from journeyman.scenarios.drills import Drill, drills
from journeyman.scenarios.mcp_client import McpServer, ToolResult, open_server
from journeyman.scenarios.proposals import CompletionProposer, InTurn, Proposer
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.target import McpTarget
from journeyman.scenarios.tools import McpTool, usable_tools
from journeyman.scenarios.writer import ChatWriter, Writer
from journeyman.scenarios.written_values import WriterProposer

__all__ = [
    "ChatWriter",
    "CompletionProposer",
    "Drill",
    "InTurn",
    "McpServer",
    "McpTarget",
    "McpTool",
    "Proposer",
    "ScenarioSet",
    "ScenarioSettings",
    "ToolMaterial",
    "ToolResult",
    "Writer",
    "WriterProposer",
    "build_scenarios",
    "drills",
    "open_server",
    "usable_tools",
]
