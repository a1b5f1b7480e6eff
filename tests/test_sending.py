"""What send() promises: whole frames, each thread's order, nothing lost silently, nothing unbounded."""

from __future__ import annotations

import json
import random
import resource
import socket
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket.testing import Peer, echo

from .conftest import PATIENCE, Collected, background, is_sending, run_all, wait_until

Connect = Callable[..., WebSocket]


SIZES = [0, 1, 64, 125, 126, 1000, 65_535, 65_536, 200_000]


def numbered(thread: int, count: int) -> list[str | bytes]:
    """Messages of mixed sizes and kinds that tell their thread, their number and whether they are whole."""
    choose = random.Random(thread)
    messages: list[str | bytes] = []
    for number in range(count):
        head = f"{thread}:{number}:"
        text = head + chr(0x61 + thread) * choose.choice(SIZES)
        messages.append(text if choose.random() < 0.5 else text.encode())
    return messages


def of_thread(messages: list[str | bytes], thread: int) -> list[str | bytes]:
    head = f"{thread}:"
    return [
        message
        for message in messages
        if (message if isinstance(message, str) else message[:8].decode()).startswith(head)
    ]


@pytest.mark.usefixtures("switch_interval")
def test_messages_of_sixteen_threads_arrive_whole_and_in_each_threads_order(connect_to: Connect, scheme: str) -> None:
    collected = Collected()
    connection = connect_to(collected, scheme)
    batches = [numbered(thread, 60) for thread in range(16)]

    def send_all(batch: list[str | bytes]) -> None:
        for message in batch:
            if isinstance(message, str):
                connection.send(message)
            else:
                connection.send_bytes(message)

    run_all(*(lambda batch=batch: send_all(batch) for batch in batches))
    connection.close(timeout=PATIENCE)
    assert len(collected.messages) == 16 * 60
    for thread, batch in enumerate(batches):
        assert of_thread(collected.messages, thread) == batch


@pytest.mark.usefixtures("switch_interval")
def test_small_messages_of_many_threads_keep_their_order(connect_to: Connect, scheme: str) -> None:
    collected = Collected()
    connection = connect_to(collected, scheme)
    run_all(*(lambda thread=thread: [connection.send(f"{thread}:{n}") for n in range(2000)] for thread in range(8)))
    connection.close(timeout=PATIENCE)
    for thread in range(8):
        assert of_thread(collected.messages, thread) == [f"{thread}:{n}" for n in range(2000)]


def test_a_full_outbox_times_out_and_the_message_was_not_accepted(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, max_outbox_bytes=1_000_000)
    connection.settimeout(0.1)
    accepted = []
    with pytest.raises(WebSocketTimeoutException, match="not accepted"):
        for number in range(1000):
            message = f"{number}:" + "x" * 100_000
            connection.send(message)
            accepted.append(message)
    assert accepted
    collected.gate.set()
    connection.settimeout(PATIENCE)
    connection.send("after")
    connection.close(timeout=PATIENCE)
    assert collected.messages == [*accepted, "after"]


def test_a_server_that_does_not_read_costs_no_more_memory_than_the_outbox_may_have(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall, max_outbox_bytes=2_000_000, timeout=0.1)
    tracemalloc.start()
    try:
        with pytest.raises(WebSocketTimeoutException):
            for _ in range(10_000):
                connection.send_bytes(bytes(50_000))
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()


def test_the_outbox_is_bounded_in_messages_too(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall, max_outbox_messages=10, timeout=0.1)
    with pytest.raises(WebSocketTimeoutException, match="10 messages"):
        for _ in range(1000):
            connection.send_bytes(bytes(1_000_000))


def test_a_message_larger_than_the_outbox_is_let_in_alone(connect_to: Connect) -> None:
    connection = connect_to(echo, max_outbox_bytes=1000)
    connection.send("x" * 100_000)
    assert connection.recv() == "x" * 100_000


