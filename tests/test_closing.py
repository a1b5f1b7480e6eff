"""The end of a connection, from either side: who is woken, what they are told, what is left."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
    enableTrace,
)
from websocket.testing import Peer, Server, echo

from .conftest import PATIENCE, Collected, Interrupter, background, is_receiving, is_sending, run_all, wait_until

Connect = Callable[..., WebSocket]


def threads_of(connection: WebSocket) -> list[str]:
    name = connection._connection.name  # type: ignore[union-attr]
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(name)]


def fill(connection: WebSocket) -> None:
    """Send until neither the kernel nor the outbox takes any more; the server must not be reading."""
    connection.settimeout(0.05)
    with pytest.raises(WebSocketTimeoutException):
        while True:
            connection.send_bytes(bytes(90_000))
    connection.settimeout(PATIENCE)


def test_close_wakes_a_waiting_recv_at_once(connect_to: Connect, scheme: str) -> None:
    """The server answers only after recv() has returned, so close() cannot have been what ended the wait."""
    release = threading.Event()

    def handler(peer: Peer) -> None:
        release.wait(PATIENCE)
        peer.recv()

    connection = connect_to(handler, scheme)
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    closing = background(lambda: connection.close(timeout=PATIENCE))
    with pytest.raises(WebSocketConnectionClosedException):
        receiving()
    assert threads_of(connection), "close() is still waiting for the server"
    release.set()
    closing()
    assert threads_of(connection) == []


def test_every_waiter_wakes_when_the_connection_is_closed(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(echo, scheme)
    receiving = [background(connection.recv) for _ in range(8)]
    wait_until(lambda: is_receiving(connection, 8), "all wait in recv()")
    connection.close()
    for result in receiving:
        with pytest.raises(WebSocketConnectionClosedException):
            result()


@pytest.mark.parametrize("how", ["reset", "hang_up", "half_close"])
def test_every_waiter_wakes_with_the_cause_when_the_connection_fails(
    connect_to: Connect, scheme: str, how: str
) -> None:
    end = threading.Event()

    def handler(peer: Peer) -> None:
        end.wait(PATIENCE)
        getattr(peer, how)()
        if how == "half_close":
            peer.stall()

    def send() -> None:
        while True:
            connection.send_bytes(bytes(90_000))

    connection = connect_to(handler, scheme, max_outbox_bytes=2_000_000)
    fill(connection)
    receiving = [background(connection.recv) for _ in range(4)]
    sending = [background(send) for _ in range(4)]
    wait_until(lambda: is_receiving(connection, 4) and is_sending(connection), "all wait")
    end.set()
    for result in [*receiving, *sending]:
        with pytest.raises(WebSocketConnectionClosedException, match="Connection to remote host was lost") as caught:
            result()
        assert isinstance(caught.value.__cause__, (OSError, EOFError))
        assert caught.value.unsent
    assert not connection.connected


def test_eight_threads_close_at_once(connect_to: Connect, scheme: str) -> None:
    for _ in range(10):
        collected = Collected()
        connection = connect_to(collected, scheme)
        connection.send("x")
        run_all(*[connection.close] * 8)
        assert threads_of(connection) == []
        assert collected.frames == ["x", (ABNF.OPCODE_CLOSE, b"\x03\xe8")]


def test_close_in_the_middle_of_everything(connect_to: Connect, scheme: str) -> None:
    for _ in range(10):
        connection = connect_to(echo, scheme)

        def send(connection: WebSocket = connection) -> None:
            with pytest.raises(WebSocketConnectionClosedException):
                while True:
                    connection.send_bytes(bytes(10_000))

        def receive(connection: WebSocket = connection) -> None:
            with pytest.raises(WebSocketConnectionClosedException):
                while True:
                    connection.recv()

        def ping(connection: WebSocket = connection) -> None:
            with pytest.raises(WebSocketConnectionClosedException):
                while True:
                    connection.ping("x")

        run_all(send, send, receive, receive, ping, lambda connection=connection: connection.close(timeout=PATIENCE))
        assert threads_of(connection) == []


def test_the_peers_close_is_told_once_and_then_as_an_error_with_code_and_reason(
    connect_to: Connect, scheme: str
) -> None:
    connection = connect_to(lambda peer: peer.close(4000, "bye é"), scheme)
    assert connection.recv() == ""
    assert not connection.connected
    for call in (connection.recv, lambda: connection.send("x"), connection.recv_data, connection.ping):
        with pytest.raises(WebSocketConnectionClosedException, match=r"4000 \(bye é\)") as caught:
            call()
        assert (caught.value.code, caught.value.reason) == (4000, "bye é")
    assert connection.close_frame is not None
    assert connection.close_frame.data == b"\x0f\xa0" + "bye é".encode()


def test_recv_data_gives_the_peers_close_frame(connect_to: Connect) -> None:
    connection = connect_to(lambda peer: peer.close(1001, "going"))
    assert connection.recv_data() == (ABNF.OPCODE_CLOSE, b"\x03\xe9going")
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv_data_frame()
    assert (caught.value.code, caught.value.reason) == (1001, "going")


@pytest.mark.parametrize(("payload", "answer"), [(b"", b""), (b"\x03\xe8ok", b"\x03\xe8"), (b"\x0b\xb8", b"\x0b\xb8")])
def test_the_peers_close_is_answered_with_its_code(connect_to: Connect, payload: bytes, answer: bytes) -> None:
    seen = []

    def handler(peer: Peer) -> None:
        peer.send_frame(ABNF.OPCODE_CLOSE, payload)
        peer.recv()
        seen.append(peer.close_frame)
        peer.hang_up()

    connection = connect_to(handler)
    assert connection.recv() == ""
    connection.close()
    assert connection.server.errors == []  # type: ignore[attr-defined]
    wait_until(lambda: seen, "the answer has come")
    assert seen[0] is not None
    assert seen[0].data == answer


def test_messages_before_the_peers_close_are_all_received(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(lambda peer: peer.send(*map(str, range(100))), scheme)
    wait_until(lambda: connection.close_frame is not None, "the server has closed")
    assert connection.connected, "messages wait"
    assert list(connection) == [str(number) for number in range(100)]
    assert not connection.connected


class AtTheAnswer(logging.Handler):
    """Looks whether the WebSocket is connected, while its reader has answered a close frame and told nobody yet."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: WebSocket | None = None
        self.seen: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("++Sent close") and self.connection is not None and not self.seen:
            self.seen.append(self.connection.connected)


