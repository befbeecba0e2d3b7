"""Who may call, and for which rollout a call counts. Not for TLS or users: one key guards a server, one token each rollout."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from fastapi import Request

from journeyman.config import checked_key
from journeyman.errors import ServiceError, SettingError
from journeyman.http_clients import is_loopback


def check_bind(host: str, api_key: str | None) -> None:
    """Raises SettingError for an address others can reach without an API key."""
    if api_key is None and not is_loopback(host):
        raise SettingError(
            f"binding {host} lets other machines use this server, so it needs an API key",
            hint="give --api-key KEY (or JOURNEYMAN_API_KEY), or bind 127.0.0.1",
        )


class Gate:
    """Checks the API key.

    Args:
        api_key: what callers must send as bearer token; None: everybody on this machine may call. Raises SettingError (malformed_key).
    """

    def __init__(self, api_key: str | None) -> None:
        self._api_key = None if api_key is None else checked_key(api_key, "the server's API key")

    def check(self, request: Request) -> None:
        """Let a call to `/api` or `/v1` pass, or raise ServiceError 401 or 403."""
        self._check_origin(request)
        if self._api_key is None:
            return
        given = bearer(request)
        if given is None or not secrets.compare_digest(given.encode(), self._api_key.encode()):
            raise ServiceError(
                "this server needs its API key" if given is None else "the API key is wrong",
                status=401,
                code="invalid_api_key",
                hint="send it as `Authorization: Bearer KEY`",
            )

    def _check_origin(self, request: Request) -> None:
        # Without a key, a page from anywhere in this machine's browser could call us; such calls name their origin.
        origin = request.headers.get("origin")
        if self._api_key is None and origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
            raise ServiceError(f"web pages of {origin} may not call this server", status=403, code="foreign_origin")


def bearer(request: Request) -> str | None:
    """The bearer token of a request, None without one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None
