"""Reach the server: choose the way to it, go it, and speak TLS at its end, all under one attempt's deadline.

The ways are in _ways.py, _through_proxy.py, _http_proxy.py and _socks_proxy.py.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from . import _socks_proxy
from ._attempt import Attempt
from ._exceptions import WebSocketConnectionClosedException, WebSocketProxyException
from ._http_message import HeadParser, parse_status_line
from ._http_proxy import Connect
from ._proxies import PROXY_TYPES, Proxy, ProxyOptions
from ._socket import recv_line, sock_opt
from ._ssl_compat import ssl
from ._through_proxy import ThroughProxy
from ._tls_transport import TLSTransport, WrappedTLSTransport
from ._transport import PlainTransport, Transport
from ._url import Target, parse_target
from ._ways import Direct, UnixSocket, Way, start_tls

__all__ = ["connect", "proxy_info", "read_headers"]


@dataclass(frozen=True)
class Routes:
    """How the servers that one connect() call meets, by redirects more than one, are to be reached.

    options: socket options, and TLS with the servers.  unix: the path of a Unix socket, the way to all of them.
    """

    options: sock_opt
    proxies: ProxyOptions
    unix: str | bytes | None = None

    def reach(self, target: Target, attempt: Attempt) -> Transport:
        """A byte stream to the target, with its TLS where it is secure. Raises WebSocketException of the kinds that
        tell what failed; no socket is left open."""
        raw = self._way(target).open(target, attempt)
        if not target.secure:
            return raw
        doing = f"waiting for TLS with {target.authority}"
        return start_tls(raw, TLSTransport, target.host, self.options.sslopt, attempt, doing)

    def proxy(self, target: Target) -> Proxy | None:
        """The proxy by which the target is to be reached, None for none."""
        return None if self.unix is not None else self.proxies.for_server(target.host, target.port, target.secure)

    def _way(self, target: Target) -> Way:
        sockopt = self.options.sockopt
        if self.unix is not None:
            return UnixSocket(self.unix, sockopt)
        proxy = self.proxy(target)
        if proxy is None:
            return Direct(sockopt)
        if proxy.scheme in ("http", "https"):
            return ThroughProxy(proxy, Connect(self.proxies.sslopt), sockopt, self.proxies.timeout)
        _socks_proxy.check_installed(proxy)
        return ThroughProxy(proxy, _socks_proxy.negotiate, sockopt, self.proxies.timeout)


def adopt(sock: Any) -> Transport:
    """A transport over a connected socket that the program brings, plain or wrapped in TLS."""
    check_socket(sock)
    try:
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            return WrappedTLSTransport(sock)
        return PlainTransport(sock)
    except OSError as error:
        raise WebSocketConnectionClosedException(f"socket is already closed: {error}") from error


def check_socket(sock: Any) -> None:
    """Raise TypeError for what is no socket."""
    if not isinstance(sock, socket.socket):
        raise TypeError(f"socket must be a connected socket.socket or ssl.SSLSocket, not {type(sock).__name__}")


# ---- Only for programs written for websocket-client: no connection uses what follows. ----


class proxy_info:
    """The proxy options of a connect() call, with websocket-client's attribute names."""

    def __init__(self, **options: Any) -> None:
        self.proxy_host = options.get("http_proxy_host")
        self.proxy_port = options.get("http_proxy_port", 0)
        self.auth = options.get("http_proxy_auth")
        self.no_proxy = options.get("http_no_proxy")
        self.proxy_protocol = options.get("proxy_type", "http") if self.proxy_host else "http"
        self.proxy_timeout = options.get("http_proxy_timeout") if self.proxy_host else None
        if self.proxy_protocol not in PROXY_TYPES:
            raise WebSocketProxyException(f"proxy_type {self.proxy_protocol!r} is not one of {', '.join(PROXY_TYPES)}")


def connect(url: str, options: sock_opt, proxy: proxy_info, socket: Any) -> tuple[Any, tuple[str, int, str]]:
    """(connected socket or transport, (host, port, resource)) for a URL, as websocket-client's function.

    socket: a connected one to be used as it is, or None. The first item has recv(), send() and close().
    """
    target = parse_target(url)
    names = (target.host, target.port, target.resource)
    if socket is not None:
        adopt(socket)
        return socket, names
    proxies = ProxyOptions.parse(
        {
            "http_proxy_host": proxy.proxy_host,
            "http_proxy_port": proxy.proxy_port,
            "http_proxy_auth": proxy.auth,
            "http_no_proxy": proxy.no_proxy,
            "http_proxy_timeout": proxy.proxy_timeout,
            "proxy_type": proxy.proxy_protocol,
        }
    )
    with Attempt(options.timeout) as attempt:
        transport = Routes(options, proxies).reach(target, attempt)
    return (transport.sock if isinstance(transport, PlainTransport) else transport), names


def read_headers(sock: Any) -> tuple[int | None, dict[str, str], str | None]:
    """(status, headers with lower-case names, reason phrase) read from a socket, a byte at a time."""
    head = HeadParser()
    while not head.feed(recv_line(sock)):
        pass
    status, reason = parse_status_line(head.first_line)
    return status, head.headers, reason
