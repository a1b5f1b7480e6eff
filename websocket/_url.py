"""ws:// and wss:// URLs, and which proxy the options and the environment name for a host.

Values only: nothing here touches the network.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from ._exceptions import WebSocketProxyException

__all__ = ["get_proxy_info", "parse_url"]

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
_NOT_IN_A_HOST: Final = frozenset('"<>\\^`{|}/?#@\x7f')
# Every character that RFC 3986 allows in a path or query, and "%" for what is encoded already.
_RESOURCE_SAFE: Final = "/?:@!$&'()*+,;=~-._%[]"


@dataclass(frozen=True)
class Target:
    """Where a URL leads.

    host: as DNS and the Host header want it: lower case, IDNA-encoded, IPv6 without brackets.
    resource: path and query, percent-encoded.  user, password: decoded, None where the URL has none.
    """

    host: str
    port: int
    resource: str
    secure: bool
    user: str | None = None
    password: str | None = None

    @property
    def authority(self) -> str:
        """Host and port as in a Host header: brackets around IPv6, no default port."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        default = DEFAULT_PORTS["wss" if self.secure else "ws"]
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without credentials, for messages and thread names."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.resource}"

    @property
    def origin(self) -> tuple[str, int, bool]:
        """What makes two targets the same server for credentials and cookies."""
        return (self.host, self.port, self.secure)


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"hostname {host!r} is invalid: {error}") from error


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError as error:
        raise ValueError(f"hostname [{host}] is invalid: {error}") from error


def parse_target(url: str) -> Target:
    """Take a ws:// or wss:// URL apart. Raises ValueError that names what is wrong with it."""
    if not isinstance(url, str):
        raise ValueError(f"url must be a str such as 'ws://host:port/path', not {url!r}")
    if any(character < " " or character == "\x7f" for character in url):
        raise ValueError(f"url {url!r} contains control characters")
    if ":" not in url:
        raise ValueError(f"url is invalid: {url!r} has no scheme; use 'ws://' or 'wss://'")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url {url!r} is invalid: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"scheme {parts.scheme!r} is invalid; use 'ws' or 'wss'")
    if not parts.hostname:
        raise ValueError(f"hostname is invalid: url {url!r} has none")
    host = _ascii_host(unquote(parts.hostname) if ":" in parts.hostname else parts.hostname)
    if "[" in parts.netloc:
        _check_ipv6(host)
    if any(character <= " " or character in _NOT_IN_A_HOST for character in host):
        raise ValueError(f"hostname {host!r} is invalid")
    # A "#fragment" means nothing to a WebSocket server (RFC 6455 3) and is left out, as websocket-client does.
    resource = quote(parts.path or "/", safe=_RESOURCE_SAFE)
    if parts.query:
        resource += "?" + quote(parts.query, safe=_RESOURCE_SAFE)
    return Target(
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        resource=resource,
        secure=parts.scheme == "wss",
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def parse_url(url: str) -> tuple[str, int, str, bool]:
    """(host name, port, path with query, whether it is wss) of a URL, as websocket-client's function.

    Raises ValueError for what is not a ws:// or wss:// URL.
    """
    target = parse_target(url)
    return target.host, target.port, target.resource, target.secure


DEFAULT_NO_PROXY_HOST: Final = ["localhost", "127.0.0.1"]


def _environment(name: str) -> str:
    return os.environ.get(name.lower()) or os.environ.get(name.upper()) or ""


def _bypasses(hostname: str, entry: str) -> bool:
    """Whether one entry of a no_proxy list means this host."""
    entry = entry.strip().lower().removeprefix(".")
    if entry in ("*", hostname):
        return bool(entry)
    try:
        return ipaddress.ip_address(hostname) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # names: as curl has it, a domain means its subdomains too
        return bool(entry) and hostname.endswith("." + entry)


def _no_proxy(hostname: str, no_proxy: list[str] | str | None) -> bool:
    if isinstance(no_proxy, str):
        no_proxy = no_proxy.split(",")
    if not no_proxy:
        value = _environment("no_proxy")
        no_proxy = value.split(",") if value.strip() else DEFAULT_NO_PROXY_HOST
    return any(_bypasses(hostname.lower(), entry) for entry in no_proxy)


def get_proxy_info(
    hostname: str,
    is_secure: bool,
    proxy_host: str | None = None,
    proxy_port: int = 0,
    proxy_auth: tuple[str, str] | None = None,
    no_proxy: list[str] | None = None,
    proxy_type: str = "http",
) -> tuple[str | None, int, tuple[str, str] | None]:
    """(proxy host, proxy port, (user, password) or None) for a host; (None, 0, None) for a direct connection.

    The arguments name a proxy; without them the environment's http_proxy (for ws) or https_proxy (for wss) does.
    no_proxy: hosts, ".domain" suffixes, addresses and networks that are reached directly; by default those of
    the environment's no_proxy, or localhost and 127.0.0.1. proxy_type is not looked at here.

    Raises WebSocketProxyException where proxy_host comes without proxy_port.
    """
    if _no_proxy(hostname, no_proxy):
        return None, 0, None
    if proxy_host:
        if not proxy_port:
            raise WebSocketProxyException(f"http_proxy_host={proxy_host!r} needs http_proxy_port")
        return proxy_host, proxy_port, proxy_auth
    value = _environment("https_proxy" if is_secure else "http_proxy").strip()
    if not value:
        return None, 0, None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
    return parts.hostname, parts.port or 0, auth
