"""A duplex byte stream for one reader and one writer at a time: plain TCP, or TLS over another transport.

Who reads holds the reading turn, who writes the writing turn (threads/turn.py); the two run side by side. An SSL
object bears no such thing (CPython issues 137583 and 151508), so the TLS transport moves ciphertext with plain
socket calls and touches the SSLObject under a short lock, never blocking inside OpenSSL.

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
from collections.abc import Callable
from typing import Any, Protocol

from ._pollable import PollableEvent
from ._ssl_compat import SSLEOFError, SSLError, SSLWantReadError, SSLWantWriteError, ssl

# SIGPIPE would end a program that has set it back to its default.
_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
_SEND_NOW_FLAGS = _SEND_FLAGS | socket.MSG_DONTWAIT

# What one recv asks of the kernel for TLS: four records; and what is sealed at a time, so that a lent write never
# encrypts far more than the kernel takes.
_CIPHERTEXT = 64 * 1024
_SEALED = 64 * 1024
_RECORD = 16 * 1024  # RFC 8446 5.1: the most plaintext that one record holds


class Transport(Protocol):
    """What the reader and the writer ask of a byte stream."""

    @property
    def sock(self) -> Any:
        """The socket under it."""

    @property
    def guard(self) -> threading.RLock:
        """Held while the socket is closed, or asked by others than its reader and writer. Re-entrant, for a signal
        handler that ends the connection."""

    def recv(self, size: int) -> bytes:
        """Some bytes, at most `size`, waiting for them; b"" at the end of the stream. Raises OSError."""

    def recv_exactly(self, size: int) -> bytes:
        """As recv(), but waiting for all of `size` where the transport does that in one call."""

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
        """Call a method of the SSL object; AttributeError where there is none. Any thread."""


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


class PlainTransport:
    """A connected stream socket. Takes it over: sets it to blocking mode."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(None)
        self.guard = threading.RLock()  # shutdown() must not meet a descriptor that close() gave back
        self._closed = False  # guarded by self.guard
        self.recv = sock.recv  # the C method itself: the reader's hottest call

    def recv_exactly(self, size: int) -> bytes:
        return self.sock.recv(size, socket.MSG_WAITALL)

    def recv_now(self, size: int) -> bytes | None:
        try:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
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

    def has_output(self) -> bool:
        return False

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
                    self.sock.shutdown(how)
                except OSError:
                    pass  # ENOTCONN: the peer has reset the connection, so both directions have ended already

    def close(self) -> None:
        with self.guard:
            self._closed = True
            self.sock.close()

    def close_in_child(self) -> None:
        self.guard = threading.RLock()
        self.close()

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        raise AttributeError(f"a connection without TLS has no {method}()")


class TLSTransport:
    """TLS over another transport, that of a proxy's TLS included.

    context: an ssl.SSLContext.  server_hostname: for SNI and the host name check.  suppress_ragged_eofs: whether
    an end of the stream without close_notify counts as an end (as in ssl.SSLSocket), or is an SSLEOFError.
    """

    def __init__(
        self,
        raw: Transport,
        context: ssl.SSLContext,
        server_hostname: str | None,
        suppress_ragged_eofs: bool = True,
        server_side: bool = False,
    ) -> None:
        self._raw = raw
        self._lock = threading.Lock()  # guards the SSL object and both BIOs; held for no I/O
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._suppress_ragged_eofs = suppress_ragged_eofs
        self._drained = True  # reading turn: the SSL object wants more ciphertext
        self._ended: OSError | bool = False  # reading turn: the end was seen, or what is to be raised instead
        self._ciphertext: Any = b""  # writing turn: sealed, not yet written
        self._sealed = 0  # writing turn: the plaintext bytes in self._ciphertext

    @property
    def sock(self) -> Any:
        return self._raw.sock

    @property
    def guard(self) -> threading.RLock:
        return self._raw.guard

    def handshake(self, wait: Callable[[int], object]) -> None:
        """Do the TLS handshake. wait: called with select.POLLIN or POLLOUT, returns when the socket is ready or
        raises. Raises OSError, among them ssl.SSLError. Before any other use."""
        while True:
            try:
                self.ssl_object.do_handshake()
            except SSLWantReadError:
                self._flush(wait)
                while (ciphertext := self._raw.recv_now(_CIPHERTEXT)) is None:
                    wait(select.POLLIN)
                self._feed(ciphertext)
            except SSLError:
                self._say_why()
                raise
            else:
                self._flush(wait)
                break
        self._drained = False

    def _flush(self, wait: Callable[[int], object]) -> None:
        ciphertext = memoryview(self._outgoing.read())
        while ciphertext:
            if not (sent := self._raw.send_now(ciphertext)):
                wait(select.POLLOUT)
            ciphertext = ciphertext[sent:]

    def _say_why(self) -> None:
        """Send the alert that tells the peer why the handshake failed, if that can be done at once."""
        try:
            self._raw.send_now(self._outgoing.read())
        except OSError:
            pass  # the handshake's own error is on its way to the program

    def _feed(self, ciphertext: bytes) -> None:
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self._incoming.write_eof()

    def _decrypt(self, size: int) -> bytes | None:
        """Plaintext of what has arrived, at most `size` bytes; None where more ciphertext is needed."""
        if self._ended:
            if isinstance(self._ended, OSError):
                raise self._ended
            return b""
        pieces: list[bytes] = []
        self._drained = False
        with self._lock:
            while size > 0:
                try:
                    piece = self.ssl_object.read(min(size, _RECORD))
                except SSLWantReadError:
                    self._drained = True
                    break
                except ssl.SSLZeroReturnError:
                    self._ended = True
                    break
                except SSLEOFError as error:
                    self._ended = self._suppress_ragged_eofs or error
                    break
                except SSLError as error:
                    self._ended = error
                    break
                if not piece:
                    self._ended = True
                    break
                pieces.append(piece)
                size -= len(piece)
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._decrypt(size) if self._ended else None

    def recv(self, size: int) -> bytes:
        while (plaintext := self._decrypt(size)) is None:
            ciphertext = self._raw.recv(_CIPHERTEXT)
            with self._lock:
                self._feed(ciphertext)
        return plaintext

    recv_exactly = recv

    def recv_now(self, size: int) -> bytes | None:
        while (plaintext := self._decrypt(size)) is None:
            ciphertext = self._raw.recv_now(_CIPHERTEXT)
            if ciphertext is None:
                return None
            with self._lock:
                self._feed(ciphertext)
        return plaintext

    def is_buffered(self) -> bool:
        return not self._drained or self._raw.is_buffered()

    def _seal(self, data: Any) -> None:
        """Encrypt the beginning of `data`, and take what reading has left to be written."""
        piece = memoryview(data)[:_SEALED]
        with self._lock:
            if piece:
                self.ssl_object.write(piece)
            self._ciphertext = memoryview(self._outgoing.read())
        self._sealed = len(piece)

    def send(self, data: Any) -> int:
        if not self._ciphertext:
            self._seal(data)
        while self._ciphertext:
            self._ciphertext = self._ciphertext[self._raw.send(self._ciphertext) :]
        return self._sealed

    def send_now(self, data: Any) -> int:
        total = 0
        while True:
            if not self._ciphertext:
                if total == len(data):
                    return total
                self._seal(memoryview(data)[total:])
            self._ciphertext = self._ciphertext[self._raw.send_now(self._ciphertext) :]
            if self._ciphertext:
                return total
            total += self._sealed

    def has_output(self) -> bool:
        with self._lock:
            return self._outgoing.pending > 0

    def finish(self) -> None:
        try:
            with self._lock:
                try:
                    self.ssl_object.unwrap()
                except SSLWantReadError:
                    pass  # our close_notify is written, the peer's is yet to come
                ciphertext = self._outgoing.read()
            self._raw.send_now(ciphertext)
        except OSError:
            pass  # the connection is at its end; a close_notify that cannot be sent is missed by nobody
        self._raw.finish()

    def shutdown_reading(self) -> None:
        self._raw.shutdown_reading()

    def shutdown(self) -> None:
        self._raw.shutdown()

    def close(self) -> None:
        self._raw.close()

    def close_in_child(self) -> None:
        self._lock = threading.Lock()
        self._raw.close_in_child()

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            return getattr(self.ssl_object, method)(*arguments)


