"""Proxies that do exactly what a test's script says: HTTP CONNECT (RFC 9110 9.3.6), with TLS to the proxy or without,
SOCKS5 (RFC 1928, 1929), and SOCKS4 and 4a by their memos. They keep every byte that passes, and whatever host they are
asked for, the tunnel leads to the port of that number on this machine: to them every name resolves.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from websocket import WebSocketProxyException, create_connection
from websocket.testing import Peer, Server

from .patience import PATIENCE

Serve = Callable[..., Server]


class Visit:
    """A client at a proxy: the proxy's end of its connection, used by the script on a thread of its own.

    received: what the client sent before the tunnel stood.  sent, returned: what went through the tunnel, from the
    client and to it.  host, port: what it asked for.  credentials: (user, password) as bytes, for SOCKS.
    """

    def __init__(self, proxy: ScriptedProxy, peer: Peer) -> None:
        self.peer = peer
        self.received = bytearray()
        self.sent = bytearray()
        self.returned = bytearray()
        self.host = ""
        self.port = 0
        self.credentials: tuple[bytes, bytes] | None = None
        self._proxy = proxy

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        start = len(self.received)
        while (missing := start + size - len(self.received)) > 0:
            self._receive(missing)
        return bytes(self.received[start:])

    def read_until(self, end: bytes) -> bytes:
        """A byte at a time, so that what comes behind the end is not taken."""
        start = len(self.received)
        while not self.received[start:].endswith(end):
            self._receive(1)
        return bytes(self.received[start : -len(end)])

    def _receive(self, size: int) -> None:
        if not (data := self.peer.sock.recv(size)):
            raise ConnectionError("the client has left")
        self.received += data

    def send(self, data: bytes) -> None:
        self.peer.send_raw(data)

    def answer(self, answer: Answer) -> None:
        """The last thing that a script does without a tunnel."""
        if not isinstance(answer, bytes):
            answer(self)
            return
        self.send(answer)
        self.drop()

    def drop(self) -> None:
        """End this side, and wait for the client to end its own, so that no reset overtakes what was sent."""
        _finish(self.peer.sock)
        while data := self.peer.sock.recv(65_536):
            self.received += data

    def reset(self) -> None:
        self.peer.reset()

    def stall(self) -> None:
        """Say nothing until the proxy is closed."""
        self._proxy.reached.set()
        self.peer.stall()

    def tunnel(self) -> None:
        """Pass on whatever comes, until both sides have ended."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as target:
            _relay(_End(self.peer.sock, self.sent), _End(target, self.returned))


Script = Callable[[Visit], Any]
Answer = bytes | Script


def _finish(sock: socket.socket) -> None:
    """End the sending side of a connection, in TLS with a close_notify."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.setblocking(False)
            try:
                sock.unwrap()
            except ssl.SSLWantReadError:
                pass  # the client's own close_notify is yet to come
            finally:
                sock.setblocking(True)
        socket.socket.shutdown(sock, socket.SHUT_WR)
    except OSError:
        pass  # the client has gone


class _End:
    """One end of a tunnel. seen: keeps what comes from it."""

    def __init__(self, sock: socket.socket, seen: bytearray) -> None:
        self.sock = sock
        self.is_open = True  # it has not ended its side
        self.is_finished = False  # nor have we
        self.seen = seen
        self.unsent: deque[bytes] = deque()
        sock.setblocking(False)

    def read(self, other: _End) -> None:
        while self.is_open:
            try:
                data = self.sock.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError:
                data = b""  # a reset is an end, too
            self.seen += data
            self.is_open = bool(data)
            if data:
                other.unsent.append(data)

    def write(self, other: _End) -> None:
        try:
            while self.unsent:
                sent = self.sock.send(self.unsent[0])
                piece = self.unsent.popleft()
                if sent < len(piece):
                    self.unsent.appendleft(piece[sent:])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.unsent.clear()
            self.is_open = False
        if not (other.is_open or self.is_finished):
            self.is_finished = True
            _finish(self.sock)
            self.sock.setblocking(False)

    @property
    def events(self) -> int:
        return (select.POLLIN if self.is_open else 0) | (select.POLLOUT if self.unsent else 0)


def _relay(client: _End, target: _End) -> None:
    """One thread for both directions: an SSL object does not bear two."""
    while client.is_open or target.is_open or client.unsent or target.unsent:
        poller = select.poll()
        for end in (client, target):
            if end.events:
                poller.register(end.sock.fileno(), end.events)
        poller.poll()
        for end, other in ((client, target), (target, client)):
            end.read(other)
            other.write(end)


class ScriptedProxy:
    """A proxy on a port of its own at the loopback address. visits: every client so far.  reached: set when a script
    has begun to stall.

    scheme: that of its URL.  options: of Server, of which ssl_context makes it speak TLS.
    """

    def __init__(self, serve: Serve, script: Script, scheme: str = "http", **options: Any) -> None:
        self.visits: list[Visit] = []
        self.reached = threading.Event()
        self.scheme = scheme
        self._script = script
        self.server = serve(self._handle, raw=True, **options)
        self.port = self.server.port

    @property
    def url(self) -> str:
        return self.url_for()

    def url_for(self, credentials: str = "") -> str:
        """credentials: "user:password", percent-encoded."""
        return f"{self.scheme}://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    @property
    def received(self) -> bytes:
        """What the only client sent before the tunnel stood."""
        [visit] = self.visits
        return bytes(visit.received)

    def _handle(self, peer: Peer) -> None:
        visit = Visit(self, peer)
        self.visits.append(visit)
        self._script(visit)


def refused(proxy: ScriptedProxy, url: str = "ws://server.invalid/", **options: Any) -> WebSocketProxyException:
    """Reach no server by the proxy; the error."""
    with pytest.raises(WebSocketProxyException) as caught:
        create_connection(url, proxy=proxy.url, **options)
    return caught.value


def in_turn(*scripts: Script) -> Script:
    """One client after another as the next of these says, and all that follow as the last."""
    left = deque(scripts)

    def script(visit: Visit) -> None:
        (left.popleft() if len(left) > 1 else left[0])(visit)

    return script


@contextmanager
def full_queue() -> Iterator[int]:
    """A port whose queue of connections is full, so that connecting to it does not come to an end."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            yield port