def test_a_large_message_is_not_passed_for_ever_by_small_ones(connect_to: Connect) -> None:
    """The large one waits first in line, so whatever comes to wait later is written later."""
    collected = Collected(gate=False)
    connection = connect_to(collected, max_outbox_bytes=100_000)
    connection.settimeout(0.05)
    with pytest.raises(WebSocketTimeoutException):
        while True:
            connection.send("x" * 40_000)
    connection.settimeout(PATIENCE)
    waiting = connection._connection.outlet.waiting  # type: ignore[union-attr]
    sending = [background(lambda: connection.send("large" + "x" * 90_000))]
    wait_until(lambda: len(waiting.line) == 1, "the large one waits")
    for number in range(8):
        sending.append(background(lambda number=number: connection.send(f"small {number}")))
        wait_until(lambda: len(waiting.line) == len(sending), "the small one waits")
    collected.gate.set()
    for result in sending:
        result()
    connection.close(timeout=PATIENCE)
    order = [message[:7] for message in collected.messages if not message.startswith("xx")]
    assert order == ["largexx", *(f"small {number}" for number in range(8))]


def test_threads_that_fill_the_outbox_do_not_take_turns_for_each_message(connect_to: Connect, scheme: str) -> None:
    """Who waits for room is admitted by the writer, so that nobody has to stand behind it until it has run."""
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, max_outbox_messages=1000)
    collected.gate.set()
    threads, messages = 8, 5000
    start = threading.Barrier(threads)

    def send(thread: int) -> None:
        start.wait()
        for number in range(messages):
            connection.send(f"{thread} {number}")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for result in [background(lambda thread=thread: send(thread)) for thread in range(threads)]:
        result()
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    connection.close(timeout=PATIENCE)
    for thread in range(threads):
        own = [int(message.split()[1]) for message in collected.messages if message.startswith(f"{thread} ")]
        assert own == list(range(messages))
    # Eight of them wait once for each batch; in turns it was more than one and a half for each message.
    assert switches < threads * messages / 4, switches


def test_a_blocked_send_goes_on_when_the_server_reads(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme, max_outbox_bytes=100_000)
    sending = background(lambda: [connection.send(f"{n}:" + "x" * 50_000) for n in range(500)])
    wait_until(lambda: is_sending(connection), "send() waits for room")
    collected.gate.set()
    sending()
    connection.close(timeout=PATIENCE)
    assert [message.split(":")[0] for message in collected.messages] == [str(n) for n in range(500)]


def test_a_blocked_send_goes_on_though_the_outbox_is_more_than_half_full(connect_to: Connect, scheme: str) -> None:
    """A slow server must not keep it waiting for longer than it takes one message."""
    reading = threading.Semaphore(0)
    collected: list[str] = []

    def slow(peer: Peer) -> None:
        while True:
            assert reading.acquire(timeout=PATIENCE)
            message = peer.recv()
            if not isinstance(message, str):
                return
            collected.append(message)

    connection = connect_to(slow, scheme, max_outbox_messages=400, max_outbox_bytes=100_000_000)
    lanes = connection._connection.outlet.lanes  # type: ignore[union-attr]
    connection.settimeout(None)
    messages = [f"{number}:" + "x" * 100_000 for number in range(600)]
    sending = background(lambda: [connection.send(message) for message in messages])
    wait_until(lambda: is_sending(connection), "send() waits for room")
    first = lanes.data[-1]
    reading.release(20)
    wait_until(lambda: lanes.data[-1] is not first, "it goes on")
    assert lanes.messages > 200
    reading.release(len(messages))
    sending()
    connection.close(timeout=PATIENCE)
    assert collected == messages


