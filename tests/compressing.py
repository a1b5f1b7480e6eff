"""Connections that compress, for the tests of compression beside threads and signals."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websocket import PerMessageDeflate, WebSocket, create_connection
from websocket.testing import Peer, Server

from .certs import Authority
from .patience import PATIENCE

Connect = Callable[..., WebSocket]

# The smallest windows, so that contexts matter and are soon full.
TAKEOVER = PerMessageDeflate(9, 9, min_size=64)
RESETTING = PerMessageDeflate(9, 9, client_no_context_takeover=True, server_no_context_takeover=True, min_size=64)
WIDE = PerMessageDeflate(min_size=64)
COMPRESSIONS = {"takeover": TAKEOVER, "resetting": RESETTING, "wide": WIDE}

WORDS = [random.Random(1).randbytes(40).hex() for _ in range(1)] + [f"word {n} " * 9 for n in range(5)]


@contextmanager
def compressing_to(serve: Callable[..., Server], authority: Authority) -> Iterator[Connect]:
    """Starts servers that compress, and connects to them: make(handler, compression, scheme="wss", ...). The
    connections are closed at the end; the servers have had no fault to find with them."""
    made: list[tuple[WebSocket, Server]] = []

    def make(handler: Any, compression: Any, scheme: str = "ws", **options: Any) -> WebSocket:
        context = authority.server_context() if scheme == "wss" else None
        server = serve(handler, compression=compression, ssl_context=context)
        options.setdefault("sslopt", {"ca_certs": authority.ca_file})
        connection = create_connection(server.url, compression=compression, **options)
        assert (connection.compression is None) == (compression is None)
        made.append((connection, server))
        return connection

    try:
        yield make
    finally:
        for connection, _ in made:
            connection.shutdown()
    faults = [error for _, server in made for _, error in server.errors if not isinstance(error, OSError)]
    assert faults == []


class Sink:
    """A server's handler that keeps the messages that come, once the gate is open."""

    def __init__(self, is_open: bool = False) -> None:
        self.messages: list[str | bytes] = []
        self.gate = threading.Event()
        if is_open:
            self.gate.set()

    def __call__(self, peer: Peer) -> None:
        self.gate.wait(PATIENCE)
        while batch := peer.recv_batch():
            self.messages += batch


def deflating(connection: WebSocket) -> Any:
    return connection._connection.deflating  # type: ignore[union-attr]


def outbox(connection: WebSocket) -> Any:
    return connection._connection.outbox  # type: ignore[union-attr]


def fill(connection: WebSocket) -> list[str | bytes]:
    """Send what no compressing makes smaller until it waits in the outbox, which lets in one message."""
    sent: list[str | bytes] = []
    while not outbox(connection)._lanes.messages:
        sent.append(random.Random(len(sent)).randbytes(500_000))
        connection.send_bytes(sent[-1])  # type: ignore[arg-type]
    return sent


def large(name: str) -> str:
    """A message worth compressing, most of which any other one of these has too."""
    return f"{name}:" + "".join(WORDS) * 3
