"""Every HTTP client of ours is made here: which proxy it takes, and how far it follows a redirect. Not for what is asked or answered.

Loopback is never reached through a proxy. A redirect is followed within its origin (scheme, host and port) only, since keys and headers
are meant for that one, and only where the request stays what it is; any other is an answer like any other, and `redirect_of` names its
target. The HTTP library is the one that `openai` or `mcp` uses, which differs between their versions.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import os
import socket
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from journeyman.errors import SettingError

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_SAME_METHOD = (307, 308)
_TARGET_HEADER = "x-journeyman-redirect"
HUB_URL = "https://huggingface.co"
_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback", "localhost.localdomain", "localhost4", "localhost6")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is in force. `variable`: what sets it. `text` is for messages: without its password."""

    variable: str
    url: str

    @property
    def text(self) -> str:
        # Up to the last @: a password that is not quoted may hold any sign.
        scheme, _, rest = self.url.partition("://")
        _, at, host = rest.rpartition("@")
        return f"{scheme}://{'***' if at else ''}{at}{host}"


def open_http_client(url: str, kind: type, *, headers: dict[str, str] | None = None, timeout: Any = None) -> Any:
    """A client for the server at `url`; whoever opens it closes it.

    Args:
        kind: the client class of the library that will use it, e.g. `openai.DefaultAsyncHttpxClient`; or one derived from it.
        timeout: as that library takes it.

    Raises SettingError: no_url, for what is no address; bad_certificates, for SSL_CERT_FILE; bad_proxy, for a proxy variable that is in
    force and cannot be used.
    """
    library = http_library(kind)
    _check_address(url, library)
    proxy = proxy_of(url)
    needs_certificates = url.startswith("https:") or (proxy is not None and proxy.url.startswith("https:"))
    try:
        # The library reads the proxy variables itself unless it is given a transport.
        transport = library.AsyncHTTPTransport(
            proxy=None if proxy is None else proxy.url,
            limits=library.Limits(max_connections=1000, max_keepalive_connections=100),
            verify=needs_certificates,
        )
    except OSError as error:
        raise SettingError(
            f"the certificates for {without_credentials(url)} cannot be read: {error}",
            hint="set SSL_CERT_FILE and SSL_CERT_DIR to what is there, or unset them",
            reason="bad_certificates",
        ) from error
    return library.AsyncClient(
        transport=transport, headers=headers, timeout=timeout, follow_redirects=True, event_hooks={"response": [_stay_at_origin]}
    )


def _check_address(url: str, library: Any) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and (parts.port or 1) > 0 and url.isprintable() and " " not in url
        is_one = is_one and bool(library.URL(url).host)  # it refuses hosts that are none
    except (ValueError, library.InvalidURL):
        is_one = False
    if not is_one:
        shown = without_credentials(url)
        raise SettingError(f"{shown!a} is not the address of a server", hint="write it like http://host:8000/v1", reason="no_url")


def http_library(kind: type) -> Any:
    """The HTTP library that a client class is of."""
    name = next(base.__module__ for base in kind.__mro__ if base.__module__.startswith("httpx"))
    return importlib.import_module(name.partition(".")[0])


def open_on_this_machine(request: urllib.request.Request, timeout_seconds: float) -> Any:
    """The answer of a server of ours on this machine, for code that is not asyncio's: with the standard library, through no proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_seconds)


# Proxies --------------------------------------------------------------------------------------------------------------


def proxy_of(url: str) -> Proxy | None:
    """The proxy that requests to `url` take, as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say; None for loopback, whatever they say.

    Raises SettingError: bad_proxy.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    proxy = next((proxy for scheme, proxy in proxies() if scheme in (parts.scheme, "all")), None)
    if proxy is None or is_loopback(host) or _is_this_machine(host) or _is_exempt(host, parts):
        return None
    check_proxy(proxy)
    return proxy


def proxies() -> list[tuple[str, Proxy]]:
    """(scheme that it is for or "all", proxy) of each proxy that is set, the one for all schemes last."""
    values = {scheme: value.strip() for scheme, value in urllib.request.getproxies().items()}
    return [
        (scheme, Proxy(_variable(scheme), values[scheme] if "://" in values[scheme] else f"http://{values[scheme]}"))
        for scheme in ("http", "https", "all")
        if values.get(scheme)
    ]


def exempt_hosts() -> tuple[str, ...]:
    """The hosts and networks that NO_PROXY names."""
    return tuple(filter(None, (entry.strip() for entry in urllib.request.getproxies().get("no", "").split(","))))


