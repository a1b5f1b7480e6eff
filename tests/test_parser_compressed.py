"""The parser where permessage-deflate was agreed on: which frames may be compressed, and what their payloads give."""

from __future__ import annotations

import random
from typing import Any

import pytest

from websocket import ABNF, WebSocketPayloadException, WebSocketProtocolException
from websocket._abnf import encode_frame
from websocket._deflate import Agreement, Deflater, Inflater
from websocket._message import Fragment, MessageInParts, RawText
from websocket._parser import Parser

TEXT, BINARY, CONT = 0x81, 0x82, 0x80
CLOSE, PING, PONG = 0x88, 0x89, 0x8A
FIRST_TEXT, FIRST_BINARY, MIDDLE = 0x01, 0x02, 0x00
RSV1 = 0x40
AGREED = Agreement(15, False, 15, 3, 8, 0)
KEY = b"\x01\x02\x03\x04"


def f(first_byte: int, payload: bytes = b"", key: bytes | None = None) -> bytes:
    return encode_frame(first_byte, payload, key)


class Compressing:
    """Makes the frames of a server that compresses."""

    def __init__(self, key: bytes | None = None) -> None:
        self._deflater = Deflater(AGREED)
        self._key = key

    def whole(self, first_byte: int, data: bytes) -> bytes:
        return f(RSV1 | first_byte, self._deflater.message(data), self._key)

    def cut(self, opcode: int, data: bytes, *between: bytes, size: int = 3) -> bytes:
        """One message as fragments of so many bytes, which are no blocks, with frames between them."""
        payload = self._deflater.message(data)
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        frames = []
        for number, piece in enumerate(pieces):
            first = (RSV1 | opcode if number == 0 else 0) | (0x80 if number == len(pieces) - 1 else 0)
            frames.append(f(first, piece, self._key))
            frames += between if number < len(pieces) - 1 else ()
        return b"".join(frames)


class Outcome:
    """All that a parser said about a stream: messages, parts and control frames in their order, and how it ended."""

    def __init__(self, stream: bytes, cuts: list[int] | None = None, **options: Any) -> None:
        options.setdefault("inflater", Inflater(AGREED))
        self.parser = parser = Parser(**options)
        self.events: list[Any] = []
        self.inflated = 0
        in_parts: dict[int, list[Any]] = {}
        start = 0
        for cut in [*(cuts or []), len(stream)]:
            messages = parser.feed(stream[start:cut])
            start = cut
            self.inflated += parser.inflated
            items: list[tuple[int, Any]] = [(number, message) for number, message in enumerate(messages)]
            for position, control in parser.controls:
                items.append((position - 0.5, (control.opcode, control.data)))  # type: ignore[arg-type]
            for _, item in sorted(items, key=lambda pair: pair[0]):
                if isinstance(item, MessageInParts):
                    in_parts[id(item)] = joined = ["parts", item.opcode]
                    item.taken.append(item)  # a cycle, so that its id stays its own
                    self.events.append(joined)
                else:
                    self.events.append(self._plain(item))
            for message, part in parser.parts:
                in_parts[id(message)].append(part)
        self.error = parser.error
        self.error_code = parser.error_code
        for joined in in_parts.values():
            pieces = [piece for piece in joined[2:] if piece is not None]
            whole = joined[-1] is None
            joined[2:] = [pieces[0][:0].join(pieces) if pieces else None, whole]

    @staticmethod
    def _plain(message: Any) -> Any:
        if isinstance(message, Fragment):
            return ("fragment", message.opcode, message.fin, message.data, message.text)
        return ("raw", bytes(message)) if isinstance(message, RawText) else message


