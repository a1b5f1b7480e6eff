"""What makes the package fast, told by counts that are the same on every machine: calls on the socket and the threads
that make them, sleeps of threads, functions called, bytes allocated for large payloads. Never by time.

Where an order of events decides about a count, the test forces it.
"""

from __future__ import annotations

import logging
import math
import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

import pytest

import websocket._abnf
import websocket._shared_context
import websocket.threads.callback_reader
import websocket.threads.outbox
from websocket import WebSocket, WebSocketApp, create_connection
from websocket._allocator import expect_blocks
from websocket._frames import HAS_SPEEDUPS
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, Collected, background, run_all, wait_until
from .counting import (
    SMALLEST_READ,
    Calls,
    Counted,
    Counts,
    Feeder,
    counting_sockets,
    functions_called,
    many,
    memory_counted,
    reads,
)
from .test_lifecycle import is_asleep, run_python
from .test_receiving import frame
from .test_sending import of_thread

KIB = 1024

# What the package asks of the kernel at a time.
SEALED = 64 * KIB  # and what is little more than that
BATCH = 256 * KIB  # of small frames that wait
BURST_SENDS = 16  # that the sender writes itself, before it leaves them to the writer

# A client's kernel takes so much from a server before anybody reads, with this buffer.
ROOM = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 208 * KIB)]
WAITING = 112 * KIB
# And a server that reads nothing takes less than this from a client with that buffer.
FILLER = bytes(4 * KIB * KIB)
NO_ROOM = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)]

LARGE = 8 * KIB * KIB
# How many times a large message is in memory at most, of Python's own accord, and what little comes on top of it.
# Pieces of text are joined: both are there at the end. A binary payload is received into its place.
COPIES_OF_JOINED = 2
COPIES_OF_RECEIVED_IN_PLACE = 1
# The masked frame. Without the C part it is made in two steps, and of text in three.
COPIES_OF_SENT = 1
COPIES_WHILE_MASKING = {bytes: 1 if HAS_SPEEDUPS else 2, str: 1 if HAS_SPEEDUPS else 3}
A_LITTLE = 0.1 * LARGE


@pytest.fixture
def counted(connect_to: Callable[..., WebSocket]) -> Counted:
    """connect_to(), and what is counted of its connection."""

    def make(handler: Callable[[Peer], None], scheme: str = "ws", **options: Any) -> tuple[WebSocket, Counts]:
        with counting_sockets():
            connection = connect_to(handler, scheme, **options)
        return connection, Counts(connection)

    return make


@pytest.fixture
def feeder(serve: Callable[..., Server]) -> Iterator[Feeder]:
    feeder = Feeder()
    yield feeder
    feeder.end()  # before the server, which waits for its handler