def check_proxy(proxy: Proxy) -> None:
    """Raises SettingError (bad_proxy) for an address that is none, and for a SOCKS proxy without the library for those."""
    try:
        parts = urlsplit(proxy.url)
        is_usable = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_usable = False
    if not is_usable or not proxy.url.isascii() or not proxy.url.isprintable() or " " in proxy.url:
        raise SettingError(
            f"{proxy.variable} is not the address of a proxy: {proxy.text!r}",
            hint=f"write it like http://proxy:3128, unset it, or name the hosts that need none in NO_PROXY ({', '.join(_PROXY_SCHEMES)})",
            reason="bad_proxy",
        )
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise SettingError(
            f"{proxy.variable} names a SOCKS proxy ({proxy.text}), which needs a library that is not installed",
            hint="pip install socksio, unset the variable, or name the hosts that need no proxy in NO_PROXY",
            reason="bad_proxy",
        )


def without_proxy(url: str) -> dict[str, str]:
    """Environment variables for a program of others that calls a server on this machine; none where it would find no proxy anyway.

    Other libraries send loopback through a proxy too, unless NO_PROXY names it.
    """
    if not proxies() or not is_loopback(urlsplit(url).hostname or ""):
        return {}
    value = ",".join((*exempt_hosts(), "localhost", "127.0.0.1", "::1"))
    return {"NO_PROXY": value, "no_proxy": value}


def proxy_note(url: str) -> str:
    """For the message of a failure: the proxy in force and its variable; empty when there is none."""
    try:
        proxy = proxy_of(url)
    except SettingError:
        return ""
    return "" if proxy is None else f" (through the proxy {proxy.text} that {proxy.variable} sets)"


def _variable(scheme: str) -> str:
    return next((name for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()) if os.environ.get(name)), "the system's proxy setting")


def _is_exempt(host: str, parts: SplitResult) -> bool:
    """Whether NO_PROXY names the host: as the standard library reads it, or as a network (10.0.0.0/8)."""
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(_is_in(address, entry.strip("[]")) for entry in exempt_hosts())


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


# Hosts ----------------------------------------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Whether an address leads to this machine only: 127.0.0.0/8, ::1, localhost and names below it, in any spelling; and
    the other names that systems ship for it.

    Example:
        >>> is_loopback("127.8.9.1"), is_loopback("[::1]"), is_loopback("App.LOCALHOST."), is_loopback("localhost.example.com")
        (True, True, True, False)
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def _is_this_machine(host: str) -> bool:
    """Whether a connection to `host` ends on this machine although it is no loopback address: 0.0.0.0, ::, 127.1 and its
    like, and the machine's own name."""
    if host.lower() == socket.gethostname().lower():
        return True
    try:
        # The short spellings of an IPv4 address: 127.1, 0x7f000001, 0.
        name = socket.inet_ntoa(socket.inet_aton(host)) if host and not host.strip("0123456789abcdefx.") else host
        return is_loopback(name) or ipaddress.ip_address(name).is_unspecified
    except (OSError, ValueError):
        return False


def without_credentials(url: str) -> str:
    """A URL as it may be shown: without user, password and query.

    Example:
        >>> without_credentials("http://me:secret@proxy:3128/x?key=secret")
        'http://***@proxy:3128/x?***'
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    shown, query, _ = rest.partition("?")
    authority, slash, path = shown.partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}{mark}{'***' if user else ''}{at}{host}{slash}{path}{'?***' if query else ''}"


# Redirects ------------------------------------------------------------------------------------------------------------


def redirect_of(response: Any) -> str | None:
    """Where a redirect that was not followed leads, without query and credentials; None when `response` is none."""
    target = response.headers.get(_TARGET_HEADER) if 300 <= response.status_code < 400 else None
    return None if target is None else str(target)


async def _stay_at_origin(response: Any) -> None:
    """Ends a redirect that must not be followed: without its Location it is an answer like any other."""
    location = response.headers.get("location")
    if location is None or not 300 <= response.status_code < 400:
        return
    here = str(response.url)
    try:
        target = urljoin(here, location)
        is_same = _origin(target) == _origin(here) and "@" not in urlsplit(target).netloc
    except ValueError:
        target, is_same = "an address that is none", False
    if is_same and (response.status_code in _SAME_METHOD or response.request.method in ("GET", "HEAD")):
        return
    del response.headers["location"]
    response.headers[_TARGET_HEADER] = without_credentials(target.partition("?")[0].partition("#")[0])


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)
