"""Frames that must not be, and lengths that are lies: what is told to both sides, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
)
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, wait_until
from .hostile import WAYS, Endless, Hear, announced, bounded_memory, close_frame, frame, then, way_to_hear
from .recorder import Record

TB = 1 << 40
TEXT, BINARY, CONT = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY, ABNF.OPCODE_CONT
BEGUN = frame(BINARY, b"begun")  # a fragmented message

# name: (bytes, what the exception says). The close code is 1002.
VIOLATIONS: dict[str, tuple[bytes, str]] = {
    "masked text": (b"\x81\x81abcdx", "masked"),
    "masked empty": (b"\x82\x80abcd", "masked"),
    "masked ping": (b"\x89\x80abcd", "masked"),
    "masked close": (b"\x88\x82\0\0\0\0\x03\xe8", "masked"),
    "masked continuation": (BEGUN + b"\x80\x80abcd", "masked"),
    "RSV1": (b"\xc1\x01x", "reserved bits 100"),
    "RSV2": (b"\xa1\x01x", "reserved bits 010"),
    "RSV3": (b"\x92\x00", "reserved bits 001"),
    "all RSV of a ping": (b"\xf9\x00", "reserved bits 111"),
    "RSV1 of a close": (b"\xc8\x02\x03\xe8", "reserved bits 100"),
    "RSV1 of a continuation": (BEGUN + b"\xc0\x01x", "reserved bits 100"),
    **{f"opcode {op}": (frame(0x80 | op), f"opcode {op}") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "opcode 3 amid a message": (BEGUN + b"\x83\x00", "opcode 3"),
    "fragmented ping": (b"\x09\x00", "fragmented ping"),
    "fragmented pong": (b"\x0a\x01x", "fragmented pong"),
    "fragmented close": (b"\x08\x02\x03\xe8", "fragmented close"),
    "ping of 126 bytes": (frame(0x89, bytes(126)), "ping frame with a payload of more than 125"),
    "pong of 70000 bytes": (frame(0x8A, bytes(70_000)), "pong frame with a payload of more than 125"),
    "ping of 1 TB": (announced(0x89, TB), "ping frame with a payload of more than 125"),
    "close of 126 bytes": (frame(0x88, b"\x03\xe8" + b"x" * 124), "close frame with a payload of more than 125"),
    "close of 1 byte": (b"\x88\x01\x03", "1 byte"),
    **{
        f"close code {code}": (frame(0x88, code.to_bytes(2, "big") + b"so"), f"close code {code}$")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "continuation of nothing": (b"\x80\x01x", "nothing to continue"),
    "continuation of nothing, unfinished": (b"\x00\x01x", "nothing to continue"),
    "text within a binary message": (BEGUN + b"\x81\x01x", "new message before the end"),
    "binary within a text message": (b"\x01\x01x\x02\x01x", "new message before the end"),
    "length of 2**63": (announced(0x82, 1 << 63), "highest bit"),
    "length of 2**64-1": (announced(0x81, (1 << 64) - 1), "highest bit"),
    "length of 2**63 in a continuation": (BEGUN + announced(0x80, 1 << 63), "highest bit"),
}
# The close code is 1007.
MISSPELT: dict[str, tuple[bytes, type[WebSocketException], str]] = {
    **{
        f"text {bad.hex()}": (frame(0x81, b"ok" + bad + b"ok"), WebSocketPayloadException, "text message is not UTF-8")
        for bad in (b"\xff", b"\x80", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3x")
    },
    "text that ends within a character": (b"\x81\x02x\xc3", WebSocketPayloadException, "UTF-8"),
    "first fragment": (b"\x01\x01\xff\x80\x00", WebSocketPayloadException, "UTF-8"),
    "last fragment": (b"\x01\x01x\x80\x02\xfe\xff", WebSocketPayloadException, "UTF-8"),
    "middle fragment, endless": (b"\x01\x01x\x00\x01\xf8\x00\x01x", WebSocketPayloadException, "UTF-8"),
    "character split wrongly": (b"\x01\x02\xe2\x82\x80\x01x", WebSocketPayloadException, "UTF-8"),
    "surrogate split over fragments": (b"\x01\x01\xed\x00\x01\xa0\x80\x01\x80", WebSocketPayloadException, "UTF-8"),
    "split and never finished": (b"\x01\x02\xe2\x82\x80\x00", WebSocketPayloadException, "UTF-8"),
    "amid a payload that is not here": (b"\x81\x7e\xff\xff" + b"x" * 9 + b"\xc3(", WebSocketPayloadException, "UTF-8"),
    "close reason": (frame(0x88, b"\x03\xe8ok\xff"), WebSocketProtocolException, "close reason is not UTF-8"),
    "close reason cut": (frame(0x88, b"\x0f\xa0" + b"x" * 122 + b"\xc3"), WebSocketProtocolException, "close reason"),
}
LIMIT = 100_000
# The close code is 1009.
TOO_BIG: dict[str, tuple[bytes, str]] = {
    "1 TB": (announced(0x82, TB), f"message of {TB} bytes exceeds max_message_size={LIMIT}"),
    "1 TB of text": (announced(0x81, TB), f"message of {TB} bytes"),
    "2**63-1": (announced(0x82, (1 << 63) - 1), f"message of {(1 << 63) - 1} bytes"),
    "one too many": (announced(0x82, LIMIT + 1), f"message of {LIMIT + 1} bytes"),
    "a first fragment": (announced(0x02, TB), f"message of {TB} bytes"),
    "the sum": (frame(0x02, bytes(60_000)) + frame(0x80, bytes(60_000))[:4], "message of 120000 bytes"),
    "a sum of 2**63": (frame(0x02, bytes(1)) + announced(0x80, (1 << 63) - 1), f"message of {1 << 63} bytes"),
}

BREACHES = [
    *(pytest.param(b, 1002, WebSocketProtocolException, words, id=name) for name, (b, words) in VIOLATIONS.items()),
    *(pytest.param(b, 1007, kind, words, id=name) for name, (b, kind, words) in MISSPELT.items()),
    *(pytest.param(b, 1009, WebSocketPayloadException, words, id=name) for name, (b, words) in TOO_BIG.items()),
]


@pytest.fixture(params=WAYS)
def hear(request: pytest.FixtureRequest, connect_to: Callable[..., WebSocket], record: Record) -> Hear:
    return way_to_hear(request.param, connect_to, record)


@pytest.mark.parametrize(("breach", "code", "kind", "words"), BREACHES)
def test_a_breach_is_told_to_both_sides_after_the_good_messages(
    hear: Hear, scheme: str, breach: bytes, code: int, kind: type[WebSocketException], words: str
) -> None:
    """And what comes after it is nothing any more, however good."""
    collected = Collected()
    good = frame(0x81, "gut é".encode()) + frame(0x82) + frame(0x02) + frame(0x80, b"\xff")
    heard = hear(then(good + breach + frame(0x81, b"behind"), collected=collected), scheme, max_message_size=LIMIT)
    assert heard.messages == ["gut é", b"", b"\xff"]
    assert type(heard.error) is kind
    with pytest.raises(kind, match=words):
        raise heard.error
    assert (heard.code, heard.reason) == (None, None), "the server has sent no close frame that counts"
    assert heard.error.unsent == []
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [close_frame(code)]
    assert collected.after_close == b""


@pytest.mark.parametrize("breach", [b"\xc1\x00", b"\x81\x01\xff", announced(0x82, TB)])
def test_a_breach_behind_a_thousand_messages_takes_none_of_them(hear: Hear, scheme: str, breach: bytes) -> None:
    collected = Collected()
    good = [f"{number}" * 30 for number in range(1000)]
    handler = then(b"".join(frame(0x81, text.encode()) for text in good) + breach, collected=collected)
    heard = hear(handler, scheme, max_message_size=LIMIT)
    assert heard.messages == good
    assert isinstance(heard.error, (WebSocketProtocolException, WebSocketPayloadException))
    assert collected.done.wait(PATIENCE)
    assert [opcode for opcode, _ in collected.frames] == [ABNF.OPCODE_CLOSE]


def test_a_breach_that_comes_byte_by_byte_is_the_same(hear: Hear, scheme: str) -> None:
    collected = Collected()
    wire = frame(0x81, b"good") + b"\x01\x02\xe2\x82\x89\x01p\x80\x01x"
    heard = hear(then(*(bytes([byte]) for byte in wire), collected=collected), scheme)
    assert heard.messages == ["good"]
    assert type(heard.error) is WebSocketPayloadException
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [(ABNF.OPCODE_PONG, b"p"), close_frame(1007)]


@pytest.mark.parametrize("header", [b"\x82\x7e\x00\x05", announced(0x82, 5), b"\x82\x7e\x00\x00", announced(0x81, 300)])
def test_a_length_written_with_more_bytes_than_it_needs_is_taken_as_it_is(
    hear: Hear, scheme: str, header: bytes
) -> None:
    """RFC 6455 5.2 forbids it to the sender. Nothing depends on it, and other clients take it too."""
    size = int.from_bytes(header[2:], "big")
    collected = Collected()
    heard = hear(
        then(header + b"x" * size + frame(0x81, b"next") + frame(0x88, b"\x0f\xa0"), collected=collected), scheme
    )
    assert [len(heard.messages[0]), *heard.messages[1:]] == [size, "next"]
    assert heard.code == 4000


@pytest.mark.parametrize(
    "first",
    [announced(0x82, TB), announced(0x81, TB), frame(0x02, bytes(60_000)) + announced(0x80, TB), b"\x81\x01\xff"],
)
def test_a_server_that_goes_on_sending_gets_the_close_frame_and_nothing_is_kept(
    hear: Hear, scheme: str, first: bytes
) -> None:
    endless = Endless(first, bytes(100_000))
    with bounded_memory(3_000_000):
        heard = hear(endless, scheme, max_message_size=LIMIT)
        assert endless.done.wait(PATIENCE)
    assert type(heard.error) is WebSocketPayloadException
    assert endless.close_frame in (close_frame(1009), close_frame(1007))


@pytest.mark.parametrize(
    ("first", "again"), [(frame(0x02), frame(0x00, bytes(1000))), (frame(0x01), frame(0, b"x" * 9))]
)
def test_an_endless_message_ends_at_the_limit(hear: Hear, scheme: str, first: bytes, again: bytes) -> None:
    endless = Endless(first, again * 100)
    with bounded_memory(3_000_000):
        heard = hear(endless, scheme, max_message_size=LIMIT)
        assert endless.done.wait(PATIENCE)
    assert type(heard.error) is WebSocketPayloadException
    assert f"exceeds max_message_size={LIMIT}" in str(heard.error)
    assert endless.close_frame == close_frame(1009)


def cut(*parts: bytes) -> Callable[[Peer], None]:
    def handler(peer: Peer) -> None:
        for part in parts:
            peer.send_raw(part)
        peer.hang_up()

    return handler


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@pytest.mark.parametrize("size", [TB, (1 << 63) - 1])
def test_without_a_limit_a_terabyte_that_is_announced_and_does_not_come_costs_nothing_like_it(
    hear: Hear, scheme: str, opcode: int, size: int
) -> None:
    """At most the 64 MiB are set aside that one system call may fill."""
    data = b"x" * 1_000_000
    with bounded_memory(80_000_000):
        heard = hear(cut(frame(0x81, b"good"), announced(0x80 | opcode, size), data), scheme, max_message_size=None)
    assert heard.messages == ["good"]
    assert type(heard.error) is WebSocketConnectionLostException
    assert "in the middle of a message" in str(heard.error)


def test_what_a_cut_message_had_brought_is_let_go_of_though_the_connection_is_kept(
    connect_to: Callable[..., WebSocket], scheme: str
) -> None:
    parts = [announced(0x82, 30_000_000), *[bytes(1_000_000)] * 20]
    with bounded_memory(60_000_000, left=3_000_000):
        connection = connect_to(cut(*parts), scheme, max_message_size=None)
        with pytest.raises(WebSocketConnectionLostException, match="in the middle of a message"):
            connection.recv()
        connection.close()


@pytest.mark.parametrize("polled", [False, True])
def test_close_does_not_wait_for_a_payload_that_does_not_come(
    connect_to: Callable[..., WebSocket], scheme: str, polled: bool
) -> None:
    """The reader asks the kernel for all of it at once; close() reaches it there."""

    def handler(peer: Peer) -> None:
        peer.send_raw(announced(0x82, TB) + bytes(500_000))
        peer.stall()

    connection = connect_to(handler, scheme, max_message_size=None)
    if polled:
        connection.fileno()
    reader: Any = connection._connection._reader  # type: ignore[union-attr]
    wait_until(lambda: reader.received, "the payload has begun")
    receiving = background(connection.recv)
    connection.close(timeout=0.1)
    with pytest.raises(WebSocketException, match="closed"):
        receiving()
    assert connection.close_frame is None
