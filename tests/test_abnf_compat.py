"""websocket-client's two classes that read and join frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from websocket import (
    ABNF,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
    continuous_frame,
    frame_buffer,
)
from websocket._abnf import encode_frame

KEY = b"\x37\xfa\x21\x3d"


def frame(opcode: int, data: bytes, fin: int = 1) -> ABNF:
    return ABNF(fin=fin, opcode=opcode, mask_value=0, data=data)


STREAM = (
    encode_frame(0x01, b"za", None)
    + encode_frame(0x89, b"", KEY)
    + encode_frame(0x80, b"x" * 126, KEY)
    + encode_frame(0x82, bytes(65536), None)
)
EXPECTED = [(0, 1, b"za"), (1, 9, b""), (1, 0, b"x" * 126), (1, 2, bytes(65536))]


class Source:
    """Gives bytes in set portions; a portion that is an exception is raised."""

    def __init__(self, portions: Iterator[bytes | Exception]) -> None:
        self.portions = portions
        self.ready = b""

    def recv(self, size: int) -> bytes:
        if not self.ready:
            portion = next(self.portions)
            if isinstance(portion, Exception):
                raise portion
            self.ready = portion
        given, self.ready = self.ready[:size], self.ready[size:]
        return given


def read_frames(buffer: frame_buffer, count: int) -> list[tuple[int, int, bytes]]:
    frames = []
    while len(frames) < count:
        try:
            got = buffer.recv_frame()
        except WebSocketTimeoutException:
            continue
        frames.append((got.fin, got.opcode, got.data))
    return frames


@pytest.mark.parametrize("step", [1, 2, 3, 7, 131, 4096, 10**6])
def test_frame_buffer_reads_frames_from_any_cut(step: int) -> None:
    source = Source(STREAM[at : at + step] for at in range(0, len(STREAM), step))
    assert read_frames(frame_buffer(source.recv, False), 4) == EXPECTED


def test_frame_buffer_goes_on_after_a_timeout_anywhere() -> None:
    for cut in [*range(160), len(STREAM) - 1]:
        portions: list[bytes | Exception] = [STREAM[:cut], WebSocketTimeoutException("t"), STREAM[cut:]]
        source = Source(portion for portion in portions if portion)
        assert read_frames(frame_buffer(source.recv, False), 4) == EXPECTED, f"cut at {cut}"


def test_frame_buffer_refuses_a_frame_that_breaks_a_rule_and_reads_the_next() -> None:
    source = Source(iter([b"\xc1\x01x\x82\x01y"]))
    buffer = frame_buffer(source.recv, False)
    with pytest.raises(WebSocketProtocolException):
        buffer.recv_frame()
    assert read_frames(buffer, 1) == [(1, 2, b"y")]


def test_continuous_frame_joins_fragments() -> None:
    joiner = continuous_frame(False, False)
    first, last = frame(ABNF.OPCODE_TEXT, b"za\xc5", fin=0), frame(ABNF.OPCODE_CONT, b"\xbc")
    joiner.validate(first)
    joiner.add(first)
    assert not joiner.is_fire(first)
    joiner.validate(last)
    joiner.add(last)
    assert joiner.is_fire(last)
    opcode, whole = joiner.extract(last)
    assert (opcode, whole.data) == (ABNF.OPCODE_TEXT, "zaż".encode())
    joiner.validate(frame(ABNF.OPCODE_BINARY, b""))  # the next message may begin
    assert joiner.recving_frames is None


def test_continuous_frame_gives_each_fragment_where_asked() -> None:
    joiner = continuous_frame(True, False)
    first = frame(ABNF.OPCODE_TEXT, b"\xc5", fin=0)
    joiner.add(first)
    assert joiner.is_fire(first)
    assert joiner.extract(first)[1].data == b"\xc5"


def test_continuous_frame_refuses_frames_out_of_order() -> None:
    joiner = continuous_frame(False, False)
    with pytest.raises(WebSocketProtocolException):
        joiner.validate(frame(ABNF.OPCODE_CONT, b""))
    joiner.add(frame(ABNF.OPCODE_TEXT, b"", fin=0))
    with pytest.raises(WebSocketProtocolException):
        joiner.validate(frame(ABNF.OPCODE_BINARY, b""))


@pytest.mark.parametrize("skip", [False, True])
def test_continuous_frame_checks_the_encoding_unless_told_not_to(skip: bool) -> None:
    joiner = continuous_frame(False, skip)
    bad = frame(ABNF.OPCODE_TEXT, b"\xff")
    joiner.add(bad)
    if skip:
        assert joiner.extract(bad)[1].data == b"\xff"
    else:
        with pytest.raises(WebSocketPayloadException):
            joiner.extract(bad)
