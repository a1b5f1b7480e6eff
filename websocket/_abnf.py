"""One frame of RFC 6455 5.2: its opcodes and close codes, its masking keys, its payload.

Bytes and values only: no socket, no thread, no clock. Frames become bytes in _frames.py; incoming bytes are cut into
frames by _parser.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from ._exceptions import WebSocketConnectionClosedException, WebSocketPayloadException, WebSocketProtocolException
from ._frames import apply_mask, encode_frame
from ._pure import Payload

__all__ = [
    "ABNF",
    "STATUS_ABNORMAL_CLOSED",
    "STATUS_BAD_GATEWAY",
    "STATUS_GOING_AWAY",
    "STATUS_INVALID_EXTENSION",
    "STATUS_INVALID_PAYLOAD",
    "STATUS_MESSAGE_TOO_BIG",
    "STATUS_NORMAL",
    "STATUS_POLICY_VIOLATION",
    "STATUS_PROTOCOL_ERROR",
    "STATUS_SERVICE_RESTART",
    "STATUS_STATUS_NOT_AVAILABLE",
    "STATUS_TLS_HANDSHAKE_ERROR",
    "STATUS_TRY_AGAIN_LATER",
    "STATUS_UNEXPECTED_CONDITION",
    "STATUS_UNSUPPORTED_DATA_TYPE",
    "continuous_frame",
    "frame_buffer",
]

# Close codes, RFC 6455 7.4.1 and the IANA registry.
STATUS_NORMAL = 1000
STATUS_GOING_AWAY = 1001
STATUS_PROTOCOL_ERROR = 1002
STATUS_UNSUPPORTED_DATA_TYPE = 1003
STATUS_STATUS_NOT_AVAILABLE = 1005  # never on the wire: a close frame without a code
STATUS_ABNORMAL_CLOSED = 1006  # never on the wire: no close frame at all
STATUS_INVALID_PAYLOAD = 1007
STATUS_POLICY_VIOLATION = 1008
STATUS_MESSAGE_TOO_BIG = 1009
STATUS_INVALID_EXTENSION = 1010
STATUS_UNEXPECTED_CONDITION = 1011
STATUS_SERVICE_RESTART = 1012
STATUS_TRY_AGAIN_LATER = 1013
STATUS_BAD_GATEWAY = 1014
STATUS_TLS_HANDSHAKE_ERROR = 1015  # never on the wire

# The codes below 3000 that may be on the wire; 3000 to 4999 are free for libraries and programs.
_REGISTERED_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

MAX_CONTROL_PAYLOAD: Final = 125  # RFC 6455 5.5
MAX_CLOSE_REASON: Final = MAX_CONTROL_PAYLOAD - 2

# Masking keys are drawn from the system a batch at a time: 9 us for 1024 keys, 0.4 us for one.
_KEY_BATCH: Final = 1024
_masking_keys: list[bytes] = []  # list.pop() and list.extend() are atomic; no lock needed


def is_valid_close_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 7.4)."""
    return code in _REGISTERED_CLOSE_CODES or 3000 <= code <= 4999


def new_masking_key() -> bytes:
    """Four unpredictable bytes (RFC 6455 5.3), from the system's random source. Any thread may call it."""
    try:
        return _masking_keys.pop()
    except IndexError:
        batch = os.urandom(4 * _KEY_BATCH)
        _masking_keys.extend([batch[at : at + 4] for at in range(4, len(batch), 4)])
        return batch[:4]


# A child process must not use the keys that its parent is going to use.
os.register_at_fork(after_in_child=_masking_keys.clear)


def payload_bytes(payload: Any) -> Payload:
    """A payload as something that len() counts in bytes: str becomes UTF-8, a wider buffer is seen as bytes.

    Raises TypeError for what is neither str nor bytes-like, ValueError for a str with lone surrogates.
    """
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text payload is not encodable as UTF-8: {error}") from error
    if isinstance(payload, (bytes, bytearray)):
        return payload
    try:
        view = memoryview(payload)
    except TypeError:
        raise TypeError(
            f"a payload must be str or bytes-like, not {type(payload).__name__}; serialize it first, e.g. json.dumps()"
        ) from None
    return view.cast("B") if view.c_contiguous else view.tobytes()


