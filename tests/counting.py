"""What the tests of the fast paths count: calls on sockets, sleeps of threads, functions called, bytes allocated.

Nothing here looks at a clock. The sockets are real ones, and the transports on them are the package's own.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from types import FrameType
from typing import Any, NamedTuple

import websocket
from websocket import WebSocket
from websocket._transport import unacknowledged_bytes
from websocket.testing import Peer

from .conftest import PATIENCE, wait_until
from .test_lifecycle import is_asleep, leave_something_to_the_writer, voluntary_switches
from .test_receiving import frame

# What the package asks of the kernel at a time.
SMALLEST_READ = 16 * 1024
LARGEST_READ = 256 * 1024


class Call(NamedTuple):
    """One call on a socket.

    name: of the method.  thread: the calling thread's ident.  moved: how many bytes came or went; None where the
    call raised, as one does that would have to wait and may not.  what: id() of what was to be sent.
    """

    name: str
    thread: int
    moved: int | None
    what: int


class CountingSocket(socket.socket):
    """A socket that keeps what is called on it, and who is inside of a call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: list[Call] = []
        self.inside: dict[int, str] = {}  # which method each thread is in; each thread writes its own

    def _counted(self, name: str, *arguments: Any) -> Any:
        moved: int | None = None
        self.inside[get_ident()] = name
        try:
            result = getattr(super(), name)(*arguments)
            first = result[0] if isinstance(result, tuple) else result
            moved = first if isinstance(first, int) else 0 if first is None else len(first)
            return result
        finally:
            self.calls.append(Call(name, get_ident(), moved, id(arguments[0])))
            del self.inside[get_ident()]

    def recv(self, *arguments: Any) -> bytes:
        result: bytes = self._counted("recv", *arguments)
        return result

    def recv_into(self, *arguments: Any) -> int:
        result: int = self._counted("recv_into", *arguments)
        return result

    def recvfrom(self, *arguments: Any) -> Any:
        return self._counted("recvfrom", *arguments)

    def recvfrom_into(self, *arguments: Any) -> Any:
        return self._counted("recvfrom_into", *arguments)

    def recvmsg(self, *arguments: Any) -> Any:
        return self._counted("recvmsg", *arguments)

    def recvmsg_into(self, *arguments: Any) -> Any:
        return self._counted("recvmsg_into", *arguments)

    def send(self, *arguments: Any) -> int:
        result: int = self._counted("send", *arguments)
        return result

    def sendall(self, *arguments: Any) -> None:
        self._counted("sendall", *arguments)

    def sendmsg(self, *arguments: Any) -> int:
        result: int = self._counted("sendmsg", *arguments)
        return result

    def sendto(self, *arguments: Any) -> int:
        result: int = self._counted("sendto", *arguments)
        return result


@contextmanager
def counting_sockets() -> Iterator[None]:
    """Sockets that are made in here, by whomever, count."""
    former = socket.socket
    socket.socket = CountingSocket  # type: ignore[misc]
    try:
        yield
    finally:
        socket.socket = former  # type: ignore[misc]


