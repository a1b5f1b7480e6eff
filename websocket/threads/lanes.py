"""What waits to be written, in lanes, and what of it is unsent at the end. Guarded by the outbox's lock."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from .._abnf import ABNF, frame_payload
from .._pure import Payload
from .intake import LARGEST, Gate, Intake, move_all

# What the writer joins into one system call. Frames of more than LARGEST go alone, so that they need not be copied.
_BATCH_BYTES: Final = 256 * 1024
# Pings and pongs of the program that may wait; a full lane blocks as a full outbox does.
_MAX_CONTROLS: Final = 128
# Answers to pings that may wait; RFC 6455 5.5.3 allows to answer the latest only, so the oldest are dropped.
_MAX_ANSWERS: Final = 128

_OPCODE: Final = 0x0F
_FIN: Final = 0x80


class CompressedFrame(bytes):
    """A frame of a compressed message, with the payload that it was before."""

    original: bytes

    def __new__(cls, frame: bytes, original: Payload) -> CompressedFrame:
        self = super().__new__(cls, frame)
        self.original = bytes(original)
        return self


def size_of(frame: bytes) -> int:
    """What a frame counts against the bounds: all that is kept of it."""
    return len(frame) if type(frame) is bytes else len(frame) + len(frame.original)  # type: ignore[attr-defined]


class Lanes:
    """Data, pings and pongs of the program, answers to pings, the close frame; and the batch that is being written.

    Bounds are those of data: max_messages and max_bytes that wait or are being written; one is let in of whatever size.

    fragmenting: the thread whose fragmented message is under way, 0 where there is none.
    close_frame: waiting to be written, after all data.
    close_written: whether one was given out.
    batch: frames being written, or the rest of a lent write; belongs to the writing turn.
    """

    def __init__(self, max_messages: int, max_bytes: int, intake: Intake) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._intake = intake
        self.data: deque[bytes] = deque()
        self.controls: deque[bytes] = deque()
        self.answers: deque[bytes] = deque(maxlen=_MAX_ANSWERS)
        self.close_frame: bytes | None = None
        self.close_written = False
        self.fragmenting = 0
        self.batch: list[bytes] = []
        self._batch_messages = 0  # data frames in it
        self._batch_bytes = 0  # of these
        self._written = 0  # bytes of the batch that the transport took
        self._dropped: deque[bytes] = deque()  # data that waited when the peer closed
        self.bytes = 0  # of self.data and the data in the batch
        self.unsent: list[bytes | str | ABNF] = []
        self._is_given_up = False  # self.unsent is complete

    # ---- coming in ----

    @property
    def messages(self) -> int:
        """Data frames that count against the bound."""
        return len(self.data) + self._batch_messages

    def has_room(self, size: int, continues: bool) -> bool:
        """Whether a data frame may come in; continues: as a further fragment of the message under way."""
        if self.fragmenting and not continues:
            return False
        messages = self.messages
        return not messages or (messages < self._max_messages and self.bytes + size <= self._max_bytes)

    def has_room_for_control(self) -> bool:
        """Whether a ping or pong of the program may come in."""
        return len(self.controls) < _MAX_CONTROLS

    def room_for(self, size: int) -> int:
        """How many messages of at most that size may come in."""
        if self.fragmenting:
            return 0
        return max(0, min(self._max_messages - self.messages, (self._max_bytes - self.bytes) // size))

    def append(self, frame: bytes, size: int, fragmenting: int) -> None:
        """Let a data frame in. fragmenting: the thread whose fragmented message is under way from then on."""
        if fragmenting and not self.fragmenting:
            self._begin_fragments(fragmenting)
        self.fragmenting = fragmenting  # first: a signal handler's exception must not leave a fragment without it
        self.data.append(frame)
        self.bytes += size

    def _begin_fragments(self, fragmenting: int) -> None:
        """From here on nobody opens the intake; it is closed again, as a signal handler may have sent since it was."""
        try:
            self.fragmenting = fragmenting
            self._intake.close()
            self._move_in()
        except BaseException:
            self.fragmenting = 0
            raise

    def take_in(self) -> Gate:
        """Close the intake, and let in what has come there; returns its gate. While a fragmented message is under way
        it was closed before, and who has come too late takes his frame back."""
        gate = self._intake.close()
        if not self.fragmenting:
            self._move_in()
        return gate

    def _move_in(self) -> None:
        count = self._intake.move_to(self.data)
        self.bytes += sum(map(len, islice(reversed(self.data), count)))

    # ---- going out ----

    def is_empty(self) -> bool:
        return not (self.batch or self.data or self.controls or self.answers or self.close_frame)

    def has_before_data(self) -> bool:
        """Whether anything goes out before a data frame that comes now."""
        return bool(self.batch or self.data or self.controls or self.answers)

    def take_batch(self) -> bytes:
        """What is to be written next, in one piece: control frames first, then data, the close frame last."""
        batch = self.batch
        size = self._take_from(self.answers, 0)
        size = self._take_from(self.controls, size)
        before = len(batch)
        if size + self.bytes <= _BATCH_BYTES and max(map(len, self.data), default=0) <= LARGEST:
            batch.extend(self.data)
            self.data.clear()
            self._batch_messages = len(batch) - before
            self._batch_bytes = self.bytes
            size += self.bytes
        else:
            self._take_from(self.data, size)
            size = sum(map(len, batch))
            self._batch_messages = len(batch) - before
            self._batch_bytes = sum(map(size_of, islice(batch, before, None)))
        is_last = not (self.data or self.controls or self.answers)
        if self.close_frame and is_last and size <= _BATCH_BYTES:
            batch.append(self.close_frame)
            self.close_frame = None
            self.close_written = True
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _take_from(self, lane: deque[bytes], size: int) -> int:
        """Into the batch, which has `size` bytes; returns how many it has then."""
        while lane and not (size and (size + len(lane[0]) > _BATCH_BYTES or len(lane[0]) > LARGEST)):
            frame = lane.popleft()
            self.batch.append(frame)
            size += len(frame)
            if len(frame) > LARGEST:
                break
        return size

    def rest(self) -> memoryview:
        """What is to be written of the batch: all of it, or the rest of a lent write."""
        return memoryview(b"".join(self.batch))[self._written :]

    def wrote(self, count: int) -> None:
        """Count bytes of the batch that the transport took. Writing turn; needs no lock."""
        self._written += count

    def leave_rest(self, frame: bytes, written: int, is_data: bool) -> None:
        """The transport took only the beginning of a frame that was written at once."""
        self.batch.append(frame)
        self._written = written
        if is_data:
            self._batch_messages, self._batch_bytes = 1, size_of(frame)
            self.bytes += self._batch_bytes

    def clear_batch(self) -> None:
        """The batch is written whole."""
        # From 0 again where nothing is left: an exception of a signal handler may have come before a frame was counted.
        self.bytes = self.bytes - self._batch_bytes if self.data else 0
        self._batch_messages = self._batch_bytes = 0
        self.batch.clear()
        self._written = 0

    # ---- the end ----

    def drop_all(self) -> None:
        """The peer has closed: data that waits is unsent, and nothing else is to be written but a close frame."""
        self.controls.clear()
        self.answers.clear()
        move_all(self.data, self._dropped)

    def give_up(self) -> None:
        """Nothing more is written. Put into `unsent` what was not, oldest first."""
        if self._is_given_up:
            return
        end = 0
        unsent: list[bytes | str | ABNF] = []
        for frame in self.batch:
            end += len(frame)
            if end > self._written:  # a frame that is not written whole does not exist for the peer
                self._give_up(frame, unsent)
        for frame in (*self._dropped, *self.data):
            self._give_up(frame, unsent)
        self.unsent = unsent  # all of it again, where an exception of a signal handler comes before the next line
        self._is_given_up = True
        self.batch.clear()
        self._dropped.clear()
        self.data.clear()

    @staticmethod
    def _give_up(frame: bytes, unsent: list[bytes | str | ABNF]) -> None:
        opcode = frame[0] & _OPCODE
        if opcode >= ABNF.OPCODE_CLOSE:
            return
        payload = frame.original if isinstance(frame, CompressedFrame) else frame_payload(frame)
        if opcode == ABNF.OPCODE_CONT or not frame[0] & _FIN:
            unsent.append(ABNF(frame[0] >> 7, 0, 0, 0, opcode, 1, payload))
        else:
            unsent.append(payload.decode("utf-8", "surrogateescape") if opcode == ABNF.OPCODE_TEXT else payload)
