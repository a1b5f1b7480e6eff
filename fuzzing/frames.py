"""Frames made and read by the classes for programs written for websocket-client: ABNF there and back, frame_buffer and
continuous_frame on any stream, in any cut and with timeouts anywhere."""

from __future__ import annotations

from typing import Any

from harness import Input, instrumented, pieces, run

with instrumented():
    from tests.reference import Outcome, Reference
    from websocket._abnf import ABNF, continuous_frame, encode_frame, frame_buffer, frame_payload
    from websocket._exceptions import (
        WebSocketConnectionClosedException,
        WebSocketException,
        WebSocketPayloadException,
        WebSocketProtocolException,
        WebSocketTimeoutException,
    )


class Stream:
    """A recv function: pieces of a stream, now and then a timeout, in the end b"" for ever."""

    def __init__(self, data: bytes, steps: list[int], timeouts: int) -> None:
        self._pieces = [piece for piece in pieces(data, steps) if piece]
        self._timeouts = timeouts
        self._calls = 0

    def recv(self, size: int) -> bytes:
        assert size > 0
        self._calls += 1
        if self._timeouts and self._calls % (self._timeouts + 1) == 0:
            raise WebSocketTimeoutException("for now")
        if not self._pieces:
            return b""
        piece = self._pieces[0][:size]
        self._pieces[0] = self._pieces[0][size:]
        if not self._pieces[0]:
            self._pieces.pop(0)
        return piece


def received(stream: Stream, skip_utf8: bool, fire_cont_frame: bool) -> tuple[list[Any], type[BaseException]]:
    """What the two classes give, used as websocket-client uses them, and the exception at the end."""
    buffer = frame_buffer(stream.recv, skip_utf8)
    joined = continuous_frame(fire_cont_frame, skip_utf8)
    events: list[Any] = []
    while True:
        try:
            frame = buffer.recv_frame()
            if frame.opcode >= ABNF.OPCODE_CLOSE:
                events.append((frame.opcode, frame.data))
                continue
            joined.validate(frame)
            joined.add(frame)
            if joined.is_fire(frame):
                opcode, whole = joined.extract(frame)
                assert whole is frame
                if fire_cont_frame:
                    events.append(("fragment", opcode, frame.fin, frame.data))
                else:
                    is_text = opcode == ABNF.OPCODE_TEXT and not skip_utf8
                    events.append(frame.data.decode() if is_text else frame.data)
        except WebSocketTimeoutException:
            continue
        except (WebSocketConnectionClosedException, WebSocketProtocolException, WebSocketPayloadException) as error:
            return events, type(error)


def comparable(reference: Reference) -> list[Any]:
    """The reference's events as these classes show them: no text with a fragment, no mark on what was not checked."""
    shown: list[Any] = []
    for event in reference.events:
        if isinstance(event, tuple) and event[0] == "fragment":
            event = event[:4]
        elif isinstance(event, tuple) and event[0] == "raw":
            event = event[1]
        shown.append(event)
    return shown


def read(source: Input) -> None:
    """Any stream: the same in each cut, and at least what the reference gives before it stops."""
    server, skip, fire_cont_frame = source.flags(3)
    timeouts, steps, stream = source.byte() % 4, source.cuts(), source.rest()
    whole = received(Stream(stream, [], 0), skip, fire_cont_frame)
    assert received(Stream(stream, steps, timeouts), skip, fire_cont_frame) == whole, (stream, steps, timeouts)
    # With fire_cont_frame these check no text, like websocket-client; the reference does unless it is told not to.
    unchecked = skip or fire_cont_frame
    expected = Reference(stream, server=server, skip_utf8_validation=unchecked, fire_cont_frame=fire_cont_frame)
    events, error = whole
    assert events[: len(expected.events)] == comparable(expected), (stream, events, expected.events)
    if not expected.error_code and not expected.closed:
        assert events == comparable(expected), (stream, events, expected.events)
        assert error is WebSocketConnectionClosedException


