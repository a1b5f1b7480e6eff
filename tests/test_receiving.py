"""What recv() promises: each message once, timeouts that lose nothing, pings answered, bounded memory."""

from __future__ import annotations

import logging
import random
import select
import socket
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, echo

from .conftest import PATIENCE, Interrupter, background, is_receiving, run_all, wait_until

Connect = Callable[..., WebSocket]


def frame(payload: str | bytes, fin: int = 1, opcode: int | None = None) -> bytes:
    """A server's frame."""
    kind = opcode if opcode is not None else ABNF.OPCODE_TEXT if isinstance(payload, str) else ABNF.OPCODE_BINARY
    return encode_frame(fin << 7 | kind, payload.encode() if isinstance(payload, str) else payload, None)


def test_each_message_comes_once_and_to_each_thread_in_order(connect_to: Connect, scheme: str) -> None:
    count, threads = 20_000, 8

    def handler(peer: Peer) -> None:
        peer.recv()
        for start in range(0, count, 100):
            peer.send(*(str(number) for number in range(start, start + 100)))

    connection = connect_to(handler, scheme)

    def receive() -> list[int]:
        got = []
        try:
            while message := connection.recv():
                got.append(int(message))
        except WebSocketConnectionClosedException:
            pass  # another thread had the "" of the close
        return got

    receiving = [background(receive) for _ in range(threads)]
    wait_until(lambda: is_receiving(connection, threads), "all threads wait in recv()")
    connection.send("go")
    results = [result() for result in receiving]
    assert sorted(number for result in results for number in result) == list(range(count))
    for result in results:
        assert result == sorted(result)


@pytest.mark.parametrize("by_reader_thread", [False, True])
def test_a_timeout_inside_a_frame_loses_nothing(connect_to: Connect, scheme: str, by_reader_thread: bool) -> None:
    turn = threading.Semaphore(0)
    whole = b"\x81\x7e\x00\xc8" + b"x" * 3 + "é".encode() + b"y" * 195
    cuts = [1, 2, 3, 4, 7, 8, len(whole)]

    def handler(peer: Peer) -> None:
        at = 0
        for cut in cuts:
            turn.acquire(timeout=PATIENCE)
            peer.send_raw(whole[at:cut])
            at = cut
        peer.recv()

    connection = connect_to(handler, scheme)
    if by_reader_thread:
        connection.fileno()  # pins reading to the reader
    for _ in cuts[:-1]:
        turn.release()
        with pytest.raises(WebSocketTimeoutException):
            connection.recv(timeout=0.02)
    turn.release()
    assert connection.recv(timeout=PATIENCE) == "xxxé" + "y" * 195


def test_a_timeout_of_zero_takes_what_is_here(connect_to: Connect) -> None:
    connection = connect_to(echo)
    with pytest.raises(WebSocketTimeoutException) as caught:
        connection.recv(timeout=0)
    assert isinstance(caught.value, TimeoutError)
    connection.send("x")
    select.select([connection], [], [], PATIENCE)
    assert connection.recv(timeout=0) == "x"


def test_settimeout_applies_to_recv_and_the_argument_beats_it(connect_to: Connect) -> None:
    connection = connect_to(echo)
    connection.settimeout(0.02)
    assert connection.gettimeout() == connection.timeout == connection.sock.gettimeout() == 0.02
    with pytest.raises(WebSocketTimeoutException):
        connection.recv()
    sending = background(lambda: wait_until(lambda: is_receiving(connection), "recv() waits") or connection.send("x"))
    assert connection.recv(timeout=None) == "x"
    sending()


def test_pings_are_answered_while_the_program_does_nothing(connect_to: Connect, scheme: str) -> None:
    answered = threading.Event()
    pongs: list[bytes] = []

    def handler(peer: Peer) -> None:
        for payload in (b"", b"one", b"x" * 125):
            peer.send_frame(ABNF.OPCODE_PING, payload)
        while len(peer.pongs) < 3:
            peer.recv()
        pongs.extend(peer.pongs)
        answered.set()

    connection = connect_to(handler, scheme)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    wait_until(lambda: len(peer.pongs) == 3, "the pongs are there")
    connection.send("end")  # for the server's recv(), which waits for a message
    assert answered.wait(PATIENCE)
    assert pongs == [b"", b"one", b"x" * 125]