class Counts:
    """What is counted of one connection whose socket counts. reset() begins anew."""

    def __init__(self, connection: WebSocket) -> None:
        inner = connection._connection
        assert inner is not None
        assert isinstance(inner.transport.sock, CountingSocket)
        leave_something_to_the_writer(connection)  # so that there is one from here on
        self._inbox, self._outlet = inner.inbox, inner.outlet
        self.sock = inner.transport.sock
        self.actors = [thread for thread in threading.enumerate() if thread.name.endswith(inner.name)]
        self.reader, self.writer = (
            next(thread.ident or 0 for thread in self.actors if role in thread.name) for role in ("reader", "writer")
        )
        self.reset()

    def reset(self) -> None:
        self._first = len(self.sock.calls)
        self._slept = self._sleeps()

    def _sleeps(self) -> int:
        return sum(int(line.split()[1]) for line in voluntary_switches(self.actors))

    @property
    def calls(self) -> list[Call]:
        return self.sock.calls[self._first :]

    @property
    def sends(self) -> list[Call]:
        return [call for call in self.calls if call.name.startswith("send")]

    @property
    def receives(self) -> list[Call]:
        return [call for call in self.calls if call.name.startswith("recv")]

    @property
    def threads(self) -> set[int]:
        return {call.thread for call in self.calls}

    @property
    def wakes(self) -> int:
        """How often the connection's own threads have gone to sleep again. One that was at_rest() may do that a few
        times more, where it did not have the interpreter's lock yet."""
        return self._sleeps() - self._slept

    def at_rest(self) -> bool:
        """Whether reader and writer have given their turns to whoever wants them, and sleep until they are woken."""
        turns = (self._inbox.turn, self._outlet.turn)
        return all(
            not turn.holder and not turn._return_wanted and len(turn._changed._waiters) == 1  # type: ignore[attr-defined]
            for turn in turns
        ) and is_asleep(self.actors)

    def reader_waits_in_recv(self) -> bool:
        return self.sock.inside.get(self.reader) == "recv"

    def writer_is_stuck(self) -> bool:
        """Whether the writer thread is inside of a call that sends, where the peer takes nothing."""
        return self.sock.inside.get(self.writer, "").startswith("send")


def many(size: int) -> tuple[bytes, list[str]]:
    """So many bytes of small frames, and the messages in them."""
    messages = [f"{number:026}" for number in range(size // 28)]
    return b"".join(map(frame, messages)), messages


def reads(size: int) -> int:
    """How many reads take what has arrived, where each that comes back full doubles the next."""
    count, read = 0, SMALLEST_READ
    while size > 0:
        size -= read
        count += 1
        read = min(2 * read, LARGEST_READ)
    return count


class Feeder:
    """A server's handler that sends what it is told to, in one write, and looks whether it has arrived.

    takes_one_before: whether it takes a message before each.
    """

    def __init__(self) -> None:
        self.takes_one_before = False
        self._next: bytes | None = None
        self._peer: Peer | None = None
        self._wanted = threading.Semaphore(0)
        self._sent = threading.Semaphore(0)

    def __call__(self, peer: Peer) -> None:
        self._peer = peer
        while self._wanted.acquire(timeout=PATIENCE) and self._next is not None:
            if self.takes_one_before:
                peer.recv()
            peer.send_raw(self._next)
            self._sent.release()

    def begin(self, data: bytes) -> None:
        """Returns at once."""
        self._next = data
        self._wanted.release()

    def send(self, data: bytes) -> None:
        """Returns when all of it has arrived at the client's socket, which must have room for it."""
        self.begin(data)
        assert self._sent.acquire(timeout=PATIENCE)
        peer = self._peer
        assert peer is not None
        wait_until(lambda: unacknowledged_bytes(peer.sock) == 0, "the client's kernel has it all")

    def end(self) -> None:
        """Let the handler return."""
        self._next = None
        self._wanted.release()


class Calls:
    """Which functions were called: the file of each one in Python; "name" or "Type.name" of each one in C."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.builtins: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.files.append(frame.f_code.co_filename)
        elif event == "c_call":
            self.builtins.append(getattr(argument, "__qualname__", ""))

    def in_package(self) -> list[str]:
        """Of the package's functions, the names of the files they are in."""
        package = os.path.dirname(websocket.__file__)
        return [os.path.basename(name) for name in self.files if name.startswith(package)]


@contextmanager
def functions_called() -> Iterator[Calls]:
    """What this thread calls in here, down to the last function; without what the collector of garbage finds."""
    calls = Calls()
    gc.disable()
    sys.setprofile(calls)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


class Memory:
    """Bytes allocated by Python, since the beginning of memory_counted()."""

    def __init__(self) -> None:
        self._before = tracemalloc.get_traced_memory()[0]

    @property
    def held(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self._before

    @property
    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self._before


@contextmanager
def memory_counted() -> Iterator[Memory]:
    tracemalloc.start()
    try:
        yield Memory()
    finally:
        tracemalloc.stop()


Counted = Callable[..., tuple[WebSocket, Counts]]
