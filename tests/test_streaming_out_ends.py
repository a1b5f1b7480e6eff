"""How a send() of an iterable ends before its last chunk: what goes out then, what comes out of it, what is unsent."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket.testing import Peer, Server

from .conftest import PATIENCE, Collected, Interrupter, background, is_sending, wait_until
from .wire import Wire

Connect = Callable[..., WebSocket]

NOT_FINISHED = b"\x03\xf3a message could not be finished"  # 1011


def closed(connection: WebSocket) -> None:
    """Every send() says that the connection has ended."""
    for payload in ("x", ["x"]):
        with pytest.raises(WebSocketConnectionClosedException):
            connection.send(payload)


def number_of(frames: list[tuple[int, bytes]]) -> int:
    """How many data frames there are."""
    return sum(1 for first, _ in frames if first & 0x0F < 8)


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        (["a", 1], TypeError),
        (["a", None], TypeError),
        ([b"a", b"\xff"], ValueError),
        ([b"\xc3", b"("], ValueError),
        ([b"\xc3", "\xa4"], ValueError),
        ([b"a\xc3"], ValueError),
        (["\U0001f600", "\ud83d"], ValueError),
    ],
    ids=str,
)
def test_a_later_chunk_that_cannot_be_sent_closes_with_1011(
    connect_to: Connect, chunks: list[Any], error: type[Exception]
) -> None:
    wire = Wire()
    connection = connect_to(wire)
    with pytest.raises(error):
        connection.send(chunks)
    assert wire.done.wait(PATIENCE)
    assert wire.frames[-1] == (0x88, NOT_FINISHED)
    assert number_of(wire.frames) == 1
    assert wire.after_close == b""
    closed(connection)


class Oops(Exception):
    """What an iterable raises."""


@pytest.mark.parametrize("error", [Oops, KeyboardInterrupt, GeneratorExit, MemoryError, StopAsyncIteration])
def test_an_exception_before_the_first_chunk_sends_nothing(connect_to: Connect, error: type[BaseException]) -> None:
    def chunks() -> Iterator[str]:
        if not collected.frames:
            raise error
        yield ""

    collected = Collected()
    connection = connect_to(collected)
    with pytest.raises(error):
        connection.send(chunks())
    connection.send("goes on")
    connection.close()
    assert collected.frames == ["goes on", (ABNF.OPCODE_CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("error", [Oops, KeyboardInterrupt, GeneratorExit, MemoryError, ValueError])
def test_an_exception_after_the_first_chunk_closes_with_1011_and_comes_out(
    connect_to: Connect, scheme: str, error: type[BaseException]
) -> None:
    def chunks() -> Iterator[str]:
        yield "a"
        yield "b"
        raise error

    wire = Wire()
    connection = connect_to(wire, scheme)
    with pytest.raises(error):
        connection.send(chunks())
    assert wire.done.wait(PATIENCE)
    assert wire.frames == [(1, b"a"), (0, b"b"), (0x88, NOT_FINISHED)]
    assert wire.after_close == b""
    closed(connection)


def test_a_source_connection_that_is_lost_closes_the_one_that_its_message_is_passed_on_to(connect_to: Connect) -> None:
    """The iterable's exception is a WebSocketConnectionClosedException, but not this connection's."""

    def source(peer: Peer) -> None:
        peer.send("first")
        assert peer.recv() == "go on"
        peer.send_frame(ABNF.OPCODE_TEXT, b"half a message", fin=0)
        assert passed_on.wait(PATIENCE)
        peer.hang_up()

    passed_on = threading.Event()
    wire = Wire()
    connection = connect_to(wire)
    origin = connect_to(source)
    assert list(origin.recv_streaming()) == ["first"]
    origin.send("go on")

    def chunks() -> Iterator[Any]:
        for piece in origin.recv_streaming():
            yield piece
            wire.has(1, b"half a message")
            passed_on.set()

    with pytest.raises(WebSocketConnectionClosedException):
        connection.send(chunks())
    assert wire.done.wait(1), "nobody is told that the message is not finished"
    assert wire.frames == [(1, b"half a message"), (0x88, NOT_FINISHED)]
    closed(connection)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_timeout_in_the_middle_ends_the_connection_and_tells_what_is_unsent(
    serve: Callable[..., Server], compression: str | None
) -> None:
    wire = Wire(gate=False)
    connection = create_connection(
        serve(wire, compression=compression).url, compression=compression, max_outbox_bytes=3_000_000
    )

    random_bytes = random.Random(1).randbytes(1_000_000)  # which cannot be compressed
    connection.settimeout(0.1)
    with pytest.raises(WebSocketTimeoutException):
        connection.send_bytes(itertools.repeat(random_bytes))
    closed(connection)
    connection.shutdown()
    wire.gate.set()
    assert connection.unsent
    assert all(isinstance(frame, ABNF) and frame.data == random_bytes for frame in connection.unsent)
    assert all(frame.opcode == ABNF.OPCODE_CONT and not frame.fin for frame in connection.unsent)


def test_a_close_by_another_thread_ends_the_message_with_its_own_code(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire)

    def chunks() -> Iterator[str]:
        yield "a"
        background(lambda: connection.close(4000, "enough"))()
        yield "b"

    with pytest.raises(WebSocketConnectionClosedException):
        connection.send(chunks())
    assert wire.done.wait(PATIENCE)
    assert wire.frames == [(1, b"a"), (0x88, b"\x0f\xa0enough")]
    assert wire.after_close == b""


def test_a_close_by_another_thread_wakes_a_chunk_that_waits_for_room(connect_to: Connect) -> None:
    wire = Wire(gate=False)
    connection = connect_to(wire, max_outbox_bytes=1_000_000)
    sending = background(lambda: connection.send_bytes(itertools.repeat(bytes(1_000_000))))
    wait_until(lambda: is_sending(connection), "a chunk waits for room")
    connection.close(timeout=0.01)
    with pytest.raises(WebSocketConnectionClosedException):
        sending()
    wire.gate.set()


def test_an_iterable_may_close_the_connection_that_it_is_sent_on(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire)

    def chunks() -> Iterator[str]:
        yield "a"
        connection.close()
        yield "b"

    with pytest.raises(WebSocketConnectionClosedException):
        connection.send(chunks())
    assert wire.done.wait(PATIENCE)
    assert wire.frames == [(1, b"a"), (0x88, b"\x03\xe8")]


def test_the_peers_close_in_the_middle_refuses_the_next_chunk(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]

    def chunks() -> Iterator[str]:
        yield "a"
        wire.has(1, b"a")
        peer.send_frame(ABNF.OPCODE_CLOSE, b"\x03\xe8bye")
        assert connection.recv() == ""
        yield "b"

    with pytest.raises(WebSocketConnectionClosedException, match="bye"):
        connection.send(chunks())
    assert wire.done.wait(PATIENCE)
    assert wire.frames == [(1, b"a"), (0x88, b"\x03\xe8")]


def test_ctrl_c_while_the_iterable_waits_closes_with_1011(
    connect_to: Connect, interrupting: Callable[[Callable[[], Any]], Interrupter]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    wire = Wire()
    connection = connect_to(wire)
    interrupter = interrupting(interrupt)
    never = threading.Event()

    def chunks() -> Iterator[str]:
        yield "a"
        delivering.append(background(interrupter.deliver))
        never.wait(PATIENCE)
        yield "b"

    delivering: list[Callable[[], Any]] = []
    with pytest.raises(KeyboardInterrupt):
        connection.send(chunks())
    delivering[0]()
    assert wire.done.wait(PATIENCE)
    assert wire.frames == [(1, b"a"), (0x88, NOT_FINISHED)]
    closed(connection)


@pytest.mark.parametrize("method", ["put_fragment", "call_next", "_queue", "wake_writer"])
@pytest.mark.parametrize("which", [1, 2])
def test_ctrl_c_just_after_a_chunk_was_accepted_leaves_no_half_message_open(
    connect_to: Connect, monkeypatch: pytest.MonkeyPatch, method: str, which: int
) -> None:
    """A signal handler's exception may come between any two steps."""
    wire = Wire()
    connection = connect_to(wire)
    inner: Any = connection._connection
    part = {"call_next": inner.outlet.waiting, "wake_writer": inner.outlet}.get(method, inner.outbox)
    original = getattr(part, method)
    calls: list[int] = []
    mine = threading.get_ident()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if threading.get_ident() == mine:
            calls.append(1)
            if len(calls) == which:
                raise KeyboardInterrupt
        return result

    monkeypatch.setattr(part, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        connection.send(["a", "b"])
    assert wire.done.wait(1), "the half message stays open"
    assert wire.frames[-1] == (0x88, NOT_FINISHED)
    assert (0x80, b"") not in wire.frames
    closed(connection)


def test_a_send_from_within_the_iterable_is_refused_clearly(connect_to: Connect) -> None:
    collected = Collected()
    connection = connect_to(collected)

    def chunks() -> Iterator[str]:
        connection.send("before the first chunk it may")
        yield "a"
        for payload in ("x", ["x"], []):
            with pytest.raises(WebSocketProtocolException, match="before the end of this thread's"):
                connection.send(payload)
        yield "b"

    connection.send(chunks())
    connection.send("after it")
    connection.close()
    assert collected.messages == ["before the first chunk it may", "ab", "after it"]


def test_a_compressed_send_from_within_the_iterable_is_refused_also_while_another_thread_waits(
    serve: Callable[..., Server],
) -> None:
    """The other thread has the compressor, and waits for the end of this thread's message."""
    long = "long enough to be compressed " * 100
    server = serve(lambda peer: [None for _ in iter(peer.recv, None)], compression="deflate")
    with create_connection(server.url, compression="deflate") as connection:
        others: list[Callable[[], Any]] = []
        refusals: list[BaseException] = []

        def chunks() -> Iterator[str]:
            yield long
            others.append(background(lambda: connection.send(long)))
            wait_until(lambda: is_sending(connection), "the other waits")
            connection.settimeout(1)
            try:
                connection.send(long)
            except WebSocketException as error:
                refusals.append(error)
            yield long

        connection.send(chunks())
        others[0]()
    assert [type(error) for error in refusals] == [WebSocketProtocolException]
