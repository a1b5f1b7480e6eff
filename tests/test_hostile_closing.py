"""Servers that do not do what they should when this side closes, and servers that are gone without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, background, is_receiving, is_sending, wait_until
from .hostile import Relay, announced, frame, threads_of_package
from .recorder import Record, Recorder

Connect = Callable[..., WebSocket]

CLOSE_4000 = frame(0x88, b"\x0f\xa0because")

# ---- the answer to our close frame ----


def answer(peer: Peer, data: bytes) -> None:
    while peer.recv() is not None:
        pass
    peer.send_raw(data)
    peer.hang_up()


def answer_and_reset(peer: Peer) -> None:
    while peer.recv() is not None:
        pass
    peer.reset()


def answer_after_much(peer: Peer) -> None:
    while peer.recv() is not None:
        pass
    for _ in range(100):
        peer.send_raw(frame(0x82, bytes(100_000)))
    peer.send_raw(CLOSE_4000)
    peer.hang_up()


def never_answer_and_send_for_ever(peer: Peer) -> None:
    while True:
        peer.send_raw(frame(0x82, bytes(10_000)))


ANSWERS: dict[str, tuple[Callable[[Peer], None], int | None]] = {
    "another code": (lambda peer: answer(peer, CLOSE_4000), 4000),
    "much data first": (answer_after_much, 4000),
    "a message and a ping first": (lambda peer: answer(peer, frame(0x81, b"x") + frame(0x89) + CLOSE_4000), 4000),
    "half a message, and its end": (lambda peer: answer(peer, frame(0x82, b"x" * 10)[:5]), None),
    "no frame, the end": (lambda peer: answer(peer, b""), None),
    "half a close frame": (lambda peer: answer(peer, CLOSE_4000[:3]), None),
    "a reset": (answer_and_reset, None),
    "a breach": (lambda peer: answer(peer, b"\xff\xff" + CLOSE_4000), None),
    "a close frame that may not be": (lambda peer: answer(peer, frame(0x88, b"\x03\xed")), None),
    "a message that is too big": (lambda peer: answer(peer, announced(0x82, 1 << 50) + CLOSE_4000), None),
    "bad UTF-8": (lambda peer: answer(peer, frame(0x81, b"\xff") + CLOSE_4000), None),
}


@pytest.mark.parametrize(("handler", "code"), ANSWERS.values(), ids=ANSWERS)
def test_close_returns_whatever_the_server_answers(
    connect_to: Connect, scheme: str, handler: Callable[[Peer], None], code: int | None
) -> None:
    """Long before its timeout; nothing is raised, nothing is left."""
    connection = connect_to(handler, scheme)
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    connection.close(timeout=None)
    assert threads_of_package() == []
    with pytest.raises(WebSocketConnectionClosedException, match="socket is already closed"):
        receiving()
    seen = connection.close_frame
    assert (None if seen is None else int.from_bytes(seen.data[:2], "big")) == code
    assert connection.unsent == []
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    assert peer.close_frame.data == b"\x03\xe8"


@pytest.mark.parametrize(("handler", "code"), ANSWERS.values(), ids=ANSWERS)
def test_a_run_that_is_closed_ends_without_an_error_whatever_the_server_answers(
    record: Record, scheme: str, handler: Callable[[Peer], None], code: int | None
) -> None:
    app = record(handler, scheme, names=("open", "error", "close"))
    app.then["open"] = lambda: app.close(timeout=PATIENCE)
    assert app.run() is False
    assert app.told == [("open",), ("close", code, None if code is None else "because")]


def test_close_is_bounded_where_data_comes_for_ever_and_no_answer(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(never_answer_and_send_for_ever, scheme, max_inbox_messages=3)
    wait_until(lambda: connection._inbox.stalled, "the inbox is full")
    start = time.monotonic()
    connection.close(timeout=0.1)
    assert time.monotonic() - start < PATIENCE
    assert threads_of_package() == []
    assert connection.close_frame is None
    with pytest.raises(WebSocketException, match="socket is already closed"):
        while True:
            connection.recv()  # what had come before


# ---- a server that is gone, and no end of the stream tells it ----


class Vanishing:
    """A server behind a relay that vanishes: connect() and app() lead through it.

    server: the server.  relay: the relay.
    """

    def __init__(self, server: Server, authority: Authority, secure: bool) -> None:
        self.server = server
        self.relay = Relay(server.port)
        self._url = f"{'wss' if secure else 'ws'}://127.0.0.1:{self.relay.port}/"
        self._ca_file = authority.ca_file if secure else ""

    def connect(self, **options: Any) -> WebSocket:
        if self._ca_file:
            options["sslopt"] = {"ca_certs": self._ca_file}
        return create_connection(self._url, **options)

    def app(self, **options: Any) -> Recorder:
        app = Recorder(self._url, **options)
        app.ca_file = self._ca_file
        return app


@pytest.fixture
def vanishing(serve: Callable[..., Server], authority: Authority, scheme: str) -> Iterator[Vanishing]:
    """An echo server behind a relay."""
    secure = scheme == "wss"
    server = serve(echo, ssl_context=authority.server_context() if secure else None)
    made = Vanishing(server, authority, secure)
    yield made
    made.relay.close()


def fill(connection: WebSocket) -> list[str]:
    """Send until no more is accepted; what was."""
    accepted: list[str] = []
    connection.settimeout(0.1)
    with pytest.raises(WebSocketTimeoutException, match="not accepted"):
        while True:
            message = f"{len(accepted)}:" + "x" * 50_000
            connection.send(message)
            accepted.append(message)
    return accepted


def test_send_to_a_server_that_is_gone_fills_up_times_out_and_close_tells_what_is_unsent(vanishing: Vanishing) -> None:
    connection = vanishing.connect(max_outbox_bytes=1_000_000, timeout=PATIENCE)
    connection.send("hello")
    assert connection.recv() == "hello"
    vanishing.relay.vanish()
    accepted = fill(connection)
    assert connection.connected
    with pytest.raises(WebSocketTimeoutException):
        connection.recv()
    start = time.monotonic()
    connection.close(timeout=0.1)
    assert time.monotonic() - start < PATIENCE
    assert threads_of_package() == []
    assert connection.close_frame is None
    unsent = connection.unsent
    assert unsent
    assert unsent == accepted[-len(unsent) :], "what timed out was not accepted and is not unsent"
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.send("refused")
    assert list(caught.value.unsent) == unsent


def test_close_of_an_idle_connection_to_a_server_that_is_gone_is_bounded(vanishing: Vanishing) -> None:
    connection = vanishing.connect()
    vanishing.relay.vanish()
    start = time.monotonic()
    connection.close(timeout=0.1)
    assert time.monotonic() - start < PATIENCE
    assert threads_of_package() == []
    assert connection.unsent == []


def test_keepalive_notices_a_server_that_is_gone_and_tells_what_is_unsent(vanishing: Vanishing) -> None:
    """Before the next ping is due, or at it, whichever thread waits for whatever."""
    connection = vanishing.connect(max_outbox_bytes=500_000, ping_interval=0.4, ping_timeout=0.3)
    connection.send("hello")
    assert connection.recv() == "hello"
    vanishing.relay.vanish()
    accepted: list[str] = []

    def send() -> None:
        while True:
            message = f"{len(accepted)}:" + "x" * 50_000
            connection.send(message)
            accepted.append(message)

    receiving = background(connection.recv)
    sending = background(send)
    with pytest.raises(WebSocketTimeoutException, match=r"^ping/pong timed out$") as caught:
        receiving()
    with pytest.raises(WebSocketConnectionClosedException, match="ping/pong timed out"):
        sending()
    unsent = list(caught.value.unsent)
    assert unsent
    assert unsent == accepted[-len(unsent) :]
    assert connection.unsent == unsent
    connection.close()
    assert threads_of_package() == []


def test_a_run_notices_a_server_that_is_gone_and_tells_what_is_unsent(vanishing: Vanishing) -> None:
    app = vanishing.app(names=("open", "error", "close"))
    running = background(lambda: app.run(max_outbox_bytes=500_000, ping_interval=0.4, ping_timeout=0.3))
    app.wait_for("open")
    vanishing.relay.vanish()
    accepted: list[str] = []
    with pytest.raises(WebSocketConnectionClosedException):
        while True:
            message = f"{len(accepted)}:" + "x" * 50_000
            app.send(message)
            accepted.append(message)
    assert running() is True
    assert app.told == [("open",), ("error",), ("close", None, None)]
    error = app.errors[0]
    assert type(error) is WebSocketTimeoutException
    assert list(error.unsent) == accepted[-len(error.unsent) :]
    assert error.unsent


def test_close_of_a_run_whose_server_is_gone_is_bounded_while_a_thread_sends(vanishing: Vanishing) -> None:
    app = vanishing.app(names=("open", "error", "close"))
    running = background(lambda: app.run(max_outbox_bytes=500_000))
    app.wait_for("open")
    vanishing.relay.vanish()

    large = "x" * 25_000_000  # more than sockets take
    sending = background(lambda: [app.send(message) for message in (large, "small")])
    wait_until(lambda: app.sock and is_sending(app.sock), "send() waits for room")
    start = time.monotonic()
    app.close(timeout=0.1)
    assert time.monotonic() - start < PATIENCE
    with pytest.raises(WebSocketConnectionClosedException):
        sending()
    assert running() is False
    assert app.told == [("open",), ("error",), ("close", None, None)]
    assert "closed by this program" in str(app.errors[0])
    assert list(app.errors[0].unsent) == [large]
