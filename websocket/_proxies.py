"""Proxies by name: what a proxy's URL says, and which one the options and the environment name for a server.

Values only: nothing here touches the network.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ._exceptions import WebSocketProxyException
from ._hosts import ascii_host, bracketed, is_address

# With curl, wget and browsers: a proxy's URL without a port means its scheme's.
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
PROXY_TYPES: Final = tuple(_DEFAULT_PORTS)
_SCHEMES: Final = ", ".join(PROXY_TYPES)
# What desktops write into all_proxy for a proxy of any SOCKS version.
_ALIASES: Final = {"socks": "socks5h"}

_SEPARATORS: Final = re.compile(r"[\s,]+")


@dataclass(frozen=True)
class Proxy:
    """A proxy and how to speak to it.

    scheme: http, https (TLS to the proxy itself), socks4, socks4a, socks5 or socks5h.
    host: as DNS wants it.  user, password: decoded; both None, or both str. They are in no repr and no message.
    """

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.user is None:
            return
        password = self.password or ""
        if not _is_text(self.user) or not _is_text(password):
            raise ValueError("user and password of a proxy must be text that can be encoded")
        if self.scheme in ("http", "https"):
            if ":" in self.user:  # RFC 7617 2
                raise ValueError("the user of an HTTP proxy must not contain ':'")
            return
        if not self.user.isascii() or "\0" in self.user or not password.isascii():
            raise ValueError("user and password of a SOCKS proxy must be ASCII")
        if self.scheme.startswith("socks5") and not (0 < len(self.user) < 256 and 0 < len(password) < 256):
            raise ValueError("user and password of a SOCKS5 proxy must have 1 to 255 characters (RFC 1929)")

    @property
    def url(self) -> str:
        """Without credentials, for messages."""
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"

    @property
    def resolves(self) -> bool:
        """Whether the proxy looks up the server's name, and not this machine."""
        return self.scheme not in ("socks4", "socks5")


def parse_proxy(url: str, source: str) -> Proxy:
    """Take "scheme://user:password@host:port" apart; without a scheme it is an HTTP proxy.

    source: who says so, for messages. Raises ValueError, which shows no credentials.
    """
    try:
        return _parse(url)
    except ValueError as error:
        shown = _without_credentials(url)
        raise ValueError(
            f"{source} {shown!r} is not usable: {error}; write scheme://user:password@host:port, with special"
            " characters of user and password percent-encoded"
        ) from None


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _without_credentials(text: str) -> str:
    """For messages: what is before the last "@", also one that was encoded by mistake, is left out."""
    return re.sub(r"^([^:/]*://)?.*(@|%40)", r"\1***@", text, flags=re.DOTALL)


