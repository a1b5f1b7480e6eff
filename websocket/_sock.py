"""What `WebSocket.sock` gives: the answers that programs ask of a socket, from a connection whose bytes belong to
its own threads."""

from __future__ import annotations

from typing import Any, Protocol

from ._exceptions import WebSocketException
from .threads.connection import Connection


class _Owner(Protocol):
    """The WebSocket in front."""

    timeout: float | None


class ConnectionSocket:
    """The connection seen as a socket. Any thread may use it.

    fileno() can be polled and selected on: readable exactly while recv() would not wait. The addresses and socket
    options are the socket's own; over TLS there are getpeercert(), cipher(), version() and
    selected_alpn_protocol(). shutdown() and close() cut the connection. There is no recv() and no send(): bytes
    taken from under the connection would be missing in it.
    """

    def __init__(self, connection: Connection, owner: _Owner) -> None:
        self._connection = connection
        self._owner = owner
        sock = connection.transport.sock
        self.family = sock.family
        self.type = sock.type
        self.proto = sock.proto

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConnectionSocket) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash(self._connection)

    def __repr__(self) -> str:
        return f"<ConnectionSocket of {self._connection.name}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the socket of a WebSocket has no {name}: its bytes belong to the connection's threads; use the methods"
            " of the WebSocket"
        )

    def fileno(self) -> int:
        """A descriptor that is readable exactly while recv() of the WebSocket would not wait; it says nothing about
        sending."""
        return self._connection.receiving.fileno()

    def gettimeout(self) -> float | None:
        """The WebSocket's timeout in seconds."""
        return self._owner.timeout

    def settimeout(self, timeout: float | None) -> None:
        """Set the WebSocket's timeout in seconds."""
        self._owner.timeout = timeout

    def getpeername(self) -> Any:
        """The peer's address."""
        return self._ask("getpeername")

    def getsockname(self) -> Any:
        """This end's address."""
        return self._ask("getsockname")

    def getsockopt(self, *arguments: Any) -> Any:
        """socket.getsockopt()."""
        return self._ask("getsockopt", *arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """socket.setsockopt()."""
        self._ask("setsockopt", *arguments)

    def shutdown(self, how: int = 2) -> None:
        """Cut the connection; `how` is not looked at, a WebSocket has no half."""
        self._connection.abort()

    def close(self) -> None:
        """Cut the connection."""
        self._connection.abort()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The server's certificate, as ssl.SSLSocket.getpeercert()."""
        return self._tls("getpeercert", binary_form)

    def cipher(self) -> Any:
        """(name, protocol, secret bits) of the cipher in use."""
        return self._tls("cipher")

    def version(self) -> str | None:
        """The TLS version, such as "TLSv1.3"."""
        version: str | None = self._tls("version")
        return version

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that ALPN chose, or None."""
        protocol: str | None = self._tls("selected_alpn_protocol")
        return protocol

    def pending(self) -> int:
        """How many messages can be received without waiting."""
        inbox = self._connection.inbox
        with inbox.lock:
            return inbox.load()[0]

    def _ask(self, method: str, *arguments: Any) -> Any:
        transport = self._connection.transport
        try:
            with transport.guard:
                return getattr(transport.sock, method)(*arguments)
        except OSError as error:
            if self._connection.is_closing:
                raise self._connection.end.closed_error() from error
            raise

    def _tls(self, method: str, *arguments: Any) -> Any:
        try:
            return self._connection.transport.ask_tls(method, *arguments)
        except AttributeError as error:
            raise WebSocketException(f"{self._connection.name} does not use TLS: {error}") from None
