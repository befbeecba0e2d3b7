"""Tasks from an MCP server: try its tools, write tasks whose answers are known to exist. Not for the connection (`mcp`)."""

from journeyman.scenarios.build import ScenarioSettings, build_scenarios
from journeyman.scenarios.drills import drills
from journeyman.scenarios.proposals import CompletionProposer, InTurn, Proposer
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.writer import ChatWriter, Writer, WriterProposer

__all__ = [
    "ChatWriter",
    "CompletionProposer",
    "InTurn",
    "Proposer",
    "ScenarioSet",
    "ScenarioSettings",
    "ToolMaterial",
    "Writer",
    "WriterProposer",
    "build_scenarios",
    "drills",
]