def write(source: Input) -> None:
    """Any frame: refused with ValueError, or its bytes say what it says and can be read back."""
    fin, rsv1, rsv2, rsv3, masked, as_text, odd = source.flags(7)
    opcode = source.choice((*ABNF.OPCODES, 3, 7, 11, 15, 16, -1))
    key = source.text(4) if odd else (source.take(4) + bytes(4))[:4]
    data: str | bytes = source.text(1000) if as_text else source.swollen(200_000)
    frame = ABNF(int(fin), int(rsv1), int(rsv2), int(rsv3), opcode, int(masked), data)
    frame.get_mask_key = lambda size: key
    try:
        formatted = frame.format()
    except ValueError:
        is_bad_text = isinstance(data, str) and any("\ud800" <= character <= "\udfff" for character in data)
        size = len(data.encode("utf-8", "replace") if isinstance(data, str) else data)
        is_bad_key = masked and isinstance(key, str) and (len(key) != 4 or any(character > "\xff" for character in key))
        assert opcode not in ABNF.OPCODES or is_bad_text or is_bad_key or (opcode >= 8 and size > 125)
        return
    payload = data.encode() if isinstance(data, str) else data
    mask_key = (key.encode("latin-1") if isinstance(key, str) else key) if masked else None
    first_byte = fin << 7 | rsv1 << 6 | rsv2 << 5 | rsv3 << 4 | opcode
    assert formatted == encode_frame(first_byte, payload, mask_key)
    assert bytes(frame_payload(formatted)) == payload
    if mask_key is not None:
        assert formatted.endswith(ABNF.mask(mask_key, payload))
        assert ABNF.mask(mask_key, ABNF.mask(mask_key, payload)) == payload
    read_back(frame, formatted, payload, first_byte, bool(masked))


def read_back(frame: ABNF, formatted: bytes, payload: bytes, first_byte: int, masked: bool) -> None:
    outcome = Outcome(formatted, server=masked, fire_cont_frame=True, skip_utf8_validation=True)
    try:
        again = frame_buffer(Stream(formatted, [3 + len(formatted) // 50], 2).recv, True)
        got = None
        while got is None:
            try:
                got = again.recv_frame()
            except WebSocketTimeoutException:
                continue
    except WebSocketException:
        # Frames can be formatted that nobody may send: reserved bits, fragmented control frames, close codes.
        assert outcome.error_code in (1002, 1007)
        return
    assert (got.fin << 7 | got.rsv1 << 6 | got.rsv2 << 5 | got.rsv3 << 4 | got.opcode) == first_byte
    assert (bytes(got.data), bool(got.mask_value)) == (payload, masked)
    if frame.opcode in (1, 2):
        assert outcome.events == [("fragment", frame.opcode, frame.fin, payload, None)]


def target(data: bytes) -> None:
    source = Input(data)
    source.choice((read, write))(source)


SEEDS = [
    b"\x00\x00\x00\x00" + b"\x81\x05hello\x01\x01\xe2\x89\x00\x00\x01\x82\x80\x01\xac\x88\x05\x03\xe8bye",
    b"\x00\x04\x01\x02\x03\x05" + b"\x02\x02ab\x80\x02cd\x82\x7e\x00\x80" + bytes(128) + b"\x8a\x01x",
    b"\x00\x03\x02\x07" + b"\x81\x85abcd\x09\x07\x0f\x08\x0e\x88\x82\0\0\0\0\x03\xe8",
    b"\x00\x00\x00\x00" + b"\x82\x7f" + (3).to_bytes(8, "big") + b"abc\x81\x01\xff",
    b"\x01\x11\x02keyz\x00\x01\xff\xfeabc",
    b"\x01\x31\x01keyzhello \xc5\xbc",
    b"\x01\x01\x03\x00\x00\x00\x00\x00\x00\x00\x00\x03\xe8bye",
    b"\x01\x51\x04\xc3\xa9ab\x00\x00\x00\x00ping",
]

if __name__ == "__main__":
    run(target, SEEDS)
