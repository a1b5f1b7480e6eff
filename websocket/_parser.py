"""Incoming bytes -> messages and control frames (RFC 6455 5 and 8.1), in whatever pieces the bytes arrive.

Bytes and values only. A Parser belongs to whoever holds the reading turn of its connection; it has no lock.
"""

from __future__ import annotations

from typing import Any, Final

from ._abnf import (
    ABNF,
    MAX_CONTROL_PAYLOAD,
    STATUS_INVALID_PAYLOAD,
    STATUS_MESSAGE_TOO_BIG,
    STATUS_PROTOCOL_ERROR,
    is_valid_close_code,
)
from ._deflate import InflateError, Inflater
from ._exceptions import WebSocketException, WebSocketPayloadException, WebSocketProtocolException
from ._frames import apply_mask, take_plain_frames
from ._message import Assembly, MessageInParts, TooBig

DEFAULT_MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024

# From this size on a binary payload is received straight into memory of its own; below, a batch costs less.
LARGE_PAYLOAD: Final = 64 * 1024
# The longest header of a frame that is not masked.
HEADER: Final = 10
# As much of a message that is handed over in parts is received at once.
LARGEST_PART: Final = 1024 * 1024

_TEXT: Final = ABNF.OPCODE_TEXT
_BINARY: Final = ABNF.OPCODE_BINARY


class _Violation(Exception):
    """A breach of the protocol: close code 1002."""


class _BadReason(Exception):
    """A close reason that is not UTF-8 (RFC 6455 5.5.1): close code 1007."""


