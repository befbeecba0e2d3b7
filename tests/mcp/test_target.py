"""How a server is named."""

from __future__ import annotations

from journeyman.mcp.target import McpTarget


def test_a_heading_names_the_program_without_its_folder_and_keeps_what_it_is_given():
    target = McpTarget(command=("/opt/venv/bin/python", "-m", "a_server", "--data", "/srv/data"))
    assert target.title == "python -m a_server --data /srv/data"
    assert target.label == "/opt/venv/bin/python -m a_server --data /srv/data"


def test_a_heading_names_the_address_of_a_server_elsewhere():
    assert McpTarget(url="http://127.0.0.1:9/mcp").title == "http://127.0.0.1:9/mcp"
