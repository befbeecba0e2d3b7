"""Ready agents on the client: the plain multi-turn tool loop, and a pool of MCP servers for it. They know no engine and no trainer."""