def close_payload(status: int, reason: str | bytes) -> bytes:
    """The payload of a close frame (RFC 6455 5.5.1).

    status: a code that may be on the wire.  reason: str, or bytes of UTF-8, at most 123 bytes.
    Raises ValueError for a code or a reason that RFC 6455 forbids, TypeError for other types.
    """
    if not isinstance(status, int):
        raise TypeError(f"close code must be an int, not {status!r}")
    if not is_valid_close_code(status):
        raise ValueError(
            f"close code {status} is not allowed in a close frame; use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
        )
    encoded = bytes(payload_bytes(reason))
    if len(encoded) > MAX_CLOSE_REASON:
        raise ValueError(f"close reason of {len(encoded)} bytes is too long; at most {MAX_CLOSE_REASON} bytes of UTF-8")
    try:
        encoded.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"close reason is not UTF-8: {error}") from error
    return status.to_bytes(2, "big") + encoded


class ABNF:
    """One frame, with websocket-client's names.

    fin, rsv1, rsv2, rsv3: the header's bits, 0 or 1.  opcode: one of OPCODES.  mask_value: 1 where the frame is
    to be masked.  data: the payload, str or bytes; frames that were received carry bytes.
    """

    OPCODE_CONT = 0x0
    OPCODE_TEXT = 0x1
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA

    OPCODES = (OPCODE_CONT, OPCODE_TEXT, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG)

    OPCODE_MAP = {
        OPCODE_CONT: "cont",
        OPCODE_TEXT: "text",
        OPCODE_BINARY: "binary",
        OPCODE_CLOSE: "close",
        OPCODE_PING: "ping",
        OPCODE_PONG: "pong",
    }

    # A payload length below LENGTH_7 fits the 7-bit field, below LENGTH_16 the 16-bit one; LENGTH_63 is too big.
    LENGTH_7 = 0x7E
    LENGTH_16 = 1 << 16
    LENGTH_63 = 1 << 63

    def __init__(
        self,
        fin: int = 0,
        rsv1: int = 0,
        rsv2: int = 0,
        rsv3: int = 0,
        opcode: int = OPCODE_TEXT,
        mask_value: int = 1,
        data: str | Payload | None = "",
    ) -> None:
        self.fin = fin
        self.rsv1 = rsv1
        self.rsv2 = rsv2
        self.rsv3 = rsv3
        self.opcode = opcode
        self.mask_value = mask_value
        self.data: Any = "" if data is None else data
        self.get_mask_key: Callable[[int], str | bytes] = os.urandom

    def __str__(self) -> str:
        return f"fin={self.fin} opcode={self.opcode} data={self.data}"

    def __repr__(self) -> str:
        kind = self.OPCODE_MAP.get(self.opcode, self.opcode)
        return (
            f"<ABNF {kind} fin={self.fin} {len(self.data)} {'characters' if isinstance(self.data, str) else 'bytes'}>"
        )

    @staticmethod
    def create_frame(data: str | Payload, opcode: int, fin: int = 1) -> ABNF:
        """A frame to be sent: masked, text encoded as UTF-8.

        Raises TypeError for a payload that is neither str nor bytes-like.
        """
        return ABNF(fin, 0, 0, 0, opcode, 1, payload_bytes(data))

    def validate(self, skip_utf8_validation: bool = False) -> None:
        """Check a received frame against RFC 6455 5.

        skip_utf8_validation: do not look at the encoding of a close reason.
        Raises WebSocketProtocolException that says which rule it breaks.
        """
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise WebSocketProtocolException(
                f"reserved bits {self.rsv1}{self.rsv2}{self.rsv3} are set and no extension was negotiated"
            )
        if self.opcode not in self.OPCODES:
            raise WebSocketProtocolException(f"Invalid opcode {self.opcode!r}")
        if self.opcode >= self.OPCODE_CLOSE and not self.fin:
            raise WebSocketProtocolException(f"fragmented {self.OPCODE_MAP[self.opcode]} frame")
        if self.opcode >= self.OPCODE_CLOSE and len(self.data) > MAX_CONTROL_PAYLOAD:
            raise WebSocketProtocolException(
                f"{self.OPCODE_MAP[self.opcode]} frame with a payload of {len(self.data)} bytes; at most"
                f" {MAX_CONTROL_PAYLOAD} are allowed"
            )
        if self.opcode == self.OPCODE_CLOSE:
            self._validate_close(skip_utf8_validation)

    def _validate_close(self, skip_utf8_validation: bool) -> None:
        size = len(self.data)
        if not size:
            return
        if size == 1:
            raise WebSocketProtocolException("Invalid close frame: a payload of 1 byte holds no close code")
        code = int.from_bytes(self.data[:2], "big")
        if not is_valid_close_code(code):
            raise WebSocketProtocolException(f"Invalid close code {code}")
        if not skip_utf8_validation:
            try:
                bytes(self.data[2:]).decode()
            except UnicodeDecodeError as error:
                raise WebSocketProtocolException(f"Invalid close frame: the reason is not UTF-8: {error}") from error

    def format(self) -> bytes:
        """The frame's bytes, masked with a key from `get_mask_key` where mask_value is 1.

        Raises ValueError for header bits that are not 0 or 1, an unknown opcode, or a control payload of more
        than 125 bytes.
        """
        bits = (self.fin, self.rsv1, self.rsv2, self.rsv3)
        if any(bit not in (0, 1) for bit in bits):
            raise ValueError(f"fin, rsv1, rsv2 and rsv3 must be 0 or 1, not {bits}")
        if self.opcode not in self.OPCODES:
            raise ValueError(f"Invalid OPCODE {self.opcode!r}; use one of ABNF.OPCODE_*")
        payload = payload_bytes(self.data)
        if self.opcode >= self.OPCODE_CLOSE and len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"{self.OPCODE_MAP[self.opcode]} payload of {len(payload)} bytes is too long; at most"
                f" {MAX_CONTROL_PAYLOAD} bytes (RFC 6455 5.5)"
            )
        first = self.fin << 7 | self.rsv1 << 6 | self.rsv2 << 5 | self.rsv3 << 4 | self.opcode
        return encode_frame(first, payload, checked_key(self.get_mask_key(4)) if self.mask_value else None)

    @staticmethod
    def mask(mask_key: str | bytes, data: str | bytes) -> bytes:
        """`data` XOR the repeated four-byte `mask_key` (RFC 6455 5.3); str is taken as Latin-1.

        Raises ValueError for a key that is not four bytes long.
        """
        if data is None:
            data = ""
        payload = data.encode("latin-1") if isinstance(data, str) else payload_bytes(data)
        return apply_mask(checked_key(mask_key), payload)


