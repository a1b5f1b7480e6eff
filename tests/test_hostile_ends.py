"""Servers that end badly: without a close frame, with too much behind it, half, by a reset, or never."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
)
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, is_receiving, is_sending, wait_until
from .hostile import WAYS, Hear, announced, close_frame, frame, then, threads_of_package, way_to_hear
from .recorder import Record

Connect = Callable[..., WebSocket]

CLOSE_4000 = frame(0x88, b"\x0f\xa0because")


@pytest.fixture(params=WAYS)
def hear(request: pytest.FixtureRequest, connect_to: Connect, record: Record) -> Hear:
    return way_to_hear(request.param, connect_to, record)


# ---- the server's close frame, and what follows it ----


@pytest.mark.parametrize(
    "behind",
    [
        frame(0x81, b"late"),
        frame(0x88, b"\x0f\xa1another"),
        frame(0x89, b"ping"),
        b"\xff" * 100,
        frame(0x81, b"\xff"),
        announced(0x82, 1 << 40) + bytes(300_000),
        frame(0x01, b"never ends"),
        CLOSE_4000 * 1000,
    ],
)
@pytest.mark.parametrize("in_one_write", [True, False])
def test_nothing_counts_behind_the_close_frame(hear: Hear, scheme: str, behind: bytes, in_one_write: bool) -> None:
    collected = Collected()
    parts = [frame(0x81, b"before") + CLOSE_4000, behind]
    heard = hear(then(*([b"".join(parts)] if in_one_write else parts), collected=collected), scheme)
    assert heard.messages == ["before"]
    assert type(heard.error) is WebSocketConnectionClosedException
    assert (heard.code, heard.reason) == (4000, "because")
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [close_frame(4000)]
    assert collected.after_close == b""


@pytest.mark.parametrize("amid", [b"\x01\x05begun", b"\x02\x00", b"\x01\x02\xe2\x82"])
def test_a_close_frame_amid_a_fragmented_message_is_a_close(hear: Hear, scheme: str, amid: bytes) -> None:
    collected = Collected()
    heard = hear(then(amid + CLOSE_4000, collected=collected), scheme)
    assert heard.messages == []
    assert (heard.code, heard.reason) == (4000, "because")
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [close_frame(4000)]


def closes_and_keeps_tcp(peer: Peer) -> None:
    """Close, read the answer, and then neither end the stream nor read."""
    peer.send_raw(frame(0x82, b"before") + CLOSE_4000)
    while peer.recv() is not None:
        pass
    peer.stall()


def test_a_server_that_keeps_tcp_open_after_both_close_frames_is_not_waited_for_long(hear: Hear, scheme: str) -> None:
    start = time.monotonic()
    heard = hear(closes_and_keeps_tcp, scheme)
    assert time.monotonic() - start < PATIENCE
    assert heard.messages == [b"before"]
    assert (heard.code, heard.reason) == (4000, "because")


def test_a_server_that_sends_for_ever_behind_its_close_frame_is_not_listened_to_for_long(
    hear: Hear, scheme: str
) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(CLOSE_4000)
        while True:
            peer.send_raw(bytes(100_000))

    start = time.monotonic()
    heard = hear(handler, scheme)
    assert time.monotonic() - start < PATIENCE
    assert heard.messages == []
    assert heard.code == 4000


def half_close(peer: Peer) -> None:
    """As peer.half_close(), and over TLS reading goes on."""
    socket.socket.shutdown(peer.sock, socket.SHUT_WR)


@pytest.mark.parametrize("frames", [CLOSE_4000, frame(0x81, b"\xff"), b"\xff\xff", announced(0x82, 1 << 50)])
def test_a_server_that_half_closes_at_once_gets_the_close_frame(hear: Hear, scheme: str, frames: bytes) -> None:
    """It has ended its own side only, and can read."""
    collected = Collected()

    def handler(peer: Peer) -> None:
        peer.send_raw(frames)
        half_close(peer)
        collected(peer)

    hear(handler, scheme)
    assert collected.done.wait(PATIENCE)
    assert len(collected.frames) == 1
    assert collected.frames[0] in [close_frame(code) for code in (4000, 1007, 1002, 1009)]


def test_a_peer_of_the_test_server_goes_on_reading_after_half_close(connect_to: Connect, scheme: str) -> None:
    sent, done = threading.Event(), threading.Event()
    seen: list[Any] = []

    def handler(peer: Peer) -> None:
        sent.wait(PATIENCE)
        try:
            peer.half_close()
            seen.append(peer.recv())
        finally:
            done.set()

    connection = connect_to(handler, scheme)
    connection.send("first")
    sent.set()
    assert done.wait(PATIENCE)
    assert seen == ["first"]


def test_a_reset_behind_the_close_frame_leaves_the_close_as_it_was(hear: Hear, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(frame(0x81, b"before") + CLOSE_4000)
        peer.recv()  # the answer: the client has seen all
        peer.reset()

    heard = hear(handler, scheme)
    assert heard.messages == ["before"]
    assert (heard.code, heard.reason) == (4000, "because")


# ---- the stream ends without one ----

CUTS = {
    "at the beginning": (b"", False),
    "between messages": (frame(0x81, b"whole"), False),
    "behind a ping": (frame(0x89), False),
    "within a header": (b"\x81", True),
    "within a long header": (b"\x82\x7f\0\0\0", True),
    "within a text": (b"\x81\x05ab", True),
    "within a large payload": (announced(0x82, 1_000_000) + bytes(400_000), True),
    "between fragments": (frame(0x01, b"begun"), True),
    "within the second fragment": (frame(0x01, b"begun") + b"\x80\x02x", True),
    "behind a ping between fragments": (frame(0x02) + frame(0x89, b"x"), True),
    "within a ping": (b"\x89\x7dxxx", True),
    "within a close frame": (b"\x88\x0a\x03", True),
}


@pytest.mark.parametrize(("sent", "amid"), CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("end", ["hang_up", "reset", "half_close"])
def test_a_stream_that_ends_without_a_close_frame_is_lost(
    hear: Hear, scheme: str, sent: bytes, amid: bool, end: str
) -> None:
    """Where the server resets it, what it sent before is still received."""

    def handler(peer: Peer) -> None:
        peer.send_raw(frame(0x81, b"first") + sent)
        getattr(peer, end)()
        if end == "half_close":
            while peer.sock.recv(1 << 16):
                pass

    heard = hear(handler, scheme)
    assert heard.messages == ["first", *(["whole"] if b"whole" in sent else [])]
    assert type(heard.error) is WebSocketConnectionLostException
    assert isinstance(heard.error, ConnectionResetError)
    assert (heard.code, heard.reason) == (None, None)
    words = str(heard.error)
    assert words.startswith("Connection to remote host was lost: ")
    if end == "reset":
        # The answer to a ping may have met it first.
        assert isinstance(heard.error.__cause__, OSError) or "without a close frame" in words
    else:
        assert isinstance(heard.error.__cause__, (EOFError, OSError))
        if isinstance(heard.error.__cause__, EOFError):
            assert "without a close frame" in words
            assert ("in the middle of a message" in words) is amid


@pytest.mark.parametrize("scheme", ["wss"])
def test_an_end_of_tls_without_a_close_frame_is_an_end_of_the_stream(hear: Hear, scheme: str) -> None:
    """With close_notify, TCP left as it is."""

    def handler(peer: Peer) -> None:
        peer.send_raw(frame(0x81, b"first"))
        peer.sock.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            peer.sock.unwrap()  # type: ignore[attr-defined]  # sends it; the client's has not come
        peer.stall()

    heard = hear(handler, scheme)
    assert heard.messages == ["first"]
    assert type(heard.error) is WebSocketConnectionLostException
    assert "without a close frame" in str(heard.error)


@pytest.mark.parametrize("scheme", ["wss"])
def test_bytes_that_are_no_tls_are_an_error_of_tls(hear: Hear, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(frame(0x81, b"first"))
        descriptor = peer.sock.fileno()
        with socket.socket(fileno=descriptor) as plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            plain.detach()
        peer.stall()

    heard = hear(handler, scheme)
    assert heard.messages == ["first"]
    assert type(heard.error) is WebSocketConnectionLostException
    assert isinstance(heard.error.__cause__, OSError)
    assert "SSL" in str(heard.error)


def test_what_a_server_still_reads_after_its_half_close_and_what_is_unsent_is_all(
    connect_to: Connect, scheme: str
) -> None:
    """Each message is in one of the two, in order, and none in both."""
    go = threading.Event()
    collected = Collected()

    def handler(peer: Peer) -> None:
        go.wait(PATIENCE)
        half_close(peer)
        seen.wait(PATIENCE)
        collected(peer)

    seen = threading.Event()
    connection = connect_to(handler, scheme, max_outbox_bytes=50_000_000)
    messages = [f"{number}:" + "x" * 100_000 for number in range(150)]
    for message in messages:
        connection.send(message)
    go.set()
    with pytest.raises(WebSocketConnectionLostException) as caught:
        connection.recv()
    unsent = list(caught.value.unsent)
    connection.close()
    seen.set()
    assert collected.done.wait(PATIENCE)
    assert unsent
    assert collected.messages + unsent == messages


# ---- resets ----


@pytest.mark.parametrize("sent", [[], [frame(0x81, b"hello"), frame(0x82, b"x" * 10_000)]])
def test_a_reset_at_once_behind_the_handshake_takes_nothing_of_what_came(
    hear: Hear, scheme: str, sent: list[bytes]
) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # all in one packet
        peer.accept()
        peer.send_raw(b"".join(sent))
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        peer.reset()

    heard = hear(handler, scheme, raw=True)
    assert heard.messages == (["hello", b"x" * 10_000] if sent else [])
    assert type(heard.error) is WebSocketConnectionLostException


@pytest.mark.parametrize("polled", [False, True])
def test_a_reset_while_nobody_does_anything_is_known_at_once(connect_to: Connect, scheme: str, polled: bool) -> None:
    go = threading.Event()
    connection = connect_to(lambda peer: (go.wait(PATIENCE), peer.reset()), scheme)
    if polled:
        connection.fileno()
    assert connection.connected
    go.set()
    wait_until(lambda: not connection.connected, "the reader has seen it")
    wait_until(lambda: threads_of_package() == [], "its threads have ended, though nobody has called")
    for call in (connection.recv, lambda: connection.send("x"), connection.ping):
        with pytest.raises(WebSocketConnectionLostException, match="lost") as caught:
            call()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_a_reset_in_the_middle_of_a_large_frame_wakes_who_waits_for_it(connect_to: Connect, scheme: str) -> None:
    go = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_raw(frame(0x81, b"first") + announced(0x82, 10_000_000) + bytes(3_000_000))
        go.wait(PATIENCE)
        peer.reset()

    connection = connect_to(handler, scheme)
    assert connection.recv() == "first"
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    go.set()
    with pytest.raises(WebSocketConnectionLostException) as caught:
        receiving()
    assert isinstance(caught.value.__cause__, (OSError, EOFError))


def test_a_reset_while_a_callback_sends_into_a_full_outbox_tells_what_is_unsent(record: Record, scheme: str) -> None:
    go = threading.Event()
    accepted: list[str] = []

    def handler(peer: Peer) -> None:
        peer.send("go")
        go.wait(PATIENCE)
        peer.reset()

    def send(_: Any) -> None:
        for number in range(10_000):
            message = f"{number}:" + "x" * 50_000
            app.send(message)
            accepted.append(message)

    app = record(handler, scheme, names=("message", "error", "close"), then={"message": send})
    running = background(lambda: app.run(max_outbox_bytes=500_000))
    app.wait_for("message")
    wait_until(lambda: app.sock and is_sending(app.sock), "the callback waits for room")
    go.set()
    assert running() is True
    assert [call.name for call in app.calls] == ["message", "error", "error", "close"]
    of_callback, of_connection = app.errors
    assert isinstance(of_callback, WebSocketConnectionLostException)
    assert isinstance(of_connection, WebSocketConnectionLostException)
    assert isinstance(of_connection.__cause__, OSError)
    unsent = list(of_connection.unsent)
    assert unsent
    assert unsent == accepted[-len(unsent) :]
