"""Signal handlers that send, or raise, in the middle of a send: what they leave is not torn, lost, or twice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, PerMessageDeflate, WebSocket, WebSocketConnectionClosedException, WebSocketProtocolException
from websocket.testing import Peer, echo
from websocket.threads.turn import RETIRED

from .conftest import PATIENCE, Collected, Interrupter, background, is_sending, wait_until
from .test_intake import CLOSE, Late, is_open, opened, stuck
from .test_interruptions import Interrupted, interrupt, on_signal, signal_in
from .test_lifecycle import leave_something_to_the_writer
from .test_writer_start import LARGE, SMALL, Connect, outlet_of

__all__ = ["on_signal", "stuck"]  # fixtures

OnSignal = Callable[[Callable[[], Any]], None]

SENDS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "message": (lambda connection: connection.send("own"), "own"),
    "ping": (lambda connection: connection.ping("own"), (ABNF.OPCODE_PING, b"own")),
    "answer": (lambda connection: connection._connection.outbox.answer(b"\x8a\x80\0\0\0\0"), (ABNF.OPCODE_PONG, b"")),
    "close": (lambda connection: connection.send_close(), None),
}


@pytest.mark.parametrize("kind", SENDS)
@pytest.mark.parametrize(
    ("part", "method", "before"),
    [("outlet", "may_write_now", True), ("outlet", "may_write_now", False), ("turn", "take", True)],
)
def test_what_a_handler_sends_just_before_a_lent_write_is_not_torn(
    connect_to: Connect, on_signal: OnSignal, scheme: str, kind: str, part: str, method: str, before: bool
) -> None:
    """The kernel takes its message in part; the interrupted send has looked already, and found nothing before it."""
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL)
    send, frame = SENDS[kind]
    sent: list[str] = []

    def handler() -> None:
        for message in (LARGE, "behind it"):
            try:
                connection.send(message)
            except WebSocketConnectionClosedException:  # the close frame was first
                return
            sent.append(message)

    on_signal(handler)
    outlet = outlet_of(connection)
    signal_in(outlet if part == "outlet" else outlet.turn, method, before=before)
    send(connection)
    if kind != "close":
        connection.send_close()
    collected.gate.set()
    assert collected.done.wait(PATIENCE)
    connection.close(timeout=PATIENCE)
    assert collected.after_close == b""
    assert [item for item in collected.messages if item != frame] == sent
    assert collected.frames.count(frame) == (frame is not None)
    assert collected.frames[-1] == CLOSE


def resetting(connect_to: Connect) -> tuple[WebSocket, Callable[[], None]]:
    """A connection, and what lets the server reset it and a send fail of that."""
    go = threading.Event()

    def reset(peer: Peer) -> None:
        assert go.wait(PATIENCE)
        peer.reset()

    connection = connect_to(reset)
    inner: Any = connection._connection

    def fail() -> None:
        go.set()
        wait_until(lambda: inner.end.ending is not None, "the reset has come")
        with pytest.raises(WebSocketConnectionClosedException):
            connection.send("of the handler")

    return connection, fail


@pytest.mark.parametrize(("part", "method", "before"), [("outlet", "may_write_now", False), ("turn", "take", True)])
def test_a_connection_that_fails_in_a_handler_just_before_a_lent_write_is_not_written_to(
    connect_to: Connect, on_signal: OnSignal, part: str, method: str, before: bool
) -> None:
    connection, fail = resetting(connect_to)
    on_signal(fail)
    outlet = outlet_of(connection)
    signal_in(outlet if part == "outlet" else outlet.turn, method, before=before)
    with outlet.lock, pytest.raises(WebSocketConnectionClosedException):  # the reader, which saw it, does not tell yet
        connection.send("interrupted")
    with pytest.raises(WebSocketConnectionClosedException):
        connection.send("behind it")
    assert list(connection.unsent) == []
    assert outlet.turn.holder == RETIRED


@pytest.mark.parametrize(("part", "method", "before"), [("lanes", "rest", False), ("turn", "take", True)])
def test_what_a_handler_writes_at_the_end_of_the_process_is_not_written_again(
    connect_to: Connect, on_signal: OnSignal, part: str, method: str, before: bool
) -> None:
    """It sends in the middle of a send that was about to write the same, as no writer can be started any more."""
    collected = Collected()
    connection = connect_to(collected, sockopt=SMALL)
    outlet = outlet_of(connection)
    outlet._must_write_here = True
    left = [lambda: signal_in(outlet.lanes if part == "lanes" else outlet.turn, method, before=before)]
    go_on = outlet.go_on

    def first_go_on(timeout: float | None) -> None:
        if left:
            left.pop()()  # the lent write is over, which has left the rest
        go_on(timeout)

    outlet.go_on = first_go_on
    on_signal(lambda: connection.send("of the handler"))
    connection.send(LARGE)
    connection.close(timeout=PATIENCE)
    assert collected.done.wait(PATIENCE)
    assert collected.after_close == b""
    assert [len(frame) if frame == LARGE else frame for frame in collected.frames] == [
        len(LARGE),
        "of the handler",
        CLOSE,
    ]


def test_a_connection_that_fails_in_a_handler_accepts_nothing_more(connect_to: Connect, on_signal: OnSignal) -> None:
    """The interrupted send was about to open the intake."""
    connection, fail = resetting(connect_to)
    leave_something_to_the_writer(connection)
    on_signal(fail)
    outlet = outlet_of(connection)
    signal_in(outlet.lanes, "room_for", before=False)
    with outlet.lock:  # the writer, which was woken, cannot look yet
        outlet.wake_writer()
        with pytest.raises(WebSocketConnectionClosedException):
            connection.send("interrupted")
    with pytest.raises(WebSocketConnectionClosedException):
        connection.send("nobody writes it")
    assert list(connection.unsent) == []


# ---- frames that are equal ----


def test_an_exception_of_a_handler_takes_no_equal_message_back(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    connection.set_mask_key(lambda count: b"\0\0\0\0")
    connection.send("tick")
    Late(connection, interrupt, before=True)
    with pytest.raises(Interrupted):
        connection.send("tick")
    assert opened(connection, collected) == [len(LARGE), "tick", CLOSE]


# ---- what is unsent ----


class Interrupting(deque[bytes]):
    """A lane in which an exception of a handler comes just before it is emptied, once."""

    def __init__(self, frames: deque[bytes]) -> None:
        super().__init__(frames)
        self.left = [True]

    def clear(self) -> None:
        if self.left and threading.current_thread() is threading.main_thread():
            self.left.clear()
            raise Interrupted
        super().clear()


@pytest.mark.usefixtures("always_borrowed")
def test_an_exception_of_a_handler_while_the_peers_close_is_answered_makes_nothing_unsent_twice(
    connect_to: Connect,
) -> None:
    leave, gone = threading.Event(), threading.Event()

    def close_and_stall(peer: Peer) -> None:
        assert leave.wait(PATIENCE)
        peer.close(3000)
        assert gone.wait(PATIENCE)

    connection = connect_to(close_and_stall, sockopt=SMALL)
    connection.send(LARGE * 10)
    wait_until(lambda: is_open(connection), "the writer is at work")
    connection.send("second")
    connection.send("third")
    outlet = outlet_of(connection)
    with outlet.lock:
        outlet.empty_intake()
        outlet.lanes.data = Interrupting(outlet.lanes.data)
    leave.set()
    try:
        connection.recv()
    except Interrupted:
        pass  # where this thread has read the close; else the reader thread repeats it
    connection.abort()
    assert [len(message) for message in connection.unsent] == [10 * len(LARGE), len("second"), len("third")]
    gone.set()


# ---- waiting ----


def test_a_handler_does_not_wait_for_the_end_of_the_message_that_it_interrupts(
    connect_to: Connect, interrupting: Callable[[Callable[[], Any]], Interrupter]
) -> None:
    """Its first fragment waits for room in front of the handler's message, and is let in meanwhile."""
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL, max_outbox_messages=1, timeout=PATIENCE)
    connection.send(LARGE)
    refused: list[Exception] = []

    def handler() -> None:
        with pytest.raises(WebSocketProtocolException, match="this thread's fragmented") as caught:
            connection.send("of the handler")
        refused.append(caught.value)

    interrupter = interrupting(handler)

    def interrupt_it() -> None:
        wait_until(lambda: is_sending(connection), "the first fragment waits")
        interrupter.deliver()
        wait_until(lambda: is_sending(connection, 2), "the handler waits, too")
        collected.gate.set()

    interrupted = background(interrupt_it)
    connection.send(iter(["a", "b", "c"]))
    interrupted()
    assert refused
    assert opened(connection, collected) == [len(LARGE), "abc", CLOSE]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", ["messages", "chunks", "pings"])
