"""Who may call: by which name, from which page, with which key. Not for TLS or users: one key guards a server, one token each rollout."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from journeyman.errors import ServiceError, SettingError
from journeyman.http_clients import is_loopback
from journeyman.server.errors import error_response
from journeyman.types.secrets import checked_key

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?\.?)(:[0-9]{0,5})?", re.IGNORECASE)
_SHOWN_CHARACTERS = 100
_POLICY_VIOLATION = 1008


def check_bind(host: str, api_key: str | None) -> None:
    """Raises SettingError for an address others can reach without an API key."""
    if api_key is None and not is_loopback(host):
        raise SettingError(
            f"binding {host} lets other machines use this server, so it needs an API key",
            hint="give --api-key KEY (or JOURNEYMAN_API_KEY), or bind 127.0.0.1",
        )


class AllowedHosts:
    """The names a server may be called by.

    Always: loopback, the name or address it is bound to, and the ones that were allowed. A server that other machines can reach: any IP
    address too, and this machine's own name.

    A web page of anywhere can have its own name resolved to an address of ours (DNS rebinding), and the browser then takes it and us for
    one; but it still sends that name. It cannot do this with an address, nor with a name that is not the attacker's.

    Args:
        bound: what the server is bound to.
        allowed: further names, without port. Raises SettingError (no_host) for what is none.

    Example:
        >>> hosts = AllowedHosts("127.0.0.1", ["Box.example"])
        >>> [name in hosts for name in ("LOCALHOST:8100", "[::1]", "box.example.:80", "evil.example", "user@localhost", "")]
        [True, True, True, False, False, False]
    """

    def __init__(self, bound: str = "127.0.0.1", allowed: Sequence[str] = ()) -> None:
        self._is_reachable = not is_loopback(bound)
        self._names = {_plain(bound)}
        if self._is_reachable:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local"}
        for name in allowed:
            match = _AUTHORITY.fullmatch(name if name.count(":") < 2 or name.startswith("[") else f"[{name}]")
            if match is None or match[2]:
                raise SettingError(
                    f"{name[:_SHOWN_CHARACTERS]!a} is not the name of a host",
                    hint="write --allow-host box.example: without http://, port and path",
                    reason="no_host",
                )
            self._names.add(_plain(match[1]))

    def __contains__(self, authority: object) -> bool:
        """Whether `HOST` or `HOST:PORT`, as a Host header has it, names this server."""
        match = _AUTHORITY.fullmatch(authority) if isinstance(authority, str) else None
        if match is None:
            return False
        name = _plain(match[1])
        return name in self._names or is_loopback(name) or (self._is_reachable and _is_address(name))


class HostGate:
    """ASGI middleware: a call that names another host than this server is refused, whatever its route."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or all(name in self._hosts for name in _named_hosts(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await error_response(_unknown_host(_named_hosts(scope)))(scope, receive, send)


class Gate:
    """Checks the API key.

    Args:
        api_key: what callers must send as bearer token; None: everybody on this machine may call. Raises SettingError (malformed_key).
        hosts: whose web pages may call a server without a key.
    """

    def __init__(self, api_key: str | None, hosts: AllowedHosts | None = None) -> None:
        self._api_key = None if api_key is None else checked_key(api_key, "the server's API key")
        self._hosts = hosts or AllowedHosts()

    async def check(self, request: Request) -> None:  # async, since FastAPI runs other dependencies in threads
        """Let a call to `/api` or `/v1` pass, or raise ServiceError 401 or 403."""
        self._check_origin(request)
        if self._api_key is None:
            return
        key = bearer(request)
        if key is None or not secrets.compare_digest(key.encode(), self._api_key.encode()):
            raise ServiceError(
                "this server needs its API key" if key is None else "the API key is wrong",
                status=401,
                code="invalid_api_key",
                hint="send it as `Authorization: Bearer KEY`",
            )

    def _check_origin(self, request: Request) -> None:
        # Without a key, a page from anywhere in this machine's browser could call us; such calls name their origin.
        for origin in request.headers.getlist("origin") if self._api_key is None else ():
            scheme, _, authority = origin.partition("://")
            if scheme.lower() not in ("http", "https") or authority not in self._hosts:
                shown = ascii(origin[:_SHOWN_CHARACTERS])
                raise ServiceError(f"web pages of {shown} may not call this server", status=403, code="foreign_origin")


def bearer(request: Request) -> str | None:
    """The bearer token of a request, None without one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _named_hosts(scope: Scope) -> list[str]:
    """Every host that a call names: in its Host header (an empty one where there is none), and in an address in place of a path."""
    hosts = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"host"]
    path = scope["path"]
    target = [] if path.startswith("/") or path == "*" else [path.partition("://")[2].partition("/")[0]]
    return [*(hosts if len(hosts) == 1 else [""]), *target]


def _unknown_host(names: Sequence[str]) -> ServiceError:
    shown = " and ".join(f"{name[:_SHOWN_CHARACTERS]!a}" for name in names)
    return ServiceError(
        f"this server is not called {shown}",
        status=421,
        code="unknown_host",
        reason="unknown_host",
        hint="call it by localhost or the address it is bound to; for another name start it with `journeyman serve --allow-host NAME`",
    )


def _plain(host: str) -> str:
    return host.strip("[]").removesuffix(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