def test_a_blocked_send_wakes_when_another_thread_closes(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(Peer.stall, scheme, max_outbox_bytes=100_000)
    sending = background(
        lambda: [connection.send_bytes(bytes(size)) for size in (25_000_000, 1)]
    )  # more than sockets take
    wait_until(lambda: is_sending(connection), "send() waits for room")
    closing = background(lambda: connection.close(timeout=0.2))
    with pytest.raises(WebSocketConnectionClosedException):
        sending()
    closing()
    assert connection.unsent


def test_what_was_accepted_and_not_written_is_in_the_exception(connect_to: Connect, scheme: str) -> None:
    reset = threading.Event()

    def handler(peer: Peer) -> None:
        reset.wait(PATIENCE)
        peer.reset()

    connection = connect_to(handler, scheme, max_outbox_bytes=50_000_000)
    # Enough for every kernel's buffers, so that the last ones cannot have been written.
    accepted: list[str | bytes] = []
    for number in range(200):
        message = f"{number}:é" + "x" * 100_000
        accepted += [message, message.encode()]
        connection.send(message)
        connection.send_bytes(message.encode())
    accepted.append("")
    connection.send("")
    reset.set()
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv()
    unsent = list(caught.value.unsent)
    assert unsent
    assert unsent == accepted[-len(unsent) :]
    assert connection.unsent == unsent
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(WebSocketConnectionClosedException) as refused:
        connection.send("refused")
    assert list(refused.value.unsent) == unsent, "a refused message was never accepted"


def test_bytes_that_the_kernel_held_and_the_peer_did_not_acknowledge_are_counted(connect_to: Connect) -> None:
    connection = connect_to(Peer.stall, max_outbox_bytes=50_000_000)
    for _ in range(200):
        connection.send_bytes(bytes(100_000))
    # The kernel's buffers are full, so some of its bytes cannot be acknowledged.
    connection.abort()
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv()
    assert caught.value.unsent
    assert caught.value.unacknowledged


def test_close_sends_what_was_accepted_and_then_the_close_frame(connect_to: Connect, scheme: str) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, scheme)
    messages = [f"{number}:" + "x" * 50_000 for number in range(200)]
    for message in messages:
        connection.send(message)
    closing = background(lambda: connection.close(4001, "done", timeout=PATIENCE))
    wait_until(lambda: not connection.connected, "close() has begun")
    collected.gate.set()
    closing()
    assert collected.frames == [*messages, (ABNF.OPCODE_CLOSE, b"\x0f\xa1done")]
    assert connection.unsent == []


@pytest.mark.usefixtures("switch_interval")
def test_nothing_is_sent_after_the_close_frame(connect_to: Connect, scheme: str) -> None:
    for _ in range(20):
        collected = Collected()
        connection = connect_to(collected, scheme)
        accepted: list[list[str]] = [[] for _ in range(4)]

        def send(thread: int, connection: WebSocket = connection, accepted: list[list[str]] = accepted) -> None:
            with pytest.raises(WebSocketConnectionClosedException):
                for number in range(100_000):
                    connection.send(f"{thread}:{number}")
                    accepted[thread].append(f"{thread}:{number}")

        run_all(
            *(lambda thread=thread: send(thread) for thread in range(4)),
            lambda connection=connection: connection.close(timeout=PATIENCE),
        )
        assert collected.done.wait(PATIENCE)
        assert collected.after_close == b""
        for thread in range(4):
            assert of_thread(collected.messages, thread) == accepted[thread]


def test_a_ping_overtakes_waiting_data(connect_to: Connect) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, max_outbox_bytes=50_000_000)
    for number in range(300):
        connection.send(f"{number}:" + "x" * 100_000)
    connection.ping("now")
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert len(collected.messages) == 300
    assert collected.frames.index((ABNF.OPCODE_PING, b"now")) < 250