def checked_key(key: Any) -> bytes:
    """A masking key as a program's get_mask_key gave it: four bytes, or str of four Latin-1 characters.

    Raises ValueError for other lengths, TypeError for other types.
    """
    if isinstance(key, str):
        key = key.encode("latin-1")
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"get_mask_key must give bytes or str, not {type(key).__name__}")
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    return bytes(key)


def frame_payload(frame: bytes) -> bytes:
    """The payload of one whole frame of bytes that encode_frame() made."""
    field = frame[1] & 0x7F
    header = 2 if field < 126 else 4 if field == 126 else 10
    if not frame[1] & 0x80:
        return frame[header:]
    return apply_mask(frame[header : header + 4], memoryview(frame)[header + 4 :])


# ---- Only for programs written for websocket-client: nothing in the package uses what follows. ----

# What frame_buffer asks for at once, at most.
_READ: Final = 64 * 1024


class frame_buffer:
    """Reads frames through a function `recv_fn(n)` that gives at most n bytes, as websocket-client's class does."""

    def __init__(self, recv_fn: Callable[[int], bytes], skip_utf8_validation: bool) -> None:
        self.recv = recv_fn
        self.skip_utf8_validation = skip_utf8_validation
        self.recv_buffer: list[bytes] = []  # bytes of a frame that a timeout cut short
        self.clear()

    def clear(self) -> None:
        """Forget what was read of the frame under way."""
        self.header: tuple[int, ...] | None = None
        self.length: int | None = None
        self.mask_value: bytes | None = None

    def has_received_header(self) -> bool:
        """Whether the frame's first two bytes are still to be read (sic: websocket-client's sense)."""
        return self.header is None

    def recv_header(self) -> None:
        """Read the frame's first two bytes."""
        first, second = self.recv_strict(2)
        bits = (first >> 7 & 1, first >> 6 & 1, first >> 5 & 1, first >> 4 & 1)
        self.header = (*bits, first & 0xF, second >> 7 & 1, second & 0x7F)

    def has_mask(self) -> bool:
        """Whether the frame under way is masked."""
        return bool(self.header and self.header[5])

    def has_received_length(self) -> bool:
        """Whether the payload length is still to be read (sic)."""
        return self.length is None

    def recv_length(self) -> None:
        """Read the payload length."""
        assert self.header is not None
        field = self.header[6]
        extra = {126: 2, 127: 8}.get(field, 0)
        self.length = int.from_bytes(self.recv_strict(extra), "big") if extra else field

    def has_received_mask(self) -> bool:
        """Whether the masking key is still to be read (sic)."""
        return self.mask_value is None

    def recv_mask(self) -> None:
        """Read the masking key, where there is one."""
        self.mask_value = self.recv_strict(4) if self.has_mask() else b""

    def recv_frame(self) -> ABNF:
        """Read one frame and validate it. After a timeout the next call goes on where this one stopped."""
        if self.has_received_header():
            self.recv_header()
        if self.has_received_length():
            self.recv_length()
        if self.has_received_mask():
            self.recv_mask()
        assert self.header is not None
        assert self.length is not None
        payload = self.recv_strict(self.length)
        if self.mask_value:
            payload = apply_mask(self.mask_value, payload)
        fin, rsv1, rsv2, rsv3, opcode, has_mask, _ = self.header
        self.clear()
        frame = ABNF(fin, rsv1, rsv2, rsv3, opcode, has_mask, payload)
        frame.validate(self.skip_utf8_validation)
        return frame

    def recv_strict(self, bufsize: int) -> bytes:
        """Exactly `bufsize` bytes."""
        shortage = bufsize - sum(map(len, self.recv_buffer))
        while shortage > 0:
            received = self.recv(min(_READ, shortage))
            if not received:
                raise WebSocketConnectionClosedException("Connection to remote host was lost.")
            self.recv_buffer.append(received)
            shortage -= len(received)
        unified = b"".join(self.recv_buffer)
        self.recv_buffer = [unified[bufsize:]] if shortage < 0 else []
        return unified[:bufsize]


