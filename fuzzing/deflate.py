"""Streams with compressed messages in any cut: the parser gives what zlib gives of the whole, whatever is compressed,
fragmented, damaged, too long or handed over in parts."""

from __future__ import annotations

import zlib
from typing import Any

from harness import Input, instrumented, pieces, run

with instrumented():
    from tests.reference import Failure, Reference, utf8_state
    from websocket._abnf import encode_frame
    from websocket._deflate import Agreement, Inflater
    from websocket._exceptions import WebSocketPayloadException, WebSocketProtocolException
    from websocket._message import Fragment, MessageInParts, RawText
    from websocket._parser import Parser

TAIL = b"\x00\x00\xff\xff"
LIMITS = (None, 0, 10, 1000, 65535, 70_000, 1_100_000)
PARTS_FROM = (0, 1, 100, 5000, 70_000)
# Inflating gives 1 MiB at a time; one message that is longer for each input.
LONG = 2_100_000


class Failures(Failure):
    """Where a cut decides which of two wrongs is seen first, either of their codes is right."""

    def __init__(self, codes: set[int]) -> None:
        super().__init__(min(codes))
        self.codes = codes


class Plain(Reference):
    """Reference() where permessage-deflate is in use: all that is known of a message is inflated in one piece."""

    def __init__(self, stream: bytes, bits: int, **options: Any) -> None:
        self.bits = bits
        self.inflate = zlib.decompressobj(-bits)
        self.compressed = False
        self.announced = 0  # bytes of the message under way, by its frames
        self.growth = 0
        self.codes = {0}
        super().__init__(stream, **options)
        if self.error_code and self.codes == {0}:
            self.codes = {self.error_code}

    def frame(self) -> bool:
        data = self.stream
        if len(data) < 2:
            return False
        opcode, field = data[0] & 0x0F, data[1] & 0x7F
        if opcode not in (0, 1, 2) or data[1] >> 7 != self.server:
            return super().frame()  # a control frame, or an error
        if data[0] & 0x30 or (data[0] & 0x40 and not opcode) or bool(opcode) is bool(self.message_opcode):
            raise Failure(1002)
        fin, rsv1 = data[0] >> 7, bool(data[0] & 0x40)
        width = {126: 2, 127: 8}.get(field, 0)
        head = 2 + width + (4 if self.server else 0)
        if len(data) < head:
            return False
        length = int.from_bytes(data[2 : 2 + width], "big") if width else field
        if length >= 2**63:
            raise Failure(1002)
        if opcode:
            self.compressed, self.announced = rsv1, 0
        self.announced += length
        # What cannot be compressed becomes longer.
        slack = self.limit // 4 + 1024 if self.compressed and self.limit is not None else 0
        if self.limit is not None and self.announced > self.limit + slack:
            raise Failure(1009)
        self.message_opcode = opcode or self.message_opcode
        payload = data[head : head + length]
        if self.server:
            payload = unmasked(payload, data[head - 4 : head])
        start = len(self.message)
        self.take(payload)
        if len(payload) < length:
            return False
        if fin and self.compressed and self.announced:
            self.growth += len(TAIL)
            self.take(TAIL)
        if fin and self.is_text and text_state(self.message) != "whole":
            raise Failure(1007)
        if self.fragments:
            self.events.append(("fragment", opcode, fin, self.message[start:], self.new_text()))
        elif fin:
            self.events.append(self.whole_message())
        if fin:
            self.message_opcode, self.message, self.shown = 0, b"", 0
        self.stream = data[head + length :]
        return True

    @property
    def is_text(self) -> bool:
        return self.message_opcode == 1 and not self.skip_utf8

    def new_text(self) -> str | None:
        if not self.is_text:
            return None
        text = decodable(self.message[self.shown :])
        self.shown += len(text.encode())
        return text

    def take(self, payload: bytes) -> None:
        """More of the message under way. Raises Failures."""
        broken = False
        if self.compressed:
            self.growth -= len(payload)
            payload, broken = self.inflated(payload)
            self.growth += len(payload)
        self.message += payload
        codes = {1007} if broken or (self.is_text and text_state(self.message) == "bad") else set()
        if self.limit is not None and len(self.message) > self.limit:
            codes.add(1009)
        if codes:
            self.codes = codes
            raise Failures(codes)

    def inflated(self, data: bytes) -> tuple[bytes, bool]:
        """(what the data gives, whether there is an error behind it)."""
        output = b""
        while data:
            before = self.inflate.copy()
            try:
                output += self.inflate.decompress(data)
            except zlib.error:
                return output + up_to_the_error(before, data), True
            data = self.inflate.unused_data
            if self.inflate.eof:
                self.inflate = zlib.decompressobj(-self.bits)
        return output, False

    @property
    def unfinished(self) -> str | bytes:
        """What is known of the message under way."""
        return decodable(self.message) if self.is_text else self.message


