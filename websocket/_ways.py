"""Ways to a server, each a small strategy: what they have in common, and those that need nobody's help.

A way makes a byte stream to a server's host and port; TLS with the server comes on top of it, the same for all. Those
through proxies are in _http_proxy.py and _socks_proxy.py, and _http.py chooses.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from ._attempt import Attempt
from ._exceptions import (
    WebSocketAddressException,
    WebSocketConnectException,
    WebSocketConnectionRefusedException,
    WebSocketException,
)
from ._racing import connect_tcp, set_options
from ._shared_context import context_for
from ._tls import explain
from ._tls_transport import TLSTransport
from ._transport import PlainTransport, Transport
from ._url import Target

_BACKLOG_PAUSE: Final = 0.01  # seconds between two attempts at a Unix socket whose backlog is full


class Way(Protocol):
    """How a server is reached."""

    def open(self, target: Target, attempt: Attempt) -> Transport:
        """A byte stream to the target's host and port, without the target's TLS. Raises WebSocketException of the
        kinds that tell what failed; no socket is left open."""


class Direct:
    """TCP to the first of the host's addresses that answers."""

    def __init__(self, sockopt: Sequence[tuple[Any, ...]]) -> None:
        self._sockopt = sockopt

    def open(self, target: Target, attempt: Attempt) -> Transport:
        return PlainTransport(connect_tcp(target.host, target.port, attempt, self._sockopt))


class UnixSocket:
    """A Unix socket on this machine, whatever host and port the URL has."""

    def __init__(self, path: str | bytes, sockopt: Sequence[tuple[Any, ...]]) -> None:
        self._path = path
        self._sockopt = sockopt

    def open(self, target: Target, attempt: Attempt) -> Transport:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            set_options(sock, self._sockopt)
            sock.setblocking(False)
            # EAGAIN means here that the listener's backlog is full; poll() does not tell when it no longer is.
            while (code := sock.connect_ex(self._path)) == errno.EAGAIN:
                attempt.pause(_BACKLOG_PAUSE, f"connecting to unix={self._path!r}")
            if code:
                raise OSError(code, os.strerror(code))
            return PlainTransport(sock)
        except WebSocketException:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            kind = WebSocketConnectException
            if isinstance(error, ConnectionRefusedError):
                kind = WebSocketConnectionRefusedException
            raise kind(error.errno, f"cannot connect to unix={self._path!r}: {error.strerror or error}") from error
        except BaseException:
            sock.close()
            raise


@contextmanager
def closed_on_failure(transport: Transport) -> Iterator[None]:
    """Close the transport where the block raises."""
    try:
        yield
    except BaseException:
        transport.close()
        raise


def start_tls(
    raw: Transport,
    kind: type[TLSTransport],
    host: str,
    sslopt: Mapping[str, Any],
    attempt: Attempt,
    doing: str,
    option: str = "sslopt",
) -> TLSTransport:
    """TLS over a transport, which is closed where that fails. option: where `sslopt` comes from, for messages."""
    name = sslopt.get("server_hostname") or host
    with closed_on_failure(raw):
        try:
            context = context_for(sslopt, option)
            transport = kind(raw, context, name, sslopt.get("suppress_ragged_eofs", True))
            transport.handshake(lambda events: attempt.wait(raw.sock, events, doing))
        except WebSocketException:
            raise
        except UnicodeError as error:
            raise WebSocketAddressException(f"{name!r} cannot be the name of a server: {error}") from error
        except OSError as error:
            raise explain(error, name, option) from error
    return transport
