"""Bytes in, messages out: the order of things, the rules that are broken, and the limits."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from websocket import ABNF, WebSocketException, WebSocketPayloadException, WebSocketProtocolException
from websocket._abnf import encode_frame
from websocket._message import MessageInParts
from websocket._parser import LARGE_PAYLOAD, Parser

from .reference import Outcome

TEXT, BINARY, CONT = 0x81, 0x82, 0x80
CLOSE, PING, PONG = 0x88, 0x89, 0x8A
FIRST_TEXT, FIRST_BINARY, MIDDLE = 0x01, 0x02, 0x00


def f(first_byte: int, payload: bytes | str = b"", key: bytes | None = None) -> bytes:
    return encode_frame(first_byte, payload.encode() if isinstance(payload, str) else payload, key)


# Every kind of frame in one stream; fragments with control frames and split characters between them.
MIXED = b"".join(
    [
        f(TEXT, "zażółć"),
        f(BINARY, bytes(range(200))),
        f(TEXT),
        f(FIRST_TEXT, "€".encode()[:1]),
        f(PING, b"now"),
        f(MIDDLE, "€".encode()[1:2]),
        f(MIDDLE),
        f(PONG),
        f(CONT, "€".encode()[2:] + b"!"),
        f(BINARY, b"x" * 126),
        f(FIRST_BINARY),
        f(CONT),
        f(TEXT, "😀" * 40),
        f(CLOSE, b"\x03\xe8bye"),
        b"\xff\xff nothing after a close is looked at",
    ]
)
MIXED_EVENTS = [
    *("zażółć", bytes(range(200)), "", (ABNF.OPCODE_PING, b"now"), (ABNF.OPCODE_PONG, b"")),
    *("€!", b"x" * 126, b"", "😀" * 40, (ABNF.OPCODE_CLOSE, b"\x03\xe8bye")),
]


# ---- any cut


def test_a_stream_in_one_piece_gives_its_messages_in_order() -> None:
    outcome = Outcome(MIXED)
    assert outcome.events == MIXED_EVENTS
    assert (outcome.parser.error, outcome.error_code, outcome.closed) == (None, 0, True)


def test_a_stream_cut_once_gives_the_same() -> None:
    for cut in range(1, len(MIXED)):
        assert Outcome(MIXED, [cut]).all == (MIXED_EVENTS, 0, True), f"cut at {cut}"


def test_a_stream_byte_by_byte_gives_the_same() -> None:
    assert Outcome(MIXED, list(range(1, len(MIXED)))).all == (MIXED_EVENTS, 0, True)


def test_a_stream_cut_at_random_gives_the_same() -> None:
    for seed in range(300):
        cuts = sorted(random.Random(seed).sample(range(1, len(MIXED)), 1 + seed % 20))
        assert Outcome(MIXED, cuts).all == (MIXED_EVENTS, 0, True), f"cut at {cuts}"


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 65537, 200_001])
def test_a_message_on_each_side_of_a_length_boundary_arrives_in_any_cut(size: int) -> None:
    generator = random.Random(size)
    payload = generator.randbytes(size)
    stream = f(BINARY, payload) + f(TEXT, "ż" * (size // 2)) + f(BINARY, b"end")
    expected = [payload, "ż" * (size // 2), b"end"]
    assert Outcome(stream).events == expected
    for _ in range(5):
        cuts = sorted(generator.sample(range(1, len(stream)), 10))
        assert Outcome(stream, cuts).events == expected


def test_controls_say_how_many_messages_came_before_them() -> None:
    parser = Parser()
    messages = parser.feed(f(PING, b"a") + f(TEXT, "1") + f(TEXT, "2") + f(PONG, b"b") + f(PING, b"c") + f(TEXT, "3"))
    assert messages == ["1", "2", "3"]
    assert [(count, frame.opcode, frame.data) for count, frame in parser.controls] == [
        (0, ABNF.OPCODE_PING, b"a"),
        (2, ABNF.OPCODE_PONG, b"b"),
        (2, ABNF.OPCODE_PING, b"c"),
    ]
    parser.feed(b"")
    assert parser.controls == []  # of these bytes only


# ---- closing


@pytest.mark.parametrize(
    "payload", [b"", b"\x03\xe8", b"\x03\xf6", b"\x0b\xb8", b"\x13\x87", b"\x03\xe8" + "ż".encode() * 61]
)
def test_a_valid_close_frame_closes(payload: bytes) -> None:
    outcome = Outcome(f(TEXT, "last") + f(CLOSE, payload) + f(TEXT, "late"))
    assert outcome.all == (["last", (ABNF.OPCODE_CLOSE, payload)], 0, True)


def test_nothing_after_a_close_frame_is_looked_at_in_later_feeds() -> None:
    parser = Parser()
    parser.feed(f(CLOSE))
    assert parser.feed(b"\xff" * 10 + f(TEXT, "late")) == []
    assert (parser.error, parser.controls) == (None, [])


def test_a_close_frame_may_come_within_a_fragmented_message() -> None:
    assert Outcome(f(FIRST_TEXT, "half") + f(CLOSE)).all == ([(ABNF.OPCODE_CLOSE, b"")], 0, True)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_must_not_be_on_the_wire_is_refused(code: int) -> None:
    outcome = Outcome(f(TEXT, "a") + f(CLOSE, code.to_bytes(2, "big") + b"why"))
    assert outcome.all == (["a"], 1002, False)
    assert str(code) in str(outcome.parser.error)


def test_a_close_frame_of_one_byte_is_refused() -> None:
    assert Outcome(f(TEXT, "a") + f(CLOSE, b"\x03")).all == (["a"], 1002, False)
    assert Outcome(f(CLOSE, b"\x03")[:2]).error_code == 1002, "its header says so already"


@pytest.mark.parametrize("reason", [b"\xff", b"a\xc5", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_a_close_reason_that_is_not_utf8_is_refused(reason: bytes) -> None:
    outcome = Outcome(f(TEXT, "a") + f(CLOSE, b"\x03\xe8" + reason))
    assert outcome.all == (["a"], 1007, False)
    assert isinstance(outcome.parser.error, WebSocketException)


# ---- violations

VIOLATIONS = {
    "rsv1": b"\xc1\x00",
    "rsv2": b"\xa1\x00",
    "rsv3": b"\x91\x00",
    "rsv of a control frame": b"\xc9\x00",
    "rsv of a continuation": f(FIRST_TEXT, "a") + b"\x90\x00",
    **{f"opcode {opcode:x}": bytes([0x80 | opcode, 0]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "masked text": f(TEXT, "a", b"abcd"),
    "masked ping": f(PING, b"", b"\0\0\0\0"),
    "fragmented close": b"\x08\x00",
    "fragmented ping": b"\x09\x00",
    "fragmented pong": b"\x0a\x00",
    "ping of 126 bytes": f(PING, bytes(126)),
    "pong with a long length": b"\x8a\x7f" + bytes(8),
    "close of 126 bytes": f(CLOSE, b"\x03\xe8" + b"x" * 124),
    "nothing to continue": f(CONT, "a"),
    "nothing to continue, more to come": f(MIDDLE, "a"),
    "continuation after the end": f(FIRST_TEXT, "a") + f(CONT, "b") + f(CONT, "c"),
    "text within a text": f(FIRST_TEXT, "a") + f(TEXT, "b"),
    "binary within a text": f(FIRST_TEXT, "a") + f(FIRST_BINARY, "b"),
    "text within a binary": f(FIRST_BINARY, "a") + f(PING) + f(TEXT, "b"),
    "64-bit length with its highest bit": b"\x82\x7f\x80" + bytes(7),
    "64-bit length of ones": b"\x82\x7f" + b"\xff" * 8,
}


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("limit", [None, 2**26])
def test_a_violation_is_a_protocol_error_and_what_came_before_it_counts(name: str, limit: int | None) -> None:
    stream = f(TEXT, "before") + f(PING, b"p") + VIOLATIONS[name] + f(TEXT, "after")
    for cuts in ([], list(range(1, len(stream)))):
        outcome = Outcome(stream, cuts, max_message_size=limit)
        events = [event for event in outcome.events if event not in ("ab", (ABNF.OPCODE_PING, b""))]
        assert events == ["before", (ABNF.OPCODE_PING, b"p")]
        assert (outcome.error_code, outcome.closed) == (1002, False)
        assert isinstance(outcome.parser.error, WebSocketProtocolException)
        assert outcome.parser.feed(f(TEXT, "still")) == []


@pytest.mark.parametrize("header", [b"\xc1", b"\x83", b"\x89", b"\x80"])
def test_two_bytes_are_enough_to_see_a_violation(header: bytes) -> None:
    second = b"\x7e" if header == b"\x89" else b"\x05"
    assert Outcome(header + second).error_code == 1002


# ---- max_message_size


@pytest.mark.parametrize("limit", [0, 1, 10, 125, 126, 65534, 65535, 65536, 100_000])
@pytest.mark.parametrize("first_byte", [TEXT, BINARY])
def test_a_message_as_long_as_the_limit_is_taken_and_one_byte_more_is_not(limit: int, first_byte: int) -> None:
    payload = b"x" * limit
    expected = payload.decode() if first_byte == TEXT else payload
    assert Outcome(f(first_byte, payload) * 2, max_message_size=limit).all == ([expected] * 2, 0, False)
    outcome = Outcome(f(first_byte, payload) + f(first_byte, payload + b"x"), max_message_size=limit)
    assert outcome.all == ([expected], 1009, False)
    assert isinstance(outcome.parser.error, WebSocketPayloadException)
    assert str(limit) in str(outcome.parser.error)


def test_the_header_alone_shows_that_a_message_is_too_big() -> None:
    assert Outcome(f(BINARY, bytes(101))[:2], max_message_size=100).error_code == 1009
    assert Outcome(b"\x82\x7f" + (2**62).to_bytes(8, "big")).error_code == 1009
    assert Outcome(b"\x82\x7e\xff", max_message_size=100).error_code == 0  # the length is not whole yet


def test_the_limit_counts_all_fragments_of_a_message() -> None:
    fragments = f(FIRST_BINARY, b"x" * 60) + f(PING, bytes(100)) + f(MIDDLE, b"y" * 40)
    assert Outcome(fragments + f(CONT), max_message_size=100).events[-1] == b"x" * 60 + b"y" * 40
    assert Outcome(fragments + f(CONT, b"z"), max_message_size=100).error_code == 1009
    twice = Outcome((fragments + f(CONT)) * 2, max_message_size=100)
    assert twice.error_code == 0, "the count starts anew with each message"


@pytest.mark.parametrize("fire_cont_frame", [False, True])
def test_the_limit_holds_in_bytes_for_text(fire_cont_frame: bool) -> None:
    options: dict[str, Any] = {"max_message_size": 10, "fire_cont_frame": fire_cont_frame}
    assert Outcome(f(FIRST_TEXT, "żżż") + f(CONT, "żż"), **options).error_code == 0
    assert Outcome(f(FIRST_TEXT, "żżż") + f(CONT, "żżx"), **options).error_code == 1009


def test_without_a_limit_any_length_is_taken() -> None:
    outcome = Outcome(b"\x82\x7f" + (2**63 - 1).to_bytes(8, "big") + bytes(1000), max_message_size=None)
    assert (outcome.error_code, outcome.at_boundary) == (0, False)


# ---- where a stream may end, and what to ask for next


def test_only_between_messages_is_a_message_boundary() -> None:
    parser = Parser()
    assert parser.at_message_boundary()
    for data, boundary in [
        (b"\x81", False),
        (b"\x02a", False),
        (b"b", True),
        (f(FIRST_TEXT, "a"), False),
        (f(PING), False),
        (f(CONT), True),
        (b"\x89\x01", False),
        (b"p", True),
        (f(TEXT, "x") + b"\x82\x7f\x00", False),
    ]:
        parser.feed(data)
        assert parser.at_message_boundary() is boundary, data


def land(parser: Parser, data: bytes) -> list[Any]:
    """Give bytes to a parser that has a place for them."""
    place = parser.place()
    assert place is not None
    place[: len(data)] = data
    return parser.landed(len(data))


def test_a_large_binary_payload_is_received_into_place() -> None:
    payload = random.Random(1).randbytes(3 * LARGE_PAYLOAD)
    frame = f(BINARY, payload)
    parser = Parser()
    assert parser.place() is None
    for begun in (10, 10 + 1000):  # the header alone, and with what came behind it
        parser.feed(frame[:begun])
        place = parser.place()
        assert place is not None
        assert len(place) == len(frame) - begun
        assert land(parser, frame[begun : begun + 5]) == []
        assert not parser.at_message_boundary()
        assert land(parser, frame[begun + 5 :]) == [payload]
        assert parser.at_message_boundary()
        assert parser.place() is None
        assert parser.expects_large_payload(), "a header, so that the next large payload is received into place too"
    assert parser.feed(f(TEXT, "small")) == ["small"]
    assert not parser.expects_large_payload()


def test_a_large_payload_in_fragments_with_a_ping_between_is_received_into_place() -> None:
    first, second = (random.Random(seed).randbytes(LARGE_PAYLOAD + 100) for seed in (1, 2))
    parser = Parser()
    parser.feed(f(FIRST_BINARY, first)[:10])
    assert land(parser, first) == []
    assert parser.feed(f(PING, "p")) == []
    assert [frame.data for _, frame in parser.controls] == [b"p"]
    parser.feed(f(CONT, second)[:10])
    assert land(parser, second) == [first + second]


def test_a_large_payload_that_is_fed_all_the_same_is_whole() -> None:
    payload = random.Random(1).randbytes(3 * LARGE_PAYLOAD)
    parser = Parser()
    frame = f(BINARY, payload)
    parser.feed(frame[:1000])
    assert land(parser, frame[1000:1005]) == []
    assert parser.feed(frame[1005:2000]) == []
    assert parser.place() is None
    assert parser.feed(frame[2000:] + f(TEXT, "next")) == [payload, "next"]


def test_what_has_landed_is_handed_over_when_it_is_wanted() -> None:
    payload = random.Random(1).randbytes(3 * LARGE_PAYLOAD)
    parser = Parser()
    parser.feed(f(BINARY, payload)[:10])
    assert land(parser, payload[:1000]) == []
    parser.parts_from = 0
    (message,) = parser.feed(b"")
    parts = [part for _, part in parser.parts]
    for start in range(1000, len(payload), 50_000):
        assert land(parser, payload[start : start + 50_000]) == []
        parts += [part for _, part in parser.parts]
    assert parts.pop() is None
    assert b"".join(parts) == payload
    assert isinstance(message, MessageInParts)


@pytest.mark.parametrize("first_byte", [TEXT, BINARY])
def test_small_messages_and_text_are_wanted_in_batches(first_byte: int) -> None:
    size = LARGE_PAYLOAD - 1 if first_byte == BINARY else 3 * LARGE_PAYLOAD
    parser = Parser()
    parser.feed(f(first_byte, bytes(size))[:10])
    assert parser.place() is None


# ---- many tiny fragments


@pytest.mark.parametrize(
    ("first", "piece"), [(FIRST_TEXT, "ż".encode()), (FIRST_TEXT, b"\xc5\xbca"), (FIRST_BINARY, b"x")]
)
@pytest.mark.parametrize("batch", [100, 10_000])
def test_a_message_of_200_000_tiny_fragments_costs_little_memory(first: int, piece: bytes, batch: int) -> None:
    count = 200_000
    parser = Parser()
    parser.feed(f(first))
    block = f(MIDDLE, piece) * batch
    tracemalloc.start()
    try:
        for _ in range(count // batch):
            parser.feed(block)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = piece * count
    assert parser.feed(f(CONT)) == [whole.decode() if first == FIRST_TEXT else whole]
    # As str with two bytes a character, with a little for each joined block; kept one by one it were 10 MB.
    assert held < 3 * len(whole) + 200_000, held
    assert peak < 6 * len(whole) + 2_000_000, peak


def test_200_000_empty_fragments_cost_no_memory() -> None:
    parser = Parser()
    parser.feed(f(FIRST_BINARY))
    block = f(MIDDLE) * 1000
    tracemalloc.start()
    try:
        for _ in range(200):
            parser.feed(block)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000
    assert parser.feed(f(CONT)) == [b""]
