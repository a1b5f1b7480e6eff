"""Sockets that the program has connected itself, plain and wrapped in TLS; and TLS inside TLS."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket._handshake import accept_value
from websocket._tls_transport import TLSTransport
from websocket._transport import PlainTransport
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background, run_all

Serve = Callable[..., Server]
Connect = Callable[[Server], socket.socket]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture
def server(serve: Serve, authority: Authority, scheme: str) -> Server:
    """An echo server, plain or with TLS."""
    return serve(ssl_context=authority.server_context() if scheme == "wss" else None)


@pytest.fixture
def connected(authority: Authority) -> Iterator[Connect]:
    """Connects to a server as a program would by itself: a socket.socket, or for wss an ssl.SSLSocket."""
    sockets: list[socket.socket] = []

    def connect(server: Server) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        if server.url.startswith("wss"):
            context = ssl.create_default_context(cafile=authority.ca_file)
            sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
        sockets.append(sock)
        return sock

    yield connect
    for sock in sockets:
        sock.close()


def shake_hands(sock: socket.socket) -> None:
    """The program's own opening handshake."""
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert accept_value(KEY).encode() in head


def both_directions_at_once(websocket: WebSocket) -> None:
    """Send and receive 4 MiB in different threads; echoes fill both directions."""
    messages = [bytes([number % 256]) * (number * 331 % 65_536) for number in range(128)]

    def send() -> None:
        for message in messages:
            websocket.send_bytes(message)

    received, _ = run_all(lambda: [websocket.recv() for _ in messages], send)
    assert received == messages


def test_a_connected_socket_is_used_in_place_of_a_new_one(server: Server, connected: Connect) -> None:
    sock = connected(server)
    own = sock.getsockname()
    with create_connection(server.url, socket=sock) as websocket:
        assert websocket.sock.getsockname() == own
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert websocket.is_ssl() == server.url.startswith("wss")
    assert len(server.peers) == 1


def test_both_directions_run_at_once_over_a_connected_socket(server: Server, connected: Connect) -> None:
    with create_connection(server.url, socket=connected(server)) as websocket:
        both_directions_at_once(websocket)


def test_the_handshake_over_a_connected_socket_has_the_deadline_too(
    serve: Serve, authority: Authority, scheme: str, connected: Connect
) -> None:
    context = authority.server_context() if scheme == "wss" else None
    server = serve(Peer.stall, raw=True, ssl_context=context)
    with pytest.raises(WebSocketTimeoutException, match="handshake"):
        create_connection(server.url, timeout=0.2, socket=connected(server))


def test_a_refusal_over_a_connected_socket_comes_with_its_body(
    serve: Serve, authority: Authority, scheme: str, connected: Connect
) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")

    context = authority.server_context() if scheme == "wss" else None
    server = serve(refuse, raw=True, ssl_context=context)
    sock = connected(server)
    with pytest.raises(WebSocketBadStatusException) as caught:
        create_connection(server.url, socket=sock)
    assert caught.value.resp_body == b"no\n"


