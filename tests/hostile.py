"""What the tests of hostile and unlucky servers share: both ways to hear a server, memory, a relay that goes silent."""

from __future__ import annotations

import gc
import select
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException, WebSocketException
from websocket._abnf import encode_frame
from websocket.testing import Peer

from .conftest import PATIENCE, Collected
from .recorder import Record

Handler = Callable[[Peer], Any]
Hear = Callable[..., "Heard"]

WAYS = ["recv", "callbacks"]
by_recv_alone = pytest.mark.parametrize("hear", ["recv"], indirect=True)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A server's frame. first: FIN, reserved bits and opcode."""
    return encode_frame(first, payload, None)


def announced(first: int, size: int) -> bytes:
    """The header of a frame with a length of 64 bits."""
    return bytes([first, 127]) + size.to_bytes(8, "big")


def close_frame(code: int) -> tuple[int, bytes]:
    """A client's close frame, as Collected keeps it."""
    return (ABNF.OPCODE_CLOSE, code.to_bytes(2, "big"))


@dataclass(frozen=True)
class Heard:
    """What a program is told of a server: messages, the exception that tells of the end (None where callbacks need
    none), code and reason of the server's close frame."""

    messages: list[Any]
    error: Any
    code: int | None
    reason: str | None


def hear_by_recv(connect_to: Callable[..., WebSocket]) -> Hear:
    def hear(handler: Handler, scheme: str = "ws", raw: bool = False, **options: Any) -> Heard:
        connection = connect_to(handler, scheme, raw, **options)
        messages = []
        error: Any = None
        while error is None:
            try:
                opcode, data = connection.recv_data()
            except WebSocketException as caught:
                error = caught
            else:
                if opcode != ABNF.OPCODE_CLOSE:  # the call after it tells the code
                    messages.append(data.decode() if opcode == ABNF.OPCODE_TEXT else data)
        for call in (connection.recv, lambda: connection.send("refused")):
            with pytest.raises(WebSocketConnectionClosedException) as refused:
                call()
            if not isinstance(error, WebSocketConnectionClosedException):
                assert refused.value.__cause__ is error
        assert not connection.connected
        connection.close()
        assert connection.unsent == list(error.unsent)
        return Heard(messages, error, error.code, error.reason)

    return hear


def hear_by_callbacks(record: Record) -> Hear:
    def hear(handler: Handler, scheme: str = "ws", raw: bool = False, **options: Any) -> Heard:
        app = record(handler, scheme, raw, names=("message", "error", "close"))
        is_failure = app.run(**options)
        names = [call.name for call in app.calls]
        assert names.count("close") == 1
        assert names[-1] == "close"
        assert names.count("error") == is_failure
        messages = [call.arguments[0] for call in app.calls if call.name == "message"]
        return Heard(messages, app.errors[0] if is_failure else None, *app.calls[-1].arguments)

    return hear


def way_to_hear(name: str, connect_to: Callable[..., WebSocket], record: Record) -> Hear:
    """hear(handler, "wss", raw=True, **options): connects, listens to the end, closes. name: one of WAYS."""
    return hear_by_recv(connect_to) if name == "recv" else hear_by_callbacks(record)


@contextmanager
def bounded_memory(peak: int, left: int = 1_500_000) -> Iterator[None]:
    """At most so many bytes more than before, of Python's, inside and afterwards. What is inside has an end of its
    own; a connection may be kept beyond it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        held, most = tracemalloc.get_traced_memory()
        assert most - before < peak, f"{most - before:,} bytes at the peak"
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        assert held - before < left, f"{held - before:,} bytes are left"
    finally:
        tracemalloc.stop()


def read_what_is_here(peer: Peer) -> None:
    """Let a peer take what has come, without waiting for more: its `pongs` and `close_frame` tell."""
    while select.select([peer.sock], [], [], 0)[0]:
        if not peer._receive() and peer.close_frame is None:
            raise ConnectionError("the client has ended the stream without a close frame")
        if peer.close_frame is not None:
            break


class Endless:
    """A handler that sends, and goes on sending the same until the client's close frame has come.

    close_frame: the client's, as in Collected.frames; None where the connection ended without.  done: set at the end.
    deaf: goes on even then, until the connection is cut.
    """

    def __init__(self, first: bytes, again: bytes, deaf: bool = False) -> None:
        self.close_frame: tuple[int, bytes] | None = None
        self.done = threading.Event()
        self._first = first
        self._again = again
        self._deaf = deaf

    def __call__(self, peer: Peer) -> None:
        try:
            peer.send_raw(self._first)
            while peer.close_frame is None:
                peer.send_raw(self._again)
                if not self._deaf:
                    read_what_is_here(peer)
            self.close_frame = (peer.close_frame.opcode, peer.close_frame.data)
            peer.hang_up()
        finally:
            self.done.set()


def then(*parts: bytes, collected: Collected) -> Handler:
    """A handler that sends bytes, each part in one write, and then reads all that comes."""

    def handler(peer: Peer) -> None:
        for part in parts:
            peer.send_raw(part)
        collected(peer)

    return handler


class Relay:
    """A TCP relay in front of a server, which vanishes when it is told to: it forwards nothing more in either
    direction, and ends nothing. One connection.

    vanish(): what is sent to it from now on, it never reads.
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._target = port
        self._gone = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="test relay", daemon=True)]
        self._threads[0].start()

    def vanish(self) -> None:
        self._gone.set()

    def close(self) -> None:
        self.vanish()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its other end was first
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        server = socket.create_connection(("127.0.0.1", self._target))
        self._sockets += [client, server]
        for source, sink in ((client, server), (server, client)):
            pump = threading.Thread(target=self._pump, args=(source, sink), name="test relay pump", daemon=True)
            self._threads.append(pump)
            pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while (data := source.recv(1 << 16)) and not self._gone.is_set():
                sink.sendall(data)
            if not self._gone.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one end has gone


def threads_of_package() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")]
