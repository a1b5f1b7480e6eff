"""One frame: its bytes, its masking, its rules."""

from __future__ import annotations

import array
import os
import random
from collections.abc import Callable

import pytest

from websocket import (
    ABNF,
    WebSocketProtocolException,
)
from websocket import _abnf as abnf

KEY = b"\x37\xfa\x21\x3d"  # the key of the examples in RFC 6455 5.7

# Both sides of every change of the length field, and of every cut that the masking of large payloads makes.
BOUNDARIES = [
    *(0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 65534, 65535, 65536, 65537),
    *(2 * 65536 - 1, 2 * 65536, 2 * 65536 + 1, 3 * 65536 + 5),
]


def slow_mask(key: bytes, data: bytes) -> bytes:
    """RFC 6455 5.3, word for word."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


def frame(opcode: int, data: str | bytes, fin: int = 1, **bits: int) -> ABNF:
    return ABNF(fin=fin, opcode=opcode, mask_value=0, data=data, **bits)


# ---- constants


def test_opcodes_and_lengths_are_those_of_the_rfc() -> None:
    assert [ABNF.OPCODE_CONT, ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY] == [0, 1, 2]
    assert [ABNF.OPCODE_CLOSE, ABNF.OPCODE_PING, ABNF.OPCODE_PONG] == [8, 9, 10]
    assert ABNF.OPCODES == (0, 1, 2, 8, 9, 10)
    assert set(ABNF.OPCODE_MAP) == set(ABNF.OPCODES)
    assert (ABNF.LENGTH_7, ABNF.LENGTH_16, ABNF.LENGTH_63) == (126, 65536, 2**63)


def test_close_codes_are_those_of_the_registry() -> None:
    codes = {name: value for name, value in vars(abnf).items() if name.startswith("STATUS_")}
    assert codes == {
        "STATUS_NORMAL": 1000,
        "STATUS_GOING_AWAY": 1001,
        "STATUS_PROTOCOL_ERROR": 1002,
        "STATUS_UNSUPPORTED_DATA_TYPE": 1003,
        "STATUS_STATUS_NOT_AVAILABLE": 1005,
        "STATUS_ABNORMAL_CLOSED": 1006,
        "STATUS_INVALID_PAYLOAD": 1007,
        "STATUS_POLICY_VIOLATION": 1008,
        "STATUS_MESSAGE_TOO_BIG": 1009,
        "STATUS_INVALID_EXTENSION": 1010,
        "STATUS_UNEXPECTED_CONDITION": 1011,
        "STATUS_SERVICE_RESTART": 1012,
        "STATUS_TRY_AGAIN_LATER": 1013,
        "STATUS_BAD_GATEWAY": 1014,
        "STATUS_TLS_HANDSHAKE_ERROR": 1015,
    }


def test_only_codes_that_may_be_on_the_wire_are_valid() -> None:
    allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(65536) if abnf.is_valid_close_code(code)} == allowed


# ---- bytes of a frame


@pytest.mark.parametrize("size", BOUNDARIES)
def test_a_frame_announces_its_length_in_the_smallest_field(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    plain = abnf.encode_frame(0x82, payload, None)
    assert plain == b"\x82" + length + payload
    masked = abnf.encode_frame(0x82, payload, KEY)
    assert masked[: 1 + len(length)] == b"\x82" + bytes([length[0] | 0x80]) + length[1:]
    assert masked[1 + len(length) :] == KEY + slow_mask(KEY, payload)
    assert abnf.frame_payload(plain) == payload
    assert abnf.frame_payload(masked) == payload


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_payload_gives_the_same_frame(kind: Callable[[bytes], bytes]) -> None:
    for size in (0, 5, 126, 70_000):
        payload = random.Random(size).randbytes(size)
        assert abnf.encode_frame(0x82, kind(payload), KEY) == abnf.encode_frame(0x82, payload, KEY)
        assert abnf.encode_frame(0x82, kind(payload), None) == abnf.encode_frame(0x82, payload, None)


def test_the_example_of_the_rfc_is_reproduced() -> None:
    made = ABNF.create_frame("Hello", ABNF.OPCODE_TEXT)
    made.get_mask_key = lambda size: KEY
    assert made.format() == bytes.fromhex("818537fa213d7f9f4d5158")  # RFC 6455 5.7
    assert frame(ABNF.OPCODE_TEXT, "Hello").format() == bytes.fromhex("810548656c6c6f")


@pytest.mark.parametrize("bit", range(4))
def test_each_header_bit_has_its_place(bit: int) -> None:
    bits = [int(bit == position) for position in range(4)]
    assert ABNF(*bits, ABNF.OPCODE_BINARY, 0, b"").format() == bytes([0x80 >> bit | 0x02, 0])


def test_a_masking_key_may_be_str() -> None:
    made = ABNF.create_frame(b"abc", ABNF.OPCODE_BINARY)
    made.get_mask_key = lambda size: "\xff\x00\x01\x80"
    assert made.format() == b"\x82\x83\xff\x00\x01\x80" + slow_mask(b"\xff\x00\x01\x80", b"abc")


@pytest.mark.parametrize(
    ("key", "error"), [(b"abc", ValueError), (b"abcde", ValueError), ("", ValueError), (1, TypeError)]
)
def test_a_masking_key_of_another_kind_is_refused(key: object, error: type[Exception]) -> None:
    made = ABNF.create_frame(b"abc", ABNF.OPCODE_BINARY)
    made.get_mask_key = lambda size: key  # type: ignore[assignment,return-value]
    with pytest.raises(error):
        made.format()


def test_create_frame_encodes_text_and_masks() -> None:
    made = ABNF.create_frame("zażółć", ABNF.OPCODE_TEXT, fin=0)
    assert (made.fin, made.rsv1, made.rsv2, made.rsv3) == (0, 0, 0, 0)
    assert (made.opcode, made.mask_value) == (ABNF.OPCODE_TEXT, 1)
    assert made.data == "zażółć".encode()
    assert str(ABNF.create_frame("hi", ABNF.OPCODE_TEXT)) == "fin=1 opcode=1 data=b'hi'"


@pytest.mark.parametrize("opcode", [ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY])
def test_create_frame_refuses_what_is_no_payload(opcode: int) -> None:
    with pytest.raises(TypeError):
        ABNF.create_frame(5, opcode)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"secret", "secret"])
def test_repr_tells_the_kind_without_the_payload(data: str | bytes) -> None:
    shown = repr(ABNF(1, opcode=ABNF.OPCODE_PING, data=data))
    assert "ping" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    "bad",
    [
        ABNF(2, 0, 0, 0, 1),
        ABNF(1, 2, 0, 0, 1),
        ABNF(1, 0, -1, 0, 1),
        ABNF(1, 0, 0, 9, 1),
        ABNF(1, opcode=3),
        ABNF(1, opcode=0xB),
        ABNF(1, opcode=-1),
        ABNF(1, opcode=ABNF.OPCODE_PING, data=bytes(126)),
    ],
)
def test_format_refuses_what_no_frame_can_hold(bad: ABNF) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # websocket-client's exception; its text is no contract
        bad.format()


def test_a_control_frame_of_125_bytes_can_be_made() -> None:
    assert abnf.frame_payload(ABNF(1, opcode=ABNF.OPCODE_PONG, data=b"x" * 125).format()) == b"x" * 125


# ---- payloads


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("ł", "ł".encode()),
        (b"ab", b"ab"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
        (array.array("I"), b""),
        (memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
    ],
)
def test_a_payload_is_counted_in_bytes(payload: object, expected: bytes) -> None:
    seen = abnf.payload_bytes(payload)
    assert len(seen) == len(expected)
    assert bytes(seen) == expected


@pytest.mark.parametrize("payload", [None, 5, 1.5, [1, 2], {"a": 1}])
def test_what_is_neither_str_nor_bytes_like_is_no_payload(payload: object) -> None:
    with pytest.raises(TypeError, match=type(payload).__name__):
        abnf.payload_bytes(payload)


def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        abnf.payload_bytes("a\ud800")


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (1000, "", b"\x03\xe8"),
        (1001, b"bye", b"\x03\xe9bye"),
        (3000, "ż", b"\x0b\xb8\xc5\xbc"),
        (4999, "x" * 123, b"\x13\x87" + b"x" * 123),
        (1014, bytearray(b"z"), b"\x03\xf6z"),
    ],
)
def test_a_close_payload_holds_code_and_reason(code: int, reason: str, expected: bytes) -> None:
    assert abnf.close_payload(code, reason) == expected


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_a_close_code_that_must_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code}"):
        abnf.close_payload(code, "")


@pytest.mark.parametrize("reason", ["x" * 124, "ż" * 62, b"\xff", b"\xc5", "\ud800"])
def test_a_close_reason_that_does_not_fit_or_is_not_utf8_is_refused(reason: str | bytes) -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        abnf.close_payload(1000, reason)


def test_close_payload_refuses_other_types() -> None:
    with pytest.raises(TypeError):
        abnf.close_payload("1000", "")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        abnf.close_payload(1000, None)  # type: ignore[arg-type]


# ---- masking


@pytest.mark.parametrize("size", BOUNDARIES)
def test_masking_twice_gives_the_payload_again(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    masked = ABNF.mask(KEY, payload)
    assert masked == slow_mask(KEY, payload)
    assert ABNF.mask(KEY, masked) == payload
    assert abnf.apply_mask(KEY, memoryview(payload)) == masked


def test_mask_takes_str_as_latin_1() -> None:
    assert ABNF.mask("abcd", "hällo") == slow_mask(b"abcd", b"h\xe4llo")
    assert ABNF.mask(b"abcd", None) == b""  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4 bytes"):
        ABNF.mask(b"abc", b"x")


def test_no_masking_key_comes_twice_from_several_batches() -> None:
    keys = [abnf.new_masking_key() for _ in range(4 * abnf._KEY_BATCH)]
    assert {len(key) for key in keys} == {4}
    # 4096 draws from 2**32: two equal ones have a chance of 0.2 %, ten equal ones of none.
    assert len(set(keys)) > len(keys) - 10


def test_a_child_process_does_not_use_its_parents_keys() -> None:
    abnf.new_masking_key()  # a batch is there to be inherited
    assert abnf._masking_keys
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"".join(abnf.new_masking_key() for _ in range(256)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    in_child = {data[at : at + 4] for at in range(0, len(data), 4)}
    assert len(in_child) > 250
    in_parent = {abnf.new_masking_key() for _ in range(256)}
    assert len(in_child & in_parent) < 5


# ---- validation


@pytest.mark.parametrize(
    "good",
    [
        frame(ABNF.OPCODE_TEXT, b"\xff", fin=0),  # a part of a text; its encoding is judged as a whole
        frame(ABNF.OPCODE_CONT, b""),
        frame(ABNF.OPCODE_BINARY, bytes(70_000)),
        frame(ABNF.OPCODE_PING, bytes(125)),
        frame(ABNF.OPCODE_CLOSE, b""),
        frame(ABNF.OPCODE_CLOSE, b"\x03\xe8"),
        frame(ABNF.OPCODE_CLOSE, b"\x0f\xa0" + "ż".encode()),
    ],
)
def test_a_frame_within_the_rules_is_valid(good: ABNF) -> None:
    before = (good.fin, good.opcode, good.data)
    good.validate()
    assert (good.fin, good.opcode, good.data) == before


@pytest.mark.parametrize(
    "bad",
    [
        frame(ABNF.OPCODE_TEXT, b"", rsv1=1),
        frame(ABNF.OPCODE_TEXT, b"", rsv2=1),
        frame(ABNF.OPCODE_PING, b"", rsv3=1),
        *(frame(opcode, b"") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(frame(opcode, b"", fin=0) for opcode in (8, 9, 10)),
        frame(ABNF.OPCODE_PING, bytes(126)),
        frame(ABNF.OPCODE_CLOSE, b"\x03"),
        frame(ABNF.OPCODE_CLOSE, b"\x03\xed"),
        frame(ABNF.OPCODE_CLOSE, b"\x03\xe8\xff"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_refused(bad: ABNF) -> None:
    with pytest.raises(WebSocketProtocolException):
        bad.validate()


def test_the_encoding_of_a_close_reason_can_be_left_unchecked() -> None:
    bad = frame(ABNF.OPCODE_CLOSE, b"\x03\xe8\xff")
    bad.validate(skip_utf8_validation=True)
    with pytest.raises(WebSocketProtocolException):
        bad.validate(skip_utf8_validation=False)