def test_pings_are_answered_between_requests_and_replies(connect_to: Connect, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            peer.send_frame(ABNF.OPCODE_PING, b"p")
            peer.send(message)
        peer.close()

    connection = connect_to(handler, scheme)
    for number in range(300):
        connection.send(str(number))
        assert connection.recv() == str(number)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]
    wait_until(lambda: len(peer.pongs) >= 299, "the pongs are there")


def test_a_server_that_floods_is_held_back_and_nothing_is_lost(
    connect_to: Connect, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    stalled = threading.Event()
    size, count = 100_000, 500

    def handler(peer: Peer) -> None:
        peer.sock.settimeout(0.3)
        data = b"".join(frame(f"{n}:" + "x" * size) for n in range(count))
        view, at = memoryview(data), 0
        while at < len(view):
            try:
                at += peer.sock.send(view[at : at + 1_000_000])
            except TimeoutError:  # the client takes nothing any more: that is what is tested
                stalled.set()
        peer.sock.settimeout(PATIENCE)
        peer.recv()

    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING, "websocket"):
            connection = connect_to(handler, scheme, max_inbox_bytes=2_000_000)
            assert stalled.wait(PATIENCE)
        held = tracemalloc.get_traced_memory()[0] - size * count * 2  # the server's own copies
        assert held < 10_000_000
    finally:
        tracemalloc.stop()
    assert "slow consumer" in caplog.text
    for number in range(count):
        message = connection.recv()
        assert message == f"{number}:" + "x" * size


def test_the_inbox_is_bounded_in_messages(connect_to: Connect) -> None:
    sent = threading.Event()

    def handler(peer: Peer) -> None:
        for number in range(1000):
            peer.send(str(number))
        sent.set()
        peer.recv()

    connection = connect_to(handler, max_inbox_messages=1)
    assert sent.wait(PATIENCE)
    wait_until(lambda: connection._inbox.stalled, "the reader waits for room")  # type: ignore[attr-defined]
    assert [connection.recv() for _ in range(1000)] == [str(number) for number in range(1000)]


