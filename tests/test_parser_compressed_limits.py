"""What a compressed message may cost: the limit on its size while it inflates, and memory."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest

from websocket import WebSocketPayloadException
from websocket._deflate import Agreement, Deflater, Inflater
from websocket._parser import Parser

from .test_parser_compressed import AGREED, BINARY, FIRST_BINARY, MIDDLE, RSV1, TEXT, Compressing, Outcome, f

MIB = 1024 * 1024


def bomb(size: int) -> bytes:
    """The payload of a message of so many zeros."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    return (block * (size // MIB))[:-4]


@pytest.mark.parametrize("first_byte", [TEXT, BINARY])
@pytest.mark.parametrize("at_once", [16 * 1024, 64 * 1024, 1 << 30])
def test_a_bomb_of_a_gigabyte_ends_at_the_limit(first_byte: int, at_once: int) -> None:
    frame = f(RSV1 | first_byte, bomb(1024 * MIB))
    assert len(frame) < 2 * MIB
    parser = Parser(inflater=Inflater(AGREED))
    tracemalloc.start()
    try:
        for at in range(0, len(frame), at_once):
            assert parser.feed(frame[at : at + at_once]) == []
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()
    assert isinstance(parser.error, WebSocketPayloadException)
    assert "max_message_size=67108864" in str(parser.error)
    assert parser.error_code == 1009


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 5000])
@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("noise", [False, True])
def test_the_limit_is_one_of_the_message_itself(size: int, pieces: int, noise: bool) -> None:
    data = random.Random(size).randbytes(size) if noise else bytes(size)
    for first in (FIRST_BINARY, BINARY):
        server = Compressing()
        whole = server.whole(BINARY, b"before")
        stream = server.cut(first, data, size=pieces) if first == FIRST_BINARY else server.whole(BINARY, data)
        outcome = Outcome(whole + stream, list(range(1, len(whole + stream))), max_message_size=100)
        if size <= 100:
            assert outcome.events == [b"before", data]
            assert outcome.error_code == 0
        else:
            assert outcome.events == [b"before"]
            assert outcome.error_code == 1009
            assert isinstance(outcome.error, WebSocketPayloadException)


@pytest.mark.parametrize("level", [0, 9])
def test_a_message_of_exactly_the_limit_comes_however_it_grows_by_compressing(level: int) -> None:
    """Noise gets larger: stored blocks have headers of their own."""
    for size in (1, 100, 100_000, 3 * MIB):
        data = random.Random(size).randbytes(size)
        payload = Deflater(Agreement(15, False, 15, level, 8, 0)).message(data)
        assert len(payload) > size
        for limit, events, code in ((size, [data], 0), (size - 1 or 1, [] if size > 1 else [data], 1009)):
            outcome = Outcome(f(RSV1 | BINARY, payload), max_message_size=limit)
            assert outcome.events == events
            assert outcome.error_code == (code if not events else 0)


def test_a_frame_that_is_announced_far_beyond_the_limit_is_refused_before_it_comes() -> None:
    header = f(RSV1 | BINARY, bytes(200_000))[:10]
    assert Outcome(header, max_message_size=100_000).error_code == 1009
    assert Outcome(header, max_message_size=300_000).error_code == 0
    assert Outcome(b"\xc2\x7f" + (1 << 62).to_bytes(8, "big")).error_code == 1009
    assert Outcome(b"\xc2\x7f" + (1 << 63).to_bytes(8, "big"), max_message_size=None).error_code == 1002
    fragments = f(RSV1 | FIRST_BINARY, b"\x00\x00\x00\xff\xff") + f(MIDDLE, b"\x00\x00\xff\xff\x00" * 15_000)
    assert Outcome(fragments, max_message_size=10_000).error_code == 1009, "though it gives nothing"


def test_the_limit_counts_each_message_anew() -> None:
    server = Compressing()
    stream = b"".join(server.whole(TEXT, b"x" * 90) for _ in range(50))
    assert Outcome(stream, max_message_size=100).events == ["x" * 90] * 50


def test_without_a_limit_there_is_none() -> None:
    outcome = Outcome(f(RSV1 | BINARY, bomb(80 * MIB)), max_message_size=None)
    assert outcome.events == [bytes(80 * MIB)]


def test_a_part_is_of_a_bounded_size_where_no_more_is_fed_at_once_than_is_said() -> None:
    frame = f(RSV1 | BINARY, bomb(256 * MIB))
    parser = Parser(max_message_size=None, inflater=Inflater(AGREED), parts_from=0)
    most = parser.most_at_once
    assert most is not None
    total = 0
    tracemalloc.start()
    try:
        for at in range(0, len(frame), most):
            parser.feed(frame[at : at + most])
            for _, part in parser.parts:
                total += 0 if part is None else len(part)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert total == 256 * MIB
    assert parser.error is None
