"""What recv_streaming() promises: the pieces of a message as they come, in bounded memory; recv() goes on to give whole
ones."""

from __future__ import annotations

import select
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, Server
from websocket.threads.condition import is_owned

from .conftest import PATIENCE, background, is_receiving, wait_until
from .recorder import Record
from .wire import inbox_of, peer_of, quiet, reading_by

Connect = Callable[..., WebSocket]

TEXT, BINARY, CONT = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY, ABNF.OPCODE_CONT
MEGABYTE = bytes(1_000_000)


@pytest.fixture(params=["borrowed", "reader"])
def open_to(request: pytest.FixtureRequest, connect_to: Connect) -> Connect:
    """connect_to(), once with recv() that reads for itself and once with the reader thread reading alone."""
    return reading_by(request, connect_to)


class Large:
    """A handler that sends one message of so many megabytes, in one frame or in many, then "small".

    go: cleared, it sends nothing before it is set.  sent: megabytes that the system has taken.
    done: set when all has been sent.
    """

    def __init__(self, megabytes: int, frames: bool = False, opcode: int = BINARY) -> None:
        self.sent = 0
        self.done = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._megabytes = megabytes
        self._frames = frames
        self._opcode = opcode

    def __call__(self, peer: Peer) -> None:
        assert self.go.wait(PATIENCE)
        if not self._frames:
            peer.send_raw(bytes([0x80 | self._opcode, 127]) + (len(MEGABYTE) * self._megabytes).to_bytes(8, "big"))
        for number in range(self._megabytes):
            if self._frames:
                fin = 0x80 if number == self._megabytes - 1 else 0
                peer.send_raw(bytes([(0 if number else self._opcode) | fin, 127]) + len(MEGABYTE).to_bytes(8, "big"))
            peer.send_raw(MEGABYTE)
            self.sent += 1
        peer.send("small")
        self.done.set()
        quiet(peer)


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """How many bytes of memory were in use at once during the test."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("message", ["text ä", b"binary", "x" * 1000, bytes(30_000)])
def test_a_whole_message_is_one_piece(open_to: Connect, scheme: str, message: str | bytes) -> None:
    connection = open_to(lambda peer: peer.send(message, "next"), scheme)
    stream = connection.recv_streaming()
    assert stream.is_text == isinstance(message, str)
    assert "".join(stream) == message if isinstance(message, str) else b"".join(stream) == message
    assert list(stream) == []
    assert list(connection.recv_streaming()) == ["next"]


@pytest.mark.parametrize("message", ["", b""])
def test_an_empty_message_has_no_piece(open_to: Connect, message: str | bytes) -> None:
    connection = open_to(lambda peer: peer.send(message, message, "next"))
    assert list(connection.recv_streaming()) == []
    assert connection.recv() == message
    assert connection.recv() == "next"


def test_an_empty_message_of_many_frames_has_no_piece(open_to: Connect) -> None:
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"", fin=0)
    stream = connection.recv_streaming()
    peer.send_frame(CONT, b"", fin=0)
    peer.send_frame(CONT, b"", fin=1)
    assert list(stream) == []


def test_fragments_come_as_they_arrive(open_to: Connect, scheme: str) -> None:
    connection = open_to(Peer.stall, scheme)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"a", fin=0)
    stream = connection.recv_streaming()
    assert next(stream) == "a"
    for payload in (b"b", "ä€".encode(), b"c" * 100_000):
        peer.send_frame(CONT, payload, fin=0)
        got = ""
        while len(got) < len(payload.decode()):
            got += next(stream)
        assert got == payload.decode()
    peer.send_frame(CONT, b"\xe2", fin=0)
    with pytest.raises(WebSocketTimeoutException):
        connection._connection.receiving.receive_part(stream._rest, 0.0)  # type: ignore[union-attr]
    peer.send_frame(CONT, b"\x82\xac", fin=0)
    assert next(stream) == "€"
    peer.send_frame(CONT, b"", fin=1)
    assert list(stream) == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_part_of_a_frame_that_is_here_comes_before_the_rest_is_sent(open_to: Connect, opcode: int) -> None:
    """Also of a large one, of which a server may send no more before it has heard of that part."""
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_raw(bytes([0x80 | opcode, 127]) + (2_000_000).to_bytes(8, "big"))
    stream = connection.recv_streaming(timeout=2)
    for size in (1, 300_000, 65_536, 2_000_000 - 365_537):
        peer.send_raw(b"x" * size)
        while size:
            size -= len(next(stream))
    assert list(stream) == []


def test_a_message_that_began_before_the_first_call_is_streamed_too(open_to: Connect) -> None:
    connection = open_to(quiet)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    peer.send_frame(TEXT, b"begun", fin=0)
    parser: Any = connection._connection.receiving._parser  # type: ignore[union-attr]
    while not parser._message.opcode or parser._in_frame:
        with pytest.raises(WebSocketTimeoutException):
            connection.recv(timeout=0.01)
    stream = connection.recv_streaming(timeout=2)
    assert next(stream) == "begun"
    peer.send_frame(CONT, b"ended")
    assert list(stream) == ["ended"]


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fifty_megabytes_take_little_memory(
    open_to: Connect, peak: Callable[[], int], frames: bool, opcode: int
) -> None:
    large = Large(50, frames, opcode)
    large.go.clear()
    connection = open_to(large, max_inbox_bytes=1_000_000)
    connection._connection.receiving.begin_parts()  # type: ignore[union-attr]
    large.go.set()
    size = 0
    for piece in connection.recv_streaming():
        size += len(piece)
    assert size == 50_000_000
    assert connection.recv() == "small"
    assert peak() < 15_000_000
    inbox = inbox_of(connection)
    with inbox.lock:
        assert not inbox.is_full()
        inbox._settle_bytes()
        assert inbox.load() == (0, 0)


@pytest.mark.parametrize("others", [0, 2])
def test_the_server_can_send_no_more_than_is_taken(connect_to: Connect, others: int) -> None:
    """Also while other threads wait for the next message: what they read is kept as well."""
    large = Large(100, frames=True)
    large.go.clear()
    connection = connect_to(large, max_message_size=None, max_inbox_bytes=1_000_000)
    connection._connection.receiving.begin_parts()  # type: ignore[union-attr]
    large.go.set()
    stream = connection.recv_streaming()
    receiving = [background(connection.recv) for _ in range(others)]
    wait_until(lambda: inbox_of(connection).stalled or large.done.is_set(), "nothing more is read")
    assert not large.done.is_set()
    assert inbox_of(connection)._part_bytes <= 1_000_000 + 2 * 1024 * 1024
    assert sum(len(piece) for piece in stream) == 100_000_000
    assert large.done.wait(PATIENCE)
    connection.server.peers[0].close()  # type: ignore[attr-defined]
    results = []
    for result in receiving:
        try:
            results.append(result())
        except WebSocketException as error:
            results.append(type(error).__name__)
    assert "small" in results or not others


def test_two_hundred_megabytes_without_a_limit_are_streamed_though_they_began_before(
    connect_to: Connect, peak: Callable[[], int]
) -> None:
    large = Large(200)
    connection = connect_to(large, max_message_size=None, max_inbox_bytes=2_000_000)
    wait_until(lambda: inbox_of(connection).stalled, "nothing more is read")
    assert sum(len(piece) for piece in connection.recv_streaming()) == 200_000_000
    assert connection.recv() == "small"
    assert peak() < 20_000_000


def test_recv_joins_a_message_above_the_default_limit(connect_to: Connect) -> None:
    connection = connect_to(Large(70), max_message_size=None)
    message = connection.recv()
    assert len(message) == 70_000_000
    assert connection.recv() == "small"


@pytest.mark.parametrize("text", [False, True])
def test_compressed_messages_come_in_pieces(serve: Callable[..., Server], peak: Callable[[], int], text: bool) -> None:
    def handler(peer: Peer) -> None:
        assert peer._deflater is not None
        peer.send("x" * 1000)
        for fin, first in ((0, 0x40 | (TEXT if text else BINARY)), (0, 0), (0, 0)):
            peer.send_raw(encode_frame(fin << 7 | first, peer._deflater.part(MEGABYTE * 10), None))
            assert peer.recv() == "go on"
        peer.send_raw(encode_frame(0x80, peer._deflater.end(), None))
        peer.send("small")
        quiet(peer)

    server = serve(handler, compression="deflate")
    with create_connection(server.url, compression="deflate") as connection:
        assert "".join(connection.recv_streaming()) == "x" * 1000
        stream = connection.recv_streaming()
        assert stream.is_text == text
        for _ in range(3):
            size = 0
            while size < 10_000_000:
                size += len(next(stream))
            connection.send("go on")
        assert list(stream) == []
        assert connection.recv() == "small"


@pytest.mark.parametrize("frames", [False, True])
def test_max_message_size_holds(open_to: Connect, frames: bool) -> None:
    codes: list[bytes] = []
    large = Large(3, frames)
    large.go.clear()

    def handler(peer: Peer) -> None:
        try:
            large(peer)
        finally:
            assert peer.close_frame is not None
            codes.append(peer.close_frame.data)

    connection = open_to(handler, max_message_size=2_000_000)
    connection._connection.receiving.begin_parts()  # type: ignore[union-attr]
    large.go.set()
    size = 0
    with pytest.raises(WebSocketPayloadException, match="3000000 bytes exceeds max_message_size=2000000"):
        for piece in connection.recv_streaming():
            size += len(piece)
    assert size == (2_000_000 if frames else 0)
    connection.close()
    wait_until(lambda: codes, "the server has seen the close frame")
    assert codes == [b"\x03\xf1"]


@pytest.mark.parametrize("option", ["fire_cont_frame", "app"])
def test_where_messages_cannot_be_streamed_it_says_so(connect_to: Connect, record: Record, option: str) -> None:
    if option == "fire_cont_frame":
        connection = connect_to(quiet, fire_cont_frame=True)
        with pytest.raises(WebSocketException, match="fire_cont_frame"):
            connection.recv_streaming()
        return
    refusals: list[str] = []

    def stream() -> None:
        with pytest.raises(WebSocketException) as caught:
            app.sock.recv_streaming()
        refusals.append(str(caught.value))
        app.close()

    app = record(quiet, then={"open": stream})
    app.run()
    assert "callbacks" in refusals[0]


def test_a_poller_is_told_when_a_message_begins(connect_to: Connect) -> None:
    connection = connect_to(quiet)
    peer = peer_of(connection)
    assert select.select([connection], [], [], 0)[0] == []
    peer.send_frame(TEXT, b"begun", fin=0)
    assert select.select([connection], [], [], PATIENCE)[0] == [connection]
    stream = connection.recv_streaming(timeout=0)
    assert next(stream) == "begun"
    assert select.select([connection], [], [], 0)[0] == []
    peer.send_frame(CONT, b"ended")
    peer.send("next")
    assert select.select([connection], [], [], PATIENCE)[0] == [connection]
    assert list(stream) == ["ended"]
    assert connection.recv(timeout=0) == "next"
    assert select.select([connection], [], [], 0)[0] == []


def test_the_iterator_may_go_to_another_thread(open_to: Connect) -> None:
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"a", fin=0)
    stream = connection.recv_streaming()
    assert next(stream) == "a"
    rest = background(lambda: list(stream))
    wait_until(lambda: is_receiving(connection), "the other thread waits for a piece")
    peer.send_frame(CONT, b"b")
    assert rest() == ["b"]


@pytest.mark.parametrize("closing", ["peer", "here"])
def test_an_iteration_ends_where_the_connection_does_within_a_message_that_waits(
    connect_to: Connect, closing: str
) -> None:
    go = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send("one")
        peer.send_frame(TEXT, b"begun", fin=0)
        assert go.wait(PATIENCE)
        if closing == "peer":
            peer.close()
        peer.finish()

    connection = connect_to(handler)
    connection._connection.receiving.begin_parts()  # type: ignore[union-attr]
    wait_until(lambda: len(connection._inbox._messages) == 2, "the beginning waits to be taken")
    assert next(connection) == "one"
    iterating = background(lambda: list(connection))
    wait_until(lambda: is_receiving(connection), "it waits for the rest")
    go.set()
    if closing == "here":
        connection.close(timeout=PATIENCE)
    assert iterating() == []


def test_pieces_of_a_message_that_recv_has_not_waited_for_come_as_they_arrive(connect_to: Connect) -> None:
    """The reader thread does not wait for all of the payload, which is received in place."""
    go = threading.Event()
    half = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_raw(b"\x82\x7f" + (4 * len(MEGABYTE)).to_bytes(8, "big") + MEGABYTE)
        assert go.wait(PATIENCE)
        peer.send_raw(MEGABYTE)
        assert half.wait(PATIENCE)
        peer.send_raw(2 * MEGABYTE)

    connection = connect_to(handler)
    inner: Any = connection._connection
    with pytest.raises(WebSocketTimeoutException):
        connection.recv(timeout=0.1)
    assert inner._reader._parser.place() is not None
    stream = connection.recv_streaming()
    size = 0
    while size < len(MEGABYTE):
        size += len(next(stream))
    wait_until(lambda: inner.inbox.turn.holder == inner._reader_thread.ident, "the reader thread reads")
    go.set()
    while size < 2 * len(MEGABYTE):
        size += len(next(stream))
    half.set()
    assert size + sum(map(len, stream)) == 4 * len(MEGABYTE)


def test_the_message_under_way_is_not_forgotten_while_it_is_handed_over(connect_to: Connect) -> None:
    go = threading.Event()
    connection = connect_to(lambda peer: go.wait(PATIENCE))
    inner: Any = connection._connection
    reader = inner._reader
    owned: list[bool] = []
    forget = reader._parser.forget
    reader._parser.forget = lambda: (owned.append(is_owned(reader.parsing)), forget())
    go.set()
    connection.close(timeout=PATIENCE)
    assert owned == [True]