@pytest.mark.parametrize("messages", [(), ("a", "b")])
def test_it_is_connected_while_the_peers_close_is_being_answered(
    connect_to: Connect, messages: tuple[str, ...]
) -> None:
    go_on = threading.Event()

    def handler(peer: Peer) -> None:
        go_on.wait(PATIENCE)
        if messages:
            peer.send(*messages)

    connection = connect_to(handler)
    look = AtTheAnswer()
    look.connection = connection
    enableTrace(True, look)
    try:
        go_on.set()
        wait_until(lambda: connection._connection.is_closing, "the end is told")  # type: ignore[union-attr]
    finally:
        enableTrace(False)
    assert look.seen == [True]
    assert list(connection) == list(messages)
    assert not connection.connected


def test_iterating_ends_at_a_normal_close_and_raises_at_another(connect_to: Connect) -> None:
    for code in (1000, 1001):
        connection = connect_to(lambda peer, code=code: (peer.send("a", ""), peer.close(code)))
        assert list(connection) == ["a", ""]
    connection = connect_to(lambda peer: (peer.send("a"), peer.close(1011, "broken")))
    assert next(connection) == "a"
    with pytest.raises(WebSocketConnectionClosedException, match="broken"):
        next(connection)
    connection = connect_to(lambda peer: (peer.send("a"), peer.hang_up()))
    assert connection.next() == "a"
    with pytest.raises(WebSocketConnectionClosedException, match="lost"):
        next(connection)


def test_iterating_ends_when_another_thread_closes(connect_to: Connect) -> None:
    connection = connect_to(echo)
    iterating = background(lambda: list(connection))
    wait_until(lambda: is_receiving(connection), "it waits")
    connection.close()
    assert iterating() == []


