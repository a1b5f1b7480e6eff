"""Messages in pieces: what recv_streaming() gives, and how send() makes one message of an iterable's chunks."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final

from ._abnf import ABNF, STATUS_UNEXPECTED_CONDITION, payload_bytes
from ._exceptions import WebSocketException
from ._frames import encode_frame
from ._message import MessageInParts, RawText
from .threads.connection import Connection
from .threads.lanes import CompressedFrame

_TEXT: Final = ABNF.OPCODE_TEXT
_FIN: Final = 0x80
# How long the closing handshake may take after a message that could not be finished; nobody waits for it.
_CLOSE_TIMEOUT: Final = 3.0


class MessageStream:
    """The pieces of one message, in the order in which they come: an iterator of str for a text message, of bytes for a
    binary one, as recv_streaming() gives it. As a context manager it is closed at the end of the block.

    is_text: whether it is a text message.

    A timeout of next() loses nothing: the next call goes on. Any thread may iterate, one at a time.
    """

    def __init__(self, connection: Connection, item: Any, deadline: Callable[[], float | None]) -> None:
        """item: what was received, no close frame.  deadline: gives the moment until which a piece is waited for."""
        self._connection = connection
        self._deadline = deadline
        # What the connection has the rest of; None for a whole message and at the end.
        self._rest: MessageInParts | None = None
        self._first: list[Any] = []
        self._decode: Callable[[bytes, bool], str] | None = None  # of text that skip_utf8_validation left unchecked
        if isinstance(item, MessageInParts):
            self.is_text = item.opcode == _TEXT
            self._rest = item
            self._first, item.taken = item.taken, []  # of a recv() that ran out of time
        else:
            self.is_text = isinstance(item, (str, RawText))
            self._first = [item] if item else []

    def __iter__(self) -> MessageStream:
        return self

    def __next__(self) -> Any:
        """The next piece. Raises WebSocketTimeoutException, and where the connection ends within the message
        WebSocketConnectionClosedException, or once the exception that tells how the peer broke the protocol."""
        while True:
            if self._first:
                piece = self._first.pop(0)
            elif self._rest is None:
                raise StopIteration
            elif self._rest.is_dropped:
                raise WebSocketException("an exception of a signal handler has cost a piece; the rest was skipped")
            else:
                piece = self._connection.receiving.receive_part(self._rest, self._deadline())
                if isinstance(piece, ABNF):
                    raise self._connection.end.closed_error()
                if piece is None:
                    self._rest = None
            if not self.is_text or isinstance(piece, str):
                if piece is not None:
                    return piece
            elif text := self._decoded(piece):
                return text

    def _decoded(self, piece: bytes | None) -> str:
        """Unchecked text; what is cut within a character waits for the next piece."""
        if self._decode is None:
            if piece is None:
                return ""
            self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        return self._decode(piece or b"", self._rest is None and not self._first)

    def close(self) -> None:
        """Leave the rest of the message: it is skipped as it arrives. Never waits."""
        self._first = []
        rest, self._rest = self._rest, None
        if rest is not None:
            self._connection.receiving.drop(rest)

    def __enter__(self) -> MessageStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_rest", None) is not None:
            self.close()


def as_chunks(payload: Any) -> Iterator[Any] | None:
    """The chunks of a payload that is an iterable of them; None for one that is a message itself (str, bytes-like), or
    that is neither."""
    if isinstance(payload, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(payload, Iterable):
        return None
    try:
        memoryview(payload)  # type: ignore[arg-type]
    except TypeError:
        return iter(payload)
    return None  # an array


class ChunkSender:
    """Sends the chunks of one message as its fragments, each as soon as the iterable gives it (RFC 6455 5.4)."""

    def __init__(
        self,
        connection: Connection,
        opcode: int,
        new_key: Callable[[], bytes],
        timeout: Callable[[], float | None],
        is_checked: bool,
    ) -> None:
        """is_checked: bytes of a text message must be UTF-8."""
        self._connection = connection
        self._opcode = opcode
        self._new_key = new_key
        self._timeout = timeout
        self._check = codecs.getincrementaldecoder("utf-8")().decode if is_checked and opcode == _TEXT else None
        self._sent = 0  # bytes of frames
        self._has_begun = False
        self._deflater: Any = None

    def send(self, chunks: Iterator[Any]) -> int:
        """Send them all; returns the number of bytes of all frames. Whatever is raised after the first chunk leaves the
        message unfinished, so that the connection is closed, with 1011."""
        outbox = self._connection.outbox
        is_within = outbox.is_fragmenting_here()  # another message of this thread, so that this one is refused
        try:
            for chunk in chunks:
                self._fragment(payload_bytes(chunk))
            self._finish()
        except BaseException:
            # A signal handler's exception may have come between the frame's place and our own note of it.
            has_begun = self._has_begun or (outbox.is_fragmenting_here() and not is_within)
            if has_begun and not outbox.is_closing:
                self._connection.give_up(STATUS_UNEXPECTED_CONDITION, "a message could not be finished", _CLOSE_TIMEOUT)
            raise
        return self._sent

    def _fragment(self, data: Any) -> None:
        self._check_text(data, False)
        outbox = self._connection.outbox
        if self._has_begun:
            payload = data if self._deflater is None else self._deflater.part(data)
            self._put(0, payload, data)
            return
        deflating = self._connection.deflating
        if deflating is None:
            frame = encode_frame(self._opcode, data, self._new_key())
            outbox.put_fragment(frame, self._timeout())
            self._sent += len(frame)
        else:
            self._deflater, size = deflating.put_first(self._opcode, data, self._new_key(), self._timeout())
            self._sent += size
        self._has_begun = True

    def _finish(self) -> None:
        """The last frame, empty: which chunk is the last is known only behind it."""
        self._check_text(b"", True)
        if not self._has_begun:  # no chunk at all: an empty message
            frame = encode_frame(_FIN | self._opcode, b"", self._new_key())
            self._connection.outbox.put(frame, self._timeout())
            self._sent += len(frame)
        else:
            self._put(_FIN, b"" if self._deflater is None else self._deflater.end(), b"")

    def _put(self, first_byte: int, payload: Any, original: Any) -> None:
        frame = encode_frame(first_byte, payload, self._new_key())
        if self._deflater is not None:
            frame = CompressedFrame(frame, original)
        self._connection.outbox.put_fragment(frame, self._timeout())
        self._sent += len(frame)

    def _check_text(self, data: Any, is_end: bool) -> None:
        if self._check is not None:
            try:
                self._check(data, is_end)
            except UnicodeDecodeError as error:
                raise ValueError(f"chunks of a text message are not UTF-8: {error}; use send_bytes()") from error
