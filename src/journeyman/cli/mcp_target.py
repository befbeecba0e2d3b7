"""From --server, --url, --header and --env to the MCP server that is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.scenarios.target import McpTarget

_EXAMPLE = '--server "python -m mcp_server_time" or --url https://host/mcp'


def target_from_options(server: str | None, url: str | None, headers: Sequence[str] | None, env: Sequence[str] | None) -> McpTarget:
    """The target of a command line. Raises SettingError when the options contradict each other or cannot be read."""
    if (server is None) == (url is None):
        given = "both --server and --url were given" if server is not None else "no MCP server was given"
        raise SettingError(given, hint=f"give one: {_EXAMPLE}")
    if server is not None:
        if headers:
            raise SettingError("--header is for --url: a server started by a command gets no HTTP headers", hint="use --env")
        from journeyman.scenarios.target import McpTarget

        return McpTarget.parse(server).model_copy(update={"env": pairs(env, "=", "--env")})
    if env:
        raise SettingError("--env is for --server: a server at a URL has its own environment", hint="use --header")
    from journeyman.scenarios.target import McpTarget

    if not str(url).startswith(("http://", "https://")):
        raise SettingError(f"--url {url!r} is not the address of an MCP server", hint="it starts with http:// or https://")
    target = McpTarget(url=url, headers=pairs(headers, ":", "--header"))
    return target.model_copy(update={"headers": target.sent_headers()})


def pairs(words: Sequence[str] | None, separator: str, option: str) -> dict[str, str]:
    """`NAME=VALUE` (or `NAME: VALUE`) words as a mapping.

    Example:
        >>> pairs(["Authorization: Bearer abc"], ":", "--header")
        {'Authorization': 'Bearer abc'}
    """
    found = {}
    for word in words or ():
        name, found_separator, value = word.partition(separator)
        if not found_separator or not name.strip():
            # Not what was given: it may be the secret alone.
            raise SettingError(
                f"{option} is not NAME{separator}VALUE (given: {len(word)} characters, not shown)",
                hint=f"write {option} 'NAME{separator}VALUE'",
                reason="malformed_key",
            )
        found[name.strip()] = value.strip()
    return found
