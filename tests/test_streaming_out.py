"""What send() promises of an iterable: one message, a fragment for each chunk as it comes, nothing between but control
frames, and a clear end where the last chunk does not come."""

from __future__ import annotations

import array
import tracemalloc
from collections import UserDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    create_connection,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, Server

from .conftest import Collected, background, is_sending, run_all, wait_until
from .recorder import Record
from .wire import Wire

Connect = Callable[..., WebSocket]

TEXT, BINARY = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY


@pytest.mark.parametrize(
    ("opcode", "chunks", "payloads"),
    [
        (TEXT, ["Hä", "", "llo"], ["Hä".encode(), b"", b"llo"]),
        (TEXT, ("a",), [b"a"]),
        (TEXT, {"a"}, [b"a"]),
        (TEXT, deque(["a", "b"]), [b"a", b"b"]),
        (TEXT, {"a": 1, "b": 2}.keys(), [b"a", b"b"]),
        (TEXT, [b"a\xe2", bytearray(b"\x82"), memoryview(b"\xac"), "b"], [b"a\xe2", b"\x82", b"\xac", b"b"]),
        (BINARY, [b"\xff", bytearray(b"\xfe"), memoryview(b"abcd")[::2]], [b"\xff", b"\xfe", b"ac"]),
        (BINARY, [array.array("B", [1, 2]), array.array("I", [0, 0])], [b"\x01\x02", bytes(8)]),
        (BINARY, ["é", b"\xc3"], ["é".encode(), b"\xc3"]),
        (BINARY, [bytes(70_000)], [bytes(70_000)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("lazily", [False, True])
def test_each_chunk_is_a_fragment_on_the_wire(
    connect_to: Connect, opcode: int, chunks: Iterable[Any], payloads: list[bytes], lazily: bool
) -> None:
    wire = Wire()
    connection = connect_to(wire)
    sent = connection.send((chunk for chunk in chunks) if lazily else chunks, opcode)
    expected = [(opcode if index == 0 else 0, payload) for index, payload in enumerate(payloads)]
    wire.has(0x80, b"")
    assert wire.frames == [*expected, (0x80, b"")]
    assert wire.size == sent


def test_what_has_a_buffer_is_one_whole_message(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire)
    for payload in (b"ab", bytearray(b"ab"), memoryview(b"ab"), array.array("B", b"ab")):
        connection.send_bytes(payload)
    connection.send("ab")
    connection.close()
    assert wire.frames == [(0x82, b"ab")] * 4 + [(0x81, b"ab"), (0x88, b"\x03\xe8")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_no_chunk_at_all_is_an_empty_message(
    serve: Callable[..., Server], opcode: int, compression: str | None
) -> None:
    wire = Wire()
    with create_connection(serve(wire, compression=compression).url, compression=compression) as connection:
        assert connection.send((), opcode) == 6
    assert wire.frames == [(0x80 | opcode, b""), (0x88, b"\x03\xe8")]


def test_every_method_that_sends_messages_takes_chunks(connect_to: Connect, record: Record) -> None:
    collected = Collected()
    connection = connect_to(collected)
    connection.send(["a", "b"])
    connection.send_text(["c", "d"])
    connection.send_bytes([b"e", b"f"])
    connection.send_binary([b"g", b"h"])
    connection.close()
    assert collected.messages == ["ab", "cd", b"ef", b"gh"]
    collected = Collected()
    app = record(collected)
    app.then["open"] = lambda: (
        app.send(iter(["a", "b"])),
        app.send_text(["c", "d"]),
        app.send_bytes([b"e", b"f"]),
        app.close(),
    )
    app.run()
    assert app.errors == []
    assert collected.messages == ["ab", "cd", b"ef"]


@pytest.mark.parametrize("payload", [{"a": 1}, {}, MappingProxyType({"a": 1}), UserDict(a=1), 5, None, object(), 1.5])
def test_mappings_and_what_is_no_iterable_are_a_type_error(connect_to: Connect, payload: Any) -> None:
    collected = Collected()
    connection = connect_to(collected)
    for send in (connection.send, connection.send_text, connection.send_bytes):
        with pytest.raises(TypeError, match="str or bytes-like"):
            send(payload)
    connection.send("goes on")
    connection.close()
    assert collected.messages == ["goes on"]


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ([1], TypeError),
        (range(3), TypeError),
        ([None], TypeError),
        ([["a"]], TypeError),
        ([{}], TypeError),
        ([b"\xff"], ValueError),
        (["\ud800"], ValueError),
    ],
    ids=str,
)
def test_a_first_chunk_that_cannot_be_sent_leaves_the_connection_as_it_is(
    connect_to: Connect, chunks: Any, error: type[Exception]
) -> None:
    collected = Collected()
    connection = connect_to(collected)
    with pytest.raises(error):
        connection.send(chunks)
    connection.send("goes on")
    connection.close()
    assert collected.frames == ["goes on", (ABNF.OPCODE_CLOSE, b"\x03\xe8")]


def test_text_that_is_not_checked_goes_as_it_is(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire, skip_utf8_validation=True)
    connection.send([b"\xff", b"\xc3"])
    connection.close()
    assert wire.frames[:3] == [(1, b"\xff"), (0, b"\xc3"), (0x80, b"")]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_buffer_that_is_used_again_for_each_chunk_is_sent_as_it_was(
    serve: Callable[..., Server], compression: str | None
) -> None:
    got: list[Any] = []
    server = serve(lambda peer: got.append(peer.recv()), compression=compression)
    buffer = bytearray(100_000)

    def chunks() -> Iterator[bytearray]:
        for number in range(20):
            buffer[:] = bytes([number]) * len(buffer)
            yield buffer

    with create_connection(server.url, compression=compression) as connection:
        connection.send_bytes(chunks())
    assert got == [b"".join(bytes([number]) * len(buffer) for number in range(20))]


def test_compressed_chunks_say_so_on_the_first_frame_only_and_messages_around_them_can_be_read(
    serve: Callable[..., Server],
) -> None:
    wire = Wire()
    with create_connection(serve(wire, compression="deflate").url, compression="deflate") as connection:
        sent = connection.send(["a" * 1000, "", "b" * 1000])
    assert [first for first, _ in wire.frames[:-1]] == [0x41, 0x00, 0x00, 0x80]
    assert all(len(payload) < 100 for _, payload in wire.frames)
    assert wire.size == sent + 8

    got: list[Any] = []

    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            got.append(message)

    messages: list[Any] = []
    with create_connection(serve(handler, compression="deflate").url, compression="deflate") as connection:
        for number in range(30):
            whole = f"message {number} of which much is always the same, " * 20
            connection.send(whole)
            connection.send(iter([whole[:300], whole[300:301], "", whole[301:]]))
            messages += [whole, whole]
    assert got == messages


def test_each_chunk_is_on_its_way_before_the_next_is_asked_for(connect_to: Connect, scheme: str) -> None:
    wire = Wire()
    connection = connect_to(wire, scheme)

    def chunks() -> Iterator[str]:
        for number in range(5):
            yield str(number)
            wire.has(1 if number == 0 else 0, b"%d" % number)

    connection.send(chunks())
    connection.close()
    assert [payload for _, payload in wire.frames] == [b"0", b"1", b"2", b"3", b"4", b"", b"\x03\xe8"]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_of_other_threads_wait_and_come_whole_after_it(
    serve: Callable[..., Server], compression: str | None
) -> None:
    got: list[Any] = []

    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            got.append(message)

    small, large = "s", "large" * 50_000
    with create_connection(serve(handler, compression=compression).url, compression=compression) as connection:
        others: list[Callable[[], Any]] = []

        def chunks() -> Iterator[str]:
            yield "<"
            others.append(background(lambda: connection.send(small)))
            others.append(background(lambda: connection.send(large)))
            others.append(background(lambda: connection.send(iter([large, small]))))
            wait_until(lambda: is_sending(connection, 3), "the others wait")
            yield "-" * 300_000
            yield ">"

        connection.send(chunks())
        for other in others:
            other()
    assert got[0] == "<" + "-" * 300_000 + ">"
    assert sorted(got[1:], key=len) == [small, large, large + small]


def test_pings_pongs_and_answers_pass_between_the_chunks(connect_to: Connect) -> None:
    wire = Wire()
    connection = connect_to(wire)
    peer = connection.server.peers[0]  # type: ignore[attr-defined]

    def chunks() -> Iterator[str]:
        yield "a"
        wire.has(1, b"a")  # else they overtake it
        connection.ping("mine")
        wire.has(0x89, b"mine")
        background(lambda: connection.pong("of another thread"))()
        wire.has(0x8A, b"of another thread")
        peer.send_frame(ABNF.OPCODE_PING, b"yours")
        wire.has(0x8A, b"yours")
        yield "b"

    connection.send(chunks())
    connection.close()
    assert wire.frames == [
        (0x01, b"a"),
        (0x89, b"mine"),
        (0x8A, b"of another thread"),
        (0x8A, b"yours"),
        (0x00, b"b"),
        (0x80, b""),
        (0x88, b"\x03\xe8"),
    ]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_streams_of_several_threads_do_not_mix(serve: Callable[..., Server], compression: str | None) -> None:
    got: list[Any] = []

    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            got.append(message)

    def of(thread: str) -> list[str]:
        return [thread * size for size in (1, 50, 3, 5000)]

    with create_connection(serve(handler, compression=compression).url, compression=compression) as connection:

        def send(thread: str) -> None:
            for _ in range(30):
                connection.send(iter(of(thread)))
                connection.send(thread)

        run_all(*(lambda thread=thread: send(thread) for thread in "abcd"))
    for thread in "abcd":
        assert [message for message in got if message[0] == thread] == ["".join(of(thread)), thread] * 30


def test_memory_is_bounded_however_much_is_sent(connect_to: Connect) -> None:
    def handler(peer: Peer) -> None:
        size = 0
        while size < 100_000_000 and (data := peer.sock.recv(1 << 16)):
            size += len(data)

    connection = connect_to(handler, max_outbox_bytes=300_000)
    tracemalloc.start()
    try:
        connection.send_bytes(bytes(100_000) for _ in range(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_what_is_put_between_the_chunks_is_masked_with_keys_of_its_own(connect_to: Connect) -> None:
    keys: list[int] = []

    def key(size: int) -> bytes:
        keys.append(size)
        return bytes([len(keys)] * size)

    collected = Collected()
    connection = connect_to(collected, get_mask_key=key)
    assert connection.send(["a", "b"]) == sum(len(encode_frame(0, data, bytes(4))) for data in (b"a", b"b", b""))
    connection.close()
    assert collected.messages == ["ab"]
    assert keys == [4, 4, 4]
