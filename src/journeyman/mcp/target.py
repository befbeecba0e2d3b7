"""Where an MCP server is: a command to start, or a URL. Not for talking to it (`mcp_client`)."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from pydantic import Field, model_validator

from journeyman.config import environment
from journeyman.errors import McpError, SettingError
from journeyman.redaction import HIDDEN
from journeyman.types.record import Record
from journeyman.types.secrets import Secret, SecretCommand, SecretUrl, checked_header


@dataclass(frozen=True, slots=True)
class RevealedTarget:
    """A target with its secrets in clear: to connect with, never to be shown or kept."""

    command: tuple[str, ...] | None = field(repr=False)
    url: str | None = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class McpTarget(Record):
    """A server started by a command (stdio), or one that listens at a URL (streamable HTTP).

    Everywhere in it `${NAME}` stands for an environment variable; that is what is stored. Values of `env` and `headers`, parameters of
    the URL, and what looks secret in the command (`--token abc`, `API_KEY=abc`) are neither shown nor stored (`types/secrets.py`).

    Attributes:
        command: program and arguments; started without a shell.
        url: of the MCP endpoint, usually ending in /mcp.
        env: more environment variables for the command; it gets PATH, HOME and little else besides.
        cwd: folder the command starts in.
        headers: sent with every HTTP request, e.g. Authorization.
        start_timeout_seconds: for starting or reaching the server and listing its tools.

    Example:
        >>> McpTarget.parse("python -m mcp_server_time").command
        ('python', '-m', 'mcp_server_time')
    """

    command: SecretCommand | None = None
    url: SecretUrl | None = None
    env: dict[str, Secret] = Field(default_factory=dict)
    cwd: str | None = None
    headers: dict[str, Secret] = Field(default_factory=dict)
    start_timeout_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> McpTarget:
        if bool(self.command) == bool(self.url):
            raise ValueError("an MCP server is given by a command or by a URL, one of the two")
        for name, secret in (self.env | self.headers).items():
            secret.remember_as(name)
        return self

    @classmethod
    def parse(cls, text: str) -> McpTarget:
        """A command line, or a URL that starts with http:// or https://. Raises SettingError when it is neither."""
        text = text.strip()
        if text.startswith(("http://", "https://")):
            return cls(url=text)
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise SettingError(
                f"the server command cannot be read: {error}", hint="check its quotes", reason="unreadable_command"
            ) from error
        if not words:
            raise SettingError("the server command is empty", hint='give a command such as "python -m mcp_server_time"')
        return cls(command=words)

    @property
    def label(self) -> str:
        """How the server is named in messages. Secrets are hidden in it."""
        return str(self.url or shlex.join(self._shown_words()))

    @property
    def title(self) -> str:
        """As `label`, without the folder of the program: for headings."""
        words = self._shown_words()
        return str(self.url or shlex.join([Path(words[0]).name, *words[1:]] if words else ()))

    def _shown_words(self) -> tuple[str, ...]:
        return tuple(map(str, self.command or ()))

    def revealed(self) -> RevealedTarget:
        """What to connect with, references replaced by what the environment holds now.

        Raises SettingError, which names each secret that is not known: secret_missing (given in clear to an earlier command),
        secret_not_set (its variable is not set); malformed_key, for a header that cannot be sent.
        """
        failures: list[SettingError] = []

        def value(word: str | Secret, what: str) -> str:
            try:
                return word.value(environment, what=what) if isinstance(word, Secret) else word
            except SettingError as error:
                failures.append(error)
                return ""

        words = self.command or ()
        command = tuple(value(word, f"the server's argument {_named(word, words[at - 1])}") for at, word in enumerate(words)) or None
        url = None if self.url is None else value(self.url, f"the secret part of the URL {self.url}")
        env = {name: value(secret, f"the server's environment variable {name}") for name, secret in self.env.items()}
        headers = {name: value(secret, f"the header {name}") for name, secret in self.headers.items()}
        if failures:
            first = failures[0]
            raise SettingError("; ".join(error.message for error in failures), hint=first.hint, reason=first.reason) from first
        url, basic = (None, {}) if url is None else _without_password(url)
        sent = dict(checked_header(name, value, "the MCP server's headers") for name, value in headers.items())
        return RevealedTarget(command, url, env, basic | sent)

    def search_path(self) -> str:
        """PATH for finding and running the command: the folder of this Python first, so that "python" and the console scripts
        installed beside Journeyman are found even when its environment is not activated."""
        folder, path = str(Path(sys.executable).parent), self.env.get("PATH")
        own = os.environ.get("PATH", os.defpath)
        return os.pathsep.join([folder, own if path is None else path.value(environment, what="PATH")])

    def program(self) -> str:
        """Full path of the command's program. Raises McpError(command_not_found)."""
        assert self.command is not None
        name = str(self.command[0])
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise McpError("command_not_found", f"the server's folder {self.cwd!r} does not exist", hint="create it, or give another")
        found = shutil.which(name, path=self.search_path())
        if found is None and os.sep in name and self.cwd is not None:
            found = shutil.which(str(Path(self.cwd) / name))
        if found is None:
            raise McpError(
                "command_not_found",
                f"the MCP server's command {name!r} was not found (given: {self.label})",
                hint=f"install the server into this environment, or give the full path of {name!r}",
            )
        return found


def _named(word: str | Secret, before: str | Secret) -> str:
    """An argument in words; one that is hidden as a whole is named by the option before it."""
    return f"after {before}" if str(word) == HIDDEN else str(word)


def _without_password(url: str) -> tuple[str, dict[str, str]]:
    """A URL without what stands before its `@`, and the header that says it: not every HTTP library takes it in the URL."""
    scheme, mark, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = place.rpartition("@")
    if not (mark and at):
        return url, {}
    name_and_password = base64.b64encode(unquote(user).encode()).decode("ascii")
    return f"{scheme}://{rest[len(user) + 1 :]}", {"Authorization": f"Basic {name_and_password}"}
