"""The parser against a second one, slow and strict: thousands of random streams, valid and spoiled, end the same in
both."""

from __future__ import annotations

import itertools
import random

import pytest

from websocket._abnf import encode_frame

from .reference import Outcome, Reference, utf8_state

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
    expected = Reference(stream, server=server, max_message_size=limit)
    want = expected.all
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
