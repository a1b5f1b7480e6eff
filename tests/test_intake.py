"""Frames that come into the outbox without its lock, while the writer is awake: none is lost, twice, or misplaced."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException, WebSocketTimeoutException

from .conftest import PATIENCE, Collected, background, run_all, wait_until
from .test_fast_paths import endless_burst
from .test_interruptions import Interrupted, interrupt, on_signal, signal_in
from .test_lifecycle import leave_something_to_the_writer
from .test_writer_start import LARGE, SMALL, Connect, Held, outlet_of

__all__ = ["endless_burst", "on_signal"]  # fixtures

CLOSE = (ABNF.OPCODE_CLOSE, b"\x03\xe8")


def is_open(connection: WebSocket) -> bool:
    return bool(outlet_of(connection).intake._gate.room)


@pytest.fixture
def stuck(connect_to: Connect, scheme: str) -> tuple[WebSocket, Collected]:
    """A connection whose writer has begun to write and cannot go on, until the server reads."""
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL)
    connection.send(LARGE)
    wait_until(lambda: is_open(connection), "the writer is at work")
    return connection, collected


def opened(connection: WebSocket, collected: Collected) -> list[Any]:
    """Let the server read, close, and return what came, LARGE by its length."""
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert collected.done.wait(PATIENCE)
    assert collected.after_close == b""
    return [len(frame) if frame == LARGE else frame for frame in collected.frames]


class Late(deque[bytes]):
    """Frames in an intake, where something happens just before or just after the next one is put there."""

    def __init__(self, connection: WebSocket, happens: Callable[[], Any], *, before: bool) -> None:
        intake = outlet_of(connection).intake
        super().__init__(intake._frames)
        self._happens: Callable[[], Any] | None = happens
        self._before = before
        intake._frames = self

    def copy(self) -> deque[bytes]:
        return deque(self)

    def append(self, frame: bytes) -> None:
        happens, self._happens = self._happens, None
        if happens is not None and self._before:
            happens()
        super().append(frame)
        if happens is not None and not self._before:
            happens()


def test_a_send_takes_no_lock_while_the_writer_is_awake(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    with outlet_of(connection).lock, connection._lock:
        background(lambda: [connection.send(str(number)) for number in range(100)])()
    assert opened(connection, collected) == [len(LARGE), *map(str, range(100)), CLOSE]


def test_what_is_too_large_for_the_intake_keeps_its_place_between_others(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    messages = ["x" * size for size in (1, 20_000, 2, 16_384, 16_000, 16_376, 3)]
    for message in messages:
        connection.send(message)
        connection.ping(str(len(message)))
    frames = opened(connection, collected)
    assert [frame for frame in frames if isinstance(frame, str)] == messages
    pings = [frame[1] for frame in frames if isinstance(frame, tuple) and frame[0] == ABNF.OPCODE_PING]
    assert pings == [str(len(message)).encode() for message in messages]


def test_the_bound_in_messages_holds(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL, max_outbox_messages=10, timeout=0.05)
    connection.send(LARGE)
    wait_until(lambda: is_open(connection), "the writer is at work")
    accepted = 1
    with pytest.raises(WebSocketTimeoutException, match="10 messages"):
        while True:
            connection.send(str(accepted))
            accepted += 1
    assert accepted == 10
    assert opened(connection, collected) == [len(LARGE), *map(str, range(1, 10)), CLOSE]


def test_the_bound_in_bytes_holds(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL, max_outbox_bytes=1_000_000, timeout=0.05)
    connection.send(LARGE)
    wait_until(lambda: is_open(connection), "the writer is at work")
    message = "y" * 994  # and 8 of its header
    accepted = 0
    with pytest.raises(WebSocketTimeoutException):
        while True:
            connection.send(message)
            accepted += 1
    assert accepted == (1_000_000 - len(LARGE) - 14) // (len(message) + 8)
    assert opened(connection, collected) == [len(LARGE), *[message] * accepted, CLOSE]


def test_a_small_message_stands_behind_a_large_one_that_waits_for_room(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL, max_outbox_bytes=2_000_000)
    connection.send(LARGE)
    wait_until(lambda: is_open(connection), "the writer is at work")
    larger = "y" * 1_900_000
    sending = []
    outlet = outlet_of(connection)
    for message in (larger, "small"):
        sending.append(background(lambda message=message: connection.send(message)))
        wait_until(lambda: len(outlet.waiting.line) == len(sending), "it waits behind those before it")
        with outlet.lock:
            outlet.empty_intake()  # as the writer does before each batch
            assert not is_open(connection)
    collected.gate.set()
    for result in sending:
        result()
    assert opened(connection, collected) == [len(LARGE), larger, "small", CLOSE]


@pytest.mark.usefixtures("endless_burst")
def test_who_wakes_the_writer_opens_the_intake(connect_to: Connect, scheme: str) -> None:
    """For the others, who need not wait until the writer runs."""
    collected = Collected()
    connection = connect_to(collected, scheme)
    leave_something_to_the_writer(connection)
    outlet = outlet_of(connection)
    wait_until(lambda: outlet.has_writer and not outlet._writer_attends, "the writer rests")
    with outlet.lock:  # so that it cannot look
        while not outlet._writer_attends:
            connection.send("in a burst")
        assert is_open(connection)
    assert set(opened(connection, collected)[:-1]) == {"in a burst"}


def test_before_there_is_a_writer_the_intake_is_closed(connect_to: Connect, scheme: str) -> None:
    """Nobody would look there, where none can be started because the process is ending."""
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL)
    held = Held(outlet_of(connection), "admit_writer")
    for message in (LARGE, "second", "third"):
        connection.send(message)
        assert not is_open(connection)
    held.go.set()
    assert opened(connection, collected) == [len(LARGE), "second", "third", CLOSE]


# ---- something comes between the look and the check ----


def send_late(connection: WebSocket, is_refused: bool) -> None:
    sending = background(lambda: connection.send("late"))
    if is_refused:
        with pytest.raises(WebSocketConnectionClosedException):
            sending()
    else:
        sending()


@pytest.mark.parametrize("before", [True, False])
def test_a_close_just_then(stuck: tuple[WebSocket, Collected], before: bool) -> None:
    connection, collected = stuck
    connection.send("first")
    inner: Any = connection._connection
    Late(connection, background_of(lambda: inner.begin_close(b"\x88\x82\0\0\0\0\x03\xe8")), before=before)
    send_late(connection, is_refused=before)
    frames = opened(connection, collected)
    assert frames == [len(LARGE), *(["first"] if before else ["first", "late"]), CLOSE]
    assert list(connection.unsent) == []


def background_of(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, done by another thread, and waited for."""
    return lambda: background(work)()


