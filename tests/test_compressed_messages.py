"""What send() gives and keeps where messages are compressed, and what a server may not send."""

from __future__ import annotations

import contextlib
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    ABNF,
    PerMessageDeflate,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .compressing import TAKEOVER, Connect, Sink, compressing_to, fill, large
from .conftest import PATIENCE, wait_until
from .test_lifecycle import run_python

TEXT = ABNF.OPCODE_TEXT


@pytest.fixture
def compressing(serve: Callable[..., Server], authority: Authority) -> Iterator[Connect]:
    with compressing_to(serve, authority) as make:
        yield make


def test_messages_below_min_size_are_sent_as_they_are(compressing: Connect) -> None:
    connection = compressing(echo, PerMessageDeflate(min_size=100))
    assert connection.send("x" * 99) == 2 + 4 + 99
    assert connection.send("x" * 100) < 50
    assert connection.send("é" * 50) < 50, "it counts bytes"
    assert [connection.recv() for _ in range(3)] == ["x" * 99, "x" * 100, "é" * 50]
    assert compressing(echo, PerMessageDeflate(min_size=0)).send("") == 2 + 4 + 1


def test_send_returns_the_bytes_of_the_frames_on_the_wire(serve: Callable[..., Server]) -> None:
    received: list[int] = []
    done = threading.Event()

    def count(peer: Peer) -> None:
        peer.send("go")
        size = 0
        while data := peer.sock.recv(1 << 18):
            size += len(data)
        received.append(size)
        done.set()

    connection = create_connection(serve(count, compression="deflate").url, compression="deflate")
    assert connection.recv() == "go"
    sent = [connection.send(large("text")), connection.send_bytes(bytes(200_000)), connection.send("small")]
    sent.append(connection.send_bytes(random.Random(9).randbytes(100_000)))
    sent.append(connection.send(iter([large("chunk"), "", "x"])))
    sent.append(connection.send(iter([])))
    assert sent[1] < 1000 < 100_000 < sent[3] < 100_100
    inner: Any = connection._connection
    wait_until(lambda: inner.outlet.lanes.is_empty() and not inner.outlet.turn.holder, "all is written")
    inner.transport.sock.shutdown(1)
    assert done.wait(PATIENCE)
    connection.shutdown()
    assert received == [sum(sent)]


@pytest.mark.parametrize("size", [10, 5000, 300_000])
def test_a_payload_that_is_changed_after_send_has_returned_is_sent_as_it_was(compressing: Connect, size: int) -> None:
    sink = Sink()
    connection = compressing(sink, TAKEOVER)
    data = bytearray(random.Random(size).randbytes(size))
    before = bytes(data)
    connection.send_bytes(data)
    connection.send_bytes(memoryview(data))
    connection.send_bytes(iter([data, memoryview(data)]))
    data[:] = b"\x00" * size
    sink.gate.set()
    connection.close(timeout=PATIENCE)
    assert sink.messages == [before, before, before * 2]


def test_unsent_messages_are_the_originals(serve: Callable[..., Server]) -> None:
    """A server that does not read, and then is gone: what waits in the outbox comes back as it was given."""
    go = threading.Event()

    def handler(peer: Peer) -> None:
        assert go.wait(PATIENCE)
        peer.reset()

    server = serve(handler, compression="deflate")
    connection = create_connection(server.url, compression=PerMessageDeflate(min_size=100))
    begun = fill(connection)
    data = bytearray(b"binary " * 1000)
    connection.send(large("text ü"))
    connection.send_bytes(data)
    connection.send("small")
    connection.send(iter(["chunk 1 " * 100, "", "chunk 2"]))
    connection.send_bytes(memoryview(b"view " * 1000))
    data[:] = bytes(len(data))
    go.set()
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        while True:
            connection.recv()
    unsent = [
        (item.opcode, item.fin, item.rsv1, bytes(item.data)) if isinstance(item, ABNF) else item
        for item in caught.value.unsent
    ]
    expected = [
        large("text ü"),
        b"binary " * 1000,
        "small",
        (TEXT, 0, 0, b"chunk 1 " * 100),
        (ABNF.OPCODE_CONT, 0, 0, b""),
        (ABNF.OPCODE_CONT, 0, 0, b"chunk 2"),
        (ABNF.OPCODE_CONT, 1, 0, b""),
        b"view " * 1000,
    ]
    assert unsent[-len(expected) :] == expected
    assert unsent[: -len(expected)] == begun[len(begun) - (len(unsent) - len(expected)) :]


