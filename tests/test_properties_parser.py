"""Frames and the parser, for any bytes: what holds whatever arrives and however it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket import ABNF, WebSocketException, WebSocketProtocolException
from websocket._abnf import apply_mask, close_payload, encode_frame, frame_payload
from websocket._parser import Parser

from .reference import Outcome, Reference, utf8_state
from .strategies import ANY_TEXT, KEYS, LENGTHS, OPCODES, TEXTS, any_streams, cuts_of, examples, payloads, streams

BITS = st.integers(0, 1)
SIDES = pytest.mark.parametrize("server", [False, True], ids=["client", "server"])


def header_of(frame: bytes) -> tuple[int, int, int, bytes]:
    """First byte, mask bit, payload length and masking key of a frame, by the picture in RFC 6455 5.2."""
    field = frame[1] & 0x7F
    width = {126: 2, 127: 8}.get(field, 0)
    length = int.from_bytes(frame[2 : 2 + width], "big") if width else field
    mask = frame[1] >> 7
    return frame[0], mask, length, frame[2 + width : 2 + width + 4 * mask]


# ---- any cut


@SIDES
@given(data=st.data())
@examples(80)
def test_any_cut_of_a_valid_stream_gives_its_messages_and_control_frames(server: bool, data: st.DataObject) -> None:
    stream, events = data.draw(streams(server, most=70_000))
    cuts = data.draw(cuts_of(stream))
    closed = bool(events) and isinstance(events[-1], tuple) and events[-1][0] == 8
    outcome = Outcome(stream, cuts, server=server)
    assert outcome.all == (events, 0, closed)
    assert closed or outcome.at_boundary


# ---- a second parser


@SIDES
@pytest.mark.parametrize("fire_cont_frame", [False, True], ids=["messages", "fragments"])
@given(data=st.data())
@examples(150)
def test_the_parser_and_the_reference_agree_on_any_bytes(
    server: bool, fire_cont_frame: bool, data: st.DataObject
) -> None:
    options: dict[str, Any] = {
        "server": server,
        "fire_cont_frame": fire_cont_frame,
        "skip_utf8_validation": data.draw(st.booleans()),
        "max_message_size": data.draw(st.sampled_from([None, 0, 1, 100, 300, 65534, 65535])),
    }
    stream = data.draw(any_streams(server))
    expected = Reference(stream, **options)
    for cuts in ([], data.draw(cuts_of(stream))):
        outcome = Outcome(stream, cuts, **options)
        assert outcome.all == expected.all
        assert isinstance(outcome.parser.error, WebSocketException) is bool(expected.error_code)
        if not expected.error_code and not expected.closed:
            assert outcome.at_boundary is expected.at_boundary


@given(data=st.data(), limit=st.sampled_from([0, 10, 200]), fire_cont_frame=st.booleans())
@examples(100)
def test_no_message_is_longer_than_the_limit_and_nothing_follows_an_end(
    data: st.DataObject, limit: int, fire_cont_frame: bool
) -> None:
    stream = data.draw(any_streams(False))
    parser = Parser(max_message_size=limit, fire_cont_frame=fire_cont_frame)
    size = 0
    for message in parser.feed(stream):
        if fire_cont_frame:
            size += len(message.data)
        else:
            size = len(message.encode() if isinstance(message, str) else message)
        assert size <= limit
        if fire_cont_frame and message.fin:
            size = 0
    if parser.error or parser.closed:
        assert parser.feed(encode_frame(0x81, b"late", None)) == []
        assert parser.controls == []


# ---- frames to bytes and back


@given(
    opcode=st.sampled_from(OPCODES), payload=payloads(), bits=st.tuples(BITS, BITS, BITS, BITS), key=st.none() | KEYS
)
@examples(150)
def test_the_bytes_of_a_frame_say_what_the_frame_says(
    opcode: int, payload: bytes, bits: tuple[int, int, int, int], key: bytes | None
) -> None:
    frame = ABNF(*bits, opcode, int(key is not None), payload)
    frame.get_mask_key = lambda size: (key or b"")[:size]
    if opcode >= 8 and len(payload) > 125:
        with pytest.raises(ValueError, match="125"):
            frame.format()
        return
    data = frame.format()
    fin, rsv1, rsv2, rsv3 = bits
    first_byte = fin << 7 | rsv1 << 6 | rsv2 << 5 | rsv3 << 4 | opcode
    assert header_of(data) == (first_byte, int(key is not None), len(payload), key or b"")
    assert data == encode_frame(first_byte, payload, key)
    assert bytes(frame_payload(data)) == payload


@SIDES
@given(opcode=st.sampled_from(OPCODES), fin=st.booleans(), payload=payloads(), text=TEXTS, key=KEYS)
@examples(150)
def test_parsing_a_frame_that_was_formatted_gives_it_back(
    server: bool, opcode: int, fin: bool, payload: bytes, text: str, key: bytes
) -> None:
    if opcode == 1:
        payload = text.encode()
    elif opcode == 8:
        payload = close_payload(1000, text[:30])
    elif opcode >= 8:
        payload = payload[:125]
    frame = ABNF.create_frame(payload, opcode, int(fin))
    frame.mask_value = int(server)
    frame.get_mask_key = lambda size: key[:size]
    data = frame.format()
    begun = encode_frame(0x02, b"", key if server else None) if opcode == 0 else b""
    outcome = Outcome(begun + data, server=server, fire_cont_frame=True)
    if opcode < 8:
        text_of = payload.decode() if opcode == 1 else None
        assert outcome.events[-1] == ("fragment", opcode, int(fin), payload, text_of)
    elif fin:
        assert outcome.all == ([(opcode, payload)], 0, opcode == 8)
    else:
        assert outcome.all == ([], 1002, False)


@pytest.mark.parametrize("opcode", [opcode for opcode in range(16) if opcode not in OPCODES])
@given(payload=st.binary(max_size=3), bits=st.tuples(BITS, BITS, BITS, BITS))
@examples(5)
def test_an_unknown_opcode_is_neither_formatted_nor_parsed(
    opcode: int, payload: bytes, bits: tuple[int, int, int, int]
) -> None:
    with pytest.raises(ValueError, match="OPCODE"):
        ABNF(*bits, opcode, 0, payload).format()
    fin, rsv1, rsv2, rsv3 = bits
    first_byte = fin << 7 | rsv1 << 6 | rsv2 << 5 | rsv3 << 4 | opcode
    assert Outcome(encode_frame(first_byte, payload, None)).all == ([], 1002, False)


@given(opcode=st.sampled_from(OPCODES), payload=payloads(), bits=st.tuples(BITS, BITS, BITS, BITS))
@examples(150)
def test_a_received_frame_is_valid_for_abnf_where_the_reference_takes_it(
    opcode: int, payload: bytes, bits: tuple[int, int, int, int]
) -> None:
    first_byte = bits[0] << 7 | bits[1] << 6 | bits[2] << 5 | bits[3] << 4 | opcode
    begun = encode_frame(0x02, b"", None) if opcode == 0 else b""
    # Validity of a text message is no matter of one frame.
    skip = opcode == 1
    expected = Reference(begun + encode_frame(first_byte, payload, None), skip_utf8_validation=skip)
    try:
        ABNF(*bits, opcode, 0, payload).validate()
        valid = True
    except WebSocketProtocolException:
        valid = False
    assert valid is not bool(expected.error_code)


@given(key=KEYS, payload=payloads(140_000), kind=st.sampled_from([bytes, bytearray, memoryview]))
@examples(150)
def test_masking_is_the_xor_of_the_rfc_and_its_own_inverse(key: bytes, payload: bytes, kind: Any) -> None:
    masked = apply_mask(key, kind(payload))
    sample = {*range(min(len(payload), 300)), *range(max(len(payload) - 300, 0), len(payload))}
    assert len(masked) == len(payload)
    assert all(masked[i] == payload[i] ^ key[i % 4] for i in sample)
    assert apply_mask(key, masked) == payload == ABNF.mask(key, ABNF.mask(key, payload))


# ---- what is given


ANYTHING = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.none())


@given(
    status=st.integers(990, 5010) | st.integers(-1, 70_000),
    reason=TEXTS | ANY_TEXT | st.binary(max_size=130) | st.integers(120, 126).map("x".__mul__),
)
@examples(150)
def test_a_close_payload_is_refused_or_is_one_that_a_peer_takes(status: int, reason: str | bytes) -> None:
    try:
        payload = close_payload(status, reason)
    except ValueError:
        encoded = reason if isinstance(reason, bytes) else reason.encode("utf-8", "surrogatepass")
        frame = encode_frame(0x88, max(status, 0).to_bytes(3, "big")[-2:] + encoded, None)
        assert status > 65535 or status < 0 or Outcome(frame).error_code
        return
    assert Outcome(encode_frame(0x88, payload, None)).all == ([(8, payload)], 0, True)
    assert int.from_bytes(payload[:2], "big") == status
    assert payload[2:] == (reason if isinstance(reason, bytes) else reason.encode())


@given(status=ANYTHING, reason=ANYTHING, key=ANYTHING, data=ANYTHING, opcode=ANYTHING, bit=ANYTHING)
@examples(150)
def test_what_is_no_frame_is_a_value_error_or_a_type_error(
    status: Any, reason: Any, key: Any, data: Any, opcode: Any, bit: Any
) -> None:
    def formatted() -> bytes:
        frame = ABNF(bit, 0, 0, 0, opcode, 1, data)
        frame.get_mask_key = lambda size: key
        return frame.format()

    for attempt in (lambda: close_payload(status, reason), lambda: ABNF.mask(key, data), formatted):
        try:
            assert isinstance(attempt(), bytes)
        except (ValueError, TypeError):
            pass


@given(st.binary(max_size=8))
@examples(150)
def test_the_reference_and_the_codec_agree_on_what_is_utf8(data: bytes) -> None:
    assert (utf8_state(data) == "whole") is (data.decode("utf-8", "ignore").encode() == data)


def test_the_lengths_are_on_both_sides_of_each_boundary_of_the_header() -> None:
    assert {125, 126, 65535, 65536} <= set(LENGTHS)
