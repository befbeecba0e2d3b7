"""Options that several commands share, spelt and explained once, alone or as groups; and what is read from them.

Imports only what `--help` needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.mcp.target import McpTarget
    from journeyman.scenarios import ScenarioSettings

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
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of tasks, split, order and sampling \\[default: 0].", show_default=False)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, e.g. grpo.learning_rate=1e-4; repeatable.", metavar="NAME=VALUE")
]
AllowChangedOption = Annotated[
    bool, typer.Option("--allow-changed-settings", help="With --resume: go on although settings given here differ from the run's.")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="Which column is which, e.g. prompt=question; repeatable.", metavar="OURS=THEIRS", show_default=False),
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave faulty rows out, count them and tell the first.")]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: None is one that was not."""
    return {name: value for name, value in options.items() if value is not None}


def names_of(text: str | None, option: str) -> tuple[str, ...] | None:
    """`a, b` as ("a", "b"); None when the option was not given. Raises SettingError when it names nothing."""
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
    columns = {}
    for text in given or ():
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            hint = "write OURS=THEIRS, e.g. prompt=question"
            raise SettingError(f"--column {text!r} does not say which column is which", hint=hint, reason="no_column")
        columns[ours] = theirs
    return columns


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer takes it: in the place of a parameter that is a group of options, a dataclass, stand its fields."""

    def run(**values: Any) -> None:
        _call(command, values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(_options(command))  # type: ignore[attr-defined]
    return run


def _options(target: Callable[..., Any]) -> list[inspect.Parameter]:
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(target, eval_str=True).parameters.values():
        is_group = is_dataclass(parameter.annotation)
        options += _options(parameter.annotation) if is_group else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    return options


def _call(target: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    kinds = {name: parameter.annotation for name, parameter in inspect.signature(target, eval_str=True).parameters.items()}
    return target(**{name: _call(kind, values) if is_dataclass(kind) else values[name] for name, kind in kinds.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Which tools of an MCP server may be called."""

    tools: ToolsOption = None
    read_only: ReadOnlyOption = None
    allow_writes: AllowWritesOption = False

    def given(self) -> dict[str, Any]:
        """Settings from the options that were given. Raises SettingError for one that names nothing."""
        return given(
            tools=names_of(self.tools, "--tools"),
            read_only=names_of(self.read_only, "--read-only"),
            allow_writes=self.allow_writes or None,
        )

    def settings(self) -> ScenarioSettings:
        """Raises SettingError."""
        from journeyman.scenarios import ScenarioSettings

        return ScenarioSettings(**self.given())


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What is said of an MCP server. For a run it gives again the secrets that were not kept."""

    server: ServerOption = field(default=None, repr=False)
    url: UrlOption = field(default=None, repr=False)
    headers: HeaderOption = field(default=None, repr=False)
    env: EnvOption = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.names_server or bool(self.headers or self.env)

    @property
    def names_server(self) -> bool:
        return self.server is not None or self.url is not None

    def target(self) -> McpTarget:
        """The server they name. Raises SettingError when the options contradict each other or cannot be read."""
        from journeyman.mcp.target import McpTarget
        from journeyman.types.secrets import hide_in_url

        if (self.server is None) == (self.url is None):
            problem = "both --server and --url were given" if self.names_server else "no MCP server was given"
            hint = 'give one: --server "python -m mcp_server_time" or --url https://host/mcp'
            raise SettingError(problem, hint=hint, reason="both_targets" if self.names_server else "no_target")
        if self.server is not None:
            if self.headers:
                raise _not_for("--header", "--url: a server started by a command gets no HTTP headers", "--env")
            return McpTarget.model_validate(McpTarget.parse(self.server).model_dump() | {"env": pairs(self.env, "=", "--env")})
        if self.env:
            raise _not_for("--env", "--server: a server at a URL has its own environment", "--header")
        if not str(self.url).startswith(("http://", "https://")):
            shown = str(hide_in_url(str(self.url)))
            hint = "it starts with http:// or https://"
            raise SettingError(f"--url {shown!r} is not the address of an MCP server", hint=hint, reason="no_url")
        target = McpTarget.model_validate({"url": self.url, "headers": pairs(self.headers, ":", "--header")})
        target.revealed()  # a header that cannot be sent is refused before anything is done
        return target

    def over(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """A run's target as data with the options laid over it: --header and --env alone leave its command or URL. Raises SettingError."""
        changed = dict(target)
        if self.names_server:
            named = self.target()
            changed |= {"command": named.command, "url": named.url, "headers" if named.command else "env": {}}
        elif self.headers and not target.get("url"):
            raise _not_for("--header", "a server at a URL; this run's is started by a command", "--env")
        elif self.env and not target.get("command"):
            raise _not_for("--env", "a server started by a command; this run's is at a URL", "--header")
        for name, values in (("headers", pairs(self.headers, ":", "--header")), ("env", pairs(self.env, "=", "--env"))):
            changed[name] = {**(changed.get(name) or {}), **values}
        return changed

    def secrets_of(self, target: McpTarget) -> McpTarget:
        """A run's target with the secrets that were given again. Raises SettingError for options that name another server."""
        from journeyman.types.secrets import ALL_HIDDEN

        changed = type(target).model_validate(self.over(target.model_dump()))
        before, after = (each.model_dump(mode="json", context=ALL_HIDDEN) for each in (target, changed))
        if before != after:
            hint = "give it again as it was, with its secrets"
            raise SettingError(f"the run has another MCP server: {target.label}", hint=hint, reason="other_target")
        return changed


def _not_for(option: str, use: str, instead: str) -> SettingError:
    return SettingError(f"{option} is for {use}", hint=f"use {instead}", reason="other_kind_of_target")


def target_of_run(run: str, home: Path, options: TargetOptions) -> McpTarget:
    """The MCP server of a run, with the secrets that were given again. Raises SettingError, NotFoundError."""
    from journeyman.cli.runs import open_store
    from journeyman.recipes.resume import run_settings
    from journeyman.recipes.settings import McpTrain

    with open_store(home, run) as store:
        kind = store.runs.get(run).kind
        if kind != "mcp":
            hint = "leave out --server, --url, --header and --env"
            raise SettingError(f"run {run!r} ({kind}) has no MCP server", hint=hint, reason="no_target")
        return options.secrets_of(run_settings(store, run, McpTrain).target)


def pairs(words: Sequence[str] | None, separator: str, option: str) -> dict[str, str]:
    """`NAME=VALUE` (or `NAME: VALUE`) words as a mapping.

    Example:
        >>> pairs(["Authorization: Bearer abc"], ":", "--header")
        {'Authorization': 'Bearer abc'}
    """
    values = {}
    for number, word in enumerate(words or (), 1):
        name, has_separator, value = word.partition(separator)
        if not has_separator or not name.strip():
            # Without the word itself: it may be the secret alone.
            raise SettingError(
                f"{option} number {number} is not NAME{separator}VALUE (given: {len(word)} characters, not shown)",
                hint=f"write {option} 'NAME{separator}VALUE'",
                reason="malformed_key",
            )
        values[name.strip()] = value.strip()
    return values