@pytest.mark.parametrize("before", [True, False])
def test_an_abort_just_then(stuck: tuple[WebSocket, Collected], before: bool) -> None:
    connection, collected = stuck
    connection.send("first")
    Late(connection, background_of(connection.abort), before=before)
    send_late(connection, is_refused=before)
    assert list(connection.unsent) == [LARGE, *(["first"] if before else ["first", "late"])]
    collected.gate.set()


@pytest.mark.parametrize("before", [True, False])
def test_a_fragmented_message_of_another_thread_just_then(stuck: tuple[WebSocket, Collected], before: bool) -> None:
    connection, collected = stuck
    begun, go_on = threading.Event(), threading.Event()

    def send_fragments() -> None:
        connection.send_frame(ABNF.create_frame("a", ABNF.OPCODE_TEXT, 0))
        begun.set()
        assert go_on.wait(PATIENCE)
        connection.send_frame(ABNF.create_frame("b", ABNF.OPCODE_CONT, 1))

    fragments: list[Callable[[], Any]] = []

    def begin() -> None:
        fragments.append(background(send_fragments))
        assert begun.wait(PATIENCE)

    Late(connection, begin, before=before)
    sending = background(lambda: connection.send("late"))
    if before:
        wait_until(lambda: len(outlet_of(connection).waiting.line) == 1, "it waits for the end of the other message")
    else:
        sending()
    go_on.set()
    fragments[0]()
    sending()
    assert opened(connection, collected) == [len(LARGE), *(["ab", "late"] if before else ["late", "ab"]), CLOSE]


@pytest.mark.parametrize("before", [True, False])
def test_the_writer_comes_to_rest_just_then(stuck: tuple[WebSocket, Collected], before: bool) -> None:
    connection, collected = stuck
    outlet = outlet_of(connection)

    def rest() -> None:
        collected.gate.set()
        wait_until(lambda: not outlet._writer_attends, "the writer has written all and rests")

    Late(connection, rest, before=before)
    connection.send("late")
    wait_until(lambda: collected.messages[1:] == ["late"], "it is written, though nobody sends after it")
    assert opened(connection, collected) == [len(LARGE), "late", CLOSE]


def test_a_full_intake_is_emptied_by_who_comes_next(connect_to: Connect, scheme: str) -> None:
    """It knows the number of frames, and bounds their bytes by the largest that it takes."""
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, sockopt=SMALL, max_outbox_bytes=2_000_000)
    connection.send(LARGE)
    wait_until(lambda: is_open(connection), "the writer is at work")
    count = 10 * outlet_of(connection).intake._gate.room
    for number in range(count):
        connection.send(str(number))
    assert is_open(connection)
    assert opened(connection, collected) == [len(LARGE), *map(str, range(count)), CLOSE]


