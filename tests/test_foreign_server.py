"""Against a server that others wrote: the `websockets` package's, plain and behind verified TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as foreign_serve

from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    create_connection,
)

from .certs import Authority
from .conftest import PATIENCE, run_all

SIZES = [0, 1, 125, 126, 65_535, 65_536, 1024 * 1024]


def echo(peer: ServerConnection) -> None:
    for message in peer:
        peer.send(message)


def _close_pipe(server: Any) -> None:
    """websockets before 17 (the newest for CPython 3.10) leaves the pipe open that wakes its server."""
    for end in (server.shutdown_watcher, server.shutdown_notifier):
        if isinstance(end, int):
            os.close(end)


class Foreign:
    """Starts websockets' servers and knows how to connect to them."""

    def __init__(self, scheme: str, authority: Authority) -> None:
        self.scheme = scheme
        self._authority = authority
        self._cleanup = contextlib.ExitStack()

    def start(self, handler: Callable[[ServerConnection], None], address: str = "127.0.0.1", **options: Any) -> int:
        """Start a server; returns its port."""
        if self.scheme == "wss":
            options["ssl"] = self._authority.server_context("localhost", "127.0.0.1", "::1")
        listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        server = foreign_serve(handler, sock=listener, max_size=None, **options)
        thread = threading.Thread(target=server.serve_forever, name="websockets server", daemon=True)
        thread.start()
        self._cleanup.callback(_close_pipe, server)
        self._cleanup.callback(thread.join, PATIENCE)
        self._cleanup.callback(server.shutdown)
        return int(server.socket.getsockname()[1])

    def url(self, port: int, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{port}/"

    @property
    def sslopt(self) -> dict[str, Any]:
        return {"ca_certs": self._authority.ca_file} if self.scheme == "wss" else {}

    def connect(self, handler: Callable[[ServerConnection], None], **options: Any) -> WebSocket:
        """Start a server and connect to it; the connection is cut after the test."""
        server_options = {name: options.pop(name) for name in ("subprotocols", "process_request") if name in options}
        offered = options.pop("offer", None)
        websocket = create_connection(
            self.url(self.start(handler, **server_options)), sslopt=self.sslopt, subprotocols=offered, **options
        )
        self._cleanup.callback(websocket.shutdown)
        return websocket

    def close(self) -> None:
        self._cleanup.close()


@pytest.fixture
def foreign(scheme: str, authority: Authority) -> Iterator[Foreign]:
    result = Foreign(scheme, authority)
    yield result
    result.close()


@pytest.mark.parametrize("size", SIZES)
def test_text_of_every_frame_length_comes_back(foreign: Foreign, size: int) -> None:
    websocket = foreign.connect(echo)
    text = ("häß€🙂" * size)[:size]
    websocket.send(text)
    assert websocket.recv() == text


@pytest.mark.parametrize("size", SIZES)
def test_binary_of_every_frame_length_comes_back(foreign: Foreign, size: int) -> None:
    websocket = foreign.connect(echo)
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    websocket.send_bytes(data)
    assert websocket.recv() == data


def test_kinds_and_order_are_kept_over_many_messages(foreign: Foreign) -> None:
    websocket = foreign.connect(echo)
    sent = [f"message {number}" if number % 2 else bytes([number % 256]) * number for number in range(1000)]

    def send() -> None:
        for message in sent:
            websocket.send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)

    received, _ = run_all(lambda: [websocket.recv() for _ in sent], send)
    assert received == sent


def test_fragments_that_the_server_sends_come_joined(foreign: Foreign) -> None:
    def fragments(peer: ServerConnection) -> None:
        peer.send(iter(["one ", "", "two ", "three"]))
        peer.send(iter([b"\x01", b"\x02", b"\x03"]))
        peer.recv()

    websocket = foreign.connect(fragments)
    assert websocket.recv() == "one two three"
    assert websocket.recv() == b"\x01\x02\x03"


def test_fragments_that_the_client_sends_come_joined(foreign: Foreign) -> None:
    websocket = foreign.connect(echo)
    websocket.send_frame(ABNF.create_frame("one ", ABNF.OPCODE_TEXT, fin=0))
    websocket.send_frame(ABNF.create_frame("two ", ABNF.OPCODE_CONT, fin=0))
    websocket.send_frame(ABNF.create_frame("three", ABNF.OPCODE_CONT, fin=1))
    assert websocket.recv() == "one two three"


