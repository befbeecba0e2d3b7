"""Options that several commands share, so that they are spelt and explained once. Imports only what `--help` needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of runs, adapters and reports \\[default: .journeyman, or JOURNEYMAN_HOME].", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="Base model: smollm2-135m, a folder, or a Hugging Face id \\[default: smollm2-135m].", show_default=False),
]
ServerOption = Annotated[
    str | None,
    typer.Option("--server", help='Command that starts an MCP server on stdio, e.g. "python -m mcp_server_time".', metavar="CMD"),
]
UrlOption = Annotated[str | None, typer.Option("--url", help="URL of an MCP server (streamable HTTP).", metavar="URL")]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--header", help='HTTP header for --url, e.g. "Authorization: Bearer TOKEN"; repeatable.', metavar="NAME: VALUE"),
]
EnvOption = Annotated[list[str] | None, typer.Option("--env", help="Environment variable for --server; repeatable.", metavar="NAME=VALUE")]
ToolsOption = Annotated[
    str | None,
    typer.Option("--tools", help="Use only these tools, separated by commas \\[default: all that only read].", metavar="NAMES"),
]
ReadOnlyOption = Annotated[
    str | None,
    typer.Option("--read-only", help="Tools that only read although the server does not say so, separated by commas.", metavar="NAMES"),
]
AllowWritesOption = Annotated[
    bool,
    typer.Option(
        "--allow-writes", help="Also use tools that are not known to only read: they ARE called. Give a server that may be spoilt."
    ),
]
WriterOption = Annotated[
    str | None,
    typer.Option(
        "--writer", help="Model that words tasks and proposes values, e.g. openai/gpt-5-mini \\[default: templates].", metavar="MODEL"
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of tasks, split, order and sampling \\[default: 0].", show_default=False)
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="Which column is which, e.g. prompt=question; repeatable.", metavar="OURS=THEIRS", show_default=False),
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave faulty rows out, count them and tell the first.")]
CountOption = Annotated[int, typer.Option("--count", min=1, help="How many to show.")]


def names_of(text: str | None, option: str) -> tuple[str, ...] | None:
    """`a, b` as ("a", "b"); None when the option was not given. Raises SettingError when it names nothing."""
    from journeyman.errors import SettingError

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise SettingError(f"{option} {text!r} names no tool", hint=f"write {option} NAME,NAME, or leave it out", reason="no_names")
    return names


def home_folder(given: Path | None) -> Path:
    """The home folder: as given, else from the environment, else the default."""
    from journeyman import config

    return config.home_folder(given)


def checked_key_option(given: str | None) -> str | None:
    """A server's key as it is sent. Raises SettingError (malformed_key) before anything slow begins."""
    from journeyman.types.secrets import checked_key

    return None if given is None else checked_key(given, "--api-key (JOURNEYMAN_API_KEY)")


def columns_of(given: list[str] | None) -> dict[str, str]:
    """Our name of a column -> its name in the file, from `--column`. Raises SettingError."""
    from journeyman.errors import SettingError

    columns = {}
    for text in given or ():
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise SettingError(f"--column {text!r} does not say which column is which", hint="write OURS=THEIRS, e.g. prompt=question")
        columns[ours] = theirs
    return columns