class continuous_frame:
    """Joins the frames of a fragmented message, as websocket-client's class does."""

    def __init__(self, fire_cont_frame: bool, skip_utf8_validation: bool) -> None:
        self.fire_cont_frame = fire_cont_frame
        self.skip_utf8_validation = skip_utf8_validation
        self.cont_data: list[Any] | None = None  # [opcode, payload so far]
        self.recving_frames: int | None = None  # the opcode of the message under way

    def validate(self, frame: ABNF) -> None:
        """Check that the frame may come here. Raises WebSocketProtocolException."""
        if not self.recving_frames and frame.opcode == ABNF.OPCODE_CONT:
            raise WebSocketProtocolException("Illegal frame: a continuation with nothing to continue")
        if self.recving_frames and frame.opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
            raise WebSocketProtocolException("Illegal frame: a new message before the end of a fragmented one")

    def add(self, frame: ABNF) -> None:
        """Take a data frame."""
        if self.cont_data:
            self.cont_data[1] += frame.data
        else:
            if frame.opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
                self.recving_frames = frame.opcode
            self.cont_data = [frame.opcode, frame.data]
        if frame.fin:
            self.recving_frames = None

    def is_fire(self, frame: ABNF) -> bool:
        """Whether extract() has something to give after this frame."""
        return bool(frame.fin or self.fire_cont_frame)

    def extract(self, frame: ABNF) -> list[Any]:
        """[opcode, frame], the frame with the joined payload. Raises WebSocketPayloadException for bad UTF-8."""
        assert self.cont_data is not None
        opcode, frame.data = self.cont_data
        self.cont_data = None
        if opcode == ABNF.OPCODE_TEXT and not (self.fire_cont_frame or self.skip_utf8_validation):
            try:
                bytes(frame.data).decode()
            except UnicodeDecodeError as error:
                raise WebSocketPayloadException(f"cannot decode: {frame.data!r}") from error
        return [opcode, frame]
