"""recv_streaming() beside recv(), other threads, timeouts, signal handlers; leaving a message, and one that is never
finished."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket.testing import Peer

from .conftest import PATIENCE, Interrupter, background, is_receiving, wait_until
from .test_given_sockets import shake_hands
from .wire import inbox_of, peer_of, quiet, reading_by

Connect = Callable[..., WebSocket]

TEXT, BINARY, CONT, CLOSE = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY, ABNF.OPCODE_CONT, ABNF.OPCODE_CLOSE


@pytest.fixture(params=["borrowed", "reader"])
def open_to(request: pytest.FixtureRequest, connect_to: Connect) -> Connect:
    """connect_to(), once with recv() that reads for itself and once with the reader thread reading alone."""
    return reading_by(request, connect_to)


def test_a_timeout_within_a_message_loses_nothing(open_to: Connect, scheme: str) -> None:
    connection = open_to(Peer.stall, scheme)
    peer = peer_of(connection)
    with pytest.raises(WebSocketTimeoutException):
        connection.recv_streaming(timeout=0.01)
    peer.send_frame(TEXT, b"a\xe2", fin=0)
    stream = connection.recv_streaming(timeout=0.01)
    got = []
    for payload in (b"\x82", b"\xac", b"b"):
        with contextlib.suppress(WebSocketTimeoutException):
            while True:
                got.append(next(stream))
        peer.send_frame(CONT, payload, fin=0)
    peer.send_frame(CONT)
    connection.settimeout(PATIENCE)
    while "".join(got) != "a€b":
        with contextlib.suppress(WebSocketTimeoutException):
            got.append(next(stream))
    assert background(lambda: list(stream))() == []


def test_the_timeout_of_the_connection_holds_for_each_piece(open_to: Connect) -> None:
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"a", fin=0)
    stream = connection.recv_streaming()
    assert next(stream) == "a"
    connection.settimeout(0.01)
    with pytest.raises(WebSocketTimeoutException):
        next(stream)


def test_recv_gives_whole_messages_before_between_and_after(open_to: Connect, scheme: str) -> None:
    connection = open_to(Peer.stall, scheme)
    peer = peer_of(connection)
    for _ in range(3):
        for receive in (connection.recv, lambda: "".join(connection.recv_streaming())):
            receiving = background(receive)
            peer.send_frame(TEXT, b"a", fin=0)
            wait_until(lambda: is_receiving(connection) and not inbox_of(connection)._messages, "it waits for the rest")
            peer.send_frame(CONT, b"b", fin=0)
            peer.send_frame(CONT, b"c")
            assert receiving() == "abc"
    peer.send_frame(BINARY, b"a", fin=0)
    peer.send_frame(CONT, b"b")
    assert connection.recv_data() == (BINARY, b"ab")
    peer.send_frame(TEXT, b"a", fin=0)
    peer.send_frame(CONT, b"b")
    peer.close()
    assert list(connection) == ["ab"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_timeout_of_recv_within_a_message_loses_nothing(open_to: Connect, streamed: bool) -> None:
    connection = open_to(quiet)
    peer = peer_of(connection)
    for payload, opcode in ((b"a", TEXT), (b"b", CONT), (b"c", CONT)):
        peer.send_frame(opcode, payload, fin=0)
        with pytest.raises(WebSocketTimeoutException):
            connection.recv(timeout=0.05)
    peer.send_frame(CONT, b"d")
    peer.send("next")
    assert ("".join(connection.recv_streaming()) if streamed else connection.recv()) == "abcd"
    assert connection.recv() == "next"


@pytest.mark.parametrize("skip", [False, True])
def test_each_message_goes_to_one_of_many_threads(connect_to: Connect, skip: bool) -> None:
    count = 3000

    def handler(peer: Peer) -> None:
        assert peer.recv() == "go"
        for number in range(count):
            head = f"{number}:".encode()
            if number % 3:
                peer.send_frame(TEXT, head, fin=0)
                peer.send_frame(CONT, b"\xc3", fin=0)
                peer.send_frame(CONT, b"\xa4" * 1)
            else:
                peer.send(head.decode() + "ä")
        peer.close()

    connection = connect_to(handler, skip_utf8_validation=skip)
    connection._connection.receiving.begin_parts()  # type: ignore[union-attr]

    def receive(streamed: bool) -> list[str]:
        got = []
        with contextlib.suppress(WebSocketConnectionClosedException):
            while message := "".join(connection.recv_streaming()) if streamed else str(connection.recv()):
                got.append(message)
        return got

    receiving = [background(lambda streamed=streamed: receive(streamed)) for streamed in (True, False) * 3]
    wait_until(lambda: is_receiving(connection, 6), "all wait")
    connection.send("go")
    results = [result() for result in receiving]
    assert sorted(message for result in results for message in result) == sorted(f"{n}:ä" for n in range(count))


LEAVINGS: dict[str, Callable[[WebSocket], Any]] = {
    "break": lambda connection: next(connection.recv_streaming()),
    "close": lambda connection: connection.recv_streaming().close(),
    "drop": lambda connection: connection.recv_streaming() and None,
}


@pytest.mark.parametrize("leave", [*LEAVINGS, "with"])
@pytest.mark.parametrize("is_here", [False, True])
def test_leaving_a_message_skips_its_rest(open_to: Connect, leave: str, is_here: bool) -> None:
    connection = open_to(quiet, max_inbox_bytes=1_000_000)
    peer = peer_of(connection)
    peer.send_frame(BINARY, b"a", fin=0)
    if is_here:
        peer.send_frame(CONT, bytes(1_500_000))
    if leave == "with":
        with connection.recv_streaming() as stream:
            assert next(stream)
        assert list(stream) == []
    else:
        LEAVINGS[leave](connection)
    sending = background(
        lambda: (
            is_here or peer.send_frame(CONT, bytes(20_000_000)),
            peer.send("next", "last"),
        )
    )
    assert connection.recv() == "next"
    assert list(connection.recv_streaming()) == ["last"]
    sending()
    inbox = inbox_of(connection)
    with inbox.lock:
        inbox._settle_bytes()
        assert inbox.load() == (0, 0)


def begun(open_to: Connect) -> tuple[WebSocket, Peer, Any]:
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"begun", fin=0)
    stream = connection.recv_streaming()
    assert next(stream) == "begun"
    return connection, peer, stream


def test_a_connection_that_is_lost_within_a_message_says_so(open_to: Connect) -> None:
    connection, peer, stream = begun(open_to)
    peer.send_frame(CONT, b"more", fin=0)
    peer.half_close()
    assert next(stream) == "more"
    for receive in (lambda: next(stream), lambda: next(stream), connection.recv, connection.recv_streaming):
        with pytest.raises(WebSocketConnectionLostException, match="in the middle of a message"):
            receive()


def test_a_close_of_the_peer_within_a_message_says_so(open_to: Connect) -> None:
    connection, peer, stream = begun(open_to)
    peer.send_frame(CONT, b"more", fin=0)
    peer.close(4000, "enough")
    assert next(stream) == "more"
    for receive in (lambda: next(stream), lambda: next(stream), connection.recv, connection.recv_streaming):
        with pytest.raises(WebSocketConnectionClosedException, match="code 4000"):
            receive()


@pytest.mark.parametrize("way", ["recv", "recv_data"])
def test_recv_gives_the_peers_close_that_comes_within_a_message(open_to: Connect, way: str) -> None:
    """As it does where messages are not handed over in parts."""
    connection = open_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"begun", fin=0)
    peer.close(4000)
    assert getattr(connection, way)() == ("" if way == "recv" else (CLOSE, b"\x0f\xa0"))
    with pytest.raises(WebSocketConnectionClosedException, match="code 4000"):
        connection.recv()


def test_a_breach_within_a_message_is_told_once(open_to: Connect) -> None:
    connection, peer, stream = begun(open_to)
    peer.send_frame(CONT, b"more", fin=0)
    peer.send_frame(TEXT, b"a new one")
    assert next(stream) == "more"
    with pytest.raises(WebSocketProtocolException, match="a new message before the end"):
        next(stream)
    for receive in (lambda: next(stream), connection.recv, connection.recv_streaming):
        with pytest.raises(WebSocketConnectionClosedException, match="a new message before the end"):
            receive()


@pytest.mark.parametrize("whole", [False, True])
def test_bad_text_ends_the_stream(open_to: Connect, whole: bool) -> None:
    _, peer, stream = begun(open_to)
    peer.send_frame(CONT, b"\xff" if not whole else b"\xc3", fin=int(whole))
    with pytest.raises(WebSocketPayloadException, match="not UTF-8"):
        list(stream)


def test_a_local_close_ends_the_stream(open_to: Connect) -> None:
    connection, _, stream = begun(open_to)
    waiting = background(lambda: next(stream))
    wait_until(lambda: is_receiving(connection), "next() waits")
    connection.close()
    for receive in (waiting, lambda: next(stream)):
        with pytest.raises(WebSocketConnectionClosedException):
            receive()


def test_text_that_is_not_checked_is_cut_between_characters(open_to: Connect) -> None:
    connection = open_to(quiet, skip_utf8_validation=True)
    peer = peer_of(connection)
    payload = "aä€😀".encode() + b"\xff" + b"\xe2\x82"
    for receive in (connection.recv_streaming, connection.recv):
        for index in range(len(payload)):
            peer.send_frame(CONT if index else TEXT, payload[index : index + 1], fin=0)
        peer.send_frame(CONT)
        pieces = list(receive())
        assert "".join(pieces) == payload.decode("utf-8", "surrogateescape")
    peer.send_raw(b"\x81\x02\xff\xc3")
    assert list(connection.recv_streaming()) == ["\udcff\udcc3"]


class Interrupted(BaseException):
    """What a signal handler raises."""


def interrupt() -> None:
    raise Interrupted


@pytest.mark.parametrize("way", ["recv", "next"])
def test_an_exception_of_a_signal_handler_while_a_piece_is_awaited_loses_nothing(
    open_to: Connect, interrupting: Callable[[Callable[[], Any]], Interrupter], way: str
) -> None:
    connection, peer, stream = begun(open_to)
    if way == "recv":
        peer.send_frame(CONT)
        peer.send_frame(TEXT, b"begun", fin=0)
        assert list(stream) == []
    interrupter = interrupting(interrupt)

    def deliver() -> None:
        wait_until(lambda: is_receiving(connection) and not inbox_of(connection)._messages, "it waits")
        interrupter.deliver()

    delivering = background(deliver)
    with pytest.raises(Interrupted):
        connection.recv() if way == "recv" else next(stream)
    delivering()
    peer.send_frame(CONT, b", ended")
    assert (connection.recv() if way == "recv" else "begun" + "".join(stream)) == "begun, ended"


def test_an_exception_of_a_signal_handler_makes_no_hole_in_a_message(connect_to: Connect) -> None:
    """It may come just when a part has been taken: then the message is lost, or the connection, but none is wrong."""
    connection = connect_to(quiet)
    peer = peer_of(connection)
    inbox = inbox_of(connection)
    take_part = inbox.take_part

    def interrupted(message: Any) -> Any:
        part = take_part(message)
        if part == "b":
            raise Interrupted
        return part

    for payload, opcode in ((b"a", TEXT), (b"b", CONT), (b"c", CONT)):
        peer.send_frame(opcode, payload, fin=0)
        with pytest.raises((WebSocketTimeoutException, Interrupted)):
            if payload == b"b":
                inbox.take_part = interrupted
            connection.recv(timeout=0.05 if payload != b"b" else PATIENCE)
        inbox.take_part = take_part
    peer.send_frame(CONT, b"d")
    peer.send("next")
    try:
        assert connection.recv() in ("abcd", "next")
    except WebSocketConnectionClosedException:
        pass  # README: one that raises in the middle of a read ends the connection


def test_a_message_of_a_connection_that_another_has_replaced_is_not_waited_for_on_that_one(
    connect_to: Connect,
) -> None:
    connection = connect_to(quiet)
    peer = peer_of(connection)
    peer.send_frame(TEXT, b"begun", fin=0)
    wait_until(lambda: inbox_of(connection)._messages, "it has come")
    sock = socket.create_connection(("127.0.0.1", connection.server.port))  # type: ignore[attr-defined]
    shake_hands(sock)
    connection.sock = sock
    with pytest.raises(WebSocketException):
        connection.recv(timeout=0.05)
    connection.connected = True  # puts the new one into use, where that has not happened yet
    connection.server.peers[1].send("of the new connection")  # type: ignore[attr-defined]
    assert connection.recv() == "of the new connection"


def test_recv_waits_for_the_rest_of_the_first_message_in_parts_though_its_first_fragment_is_empty(
    connect_to: Connect,
) -> None:
    connection = connect_to(Peer.stall)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    peer.send("whole")
    assert list(connection.recv_streaming()) == ["whole"]
    peer.send_frame(TEXT, b"", fin=0)
    inbox = connection._connection.inbox  # type: ignore[union-attr]
    wait_until(lambda: inbox._messages, "the reader has delivered the beginning of the message")
    received = background(connection.recv)
    peer.send_frame(CONT, b"rest", fin=1)
    assert received() == "rest"


def test_a_message_that_is_read_outlives_the_websocket_that_it_came_from(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    peer.send_frame(TEXT, b"begun", fin=0)
    stream = connection.recv_streaming()
    assert next(stream) == "begun"
    connection.connect(connection.server.url)  # type: ignore[attr-defined]
    with pytest.raises(WebSocketConnectionClosedException):
        next(stream)


def test_a_recv_whose_connection_is_replaced_tells_that_it_has_ended(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall)
    end = connection._connection.end  # type: ignore[union-attr]
    know, is_replaced = end.know, threading.Event()
    end.know = lambda deadline: is_replaced.wait(PATIENCE) and know(deadline)
    received = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    connection.connect(connection.server.url)  # type: ignore[attr-defined]
    is_replaced.set()
    with pytest.raises(WebSocketConnectionClosedException):
        received()
