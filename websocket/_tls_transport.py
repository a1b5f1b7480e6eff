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

from ._read_size import ReadSize
from ._ssl_compat import SSLEOFError, SSLError, SSLWantReadError, SSLWantWriteError, ssl
from ._transport import SocketTransport, Transport

# What is sealed at a time, so that a lent write never encrypts far more than the kernel takes.
_SEALED = 64 * 1024
_RECORD = 16 * 1024  # RFC 8446 5.1: the most plaintext that one record holds


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
        self._read_size = ReadSize()  # reading turn: of ciphertext
        self._drained = True  # reading turn: the SSL object wants more ciphertext
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

    def _decrypt(self, size: int) -> bytes | None:
        """Plaintext of what has arrived, at most `size` bytes; None where more ciphertext is needed."""
        if self._has_ended():
            return b""
        with self._lock:
            pieces = self._decrypt_locked(size)
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return b"" if self._has_ended() else None

    def _decrypt_into(self, place: memoryview) -> int | None:
        """_decrypt() into `place`; returns how many bytes."""
        if self._has_ended():
            return 0
        filled = 0
        with self._lock:
            while filled < len(place) and (count := self._read_record(len(place) - filled, place[filled:])):
                filled += count
        if filled:
            return filled
        return 0 if self._has_ended() else None

    def _has_ended(self) -> bool:
        """Whether the end was seen. Raises what has ended it, where that is an error."""
        if isinstance(self._ended, OSError):
            raise self._ended
        return self._ended

    def _decrypt_locked(self, size: int) -> list[bytes]:
        """The plaintext of whole records, one piece each. With the lock held."""
        pieces: list[bytes] = []
        while size > 0 and (piece := self._read_record(min(size, _RECORD))):
            pieces.append(piece)
            size -= len(piece)
        return pieces

    def _read_record(self, *arguments: Any) -> Any:
        """SSLObject.read(); something false where there is no whole record, or the end. With the lock held."""
        self._drained = False
        try:
            plaintext = self.ssl_object.read(*arguments)
        except SSLWantReadError:
            self._drained = True
            return None
        except ssl.SSLZeroReturnError:
            self._ended = True
            return None
        except SSLEOFError as error:
            self._ended = self._suppress_ragged_eofs or error
            return None
        except SSLError as error:
            self._ended = error
            return None
        if not plaintext:
            self._ended = True
        return plaintext

    def _take_ciphertext(self, receive: Callable[[int], bytes | None]) -> bool:
        """Give the SSL object more to decrypt; False where there is none now."""
        if (ciphertext := receive(self._read_size.current)) is None:
            return False
        self._read_size.adapt(len(ciphertext))
        with self._lock:
            self._feed(ciphertext)
        return True

    def recv(self, size: int) -> bytes:
        while (plaintext := self._decrypt(size)) is None:
            self._take_ciphertext(self._raw.recv)
        return plaintext

    def recv_now(self, size: int) -> bytes | None:
        while (plaintext := self._decrypt(size)) is None:
            if not self._take_ciphertext(self._raw.recv_now):
                return None
        return plaintext

    def recv_into(self, place: memoryview) -> int:
        while (filled := self._decrypt_into(place)) is None:
            self._take_ciphertext(self._raw.recv)
        return filled

    def recv_into_now(self, place: memoryview) -> int | None:
        while (filled := self._decrypt_into(place)) is None:
            if not self._take_ciphertext(self._raw.recv_now):
                return None
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
        with self._lock:
            return self._outgoing.pending > 0 or self._raw.has_output()

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
