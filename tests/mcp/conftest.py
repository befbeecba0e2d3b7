"""Targets of the test servers in `servers/`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.mcp import McpTarget

SERVERS = Path(__file__).parent / "servers"


@pytest.fixture
def target() -> Callable[..., McpTarget]:
    """`target("plain_server", "good")`"""

    def make(server: str, *arguments: str, **env: str) -> McpTarget:
        return McpTarget(command=(sys.executable, str(SERVERS / f"{server}.py"), *arguments), env=env)

    return make
