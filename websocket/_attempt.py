"""One attempt to connect: a deadline over all of its steps, and the means to cut it short from any thread."""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ._exceptions import (
    WebSocketAddressException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
)
from ._hosts import is_address
from ._pollable import PollableEvent
from ._transport import Transport, poll_timeout

_LONGEST: Final = 1e9  # seconds; 30 years, which all that waits can wait for


class Attempt:
    """One attempt to connect: its deadline, and the means to cancel it from another thread.

    timeout: seconds for everything from the name to the handshake, None for no limit. Used by one thread, apart
    from cancel(). A context manager; what waits after its end is an error.
    """

    def __init__(self, timeout: float | None) -> None:
        self._limit = f"timeout of {timeout} s"  # whose deadline it is, for messages
        self._deadline = _deadline(timeout)
        self.cancelled = False  # cancel() was called
        self._wake = PollableEvent()  # set by it
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._wake.close()

    def cancel(self) -> None:
        """End the attempt: what waits in it raises WebSocketConnectionClosedException. Any thread."""
        self.cancelled = True
        self._wake.set()
        self._answers.put(None)

    @contextmanager
    def limited_to(self, seconds: float | None, name: str) -> Iterator[None]:
        """A part of the attempt that has a deadline of its own where that is the earlier one; None for none.
        name: the option that says so."""
        outer = self._deadline, self._limit
        deadline = _deadline(seconds)
        if deadline is not None and (self._deadline is None or deadline < self._deadline):
            self._deadline, self._limit = deadline, f"{name} of {seconds} s"
        try:
            yield
        finally:
            self._deadline, self._limit = outer

    def check(self, doing: str) -> None:
        """Raise if the attempt was cancelled or its time is over. doing: what took the time, for the message."""
        if self.cancelled:
            raise WebSocketConnectionClosedException(f"the connection was closed by this program while {doing}")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise WebSocketTimeoutException(f"{self._limit} is over while {doing}")

    def wait(self, sock: socket.socket, events: int, doing: str) -> None:
        """Wait until the socket is ready for `events` of select.poll."""
        self.wait_for_any((sock,), events, doing)

    def wait_for_any(
        self, socks: Sequence[socket.socket], events: int, doing: str, limit: float | None = None
    ) -> dict[int, int]:
        """wait() for one or more of several sockets: the descriptors of those that are ready, and for what.

        limit: a time.monotonic() moment to give up at, with none; the attempt's own deadline raises.
        """
        poller = select.poll()
        for sock in socks:
            poller.register(sock.fileno(), events)
        poller.register(self._wake.fileno(), select.POLLIN)
        first = self._deadline
        if limit is not None and (first is None or limit < first):
            first = limit
        while True:
            ready = poller.poll(poll_timeout(first))
            self.check(doing)
            if ready:
                return dict(ready)
            if limit is not None and time.monotonic() >= limit:
                return {}

    def pause(self, seconds: float, doing: str) -> None:
        """Let a moment pass, for what no event tells of."""
        self.wait_for_any([], 0, doing, time.monotonic() + seconds)

    def receive(self, transport: Transport, size: int, doing: str) -> bytes:
        """Some bytes, at most `size`, waiting for them; b"" at the end of the stream. Raises OSError."""
        while True:
            self.check(doing)
            if not transport.is_buffered():
                self.wait(transport.sock, select.POLLIN, doing)
            if (received := transport.recv_now(size)) is not None:
                return received

    def send(self, transport: Transport, data: bytes, doing: str) -> None:
        """Write all of `data`. Raises OSError."""
        while data:
            if not (sent := transport.send_now(data)):
                self.wait(transport.sock, select.POLLOUT, doing)
            data = data[sent:]

    def resolve(self, host: str, port: int) -> list[Any]:
        """The addresses of a host, as socket.getaddrinfo() gives them. The call itself cannot be interrupted, so
        that of a name is made on a thread of its own, which is left behind where the deadline passes."""
        if is_address(host):
            if ":" in host:  # its zone, and what it is called in short, the system knows
                return _addresses(host, port)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.SOL_TCP, "", (host, port))]
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
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:  # None is cancel()'s
                thread.join()
                return list(answer)


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + min(seconds, _LONGEST)


def _addresses(host: str, port: int) -> list[Any]:
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.SOL_TCP)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise WebSocketAddressException(f"cannot resolve {host!r}: {error}") from error
    if not found:
        raise WebSocketAddressException(f"cannot resolve {host!r}: it has no address")
    return found


def _addresses_or_error(host: str, port: int) -> list[Any] | BaseException:
    try:
        return _addresses(host, port)
    except BaseException as error:  # noqa: BLE001  # raised by the thread that waits for the answer
        return error