# ---- HTTP ----

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def _read_connect(visit: Visit) -> None:
    line = visit.read_until(b"\r\n\r\n").partition(b"\r\n")[0].decode()
    method, authority, version = line.split(" ")
    assert (method, version) == ("CONNECT", "HTTP/1.1")
    host, _, port = authority.rpartition(":")
    visit.host, visit.port = host, int(port)


def tunnelling(answer: bytes = ESTABLISHED) -> Script:
    """An HTTP proxy that answers so, and connects."""

    def script(visit: Visit) -> None:
        _read_connect(visit)
        visit.send(answer)
        visit.tunnel()

    return script


def answering(answer: Answer) -> Script:
    """An HTTP proxy that reads the request and does no more than this."""

    def script(visit: Visit) -> None:
        _read_connect(visit)
        visit.answer(answer)

    return script


# ---- SOCKS ----

NO_AUTHENTICATION, GSSAPI, USER_AND_PASSWORD, NONE_ACCEPTABLE = 0, 1, 2, 0xFF  # RFC 1928 3
SUCCEEDED = b"\x05\x00\x00\x01" + bytes(6)
GRANTED = b"\x00\x5a" + bytes(6)


@dataclass
class Socks5:
    """RFC 1928: a method, where that says so user and password (RFC 1929), a request, a reply.

    method: the one chosen.  status: of user and password, 0 for right ones.  reply: to the request.
    instead: what to do in place of an answer, "method", "status" or "reply", by its name; that is then the end.
    """

    method: int = NO_AUTHENTICATION
    status: int = 0
    reply: bytes = SUCCEEDED
    instead: Mapping[str, Answer] = field(default_factory=dict)

    def __call__(self, visit: Visit) -> None:
        version, count = visit.read(2)
        assert version == 5
        visit.read(count)
        if not self._went_on(visit, "method", bytes([5, self.method]), self.method != NONE_ACCEPTABLE):
            return
        if self.method == USER_AND_PASSWORD:
            assert visit.read(1) == b"\x01"
            visit.credentials = (visit.read(visit.read(1)[0]), visit.read(visit.read(1)[0]))
            if not self._went_on(visit, "status", bytes([1, self.status]), self.status == 0):
                return
        version, command, reserved, kind = visit.read(4)
        assert (version, command, reserved) == (5, 1, 0)
        if kind == 3:
            visit.host = visit.read(visit.read(1)[0]).decode()
        else:
            family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
            visit.host = socket.inet_ntop(family, visit.read(size))
        visit.port = int.from_bytes(visit.read(2), "big")
        if self._went_on(visit, "reply", self.reply, self.reply[1] == 0):
            visit.tunnel()

    def _went_on(self, visit: Visit, stage: str, answer: bytes, is_good: bool) -> bool:
        if stage in self.instead or not is_good:
            visit.answer(self.instead.get(stage, answer))
            return False
        visit.send(answer)
        return True


@dataclass
class Socks4:
    """SOCKS4 and 4a: one request with a user id, which is visit.credentials[0], and one reply."""

    reply: bytes = GRANTED
    instead: Answer | None = None

    def __call__(self, visit: Visit) -> None:
        assert visit.read(2) == b"\x04\x01"
        visit.port = int.from_bytes(visit.read(2), "big")
        address = visit.read(4)
        visit.credentials = (visit.read_until(b"\0"), b"")
        # 4a: an address that cannot be, 0.0.0.x, says that a name comes behind the user id.
        is_name = address[:3] == bytes(3) and address[3] != 0
        visit.host = visit.read_until(b"\0").decode() if is_name else socket.inet_ntoa(address)
        if self.instead is not None or self.reply[1] != 0x5A:
            visit.answer(self.reply if self.instead is None else self.instead)
        else:
            visit.send(self.reply)
            visit.tunnel()
