"""Servers that give too much or too little: a flood whose bytes are counted, and a relay that stands before a genuine
server and lets its bytes through in part, or slowly."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from websocket.testing import Peer, Server

from .patience import PATIENCE

Serve = Callable[..., Server]

# What a loaded machine may need on top of a timeout.
GRACE = 5.0

# Socket buffers of this size let either side send little more than the other has read. NARROW: for `sockopt`.
_BUFFER = 16 * 1024
NARROW = ((socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER), (socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER))


def narrow(peer: Peer) -> None:
    """Let the system take little more than what the client reads, which connects with sockopt=NARROW."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


def first_words(peer: Peer) -> None:
    """Read what the client says first, whatever it is."""
    peer.sock.recv(65_536)


class Flood:
    """A raw handler that sends `head`, and then `piece` again and again until the client hangs up.

    It gives up after MUCH bytes or LONG seconds, so that a client without a limit of its own fails and does not hang.
    after: what comes before it, by default the client's request.  is_narrow: see narrow().  sent: bytes so far.  begun:
    set before the first of them.  ended: set after the last.
    """

    MUCH = 8_000_000
    LONG = 2.0

    def __init__(
        self,
        head: bytes,
        piece: bytes,
        after: Callable[[Peer], Any] = Peer.read_request,
        much: float = MUCH,
        is_narrow: bool = True,
    ) -> None:
        self.sent = 0
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._head = head
        self._piece = piece
        self._after = after
        self._much = much
        self._is_narrow = is_narrow

    def __call__(self, peer: Peer) -> None:
        if self._is_narrow:
            narrow(peer)
        self._after(peer)
        self.begun.set()
        deadline = time.monotonic() + self.LONG
        try:
            peer.send_raw(self._head)
            while self.sent < self._much and time.monotonic() < deadline and not peer.server.stopping.is_set():
                peer.send_raw(self._piece)
                self.sent += len(self._piece)
        except OSError:
            pass  # the client has hung up
        finally:
            self.ended.set()


class Relay:
    """Stands on a port of its own before the server at `port`: all that the client sends passes, and of what the
    server sends the first `allow` bytes, with `pace` seconds after each where that is given; then it does as `then`
    says with the client.

    allow: None for all; 0 when the client has spoken; ACCEPTED without waiting for a word of it. May be set anew for
    the next client.  passed: bytes of the server so far, for the latest client.  begun: set with the first of
    them.  reached: set at their end.
    """

    ACCEPTED = -1

    def __init__(
        self,
        serve: Serve,
        port: int,
        allow: int | None = None,
        then: Callable[[Peer], Any] = Peer.stall,
        pace: float | None = None,
    ) -> None:
        self.allow = allow
        self.then = then
        self.passed = 0
        self.begun = threading.Event()
        self.reached = threading.Event()
        self._to = port
        self._pace = pace
        self.server = serve(self._handle, raw=True)
        self.port = self.server.port

    def _handle(self, peer: Peer) -> None:
        self.passed = 0
        with socket.create_connection(("127.0.0.1", self._to), timeout=PATIENCE) as target:
            is_cut = self.allow == self.ACCEPTED or self._pass(peer, target)
        if is_cut:
            self.reached.set()
            self.then(peer)

    def _pass(self, peer: Peer, target: socket.socket) -> bool:
        """Pass bytes on; whether that ended because so many had passed as are allowed."""
        has_spoken = False
        waiting = b""  # from the server
        while not (has_spoken and self.passed == self.allow):
            poller = select.poll()
            poller.register(peer.sock.fileno(), select.POLLIN)
            if not waiting:
                poller.register(target.fileno(), select.POLLIN)
            ready = [descriptor for descriptor, _ in poller.poll(0 if waiting else None)]
            if peer.sock.fileno() in ready:
                if not (data := peer.sock.recv(65_536)):
                    return False
                target.sendall(data)
                has_spoken = True
            if target.fileno() in ready and not (waiting := target.recv(65_536)):
                return False
            if waiting:
                room = len(waiting) if self.allow is None else self.allow - self.passed
                piece = waiting[: 1 if self._pace is not None else room]
                waiting = waiting[len(piece) :]
                self.passed += len(piece)  # before the client can act on it
                self.begun.set()
                peer.send_raw(piece)
                if self._pace is not None:
                    peer.server.stopping.wait(self._pace)  # the pace, not a synchronisation
        return True


def end(peer: Peer) -> None:
    """End the stream, and wait for the client to go too, so that no reset overtakes what was sent."""
    peer.half_close()
    while peer.sock.recv(65_536):
        pass