# ---- signal handlers ----


@pytest.mark.parametrize("before", [True, False])
def test_an_exception_of_a_handler_just_then_takes_the_message_back(
    stuck: tuple[WebSocket, Collected], before: bool
) -> None:
    connection, collected = stuck
    connection.send("first")
    Late(connection, interrupt, before=before)
    with pytest.raises(Interrupted):
        connection.send("interrupted")
    connection.send("last")
    assert opened(connection, collected) == [len(LARGE), "first", "last", CLOSE]


def test_what_comes_in_because_of_a_handler_goes_out_before_the_first_fragment(
    stuck: tuple[WebSocket, Collected], on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    """It has interrupted the thread that has just closed the intake for its fragmented message, and opens it again."""
    connection, collected = stuck

    def handler() -> None:
        connection.send("of the handler")
        assert is_open(connection)

    on_signal(handler)
    signal_in(outlet_of(connection), "close_intake", before=False)
    queue = outlet_of(connection).lanes.append

    def append(*arguments: Any) -> None:
        if arguments[2] and is_open(connection):  # the first fragment
            background(lambda: connection.send("of another"))()
        queue(*arguments)

    outlet_of(connection).lanes.append = append
    connection.send_frame(ABNF.create_frame("a", ABNF.OPCODE_TEXT, 0))
    connection.send_frame(ABNF.create_frame("b", ABNF.OPCODE_CONT, 0))
    connection.send_frame(ABNF.create_frame("c", ABNF.OPCODE_CONT, 1))
    assert opened(connection, collected) == [len(LARGE), "of the handler", "of another", "abc", CLOSE]


def test_what_comes_in_because_of_a_handler_is_unsent_before_the_first_fragment(
    stuck: tuple[WebSocket, Collected], on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    connection, collected = stuck
    on_signal(lambda: connection.send("of the handler"))
    signal_in(outlet_of(connection), "close_intake", before=False)
    queue = outlet_of(connection).lanes.append

    def append(*arguments: Any) -> None:
        if arguments[2] and is_open(connection):
            background(lambda: connection.send("of another"))()
        queue(*arguments)

    outlet_of(connection).lanes.append = append
    connection.send_frame(ABNF.create_frame("a", ABNF.OPCODE_TEXT, 0))
    connection.abort()
    collected.gate.set()
    large, handlers, others, fragment = connection.unsent
    assert (large, handlers, others) == (LARGE, "of the handler", "of another")
    assert isinstance(fragment, ABNF)


# ---- all at once ----


def pieces(thread: int, number: int, choose: random.Random) -> list[str]:
    """A message as it is to be sent: often small and whole, sometimes large or in fragments."""
    head = f"{thread}:{number}:"
    kind = choose.random()
    if kind < 0.9:
        return [head]
    if kind < 0.95:
        return [head + "x" * choose.choice([16_000, 16_400, 70_000])]
    return [head, "y" * choose.choice([1, 20_000]), "z"]


@pytest.mark.usefixtures("switch_interval")
@pytest.mark.parametrize("most", [20, 65_536])
def test_what_was_accepted_before_a_close_arrives_once_in_each_threads_order(
    connect_to: Connect, scheme: str, most: int
) -> None:
    threads, messages = 8, 1500
    collected = Collected()
    connection = connect_to(collected, scheme, max_outbox_messages=most, timeout=PATIENCE)
    inner: Any = connection._connection
    accepted: list[list[str]] = [[] for _ in range(threads)]
    close_after = random.Random(most).randrange(messages // 3, messages // 2)

    def send(thread: int) -> None:
        choose = random.Random(thread)
        for number in range(messages):
            chunks = pieces(thread, number, choose)
            try:
                if len(chunks) == 1:
                    connection.send(chunks[0])
                else:
                    for index, chunk in enumerate(chunks):
                        opcode = ABNF.OPCODE_CONT if index else ABNF.OPCODE_TEXT
                        connection.send_frame(ABNF.create_frame(chunk, opcode, int(index == len(chunks) - 1)))
                accepted[thread].append("".join(chunks))
                if number % 50 == 0:
                    connection.ping(str(number))
            except WebSocketConnectionClosedException:
                break
            if thread == 0 and number == close_after:
                inner.begin_close(b"\x88\x82\0\0\0\0\x03\xe8")

    run_all(*(lambda thread=thread: send(thread) for thread in range(threads)))
    connection.close(timeout=PATIENCE)
    assert collected.done.wait(PATIENCE)
    assert collected.frames[-1] == CLOSE
    assert collected.after_close == b""
    for thread in range(threads):
        arrived = [message for message in collected.messages if message.startswith(f"{thread}:")]
        assert arrived == accepted[thread]
