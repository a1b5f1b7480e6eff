"""Socket options and the process-wide default timeout; and websocket-client's functions over a bare socket."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ._exceptions import WebSocketConnectionClosedException, WebSocketTimeoutException
from ._ssl_compat import SSLWantReadError, SSLWantWriteError

__all__ = [
    "DEFAULT_SOCKET_OPTION",
    "getdefaulttimeout",
    "recv",
    "recv_line",
    "send",
    "setdefaulttimeout",
    "sock_opt",
]

# No Nagle delay, and TCP keepalive after 30 s of silence, every 10 s, three times.
DEFAULT_SOCKET_OPTION: list[tuple[int, int, int]] = [
    (socket.SOL_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
for _name, _value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
    if hasattr(socket, _name):  # TCP_KEEPIDLE is not everywhere
        DEFAULT_SOCKET_OPTION.append((socket.SOL_TCP, getattr(socket, _name), _value))

# poll() counts milliseconds in an int of C, which lasts 24 days.
_LONGEST_TIMEOUT: Final = 2_000_000.0

_default_timeout: float | None = None


def checked_timeout(timeout: Any) -> float | None:
    """Seconds or None; what is longer than the system's clocks can count means None. Raises ValueError."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:  # NaN is not >= 0
        raise ValueError(f"timeout must be None or a number of seconds >= 0, not {timeout!r}")
    return timeout if timeout < _LONGEST_TIMEOUT else None


def _checked_sockopt(option: Any) -> tuple[Any, ...]:
    if not isinstance(option, (tuple, list)) or len(option) not in (3, 4):
        raise ValueError(f"sockopt must hold (level, option, value) triples for setsockopt(), not {option!r}")
    return tuple(option)


class sock_opt:
    """What a WebSocket keeps for its next connect().

    sockopt: (level, option, value) triples for setsockopt().  sslopt: a dict of TLS options.  timeout: seconds or
    None. Raises ValueError for what is no such thing.
    """

    def __init__(self, sockopt: Iterable[tuple[Any, ...]] | None, sslopt: Mapping[str, Any] | None) -> None:
        if not (sslopt is None or type(sslopt) is dict or isinstance(sslopt, Mapping)):
            raise ValueError(f"sslopt must be a dict of TLS options, not {sslopt!r}")
        if not (sockopt is None or type(sockopt) is list or isinstance(sockopt, Iterable)) or isinstance(sockopt, str):
            raise ValueError(f"sockopt must be a list of (level, option, value) triples, not {sockopt!r}")
        self.sockopt = [_checked_sockopt(option) for option in sockopt or ()]
        self.sslopt: dict[str, Any] = {} if sslopt is None else dict(sslopt)
        self.timeout: float | None = None


def setdefaulttimeout(timeout: float | None) -> None:
    """Set the timeout, in seconds, of connections that are given none; None (the default) waits for ever. Raises
    ValueError for what is no number of seconds."""
    global _default_timeout
    _default_timeout = checked_timeout(timeout)


def getdefaulttimeout() -> float | None:
    """The timeout, in seconds, of connections that are given none; None where they wait for ever."""
    return _default_timeout


# ---- Only for programs written for websocket-client: no connection uses what follows. ----


def recv(sock: socket.socket, bufsize: int) -> bytes:
    """At most `bufsize` bytes from a socket.

    Raises WebSocketTimeoutException after the socket's timeout, WebSocketConnectionClosedException at its end.
    """
    if not sock:
        raise WebSocketConnectionClosedException("socket is already closed.")
    try:
        received = sock.recv(bufsize)
    except (TimeoutError, SSLWantReadError, BlockingIOError) as error:
        raise WebSocketTimeoutException("Connection timed out") from error
    if not received:
        raise WebSocketConnectionClosedException("Connection to remote host was lost.")
    return received


def recv_line(sock: socket.socket) -> bytes:
    """A line from a socket, with its end; read a byte at a time, so that nothing after it is taken."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += recv(sock, 1)
    return bytes(line)


def send(sock: socket.socket, data: bytes | str) -> int:
    """Give a socket some of `data` (str as UTF-8); returns how many bytes it took.

    Raises WebSocketTimeoutException after the socket's timeout, WebSocketConnectionClosedException without one.
    """
    if not sock:
        raise WebSocketConnectionClosedException("socket is already closed.")
    try:
        return sock.send(data.encode() if isinstance(data, str) else data)
    except (TimeoutError, SSLWantWriteError, BlockingIOError) as error:
        raise WebSocketTimeoutException("Connection timed out") from error