def any_cut(stream: bytes, **options: Any) -> Outcome:
    """The outcome, which is the same in every cut in two, byte by byte, and in many at random."""
    expected = Outcome(stream, **options)
    choose = random.Random(len(stream))
    cuts = [[cut] for cut in range(1, len(stream), 1 + len(stream) // 300)]
    cuts.append(list(range(1, len(stream))))
    cuts += [sorted(choose.choices(range(len(stream)), k=choose.randrange(1, 20))) for _ in range(50)]
    for cut in cuts:
        options["inflater"] = None if options.get("inflater", True) is None else Inflater(AGREED)
        outcome = Outcome(stream, cut, **options)
        assert (outcome.events, outcome.error_code) == (expected.events, expected.error_code), cut
    return expected


def mixed(key: bytes | None = None) -> tuple[bytes, list[Any]]:
    """Compressed and plain messages, whole and in fragments, with control frames between and within them."""
    server = Compressing(key)
    text, data = "zażółć €😀 " * 30, bytes(range(256)) * 3
    ping = f(PING, b"now", key)
    stream = [
        (server.whole(TEXT, text.encode()), [text]),
        (f(TEXT, b"plain", key), ["plain"]),
        (server.whole(BINARY, data), [data]),
        (ping, [(ABNF.OPCODE_PING, b"now")]),
        (server.cut(FIRST_TEXT, text.encode(), size=4), [text]),
        (server.whole(TEXT, b""), [""]),
        (f(FIRST_BINARY, b"in ", key) + f(CONT, b"plain pieces", key), [b"in plain pieces"]),
        (server.cut(FIRST_BINARY, data[::-1], size=200), [data[::-1]]),
        (server.whole(BINARY, b""), [b""]),
        (f(RSV1 | FIRST_TEXT, b"", key) + f(CONT, b"\x00", key), [""]),
        (f(BINARY, data, key), [data]),
        (server.whole(BINARY, data), [data]),
        (f(CLOSE, b"\x03\xe8", key), [(ABNF.OPCODE_CLOSE, b"\x03\xe8")]),
    ]
    return b"".join(part for part, _ in stream), [event for _, events in stream for event in events]


@pytest.mark.parametrize("key", [None, KEY])
def test_compressed_and_plain_messages_mix_in_any_cut(key: bytes | None) -> None:
    stream, events = mixed(key)
    outcome = any_cut(stream, server=key is not None)
    assert outcome.events == events
    assert outcome.error is None
    assert outcome.parser.closed


def test_control_frames_come_between_compressed_fragments() -> None:
    server = Compressing()
    message = random.Random(5).randbytes(50)
    stream = server.cut(FIRST_BINARY, message, f(PING, b"!"), f(PONG), size=30) + server.whole(TEXT, b"next")
    outcome = any_cut(stream)
    assert outcome.events == [(ABNF.OPCODE_PING, b"!"), (ABNF.OPCODE_PONG, b""), message, "next"]


@pytest.mark.parametrize("limit", [1 << 26, None, 1000])
def test_every_byte_that_a_message_has_grown_by_is_counted(limit: int | None) -> None:
    stream = Compressing().whole(BINARY, bytes(900)) + f(BINARY, b"plain")
    outcome = Outcome(stream, list(range(1, len(stream))), max_message_size=limit)
    assert outcome.inflated == 900 - (len(stream) - 2 - 7)


# ---- which frames may have which bits ----

VIOLATIONS = {
    "RSV1 on a continuation": f(RSV1 | FIRST_TEXT, b"\x00") + f(RSV1 | CONT, b"\x00"),
    "RSV1 on a continuation of a plain message": f(FIRST_TEXT, b"x") + f(RSV1 | CONT, b"\x00"),
    "RSV1 on a ping": f(RSV1 | PING),
    "RSV1 on a pong": f(RSV1 | PONG),
    "RSV1 on a close frame": f(RSV1 | CLOSE),
    "RSV1 on an unknown opcode": f(RSV1 | 0x83),
    "RSV1 on an unknown control frame": f(RSV1 | 0x8B),
    "a compressed message within a message": f(RSV1 | FIRST_TEXT, b"\x00") + f(RSV1 | TEXT, b"\x00"),
    "RSV2": f(0x20 | TEXT),
    "RSV3": f(0x10 | BINARY),
    "RSV1 and RSV2": f(0x60 | TEXT, b"\x00"),
    "RSV1 and RSV3": f(0x50 | BINARY, b"\x00"),
    "RSV2 on a ping": f(0x20 | PING),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_bits_where_they_must_not_be_break_the_protocol(what: str) -> None:
    outcome = any_cut(f(TEXT, b"before") + VIOLATIONS[what] + f(TEXT, b"after"))
    assert outcome.events == ["before"]
    assert isinstance(outcome.error, WebSocketProtocolException)
    assert outcome.error_code == 1002


@pytest.mark.parametrize("first_byte", [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY])
def test_a_compressed_message_breaks_the_protocol_where_nothing_was_agreed(first_byte: int) -> None:
    outcome = any_cut(Compressing().whole(first_byte, b"x"), inflater=None)
    assert outcome.events == []
    assert isinstance(outcome.error, WebSocketProtocolException)
    assert "no extension was negotiated" in str(outcome.error)
    assert outcome.error_code == 1002


# ---- what the payload gives ----

NOT_UTF8 = [b"caf\xe9", b"\xc0\x80", b"\xed\xa0\x80", b"x" * 1000 + b"\xff", b"half \xe2\x82", b"\xf4\x90\x80\x80"]


@pytest.mark.parametrize("data", NOT_UTF8)
def test_text_must_be_utf8_once_it_is_inflated(data: bytes) -> None:
    for stream in (Compressing().whole(TEXT, data), Compressing().cut(FIRST_TEXT, data, f(PING))):
        outcome = any_cut(f(TEXT, b"before") + stream)
        assert [event for event in outcome.events if event != (ABNF.OPCODE_PING, b"")] == ["before"]
        assert isinstance(outcome.error, WebSocketPayloadException)
        assert outcome.error_code == 1007
    assert any_cut(Compressing().whole(BINARY, data)).events == [data]
    assert any_cut(Compressing().whole(TEXT, data), skip_utf8_validation=True).events == [("raw", data)]


@pytest.mark.parametrize("garbage", [b"\xff" * 10, b"\x00\x01\x00\x00\x00x", b"\xf2\x00\x11\x00\x00", b"\x07"])
@pytest.mark.parametrize("first_byte", [TEXT, BINARY])
def test_what_cannot_be_inflated_is_a_bad_payload(garbage: bytes, first_byte: int) -> None:
    outcome = any_cut(f(TEXT, b"before") + f(RSV1 | first_byte, garbage) + f(TEXT, b"after"))
    assert outcome.events == ["before"]
    assert isinstance(outcome.error, WebSocketPayloadException)
    assert "cannot be inflated" in str(outcome.error)
    assert outcome.error_code == 1007
    assert outcome.parser.feed(f(TEXT, b"more")) == []


# ---- other ways to get messages ----


def test_fragments_that_are_asked_for_come_inflated() -> None:
    deflater = Deflater(AGREED)
    frames = [
        f(RSV1 | FIRST_TEXT, deflater.part("h€".encode())),
        f(MIDDLE, deflater.part("€ 1".encode()[:4])),
        f(PING),
        f(MIDDLE),
        f(CONT, deflater.end()),
        f(RSV1 | BINARY, deflater.message(b"whole")),
        f(FIRST_BINARY, b"pl"),
        f(CONT, b"ain"),
        f(RSV1 | FIRST_BINARY, (payload := deflater.message(b"cut where no block ends"))[:-2]),
        f(CONT, payload[-2:]),
    ]
    outcome = any_cut(b"".join(frames), fire_cont_frame=True)
    fragments = outcome.events
    assert fragments[:4] == [
        ("fragment", ABNF.OPCODE_TEXT, 0, "h€".encode(), "h€"),
        ("fragment", ABNF.OPCODE_CONT, 0, "€ ".encode(), "€ "),
        (ABNF.OPCODE_PING, b""),
        ("fragment", ABNF.OPCODE_CONT, 0, b"", ""),
    ]
    assert fragments[4:8] == [
        ("fragment", ABNF.OPCODE_CONT, 1, b"", ""),
        ("fragment", ABNF.OPCODE_BINARY, 1, b"whole", None),
        ("fragment", ABNF.OPCODE_BINARY, 0, b"pl", None),
        ("fragment", ABNF.OPCODE_CONT, 1, b"ain", None),
    ]
    first, last = fragments[8:]
    assert (first[1:3], last[1:3]) == ((ABNF.OPCODE_BINARY, 0), (ABNF.OPCODE_CONT, 1))
    assert first[3] + last[3] == b"cut where no block ends"


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("start", [0, 1000, 20_000])
def test_parts_of_a_compressed_message_are_those_of_the_message(start: int, skip: bool) -> None:
    server = Compressing()
    text = "".join(random.Random(6).choices("aé€😀", k=6000))
    stream = server.cut(FIRST_TEXT, text.encode(), f(PING), size=997) + server.whole(BINARY, b"z" * 30_000)
    cuts = list(range(100, len(stream), 100))
    outcome = Outcome(stream, cuts, parts_from=start, skip_utf8_validation=skip)
    events = [event for event in outcome.events if event != (ABNF.OPCODE_PING, b"")]
    assert outcome.error is None
    whole: Any = text.encode() if skip else text
    expected = ["parts", ABNF.OPCODE_TEXT, whole, True] if start < len(text.encode()) else whole
    assert events[0] == (expected if isinstance(expected, list) or not skip else ("raw", whole))
    assert events[-1] in ([*["parts", ABNF.OPCODE_BINARY], b"z" * 30_000, True], b"z" * 30_000)


def test_no_compressed_payload_is_received_as_a_large_plain_one() -> None:
    parser = Parser(inflater=Inflater(AGREED))
    payload = Deflater(AGREED).message(random.Random(7).randbytes(300_000))
    frame = f(RSV1 | BINARY, payload)
    parser.feed(frame[:20])
    assert parser.place() is None
    assert parser.feed(frame[20:]) == [random.Random(7).randbytes(300_000)]
    assert not parser.expects_large_payload()
    parser.feed(f(BINARY, bytes(300_000))[:10])
    assert parser.place() is not None