class Parser:
    """Cuts bytes into messages.

    feed() returns the messages that its bytes complete: str, bytes, RawText or Fragment, and a MessageInParts for one
    that is not complete. After it:

    controls: [(n, frame), ...], the control frames of these bytes, each with how many of the returned messages
        came before it.
    parts: [(message, part), ...] for each MessageInParts; None in place of a part for its end.
    error: the exception that ends the connection, or None; what was valid before it was still returned.
    error_code: the close code that tells the peer.
    closed: whether a close frame came; nothing after it is looked at (RFC 6455 1.4).

    parts_from: a message of which so many bytes were announced, and that is not complete, is handed over in parts;
        None: none is. May be set by any thread at any time.

    A text message that cannot become valid UTF-8 any more is an error at once, within a frame still arriving.
    """

    def __init__(
        self,
        *,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        skip_utf8_validation: bool = False,
        fire_cont_frame: bool = False,
        server: bool = False,
        inflater: Inflater | None = None,
        parts_from: int | None = None,
    ) -> None:
        self.parts_from = parts_from
        self.parts: list[tuple[MessageInParts, str | bytes | None]] = []
        self.controls: list[tuple[int, ABNF]] = []
        self.error: WebSocketException | None = None
        self.error_code = 0
        self.closed = False
        self._message = Assembly(max_message_size, skip_utf8_validation, fire_cont_frame, inflater)
        self._is_compression_agreed = inflater is not None
        self._server = server  # a server's parser demands masked frames, a client's refuses them
        # take_plain_frames() knows whole unmasked text and binary messages below 64 KiB and nothing else.
        self._plain = not (server or skip_utf8_validation or fire_cont_frame) and (
            max_message_size is None or max_message_size >= 0xFFFF
        )
        self._tail = b""  # the bytes of a frame that cannot be judged before more arrive
        self._after_large = False  # the last thing taken was a large binary payload
        # The data frame under way:
        self._in_frame = False
        self._frame_number = 0  # of those that take_plain_frames() left
        self._left = 0  # bytes of its payload still to come
        self._fin = 0
        self._frame_opcode = 0
        self._key = b""  # its masking key, turned to where the next piece begins

    def rest_of_large_payload(self) -> int:
        """How many bytes are missing of a large binary payload, which are best received alone and all at once; 0
        where there is none."""
        message = self._message
        if self._left < LARGE_PAYLOAD or message.opcode != _BINARY or message.compressed:
            return 0
        return min(self._left, LARGEST_PART) if message.goes_in_parts(self.parts_from) else self._left

    @property
    def hands_over(self) -> bool:
        """Whether what has come of the message under way is wanted before the rest of it has."""
        return self._message.opcode != 0 and self._message.goes_in_parts(self.parts_from)

    def expects_large_payload(self) -> bool:
        """Whether another large binary payload may come next, so that a header is best received alone."""
        return self._after_large and not self._in_frame

    @property
    def most_at_once(self) -> int | None:
        """How many bytes should be fed at once at most, for what they give to be of a bounded size; None for any."""
        if not self._is_compression_agreed:
            return None
        return 64 * 1024 if self.parts_from is None else 16 * 1024

    def feed(self, data: bytes) -> list[Any]:
        """Take bytes as they came; return the messages that they complete."""
        self.controls = []
        message = self._message
        message.inflated = 0
        if self.parts:
            self.parts = []
        messages: list[Any] = []
        if self.error is not None or self.closed:
            return messages
        try:
            try:
                self._consume(data, messages)
            finally:  # also what came before a breach
                if self.hands_over:
                    message.hand_over(messages, self.parts)
        except InflateError as error:
            problem = WebSocketPayloadException(f"compressed message cannot be inflated: {error}")
            self._fail(problem, STATUS_INVALID_PAYLOAD)
        except UnicodeDecodeError as error:
            self._fail(WebSocketPayloadException(f"text message is not UTF-8: {error}"), STATUS_INVALID_PAYLOAD)
        except TooBig as error:
            self._fail(WebSocketPayloadException(*error.args), STATUS_MESSAGE_TOO_BIG)
        except _BadReason as error:
            self._fail(WebSocketProtocolException(*error.args), STATUS_INVALID_PAYLOAD)
        except _Violation as error:
            self._fail(WebSocketProtocolException(*error.args), STATUS_PROTOCOL_ERROR)
        return messages

    def at_message_boundary(self) -> bool:
        """Whether the bytes so far end between messages, so that an end of the stream cuts none."""
        return not (self._tail or self._in_frame or self._message.opcode)

    @property
    def inflated(self) -> int:
        """How many bytes the compressed messages of these bytes have grown by."""
        return self._message.inflated

    @property
    def frame_under_way(self) -> int:
        """A number of the data frame whose payload is under way, 0 where there is none."""
        return self._frame_number if self._in_frame else 0

    def forget(self) -> None:
        """Let go of the message under way: nothing more will come."""
        self.controls, self.parts = [], []
        self._tail = b""
        self._message.forget()

    def _fail(self, error: WebSocketException, code: int) -> None:
        self.error = error
        self.error_code = code
        self._tail = b""
        self._message.forget()

    def _consume(self, data: bytes, messages: list[Any]) -> None:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        end = len(data)
        self._after_large = False
        position = self._payload(data, 0, end, messages) if self._in_frame else 0
        message = self._message
        while position + 2 <= end and not self._in_frame:
            if self._plain and not message.opcode:
                position = take_plain_frames(data, position, messages)
                if position + 2 > end:
                    break
            taken = self._frame(data, position, end, messages)
            if taken < 0:
                break
            position = taken
            if self.closed:
                return
        if position < end:
            self._tail = data[position:]
            self._after_large = False

    def _frame(self, data: bytes, position: int, end: int, messages: list[Any]) -> int:
        """Take the frame at `position`, as far as it is here, by all the rules. Returns the position after what
        was taken, or -1 where the header (of a control frame: the frame) is not whole."""
        first = data[position]
        second = data[position + 1]
        if first & 0x70 and not (self._is_compression_agreed and first & 0x7F in (0x40 | _TEXT, 0x40 | _BINARY)):
            why = "not RSV1 of a message's first" if self._is_compression_agreed else "no extension was negotiated"
            raise _Violation(f"reserved bits {first >> 4 & 7:03b} are set and {why}")
        masked = second >> 7
        if masked != self._server:
            raise _Violation(
                "the server sent a masked frame" if masked else "the client sent a frame that is not masked"
            )
        fin = first >> 7
        opcode = first & 0x0F
        size = second & 0x7F
        start = position + 2
        if opcode >= 0x8:
            return self._control(data, start, end, fin, opcode, size, messages)
        self._check_order(opcode)
        if size == 126:
            size = int.from_bytes(data[start : start + 2], "big")
            start += 2
        elif size == 127:
            size = int.from_bytes(data[start : start + 8], "big")
            start += 8
        if start + 4 * masked > end:
            return -1
        if size >= ABNF.LENGTH_63:
            raise _Violation("a payload length with its highest bit set (RFC 6455 5.2)")
        self._message.announce(opcode, size, bool(first & 0x40))
        if masked:
            self._key = data[start : start + 4]
            start += 4
        self._in_frame = True
        self._frame_number += 1
        self._left = size
        self._fin = fin
        self._frame_opcode = opcode
        return self._payload(data, start, end, messages)

    def _check_order(self, opcode: int) -> None:
        if opcode > _BINARY:
            raise _Violation(f"Invalid opcode {opcode}")
        if opcode and self._message.opcode:
            raise _Violation("a new message before the end of a fragmented one (RFC 6455 5.4)")
        if not opcode and not self._message.opcode:
            raise _Violation("a continuation frame with nothing to continue (RFC 6455 5.4)")

    def _payload(self, data: bytes, position: int, end: int, messages: list[Any]) -> int:
        """Take payload of the data frame under way; returns the position after it."""
        stop = min(end, position + self._left)
        size = stop - position
        if size:
            # The slice of a whole bytes object is that object: a payload received alone is not copied.
            piece = data[position:stop]
            self._left -= size
            if self._key:
                piece, self._key = self._unmask(piece)
            self._message.add(piece)
        if not self._left:
            self._end_of_frame(messages, size)
        return stop

    def _unmask(self, piece: bytes) -> tuple[bytes, bytes]:
        turn = len(piece) & 3
        return apply_mask(self._key, piece), self._key[turn:] + self._key[:turn]

    def _end_of_frame(self, messages: list[Any], last_piece: int) -> None:
        message = self._message
        self._in_frame = False
        self._key = b""
        is_binary = message.opcode == _BINARY and not message.compressed
        item = message.end_frame(self._frame_opcode, self._fin)
        if item is not None:
            messages.append(item)
            self._after_large = is_binary and last_piece >= LARGE_PAYLOAD
        elif self._fin:
            message.hand_over(messages, self.parts, is_end=True)

    def _control(self, data: bytes, start: int, end: int, fin: int, opcode: int, size: int, messages: list[Any]) -> int:
        """Take a control frame (RFC 6455 5.5) where it is whole."""
        if opcode > ABNF.OPCODE_PONG:
            raise _Violation(f"Invalid opcode {opcode}")
        name = ABNF.OPCODE_MAP[opcode]
        if not fin:
            raise _Violation(f"fragmented {name} frame")
        if size > MAX_CONTROL_PAYLOAD:
            raise _Violation(f"{name} frame with a payload of more than {MAX_CONTROL_PAYLOAD} bytes")
        if opcode == ABNF.OPCODE_CLOSE and size == 1:
            raise _Violation("Invalid close frame: a payload of 1 byte holds no close code")
        key = b""
        if self._server:
            key = data[start : start + 4]
            start += 4
        stop = start + size
        if stop > end:
            return -1
        payload = data[start:stop]
        if key:
            payload = apply_mask(key, payload)
        if opcode == ABNF.OPCODE_CLOSE:
            self._check_close(payload)
            self.closed = True
        self.controls.append((len(messages), ABNF(1, 0, 0, 0, opcode, 0, payload)))
        return stop

    @staticmethod
    def _check_close(payload: bytes) -> None:
        if payload and not is_valid_close_code(int.from_bytes(payload[:2], "big")):
            raise _Violation(f"Invalid close code {int.from_bytes(payload[:2], 'big')}")
        try:
            payload[2:].decode()
        except UnicodeDecodeError as error:
            raise _BadReason(f"close reason is not UTF-8: {error}") from None
