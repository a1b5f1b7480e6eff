"""Interleavings that happen once in a million times, forced."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import websocket._core as core
import websocket.threads.reader
from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketTimeoutException,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, Server, echo

from .conftest import PATIENCE, background, is_receiving, is_sending, wait_until
from .test_lifecycle import run_python

Connect = Callable[..., WebSocket]


def reader_has_the_turn(connection: WebSocket) -> bool:
    inner: Any = connection._connection
    return bool(inner.inbox.turn.holder == inner._reader_thread.ident)


@pytest.mark.parametrize("small", [b"\x89\x00\x81\x02hi", b"\x81\x02hi"])
def test_a_short_frame_behind_a_large_message_is_not_waited_for(connect_to: Connect, scheme: str, small: bytes) -> None:
    """The reader expects another large message, and asks for its header alone."""
    go = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send(bytes(1_000_000))
        go.wait(PATIENCE)
        peer.send_raw(small)
        peer.recv()

    connection = connect_to(handler, scheme)
    assert connection.recv() == bytes(1_000_000)
    wait_until(lambda: reader_has_the_turn(connection), "the reader reads")
    go.set()
    assert connection.recv() == "hi"


def test_a_close_frame_behind_a_large_message_is_not_waited_for(connect_to: Connect) -> None:
    go = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send(bytes(1_000_000))
        go.wait(PATIENCE)
        peer.send_frame(ABNF.OPCODE_CLOSE)
        peer.recv()

    connection = connect_to(handler)
    assert connection.recv() == bytes(1_000_000)
    wait_until(lambda: reader_has_the_turn(connection), "the reader reads")
    go.set()
    assert connection.recv() == ""


def test_a_request_and_its_reply_borrow_again_after_a_pause(
    connect_to: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the pause: the first reply comes by the reader, and then it leaves the turn to recv(), also to one
    that has come again before the reader has given it back."""
    connection = connect_to(echo)
    reader: Any = connection._connection._reader  # type: ignore[union-attr]
    borrowed = []
    read_lent = reader.read_lent
    reader.read_lent = lambda deadline: borrowed.append(1) or read_lent(deadline)
    for _ in range(5):
        monkeypatch.setattr(websocket.threads.reader, "GRACE", 0.0)  # the pause is over
        with connection._inbox.lock:
            reader.recall()
        wait_until(lambda: reader_has_the_turn(connection), "the reader has taken its turn back")
        monkeypatch.setattr(websocket.threads.reader, "GRACE", 3600.0)  # no machine is too slow for the grace
        borrowed.clear()
        first = background(connection.recv)
        wait_until(lambda: is_receiving(connection), "recv() waits")
        connection.send("x")
        assert first() == "x"
        assert not borrowed
        for _ in range(100):
            borrowed.clear()
            connection.send("x")
            assert connection.recv() == "x"
            assert borrowed


