"""Reach the server: resolve its name, connect, speak TLS, all under one deadline that any thread can cut short.

A way to the server is a function from a target to a transport: dial() goes directly.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ._exceptions import (
    WebSocketAddressException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketProxyException,
    WebSocketTimeoutException,
)
from ._handshake import HeadParser, parse_status_line
from ._pollable import PollableEvent
from ._socket import DEFAULT_SOCKET_OPTION, recv_line, sock_opt
from ._ssl_compat import ssl
from ._tls import create_context, explain
from ._tls_transport import TLSTransport, WrappedTLSTransport
from ._transport import PlainTransport, Transport, poll_timeout
from ._url import Target, get_proxy_info, parse_target

__all__ = ["connect", "proxy_info", "read_headers"]


class Attempt:
    """One attempt to connect: its deadline, and the means to cancel it from another thread.

    timeout: seconds for everything from the name to the handshake, None for no limit. Used by one thread, apart
    from cancel(). A context manager; what waits after its end is an error.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cancelled = PollableEvent()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cancelled.close()

    @property
    def cancelled(self) -> bool:
        """Whether cancel() was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the attempt: what waits in it raises WebSocketConnectionClosedException. Any thread."""
        self._cancelled.set()
        self._answers.put(None)

    def check(self, doing: str) -> None:
        """Raise if the attempt was cancelled or its time is over. doing: what took the time, for the message."""
        if self._cancelled.is_set():
            raise WebSocketConnectionClosedException(f"the connection was closed by this program while {doing}")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise WebSocketTimeoutException(f"timeout of {self._timeout} s is over while {doing}")

    def wait(self, sock: socket.socket, events: int, doing: str, limit: float | None = None) -> bool:
        """Wait until the socket is ready for `events` of select.poll.

        limit: a time.monotonic() moment to give up at, with False; the attempt's own deadline raises.
        """
        poller = select.poll()
        poller.register(sock.fileno(), events)
        poller.register(self._cancelled.fileno(), select.POLLIN)
        deadlines = [moment for moment in (self._deadline, limit) if moment is not None]
        while True:
            ready = poller.poll(poll_timeout(min(deadlines, default=None)))
            self.check(doing)
            if ready:
                return True
            if limit is not None and time.monotonic() >= limit:
                return False

    def resolve(self, host: str, port: int) -> list[Any]:
        """The addresses of a host, as socket.getaddrinfo() gives them. The call itself cannot be interrupted, so
        that of a name is made on a thread of its own, which is left behind where the deadline passes."""
        if _is_address(host):
            return _addresses(host, port)
        answers = self._answers
        thread = threading.Thread(
            target=lambda: answers.put(_addresses_or_error(host, port)), name=f"websocket-resolver {host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise WebSocketException(f"cannot resolve {host!r}: no thread can be started: {error}") from error
        while True:
            self.check(f"resolving {host!r}")
            remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            try:
                answer = answers.get(timeout=remaining)
            except queue.Empty:
                continue
            if isinstance(answer, WebSocketException):
                raise answer
            if answer is not None:  # None is cancel()'s
                thread.join()
                return list(answer)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _addresses(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.SOL_TCP)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise WebSocketAddressException(f"cannot resolve {host!r}: {error}") from error


def _addresses_or_error(host: str, port: int) -> list[Any] | WebSocketException:
    try:
        return _addresses(host, port)
    except WebSocketAddressException as error:
        return error


def check_direct(target: Target, options: Mapping[str, Any]) -> None:
    """Refuse what asks for a proxy. Raises WebSocketProxyException: to go directly to a server that was to be
    reached by a proxy would be worse than an error."""
    info = proxy_info(**options)
    host, port, _ = get_proxy_info(
        target.host, target.secure, info.proxy_host, info.proxy_port, info.auth, info.no_proxy
    )
    if host:
        raise WebSocketProxyException(
            f"{target.authority} is to be reached by the proxy {host}:{port}, and proxies are not supported yet;"
            " take it out of the options or the environment, or name the server in http_no_proxy or no_proxy"
        )


def dial(target: Target, attempt: Attempt, options: sock_opt) -> Transport:
    """Connect to the target's host and port, with TLS where it is secure.

    Raises WebSocketException of the kinds that tell what failed; no socket is left open.
    """
    sock = connect_tcp(target.host, target.port, attempt, options.sockopt)
    return secure(PlainTransport(sock), target, attempt, options.sslopt)


def secure(raw: Transport, target: Target, attempt: Attempt, sslopt: Mapping[str, Any]) -> Transport:
    """TLS over a transport to a secure target; for others the transport itself. Closes it where that fails."""
    if not target.secure:
        return raw
    host = sslopt.get("server_hostname") or target.host
    doing = f"waiting for TLS with {target.authority}"
    try:
        transport = TLSTransport(raw, create_context(sslopt), host, sslopt.get("suppress_ragged_eofs", True))
        transport.handshake(lambda events: attempt.wait(raw.sock, events, doing))
    except WebSocketException:
        raw.close()
        raise
    except OSError as error:
        raw.close()
        raise explain(error, host) from error
    except BaseException:
        raw.close()
        raise
    return transport


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


def connect_tcp(host: str, port: int, attempt: Attempt, sockopt: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A connected socket to the first address of the host that answers.

    Raises WebSocketAddressException, WebSocketTimeoutException, or an error that names each address that failed.
    """
    errors: list[tuple[str, OSError]] = []
    for family, kind, protocol, _, address in attempt.resolve(host, port):
        try:
            return _connect_address(socket.socket(family, kind, protocol), address, attempt, sockopt)
        except WebSocketException:
            raise
        except OSError as error:
            errors.append((f"{address[0]}:{address[1]}", error))
    raise _connect_error(host, errors) from errors[-1][1]


def _connect_error(host: str, errors: list[tuple[str, OSError]]) -> WebSocketConnectException:
    details = "; ".join(f"{address}: {error.strerror or error}" for address, error in errors)
    refused = all(isinstance(error, ConnectionRefusedError) for _, error in errors)
    kind = WebSocketConnectionRefusedException if refused else WebSocketConnectException
    return kind(errors[-1][1].errno, f"cannot connect to {host!r}: {details}")


def _set_option(sock: socket.socket, option: tuple[Any, ...]) -> None:
    try:
        sock.setsockopt(*option)
    except (OSError, TypeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        raise WebSocketConnectException(code, f"sockopt {option!r} cannot be set: {error}") from error


def _connect_address(
    sock: socket.socket, address: Any, attempt: Attempt, sockopt: Sequence[tuple[Any, ...]]
) -> socket.socket:
    try:
        for option in [*DEFAULT_SOCKET_OPTION, *sockopt]:
            _set_option(sock, option)
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            attempt.wait(sock, select.POLLOUT, f"connecting to {address[0]}:{address[1]}")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


class proxy_info:
    """The proxy options of a connect() call, with websocket-client's attribute names."""

    def __init__(self, **options: Any) -> None:
        self.proxy_host = options.get("http_proxy_host")
        self.proxy_port = options.get("http_proxy_port", 0)
        self.auth = options.get("http_proxy_auth")
        self.no_proxy = options.get("http_no_proxy")
        self.proxy_protocol = options.get("proxy_type", "http") if self.proxy_host else "http"
        self.proxy_timeout = options.get("http_proxy_timeout") if self.proxy_host else None
        if self.proxy_protocol not in ("http", "socks4", "socks4a", "socks5", "socks5h"):
            raise WebSocketProxyException(
                f"proxy_type {self.proxy_protocol!r} is not one of http, socks4, socks4a, socks5, socks5h"
            )


# ---- Only for programs written for websocket-client: no connection uses what follows. ----


def connect(url: str, options: sock_opt, proxy: proxy_info, socket: Any) -> tuple[Any, tuple[str, int, str]]:
    """(connected socket or transport, (host, port, resource)) for a URL, as websocket-client's function.

    socket: a connected one to be used as it is, or None. The first item has recv(), send() and close().
    """
    target = parse_target(url)
    names = (target.host, target.port, target.resource)
    if socket is not None:
        adopt(socket)
        return socket, names
    check_direct(
        target,
        {
            "http_proxy_host": proxy.proxy_host,
            "http_proxy_port": proxy.proxy_port,
            "http_no_proxy": proxy.no_proxy,
        },
    )
    with Attempt(options.timeout) as attempt:
        transport = dial(target, attempt, options)
    return (transport if target.secure else transport.sock), names


def read_headers(sock: Any) -> tuple[int | None, dict[str, str], str | None]:
    """(status, headers with lower-case names, reason phrase) read from a socket, a byte at a time."""
    head = HeadParser()
    while not head.feed(recv_line(sock)):
        pass
    status, reason = parse_status_line(head.first_line)
    return status, head.headers, reason