@pytest.fixture
def endless_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, sends in a row are a burst."""
    monkeypatch.setattr(websocket.threads.outbox, "_BURST_GAP", 3600.0)


# ---- who reads and writes ----


@pytest.mark.usefixtures("always_borrowed")
def test_a_round_trip_is_one_call_each_way_and_wakes_no_thread(counted: Counted, scheme: str) -> None:
    connection, counts = counted(echo, scheme)

    def round_trips(count: int) -> None:
        for number in range(count):
            connection.send(str(number))
            assert connection.recv() == str(number)

    round_trips(5)  # the handshake's leftovers: TLS tickets
    wait_until(counts.at_rest, "reader and writer have settled")
    counts.reset()
    round_trips(100)
    assert [call.name for call in counts.calls] == ["send", "recv"] * 100
    assert counts.threads == {get_ident()}
    assert counts.wakes < 10


@pytest.mark.usefixtures("always_borrowed")
def test_a_round_trip_of_64_kib_is_few_calls_each_way(counted: Counted, feeder: Feeder, scheme: str) -> None:
    feeder.takes_one_before = True
    connection, counts = counted(feeder, scheme, sockopt=[*ROOM, (socket.SOL_SOCKET, socket.SO_SNDBUF, 208 * KIB)])
    message = "x" * (64 * KIB)
    count = 5

    def round_trips() -> None:
        for _ in range(count):
            connection.send(message)
            feeder.send(frame(message))  # has arrived: how the kernel cuts it is not our doing
            assert connection.recv() == message

    round_trips()  # the size of the reads follows the stream
    counts.reset()
    round_trips()
    assert len(counts.sends) <= count
    assert len(counts.receives) <= count
    assert counts.threads == {get_ident()}


@pytest.mark.usefixtures("always_borrowed")
def test_a_reader_that_meets_a_borrower_sleeps_on_when_that_gives_the_turn_back(
    counted: Counted, feeder: Feeder, scheme: str
) -> None:
    connection, counts = counted(feeder, scheme)
    turn = connection._inbox.turn
    rounds = 20
    woken = 0
    for number in range(rounds):
        receiving = background(connection.recv)
        wait_until(lambda: turn.holder not in (0, counts.reader), "recv() has borrowed the turn")
        with connection._inbox.lock:
            turn.wake_owner()
        wait_until(lambda: turn._changed._waiters and is_asleep(counts.actors), "the reader has met that")  # type: ignore[attr-defined]
        counts.reset()
        feeder.send(frame(str(number)))
        assert receiving() == str(number)
        woken += counts.wakes
    assert woken < rounds


# ---- many messages out ----


@pytest.mark.usefixtures("endless_burst")
def test_a_burst_is_left_to_the_writer(counted: Counted, scheme: str) -> None:
    collected = Collected()
    connection, counts = counted(collected, scheme)
    counts.reset()
    for number in range(2000):
        connection.send(str(number))
    assert Counter(call.thread for call in counts.sends)[get_ident()] == BURST_SENDS
    connection.close(timeout=PATIENCE)
    assert collected.messages == [str(number) for number in range(2000)]


@pytest.mark.parametrize("threads", [1, 8])
def test_what_waits_for_a_slow_peer_goes_out_in_batches(counted: Counted, scheme: str, threads: int) -> None:
    collected = Collected(gate=False)
    connection, counts = counted(collected, scheme, sockopt=NO_ROOM)
    connection.send_bytes(FILLER)
    wait_until(counts.writer_is_stuck, "the kernel takes nothing more")
    counts.reset()
    each = 20_000 // threads
    run_all(
        *(lambda thread=thread: [connection.send(f"{thread}:{n}") for n in range(each)] for thread in range(threads))
    )
    assert counts.threads <= {counts.writer}
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    waited = sum(6 + len(message) for message in collected.messages[1:])
    # The rest of what the writer is stuck in, all that waited, the close frame.
    batches = math.ceil(waited / BATCH)
    if scheme == "ws":
        assert len(counts.sends) <= 1 + batches + 1
    else:
        assert len(counts.sends) <= len(FILLER) / SEALED + 1 + waited / SEALED + batches + 2
    for thread in range(threads):
        assert of_thread(collected.messages[1:], thread) == [f"{thread}:{n}" for n in range(each)]


# ---- many messages in ----


def calls_to_read(size: int, scheme: str) -> int:
    """How many calls get so many bytes that have arrived; ciphertext is a little more."""
    return reads(size if scheme == "ws" else math.ceil(1.01 * size))


@pytest.mark.usefixtures("always_borrowed")
def test_who_wants_what_has_arrived_reads_it_in_few_calls(counted: Counted, feeder: Feeder, scheme: str) -> None:
    connection, counts = counted(feeder, scheme, sockopt=ROOM)
    data, messages = many(WAITING)
    feeder.send(frame("first"))
    assert connection.recv() == "first"
    counts.reset()
    feeder.send(data)
    assert [connection.recv() for _ in messages] == messages
    assert len(counts.receives) <= calls_to_read(len(data), scheme)
    assert counts.threads == {get_ident()}


def test_the_reader_delivers_what_has_arrived_in_few_batches(counted: Counted, feeder: Feeder, scheme: str) -> None:
    connection, counts = counted(feeder, scheme, sockopt=ROOM)
    connection.fileno()  # pins reading to the reader
    inbox = connection._inbox
    data, messages = many(WAITING)
    feeder.send(frame("first"))
    wait_until(lambda: inbox.fast and counts.reader_waits_in_recv(), "the reader has read that")
    with inbox.lock:  # it cannot deliver, and so does not read on
        counts.reset()
        feeder.send(frame("second"))
        wait_until(lambda: counts.receives, "the reader is stuck with that")
        feeder.send(data)
    wait_until(lambda: len(inbox.fast) == 2 + len(messages), "all is there to be taken")
    assert len(counts.receives) <= 1 + calls_to_read(len(data), scheme)
    # One for each batch. Over TLS the ciphertext is more than the plaintext that is asked for, so the rest comes apart.
    assert len(inbox._marks) <= 2 + reads(len(data)) * (1 if scheme == "ws" else 2)
    assert [connection.recv() for _ in range(2 + len(messages))][2:] == messages


def test_taking_what_is_here_takes_no_lock_and_little_else(counted: Counted, feeder: Feeder, scheme: str) -> None:
    connection, counts = counted(feeder, scheme)
    data, messages = many(WAITING)
    feeder.begin(data)
    wait_until(lambda: len(connection._inbox.fast) == len(messages), "all is there to be taken")
    received = [""] * len(messages)

    def receive() -> Calls:
        with functions_called() as calls:
            for index in range(len(received)):
                received[index] = connection.recv()
        return calls

    counts.reset()
    with connection._inbox.lock, connection._connection.outbox.lock, connection._lock:  # type: ignore[union-attr]
        calls = background(receive)()
    assert received == messages
    assert counts.calls == []
    assert calls.in_package() == ["_core.py"] * len(messages)  # recv() itself
    assert calls.builtins.count("deque.popleft") == len(messages)
    assert len(calls.builtins) < len(messages) + 5  # the others are this test's


def test_an_app_gets_what_has_arrived_from_the_reader_thread_at_one_go(
    serve: Callable[..., Server], feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket.threads.callback_reader, "_LOOK", 3600.0)  # else on_open might take too long here
    data, messages = many(SMALLEST_READ)
    opened, go_on, done = (threading.Event() for _ in range(3))
    calls: list[tuple[str, int, int]] = []  # (message, thread, how often the thread had gone to sleep)

    def on_open(_: WebSocketApp) -> None:
        opened.set()
        assert go_on.wait(PATIENCE)

    def on_message(_: WebSocketApp, message: str) -> None:
        calls.append((message, get_ident(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw))
        if len(calls) == len(messages):
            done.set()

    app = WebSocketApp(serve(feeder).url, on_open=on_open, on_message=on_message)
    with counting_sockets():
        running = background(app.run_forever)
        assert opened.wait(PATIENCE)
    assert app.sock is not None
    counts = Counts(app.sock)
    feeder.send(data)
    go_on.set()
    assert done.wait(PATIENCE)
    assert [message for message, _, _ in calls] == messages
    assert {thread for _, thread, _ in calls} == {counts.reader}
    assert sum(bool(call.moved) for call in counts.receives) == 1
    # It may be made to wait for the interpreter's lock now and then, but not for each message.
    assert calls[-1][2] - calls[0][2] < len(messages) / 10
    feeder.end()
    app.close()
    running()


# ---- large messages ----


@pytest.mark.parametrize("by_reader_thread", [False, True])
@pytest.mark.parametrize("kind", ["binary", "text"])
def test_a_large_message_is_received_without_needless_copies(
    counted: Counted, feeder: Feeder, scheme: str, kind: str, by_reader_thread: bool, request: pytest.FixtureRequest
) -> None:
    if not by_reader_thread:
        request.getfixturevalue("always_borrowed")
    connection, _ = counted(feeder, scheme)
    if by_reader_thread:
        connection.fileno()
    data = frame(bytes(LARGE) if kind == "binary" else "x" * LARGE)
    expect_blocks(LARGE)  # which takes address space, once

    def copies() -> float:
        with memory_counted() as memory:
            feeder.begin(data)
            assert len(connection.recv()) == LARGE
            return (memory.peak - A_LITTLE) / LARGE

    for _ in range(2):
        assert copies() <= (COPIES_OF_RECEIVED_IN_PLACE if kind == "binary" else COPIES_OF_JOINED)


def test_the_reader_receives_the_rest_of_a_large_message_in_one_call(counted: Counted, feeder: Feeder) -> None:
    connection, counts = counted(feeder)
    connection.fileno()
    feeder.send(frame("first"))
    assert connection.recv() == "first"
    for _ in range(3):
        counts.reset()
        feeder.begin(frame(bytes(LARGE)))
        assert connection.recv() == bytes(LARGE)
        assert len(counts.receives) <= 2  # its header, alone or with what came at once; and the rest


@pytest.mark.parametrize("payload", [bytes(LARGE), "x" * LARGE], ids=["binary", "text"])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_large_message_waits_masked_and_is_not_joined(
    counted: Counted, scheme: str, is_begun: bool, payload: str | bytes
) -> None:
    collected = Collected(gate=False)
    connection, counts = counted(collected, scheme, sockopt=NO_ROOM)
    if not is_begun:
        connection.send_bytes(FILLER)
        wait_until(counts.writer_is_stuck, "the kernel takes nothing more")
    send: Callable[..., int] = connection.send if isinstance(payload, str) else connection.send_bytes
    counts.reset()
    with memory_counted() as memory:
        send(payload)
        wait_until(counts.writer_is_stuck, "the kernel takes nothing more")
        held, peak = ((size - A_LITTLE) / LARGE for size in (memory.held, memory.peak))
    assert held <= COPIES_OF_SENT
    assert peak <= COPIES_WHILE_MASKING[type(payload)]
    connection.send("behind it")
    outlet = connection._connection.outlet  # type: ignore[union-attr]
    waiting = [*outlet.lanes.data, *outlet.intake._frames]
    assert len(waiting) == (1 if is_begun else 2)
    collected.gate.set()
    wait_until(lambda: collected.messages[-2:] == [payload, "behind it"], "all has arrived")
    connection.close(timeout=PATIENCE)
    if scheme == "ws":
        # What the kernel takes at once or had before; the rest; what is behind; the close.
        assert len(counts.sends) <= 4
        assert {id(frame) for frame in waiting} <= {call.what for call in counts.sends}  # not joined


# ---- what is not done ----


class Silent(str):
    """A message that nobody may make a text of."""

    def __repr__(self) -> str:
        raise AssertionError("somebody has asked for repr() of a message")

    __str__ = __repr__
    __format__ = __repr__  # type: ignore[assignment]


@pytest.mark.usefixtures("always_borrowed")
def test_without_tracing_and_compression_no_function_of_logging_or_zlib_is_called(
    counted: Counted, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection, _ = counted(echo, scheme)
    payload = Silent("x" * 300)
    with caplog.at_level(logging.DEBUG), functions_called() as calls:
        for _ in range(50):
            connection.send(payload)
            connection.recv()
            connection.send_bytes(b"x" * 300)
            connection.recv()
    assert caplog.records == []
    assert len(calls.in_package()) >= 200
    assert [name for name in calls.files if "logging" in name] == []
    assert [name for name in calls.builtins if "ompress" in name or "crc32" in name or "adler32" in name] == []


def test_masking_keys_are_drawn_a_thousand_at_a_time(counted: Counted) -> None:
    connection, _ = counted(Collected())
    websocket._abnf._masking_keys.clear()  # what is left of earlier ones
    with functions_called() as calls:
        for _ in range(3000):
            connection.send("x")
    assert calls.builtins.count("urandom") == math.ceil(3000 / 1024)


# The package's functions that connecting and closing call in the program's thread: 202, and over TLS 256 where the
# handshake comes in as few pieces as it may.
MOST_FUNCTIONS = {"ws": 225, "wss": 320}


def test_connecting_and_closing_does_nothing_twice_that_once_is_enough_for(
    serve: Callable[..., Server], authority: Authority, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket._shared_context, "_SETTLED", 0.0)  # the authority's file is new
    server = serve(echo, ssl_context=authority.server_context() if scheme == "wss" else None)

    def connect_and_close() -> None:
        options = {"sslopt": {"ca_certs": authority.ca_file}}
        create_connection(server.url, timeout=PATIENCE, **options).close(timeout=PATIENCE)

    connect_and_close()
    with functions_called() as calls:
        connect_and_close()
    assert len(calls.in_package()) <= MOST_FUNCTIONS[scheme], Counter(calls.in_package())
    done = Counter(calls.builtins)
    assert done["getaddrinfo"] == 0, "an address was asked for by its name"
    assert not any(name.endswith("load_verify_locations") for name in done), "the authorities were read again"
    assert done["urandom"] <= 2  # for the key, and for a thousand masking keys
    assert done["openssl_sha1"] == 1
    assert [name for name in calls.files if "logging" in name] == []


IMPORTED = "import sys; before = set(sys.modules); import websocket; print(*(set(sys.modules) - before))"


def test_importing_it_brings_nothing_that_a_client_has_no_use_for() -> None:
    modules = run_python(IMPORTED).split()
    packages = {name.partition(".")[0] for name in modules}
    needless = "argparse asyncio concurrent ctypes decimal json multiprocessing pdb pydoc sqlite3 subprocess"
    assert packages & set(f"{needless} tkinter unittest uuid xml xmlrpc zipfile".split()) == set()
    ours = {name.rpartition(".")[2] for name in modules if name.startswith("websocket.")}
    assert "_core" in ours
    assert ours & {"_wsdump", "_dump", "_terminal", "_display", "_outgoing", "testing"} == set()
