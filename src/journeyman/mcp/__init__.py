"""MCP servers: where one is, the connection to it, its tools and what they return. Not for tasks (`scenarios`) nor agents (`agents`)."""

from journeyman.mcp.client import McpServer, open_server
from journeyman.mcp.results import ToolResult
from journeyman.mcp.target import McpTarget
from journeyman.mcp.tools import McpTool, choose_tools

__all__ = ["McpServer", "McpTarget", "McpTool", "ToolResult", "choose_tools", "open_server"]
