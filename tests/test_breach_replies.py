"""A peer that breaks the protocol: what came before that may still be answered, and then it is told, once."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import websocket.threads.connection
from websocket import (
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    create_connection,
)
from websocket.testing import Peer, Server

from .conftest import PATIENCE, background, is_receiving, is_sending, wait_until
from .recorder import Blocked, Record
from .wire import Wire

Connect = Callable[..., WebSocket]

MESSAGE = b"\x81\x03one"
# What breaks the protocol, the exception, and the code of the close frame.
BREACHES: dict[str, tuple[bytes, type[WebSocketException], int]] = {
    "reserved opcode": (b"\x83\x00", WebSocketProtocolException, 1002),
    "nothing to continue": (b"\x80\x00", WebSocketProtocolException, 1002),
    "bad close code": (b"\x88\x02\x00\x01", WebSocketProtocolException, 1002),
    "bad text": (b"\x81\x01\xff", WebSocketPayloadException, 1007),
    "too big": (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), WebSocketPayloadException, 1009),
}
BREACH = BREACHES["reserved opcode"][0]


@pytest.fixture
def long_reply_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The close frame goes out for another reason than that the time is over."""
    monkeypatch.setattr(websocket.threads.connection, "_REPLY", 3600.0)


class Breaking(Wire):
    """A server's handler that sends one message and a breach of the protocol, in one segment or in two, and keeps what
    comes back. go: the breach is sent when it is set."""

    def __init__(self, breach: bytes = BREACH, message: bytes = MESSAGE, together: bool = True) -> None:
        super().__init__()
        self.go = threading.Event()
        self._breach = breach
        self._message = message
        if together:
            self.go.set()

    def __call__(self, peer: Peer) -> None:
        if self.go.is_set():
            peer.send_raw(self._message + self._breach)
        else:
            peer.send_raw(self._message)
            assert self.go.wait(PATIENCE)
            peer.send_raw(self._breach)
        super().__call__(peer)

    def told(self, code: int = 1002) -> list[bytes]:
        """Wait for the close frame, the last thing that comes; the payloads before it."""
        assert self.done.wait(PATIENCE)
        assert self.frames[-1] == (0x88, code.to_bytes(2, "big"))
        assert self.after_close == b""
        return [payload for _, payload in self.frames[:-1]]


def has_seen_the_breach(connection: WebSocket) -> bool:
    return connection._connection.end.ending is not None  # type: ignore[union-attr]


RECEIVING: dict[str, Callable[[WebSocket], Any]] = {
    "recv": lambda connection: connection.recv(),
    "recv_data": lambda connection: connection.recv_data()[1].decode(),
    "recv_frame": lambda connection: connection.recv_frame().data.decode(),
    "next": next,
    "streaming": lambda connection: "".join(connection.recv_streaming()),
}


@pytest.mark.usefixtures("long_reply_time")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("polled", [True, False])
@pytest.mark.parametrize("way", RECEIVING)
def test_the_message_before_a_breach_can_be_answered(
    connect_to: Connect, scheme: str, way: str, polled: bool, together: bool
) -> None:
    server = Breaking(together=together)
    connection = connect_to(server, scheme)
    if polled:
        connection.fileno()
        assert select.select([connection], [], [], PATIENCE)[0]
    assert RECEIVING[way](connection) == "one"
    if not together:
        server.go.set()
        wait_until(lambda: has_seen_the_breach(connection), "the reader has seen it")
    connection.send("answer to one")
    with pytest.raises(WebSocketProtocolException, match="Invalid opcode 3"):
        RECEIVING[way](connection)
    assert server.told() == [b"answer to one"]
    with pytest.raises(WebSocketConnectionClosedException, match="Invalid opcode 3"):
        connection.send("too late")
    with pytest.raises(WebSocketConnectionClosedException, match="Invalid opcode 3"):
        RECEIVING[way](connection)


@pytest.mark.usefixtures("long_reply_time", "always_borrowed")
@pytest.mark.parametrize("kind", BREACHES)
@pytest.mark.parametrize("borrowed", [True, False])
def test_the_close_frame_has_the_code_of_the_breach(connect_to: Connect, kind: str, borrowed: bool) -> None:
    breach, error, code = BREACHES[kind]
    server = Breaking(breach + MESSAGE + BREACH + b"\x88\x02\x03\xe8")  # what comes behind it is not looked at
    connection = connect_to(server)
    if not borrowed:
        connection.fileno()
    assert connection.recv() == "one"
    connection.send("answer")
    with pytest.raises(error):
        connection.recv()
    assert server.told(code) == [b"answer"]
    assert connection.close_frame is None


@pytest.mark.usefixtures("long_reply_time")
@pytest.mark.parametrize("way", ["recv", "close"])
@pytest.mark.parametrize("what", ["burst", "chunks", "large"])
def test_all_answers_that_were_accepted_are_written_before_the_close_frame(
    connect_to: Connect, what: str, way: str
) -> None:
    """Also those that still wait for the writer."""
    server = Breaking(message=MESSAGE * 50)
    server.gate.clear()
    connection = connect_to(server)
    expected = []
    for number in range(50):
        assert connection.recv() == "one"
        if what == "chunks":
            connection.send(["in", str(number)])
            expected += [b"in", b"%d" % number, b""]
        else:
            expected.append(b"%d" % number * (10 if what == "burst" else 50_000))
            connection.send(expected[-1].decode())
    server.gate.set()
    if way == "recv":
        with pytest.raises(WebSocketProtocolException):
            connection.recv()
    else:
        connection.close(timeout=PATIENCE)
    assert server.told() == expected
    assert connection.unsent == []


