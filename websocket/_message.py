"""What is received: the kinds of messages, and the one under way, put together from the payloads of its frames (RFC
6455 5.4, 5.6, 8.1; RFC 7692 6).

Bytes and values only; an Assembly belongs to its parser.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from ._abnf import ABNF
from ._deflate import Inflater

# Pieces of a message are joined when there are this many, so that a million tiny fragments cost no million objects.
_PIECES: Final = 512

_TEXT: Final = ABNF.OPCODE_TEXT


class TooBig(Exception):
    """More than max_message_size: close code 1009."""


class RawText(bytes):
    """The payload of a text message that skip_utf8_validation left unchecked."""


class Fragment:
    """One frame of a message, where fire_cont_frame asks for them one by one.

    opcode: as in the frame (OPCODE_CONT from the second on).  text: the decoded part of a text message, else None.
    """

    __slots__ = ("data", "fin", "opcode", "text")

    def __init__(self, opcode: int, fin: int, data: bytes, text: str | None) -> None:
        self.opcode = opcode
        self.fin = fin
        self.data = data
        self.text = text


class MessageInParts:
    """A message that is handed over while it arrives: stands in its place among the messages, and gets its parts.

    opcode: OPCODE_TEXT or OPCODE_BINARY.  parts: str or bytes (of text, bytes where skip_utf8_validation left it
    unchecked); guarded by the lock of the inbox that it is in.  is_whole: no more parts will come.  is_dropped: nobody
    wants them.  taken: parts of a recv() that has not got all.
    """

    __slots__ = ("is_dropped", "is_whole", "opcode", "parts", "taken")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.parts: deque[str | bytes] = deque()
        self.is_whole = False
        self.is_dropped = False
        self.taken: list[Any] = []


class Assembly:
    """The message under way.

    opcode: OPCODE_TEXT, OPCODE_BINARY, or 0 between messages.  size: bytes of it that were announced so far.
    compressed: whether it is.  inflated: how many bytes it has grown by.
    """

    def __init__(
        self, limit: int | None, skip_utf8_validation: bool, fire_cont_frame: bool, inflater: Inflater | None
    ) -> None:
        self.opcode = 0
        self.size = 0
        self.compressed = False
        self.inflated = 0
        self._limit = limit
        self._skip_utf8 = skip_utf8_validation
        self._fire_cont_frame = fire_cont_frame
        self._inflater = inflater
        self._inflated_size = 0  # bytes of it so far, where it is compressed
        self._is_raw = False  # it is given as it came: binary, or text that is not looked at
        self._in_parts: MessageInParts | None = None  # where it is handed over in parts
        self._pieces: list[Any] = []
        self._blocks: list[Any] = []  # joined pieces
        self._carry = b""  # the start of a character of its text
        self._raw: list[bytes] = []  # the payload of the frame under way, kept for a Fragment only

    def announce(self, opcode: int, size: int, compressed: bool) -> None:
        """A frame of `size` bytes begins: opcode OPCODE_CONT goes on with the message, others begin one. Raises
        TooBig."""
        if opcode:
            self._check_size(size, compressed)
            self.opcode = opcode
            self.size = size
            self.compressed = compressed
            self._is_raw = opcode != _TEXT or self._skip_utf8
        else:
            self._check_size(self.size + size, self.compressed)
            self.size += size

    def _check_size(self, size: int, compressed: bool = False) -> None:
        """compressed: `size` is that of the compressed message, which may be more than the message's own: with little
        memory zlib makes an eighth more of what cannot be compressed."""
        limit = self._limit
        if limit is None or size <= limit or (compressed and size <= limit + (limit >> 2) + 1024):
            return
        raise TooBig(f"message of {size} bytes exceeds max_message_size={limit}, an option of connect()")

    def add(self, payload: bytes) -> None:
        """Payload of it. Raises UnicodeDecodeError as soon as its text cannot become valid any more, InflateError,
        TooBig."""
        if self.compressed:
            assert self._inflater is not None
            self._add_inflated(self._inflater.inflate(payload))
            self.inflated -= len(payload)
        else:
            self._add(payload)

    def _add_inflated(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._inflated_size += len(piece)
            self.inflated += len(piece)
            self._check_size(self._inflated_size)
            self._add(piece)

    def _add(self, payload: bytes) -> None:
        if self._fire_cont_frame:
            self._raw.append(payload)
        if self._is_raw:
            self._keep(payload)
        else:
            self._decode(payload)

    def _decode(self, piece: bytes) -> None:
        if self._carry:
            piece = self._carry + piece
        text, used = utf_8_decode(piece, "strict", False)
        self._carry = carry = piece[used:]
        if len(carry) == 2 and carry >= b"\xed\xa0" and carry[0] == 0xED:
            utf_8_decode(carry, "strict", True)  # raises: half a surrogate, which CPython would wait on
        if text:
            self._keep(text)

    def _keep(self, piece: Any) -> None:
        self._pieces.append(piece)
        if len(self._pieces) >= _PIECES:
            self._blocks.append(piece[:0].join(self._pieces))
            self._pieces = []

    def end_frame(self, opcode: int, fin: int) -> Any:
        """A frame of it is whole. Returns what that completes: a message, a Fragment, or None. Raises as add()."""
        if fin and self.compressed and self.size:
            assert self._inflater is not None
            self._add_inflated(self._inflater.finish())
        if fin and self._carry:
            utf_8_decode(self._carry, "strict", True)  # raises: the text ends within a character
        item: Any = None
        if self._fire_cont_frame:
            pieces = self._take_pieces()
            item = Fragment(opcode, fin, b"".join(self._raw), None if self._is_raw else "".join(pieces))
            self._raw = []
        elif fin and self._in_parts is None:
            whole = self._joined()
            item = RawText(whole) if self.opcode == _TEXT and self._is_raw else whole
        if fin and self._in_parts is None:
            self._end()
        return item

    def _end(self) -> None:
        self.opcode = 0
        self.size = 0
        self.compressed = False
        self._inflated_size = 0

    def _joined(self) -> Any:
        pieces = self._take_pieces()
        if len(pieces) == 1:
            return pieces[0]
        return b"".join(pieces) if self._is_raw else "".join(pieces)

    def _take_pieces(self) -> list[Any]:
        pieces = self._blocks + self._pieces if self._blocks else self._pieces
        self._pieces, self._blocks = [], []
        return pieces

    # ---- in parts ----

    def goes_in_parts(self, parts_from: int | None) -> bool:
        """Whether it is handed over in parts, where messages of `parts_from` bytes are."""
        if self._in_parts is not None:
            return True
        return parts_from is not None and max(self.size, self._inflated_size) >= parts_from

    def hand_over(
        self, messages: list[Any], parts: list[tuple[MessageInParts, str | bytes | None]], is_end: bool = False
    ) -> None:
        """Put its place into `messages`, the first time, and what is here of it into `parts`; with `is_end` its end,
        too."""
        if self._in_parts is None:
            self._in_parts = MessageInParts(self.opcode)
            messages.append(self._in_parts)
        if part := self._joined():
            parts.append((self._in_parts, part))
        if is_end:
            parts.append((self._in_parts, None))
            self._in_parts = None
            self._end()

    def forget(self) -> None:
        """Let go of it: nothing more will come."""
        self._in_parts = None
        self._pieces, self._blocks, self._raw = [], [], []
