"""Compression and threads: what is compressed first is on the wire first, whoever waits or gives up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    ABNF,
    PerMessageDeflate,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket._deflate import Deflater
from websocket.testing import Peer, echo

from .compressing import COMPRESSIONS, WORDS, Connect, Sink, deflating, fill, large
from .conftest import PATIENCE, background, is_sending, run_all, wait_until

# ---- many threads ----


def numbered(thread: int, count: int) -> list[Any]:
    """Messages below and above min_size, text and binary, some in chunks; each tells its thread and number."""
    choose = random.Random(thread)
    messages: list[Any] = []
    for number in range(count):
        chunks = [f"{thread}:{number}:", *choose.choices(WORDS, k=choose.choice([0, 0, 1, 3, 20, 200]))]
        kind = choose.choice(["text", "text", "bytes", "chunks", "chunks of bytes"])
        if kind == "text":
            messages.append("".join(chunks))
        elif kind == "bytes":
            messages.append("".join(chunks).encode())
        else:
            messages.append(chunks if kind == "chunks" else [chunk.encode() for chunk in chunks])
    return messages


def joined(message: Any) -> str | bytes:
    whole: str | bytes = message[0][:0].join(message) if isinstance(message, list) else message
    return whole


def send_any(connection: WebSocket, message: Any) -> None:
    first = message[0] if isinstance(message, list) else message
    payload = iter(message) if isinstance(message, list) else message
    connection.send(payload, ABNF.OPCODE_TEXT if isinstance(first, str) else ABNF.OPCODE_BINARY)


@pytest.mark.usefixtures("switch_interval")
@pytest.mark.parametrize("kind", [*COMPRESSIONS, "none"])
def test_eight_senders_and_four_receivers_get_what_they_get_without_compression(
    compressing: Connect, scheme: str, kind: str
) -> None:
    connection = compressing(echo, COMPRESSIONS.get(kind), scheme)
    batches = [numbered(thread, 40) for thread in range(8)]
    senders_left = list(batches)
    ended = threading.Event()

    def send_all(batch: list[Any]) -> list[Any]:
        for message in batch:
            send_any(connection, message)
        senders_left.pop()
        if not senders_left:
            ended.set()
        return []

    def receive() -> list[Any]:
        return list(iter(connection.recv, "end"))

    def end() -> list[Any]:
        assert ended.wait(PATIENCE)
        for _ in range(4):
            connection.send("end")
        return []

    work: list[Callable[[], list[Any]]] = [lambda batch=batch: send_all(batch) for batch in batches]  # type: ignore[misc]
    received = run_all(*[receive] * 4, *work, end)[:4]
    sent = [[joined(message) for message in batch] for batch in batches]
    every = [message for batch in sent for message in batch]
    assert sorted(repr(message) for taken in received for message in taken) == sorted(map(repr, every))
    for batch in sent:
        place = {repr(message): number for number, message in enumerate(batch)}
        for taken in received:
            numbers = [place[repr(message)] for message in taken if repr(message) in place]
            assert numbers == sorted(numbers), "each thread's order"


# ---- a full outbox ----


def test_a_message_that_timed_out_is_none_that_later_ones_refer_to(
    compressing: Connect, compression: PerMessageDeflate, scheme: str
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, scheme, max_outbox_messages=1)
    sent = fill(connection)
    connection.settimeout(0.02)
    for number in range(3):
        with pytest.raises(WebSocketTimeoutException, match="not accepted"):
            connection.send(large(f"refused {number}"))
        with pytest.raises(WebSocketTimeoutException, match="not accepted"):
            connection.send(iter([large("refused chunk"), "x"]))
    sink.gate.set()
    connection.settimeout(PATIENCE)
    for number in range(3):
        connection.send(large(f"refused {number}"))
        sent.append(large(f"refused {number}"))
    connection.close(timeout=PATIENCE)
    assert sink.messages == sent


def test_a_sender_gives_up_waiting_for_the_turn_and_the_others_go_on(
    compressing: Connect, compression: PerMessageDeflate
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, max_outbox_messages=1)
    sent = fill(connection)
    holder = background(lambda: connection.send(large("holder")))
    wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the holder waits for room")
    connection.settimeout(0.02)
    for message in (large("refused"), iter([large("refused")])):
        with pytest.raises(WebSocketTimeoutException, match="not accepted"):
            connection.send(message)
    connection.settimeout(PATIENCE)
    sink.gate.set()
    holder()
    connection.send(large("after"))
    connection.close(timeout=PATIENCE)
    assert sink.messages == [*sent, large("holder"), large("after")]


def test_close_wakes_all_who_wait_for_the_turn_and_nobody_compresses_in_vain(
    compressing: Connect, compression: PerMessageDeflate, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = compressing(Peer.stall, compression, max_outbox_messages=1, timeout=None)
    fill(connection)
    compressed: list[Any] = []
    message = Deflater.message

    def counted(self: Deflater, data: Any) -> bytes:
        compressed.append(data)
        return message(self, data)

    monkeypatch.setattr(Deflater, "message", counted)
    connection.settimeout(None)
    holder = background(lambda: connection.send(large("holder")))
    wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the holder waits for room")
    waiting = [background(lambda: connection.send(large("waits"))) for _ in range(4)]
    waiting += [background(lambda: connection.send(iter([large("waits")])))]
    wait_until(lambda: is_sending(connection, 6), "the others wait for the turn")
    connection.close(timeout=0)
    for result in (holder, *waiting):
        with pytest.raises(WebSocketConnectionClosedException):
            result()
    assert len(compressed) == 1


def test_close_wakes_who_waits_for_the_turn_while_its_holder_still_compresses(
    compressing: Connect, compression: PerMessageDeflate, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = compressing(Sink(is_open=True), compression, timeout=None)
    connection.settimeout(None)
    message, begun, go = Deflater.message, threading.Event(), threading.Event()

    def slow(self: Deflater, data: Any) -> bytes:
        begun.set()
        assert go.wait(2 * PATIENCE)
        return message(self, data)

    monkeypatch.setattr(Deflater, "message", slow)
    holder = background(lambda: connection.send(large("holder")))
    assert begun.wait(PATIENCE)
    waiting = [background(lambda: connection.send(large("waits"))) for _ in range(3)]
    waiting += [background(lambda: connection.send(iter([large("waits")])))]
    wait_until(lambda: is_sending(connection, 4), "the others wait for the turn")
    connection.close(timeout=PATIENCE)
    try:
        for result in waiting:
            with pytest.raises(WebSocketConnectionClosedException):
                result()
    finally:
        go.set()
    with pytest.raises(WebSocketConnectionClosedException):
        holder()


def test_who_waits_for_the_turn_gets_it_before_who_comes_later(
    compressing: Connect, compression: PerMessageDeflate
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, max_outbox_messages=1)
    fill(connection)
    names = [f"in line {number}" for number in range(4)]

    def keep_sending() -> None:
        for number in range(50):
            connection.send(large(f"again {number}"))

    busy = background(keep_sending)
    wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the holder waits for room")
    waiting = []
    for count, name in enumerate(names):
        waiting.append(background(lambda name=name: connection.send(large(name))))  # type: ignore[misc]
        wait_until(lambda count=count: is_sending(connection, 2 + count), "the next waits")  # type: ignore[misc]
    sink.gate.set()
    for result in (busy, *waiting):
        result()
    connection.close(timeout=PATIENCE)
    order = [str(message).partition(":")[0] for message in sink.messages if isinstance(message, str)]
    assert order[:6] == ["again 0", *names, "again 1"]


# ---- chunked messages ----


def test_a_chunked_message_comes_between_compressed_ones_that_wait(
    compressing: Connect, compression: PerMessageDeflate, scheme: str
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, scheme, max_outbox_messages=1)
    sent = fill(connection)
    senders = [background(lambda: connection.send(large("one")))]
    wait_until(lambda: is_sending(connection, 1), "one waits for room")
    senders += [background(lambda: connection.send(iter([large("two"), "", large("three")])))]
    wait_until(lambda: is_sending(connection, 2), "the chunks wait")
    senders += [background(lambda: connection.send(large("four")))]
    wait_until(lambda: is_sending(connection, 3), "all wait")
    sink.gate.set()
    for result in senders:
        result()
    connection.close(timeout=PATIENCE)
    assert sink.messages[: len(sent)] == sent
    assert sorted(map(str, sink.messages[len(sent) :])) == sorted(
        [large("one"), large("two") + large("three"), large("four")]
    )


def test_other_messages_wait_for_the_end_of_a_chunked_one_and_pings_do_not(
    compressing: Connect, compression: PerMessageDeflate, scheme: str
) -> None:
    sink = Sink(is_open=True)
    connection = compressing(sink, compression, scheme)
    others: list[Callable[[], Any]] = []

    def chunks() -> Iterator[str]:
        yield large("first")
        others.extend(background(lambda: connection.send(large("other"))) for _ in range(3))
        wait_until(lambda: is_sending(connection, 3), "the others wait")
        connection.ping("between")
        assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"between")
        yield large("second")

    connection.send(large("before"))
    connection.send(chunks())
    for result in others:
        result()
    connection.close(timeout=PATIENCE)
    assert sink.messages == [large("before"), large("first") + large("second"), *[large("other")] * 3]


def test_a_message_within_the_same_threads_chunked_one_is_refused_though_others_wait(
    compressing: Connect, compression: PerMessageDeflate
) -> None:
    """It would wait for a turn whose holder waits for the end of the chunked message: for itself."""
    sink = Sink(is_open=True)
    connection = compressing(sink, compression, timeout=2)
    others: list[Callable[[], Any]] = []

    def chunks() -> Iterator[str]:
        yield large("first")
        others.append(background(lambda: connection.send(large("other"))))
        wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the other waits for the end")
        for payload in (large("inside"), iter([large("inside")])):
            with pytest.raises(WebSocketProtocolException, match="before the end of this thread's fragmented one"):
                connection.send(payload)
        yield "last"

    connection.send(chunks())
    others[0]()
    connection.close(timeout=PATIENCE)
    assert sink.messages == [large("first") + "last", large("other")]


def test_compression_goes_on_beside_a_keepalive(compressing: Connect, compression: PerMessageDeflate) -> None:
    connection = compressing(echo, compression, "wss", ping_interval=0.02)
    while connection.latency is None:
        connection.send(large("alive"))
        assert connection.recv() == large("alive")