def test_a_handler_needs_no_room_in_the_middle_of_a_lent_write(
    connect_to: Connect, on_signal: OnSignal, kind: str, before: bool
) -> None:
    """Nobody makes any before that is over."""
    collected = Collected()
    connection = connect_to(collected, max_outbox_messages=1, timeout=PATIENCE)
    numbers = [str(number) for number in range(200)]

    def handler() -> None:
        for number in numbers:
            if kind == "pings":
                connection.ping(number)
            else:
                connection.send(number if kind == "messages" else iter(number))

    on_signal(handler)
    signal_in(connection._connection.transport, "send_now", before=before)  # type: ignore[union-attr]
    connection.send("interrupted")
    frames = [(ABNF.OPCODE_PING, number.encode()) for number in numbers] if kind == "pings" else numbers
    connection.send_close()
    assert collected.done.wait(PATIENCE)
    assert collected.frames == ["interrupted", *frames, CLOSE]


def test_a_handler_needs_no_turn_to_compress_in_the_middle_of_a_lent_write(
    compressing: Connect, on_signal: OnSignal
) -> None:
    """Another thread has it, and waits for room."""
    connection = compressing(echo, PerMessageDeflate(), max_outbox_messages=1, timeout=PATIENCE)
    messages = [character * 1000 for character in "abc"]
    others: list[Callable[[], Any]] = []

    def handler() -> None:
        for message in messages[:2]:
            others.append(background(lambda message=message: connection.send(message)))
            wait_until(lambda: others and (is_sending(connection) or len(others) < 2), "the second waits for room")
            wait_until(lambda: outlet_of(connection).lanes.messages == 1, "the first is in the outbox")
        connection.send(messages[2])

    on_signal(handler)
    signal_in(connection._connection.transport, "send_now", before=False)  # type: ignore[union-attr]
    connection.send("x" * 1000)
    for other in others:
        other()
    assert sorted(str(connection.recv()) for _ in range(4)) == [*messages, "x" * 1000]
