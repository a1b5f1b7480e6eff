"""What the property tests share: how Hypothesis is run, streams of frames, ways to cut them."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from websocket._abnf import encode_frame

# Hypothesis keeps tables of characters even without a database: not in the checkout.
if "HYPOTHESIS_STORAGE_DIRECTORY" not in os.environ:
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = storage = tempfile.mkdtemp(prefix="hypothesis-")
    atexit.register(shutil.rmtree, storage, ignore_errors=True)

Test = TypeVar("Test", bound=Callable[..., Any])


def examples(count: int) -> Callable[[Test], Test]:
    """The same `count` examples in each run: nothing in a run of the tests is left to chance or to the clock."""
    return settings(  # type: ignore[return-value]
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


# Lone surrogates, line ends and blanks included.
ANY_TEXT = st.text(st.sampled_from("a:;=, \t\r\n\0\x85\u2028ż\ud800") | st.characters(), max_size=15)


# ---- headers

TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12)
# Without blanks at their ends, which no reader keeps.
HEADER_VALUES = st.text('abc:;=, \t"ż€', max_size=20).map(lambda text: text.strip(" \t"))


# ---- frames

OPCODES = (0, 1, 2, 8, 9, 10)
LENGTHS = (0, 1, 2, 124, 125, 126, 127, 65535, 65536, 65537)
KEYS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(st.sampled_from("aż€\ud7ff\ue000\uffff😀\U0010ffff"), max_size=60) | st.text(max_size=20)
CLOSE_CODES = st.sampled_from([1000, 1001, 1003, 1007, 1014, 3000, 4999])


@st.composite
def payloads(draw: st.DrawFn, most: int = 70_000) -> bytes:
    """Bytes of any length, often one beside a boundary; those of long ones repeat."""
    size = draw(st.sampled_from([length for length in LENGTHS if length <= most]) | st.integers(0, min(most, 300)))
    unit = draw(st.binary(min_size=1, max_size=16))
    return (unit * (size // len(unit) + 1))[:size]


@st.composite
def streams(draw: st.DrawFn, server: bool, most: int = 300) -> tuple[bytes, list[Any]]:
    """A valid stream and its events: messages in any number of fragments, control frames anywhere, maybe a close."""
    parts: list[bytes] = []
    events: list[Any] = []

    def frame(first_byte: int, payload: bytes) -> None:
        parts.append(encode_frame(first_byte, payload, draw(KEYS) if server else None))

    def controls() -> None:
        for opcode in draw(st.lists(st.sampled_from([9, 10]), max_size=2)):
            payload = draw(st.binary(max_size=8) | st.just(bytes(125)))
            frame(0x80 | opcode, payload)
            events.append((opcode, payload))

    for message in draw(st.lists(TEXTS | payloads(most), max_size=4)):
        data = message.encode() if isinstance(message, str) else message
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        pieces = list(itertools.pairwise([0, *cuts, len(data)]))
        for index, (start, stop) in enumerate(pieces):
            if draw(st.integers(0, 3)) == 0:
                controls()
            opcode = 0 if index else 1 if isinstance(message, str) else 2
            frame((0x80 if index == len(pieces) - 1 else 0) | opcode, data[start:stop])
        events.append(message)
    if draw(st.booleans()):
        reason = draw(st.text(max_size=10)).encode()
        payload = draw(st.just(b"") | CLOSE_CODES.map(lambda code: code.to_bytes(2, "big") + reason))
        frame(0x88, payload)
        events.append((8, payload))
        parts.append(draw(st.binary(max_size=5)))  # nothing after a close frame is looked at
    return b"".join(parts), events


# A masking key of zeros leaves the payload readable, for a server as for a client.
_HEADER_BYTES = [*range(0x80, 0x8B), 0, 1, 2, 3, 5, 0x7D, 0x7E, 0x7F, 0xFE, 0xFF, 0xC2, 0xED, 0xA0, 0x41]
NOISE = st.lists(st.sampled_from(_HEADER_BYTES) | st.integers(0, 255), max_size=60).map(bytes)


@st.composite
def spoiled_streams(draw: st.DrawFn, server: bool) -> bytes:
    """A valid stream with bytes changed, put in or taken away, or cut off."""
    data = bytearray(draw(streams(server))[0])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["bit", "byte", "insert", "delete", "end"])):
            case "bit" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if at < len(data):
                data[at] = draw(st.sampled_from(_HEADER_BYTES) | st.integers(0, 255))
            case "insert":
                data[at:at] = draw(st.binary(max_size=4))
            case "delete":
                del data[at : at + draw(st.integers(1, 4))]
            case "end":
                del data[at:]
    return bytes(data)


# What is no character, or not yet: beginnings, surrogates, overlong forms, what is beyond Unicode.
_BROKEN = [
    *(b"\x80", b"\xc5", b"\xe2\x82", b"\xed\xa0", b"\xed\xbf", b"\xed\x9f", b"\xe0\x80", b"\xf0\x9f\x98", b"\xf4\x90"),
    *(b"\xc0", b"\xf5", b"\xff", b"\xed", b"\xf0\x80"),
]


@st.composite
def text_streams(draw: st.DrawFn, server: bool) -> bytes:
    """One text message in fragments that is nearly UTF-8, whole or not."""
    text = draw(TEXTS).encode()[:12] + draw(st.sampled_from(_BROKEN)) + draw(st.sampled_from([b"", b"", b"\x80", b"a"]))
    parts = pieces(text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=3))))
    key = draw(KEYS) if server else None
    frames = [encode_frame(0x01 if index == 0 else 0x00, part, key) for index, part in enumerate(parts)]
    last = draw(st.sampled_from([encode_frame(0x80, b"", key), encode_frame(0x89, b"", key), b""]))
    return b"".join([*frames, last])


def any_streams(server: bool) -> st.SearchStrategy[bytes]:
    valid = streams(server).map(lambda stream: stream[0])
    return st.one_of(valid, spoiled_streams(server), text_streams(server), NOISE)


# ---- cuts


def cuts_of(data: bytes) -> st.SearchStrategy[list[int]]:
    """Where to cut data: nowhere, anywhere, after each byte. Pieces may be empty."""
    size = len(data)
    anywhere = st.lists(st.integers(0, size), max_size=12).map(sorted)
    return anywhere if size > 2000 else anywhere | st.just(list(range(1, size)))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(data)])]