def test_a_ping_flood_costs_bounded_memory_and_data_still_flows(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        flood = b"".join(frame(n.to_bytes(4, "big"), opcode=ABNF.OPCODE_PING) for n in range(1000)) * 100
        peer.send_raw(flood + frame("still here"))
        peer.recv()

    connection = connect_to(handler)
    tracemalloc.start()
    try:
        assert connection.recv() == "still here"
        # One batch of the smallest frames becomes 25 MB of frame objects for a moment; all of them would be 60.
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    connection.send("end")


def test_control_frames_come_in_the_order_of_the_wire_to_who_asks(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(
            frame(b"1", opcode=ABNF.OPCODE_PING)
            + frame("a")
            + frame(b"2", opcode=ABNF.OPCODE_PONG)
            + frame(b"b", fin=0)
            + frame(b"3", opcode=ABNF.OPCODE_PING)
            + frame(b"c", opcode=ABNF.OPCODE_CONT)
        )
        peer.recv()

    connection = connect_to(handler)
    assert [connection.recv_data(control_frame=True) for _ in range(5)] == [
        (ABNF.OPCODE_PING, b"1"),
        (ABNF.OPCODE_TEXT, b"a"),
        (ABNF.OPCODE_PONG, b"2"),
        (ABNF.OPCODE_PING, b"3"),
        (ABNF.OPCODE_BINARY, b"bc"),
    ]


def test_a_waiting_recv_data_frame_wakes_for_a_pong(connect_to: Connect) -> None:
    connection = connect_to(echo)
    receiving = background(lambda: connection.recv_data_frame(control_frame=True))
    wait_until(lambda: is_receiving(connection), "it waits")
    connection.ping("are you there")
    opcode, pong = receiving()
    assert (opcode, pong.data) == (ABNF.OPCODE_PONG, b"are you there")


def test_control_frames_that_nobody_asks_for_are_kept_within_bounds(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(b"".join(frame(str(n).encode(), opcode=ABNF.OPCODE_PONG) for n in range(10_000)) + frame("x"))
        peer.recv()

    connection = connect_to(handler)
    assert connection.recv() == "x"
    assert len(connection._inbox._controls) == 128  # type: ignore[attr-defined]
    assert connection.recv_data(True) == (ABNF.OPCODE_PONG, b"9872")


@pytest.mark.parametrize("size", [70_000, 1_000_000, 20_000_000])
def test_large_messages_come_whole(connect_to: Connect, scheme: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    text = "é漢😀" * (size // 9)

    def handler(peer: Peer) -> None:
        peer.send(data, text, data, "")
        peer.recv()

    connection = connect_to(handler, scheme)
    assert connection.recv() == data
    assert connection.recv() == text
    assert connection.recv() == data
    assert connection.recv() == ""


BREACHES = [
    (b"\xc1\x00", 1002, WebSocketProtocolException),
    (b"\x83\x00", 1002, WebSocketProtocolException),
    (b"\x80\x00", 1002, WebSocketProtocolException),
    (b"\x81\x80abcd", 1002, WebSocketProtocolException),
    (b"\x89\x7e\x00\x7e", 1002, WebSocketProtocolException),
    (b"\x88\x02\x03\xed", 1002, WebSocketProtocolException),
    (b"\x81\x02\xff", 1007, WebSocketPayloadException),
    (b"\x01\x01\xc3\x80\x01x", 1007, WebSocketPayloadException),
    (b"\x82\x7f\x00\x00\x00\x10\x00\x00\x00\x00", 1009, WebSocketPayloadException),
    (b"\x01\x7e\x03\xe8" + b"x" * 1000 + b"\x80\x7e\x03\xe8", 1009, WebSocketPayloadException),
]


@pytest.mark.parametrize(("breach", "code", "error"), BREACHES)
def test_a_breach_ends_the_connection_after_what_was_valid(
    connect_to: Connect, breach: bytes, code: int, error: type[WebSocketException]
) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(frame("valid") + breach)
        while peer.recv() is not None:
            pass

    connection = connect_to(handler, max_message_size=1500)
    assert connection.recv() == "valid"
    with pytest.raises(error) as caught:
        connection.recv()
    with pytest.raises(WebSocketConnectionClosedException) as closed:
        connection.recv()
    assert closed.value.__cause__ is caught.value
    with pytest.raises(WebSocketConnectionClosedException):
        connection.send("x")
    assert not connection.connected
    connection.close()
    close_frame = connection.server.peers[0].close_frame  # type: ignore[attr-defined]
    assert close_frame is not None
    assert int.from_bytes(close_frame.data[:2], "big") == code


def test_fire_cont_frame_gives_fragments_one_by_one(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        for _ in range(2):
            peer.send_raw(frame(b"\xc3", fin=0, opcode=1) + frame(b"\xa9x", fin=0, opcode=0) + frame(b"y", opcode=0))
        peer.recv()

    connection = connect_to(handler, fire_cont_frame=True)
    assert [connection.recv_data() for _ in range(3)] == [(1, b"\xc3"), (0, b"\xa9x"), (0, b"y")]
    assert [connection.recv() for _ in range(3)] == ["", "éx", "y"]


def test_skip_utf8_validation_lets_anything_through(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(frame(b"ok \xff", opcode=1) + frame(b"ok \xff", opcode=1))
        peer.recv()

    connection = connect_to(handler, skip_utf8_validation=True)
    assert connection.recv_data() == (ABNF.OPCODE_TEXT, b"ok \xff")
    assert connection.recv() == "ok \udcff"


def test_an_interrupted_recv_loses_nothing(
    connect_to: Connect, scheme: str, interrupting: Callable[..., Interrupter]
) -> None:
    """Ctrl-C in a waiting recv(), again and again while messages come."""
    go = threading.Event()

    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            peer.send(message)

    def interrupt() -> None:
        raise KeyboardInterrupt

    connection = connect_to(handler, scheme)
    interrupter = interrupting(interrupt)

    def deliver() -> None:
        for _ in range(20):
            assert go.wait(PATIENCE)
            go.clear()
            wait_until(lambda: is_receiving(connection), "recv() waits")
            interrupter.deliver()

    delivering = background(deliver)
    for number in range(20):
        go.set()
        with pytest.raises(KeyboardInterrupt):
            connection.recv()
        connection.send(str(number))
        assert connection.recv() == str(number)
    delivering()


def test_a_polled_descriptor_is_readable_exactly_while_recv_would_not_wait(connect_to: Connect, scheme: str) -> None:
    """As Kubernetes' client uses it: select on ws.sock, then recv_data_frame(True)."""
    connection = connect_to(echo, scheme)
    poller = select.poll()
    poller.register(connection.sock.fileno(), select.POLLIN)
    assert connection.fileno() == connection.sock.fileno()
    for number in range(200):
        assert poller.poll(0) == []
        connection.send(str(number))
        connection.send("second")
        assert poller.poll(PATIENCE * 1000)
        assert connection.recv_data_frame(True)[1].data == str(number).encode()
        assert select.select([connection.sock], [], [], PATIENCE)[0]
        assert connection.recv() == "second"
    connection.send_close()
    assert poller.poll(PATIENCE * 1000), "the end is readable too"
    assert connection.recv() == ""
    assert poller.poll(0), "and stays so: recv() does not wait any more"


def test_a_thread_in_recv_gives_way_to_a_poller(connect_to: Connect) -> None:
    connection = connect_to(echo)
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    descriptor = connection.fileno()
    connection.send("x")
    assert receiving() == "x"
    connection.send("y")
    assert select.select([descriptor], [], [], PATIENCE)[0]
    assert connection.recv(timeout=0) == "y"


def test_messages_are_counted_once_under_polling_from_many_threads(connect_to: Connect) -> None:
    count = 3000

    def handler(peer: Peer) -> None:
        for number in range(count):
            peer.send(str(number))
        peer.recv()

    connection = connect_to(handler)
    got: list[str | bytes] = []
    descriptor = connection.fileno()

    def poll_and_receive() -> None:
        while len(got) < count:
            if select.select([descriptor], [], [], 0.01)[0]:
                try:
                    got.append(connection.recv(timeout=0))
                except WebSocketTimeoutException:
                    continue  # another thread was faster

    run_all(*[poll_and_receive] * 4)
    assert sorted(map(int, got)) == list(range(count))
    assert not select.select([descriptor], [], [], 0)[0]


def test_reading_is_left_to_one_thread_at_a_time_under_random_timeouts(connect_to: Connect, scheme: str) -> None:
    """recv() with timeouts that expire at any moment, from several threads, against a server that never stops."""
    count = 5000

    def handler(peer: Peer) -> None:
        choose = random.Random(7)
        stream = b"".join(frame(str(number)) for number in range(count))
        at = 0
        while at < len(stream):
            step = choose.randrange(1, 400)
            peer.send_raw(stream[at : at + step])
            at += step
        peer.recv()

    connection = connect_to(handler, scheme)
    got: list[int] = []

    def receive() -> None:
        choose = random.Random(threading.get_ident())
        while len(got) < count:
            try:
                got.append(int(connection.recv(timeout=choose.choice([0, 0.0001, 0.001]))))
            except WebSocketTimeoutException:
                continue

    run_all(*[receive] * 4)
    assert sorted(got) == list(range(count))


def test_messages_behind_the_handshake_are_not_lost(connect_to: Connect, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # all in one packet
        peer.accept()
        peer.send("first", "second")
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        peer.recv()

    connection = connect_to(handler, scheme, raw=True)
    assert [connection.recv(), connection.recv()] == ["first", "second"]
