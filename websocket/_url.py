"""ws:// and wss:// URLs.

Values only: nothing here touches the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from ._hosts import ascii_host, bracketed
from ._proxies import get_proxy_info

__all__ = ["get_proxy_info", "parse_url"]

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
# Every character that RFC 3986 allows in a path or query, and "%" for what is encoded already.
_RESOURCE_SAFE: Final = "/?:@!$&'()*+,;=~-._%[]"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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
        host = bracketed(self.host)
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


def parse_target(url: str) -> Target:
    """Take a ws:// or wss:// URL apart. Raises ValueError that names what is wrong with it."""
    if not isinstance(url, str):
        raise ValueError(f"url must be a str such as 'ws://host:port/path', not {url!r}")
    if _CONTROL.search(url):
        raise ValueError(f"url {_shown(url)!r} contains control characters")
    if ":" not in url:
        raise ValueError(f"url is invalid: {_shown(url)!r} has no scheme; use 'ws://' or 'wss://'")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url {_shown(url)!r} is invalid: {_without(error, url)}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"scheme {parts.scheme!r} is invalid; use 'ws' or 'wss'")
    name = parts.hostname
    if not name:
        raise ValueError(f"hostname is invalid: url {_shown(url)!r} has none")
    before, at, authority = parts.netloc.rpartition("@")
    user, colon, password = before.partition(":")
    host = ascii_host(unquote(name) if ":" in name else name, "[" in authority)
    # A "#fragment" means nothing to a WebSocket server (RFC 6455 3) and is left out, as websocket-client does.
    resource = quote(parts.path or "/", safe=_RESOURCE_SAFE)
    if parts.query:
        resource += "?" + quote(parts.query, safe=_RESOURCE_SAFE)
    return Target(
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        resource=resource,
        secure=parts.scheme == "wss",
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )


def _shown(url: str) -> str:
    """A URL for a message: user and password may be in it wherever an "@" follows."""
    scheme, separator, rest = url.partition("://")
    _, at, behind = rest.rpartition("@")
    return f"{scheme}://***@{behind}" if separator and at else url


def _without(error: ValueError, url: str) -> str:
    """What the standard library says, unless it may quote a part of the credentials."""
    return "it cannot be taken apart" if "@" in url else str(error)


def parse_url(url: str) -> tuple[str, int, str, bool]:
    """(host name, port, path with query, whether it is wss) of a URL, as websocket-client's function.

    Raises ValueError for what is not a ws:// or wss:// URL.
    """
    target = parse_target(url)
    return target.host, target.port, target.resource, target.secure