def test_pings_of_the_server_are_answered_while_the_program_does_not_receive(foreign: Foreign) -> None:
    answered = threading.Event()

    def ping(peer: ServerConnection) -> None:
        for payload in (b"", b"payload", b"x" * 125):
            assert peer.ping(payload).wait(PATIENCE), f"no pong for {payload!r}"
        answered.set()
        peer.recv()

    foreign.connect(ping)
    assert answered.wait(PATIENCE)


def test_a_ping_of_the_client_is_answered_with_its_payload(foreign: Foreign) -> None:
    websocket = foreign.connect(echo)
    websocket.ping("are you there?")
    opcode, data = websocket.recv_data(control_frame=True)
    assert (opcode, data) == (ABNF.OPCODE_PONG, b"are you there?")


def test_a_close_by_the_server_gives_its_code_and_reason(foreign: Foreign) -> None:
    websocket = foreign.connect(lambda peer: peer.close(4321, "because of ümlaut"))
    assert websocket.recv() == ""
    with pytest.raises(WebSocketConnectionClosedException, match="4321") as caught:
        websocket.recv()
    assert (caught.value.code, caught.value.reason) == (4321, "because of ümlaut")


def test_iterating_ends_when_the_server_closes_normally(foreign: Foreign) -> None:
    def count(peer: ServerConnection) -> None:
        for number in range(3):
            peer.send(str(number))

    assert list(foreign.connect(count)) == ["0", "1", "2"]


def test_a_close_by_the_client_gives_the_server_code_and_reason(foreign: Foreign) -> None:
    seen: list[Any] = []
    ended = threading.Event()

    def watch(peer: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            peer.recv()
        seen.append((peer.close_code, peer.close_reason))
        ended.set()

    foreign.connect(watch).close(4000, "enough")
    assert ended.wait(PATIENCE)
    assert seen == [(4000, "enough")]


def test_the_first_subprotocol_that_both_know_is_chosen(foreign: Foreign) -> None:
    websocket = foreign.connect(echo, subprotocols=["chat", "superchat"], offer=["unknown", "superchat"])
    assert websocket.getsubprotocol() == "superchat"
    websocket.send("hello")
    assert websocket.recv() == "hello"


def test_no_extension_is_agreed_on_although_the_server_offers_compression(foreign: Foreign) -> None:
    headers = foreign.connect(echo).getheaders()
    assert headers is not None
    assert headers["upgrade"].lower() == "websocket"
    assert "sec-websocket-extensions" not in headers


def test_a_refusal_of_the_server_comes_with_status_and_body(foreign: Foreign) -> None:
    with pytest.raises(WebSocketBadStatusException) as caught:
        foreign.connect(echo, process_request=lambda peer, request: peer.respond(403, "not you\n"))
    assert caught.value.status_code == 403
    assert caught.value.status_message == "Forbidden"
    assert caught.value.resp_body == b"not you\n"


def test_a_websocket_object_connects_closes_and_connects_again(foreign: Foreign) -> None:
    url = foreign.url(foreign.start(echo))
    websocket = WebSocket(sslopt=foreign.sslopt)
    for message in ("first", "second"):
        websocket.connect(url)
        assert websocket.connected
        websocket.send(message)
        assert websocket.recv() == message
        websocket.close()
        assert not websocket.connected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_server_is_reached_by_address_and_by_name(foreign: Foreign, host: str) -> None:
    port = foreign.start(echo)
    with create_connection(foreign.url(port, host), sslopt=foreign.sslopt) as websocket:
        websocket.send(host)
        assert websocket.recv() == host
        assert websocket.sock.getpeername() == ("127.0.0.1", port)
        assert websocket.is_ssl() == (foreign.scheme == "wss")


def has_ipv6() -> bool:
    """Whether the machine has an IPv6 loopback address; without one there is nothing to be tested."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_the_server_is_reached_over_ipv6(foreign: Foreign) -> None:
    port = foreign.start(echo, address="::1")
    with create_connection(foreign.url(port, "[::1]"), sslopt=foreign.sslopt) as websocket:
        websocket.send("six")
        assert websocket.recv() == "six"
        assert websocket.sock.getpeername()[:2] == ("::1", port)


def test_eight_threads_share_a_connection(foreign: Foreign) -> None:
    websocket = foreign.connect(echo)
    sent = [[f"{thread} {number}" for number in range(100)] for thread in range(8)]
    senders = [lambda messages=messages: [websocket.send(message) for message in messages] for messages in sent]
    received, *_ = run_all(lambda: [websocket.recv() for _ in range(800)], *senders)
    assert sorted(received) == sorted(message for messages in sent for message in messages)
    for messages in sent:
        assert [message for message in received if message in set(messages)] == messages