def test_a_recv_that_comes_again_before_the_reader_has_given_its_turn_back_borrows_it(
    connect_to: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect_to(echo)
    inbox = connection._inbox
    reader: Any = connection._connection._reader  # type: ignore[union-attr]
    wait_until(lambda: reader_has_the_turn(connection), "the reader reads")
    monkeypatch.setattr(websocket.threads.reader, "GRACE", 3600.0)
    take_in = reader._take_in

    def take_in_and_dawdle(data: bytes) -> Any:
        reader._take_in = take_in
        waited = take_in(data)
        wait_until(lambda: inbox.waiting, "recv() has come again")
        return waited

    reader._take_in = take_in_and_dawdle
    first = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    connection.send("x")
    assert first() == "x"
    second = background(connection.recv)
    wait_until(lambda: inbox.turn.holder and not reader_has_the_turn(connection), "recv() reads for itself")
    connection.send("y")
    assert second() == "y"


@pytest.mark.parametrize("wanted_by", ["poller", "close", "another recv()"])
@pytest.mark.usefixtures("always_borrowed")
def test_a_reader_that_sleeps_while_its_turn_is_borrowed_comes_when_it_is_needed(
    connect_to: Connect, wanted_by: str
) -> None:
    """It has met a borrower that came within the grace time, and so does not wait for the turn's return."""
    connection = connect_to(echo)
    inner: Any = connection._connection
    reader, turn = inner._reader, connection._inbox.turn
    wait, go_on = reader._wait, threading.Event()

    class SlowWait:
        wake = wait.wake

        def __call__(self, deadline: float | None) -> bool:
            result: bool = wait(deadline)
            if not reader_has_the_turn(connection):
                assert go_on.wait(PATIENCE)
            return result

    def reader_has_looked() -> None:
        wait_until(lambda: turn._changed._waiters, "the reader has met the borrower")  # type: ignore[attr-defined]

    reader._wait = SlowWait()
    receiving = background(connection.recv)
    wait_until(lambda: turn.holder and not reader_has_the_turn(connection), "recv() has borrowed the turn")
    with connection._inbox.lock:
        turn.wake_owner()
    reader_has_looked()
    if wanted_by == "poller":
        connection.fileno()
        reader_has_looked()
        go_on.set()
        wait_until(lambda: reader_has_the_turn(connection), "the reader has its turn back")
        connection.send("x")
        assert receiving() == "x"
    elif wanted_by == "close":
        closing = background(lambda: connection.close(timeout=PATIENCE))
        wait_until(lambda: wait.wake.is_set(), "the borrower is to give the turn back")
        reader_has_looked()
        go_on.set()
        closing()
        assert not inner._reader_thread.is_alive()
        with pytest.raises(WebSocketConnectionClosedException):
            receiving()
    else:
        other = background(connection.recv)
        wait_until(lambda: is_receiving(connection, 2), "the other waits")
        connection.send("x")
        go_on.set()
        assert receiving() == "x"
        connection.send("y")
        assert other() == "y"


@pytest.mark.usefixtures("always_borrowed")
def test_close_reaches_a_borrower_that_is_about_to_wait(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall)
    reader: Any = connection._connection._reader  # type: ignore[union-attr]
    about, closed = threading.Event(), threading.Event()
    wait = reader._wait

    class LateWait:
        wake = wait.wake

        def __call__(self, deadline: float | None) -> bool:
            about.set()
            assert closed.wait(PATIENCE)
            return bool(wait(deadline))

    reader._wait = LateWait()
    receiving = background(connection.recv)
    assert about.wait(PATIENCE)
    closing = background(lambda: connection.close(timeout=0.3))
    wait_until(lambda: wait.wake.is_set(), "close() has called the borrower back")
    closed.set()
    with pytest.raises(WebSocketConnectionClosedException):
        receiving()
    reader._wait = wait
    closing()


def test_close_ends_a_connect_that_has_just_succeeded(serve: Callable[..., Server], monkeypatch: Any) -> None:
    opened, go = threading.Event(), threading.Event()
    open_connection = core.open_connection

    def late(*arguments: Any, **options: Any) -> Any:
        result = open_connection(*arguments, **options)
        opened.set()
        assert go.wait(PATIENCE)
        return result

    monkeypatch.setattr(core, "open_connection", late)
    connection = WebSocket()
    url = serve().url
    connecting = background(lambda: connection.connect(url))
    assert opened.wait(PATIENCE)
    connection.close()
    go.set()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()
    assert not connection.connected


def test_a_write_that_fails_is_told_although_the_inbox_is_full(connect_to: Connect, scheme: str) -> None:
    reset = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send(*(str(number) for number in range(100)))
        reset.wait(PATIENCE)
        peer.reset()

    connection = connect_to(handler, scheme, max_inbox_messages=1, max_outbox_bytes=1000)
    wait_until(lambda: connection._inbox.stalled, "the inbox is full")
    reset.set()
    with pytest.raises(WebSocketConnectionClosedException, match="lost") as caught:
        while True:
            connection.send("x" * 100)
    assert isinstance(caught.value.__cause__, OSError)
    assert connection.recv() == "0", "what was received can still be taken"


def test_unsent_is_in_the_order_of_sending_when_the_peer_closes_in_the_middle(connect_to: Connect) -> None:
    closed = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_frame(ABNF.OPCODE_CLOSE, b"\x03\xe8")
        closed.wait(PATIENCE)
        peer.reset()

    ready = threading.Event()

    def gated(peer: Peer) -> None:
        ready.wait(PATIENCE)
        handler(peer)

    connection = connect_to(gated, max_outbox_bytes=50_000_000)
    messages = [f"{number}:" + "x" * 20_000_000 for number in (1, 2)] + ["3", "4"]
    for message in messages:
        connection.send(message)
    ready.set()
    assert connection.recv() == ""
    with pytest.raises(WebSocketTimeoutException, match="not known yet"):
        connection.recv(timeout=0)
    closed.set()
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv()
    assert list(caught.value.unsent) == messages


EXHAUSTED = """
import os, resource, sys, websocket
failed = 0
before = len(os.listdir("/proc/self/fd"))
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for count in range(8):
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, most))
    try:
        connection = websocket.create_connection(sys.argv[1], timeout=10)
    except websocket.WebSocketConnectException as error:
        assert "Too many open files" in str(error), error
        failed += 1
    else:
        connection.send("x")
        assert connection.recv() == "x"
        connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert len(os.listdir("/proc/self/fd")) == before, count
print(failed)
"""


def test_a_process_without_descriptors_gets_an_error_and_loses_none(serve: Callable[..., Server]) -> None:
    failed = int(run_python(EXHAUSTED, serve().url))
    assert 2 <= failed < 8


UNCLOSED = """
import gc, sys, websocket
connection = websocket.create_connection(sys.argv[1])
connection.send("x")
del connection
"""


def test_a_dropped_connection_is_closed_although_its_warning_is_an_error(serve: Callable[..., Server]) -> None:
    done = threading.Event()
    frames: list[Any] = []

    def handler(peer: Peer) -> None:
        frames.append(peer.recv())
        peer.recv()
        frames.append(peer.close_frame and peer.close_frame.data)
        done.set()

    run_python("import warnings; warnings.simplefilter('error')\n" + UNCLOSED, serve(handler).url)
    assert done.wait(PATIENCE)
    assert frames == ["x", b"\x03\xe9"]


def test_a_wait_for_room_ends_when_the_peer_closes(connect_to: Connect, scheme: str) -> None:
    go = threading.Event()

    def handler(peer: Peer) -> None:
        go.wait(PATIENCE)
        peer.send_raw(encode_frame(0x88, b"\x0f\xa0enough", None))
        peer.stall()

    connection = connect_to(handler, scheme, max_outbox_bytes=1000)

    def send() -> None:
        while True:
            connection.send_bytes(bytes(900_000))

    sending = background(send)
    wait_until(lambda: is_sending(connection), "send() waits for room")
    go.set()
    with pytest.raises(WebSocketConnectionClosedException, match="4000") as caught:
        sending()
    assert (caught.value.code, caught.value.reason) == (4000, "enough")


@pytest.mark.parametrize("flood", [b"\x89\x00", b"\x00\x01x"])
def test_a_timeout_passes_although_frames_keep_coming_that_are_no_message(connect_to: Connect, flood: bytes) -> None:
    stop = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_raw(b"\x01\x01x" if flood[0] == 0 else b"")
        peer.sock.settimeout(0.05)
        while not stop.is_set():
            try:
                peer.sock.send(flood * 10_000)
            except TimeoutError:
                continue  # the client is behind
        peer.hang_up()

    connection = connect_to(handler, max_message_size=None)
    for timeout in (0, 0.1):
        with pytest.raises(WebSocketTimeoutException):
            connection.recv(timeout=timeout)
    stop.set()


def test_a_writer_that_dies_of_a_bug_ends_the_connection(connect_to: Connect, monkeypatch: Any, capsys: Any) -> None:
    aloud: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", aloud.append)
    connection = connect_to(Peer.stall)
    inner: Any = connection._connection

    def exhausted(data: Any) -> int:
        raise MemoryError("in the writer")

    inner.transport.send = exhausted
    with pytest.raises(WebSocketConnectionClosedException, match="in the writer"):
        while True:
            connection.send_bytes(bytes(100_000))
    with pytest.raises(WebSocketConnectionClosedException, match="in the writer"):
        connection.recv()
    connection.close()
    assert [type(seen.exc_value) for seen in aloud] == [MemoryError]


def test_a_second_thread_does_not_cut_what_the_first_has_just_adopted(monkeypatch: Any) -> None:
    ours, theirs = socket.socketpair()
    connection = WebSocket()
    connection.sock = ours
    adopt = WebSocket._adopt
    late = threading.Event()
    adopted = threading.Event()

    def delayed(self: WebSocket) -> None:
        if threading.current_thread() is not threading.main_thread():
            late.set()
            assert adopted.wait(PATIENCE)
        adopt(self)

    monkeypatch.setattr(WebSocket, "_adopt", delayed)
    sending = background(lambda: connection.send("second"))
    assert late.wait(PATIENCE)
    connection.send("first")
    adopted.set()
    sending()
    assert connection.connected
    connection.shutdown()
    theirs.close()
