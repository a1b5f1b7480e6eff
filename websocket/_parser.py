"""Incoming bytes -> messages and control frames (RFC 6455 5 and 8.1), in whatever pieces the bytes arrive.

Bytes and values only. A Parser belongs to whoever holds the reading turn of its connection; it has no lock.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ._abnf import (
    ABNF,
    MAX_CONTROL_PAYLOAD,
    STATUS_INVALID_PAYLOAD,
    STATUS_MESSAGE_TOO_BIG,
    STATUS_PROTOCOL_ERROR,
    is_valid_close_code,
)
from ._allocator import expect_blocks
from ._deflate import InflateError, Inflater
from ._exceptions import WebSocketException, WebSocketPayloadException, WebSocketProtocolException
from ._frames import apply_mask, take_plain_frames
from ._message import Assembly, MessageInParts, TooBig
from ._place import Place

DEFAULT_MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024

# Where so much of a binary payload is missing it is received straight into memory of its own; where less is, a batch of
# up to 256 KiB costs less (100 KB messages: 1.7 against 1.4 GB/s; 1 MiB: 1.6 against 2.0).
LARGE_PAYLOAD: Final = 192 * 1024
_LARGE: Final = 32 * 1024  # frames of this size are worth a look at what is best for them
# The longest header of a frame that is not masked.
HEADER: Final = 10
# As much of a payload is received into one place; what is longer is joined from such.
_LARGEST_PLACE: Final = 64 * 1024 * 1024

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
    routine: whether these bytes ended with a message, no large one, and none of the above came; never on a connection
        with compression. Where that was so before as well, there is nothing to look at but the messages.

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
        # take_plain_frames() knows whole unmasked text and binary messages and nothing else.
        self._plain = not (server or skip_utf8_validation or fire_cont_frame)
        self._most_plain = sys.maxsize if max_message_size is None else min(max_message_size, sys.maxsize)
        self._may_be_routine = self._plain and not self._is_compression_agreed
        self.routine = self._may_be_routine
        self._tail = b""  # the bytes of a frame that cannot be judged before more arrive
        self._after_large = False  # the last thing taken was a large binary payload
        self._place: Place | None = None  # where the payload under way is received, if it is a large binary one
        # The data frame under way:
        self._in_frame = False
        self._frame_number = 0  # of those that take_plain_frames() left
        self._left = 0  # bytes of its payload still to come
        self._fin = 0
        self._frame_opcode = 0
        self._key = b""  # its masking key, turned to where the next piece begins

    def place(self) -> memoryview | None:
        """Where the missing bytes of a large binary payload are to be received; landed() wants to know how many have
        come. None where there is none, so that what is received is fed."""
        return None if self._place is None else self._place.rest()

    @property
    def hands_over(self) -> bool:
        """Whether what has come of the message under way is wanted before the rest of it has."""
        return self._message.opcode != 0 and self._message.goes_in_parts(self.parts_from)

    def expects_large_payload(self) -> bool:
        """Whether another large binary payload may come next, so that a header is best received alone."""
        return self._after_large and not self._in_frame

    @property
    def most_at_once(self) -> int | None:
        """How many bytes should be fed at once at most, for what they give to be of a bounded size and take a bounded
        time, which tiny fragments do not; None for any."""
        if not self._is_compression_agreed:
            return 64 * 1024 if self._message.opcode and not self._in_frame else None
        return 64 * 1024 if self.parts_from is None else 16 * 1024

    def feed(self, data: bytes) -> list[Any]:
        """Take bytes as they came; return the messages that they complete."""
        messages: list[Any] = []
        position = 0
        if self.routine:
            try:
                position = take_plain_frames(data, 0, messages, self._most_plain)
            except UnicodeDecodeError as error:
                self._fail_as_bad_text(error)
                return messages
            if position == len(data):
                return messages
        self.controls = []
        if self.parts:
            self.parts = []
        if self.error is not None or self.closed:
            return messages
        self._feed_by_all_rules(data, position, messages)
        self.routine = self._may_be_routine and not (
            self.controls
            or self.parts
            or self._after_large
            or self.error is not None
            or self.closed
            or not self.at_message_boundary()
        )
        return messages

    def landed(self, count: int) -> list[Any]:
        """Take `count` bytes, at least one, that were received into place(); return the message that they complete."""
        messages: list[Any] = []
        place = self._place
        assert place is not None
        place.fill(count)
        self._left -= count
        self.controls = []
        if self.parts:
            self.parts = []
        if place.is_full:
            self._place = None
            self._message.add(place.take())
            if self._left:
                self._make_place()
            else:
                self._end_of_frame(messages)
                self._after_large = bool(messages)
        self._hand_over(messages)
        return messages

    def _hand_over(self, messages: list[Any]) -> None:
        """Where what has come of the message under way is wanted before the rest: give it."""
        if self.hands_over:
            if self._place is not None and (piece := self._place.take()):
                self._message.add(piece)
            self._message.hand_over(messages, self.parts)

    def _feed_by_all_rules(self, data: bytes, position: int, messages: list[Any]) -> None:
        self._message.inflated = 0
        try:
            try:
                self._consume(data, position, messages)
            finally:  # also what came before a breach
                self._hand_over(messages)
        except InflateError as error:
            problem = WebSocketPayloadException(f"compressed message cannot be inflated: {error}")
            self._fail(problem, STATUS_INVALID_PAYLOAD)
        except UnicodeDecodeError as error:
            self._fail_as_bad_text(error)
        except TooBig as error:
            self._fail(WebSocketPayloadException(*error.args), STATUS_MESSAGE_TOO_BIG)
        except _BadReason as error:
            self._fail(WebSocketProtocolException(*error.args), STATUS_INVALID_PAYLOAD)
        except _Violation as error:
            self._fail(WebSocketProtocolException(*error.args), STATUS_PROTOCOL_ERROR)

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
        self._place = None
        self._message.forget()

    def _fail_as_bad_text(self, error: UnicodeDecodeError) -> None:
        self._fail(WebSocketPayloadException(f"text message is not UTF-8: {error}"), STATUS_INVALID_PAYLOAD)

    def _fail(self, error: WebSocketException, code: int) -> None:
        self.routine = False
        self.error = error
        self.error_code = code
        self._tail = b""
        self._message.forget()

    def _consume(self, data: bytes, position: int, messages: list[Any]) -> None:
        """Take the bytes from `position` on; it is 0 where something is under way."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        end = len(data)
        self._after_large = False
        if self._in_frame:
            position = self._payload(data, 0, end, messages)
        message = self._message
        while position + 2 <= end and not self._in_frame:
            if self._plain and not message.opcode:
                position = take_plain_frames(data, position, messages, self._most_plain)
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
        if size >= _LARGE and not self.hands_over:
            expect_blocks(size)
            if self._begin_place(data, start):
                return end
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
        if stop > position:
            # The slice of a whole bytes object is that object: a payload received alone is not copied.
            piece = data[position:stop]
            self._left -= len(piece)
            if self._key:
                piece, self._key = self._unmask(piece)
            if self._place is not None:  # it was to be received into place, and is fed all the same
                self._message.add(self._place.take())
                self._place = None
            self._message.add(piece)
        if not self._left:
            self._end_of_frame(messages)
        return stop

    def _begin_place(self, data: bytes, start: int) -> bool:
        """Where the frame that has just begun is a large binary one that is not here whole: take what is here into the
        place for all of it."""
        here = len(data) - start
        message = self._message
        is_plain_binary = message.opcode == _BINARY and not (message.compressed or self._key)
        if self._left - here < LARGE_PAYLOAD or not is_plain_binary:
            return False
        self._make_place()
        assert self._place is not None
        self._place.put(data[start:])
        self._left -= here
        return True

    def _make_place(self) -> None:
        """For as much as is missing of the frame's payload."""
        self._place = Place(min(self._left, _LARGEST_PLACE)) if self._left > 1 else None

    def _unmask(self, piece: bytes) -> tuple[bytes, bytes]:
        turn = len(piece) & 3
        return apply_mask(self._key, piece), self._key[turn:] + self._key[:turn]

    def _end_of_frame(self, messages: list[Any]) -> None:
        message = self._message
        self._in_frame = False
        self._key = b""
        item = message.end_frame(self._frame_opcode, self._fin)
        if item is not None:
            messages.append(item)
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