@pytest.mark.usefixtures("long_reply_time")
@pytest.mark.parametrize("polled", [True, False])
def test_a_breach_is_told_at_once_where_a_receiver_waits(connect_to: Connect, polled: bool) -> None:
    server = Breaking(together=False)
    connection = connect_to(server)
    if polled:
        connection.fileno()
    assert connection.recv() == "one"
    receiving = [background(connection.recv) for _ in range(3)]
    wait_until(lambda: is_receiving(connection, 3), "all wait")
    server.go.set()
    assert server.told() == []
    raised = []
    for result in receiving:
        with pytest.raises(WebSocketException) as caught:
            result()
        raised.append(type(caught.value))
    assert sorted(raised, key=str) == [WebSocketConnectionClosedException] * 2 + [WebSocketProtocolException]


@pytest.mark.usefixtures("long_reply_time")
def test_a_breach_before_any_message_is_told_at_once(connect_to: Connect) -> None:
    server = Breaking(message=b"")
    connect_to(server)
    assert server.told() == []


@pytest.mark.usefixtures("long_reply_time")
@pytest.mark.parametrize("way", ["close", "close by another thread", "send_close"])
def test_a_breach_is_told_when_the_program_closes(connect_to: Connect, way: str) -> None:
    server = Breaking()
    connection = connect_to(server)
    assert connection.recv() == "one"
    wait_until(lambda: has_seen_the_breach(connection), "the reader has seen it")
    connection.send("answer")
    if way == "close":
        connection.close(4000)
    elif way == "close by another thread":
        background(connection.close)()
    else:
        with pytest.raises(WebSocketConnectionClosedException, match="Invalid opcode 3"):
            connection.send_close()
    assert server.told() == [b"answer"]


def test_a_breach_is_told_though_the_program_has_dropped_the_connection(serve: Callable[..., Server]) -> None:
    server = Breaking()
    connection = create_connection(serve(server).url)
    assert connection.recv() == "one"
    connection.send("answer")
    inner = connection._connection
    assert inner is not None
    wait_until(lambda: inner.end.ending is not None, "the reader has seen it")
    del connection
    assert server.told() == [b"answer"]


@pytest.mark.usefixtures("long_reply_time")
def test_a_breach_is_told_at_once_where_a_sender_is_blocked(connect_to: Connect) -> None:
    server = Breaking(together=False)
    server.gate.clear()
    connection = connect_to(server, max_outbox_bytes=100_000)
    assert connection.recv() == "one"

    def fill() -> None:
        for size in (25_000_000, 1):  # more than sockets take
            connection.send_bytes(bytes(size))

    sending = background(fill)
    wait_until(lambda: is_sending(connection), "a sender is blocked")
    server.go.set()
    end = connection._connection.end  # type: ignore[union-attr]
    wait_until(lambda: end.answered, "the close frame is on its way")
    server.gate.set()
    with pytest.raises(WebSocketConnectionClosedException, match="Invalid opcode 3"):
        sending()


def test_a_breach_is_told_after_about_a_second_where_nobody_comes(connect_to: Connect) -> None:
    server = Breaking()
    connection = connect_to(server)
    assert connection.recv() == "one"
    wait_until(lambda: has_seen_the_breach(connection), "the reader has seen it")
    start = time.monotonic()
    connection.send("answer")
    assert not server.done.is_set()
    assert server.told() == [b"answer"]
    assert 0.5 < time.monotonic() - start < PATIENCE / 2
    with pytest.raises(WebSocketConnectionClosedException, match="Invalid opcode 3"):
        connection.send("too late")
    with pytest.raises(WebSocketProtocolException, match="Invalid opcode 3"):
        connection.recv()


@pytest.mark.usefixtures("long_reply_time")
def test_keepalive_does_nothing_while_a_breach_is_to_be_answered(connect_to: Connect) -> None:
    server = Breaking()
    connection = connect_to(server, ping_interval=0.05, ping_timeout=0.04)
    assert connection.recv() == "one"
    wait_until(lambda: has_seen_the_breach(connection), "the reader has seen it")
    pinger: Any = connection._connection._pinger_thread  # type: ignore[union-attr]
    pinger.join(PATIENCE)
    assert not pinger.is_alive()
    connection.send("answer")
    with pytest.raises(WebSocketProtocolException):
        connection.recv()
    assert [payload for payload in server.told() if len(payload) > 5] == [b"answer"]


@pytest.mark.usefixtures("long_reply_time")
@pytest.mark.parametrize("together", [True, False])
def test_callbacks_answer_the_messages_before_a_breach(record: Record, scheme: str, together: bool) -> None:
    server = Breaking(message=MESSAGE * 3, together=together)
    app = record(server, scheme)

    def answer(message: str) -> None:
        app.send(f"answer to {message}")
        if app.told.count(("message", "one")) == 3:
            server.go.set()

    app.then["message"] = answer
    app.run()
    assert server.told() == [b"answer to one"] * 3
    assert [type(error) for error in app.errors] == [WebSocketProtocolException]
    assert app.told[-1] == ("close", None, None)


@pytest.mark.usefixtures("long_reply_time")
def test_a_slow_callback_may_answer_its_message_though_a_breach_has_come_meanwhile(record: Record) -> None:
    server = Breaking(together=False)
    app = record(server)
    blocked = Blocked()
    refusals: list[Exception] = []

    def answer(message: str) -> None:
        blocked()
        try:
            app.send(f"answer to {message}")
        except WebSocketException as error:
            refusals.append(error)

    app.then["message"] = answer
    running = background(app.run)
    assert blocked.begun.wait(PATIENCE)
    server.go.set()
    wait_until(lambda: app._run.connection.end.ending is not None, "it has been read meanwhile")  # type: ignore[union-attr]
    blocked.release.set()
    running()
    assert refusals == []
    assert server.told() == [b"answer to one"]
