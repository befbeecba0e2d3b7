"""From what the MCP library raises to one McpError that says what happened. Foreign exceptions are read by their shape: the classes differ
between versions of the library and of the HTTP client below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from journeyman.errors import JourneymanError, McpError
from journeyman.http_clients import http_library, open_http_client, proxy_note, redirect_of
from journeyman.mcp.messages import repair_bodies
from journeyman.mcp.target import McpTarget, RevealedTarget
from journeyman.redaction import redact

_TAIL_LINES = 6
_PREFLIGHT_SECONDS = 10.0
_HTTP_SECONDS, _STREAM_SECONDS = 30.0, 300.0  # the second: a server may hold a stream open without a word
_TIMEOUT_CODES = (408, -32001)
_CLOSED_CODE = -32000
_NO_SUCH_METHOD_CODE = -32601


def first_leaf(error: BaseException) -> BaseException:
    """The first exception inside groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or _code(error) in _TIMEOUT_CODES


def is_closed(error: BaseException) -> bool:
    return _code(error) == _CLOSED_CODE or "connection closed" in str(error).casefold()


def has_no_such_method(error: BaseException) -> bool:
    return _code(error) == _NO_SUCH_METHOD_CODE


def read_tail(log_path: Path | None) -> str:
    """The end of the server's log, ready to append to a message; empty when there is none."""
    if log_path is None or not log_path.exists():
        return ""
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - 8192))
        lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return "\n  its log ends: " + "\n    ".join(lines[-_TAIL_LINES:]) if lines else ""


def connect_failure(
    target: McpTarget, error: BaseException, timeout_seconds: float, log_path: Path | None, junk: Sequence[str]
) -> McpError:
    """Why a connection could not be opened."""
    if isinstance(error, McpError):
        return error
    tail = read_tail(log_path)
    if isinstance(error, FileNotFoundError | PermissionError) and target.command is not None:
        return McpError(
            "command_not_found", f"the MCP server's command cannot be started: {error}", hint="give the full path of the program"
        )
    if junk and (is_timeout(error) or is_closed(error)):
        return McpError(
            "junk_on_stdout",
            f"the MCP server {target.label} writes other things than the protocol to stdout: {shorten(junk[0])}{tail}",
            hint="a stdio server must print logs to stderr; check that the command starts an MCP server",
        )
    if is_timeout(error):
        return McpError(
            "handshake_timeout",
            f"the MCP server {target.label} did not complete the handshake within {timeout_seconds:g} s{tail}",
            hint="check that the command starts an MCP server that speaks over stdin and stdout; one that only needs longer to start: "
            "--set target.start_timeout_seconds=120",
        )
    if target.command is not None and (is_closed(error) or isinstance(error, OSError) or type(error).__name__.endswith("ResourceError")):
        return McpError(
            "exited_at_start",
            f"the MCP server {target.label} ended before the handshake was done{tail}",
            hint="run the command by hand to see why; give it what it needs with --env NAME=VALUE",
        )
    if isinstance(error, JourneymanError):
        return McpError(error.reason or "failed", error.message, hint=error.hint)
    if "Connect" in type(error).__name__:
        return _refused(target, str(error))
    return McpError("failed", f"the MCP server {target.label} cannot be used: {type(error).__name__}: {shorten(str(error))}{tail}")


def open_mcp_http_client(target: RevealedTarget) -> Any:
    """A client for the target's URL, of the HTTP library that this version of mcp uses. Raises SettingError as `open_http_client`."""
    assert target.url is not None
    kind = _client_class()
    library = http_library(kind)
    timeout = library.Timeout(_HTTP_SECONDS, read=_STREAM_SECONDS)
    client = open_http_client(target.url, kind, headers=dict(target.headers), timeout=timeout)
    repair_bodies(client, library)
    return client


def _client_class() -> Any:
    from mcp.client.streamable_http import create_mcp_http_client  # type: ignore[attr-defined,unused-ignore]

    return get_type_hints(create_mcp_http_client)["return"]


async def preflight(target: McpTarget) -> None:
    """One small POST before the library's own: it alone sees the HTTP status (mcp 2 loses it). Raises McpError, SettingError."""
    revealed = target.revealed()
    assert revealed.url is not None
    library = http_library(_client_class())
    body = {"jsonrpc": "2.0", "id": "journeyman", "method": "ping"}
    try:
        async with open_mcp_http_client(revealed) as client:
            accept = {"Accept": "application/json, text/event-stream"}
            async with client.stream("POST", revealed.url, json=body, headers=accept, timeout=_PREFLIGHT_SECONDS) as response:
                _check_status(target, response, has_headers=bool(revealed.headers))
    except library.TimeoutException as error:
        raise McpError(
            "handshake_timeout",
            f"the MCP server {target.url} did not answer within {_PREFLIGHT_SECONDS:g} s{proxy_note(revealed.url)}",
            hint="check that it runs",
        ) from error
    except (library.UnsupportedProtocol, library.InvalidURL, ValueError) as error:
        raise McpError(
            "failed", f"the URL {target.url} cannot be used: {error}", hint="give a URL such as http://127.0.0.1:8000/mcp"
        ) from error
    except library.HTTPError as error:
        raise _refused(target, str(error) or type(error).__name__) from error


def _check_status(target: McpTarget, response: Any, *, has_headers: bool) -> None:
    """Raise McpError for an answer that no MCP server gives; any other refusal of a ping without a session is for the protocol."""
    status = response.status_code
    where = redirect_of(response)
    if where is not None:
        raise McpError(
            "redirected",
            f"the MCP server {target.url} redirects to {where}, which is not followed",
            hint="nothing was sent there: if that server is the right one, give its address",
        )
    if status == 407:
        raise _refused(target, "the proxy wants a user and a password")
    if status in (401, 403):
        given = "the headers given were not accepted" if has_headers else "no header was given"
        raise McpError(
            "unauthorized",
            f"the MCP server {target.url} answered {status}: it wants authorization, and {given}",
            hint='pass a header: --header "Authorization: Bearer TOKEN"',
        )
    is_page = status < 300 and "html" in response.headers.get("content-type", "")
    if status in (404, 405) or is_page:
        raise McpError(
            "wrong_path",
            f"there is no MCP endpoint at {target.url} ({'a web page' if is_page else f'status {status}'})",
            hint="check the path; streamable HTTP servers usually listen at /mcp",
        )


def _refused(target: McpTarget, why: str) -> McpError:
    note = "" if target.url is None else proxy_note(str(target.url))
    return McpError(
        "connection_refused", f"the MCP server {target.label} cannot be reached{note}: {why}", hint="check host and port, and that it runs"
    )


def _code(error: BaseException) -> int | None:
    inner = getattr(error, "error", None)
    code = getattr(inner, "code", None) if inner is not None else getattr(error, "code", None)
    return code if isinstance(code, int) else None


def shorten(text: str) -> str:
    text = " ".join(redact(text).split())
    return text if len(text) <= 300 else text[:300] + " …"
