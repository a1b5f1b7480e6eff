"""TLS as a transport, over another transport or in a socket that the program has wrapped.

An SSL object does not bear a read and a write at once (CPython issues 137583 and 151508), so ciphertext moves by plain
socket calls, and the SSLObject is touched under a short lock, never blocking inside OpenSSL. The locks are re-entrant:
a signal handler that sends may have interrupted a read.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ._read_size import LARGEST_READ, ReadSize
from ._ssl_compat import SSLEOFError, SSLError, SSLWantReadError, SSLWantWriteError, ssl
from ._transport import SocketTransport, Transport

# What is sealed at a time, so that a lent write never encrypts far more than the kernel takes.
_SEALED = 64 * 1024
_RECORD = 16 * 1024  # RFC 8446 5.1: the most plaintext that one record holds
# Of ciphertext: what is in it, and in half a record before it, is read by whoever asks for LARGEST_READ in one go.
_LARGEST_READ = LARGEST_READ - _RECORD


class TLSTransport:
    """TLS over another transport, that of a proxy's TLS included.

    context: an ssl.SSLContext.  server_hostname: for SNI and the host name check.  suppress_ragged_eofs: whether
    an end of the stream without close_notify counts as an end (as in ssl.SSLSocket), or is an SSLEOFError.
    """

    is_tls = True

    def __init__(
        self,
        raw: Transport,
        context: ssl.SSLContext,
        server_hostname: str | None,
        suppress_ragged_eofs: bool = True,
    ) -> None:
        self._raw = raw
        self._lock = threading.RLock()  # guards the SSL object and both BIOs; held for no I/O
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._suppress_ragged_eofs = suppress_ragged_eofs
        self._read_size = ReadSize(_LARGEST_READ)  # reading turn: of ciphertext
        self._drained = True  # reading turn: the SSL object wants more ciphertext
        self._has_output = False  # reading has made ciphertext, not yet taken; set under the lock, read without
        self._ended: OSError | bool = False  # reading turn: the end was seen, or what is to be raised instead
        self._ciphertext: Any = b""  # writing turn: sealed, not yet written
        # Writing turn: (bytes of ciphertext to be written, plaintext in it) of each record in self._ciphertext.
        self._records: deque[tuple[int, int]] = deque()

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
                self._feed(self._receive(wait))
            except SSLError:
                self._say_why()
                raise
            else:
                self._flush(wait)
                break
        self._drained = False

    def _receive(self, wait: Callable[[int], object]) -> bytes:
        while True:
            if not self._raw.is_buffered():
                wait(select.POLLIN)  # though something may be here: it keeps the deadline, a peer may send without end
            if (ciphertext := self._raw.recv_now(self._read_size.current)) is not None:
                return ciphertext

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

    def _decrypt(self, size: int, ciphertext: bytes | None = None) -> bytes | None:
        """Plaintext of what has arrived, of `ciphertext` as well, at most `size` bytes; None where more is needed."""
        if self._ended:
            return self._end()
        with self._lock:
            if ciphertext is not None:
                self._feed(ciphertext)
            pieces = self._decrypt_locked(size)
            self._has_output = self._outgoing.pending > 0
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._end() if self._ended else None

    def _decrypt_into(self, place: memoryview, ciphertext: bytes | None = None) -> int | None:
        """_decrypt() into `place`; returns how many bytes."""
        if self._ended:
            return len(self._end())
        with self._lock:
            if ciphertext is not None:
                self._feed(ciphertext)
            filled = self._decrypt_into_locked(place)
            self._has_output = self._outgoing.pending > 0
        if filled:
            return filled
        return len(self._end()) if self._ended else None

    def _end(self) -> bytes:
        """What there is to be read after the end: nothing. Raises what has ended it, where that is an error."""
        if isinstance(self._ended, OSError):
            raise self._ended
        return b""

    def _decrypt_locked(self, size: int) -> list[bytes]:
        """The plaintext of whole records, one piece each. With the lock held."""
        pieces: list[bytes] = []
        incoming, read = self._incoming, self.ssl_object.read
        self._drained = False
        try:
            while size > 0:
                if not (piece := read(size if size < _RECORD else _RECORD)):
                    self._ended = True
                    break
                pieces.append(piece)
                size -= len(piece)
                if not incoming.pending and self._is_empty():
                    break
        except SSLError as error:
            self._stop(error)
        return pieces

    def _decrypt_into_locked(self, place: memoryview) -> int:
        """Fill the beginning of `place` with the plaintext of whole records. With the lock held."""
        filled, size = 0, len(place)
        incoming = self._incoming
        read: Callable[[int, memoryview], Any] = self.ssl_object.read
        self._drained = False
        try:
            while filled < size:
                if not (count := read(size - filled, place[filled:])):
                    self._ended = True
                    break
                filled += count
                if not incoming.pending and self._is_empty():
                    break
        except SSLError as error:
            self._stop(error)
        return filled

    def _is_empty(self) -> bool:
        """Where all ciphertext is taken: whether its plaintext has been read, so that the SSL object need not be asked
        again only to raise SSLWantReadError. What it has neither as this nor as that is half a record. With the lock
        held."""
        self._drained = not self.ssl_object.pending()
        return self._drained

    def _stop(self, error: SSLError) -> None:
        """SSLObject.read() has given no record but raised this. With the lock held."""
        if isinstance(error, SSLWantReadError):
            self._drained = True
        elif isinstance(error, ssl.SSLZeroReturnError):
            self._ended = True
        elif isinstance(error, SSLEOFError):
            self._ended = self._suppress_ragged_eofs or error
        else:
            self._ended = error

    def _receive_by(self, receive: Callable[[int], bytes | None]) -> bytes | None:
        """More ciphertext; None where there is none now."""
        ciphertext = receive(self._read_size.current)
        if ciphertext is not None:
            self._read_size.adapt(len(ciphertext))
        return ciphertext

    def recv(self, size: int) -> bytes:
        plaintext = None if self._drained else self._decrypt(size)
        while plaintext is None:
            plaintext = self._decrypt(size, self._receive_by(self._raw.recv))
        return plaintext

    def recv_now(self, size: int) -> bytes | None:
        plaintext = None if self._drained else self._decrypt(size)
        while plaintext is None:
            if (ciphertext := self._receive_by(self._raw.recv_now)) is None:
                return None
            plaintext = self._decrypt(size, ciphertext)
        return plaintext

    def recv_into(self, place: memoryview) -> int:
        filled = None if self._drained else self._decrypt_into(place)
        while filled is None:
            filled = self._decrypt_into(place, self._receive_by(self._raw.recv))
        return filled

    def recv_into_now(self, place: memoryview) -> int | None:
        filled = None if self._drained else self._decrypt_into(place)
        while filled is None:
            if (ciphertext := self._receive_by(self._raw.recv_now)) is None:
                return None
            filled = self._decrypt_into(place, ciphertext)
        return filled

    def is_buffered(self) -> bool:
        return not self._drained or self._raw.is_buffered()

    def _seal(self, data: Any) -> None:
        """Encrypt the beginning of `data`, and take what reading has left to be written."""
        view = memoryview(data)
        if len(view) >= _SEALED + _RECORD:  # a payload of that size and its header go at once
            view = view[:_SEALED]
        with self._lock:
            before = 0
            for start in range(0, len(view), _RECORD):
                piece = view[start : start + _RECORD]
                self.ssl_object.write(piece)
                self._records.append((self._outgoing.pending - before, len(piece)))
                before = self._outgoing.pending
            self._ciphertext = memoryview(self._outgoing.read())
            self._has_output = False

    def _took(self, count: int) -> int:
        """So much ciphertext was written; returns the plaintext of the records that are whole now. What is in half a
        record does not exist for the peer."""
        self._ciphertext = self._ciphertext[count:]
        plaintext = 0
        while self._records:
            size, contained = self._records[0]
            if size > count:
                self._records[0] = (size - count, contained)
                break
            count -= size
            plaintext += contained
            self._records.popleft()
        return plaintext

    def send(self, data: Any) -> int:
        if not self._ciphertext:
            self._seal(data)
        if not self._ciphertext and self._raw.has_output():
            self._raw.send(b"")
        written = 0
        while self._ciphertext and not written:
            written = self._took(self._raw.send(self._ciphertext))
        return written

    def send_now(self, data: Any) -> int:
        total = 0
        while True:
            if not self._ciphertext:
                if total == len(data):
                    return total
                self._seal(memoryview(data)[total:])
            total += self._took(self._raw.send_now(self._ciphertext))
            if self._ciphertext:
                return total

    def has_output(self) -> bool:
        return self._has_output or self._raw.has_output()

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
        self._lock = threading.RLock()
        self._raw.close_in_child()

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        with self.guard, self._lock:
            return getattr(self.ssl_object, method)(*arguments)


class ProxyTLSTransport(TLSTransport):
    """TLS to a proxy. What runs in its tunnel has TLS of its own, or none: the server is not the one asked here."""

    is_tls = False

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        raise AttributeError(f"a connection without TLS to its server has no {method}()")


class WrappedTLSTransport(SocketTransport):
    """An ssl.SSLSocket that the program handed in. OpenSSL reads and writes its socket itself, so the socket is
    set to non-blocking, each call is made under a lock, and waiting is done outside of both."""

    sock: ssl.SSLSocket
    is_tls = True

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.settimeout(0)
        self._lock = threading.RLock()  # guards every call into OpenSSL; none of them waits
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

    def recv_into_now(self, place: memoryview) -> int | None:
        with self._lock:
            try:
                return self.sock.recv_into(place)
            except (SSLWantReadError, SSLWantWriteError):
                return None
            except ssl.SSLZeroReturnError:
                return 0

    def recv_into(self, place: memoryview) -> int:
        while (filled := self.recv_into_now(place)) is None:
            self._wait(select.POLLIN)
        return filled

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

    def close_in_child(self) -> None:
        self._lock = threading.RLock()
        super().close_in_child()

    def ask_tls(self, method: str, *arguments: Any) -> Any:
        with self.guard, self._lock:
            return getattr(self.sock, method)(*arguments)
