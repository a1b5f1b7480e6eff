"""Servers that send very many very small things: nothing is lost, and little is kept."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import socket
import struct
import termios
import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException
from websocket._read_size import LARGEST_READ
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, wait_until
from .hostile import WAYS, Endless, Hear, bounded_memory, by_recv_alone, frame, threads_of_package, way_to_hear
from .recorder import Blocked, Record

Connect = Callable[..., WebSocket]

MILLION = 1_000_000
TEXT, BINARY, CONT = 0x01, 0x02, 0x00
FIN = 0x80
PING, PONG = 0x89, 0x8A
SMALL_SEND_BUFFER = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
END = frame(0x88, b"\x0f\xa0")


@pytest.fixture(params=WAYS)
def hear(request: pytest.FixtureRequest, connect_to: Connect, record: Record) -> Hear:
    return way_to_hear(request.param, connect_to, record)


class Forgetful(list[bytes]):
    """In place of a peer's `pongs`, where memory is looked at."""

    def append(self, item: bytes) -> None:
        pass


def sends(*parts: bytes) -> Callable[[Peer], None]:
    """A handler that sends, and then waits for the client's close frame."""

    def handler(peer: Peer) -> None:
        peer.pongs = Forgetful()
        for part in parts:
            peer.send_raw(part)
        while peer.recv() is not None:
            pass

    return handler


@pytest.mark.parametrize(
    ("opcode", "piece", "message"),
    [(BINARY, b"", b""), (TEXT, b"", ""), (BINARY, b"x", b"x" * MILLION), (TEXT, b"x", "x" * MILLION)],
)
@by_recv_alone
def test_a_message_of_a_million_fragments_comes_whole(hear: Hear, opcode: int, piece: bytes, message: Any) -> None:
    whole = frame(opcode, piece) + frame(CONT, piece) * (MILLION - 2) + frame(FIN | CONT, piece) + END
    heard = hear(sends(whole), timeout=3 * PATIENCE)  # one recv() for all of it, on a machine that may be busy
    assert heard.messages == [message]
    assert heard.code == 4000


@pytest.mark.parametrize(("opcode", "piece"), [(BINARY, b""), (TEXT, b""), (BINARY, b"x"), (TEXT, b"x")])
def test_a_message_of_very_many_fragments_costs_little_more_than_itself(
    hear: Hear, scheme: str, opcode: int, piece: bytes
) -> None:
    count = 20_000
    whole = frame(opcode, piece) + frame(CONT, piece) * (count - 2) + frame(FIN | CONT, piece) + END
    with bounded_memory(1_500_000):
        heard = hear(sends(whole), scheme)
        assert len(heard.messages[0]) == count * len(piece)
    assert len(heard.messages) == 1
    assert heard.code == 4000


def test_close_is_not_held_up_by_a_message_of_empty_fragments_that_never_ends(connect_to: Connect, scheme: str) -> None:
    """It never gets too big, and the server does not answer the close frame."""
    endless = Endless(frame(TEXT), frame(CONT) * 1000, deaf=True)
    with bounded_memory(3_000_000):
        connection = connect_to(endless, scheme, max_message_size=1)
        reader: Any = connection._connection._reader  # type: ignore[union-attr]
        wait_until(lambda: reader.received > 100_000, "fragments have come")
        connection.close(timeout=0.2)
        assert threads_of_package() == []
    assert connection.close_frame is None


def test_what_waits_in_the_kernel_is_not_read_after_the_connection_is_cut(connect_to: Connect, scheme: str) -> None:
    """A flood fills its buffers, and the end of the stream, which the cut makes, comes behind that."""
    flood = frame(TEXT) + frame(CONT) * 1_500_000
    begun = threading.Event()

    def send(peer: Peer) -> None:
        assert begun.wait(PATIENCE)
        with contextlib.suppress(OSError):  # the client does not take it all
            peer.send_raw(flood)
        peer._gone = True

    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)]
    connection = connect_to(send, scheme, max_message_size=1, sockopt=options)
    inner: Any = connection._connection
    with inner._reader.parsing:  # the reader is held with what it reads first
        begun.set()
        wait_until(lambda: arrived(inner.transport.sock) > 1_000_000, "much waits")
        aborting = background(connection.abort)
        wait_until(lambda: inner.end.cut_off, "it is cut")
    aborting()
    assert inner._reader.received <= 2 * LARGEST_READ
    assert threads_of_package() == []