# ---- what a server may not send ----


def ended_by(serve: Callable[..., Server], payload: bytes, first_byte: int = 0x41) -> tuple[Any, list[bytes]]:
    """The exception that a message with this payload ends a connection with, and the code the server is told."""
    told: list[bytes] = []
    done = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_raw(encode_frame(0x80 | first_byte, payload, None))
        with contextlib.suppress(OSError):
            peer.recv()
        told.append(b"" if peer.close_frame is None else bytes(peer.close_frame.data))
        done.set()

    connection = create_connection(serve(handler, compression="deflate").url, compression="deflate")
    with pytest.raises(WebSocketException) as caught:
        connection.recv()
    connection.close(timeout=PATIENCE)
    assert done.wait(PATIENCE)
    return caught.value, told


@pytest.mark.parametrize(
    ("payload", "first_byte", "code"),
    [
        (b"\xff" * 100, 0x41, 1007),
        (bytes.fromhex("f200110000"), 0x42, 1007),
        (bytes.fromhex("000400fbff636166e900"), 0x41, 1007),  # "caf", and then Latin-1
        (b"\x00", 0x61, 1002),
        (b"", 0x49, 1002),
    ],
)
def test_what_must_not_be_sent_ends_the_connection_with_its_code(
    serve: Callable[..., Server], payload: bytes, first_byte: int, code: int
) -> None:
    error, told = ended_by(serve, payload, first_byte)
    assert isinstance(error, WebSocketPayloadException if code == 1007 else WebSocketProtocolException)
    assert told == [code.to_bytes(2, "big")]


BOMBED = """
import sys, websocket
with websocket.create_connection(sys.argv[1], compression="deflate", timeout=30) as connection:
    try:
        connection.recv()
    except websocket.WebSocketPayloadException as error:
        print("max_message_size" in str(error))
    # Not getrusage()'s figure, which begins with that of the process that has forked this one.
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(peak)
"""


def test_a_bomb_of_a_gigabyte_ends_with_1009_and_takes_no_more_memory_than_a_message_may(
    serve: Callable[..., Server],
) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    frame = encode_frame(0xC2, (block * 1024)[:-4], None)
    told: list[Any] = []

    def handler(peer: Peer) -> None:
        peer.send_raw(frame)
        peer.recv()
        told.append(peer.close_frame and peer.close_frame.data)

    server = serve(handler, compression="deflate")
    too_big, peak = run_python(BOMBED, server.url).split()
    wait_until(lambda: told, "the server has read the close frame")
    assert told == [b"\x03\xf1"]
    assert too_big == "True"
    assert int(peak) < 150 * 1024, "kilobytes, of which an interpreter with ssl and -X dev takes some 40,000"


def test_the_inbox_is_bounded_in_inflated_bytes(serve: Callable[..., Server]) -> None:
    """A megabyte of zeros comes in a kilobyte; reading stops all the same, and goes on behind recv()."""
    data, count = bytes(1 << 20), 150
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH))[:-4]
    frame = encode_frame(0xC2, payload, None)

    def handler(peer: Peer) -> None:
        peer.send("x" * 2_000_000)  # so that the client reads much at once
        peer.recv()
        peer.send_raw(frame * count)
        peer.recv()

    server = serve(handler, compression=PerMessageDeflate(min_size=1 << 30))
    connection = create_connection(server.url, compression="deflate", max_inbox_bytes=1 << 20)
    assert connection.recv() == "x" * 2_000_000
    connection.send("go")
    inbox: Any = connection._inbox
    wait_until(lambda: inbox.stalled, "the inbox is full")
    with inbox.lock:
        messages, _ = inbox.load()
    assert messages <= 64 * 1024 // len(frame) + 1 < count
    assert all(connection.recv() == data for _ in range(count))
    connection.close()


def test_the_outbox_is_bounded_in_bytes_before_compression_too(compressing: Connect) -> None:
    """For `unsent` the originals are kept, so they count."""
    connection = compressing(Peer.stall, TAKEOVER, max_outbox_bytes=3_000_000)
    fill(connection)
    connection.settimeout(0.05)
    accepted = 0
    with pytest.raises(WebSocketTimeoutException, match="not accepted"):
        while accepted < 100:
            connection.send_bytes(bytes(100_000))
            accepted += 1
    assert accepted < 30
