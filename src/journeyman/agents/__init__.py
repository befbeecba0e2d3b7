"""Ready agents: the plain multi-turn tool loop on an MCP server, and the pool of servers it calls."""

from journeyman.agents.server_pool import Isolation, ServerPool
from journeyman.agents.tool_loop import SYSTEM_PROMPT, ToolLoop, ToolLoopSettings

__all__ = ["SYSTEM_PROMPT", "Isolation", "ServerPool", "ToolLoop", "ToolLoopSettings"]
