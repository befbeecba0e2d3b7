"""Where an MCP server is: a command to start, or a URL. Not for talking to it (`mcp_client`)."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from pydantic import Field, model_validator

from journeyman.config import checked_header
from journeyman.errors import McpError, SettingError
from journeyman.types.record import Record


class McpTarget(Record):
    """A server started by a command (stdio), or one that listens at a URL (streamable HTTP).

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

    command: tuple[str, ...] | None = None
    url: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    start_timeout_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> McpTarget:
        if bool(self.command) == bool(self.url):
            raise ValueError("an MCP server is given by a command or by a URL, one of the two")
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
            raise SettingError(f"the server command {text!r} cannot be read: {error}", hint="check its quotes") from error
        if not words:
            raise SettingError("the server command is empty", hint='give a command such as "python -m mcp_server_time"')
        return cls(command=words)

    @property
    def label(self) -> str:
        """How the server is named in messages."""
        return self.url or shlex.join(self.command or ())

    @property
    def title(self) -> str:
        """As `label`, without the folder of the program: for headings."""
        return self.url or shlex.join([Path(word).name if number == 0 else word for number, word in enumerate(self.command or ())])

    def sent_headers(self) -> dict[str, str]:
        """The headers as they are sent. Raises SettingError (malformed_key), which names the header and not its value."""
        return dict(checked_header(name, value, "the MCP server's headers") for name, value in self.headers.items())

    def search_path(self) -> str:
        """PATH for finding and running the command: the folder of this Python first, so that "python" and the console scripts
        installed beside Journeyman are found even when its environment is not activated."""
        folder = str(Path(sys.executable).parent)
        return os.pathsep.join([folder, self.env.get("PATH", os.environ.get("PATH", os.defpath))])

    def program(self) -> str:
        """Full path of the command's program. Raises McpError(command_not_found)."""
        assert self.command is not None
        name = self.command[0]
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
