"""Any stream in any cut: the parser says what the reference says, and nothing but its `error` tells of a failure."""

from __future__ import annotations

import itertools

from harness import Input, instrumented, pieces, run

with instrumented():
    from tests.reference import Outcome, Reference
    from websocket._abnf import encode_frame
    from websocket._exceptions import WebSocketPayloadException, WebSocketProtocolException
    from websocket._parser import Parser

LIMITS = (None, 0, 10, 130, 65534, 65535, 100_000)
# Beside the boundaries of the length field; the reference is slow, so one of them for each input.
LONG = (126, 65534, 65535, 65536, 65537)
ERRORS = {
    0: type(None),
    1002: WebSocketProtocolException,
    1007: (WebSocketPayloadException, WebSocketProtocolException),
    1009: WebSocketPayloadException,
}


def frames(source: Input, server: bool) -> bytes:
    """The input as frames whose lengths are right: first byte, length, key where there is one, payload."""
    parts = []
    long_ones = 1
    while source:
        first_byte, size = source.byte(), source.byte()
        key = (source.take(4) + bytes(4))[:4] if server else None
        if size >= 0xF8 and long_ones:
            long_ones -= 1
            length, unit = LONG[size % len(LONG)], source.take(8) or b"x"
            payload = (unit * (length // len(unit) + 1))[:length]
        else:
            payload = source.take(size & 0x7F)
        parts.append(encode_frame(first_byte, payload, key))
    return b"".join(parts)


def target(data: bytes) -> None:
    source = Input(data)
    server, fragments, skip, framed = source.flags(4)
    options = {
        "server": server,
        "fire_cont_frame": fragments,
        "skip_utf8_validation": skip,
        "max_message_size": source.choice(LIMITS),
    }
    steps = source.cuts()
    stream = frames(source, server) if framed else source.rest()
    expected = Reference(stream, **options)
    # More than some thousand pieces say nothing that fewer do not.
    step = max(len(stream) // 2000, 1)
    cuts = list(itertools.accumulate(map(len, pieces(stream, [one * step for one in steps]))))[:-1]
    for each in ([], cuts):
        outcome = Outcome(stream, each, **options)
        assert outcome.all == expected.all, (options, stream, each, outcome.all, expected.all)
        assert isinstance(outcome.parser.error, ERRORS[expected.error_code]), outcome.parser.error
        if not expected.error_code and not expected.closed:
            assert outcome.at_boundary is expected.at_boundary, (options, stream, each)
        assert_ended(outcome.parser)


def assert_ended(parser: Parser) -> None:
    if parser.error is not None or parser.closed:
        assert parser.feed(b"\x81\x00\x89\x00") == []
        assert parser.controls == []


def seed(flags: int, limit: int, cuts: bytes, stream: bytes) -> bytes:
    return bytes([flags, limit]) + cuts + stream


MIXED = b"".join(
    [
        *(b"\x81\x05hello", b"\x82\x03\x00\x01\x02", b"\x01\x01\xe2", b"\x89\x01p", b"\x00\x01\x82", b"\x80\x01\xac"),
        *(b"\x82\x7e\x00\x80" + bytes(128), b"\x8a\x00", b"\x88\x05\x03\xe8bye"),
    ]
)
SEEDS = [
    seed(0, 0, b"\x00", MIXED),
    seed(0, 3, b"\x07", MIXED),
    seed(2, 0, b"\x02\x03\x05", MIXED),
    seed(4, 5, b"\x01\x04", MIXED),
    seed(
        1,
        0,
        b"\x03\x01\x02\x03",
        b"\x81\x85abcd\x09\x07\x0f\x08\x0e" + b"\x89\x80\0\0\0\0" + b"\x88\x82\0\0\0\0\x03\xe8",
    ),
    seed(8, 6, b"\x00", b"\x81\x05hello" + b"\x02\xf9abcdefgh" + b"\x80\x02ij" + b"\x88\x02\x03\xe8"),
    seed(9, 0, b"\x07", b"\x01\x02keyz\xed\x9f" + b"\x80\x01keyz\xbf" + b"\x89\x7dkeyz" + bytes(125)),
    seed(0, 0, b"\x00", b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"abc"),
]

if __name__ == "__main__":
    run(target, SEEDS)
