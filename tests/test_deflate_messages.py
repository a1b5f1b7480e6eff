"""permessage-deflate's payloads: what a Deflater makes, and what an Inflater takes (RFC 7692 7.2)."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from typing import Any

import pytest

from websocket._deflate import Agreement, Deflater, InflateError, Inflater

TAIL = b"\x00\x00\xff\xff"
MIB = 1024 * 1024


def agreed(bits: int = 15, resets: bool = False, peer_bits: int = 15, **options: int) -> Agreement:
    values = {"level": 3, "memory_level": 8, "min_size": 1024, **options}
    return Agreement(bits, resets, peer_bits, **values)


def inflated(inflater: Inflater, payload: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    """One message, in these cuts."""
    ends = [0, *cuts, len(payload)]
    pieces = [piece for start, end in itertools.pairwise(ends) for piece in inflater.inflate(payload[start:end])]
    return b"".join(pieces + list(inflater.finish()))


def messages(count: int = 40) -> list[bytes]:
    """Messages that have much in common, near and far."""
    choose = random.Random(7692)
    words = [choose.randbytes(choose.choice([3, 20, 200])) for _ in range(60)]
    return [b"".join(choose.choices(words, k=choose.choice([0, 1, 5, 60]))) for _ in range(count)]


def strictly(stream: Any, payload: bytes) -> bytes:
    """Inflate a message a byte at a time, so that zlib has nothing of what was before but its window."""
    result, rest = [], payload + TAIL
    while piece := stream.decompress(rest, 1):
        result.append(piece)
        rest = stream.unconsumed_tail
    return b"".join(result)


def final(data: bytes, bits: int = 15) -> bytes:
    """A payload that ends in a final block (RFC 7692 7.2.3.4)."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -bits)
    return stream.compress(data) + stream.flush(zlib.Z_FINISH) + b"\x00"