def unmasked(payload: bytes, key: bytes) -> bytes:
    whole = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ whole).to_bytes(len(payload), "big")


def up_to_the_error(inflate: Any, data: bytes) -> bytes:
    output = []
    for at in range(len(data)):
        try:
            output.append(inflate.decompress(data[at : at + 1]))
        except zlib.error:
            break
    return b"".join(output)


def text_state(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return utf8_state(data[error.start :])
    return "whole"


def decodable(data: bytes) -> str:
    """The text of data, but for a character that is not whole or not right."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()


class Given:
    """All that a parser gives for a stream; a message in parts is shown as if it had been given whole."""

    def __init__(self, cut: list[bytes], parser: Parser, skip_utf8: bool) -> None:
        self.skip_utf8 = skip_utf8
        events: list[Any] = []
        self.parts: dict[int, list[Any]] = {}
        self.growth = 0
        whole = set()
        for piece in cut:
            messages, taken = parser.feed(piece), 0
            for position, control in parser.controls:
                events += [*messages[taken:position], (control.opcode, control.data)]
                taken = position
            events += messages[taken:]
            for message, part in parser.parts:
                assert id(message) not in whole
                if part is None:
                    whole.add(id(message))
                else:
                    assert part, "an empty part"
                    self.parts.setdefault(id(message), []).append(part)
            self.growth += parser.inflated
        self.in_parts = [event for event in events if isinstance(event, MessageInParts)]
        begun = [message for message in self.in_parts if id(message) not in whole]
        self.unfinished = [self._joined(message) for message in begun]
        self.events = [self._shown(event) for event in events if event not in begun]

    def _joined(self, message: MessageInParts) -> Any:
        got = self.parts.get(id(message)) or ["" if message.opcode == 1 and not self.skip_utf8 else b""]
        assert len({type(part) for part in got}) == 1
        return got[0][:0].join(got)

    def _shown(self, event: Any) -> Any:
        if isinstance(event, Fragment):
            return ("fragment", event.opcode, event.fin, event.data, event.text)
        if isinstance(event, MessageInParts):
            joined = self._joined(event)
            return ("raw", joined) if event.opcode == 1 and self.skip_utf8 else joined
        return ("raw", bytes(event)) if isinstance(event, RawText) else event


ERRORS = {
    0: type(None),
    1002: WebSocketProtocolException,
    1007: (WebSocketPayloadException, WebSocketProtocolException),
    1009: WebSocketPayloadException,
}


def messages(source: Input, bits: int, server: bool) -> bytes:
    """The input as frames whose lengths are right, and most of which hold what their first byte says."""
    level, wanted = source.choice((1, 0, 6, 9)), max(bits, 9)
    compress = zlib.compressobj(level, zlib.DEFLATED, -wanted, 5)
    frames: list[bytes] = []
    most = LONG
    while source and len(frames) < 100:
        first_byte, how, unit = source.byte(), source.byte(), source.take(source.byte())
        count = source.number() if how & 8 else 1
        data = unit * min(count, most // max(len(unit), 1))
        if len(data) > 5000:
            most = 5000
        kind = how & 7
        if kind == 1:
            data = compress.compress(data) + compress.flush(zlib.Z_FULL_FLUSH)[: -len(TAIL)]
        elif kind == 2:
            data = compress.compress(data) + compress.flush(zlib.Z_FINISH) + b"\x00" * (how >> 7)
            compress = zlib.compressobj(level, zlib.DEFLATED, -wanted, 5)
        elif kind > 2 and first_byte & 0x40:
            data = compress.compress(data) + compress.flush(zlib.Z_SYNC_FLUSH)[: -len(TAIL)]
        if kind == 7 and data:  # damaged
            at = source.number() % len(data)
            data = data[:at] + bytes([source.byte()]) + data[at + 1 :]
        key = (source.take(4) + bytes(4))[:4] if server else None
        step = max(len(data) // ((how >> 4 & 3) + 1), 1)
        parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            byte = first_byte if number == 0 else first_byte & 0x80
            frames.append(encode_frame(byte if is_last else byte & 0x7F, part, key))
            if how & 0x40 and not is_last:
                frames.append(encode_frame(0x89, b"ping", key))
    return b"".join(frames)


def target(data: bytes) -> None:
    source = Input(data)
    server, fragments, skip, in_parts, framed = source.flags(5)
    bits = 8 + source.byte() % 8
    limit, parts_from = source.choice(LIMITS), source.choice(PARTS_FROM)
    steps = source.cuts()
    stream = messages(source, bits, server) if framed else source.rest()
    options = {"server": server, "max_message_size": limit, "skip_utf8_validation": skip, "fire_cont_frame": fragments}
    if fragments or not in_parts:
        parts_from = None
    expected = Plain(stream, bits, **options)
    # More than some hundred pieces say nothing that fewer do not.
    step = max(len(stream) // 300, 1)
    for cut in ([stream], pieces(stream, [one * step for one in steps])):
        inflater = Inflater(Agreement(15, False, bits, 1, 8, 0))
        parser = Parser(**options, inflater=inflater, parts_from=parts_from)
        given = Given(cut, parser, skip)
        check(expected, given, parser, parts_from)
        if parser.error is not None or parser.closed:
            assert (parser.feed(b"\x81\x00\x89\x00"), parser.controls, parser.parts) == ([], [], [])


def check(expected: Plain, given: Given, parser: Parser, parts_from: int | None) -> None:
    about = (parser.error, parser.error_code, expected.codes)
    assert parser.error_code in expected.codes, about
    assert isinstance(parser.error, ERRORS[parser.error_code]), about
    assert parser.closed is expected.closed
    if parts_from is None:
        assert not given.in_parts
        assert given.events == expected.events, (given.events, expected.events)
    else:  # a control frame may come behind the beginning of a message and before its end
        assert sorted(given.events, key=is_control) == sorted(expected.events, key=is_control)
    assert len(given.unfinished) <= 1
    for text in given.unfinished:
        assert expected.unfinished[: len(text)] == text
        assert expected.limit is None or len(text) <= expected.limit
    if expected.codes == {0}:
        assert given.growth == expected.growth
        has_begun = bool(expected.message_opcode and parts_from is not None)
        if has_begun and max(expected.announced, len(expected.message) if expected.compressed else 0) >= parts_from:
            assert given.unfinished == [expected.unfinished]
        else:
            assert not given.unfinished
        if not expected.closed:
            assert parser.at_message_boundary() is expected.at_boundary


def is_control(event: Any) -> bool:
    return isinstance(event, tuple) and event[0] in (8, 9, 10)


def seed(flags: int, bits: int, limit: int, parts_from: int, steps: bytes, stream: bytes) -> bytes:
    return bytes([flags, bits - 8, limit, parts_from, len(steps)]) + steps + stream


# Of RFC 7692 7.2.3: fixed codes, twice with the same window, no compression, a final block, two blocks.
OF_THE_RFC = b"".join(
    [
        *(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xc1\x05\xf2\x00\x11\x00\x00"),
        *(b"\x41\x03\xf2\x48\xcd", b"\x89\x00", b"\x80\x04\xc9\xc9\x07\x00"),
        *(b"\xc1\x0b\x00\x05\x00\xfa\xffHello\x00", b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
        *(b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"\xc2\x01\x00", b"\xc1\x00"),
    ]
)
FRAMES = b"".join(
    [
        b"\x00",  # level 1
        *(
            b"\xc1\x03\x05hello",
            b"\xc2\x33\x09\x00\x01\x02hello!",
            b"\xc1\x73\x06\xc5\xbc\xe2\x82\xacx",
            b"\x81\x20\x03abc",
        ),
        *(b"\xc1\x01\x05again", b"\xc1\x82\x05final", b"\x42\x03\x02ab", b"\x80\x00\x00", b"\xc2\x3b\x03abc\x01\x00"),
    ]
)
SEEDS = [
    *(seed(0, 15, 0, 0, steps, OF_THE_RFC) for steps in (b"", b"\x01", b"\x03\x02")),
    seed(2, 15, 3, 0, b"\x02", OF_THE_RFC),
    seed(4, 9, 0, 0, b"\x01", OF_THE_RFC),
    seed(8, 15, 0, 0, b"\x01", OF_THE_RFC),
    seed(16, 15, 0, 0, b"", FRAMES),
    seed(17, 8, 3, 0, b"\x05", FRAMES),
    seed(18, 12, 0, 0, b"\x01\x09", FRAMES),
    seed(24, 15, 0, 1, b"\x01", FRAMES),
    seed(16, 15, 2, 0, b"", FRAMES),
    seed(18, 15, 0, 0, b"", b"\x00\xc2\x3b\x40" + bytes(range(64)) + b"\x80\x00"),
    seed(16, 15, 2, 0, b"\x01", b"\x00\xc1\x0b\x03abc\x00\x04\x00"),  # too long, when inflated
    seed(24, 15, 0, 4, b"\xff", b"\x00\xc2\x0b\x40" + bytes(range(64)) + b"\x80\x00"),  # more than 1 MiB
    seed(16, 15, 0, 0, b"\x03", b"\x00\xc1\x07\x05hello\x00\x02\xff" + b"\xc1\x03\x05never"),
    seed(16, 15, 1, 0, b"\x01", b"\x02\xc1\x03\x0bab\xed\xa0\x80 and so"),  # wrong in two ways
    seed(24, 10, 0, 0, b"\x01", b"\x01\x42\x0b\xc8" + bytes(range(200)) + b"\x00\x10\x88\x00\x00"),  # a close within it
]

if __name__ == "__main__":
    run(target, SEEDS)