def test_a_wss_url_over_a_plain_socket_leaves_tls_to_somebody_else(serve: Serve, connected: Connect) -> None:
    # As websocket-client has it: the socket may lead to a local process that does the TLS.
    server = serve()
    with create_connection(server.url.replace("ws:", "wss:"), socket=connected(server)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert not websocket.is_ssl()


def test_over_a_given_tls_socket_the_questions_are_answered(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context())
    context = ssl.create_default_context(cafile=authority.ca_file)
    raw = socket.create_connection(("127.0.0.1", server.port))
    given = context.wrap_socket(raw, server_hostname="localhost")
    with create_connection(server.url, socket=given) as websocket:
        assert websocket.sock.version() == "TLSv1.3"
        assert websocket.sock.cipher()[1] == "TLSv1.3"
        assert ("DNS", "localhost") in websocket.sock.getpeercert()["subjectAltName"]
        assert websocket.sock.selected_alpn_protocol() is None
        assert websocket.sock.pending() == 0


@pytest.mark.parametrize("thing", [object(), 7, "socket"])
def test_what_is_no_socket_is_refused(serve: Serve, thing: Any) -> None:
    server = serve()
    with pytest.raises(TypeError, match="socket"):
        create_connection(server.url, socket=thing)
    create_connection(server.url).close()
    assert len(server.peers) == 1  # accepted in order of arrival, so nobody came before this one


# ---- adoption: ws.sock = s ----


def adopted(server: Server, sock: socket.socket) -> WebSocket:
    shake_hands(sock)
    websocket = WebSocket()
    websocket.settimeout(PATIENCE)
    websocket.sock = sock
    websocket.connected = True
    return websocket


def test_a_socket_whose_handshake_is_done_is_adopted(server: Server, connected: Connect) -> None:
    websocket = adopted(server, connected(server))
    assert websocket.connected
    websocket.send("hello")
    assert websocket.recv() == "hello"
    assert websocket.is_ssl() == server.url.startswith("wss")
    websocket.close()
    assert not websocket.connected


def test_both_directions_run_at_once_over_an_adopted_socket(server: Server, connected: Connect) -> None:
    websocket = adopted(server, connected(server))
    both_directions_at_once(websocket)
    websocket.close()


def test_an_adopted_socket_can_be_polled(server: Server, connected: Connect) -> None:
    websocket = adopted(server, connected(server))
    poller = select.poll()
    poller.register(websocket.sock.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    websocket.send("hello")
    assert poller.poll(PATIENCE * 1000) != []
    assert websocket.recv() == "hello"
    assert poller.poll(0) == []
    websocket.close()


def test_without_saying_connected_the_first_use_adopts(server: Server, connected: Connect) -> None:
    sock = connected(server)
    shake_hands(sock)
    websocket = WebSocket()
    websocket.sock = sock
    websocket.send("hello")
    assert websocket.recv() == "hello"
    websocket.close()


def test_the_first_use_by_two_threads_at_once_adopts_once(server: Server, connected: Connect) -> None:
    for _ in range(50):  # the two must meet within a few instructions
        sock = connected(server)
        shake_hands(sock)
        websocket = WebSocket()
        websocket.settimeout(PATIENCE)
        websocket.sock = sock
        assert run_all(websocket.recv, lambda websocket=websocket: websocket.send("hello")) == ["hello", 11]
        websocket.close()


def test_a_closed_peer_ends_an_adopted_connection(
    serve: Serve, authority: Authority, scheme: str, connected: Connect
) -> None:
    context = authority.server_context() if scheme == "wss" else None
    server = serve(lambda peer: peer.close(4000, "enough"), ssl_context=context)
    websocket = adopted(server, connected(server))
    assert websocket.recv() == ""
    with pytest.raises(WebSocketConnectionClosedException, match="enough") as caught:
        websocket.recv()
    assert caught.value.code == 4000
    websocket.close()


def test_close_wakes_a_reader_of_an_adopted_socket(
    serve: Serve, authority: Authority, scheme: str, connected: Connect
) -> None:
    context = authority.server_context() if scheme == "wss" else None
    received = threading.Event()

    def listen(peer: Peer) -> None:
        peer.recv()
        received.set()
        peer.recv()

    server = serve(listen, ssl_context=context)
    websocket = adopted(server, connected(server))
    waiting = background(websocket.recv)
    websocket.send("I am here")
    assert received.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException):
        waiting()


# ---- TLS inside TLS ----


class TwoLayers:
    """A server behind two layers of TLS, made of the standard library's parts: it echoes bytes until the end.
    `echoed` waits for that and gives their number."""

    def __init__(self, outer: ssl.SSLContext, inner: ssl.SSLContext) -> None:
        self._outer = outer
        self._inner = inner
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.echoed = background(self._serve)

    def _serve(self) -> int:
        sock, _ = self._listener.accept()
        self._listener.close()
        sock.settimeout(PATIENCE)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = self._inner.wrap_bio(incoming, outgoing, server_side=True)
        with self._outer.wrap_socket(sock, server_side=True) as outer:

            def step(action: Callable[[], Any]) -> Any:
                """Do something of the inner layer, moving its bytes through the outer one."""
                while True:
                    try:
                        result = action()
                    except ssl.SSLWantReadError:
                        outer.sendall(outgoing.read())
                        data = outer.recv(65_536)
                        incoming.write(data) if data else incoming.write_eof()
                    else:
                        outer.sendall(outgoing.read())
                        return result

            step(inner.do_handshake)
            total = 0
            while data := self._read(step, inner):
                step(lambda data=data: inner.write(data))
                total += len(data)
            while outer.recv(65_536):
                pass  # what is left unread at the end would become a reset
            return total

    @staticmethod
    def _read(step: Callable[[Callable[[], Any]], Any], inner: ssl.SSLObject) -> bytes:
        try:
            return bytes(step(lambda: inner.read(65_536)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""


@pytest.fixture
def layers(authority: Authority) -> Iterator[tuple[TwoLayers, TLSTransport]]:
    """A server of two layers, and the client's transport to it."""
    server = TwoLayers(authority.server_context("proxy.example"), authority.server_context("server.example"))
    context = ssl.create_default_context(cafile=authority.ca_file)
    sock = socket.create_connection(("127.0.0.1", server.port))

    def wait(events: int) -> None:
        poller = select.poll()
        poller.register(sock.fileno(), events)
        assert poller.poll(PATIENCE * 1000), "the handshake hangs"

    outer = TLSTransport(PlainTransport(sock), context, "proxy.example")
    outer.handshake(wait)
    inner = TLSTransport(outer, context, "server.example")
    inner.handshake(wait)
    yield server, inner
    inner.close()


def receive_exactly(transport: TLSTransport, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = transport.recv(size - len(data))
        assert piece, f"the stream ends after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def test_tls_inside_tls_carries_bytes_both_ways_at_once(layers: tuple[TwoLayers, TLSTransport]) -> None:
    server, transport = layers
    sent = bytes(range(256)) * 8192

    def send() -> None:
        data = memoryview(sent)
        while data:
            data = data[transport.send(data) :]

    received, _ = run_all(lambda: receive_exactly(transport, len(sent)), send)
    assert received == sent
    transport.finish()
    assert transport.recv(1) == b""
    assert server.echoed() == len(sent)


def test_tls_inside_tls_has_a_certificate_for_each_layer(layers: tuple[TwoLayers, TLSTransport]) -> None:
    server, transport = layers
    certificate = transport.ssl_object.getpeercert()
    assert certificate is not None
    assert ("DNS", "server.example") in certificate["subjectAltName"]
    transport.finish()
    assert server.echoed() == 0


def test_what_poll_does_not_see_in_tls_inside_tls_counts_as_buffered(layers: tuple[TwoLayers, TLSTransport]) -> None:
    server, transport = layers
    assert transport.send(b"0123456789") == 10
    assert transport.recv(1) == b"0"
    assert transport.is_buffered()  # the other nine are decrypted already
    assert receive_exactly(transport, 9) == b"123456789"
    assert transport.recv_now(1) is None
    assert not transport.is_buffered()
    transport.finish()
    assert server.echoed() == 10
