"""From --server, --url, --header and --env to the MCP server that is meant. For a run they give again the secrets that it did not keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.errors import SettingError
from journeyman.types.secrets import hide_in_url

if TYPE_CHECKING:
    from journeyman.scenarios.target import McpTarget

_EXAMPLE = '--server "python -m mcp_server_time" or --url https://host/mcp'


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What was given of an MCP server on a command line."""

    server: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    headers: Sequence[str] | None = field(default=None, repr=False)
    env: Sequence[str] | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.server or self.url or self.headers or self.env)


def target_from_options(server: str | None, url: str | None, headers: Sequence[str] | None, env: Sequence[str] | None) -> McpTarget:
    """The target of a command line. Raises SettingError when the options contradict each other or cannot be read."""
    if (server is None) == (url is None):
        given = "both --server and --url were given" if server is not None else "no MCP server was given"
        raise SettingError(given, hint=f"give one: {_EXAMPLE}")
    if server is not None:
        if headers:
            raise SettingError("--header is for --url: a server started by a command gets no HTTP headers", hint="use --env")
        from journeyman.scenarios.target import McpTarget

        return McpTarget.model_validate(McpTarget.parse(server).model_dump() | {"env": pairs(env, "=", "--env")})
    if env:
        raise SettingError("--env is for --server: a server at a URL has its own environment", hint="use --header")
    from journeyman.scenarios.target import McpTarget

    if not str(url).startswith(("http://", "https://")):
        shown = hide_in_url(str(url))
        raise SettingError(f"--url {str(shown)!r} is not the address of an MCP server", hint="it starts with http:// or https://")
    target = McpTarget.model_validate({"url": url, "headers": pairs(headers, ":", "--header")})
    target.revealed()  # a header that cannot be sent is refused before anything is done
    return target


def options_over(known: Mapping[str, Any], options: TargetOptions) -> dict[str, Any]:
    """A run's target as data, with the options laid over it: --header and --env alone leave its command or URL. Raises SettingError."""
    found = dict(known)
    if options.server is not None or options.url is not None:
        given = target_from_options(options.server, options.url, options.headers, options.env)
        found |= {"command": given.command, "url": given.url, "headers" if given.command else "env": {}}
    elif options.headers and not known.get("url"):
        raise SettingError("--header is for a server at a URL; this run's is started by a command", hint="use --env")
    elif options.env and not known.get("command"):
        raise SettingError("--env is for a server started by a command; this run's is at a URL", hint="use --header")
    for name, values in (("headers", pairs(options.headers, ":", "--header")), ("env", pairs(options.env, "=", "--env"))):
        found[name] = {**(found.get(name) or {}), **values}
    return found


def same_target(known: McpTarget, options: TargetOptions) -> McpTarget:
    """A run's target with the secrets that were given again. Raises SettingError for options that name another server."""
    from journeyman.scenarios.target import McpTarget
    from journeyman.types.secrets import ALL_HIDDEN

    given = McpTarget.model_validate(options_over(known.model_dump(), options))
    before, after = (one.model_dump(mode="json", context=ALL_HIDDEN) for one in (known, given))
    if before != after:
        raise SettingError(
            f"the run has another MCP server: {known.label}", hint="give it again as it was, with its secrets", reason="other_target"
        )
    return given


def target_of_run(run: str, home: Path, options: TargetOptions) -> McpTarget:
    """The MCP server of a run, with the secrets that were given again. Raises SettingError, NotFoundError."""
    from journeyman.cli.runs import open_store
    from journeyman.recipes.mcp_settings import McpTrain
    from journeyman.recipes.resume import run_settings

    with open_store(home, run) as store:
        kind = store.runs.get(run).kind
        if kind != "mcp":
            raise SettingError(f"run {run!r} ({kind}) has no MCP server", hint="leave out --server, --url, --header and --env")
        return same_target(run_settings(store, run, McpTrain).target, options)


def pairs(words: Sequence[str] | None, separator: str, option: str) -> dict[str, str]:
    """`NAME=VALUE` (or `NAME: VALUE`) words as a mapping.

    Example:
        >>> pairs(["Authorization: Bearer abc"], ":", "--header")
        {'Authorization': 'Bearer abc'}
    """
    found = {}
    for number, word in enumerate(words or (), 1):
        name, found_separator, value = word.partition(separator)
        if not found_separator or not name.strip():
            # Not what was given: it may be the secret alone.
            raise SettingError(
                f"{option} number {number} is not NAME{separator}VALUE (given: {len(word)} characters, not shown)",
                hint=f"write {option} 'NAME{separator}VALUE'",
                reason="malformed_key",
            )
        found[name.strip()] = value.strip()
    return found
