"""The test servers are those of the connection's tests."""

from tests.mcp.conftest import target as target