class WrappedTLSTransport:
    """An ssl.SSLSocket that the program handed in. OpenSSL reads and writes its socket itself, so the socket is
    set to non-blocking, each call is made under a lock, and waiting is done outside of both."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        sock.settimeout(0)
        self._lock = threading.Lock()  # guards every call into OpenSSL; none of them waits
        self.guard = threading.RLock()
        self._closed = False  # guarded by self.guard
        self._write_waits_for = select.POLLOUT  # writing turn

    def _wait(self, events: int) -> None:
        poller = select.poll()
        poller.register(self.sock.fileno(), events)
        poller.poll()

    def recv_now(self, size: int) -> bytes | None:
        with self._lock:
            try:
                return self.sock.recv(size)
            except (SSLWantReadError, SSLWantWriteError):
                return None
            except ssl.SSLZeroReturnError:
                return b""

    def recv(self, size: int) -> bytes:
        while (data := self.recv_now(size)) is None:
            self._wait(select.POLLIN)
        return data

    recv_exactly = recv

    def is_buffered(self) -> bool:
        with self._lock:
            return self.sock.pending() > 0

    def send_now(self, data: Any) -> int:
        if not len(data):
            return 0
        with self._lock:
            try:
                return self.sock.send(data)
            except SSLWantWriteError:
                self._write_waits_for = select.POLLOUT
            except SSLWantReadError:  # a renegotiation: the reader brings what is missing
                self._write_waits_for = select.POLLIN
        return 0

    def send(self, data: Any) -> int:
        while not (sent := self.send_now(data)) and len(data):
            self._wait(self._write_waits_for)
        return sent

    def has_output(self) -> bool:
        return False

    def _shut(self, how: int) -> None:
        with self.guard:
            if not self._closed:
                try:
                    # Not SSLSocket.shutdown: that one drops the TLS state under a reader.
                    socket.socket.shutdown(self.sock, how)
                except OSError:
                    pass  # ENOTCONN: both directions have ended already

    def finish(self) -> None:
        self._shut(socket.SHUT_WR)

    def shutdown_reading(self) -> None:
        self._shut(socket.SHUT_RD)

    def shutdown(self) -> None:
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        with self.guard:
            self._closed = True
            self.sock.close()

    def close_in_child(self) -> None:
        self.guard = threading.RLock()
        self._lock = threading.Lock()
        self.close()

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            return getattr(self.sock, method)(*arguments)


def adopt(sock: Any) -> Transport:
    """A transport over a connected socket that the program brings, plain or wrapped in TLS."""
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        return WrappedTLSTransport(sock)
    if not isinstance(sock, socket.socket):
        raise TypeError(f"socket must be a connected socket.socket or ssl.SSLSocket, not {type(sock).__name__}")
    return PlainTransport(sock)


def unacknowledged_bytes(sock: Any) -> int | None:
    """Bytes that the kernel holds and the peer has not acknowledged (SIOCOUTQ), None where it does not tell."""
    buffer = struct.pack("i", 0)
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, buffer))[0])
    except (OSError, ValueError):  # not a TCP socket, or closed already
        return None