def test_close_returns_when_the_peer_has_answered_read_or_unread(connect_to: Connect, scheme: str) -> None:
    """As many messages as fit nowhere wait unread; close() must not wait for a reader of them."""

    def handler(peer: Peer) -> None:
        try:
            for _ in range(300):
                peer.send_bytes = peer.send(bytes(100_000))  # type: ignore[attr-defined]
        finally:
            while peer.recv() is not None:
                pass

    connection = connect_to(handler, scheme, max_inbox_bytes=500_000)
    wait_until(lambda: connection._inbox.stalled, "the inbox is full")
    connection.close(timeout=None)
    assert threads_of(connection) == []
    assert connection.recv() == bytes(100_000), "what was received before the close can still be read"


def test_a_server_that_never_answers_the_close_is_cut_off(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(Peer.stall, scheme)
    connection.close(timeout=0.1)
    assert threads_of(connection) == []
    assert not connection.connected


def test_close_with_no_time_at_all_still_sends_the_close_frame(connect_to: Connect) -> None:
    collected = Collected()
    connection = connect_to(collected)
    connection.close(timeout=0)
    assert threads_of(connection) == []
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [(ABNF.OPCODE_CLOSE, b"\x03\xe8")]


def test_a_server_that_reads_nothing_cannot_hold_up_close(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(Peer.stall, scheme, max_outbox_bytes=50_000_000)
    for _ in range(200):
        connection.send_bytes(bytes(100_000))
    connection.close(timeout=0.1)
    assert threads_of(connection) == []
    assert connection.unsent
    assert set(connection.unsent) == {bytes(100_000)}


def test_a_server_that_closes_and_keeps_the_tcp_connection_is_not_waited_for_long(
    connect_to: Connect, scheme: str
) -> None:
    def handler(peer: Peer) -> None:
        peer.close(1000)
        peer.stall()

    connection = connect_to(handler, scheme)
    assert connection.recv() == ""
    connection.close(timeout=PATIENCE)
    assert threads_of(connection) == []


def test_a_stream_that_ends_amid_a_message_says_so(connect_to: Connect) -> None:
    connection = connect_to(lambda peer: (peer.send_raw(b"\x81\x05ab"), peer.hang_up()))
    with pytest.raises(WebSocketConnectionClosedException, match="in the middle of a message"):
        connection.recv()


def test_data_after_the_peers_close_frame_is_ignored(connect_to: Connect) -> None:
    connection = connect_to(lambda peer: (peer.send_raw(b"\x88\x00\x81\x01x\xff\xff"), peer.recv()))
    assert connection.recv() == ""
    with pytest.raises(WebSocketConnectionClosedException):
        connection.recv()


def test_send_close_leaves_receiving_open(connect_to: Connect, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        peer.recv()
        peer.send("late", "later")

    connection = connect_to(handler, scheme)
    connection.send_close(1000, "enough")
    with pytest.raises(WebSocketConnectionClosedException):
        connection.send("x")
    with pytest.raises(WebSocketConnectionClosedException):
        connection.send_close()
    assert [connection.recv() for _ in range(3)] == ["late", "later", ""]
    assert connection.server.peers[0].close_frame.data == b"\x03\xe8enough"  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", ["because é", "because é".encode()])
def test_a_close_reason_may_be_str_or_bytes(connect_to: Connect, reason: str | bytes) -> None:
    collected = Collected()
    connect_to(collected).close(1000, reason)
    assert collected.frames == [(ABNF.OPCODE_CLOSE, b"\x03\xe8" + "because é".encode())]


def test_nothing_is_left_to_call_after_close(connect_to: Connect) -> None:
    connection = connect_to(echo)
    connection.close()
    assert (connection.connected, connection.sock) == (False, None)
    calls: list[Callable[[], object]] = [
        connection.recv,
        connection.recv_data,
        connection.recv_frame,
        connection.fileno,
        connection.ping,
        connection.pong,
        connection.send_close,
        lambda: connection.send("x"),
    ]
    for call in calls:
        with pytest.raises(WebSocketConnectionClosedException, match=r"socket is already closed\."):
            call()
    connection.close()
    connection.shutdown()
    connection.abort()


def test_a_websocket_that_never_connected_answers_every_call() -> None:
    connection = WebSocket()
    assert (connection.connected, connection.sock, connection.is_ssl()) == (False, None, False)
    assert (connection.status, connection.headers, connection.subprotocol) == (None, None, None)
    assert (connection.unsent, connection.close_frame) == ([], None)
    for call in (connection.recv, connection.fileno, connection.ping, lambda: connection.send("x")):
        with pytest.raises(WebSocketConnectionClosedException):
            call()
    connection.close()
    connection.shutdown()
    connection.abort()


def test_shutdown_and_abort_cut_the_connection_at_once(connect_to: Connect, scheme: str) -> None:
    for cut in (WebSocket.shutdown, WebSocket.abort, lambda ws: ws.sock.close(), lambda ws: setattr(ws, "sock", None)):
        connection = connect_to(Peer.stall, scheme)
        receiving = background(connection.recv)
        wait_until(lambda connection=connection: is_receiving(connection), "recv() waits")
        cut(connection)
        with pytest.raises(WebSocketConnectionClosedException):
            receiving()
        assert threads_of(connection) == []


def test_a_signal_handler_may_close_the_connection_that_it_interrupts(
    connect_to: Connect, scheme: str, interrupting: Callable[..., Interrupter]
) -> None:
    connection = connect_to(echo, scheme)
    interrupter = interrupting(connection.close)
    delivering = background(
        lambda: wait_until(lambda: is_receiving(connection), "recv() waits") or interrupter.deliver()
    )
    with pytest.raises(WebSocketConnectionClosedException):
        connection.recv()
    delivering()


def test_one_websocket_connects_a_hundred_times(serve: Callable[..., Server]) -> None:
    server = serve()
    connection = WebSocket()
    for number in range(100):
        connection.connect(server.url)
        connection.send(str(number))
        assert connection.recv() == str(number)
        if number % 2:
            connection.close()
    connection.close()
    assert threads_of(connection) == []


def test_as_a_context_manager_it_closes(serve: Callable[..., Server]) -> None:
    with create_connection(serve().url) as connection:
        connection.send("x")
    assert not connection.connected
    assert threads_of(connection) == []


def test_a_reset_while_sending_names_the_peers_close_where_there_was_one(connect_to: Connect) -> None:
    """The server closes with a code and ends TCP while a thread floods it: the flood meets a reset, but the close
    frame was there before."""
    for _ in range(20):

        def handler(peer: Peer) -> None:
            peer.recv()
            peer.close(1013, "try later")
            peer.hang_up()

        connection = connect_to(handler)
        error = None
        try:
            while True:
                connection.send("x" * 1000)
        except WebSocketConnectionClosedException as caught:
            error = caught
        assert error.code in (1013, None)
        if error.code is None:  # the reset came before the frame was read
            assert isinstance(error.__cause__, OSError)


def test_a_socket_that_is_not_connected_is_refused() -> None:
    connection = WebSocket()
    with pytest.raises(TypeError, match="socket must be"):
        connection.connect("ws://localhost/", socket="not a socket")
    with socket.socket() as unconnected:
        connection.sock = unconnected
        with pytest.raises(WebSocketException):
            connection.connected = True
            connection.recv()
        connection.shutdown()


def test_two_ends_at_the_same_moment_are_one_end(connect_to: Connect, scheme: str) -> None:
    for _ in range(20):
        meet = threading.Barrier(2)

        def handler(peer: Peer, meet: threading.Barrier = meet) -> None:
            meet.wait(PATIENCE)
            peer.close(4000, "mine")

        connection = connect_to(handler, scheme)
        meet.wait(PATIENCE)
        start = time.monotonic()
        connection.close(4001, "ours", timeout=PATIENCE)
        assert time.monotonic() - start < PATIENCE
        assert threads_of(connection) == []