def arrived(sock: socket.socket) -> int:
    """Bytes that the kernel holds and nobody has read (FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0])


def test_a_run_ends_while_a_message_of_empty_fragments_does_not(record: Record, scheme: str) -> None:
    endless = Endless(frame(TEXT), frame(CONT) * 1000, deaf=True)
    app = record(endless, scheme)
    with bounded_memory(3_000_000):
        running = background(lambda: app.run(max_message_size=1))
        app.wait_for("open")
        app.close(timeout=0.2)
        assert running() is False
    assert app.told[-1] == ("close", None, None)


def test_a_million_empty_messages_that_nobody_receives_stop_at_the_inbox_and_are_all_there(
    connect_to: Connect,
) -> None:
    sent = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send_raw(flood)
        sent.set()
        while peer.recv() is not None:
            pass

    flood = (frame(FIN | TEXT) + frame(FIN | BINARY)) * (MILLION // 2) + END
    with bounded_memory(10_000_000, left=10_000_000):
        connection = connect_to(handler)
        wait_until(lambda: connection._inbox.stalled, "the inbox is full")
        waiting = len(connection._inbox._messages)
        assert 65_536 <= waiting <= 65_536 + 256 * 1024 // 2, "one read of 256 KiB may pass the bound"
    for _ in range(MILLION // 2):
        assert connection.recv() == ""
        assert connection.recv() == b""
    assert connection.recv_data() == (ABNF.OPCODE_CLOSE, b"\x0f\xa0")
    assert sent.wait(PATIENCE)


def test_very_many_empty_messages_behind_a_callback_that_takes_long_stop_at_the_inbox(
    record: Record, scheme: str
) -> None:
    count = 150_000
    blocked = Blocked()
    app = record(sends(frame(FIN | TEXT, b"first"), frame(FIN | BINARY) * count, END), scheme, names=())
    seen: dict[Any, int] = {}

    def on_message(_: Any, message: Any) -> None:
        seen[message] = seen.get(message, 0) + 1
        if message == "first":
            blocked()

    app.on_message = on_message
    with bounded_memory(10_000_000, left=3_000_000):
        running = background(app.run)
        assert blocked.begun.wait(PATIENCE)
        run: Any = app._run
        wait_until(lambda: run.connection._callback_reader._paused, "the inbox is full")
        assert len(run.connection.inbox._messages) <= 65_536 + 256 * 1024 // 2
        blocked.release.set()
        assert running() is True
    assert seen == {"first": 1, b"": count}


def is_in_order(pongs: list[bytes]) -> bool:
    return all(one < other for one, other in itertools.pairwise(pongs))


def answers(collected: Collected) -> list[bytes]:
    return [item[1] for item in collected.frames if isinstance(item, tuple) and item[0] == ABNF.OPCODE_PONG]


def flood_of_pings(batches: int) -> list[bytes]:
    """A thousand numbered pings and a message in each batch."""
    return [
        b"".join(frame(PING, (batch * 1000 + number).to_bytes(4, "big")) for number in range(1000))
        + frame(FIN | TEXT, str(batch).encode())
        for batch in range(batches)
    ]


@pytest.mark.parametrize(
    ("hear", "scheme", "batches"),
    [("recv", "ws", 100), ("recv", "wss", 15), ("callbacks", "ws", 15), ("callbacks", "wss", 15)],
    indirect=["hear"],
)
def test_data_flows_between_pings_whose_answers_the_server_reads_later(hear: Hear, scheme: str, batches: int) -> None:
    """Nothing waits for it to read. Behind the flood it reads what has come: answers in order, the last one's among
    them (RFC 6455 5.5.3)."""
    flood = flood_of_pings(batches)
    last = (batches * 1000 - 1).to_bytes(4, "big")
    pongs: list[bytes] = []

    def handler(peer: Peer) -> None:
        for batch in flood:
            peer.send_raw(batch)
        while peer.pongs[-1:] != [last]:
            peer._receive()
        pongs.extend(peer.pongs)
        peer.close(4000)

    heard = hear(handler, scheme)
    assert heard.messages == [str(number) for number in range(batches)]
    assert heard.code == 4000
    assert is_in_order(pongs)


def test_pings_are_answered_in_order_where_the_server_reads_the_answers(hear: Hear, scheme: str) -> None:
    batches = 10
    flood = flood_of_pings(batches)
    pongs: list[bytes] = []

    def handler(peer: Peer) -> None:
        for batch in flood:
            peer.send_raw(batch)
            while peer.pongs[-1:] != [batch[5996:6000]]:  # the last one of the batch
                peer._receive()
        pongs.extend(peer.pongs)
        peer.close(4000)

    assert flood[0][5996:6000] == (999).to_bytes(4, "big")
    heard = hear(handler, scheme)
    assert heard.messages == [str(number) for number in range(batches)]
    assert is_in_order(pongs)


def test_a_ping_flood_is_kept_in_bounds_although_no_answer_is_ever_read(connect_to: Connect, scheme: str) -> None:
    batches = [frame(PING, b"x" * 125) * 1000 + frame(FIN | TEXT, str(number).encode()) for number in range(20)]

    def handler(peer: Peer) -> None:
        for batch in batches:
            peer.send_raw(batch)
        peer.stall()

    with bounded_memory(4_000_000):
        connection = connect_to(handler, scheme, sockopt=[SMALL_SEND_BUFFER])
        assert [connection.recv() for _ in range(20)] == [str(number) for number in range(20)]
        connection.close(timeout=0.1)
        assert threads_of_package() == []
    with pytest.raises(WebSocketConnectionClosedException):
        connection.recv()
    assert connection.unsent == []


def test_pings_that_are_answered_are_not_kept_by_an_idle_connection(connect_to: Connect, scheme: str) -> None:
    flood = frame(PING) * 40_000

    def handler(peer: Peer) -> None:
        peer.send_raw(flood)
        peer.stall()

    with bounded_memory(30_000_000, left=200_000):
        connection = connect_to(handler, scheme)
        reader: Any = connection._connection._reader  # type: ignore[union-attr]
        wait_until(lambda: reader.received == len(flood), "all has been read")
        wait_until(lambda: connection._inbox._controls.maxlen == len(connection._inbox._controls), "and delivered")
        connection.shutdown()


def test_a_ping_flood_does_not_hold_up_messages_out(connect_to: Connect, scheme: str) -> None:
    """What is sent meanwhile arrives between the answers, whole and in order."""
    collected = Collected()
    flood = [frame(PING, b"x" * 100) * 500 + frame(FIN | TEXT, str(number).encode()) for number in range(20)]

    def handler(peer: Peer) -> None:
        for batch in flood:
            peer.send_raw(batch)
        collected(peer)

    connection = connect_to(handler, scheme)
    messages = [f"{number}:" + "x" * 5000 for number in range(300)]
    sending = background(lambda: [connection.send(message) for message in messages])
    assert [connection.recv() for _ in range(20)] == [str(number) for number in range(20)]
    sending()
    connection.close(timeout=PATIENCE)
    assert collected.messages == messages
    assert set(answers(collected)) == {b"x" * 100}
    assert connection.unsent == []


@pytest.mark.parametrize("options", [{}, {"ping_interval": 0.02}], ids=["", "keepalive"])
def test_a_flood_of_pongs_that_answer_nothing_costs_little_and_data_still_flows(
    hear: Hear, scheme: str, options: dict[str, Any]
) -> None:
    """A pinger that waits for its own makes no difference."""
    flood = [frame(PONG, b"none of yours" * 9) * 1000 + frame(FIN | TEXT, str(number).encode()) for number in range(20)]

    with bounded_memory(3_000_000):
        heard = hear(sends(*flood, END), scheme, **options)
    assert heard.messages == [str(number) for number in range(20)]
    assert heard.code == 4000


def test_control_frames_that_come_while_a_callback_takes_long_are_kept_within_bounds(
    record: Record, scheme: str
) -> None:
    blocked = Blocked()
    pings = [frame(PING, b"x" * 125) * 1000] * 30
    app = record(
        sends(frame(FIN | TEXT, b"first"), *pings, frame(FIN | TEXT), END), scheme, names=("open", "message", "close")
    )
    app.then["message"] = lambda message: blocked() if message else None
    counted: list[int] = [0]

    def on_ping(_: Any, payload: Any) -> None:
        counted[0] += len(payload)

    app.on_ping = on_ping
    with bounded_memory(4_000_000):
        running = background(app.run)
        assert blocked.begun.wait(PATIENCE)
        run: Any = app._run
        wait_until(lambda: run.connection.end.ending, "all has been read")
        blocked.release.set()
        assert running() is True
    assert app.told == [("open",), ("message", "first"), ("message", ""), ("close", 4000, "")]
    assert 125 <= counted[0] <= 125 * 30_000