def _parse(url: str) -> Proxy:
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("there are blanks or control characters in it")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:  # whose message may quote a part of the password
        raise ValueError("what should be host and port is none") from None
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"scheme {scheme!r} is not one of {_SCHEMES}")
    if not parts.hostname:
        raise ValueError("there is no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:  # maybe the rest of a password with "/" in it
        raise ValueError("there is more in it than a host and a port")
    if port == 0:
        raise ValueError("port 0 is none")
    user = None if parts.username is None else unquote(parts.username)
    password = None if user is None else unquote(parts.password or "")
    host = _proxy_host(unquote(parts.hostname), "[" in parts.netloc.rpartition("@")[2])
    return Proxy(scheme, host, _DEFAULT_PORTS[scheme] if port is None else port, user, password)


def _proxy_host(host: str, bracketed: bool) -> str:
    """ascii_host() for a proxy. Raises ValueError, which quotes nothing of what may be a password."""
    try:
        name = ascii_host(host, bracketed)
    except ValueError:
        raise ValueError("the host is neither a name nor an address") from None
    if not name or ".." in name or name.startswith("."):
        raise ValueError("the host has an empty label")
    if "%" in name and not bracketed:  # no name has one: it was encoded twice, or is not to be decoded at all
        raise ValueError("there is a '%' in the host")
    return name


@dataclass(frozen=True)
class ProxyOptions:
    """What the options of one connect() call say about proxies.

    proxy: the one to use, whatever the environment says; False: none.  None: the one that the environment names.
    no_proxy: servers to be reached directly; None: those that the environment names, where it names the proxy.
    timeout: seconds from the connection to the proxy to the end of its answer.  sslopt: for TLS to it.
    """

    proxy: Proxy | bool | None = None
    no_proxy: tuple[str, ...] | None = None
    timeout: float | None = None
    sslopt: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold a key's password

    @staticmethod
    def parse(options: Mapping[str, Any]) -> ProxyOptions:
        """From the options http_proxy_host, http_proxy_port, http_proxy_auth, http_no_proxy, http_proxy_timeout,
        proxy_type, proxy and proxy_sslopt. Raises ValueError, and WebSocketProxyException as websocket-client for a
        host without a port."""
        no_proxy = options.get("http_no_proxy")
        timeout = options.get("http_proxy_timeout")
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if timeout is not None and not (is_number and timeout > 0):
            raise ValueError(f"http_proxy_timeout must be a number of seconds above 0, or None, not {timeout!r}")
        sslopt = options.get("proxy_sslopt")
        if sslopt is not None and not isinstance(sslopt, Mapping):
            raise ValueError(f"proxy_sslopt must be a dict as sslopt is, not a {type(sslopt).__name__}")
        return ProxyOptions(
            _chosen_proxy(options), None if no_proxy is None else tuple(_entries(no_proxy)), timeout, dict(sslopt or {})
        )

    def for_server(self, host: str, port: int, secure: bool) -> Proxy | None:
        """The proxy by which to reach a server; None: directly. Raises WebSocketProxyException where the environment's
        is unusable: to pass it by would be worse than an error."""
        proxy = self.proxy
        if proxy is False or (self.no_proxy is not None and bypasses(host, port, self.no_proxy)):
            return None
        if isinstance(proxy, Proxy):
            return proxy
        variable, value = environment_proxy(secure)
        if not value or (self.no_proxy is None and bypasses(host, port, _environment_no_proxy())):
            return None
        return _parse_environment(variable, value)


def _chosen_proxy(options: Mapping[str, Any]) -> Proxy | bool | None:
    """The proxy that the options name; False: they say that there is none."""
    url, host = options.get("proxy"), options.get("http_proxy_host")
    user, password = _credentials(options.get("http_proxy_auth"))
    if url is not None:
        if host:
            raise ValueError("proxy and http_proxy_host both name a proxy; give one of them")
        if not isinstance(url, str):
            raise ValueError(
                f"proxy must be a str such as 'http://host:port', or '' for none, not a {type(url).__name__}"
            )
        if not url:
            return False
        proxy = parse_proxy(url, "proxy")
        if user is None:
            return proxy
        if proxy.user is not None:
            raise ValueError("proxy and http_proxy_auth both give a user; give it once")
        return Proxy(proxy.scheme, proxy.host, proxy.port, user, password)
    if not host:
        return None
    if not isinstance(host, str):
        raise ValueError(f"http_proxy_host must be a str, not a {type(host).__name__}")
    scheme = options.get("proxy_type") or "http"
    if scheme not in PROXY_TYPES:
        raise WebSocketProxyException(f"proxy_type {scheme!r} is not one of {_SCHEMES}")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        name = _proxy_host(bare, bracketed=":" in bare)
    except ValueError:
        raise ValueError(
            f"http_proxy_host {_without_credentials(host)!r} is not usable: give the host alone, user and password in"
            " http_proxy_auth, or all of it as a URL in proxy"
        ) from None
    return Proxy(scheme, name, _checked_port(host, options.get("http_proxy_port")), user, password)


def _checked_port(host: str, port: Any) -> int:
    if not port:
        raise WebSocketProxyException(f"http_proxy_host={host!r} needs http_proxy_port")
    number = -1
    if isinstance(port, int) and not isinstance(port, bool):
        number = port
    elif isinstance(port, str) and port.isascii() and port.isdecimal():
        number = int(port.lstrip("0")[:9] or "0")
    if not 0 < number < 65536:
        raise ValueError(f"http_proxy_port must be a port from 1 to 65535, not {port!r}")
    return number


def _credentials(auth: Any) -> tuple[str | None, str | None]:
    if not auth:
        return None, None
    if not isinstance(auth, Sequence) or isinstance(auth, str) or not 1 <= len(auth) <= 2:
        raise ValueError("http_proxy_auth must be a tuple of user and password")
    user, password = auth[0], auth[1] if len(auth) == 2 else None
    if not isinstance(user, str) or not (password is None or isinstance(password, str)):
        raise ValueError("http_proxy_auth must be a tuple of two str, user and password")
    return user, password or ""


# ---- the environment ----


def _environment(name: str) -> str:
    return os.environ.get(name.lower(), "").strip() or os.environ.get(name.upper(), "").strip()


def environment_proxy(secure: bool) -> tuple[str, str]:
    """(variable, value) of the environment's proxy for wss or ws; ("", "") where it names none."""
    for name in ("wss_proxy", "https_proxy", "all_proxy") if secure else ("ws_proxy", "http_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            # A web server passes a request's header "Proxy:" to its CGI programs as HTTP_PROXY.
            from_request = variable == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ
            if not from_request and (value := os.environ.get(variable, "").strip()):
                return variable, value
    return "", ""


def _environment_proxy(secure: bool) -> Proxy | None:
    """environment_proxy() taken apart, None for none. Raises WebSocketProxyException."""
    variable, value = environment_proxy(secure)
    return _parse_environment(variable, value) if value else None


def _parse_environment(variable: str, value: str) -> Proxy:
    try:
        return parse_proxy(value, f"the environment's {variable}")
    except ValueError as error:
        raise WebSocketProxyException(str(error)) from error


# As websocket-client has it.
DEFAULT_NO_PROXY_HOST: Final = ["localhost", "127.0.0.1"]


def _environment_no_proxy() -> list[str]:
    return _entries(_environment("no_proxy")) or DEFAULT_NO_PROXY_HOST


def _entries(no_proxy: str | Iterable[str]) -> list[str]:
    """The entries of a no_proxy list, or of a str with commas or blanks between them."""
    listed = [no_proxy] if isinstance(no_proxy, str) else no_proxy
    if not isinstance(listed, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in listed):
        raise ValueError(f"http_no_proxy must be a list of str, or a str with commas, not {no_proxy!r}")
    return [entry for item in listed for entry in _SEPARATORS.split(item) if entry]


def bypasses(host: str, port: int | None, no_proxy: Iterable[str]) -> bool:
    """Whether a no_proxy list means this server: by "*", a host, a domain (with or without a dot before it; its
    subdomains too, as curl has it), an address, a network in CIDR notation, each with ":port" or not.

    port: None: an entry with a port means no server.
    """
    host = host.lower().rstrip(".")
    if ":" in host:
        host = host.partition("%")[0]
    return any(_means(entry.lower(), host, port) for entry in no_proxy)


def _means(entry: str, host: str, port: int | None) -> bool:
    if match := re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", entry):
        entry = match.group(1)
        if port is None or int(match.group(2)) != port:
            return False
    if entry == "*":
        return True
    entry = entry.removeprefix("[").removesuffix("]").rstrip(".")
    if is_address(host):
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


# ---- Only for programs written for websocket-client. ----


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

    The arguments name a proxy; without them the environment does. no_proxy: hosts, ".domain" suffixes, addresses and
    networks that are reached directly; by default those of the environment's no_proxy, or localhost and 127.0.0.1,
    and here, unlike in connect(), for a proxy of the arguments too. proxy_type is not looked at.

    Raises WebSocketProxyException where proxy_host comes without proxy_port, or the environment's proxy is unusable.
    """
    if bypasses(hostname, None, _entries(no_proxy) if no_proxy else _environment_no_proxy()):
        return None, 0, None
    if proxy_host:
        if not proxy_port:
            raise WebSocketProxyException(f"http_proxy_host={proxy_host!r} needs http_proxy_port")
        return proxy_host, proxy_port, proxy_auth
    proxy = _environment_proxy(is_secure)
    if proxy is None:
        return None, 0, None
    return proxy.host, proxy.port, None if proxy.user is None else (proxy.user, proxy.password or "")
