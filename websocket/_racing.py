"""Happy Eyeballs (RFC 8305): connect to the addresses of a host side by side, each a little later than the one before,
so that one which does not answer costs a moment and not the whole timeout. One thread, one poll()."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ._attempt import Attempt
from ._exceptions import (
    WebSocketConnectException,
    WebSocketConnectionRefusedException,
    WebSocketTimeoutException,
)
from ._hosts import bracketed
from ._socket import DEFAULT_SOCKET_OPTION

# RFC 8305 5: the recommended time before the next address is tried as well.
ATTEMPT_DELAY: Final = 0.25  # seconds

_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


def connect_tcp(host: str, port: int, attempt: Attempt, sockopt: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A connected, non-blocking socket to the address of the host that answers first; no other is left open.

    Raises WebSocketAddressException, WebSocketTimeoutException, or WebSocketConnectException; the last two name every
    address that was tried and what became of it.
    """
    return _Race(host, interleave(attempt.resolve(host, port)), attempt, sockopt).run()


def interleave(addresses: Iterable[Any]) -> list[Any]:
    """Results of getaddrinfo() in their order, but with the families taking turns (RFC 8305 4), each address once."""
    unique = list(dict.fromkeys(addresses))
    if len(unique) == 1:
        return unique
    families: dict[int, deque[Any]] = {}
    for info in unique:
        families.setdefault(info[0], deque()).append(info)
    result = []
    while queues := [queue for queue in families.values() if queue]:
        result += [queue.popleft() for queue in queues]
    return result


class _Race:
    """The attempts to reach one host. One thread."""

    def __init__(self, host: str, addresses: list[Any], attempt: Attempt, sockopt: Sequence[tuple[Any, ...]]) -> None:
        self._host = host
        self._attempt = attempt
        self._sockopt = sockopt
        self._to_come = deque(addresses)
        self._running: dict[socket.socket, str] = {}  # in the order of their start, with their names
        self._failures: list[tuple[str, OSError]] = []
        self._winner: socket.socket | None = None

    def run(self) -> socket.socket:
        try:
            while self._winner is None:
                if self._to_come:
                    if not self._start_next():
                        continue
                elif not self._running:
                    raise self._all_failed()
                if self._winner is None:
                    self._wait(time.monotonic() + ATTEMPT_DELAY if self._to_come else None)
        except WebSocketTimeoutException as error:
            raise self._in_vain(error) from error
        finally:
            for sock in self._running:
                sock.close()
        return self._winner

    def _start_next(self) -> bool:
        """Begin to connect to the next address; False where that has failed at once."""
        family, kind, protocol, _, address = self._to_come.popleft()
        name = f"{bracketed(address[0])}:{address[1]}"
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            self._failures.append((name, error))
            return False
        self._running[sock] = name  # before anything can raise
        try:
            set_options(sock, DEFAULT_SOCKET_OPTION)
            set_options(sock, self._sockopt)
            sock.setblocking(False)
            code = sock.connect_ex(address)
        except OSError as error:
            self._fail(sock, error)
            return False
        return code in _UNDER_WAY or self._settle(sock, code)

    def _wait(self, limit: float | None) -> None:
        """Wait until an attempt succeeds or fails, or the moment `limit`."""
        ready = self._attempt.wait_for_any(list(self._running), select.POLLOUT, self._doing(), limit)
        for sock in list(self._running):
            if sock.fileno() in ready and self._settle(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                break  # the one that was started first, where two have answered

    def _settle(self, sock: socket.socket, code: int) -> bool:
        """An attempt has ended with this errno, 0 for success; returns whether it is that."""
        if code:
            self._fail(sock, OSError(code, os.strerror(code)))
            return False
        del self._running[sock]
        self._winner = sock
        return True

    def _fail(self, sock: socket.socket, error: OSError) -> None:
        self._failures.append((self._running.pop(sock), error))
        sock.close()

    def _doing(self) -> str:
        return f"connecting to {' and '.join(self._running.values())}"

    def _failed(self) -> list[str]:
        return [f"{name}: {error.strerror or error}" for name, error in self._failures]

    def _in_vain(self, error: WebSocketTimeoutException) -> WebSocketTimeoutException:
        if not self._failures and len(self._running) == 1:
            return error
        details = [*self._failed(), *(f"{name}: no answer" for name in self._running.values())]
        return WebSocketTimeoutException(f"{error} (host {self._host!r}; {'; '.join(details)})")

    def _all_failed(self) -> WebSocketConnectException:
        last = self._failures[-1][1]
        refused = all(isinstance(error, ConnectionRefusedError) for _, error in self._failures)
        kind = WebSocketConnectionRefusedException if refused else WebSocketConnectException
        result = kind(last.errno, f"cannot connect to {self._host!r}: {'; '.join(self._failed())}")
        result.__cause__ = last
        return result


def set_options(sock: socket.socket, options: Iterable[tuple[Any, ...]]) -> None:
    """Set socket options. Raises WebSocketConnectException that names the one that cannot be set."""
    for option in options:
        try:
            sock.setsockopt(*option)
        except (OSError, TypeError) as error:
            code = error.errno if isinstance(error, OSError) else errno.EINVAL
            raise WebSocketConnectException(code, f"sockopt {option!r} cannot be set: {error}") from error
