"""A server's handler that looks at the frames themselves, and how the tests of streams read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, WebSocket
from websocket._abnf import apply_mask
from websocket.testing import Peer

from .conftest import PATIENCE, wait_until


class Wire:
    """A server's handler that keeps the frames that come, as (first byte, payload), until the client's close frame,
    which it answers.

    size: bytes of all frames.  gate: reading begins when it is set.  done: set when the client has closed or gone.
    after_close: bytes that came behind the close frame.
    """

    def __init__(self, gate: bool = True) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.size = 0
        self.after_close = b""
        self.gate = threading.Event()
        self.done = threading.Event()
        if gate:
            self.gate.set()

    def __call__(self, peer: Peer) -> None:
        buffer = b""
        try:
            self.gate.wait(PATIENCE)
            while data := peer.sock.recv(1 << 20):
                buffer += data
                while (cut := self._frame(buffer)) is not None:
                    first, payload, size = cut
                    buffer = buffer[size:]
                    self.size += size
                    self.frames.append((first, payload))
                    if first == 0x88:
                        self.after_close = buffer
                        peer.send_frame(ABNF.OPCODE_CLOSE, payload[:2])
                        peer.half_close()
                        while data := peer.sock.recv(1 << 20):
                            self.after_close += data
                        return
        finally:
            self.done.set()
            peer.hang_up()

    @staticmethod
    def _frame(data: bytes) -> tuple[int, bytes, int] | None:
        """(first byte, payload, size) of a client's frame, None where it is not whole."""
        if len(data) < 6:
            return None
        length, start = data[1] & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
        stop = start + 4 + length
        if len(data) < stop:
            return None
        return data[0], apply_mask(data[start : start + 4], data[start + 4 : stop]), stop

    def has(self, first: int, payload: bytes) -> None:
        """Wait until a frame has come."""
        wait_until(lambda: (first, payload) in self.frames, f"{payload[:20]!r} has come")


def reading_by(request: pytest.FixtureRequest, connect_to: Callable[..., WebSocket]) -> Callable[..., WebSocket]:
    """connect_to(), with the way of reading that request.param names: "borrowed" by recv() itself, or "reader"."""
    if request.param == "borrowed":
        request.getfixturevalue("always_borrowed")
        return connect_to

    def connect(*arguments: Any, **options: Any) -> WebSocket:
        connection = connect_to(*arguments, **options)
        connection.fileno()
        return connection

    return connect


def quiet(peer: Peer) -> None:
    """A handler that leaves the sending to the test."""
    while peer.recv_batch():
        pass


def peer_of(connection: WebSocket) -> Peer:
    """The server's end of a connection that streams from here on."""
    peer: Peer = connection.server.peers[0]  # type: ignore[attr-defined]
    peer.send("first")
    assert list(connection.recv_streaming()) == ["first"]
    return peer


def inbox_of(connection: WebSocket) -> Any:
    return connection._connection.inbox  # type: ignore[union-attr]
