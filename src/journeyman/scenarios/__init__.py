"""Tasks from an MCP server: connect, look at its tools, try them, write tasks whose answers are known to exist."""

from journeyman.scenarios.mcp_client import McpServer, ToolResult, open_server
from journeyman.scenarios.target import McpTarget
from journeyman.scenarios.tools import McpTool, usable_tools

__all__ = ["McpServer", "McpTarget", "McpTool", "ToolResult", "open_server", "usable_tools"]