def test_a_fragmented_message_is_not_split_by_other_threads(connect_to: Connect) -> None:
    collected = Collected()
    connection = connect_to(collected)
    connection.send_frame(ABNF(0, 0, 0, 0, ABNF.OPCODE_TEXT, 1, "one "))
    other = background(lambda: connection.send("other"))
    wait_until(lambda: is_sending(connection), "the other thread waits")
    connection.ping("between")
    connection.send_frame(ABNF(0, 0, 0, 0, ABNF.OPCODE_CONT, 1, "two "))
    with pytest.raises(WebSocketProtocolException, match="this thread's fragmented"):
        connection.send("mine")
    connection.send_frame(ABNF(1, 0, 0, 0, ABNF.OPCODE_CONT, 1, "three"))
    other()
    connection.close(timeout=PATIENCE)
    assert collected.messages == ["one two three", "other"]


def test_a_continuation_of_nothing_is_refused(connect_to: Connect) -> None:
    connection = connect_to(echo)
    with pytest.raises(WebSocketProtocolException, match="nothing to continue"):
        connection.send_frame(ABNF(1, 0, 0, 0, ABNF.OPCODE_CONT, 1, "x"))
    connection.send("still open")
    assert connection.recv() == "still open"


def test_a_write_that_the_kernel_takes_in_part_is_finished_by_the_writer(connect_to: Connect, scheme: str) -> None:
    small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
    connection = connect_to(echo, scheme, sockopt=small)
    for size in (10_000, 100_000, 3_000_000):
        connection.send_bytes(bytes(size))
        connection.ping("x")
        assert connection.recv() == bytes(size)


@pytest.mark.parametrize(
    ("send", "error", "message"),
    [
        (lambda ws: ws.send(5), TypeError, "str or bytes-like, not int"),
        (lambda ws: ws.send({"a": 1}), TypeError, "not dict"),
        (lambda ws: ws.send("\ud800"), ValueError, "UTF-8"),
        (lambda ws: ws.send(b"\xff"), ValueError, "not UTF-8"),
        (lambda ws: ws.ping("x" * 126), ValueError, "126 bytes is too long"),
        (lambda ws: ws.pong(b"x" * 200), ValueError, "200 bytes is too long"),
        (lambda ws: ws.send("x", 3), ValueError, "3"),
        (lambda ws: ws.send_close(1005), ValueError, "1005"),
        (lambda ws: ws.close(1000, "x" * 124), ValueError, "124 bytes"),
        (lambda ws: ws.close(timeout=-1), ValueError, "-1"),
        (lambda ws: ws.settimeout(-1), ValueError, "-1"),
        (lambda ws: ws.recv(timeout="1"), ValueError, "'1'"),
    ],
)
def test_bad_input_is_refused_with_its_value_and_the_connection_goes_on(
    connect_to: Connect, send: Callable[[WebSocket], object], error: type[Exception], message: str
) -> None:
    connection = connect_to(echo)
    with pytest.raises(error, match=message):
        send(connection)
    connection.send("fine")
    assert connection.recv() == "fine"


def test_send_returns_the_length_of_the_frame(connect_to: Connect) -> None:
    connection = connect_to(echo)
    assert connection.send("x" * 5) == 11
    assert connection.send_text("é") == 8
    assert connection.send_bytes(bytes(126)) == 134
    assert connection.send_binary(bytes(65_536)) == 65_550
    assert connection.send(memoryview(b"abcd").cast("H"), ABNF.OPCODE_BINARY) == 10
    assert connection.send_frame(ABNF.create_frame("x", ABNF.OPCODE_PING)) == 7


def test_a_programs_masking_keys_are_used(connect_to: Connect) -> None:
    seen = []
    connection = connect_to(echo, get_mask_key=lambda count: seen.append(count) or b"\0\0\0\0")
    connection.send("plain")
    assert connection.recv() == "plain"
    assert seen == [4]
    connection.set_mask_key(lambda count: b"abc")
    with pytest.raises(ValueError, match="4 bytes, not 3"):
        connection.send("x")
    connection.set_mask_key(None)
    connection.send(json.dumps({"still": "open"}))
    assert connection.recv() == '{"still": "open"}'
