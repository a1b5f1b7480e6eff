"""The parser against a second one, written for this file alone: slow, strict, a frame at a time by the words of the
RFC. Thousands of random streams, valid and spoiled, must end the same in both."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from websocket._abnf import encode_frame

from .test_parser import Outcome


def utf8_state(data: bytes) -> str:
    """ "whole", "unfinished" or "bad", by table 3-7 of Unicode 15: a byte at a time, no codec."""
    expected: list[tuple[int, int]] = []  # the ranges that the next bytes must be in
    for octet in data:
        if expected:
            low, high = expected.pop(0)
            if not low <= octet <= high:
                return "bad"
        elif octet <= 0x7F:
            continue
        elif 0xC2 <= octet <= 0xDF:
            expected = [(0x80, 0xBF)]
        elif 0xE0 <= octet <= 0xEF:
            second = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(octet, (0x80, 0xBF))
            expected = [second, (0x80, 0xBF)]
        elif 0xF0 <= octet <= 0xF4:
            second = {0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(octet, (0x80, 0xBF))
            expected = [second, (0x80, 0xBF), (0x80, 0xBF)]
        else:
            return "bad"
    return "unfinished" if expected else "whole"


class Failure(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Reference:
    """Takes a whole stream; `events`, `error_code` and `closed` as of an Outcome."""

    def __init__(self, stream: bytes, server: bool, limit: int | None) -> None:
        self.events: list[Any] = []
        self.error_code = 0
        self.closed = False
        self.server = server
        self.limit = limit
        self.message_opcode = 0
        self.message = b""
        self.stream = stream
        try:
            while not self.closed and self.stream and self.frame():
                pass
        except Failure as failure:
            self.error_code = failure.code

    def frame(self) -> bool:
        """Take one frame off the stream; False where it is not whole."""
        data = self.stream
        if len(data) < 2:
            return False
        fin, opcode = bool(data[0] & 0x80), data[0] & 0x0F
        masked, field = bool(data[1] & 0x80), data[1] & 0x7F
        if data[0] & 0x70 or masked != self.server or opcode not in (0, 1, 2, 8, 9, 10):
            raise Failure(1002)
        is_control = opcode >= 8
        if is_control and (not fin or field > 125 or (opcode == 8 and field == 1)):
            raise Failure(1002)
        if (opcode == 0 and not self.message_opcode) or (opcode in (1, 2) and self.message_opcode):
            raise Failure(1002)
        width = {126: 2, 127: 8}.get(field, 0)
        head = 2 + width + (4 if masked else 0)
        if len(data) < head:
            return False
        length = int.from_bytes(data[2 : 2 + width], "big") if width else field
        if length >= 2**63:
            raise Failure(1002)
        if not is_control and self.limit is not None and len(self.message) + length > self.limit:
            raise Failure(1009)
        key = data[head - 4 : head] if masked else bytes(4)
        payload = bytes(octet ^ key[i % 4] for i, octet in enumerate(data[head : head + length]))
        whole = len(payload) == length
        if is_control:
            return whole and self.control(opcode, payload, head + length)
        self.message_opcode = opcode or self.message_opcode
        self.message += payload
        self.check_text(fin and whole)
        if not whole:
            return False
        if fin:
            self.events.append(self.message.decode() if self.message_opcode == 1 else self.message)
            self.message_opcode, self.message = 0, b""
        self.stream = data[head + length :]
        return True

    def check_text(self, ends: bool) -> None:
        if self.message_opcode == 1:
            state = utf8_state(self.message)
            if state == "bad" or (ends and state != "whole"):
                raise Failure(1007)

    def control(self, opcode: int, payload: bytes, size: int) -> bool:
        if opcode == 8 and payload:
            code = int.from_bytes(payload[:2], "big")
            if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
                raise Failure(1002)
            if utf8_state(payload[2:]) != "whole":
                raise Failure(1007)
        self.events.append((opcode, payload))
        self.closed = opcode == 8
        self.stream = self.stream[size:]
        return True


ALPHABET = ["a", "ż", "€", "\ud7ff", "\ue000", "\uffff", "😀", "\U0010ffff"]


def random_stream(generator: random.Random, server: bool) -> bytes:
    """Some valid messages, fragmented anywhere, with control frames anywhere; sometimes a close at the end."""

    def make(first_byte: int, payload: bytes) -> bytes:
        return encode_frame(first_byte, payload, generator.randbytes(4) if server else None)

    def controls() -> list[bytes]:
        count = generator.choice([0, 0, 0, 1, 2])
        return [
            make(generator.choice([0x89, 0x8A]), generator.randbytes(generator.choice([0, 3, 125])))
            for _ in range(count)
        ]

    parts: list[bytes] = []
    for _ in range(generator.randrange(1, 6)):
        text = generator.random() < 0.6
        size = generator.choice([0, 1, 5, 40, 120, 300])
        payload = "".join(generator.choices(ALPHABET, k=size)).encode() if text else generator.randbytes(size)
        cuts = sorted(generator.randrange(len(payload) + 1) for _ in range(generator.choice([0, 0, 0, 1, 3])))
        edges = [0, *cuts, len(payload)]
        for index, (start, stop) in enumerate(itertools.pairwise(edges)):
            first = (0x80 if stop == edges[-1] and index == len(edges) - 2 else 0) | (0 if index else 1 if text else 2)
            parts += [*controls(), make(first, payload[start:stop])]
    if generator.random() < 0.3:
        code = generator.choice([1000, 1001, 1011, 3000, 4999, 1005, 999, 5000])
        reason = generator.choice([b"", b"bye", "ż".encode(), b"\xff"])
        parts += [make(0x88, generator.choice([b"", b"\x03", code.to_bytes(2, "big") + reason])), make(0x81, b"late")]
    return b"".join(parts)


def spoiled(generator: random.Random, stream: bytes) -> bytes:
    """The stream with a few bytes changed, put in or taken away, or cut off."""
    data = bytearray(stream)
    for _ in range(generator.choice([1, 1, 2, 5])):
        at = generator.randrange(len(data)) if data else 0
        match generator.randrange(5):
            case 0 if data:
                data[at] ^= 1 << generator.randrange(8)
            case 1 if data:
                data[at] = generator.randrange(256)
            case 2:
                data[at:at] = generator.randbytes(generator.randrange(1, 4))
            case 3:
                del data[at : at + generator.randrange(1, 4)]
            case _:
                del data[max(at, 1) :]
    return bytes(data)


def assert_same(generator: random.Random, stream: bytes, server: bool, limit: int | None) -> int:
    expected = Reference(stream, server, limit)
    want = (expected.events, expected.error_code, expected.closed)
    assert Outcome(stream, server=server, max_message_size=limit).all == want, stream.hex()
    count = min(len(stream), generator.choice([1, 3, 20]))
    cuts = sorted(generator.randrange(len(stream) + 1) for _ in range(count))
    assert Outcome(stream, cuts, server=server, max_message_size=limit).all == want, (stream.hex(), cuts)
    return expected.error_code


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("limit", [None, 100, 70_000])
def test_valid_streams_end_the_same_in_both(server: bool, limit: int | None) -> None:
    generator = random.Random(f"valid {server} {limit}")
    for _ in range(300):
        assert_same(generator, random_stream(generator, server), server, limit)


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("limit", [None, 100, 70_000])
def test_spoiled_streams_end_the_same_in_both(server: bool, limit: int | None) -> None:
    generator = random.Random(f"spoiled {server} {limit}")
    seen = set()
    for _ in range(700):
        stream = spoiled(generator, random_stream(generator, server))
        seen.add(assert_same(generator, stream, server, limit))
    # All ways to end were among them.
    assert seen >= ({0, 1002, 1007, 1009} if limit == 100 else {0, 1002, 1007})


def test_noise_ends_the_same_in_both() -> None:
    generator = random.Random("noise")
    for _ in range(2000):
        # Mostly bytes that mean something as a header.
        octets = [*range(0x80, 0x8B), 0, 1, 2, 5, 0x7E, 0x7F, generator.randrange(256)]
        stream = bytes(generator.choices(octets, k=generator.randrange(1, 30)))
        assert_same(generator, stream, False, None)


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"", "whole"),
        ("zażółć € 😀".encode(), "whole"),
        (b"\xf4\x8f\xbf", "unfinished"),
        (b"\xed\xa0", "bad"),
        (b"\xc0", "bad"),
        (b"\xf4\x90", "bad"),
    ],
)
def test_the_reference_itself_knows_utf8(data: bytes, state: str) -> None:
    assert utf8_state(data) == state


def test_the_reference_and_the_codec_agree_on_all_pairs_of_bytes() -> None:
    for value in range(65536):
        data = value.to_bytes(2, "big")
        try:
            data.decode()
            whole = True
        except UnicodeDecodeError:
            whole = False
        assert (utf8_state(data) == "whole") is whole
