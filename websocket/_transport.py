"""A duplex byte stream for one reader and one writer at a time: what all have, and plain TCP.

Who reads holds the reading turn, who writes the writing turn (threads/turn.py); the two run side by side. TLS is in
_tls_transport.py.

shutdown() may be called by any thread at any time and wakes both sides; close() only by who ends the connection,
when neither side is in use any more.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import threading
import time
from typing import Any, Protocol

from ._pollable import PollableEvent

# SIGPIPE would end a program that has set it back to its default.
_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
_RECV_NOW_FLAGS = socket.MSG_DONTWAIT
_SEND_NOW_FLAGS = _SEND_FLAGS | socket.MSG_DONTWAIT


class Transport(Protocol):
    """What the reader and the writer ask of a byte stream."""

    @property
    def sock(self) -> Any:
        """The socket under it."""

    @property
    def is_tls(self) -> bool:
        """Whether the server is spoken to by TLS."""

    @property
    def guard(self) -> threading.RLock:
        """Held while the socket is closed, or asked by others than its reader and writer. Re-entrant, for a signal
        handler that ends the connection."""

    def recv(self, size: int) -> bytes:
        """Some bytes, at most `size`, waiting for them; b"" at the end of the stream. Raises OSError."""

    def recv_into(self, place: memoryview) -> int:
        """Receive into the beginning of `place`; waits for all of it where the transport does that in one call, else
        for some bytes. Returns how many, 0 at the end of the stream. Raises OSError."""

    def recv_into_now(self, place: memoryview) -> int | None:
        """As recv_into(), but with what is here already; None where nothing is."""

    def recv_now(self, size: int) -> bytes | None:
        """As recv(), but None where nothing is here yet."""

    def is_buffered(self) -> bool:
        """Whether bytes may be here already that poll() does not tell of. Reading turn."""

    def send(self, data: Any) -> int:
        """Write some of `data`, waiting for room; returns how many bytes. Raises OSError."""

    def send_now(self, data: Any) -> int:
        """Write what the kernel takes without waiting; returns how many bytes, maybe 0. What was not taken must
        be given again, unchanged, as the beginning of the next send() or send_now()."""

    def has_output(self) -> bool:
        """Whether reading made bytes (TLS key updates) that the next send(b"") must write."""

    def finish(self) -> None:
        """Tell the peer that nothing more comes. Writing turn."""

    def shutdown_reading(self) -> None:
        """Let the reader have what has arrived, and then the end. Any thread."""

    def shutdown(self) -> None:
        """End both directions at once and wake whoever waits on them. Any thread."""

    def close(self) -> None:
        """Give the socket back to the system."""

    def close_in_child(self) -> None:
        """close() in a forked child, where a lock may be held by a thread that is not there; the parent's end of
        the socket stays open."""

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        """Call a method of the SSL object that speaks to the server; AttributeError where there is none. Any thread."""


def poll_timeout(deadline: float | None) -> int | None:
    """Milliseconds for poll() until a time.monotonic() deadline, rounded up; None for no deadline."""
    if deadline is None:
        return None
    # poll() takes an int of C; who waits longer than its 24 days waits again.
    return min(max(0, int((deadline - time.monotonic()) * 1000 + 0.999)), 2**31 - 1)


class ReadWait:
    """Waits until a transport's socket is readable, a wake-up is set, or a deadline passes. Reading turn only."""

    def __init__(self, transport: Transport) -> None:
        self.wake = PollableEvent()
        self._transport = transport
        self._poll = select.poll()
        self._poll.register(transport.sock.fileno(), select.POLLIN)
        self._poll.register(self.wake.fileno(), select.POLLIN)

    def __call__(self, deadline: float | None) -> bool:
        """True once the wait is over for a reason: something to read, an end, or a wake-up (see `wake`)."""
        return self._transport.is_buffered() or bool(self._poll.poll(poll_timeout(deadline)))


class SocketTransport:
    """What transports that own a socket have in common: its end."""

    sock: socket.socket

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.guard = threading.RLock()  # shutdown() must not meet a descriptor that close() gave back
        self._closed = False  # guarded by self.guard

    def finish(self) -> None:
        self._shut(socket.SHUT_WR)

    def shutdown_reading(self) -> None:
        self._shut(socket.SHUT_RD)

    def shutdown(self) -> None:
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with self.guard:
            if not self._closed:
                try:
                    # Not an SSLSocket's own shutdown(), which drops the TLS state under a reader.
                    socket.socket.shutdown(self.sock, how)
                except OSError:
                    pass  # ENOTCONN: the peer has reset the connection, so both directions have ended already

    def close(self) -> None:
        with self.guard:
            self._closed = True
            self.sock.close()

    def close_in_child(self) -> None:
        self.guard = threading.RLock()
        self.close()

    def has_output(self) -> bool:
        return False


class PlainTransport(SocketTransport):
    """A connected stream socket. Takes it over: sets it to blocking mode."""

    is_tls = False

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(None)
        self.recv = sock.recv  # the C methods themselves: the hottest calls
        self._recv = sock.recv

    def recv_into(self, place: memoryview) -> int:
        return self.sock.recv_into(place, 0, socket.MSG_WAITALL)

    def recv_into_now(self, place: memoryview) -> int | None:
        try:
            return self.sock.recv_into(place, 0, _RECV_NOW_FLAGS)
        except BlockingIOError:
            return None

    def recv_now(self, size: int) -> bytes | None:
        try:
            return self._recv(size, _RECV_NOW_FLAGS)
        except BlockingIOError:
            return None

    def is_buffered(self) -> bool:
        return False

    def send(self, data: Any) -> int:
        return self.sock.send(data, _SEND_FLAGS)

    def send_now(self, data: Any) -> int:
        try:
            return self.sock.send(data, _SEND_NOW_FLAGS)
        except BlockingIOError:
            return 0

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        raise AttributeError(f"a connection without TLS has no {method}()")


def unacknowledged_bytes(sock: Any) -> int | None:
    """Bytes that the kernel holds and the peer has not acknowledged (SIOCOUTQ), None where it does not tell."""
    buffer = struct.pack("i", 0)
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, buffer))[0])
    except (OSError, ValueError):  # not a TCP socket, or closed already
        return None