EXAMPLES = {
    "7.2.3.1 one block": ("f248cdc9c90700", b"Hello"),
    "7.2.3.2 sharing the window": ("f200110000", b"Hello"),
    "7.2.3.3 no compression": ("000500faff48656c6c6f00", b"Hello"),
    "7.2.3.4 final block": ("f348cdc9c9070000", b"Hello"),
    "7.2.3.5 two blocks": ("f24805000000ffffcac9c90700", b"Hello"),
    "7.2.3.6 empty message": ("00", b""),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfc_inflate_in_any_cut(name: str) -> None:
    payload, expected = bytes.fromhex(EXAMPLES[name][0]), EXAMPLES[name][1]
    cuts = itertools.chain.from_iterable(itertools.combinations(range(1, len(payload)), count) for count in range(3))
    for cut in [*cuts, tuple(range(1, len(payload)))]:
        inflater = Inflater(agreed())
        if "sharing" in name:
            assert inflated(inflater, bytes.fromhex("f248cdc9c90700")) == b"Hello"
        assert inflated(inflater, payload, cut) == expected
        assert inflated(inflater, b"\x00") == b""
        assert inflated(inflater, bytes.fromhex("f248cdc9c90700")) == b"Hello", "the next message is not disturbed"


def test_a_deflater_makes_the_bytes_of_the_rfc() -> None:
    shared, anew = Deflater(agreed(level=6)), Deflater(agreed(resets=True, level=6))
    assert [shared.message(b"Hello").hex() for _ in range(2)] == ["f248cdc9c90700", "f200110000"]
    assert [anew.message(b"Hello").hex() for _ in range(2)] == ["f248cdc9c90700"] * 2
    assert shared.message(b"") == b"\x00"
    assert Deflater(agreed(level=0)).message(b"Hello").hex() == "000500faff48656c6c6f00"


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize(("level", "memory_level"), [(0, 8), (1, 1), (3, 8), (-1, 9), (9, 9)])
def test_what_a_deflater_makes_fits_in_the_agreed_window(
    bits: int, resets: bool, level: int, memory_level: int
) -> None:
    """zlib itself refuses what refers to anything before a window of these bits."""
    deflater = Deflater(agreed(bits, resets, level=level, memory_level=memory_level))
    ours, theirs = Inflater(agreed(peer_bits=bits)), zlib.decompressobj(-bits)
    for number, message in enumerate(messages()):
        payload = deflater.message(message)
        assert inflated(ours, payload) == message
        assert (strictly(theirs, payload) if number < 8 else theirs.decompress(payload + TAIL)) == message
        if resets:  # each for itself
            assert zlib.decompressobj(-bits).decompress(payload + TAIL) == message


def test_context_takeover_makes_the_second_message_smaller_and_its_absence_does_not() -> None:
    message = random.Random(1).randbytes(500)
    kept, anew = Deflater(agreed()), Deflater(agreed(resets=True))
    assert len(kept.message(message)) > 500 > 50 > len(kept.message(message))
    assert anew.message(message) == anew.message(message)


def test_a_peer_that_uses_a_larger_window_than_agreed_is_found_out() -> None:
    head = random.Random(2).randbytes(1000)
    deflater, larger, agreed_upon = Deflater(agreed(12)), Inflater(agreed(peer_bits=12)), Inflater(agreed(peer_bits=8))
    payload = deflater.message(head)
    assert inflated(larger, payload) == inflated(agreed_upon, payload) == head
    payload = deflater.message(head)
    assert inflated(larger, payload) == head
    with pytest.raises(InflateError, match="too far back"):
        inflated(agreed_upon, payload)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("resets", [False, True])
def test_a_message_in_parts_inflates_as_one_and_each_part_gives_all_of_itself(kind: Any, resets: bool) -> None:
    parts = [b"", b"one ", b"", b"two " * 1000, b"x", b"one two"]
    deflater, inflater = Deflater(agreed(9, resets)), Inflater(agreed(peer_bits=9))
    for _ in range(3):
        for part in parts:
            assert b"".join(inflater.inflate(deflater.part(kind(part)))) == part
        assert b"".join(inflater.inflate(deflater.end())) + b"".join(inflater.finish()) == b""
        assert inflated(inflater, deflater.message(kind(b"whole"))) == b"whole"


@pytest.mark.parametrize("finals", [lambda number: True, lambda number: number % 2, lambda number: number % 3 == 0])
def test_final_blocks_come_among_others_in_any_cut(finals: Any) -> None:
    """A peer that ends its stream begins a new one."""
    choose = random.Random(3)
    for one_by_one in (False, True):
        inflater, deflater = Inflater(agreed()), Deflater(agreed())
        for number, message in enumerate(messages(30)):
            if finals(number):
                payload, deflater = final(message), Deflater(agreed())
            else:
                payload = deflater.message(message)
            size = len(payload)
            cuts = range(1, size) if one_by_one else sorted(choose.choices(range(size), k=min(3, size)))
            assert inflated(inflater, payload, tuple(cuts)) == message


def test_final_blocks_within_a_message_join() -> None:
    deflater = Deflater(agreed())
    payload = final(b"one ")[:-1] + final(b"two ")[:-1] + deflater.message(b"three")
    for cut in range(1, len(payload)):
        assert inflated(Inflater(agreed()), payload, (cut,)) == b"one two three"


def test_many_final_blocks_are_copied_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """zlib copies what it leaves over behind each final block: all the rest, again and again, would be quadratic."""
    left_over = 0

    class Counting:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            nonlocal left_over
            value = getattr(self._stream, name)
            if name == "unused_data":
                left_over += len(value)
            return value

    make = zlib.decompressobj
    monkeypatch.setattr("websocket._deflate.zlib.decompressobj", lambda bits: Counting(make(bits)))
    block = final(b"x" * 20)[:-1]
    count = 10_000
    payload = block * count + b"\x00"
    assert inflated(Inflater(agreed()), payload) == b"x" * 20 * count
    assert left_over < count * 4096 + len(payload)


def test_inflating_gives_pieces_of_a_bounded_size_and_makes_none_that_nobody_asks_for() -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(stream.compress(bytes(MIB)) for _ in range(256)) + stream.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    try:
        pieces = Inflater(agreed()).inflate(bomb)
        sizes = [len(next(pieces)) for _ in range(20)]
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        sizes += [len(piece) for piece in pieces]
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert max(sizes) == MIB
    assert sum(sizes) == 256 * MIB


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_a_message_about_as_large_as_a_piece_comes_whole(size: int) -> None:
    deflater, inflater = Deflater(agreed()), Inflater(agreed())
    for data in (bytes(size), random.Random(size).randbytes(size)):
        assert inflated(inflater, deflater.message(data)) == data
        assert inflated(inflater, final(data)) == data
        deflater = Deflater(agreed())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff",
        b"\x07",  # a block of no type, final
        b"\x00\x01\x00\x00\x00x",  # the length is not the complement of its complement
        b"\xfc\xff\xff",  # more codes than there are
        bytes.fromhex("f200110000"),  # refers to a message that was not
    ],
)
def test_garbage_is_no_message(garbage: bytes) -> None:
    for cuts in ((), tuple(range(1, len(garbage)))):
        with pytest.raises(InflateError, match=r"^Error -?\d"):
            inflated(Inflater(agreed()), garbage, cuts)


def test_any_bytes_are_a_message_or_an_error() -> None:
    choose = random.Random(4)
    good = Deflater(agreed()).message(b"".join(messages(10)))
    for _ in range(2000):
        data = bytearray(good[: choose.randrange(1, 200)] if choose.random() < 0.5 else choose.randbytes(20))
        data[choose.randrange(len(data))] = choose.randrange(256)
        outcomes = []
        cuts = tuple(sorted(choose.choices(range(len(data)), k=3)))
        for cut in ((), cuts):
            try:
                outcomes.append(inflated(Inflater(agreed()), bytes(data), cut))
            except InflateError as error:
                outcomes.append(str(error).encode())
        assert outcomes[0] == outcomes[1]
