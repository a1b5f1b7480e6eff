"""The outbox: frames that send() accepted, on their way to the writer, bounded in messages and bytes.

Any thread puts; the writing turn takes. A frame that is put is written, in order, unless the connection fails
first; then it is in `unsent`. Control frames overtake waiting data between frames; a close frame is the last.

Most connections need no writer, as their senders write for themselves, so it is started when something is first left
to it: whoever gives the turn back, or puts a frame, calls it then (`_go_on`). Where it never was, whoever comes to the
end of all writing says what is unsent.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Final

from .._abnf import ABNF, frame_payload
from .._exceptions import WebSocketProtocolException, WebSocketTimeoutException
from .._pure import Payload
from .._transport import Transport, poll_timeout
from . import lifetime
from .condition import Condition
from .turn import RETIRED, Turn

# What the writer joins into one system call. Larger frames go alone, so that they need not be copied.
_BATCH_BYTES: Final = 256 * 1024
# Pings and pongs of the program that may wait; a full lane blocks as a full outbox does.
_MAX_CONTROLS: Final = 128
# Answers to pings that may wait; RFC 6455 5.5.3 allows to answer the latest only, so the oldest are dropped.
_MAX_ANSWERS: Final = 128

# More than this many sends in a row, none longer than the gap after the one before and nothing received between
# them, are a burst: there one system call for many frames is worth a thread switch.
_BURST_SENDS: Final = 16
_BURST_GAP: Final = 50e-6  # seconds
# Frames of this size are worth a system call of their own.
_NO_BURST: Final = 16 * 1024

_OPCODE: Final = 0x0F
_FIN: Final = 0x80


class CompressedFrame(bytes):
    """A frame of a compressed message, with the payload that it was before."""

    original: bytes

    def __new__(cls, frame: bytes, original: Payload) -> CompressedFrame:
        self = super().__new__(cls, frame)
        self.original = bytes(original)
        return self


def _size(frame: bytes) -> int:
    """What a frame counts against the bounds: all that is kept of it."""
    return len(frame) if type(frame) is bytes else len(frame) + len(frame.original)  # type: ignore[attr-defined]


class _InLine:
    """A sender that waits for room, and its frame. Guarded by the outbox's lock."""

    def __init__(
        self, frame: bytes, size: int, fragmenting: int, placed: Callable[[], None] | None, changed: Condition
    ) -> None:
        self.thread = get_ident()
        self.frame = frame
        self.size = size
        self.fragmenting = fragmenting
        self.placed = placed
        self.changed = changed  # waited on
        self.is_placed = False


class Outbox:
    """See the module.

    refusal: gives the exception for a send() that is not accepted any more.  on_failure: called once writing has
    failed.  on_settled: called when nothing more will be written, and `unsent` is complete; maybe again.  start_writer:
    lets a thread be started that runs the writer where admit_writer() says so; must not wait, and raises RuntimeError
    where no thread can be started.  All are called without the lock, but by signal handlers.
    """

    def __init__(
        self,
        transport: Transport,
        max_messages: int,
        max_bytes: int,
        *,
        refusal: Callable[[], Exception],
        on_failure: Callable[[], None],
        on_settled: Callable[[], None],
        start_writer: Callable[[], None],
    ) -> None:
        self.lock = threading.RLock()  # re-entrant, so that a signal handler may close the connection it interrupts
        self.turn = Turn(self.lock)
        self._places: list[Condition] = []
        self._changed = self.waiting_place()  # senders of pings and of further fragments wait here
        self._transport = transport
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.refusal = refusal
        self._on_failure = on_failure
        self._on_settled = on_settled
        self._start_writer = start_writer
        # All that follows is guarded by self.lock.
        self._data: deque[bytes] = deque()
        self._controls: deque[bytes] = deque()
        self._answers: deque[bytes] = deque(maxlen=_MAX_ANSWERS)
        self._close_frame: bytes | None = None  # waiting to be written, after all data
        self._batch: list[bytes] = []  # being written; held by the writing turn
        self._batch_messages = 0  # data frames in it
        self._batch_bytes = 0  # of these
        self._written = 0  # bytes of the batch that the transport took
        self._dropped: list[bytes] = []  # data that waited when the peer closed
        self._bytes = 0  # of self._data and the data in self._batch
        self._messages = 0  # likewise
        self._fragmenting = 0  # the thread whose fragmented message is under way
        self._closing = False  # nothing is accepted any more
        self._close_written = False
        self._stopped = False  # nothing is written any more
        self._flush_wanted = False  # the transport has bytes of its own to write (TLS)
        # That a writer is asked for spares asking again, no more: an exception of a signal handler may have come
        # between. Whether there is one, its own thread says.
        self._writer_called = False
        self._writer_admitted = False
        self._must_write_here = False  # the process is ending, and no writer can be started any more
        self._is_settled = False  # who had to be told of the end without a writer has been
        # Senders that wait for room, one behind the other, so that small messages do not pass a large one for ever.
        self._line: deque[_InLine] = deque()
        self._blocked = 0  # senders waiting for anything
        self._last_send = 0.0
        self.streak = 0  # sends in a row; set to 0 by the reader, without the lock, when something comes in
        self.unsent: list[bytes | str | ABNF] = []  # complete once settle() has returned
        self._is_given_up = False  # self.unsent is complete
        self.failure: OSError | None = None  # why writing failed, where it did

    # ---- any thread ----

    def put(self, frame: bytes, timeout: float | None, placed: Callable[[], None] | None = None) -> None:
        """Accept a whole message's frame; write it at once where nobody else writes and this is no burst.

        placed: called, with the lock held, when the frame has its place before all that will be put after it.

        Waits up to `timeout` seconds (None: for ever) for room. Raises WebSocketTimeoutException, or the refusal;
        the message was then not accepted.
        """
        now = time.monotonic()
        lent = False
        try:
            self._go_on_before(timeout)
            with self.lock:
                if now - self._last_send > _BURST_GAP:
                    self.streak = 0
                self._last_send = now
                self.streak += 1
                # Compressing takes longer than a system call: a burst of that is not worth the threads' switching.
                is_worth_a_call = self.streak <= _BURST_SENDS or len(frame) >= _NO_BURST or placed
                if is_worth_a_call and self._may_write_now() and not self._fragmenting:
                    lent = accepted = True
                    self.turn.take()
                else:
                    self.check_fragmenting()
                    accepted = self._queue(frame, timeout, placed=placed)
                if lent and placed is not None:
                    placed()
            if lent:
                accepted = self._write_lent(frame, data=True, timeout=timeout)
            else:
                self._go_on(timeout)
        except BaseException:
            self._interrupted(lent)
            raise
        if not accepted:
            raise self.refusal()

    def put_fragment(self, frame: bytes, timeout: float | None, placed: Callable[[], None] | None = None) -> None:
        """Accept one frame of a fragmented message. From its first frame to its last no other message goes out;
        other threads' wait (RFC 6455 5.4). placed: as for put(). Raises as put(), and WebSocketProtocolException out of
        order."""
        continues = not frame[0] & _OPCODE
        try:
            self._go_on_before(timeout)
            with self.lock:
                if not continues:
                    self.check_fragmenting()
                elif not self._fragmenting:
                    raise WebSocketProtocolException(
                        "a continuation frame with nothing to continue (RFC 6455 5.4); a fragmented message begins with"
                        " a frame of OPCODE_TEXT or OPCODE_BINARY and fin=0"
                    )
                fragmenting = 0 if frame[0] & _FIN else get_ident()
                accepted = self._queue(frame, timeout, continues, fragmenting, placed)
                if accepted:
                    self._call_next()
            self._go_on(timeout)
        except BaseException:
            self._interrupted(lent=False)
            raise
        if not accepted:
            raise self.refusal()

    def put_control(self, frame: bytes, timeout: float | None) -> None:
        """Accept a ping or pong of the program, ahead of waiting data. Raises as put()."""

        def queue() -> bool:
            accepted = self.wait_for(self._changed, lambda: len(self._controls) < _MAX_CONTROLS, timeout)
            if accepted:
                self._controls.append(frame)
                self._wake_writer()
            return accepted

        if not self._write_or(frame, queue, timeout):
            raise self.refusal()

    def answer(self, frame: bytes) -> None:
        """Send the answer to a ping; never waits. Reading turn."""

        def queue() -> bool:
            if not self._closing:
                self._answers.append(frame)
                self._wake_writer()
            return True

        self._write_or(frame, queue, timeout=0)

    def begin_close(self, frame: bytes) -> bool:
        """Accept nothing more; write what was accepted and then the close frame. False where that was so already."""
        lent = False
        try:
            with self.lock:
                if self._closing:
                    return False
                may_write = self._may_write_now()
                self._refuse_all()
                if may_write:
                    self._close_written = True
                    lent = True
                    self.turn.take()
                else:
                    self._close_frame = frame
                    self._wake_writer()
            if lent:
                self._write_lent(frame, data=False, timeout=0)
            else:
                self._go_on(timeout=0)
        except BaseException:
            self._interrupted(lent)
            raise
        return True

    def answer_close(self, frame: bytes) -> bool:
        """Write the close frame next, in place of what waits; what waits is unsent. False where a close frame is
        written already, or was put there before."""
        lent = False
        try:
            with self.lock:
                self._refuse_all()
                self._controls.clear()
                self._answers.clear()
                self._dropped += self._data
                self._data.clear()
                answers = not (self._close_written or self._close_frame)
                if not (self._close_written or self._stopped or self._batch or self.turn.holder):
                    self._close_frame = None
                    self._close_written = True
                    lent = True
                    self.turn.take()
                elif not self._close_written:
                    self._close_frame = frame
                    self._wake_writer()
            if lent:
                self._write_lent(frame, data=False, timeout=0)
            else:
                self._go_on(timeout=0)
        except BaseException:
            self._interrupted(lent)
            raise
        return answers

    def stop(self) -> None:
        """Write nothing more."""
        with self.lock:
            self._refuse_all()
            self._stopped = True
            self._wake_writer()
        self._go_on(timeout=0)

    def want_flush(self) -> None:
        """Let the writer write what the transport has produced by itself. Reading turn."""
        with self.lock:
            self._flush_wanted = True
            self._wake_writer()
        self._go_on(timeout=0)

    @property
    def is_closing(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._closing

    def is_fragmenting_here(self) -> bool:
        """Whether the calling thread's fragmented message is under way."""
        return self._fragmenting == get_ident()

    @property
    def has_blocked(self) -> bool:
        """Whether senders wait for room."""
        return self._blocked > 0

    # ---- the writer ----

    def admit_writer(self) -> bool:
        """A thread for the writer is there; returns whether there is work for one. Then it must run the writer, and
        nobody else will."""
        with self.lock:
            if self._writer_admitted or self._stopped or self.turn.holder == RETIRED:
                return False
            self._writer_admitted = True
            return True

    @property
    def has_writer(self) -> bool:
        """Whether there was a thread for the writer. After stop() that does not change any more."""
        return self._writer_admitted

    def next_batch(self) -> Payload | None:
        """Wait for something to write and take the writing turn for it; None when nothing more is to be written."""
        with self.lock:
            while True:
                if self.turn.holder == RETIRED:
                    return None
                if not self.turn.holder:
                    if self._is_over():
                        return None
                    if self._batch:
                        self.turn.take()
                        return self._rest()
                    if batch := self._take_batch():
                        self.turn.take()
                        return batch
                    if self._flush_wanted:
                        self._flush_wanted = False
                        self.turn.take()
                        return b""
                self.turn.wait()

    def wrote(self, count: int) -> None:
        """Count bytes of the batch that the transport took. Writing turn."""
        self._written += count

    def batch_done(self) -> None:
        """The batch is written whole: give the turn back, make room."""
        with self.lock:
            self._clear_batch()
            self.turn.give_back()

    def settle(self) -> None:
        """The writer has ended: take the writing turn for good, let nobody in any more; what was not written is
        unsent."""
        with self.lock:
            self._refuse_all()
            while self.turn.holder not in (0, RETIRED) and not self.turn.is_mine():
                self.turn.wait_for_return()  # a borrower does not wait in the transport, so this is short
            self._retire()
        self._on_settled()

    def fail(self, error: OSError) -> None:
        """Writing has failed. The reader finds out what has happened to the connection, and ends it."""
        error.__traceback__ = None  # its frames would hold what holds it
        with self.lock:
            self._refuse_all()
            self._stopped = True
            self.failure = self.failure or error
        self._transport.shutdown_reading()
        self._on_failure()

    def close_in_child(self) -> None:
        """Make a forked child's copy refuse everything; its lock may be held by a thread that is not there."""
        self.__init__(  # type: ignore[misc]
            self._transport,
            1,
            1,
            refusal=self.refusal,
            on_failure=self._on_failure,
            on_settled=self._on_settled,
            start_writer=self._start_writer,
        )
        self._closing = self._stopped = self._close_written = self._is_settled = True

    # ---- without a writer ----

    def _go_on(self, timeout: float | None) -> None:
        """Where the turn is free: call the writer if something is left to it, and settle if this is the end and there
        is no writer that does it. Without the lock; timeout: seconds to wait where writing must be done here."""
        if self._writer_admitted:
            return  # and has been woken
        self._settle_if_over()
        with self.lock:
            # Who has the turn comes here when it has given it back.
            is_called_for = not self.turn.holder and (self._flush_wanted or not self._is_empty())
        if is_called_for and not (self._writer_called or self._must_write_here):
            self._call_writer()
        if is_called_for and self._must_write_here:
            self.write_here(None if timeout is None else time.monotonic() + timeout)

    def _go_on_before(self, timeout: float | None) -> None:
        """Before a frame is put, for which there may be no room yet: it must not be this very thread that has still to
        call who makes some. That is so in a signal handler that has interrupted a send() before its _go_on(), and at
        the end of the process, where what a timeout has cut short is written by who comes next."""
        if (self._batch or self._data) and not self._writer_admitted:
            self._go_on(timeout)

    def _call_writer(self) -> None:
        try:
            self._start_writer()
            self._writer_called = True  # now, as a signal handler that sends may have come before
        except RuntimeError as error:
            self._must_write_here = lifetime.is_process_ending(error)
            if not self._must_write_here:
                self.fail(OSError(f"the writer thread could not be started: {error}"))
                self._settle_if_over()

    def _settle_if_over(self) -> None:
        with self.lock:
            if self._is_settled or self._writer_admitted or self.turn.holder not in (0, RETIRED):
                return
            if not self._is_over():
                return
            self._retire()
        self._on_settled()
        self._is_settled = True  # now, as an exception of a signal handler may have come before

    def write_here(self, deadline: float | None) -> None:
        """At the end of the process, where no writer can be started any more: write what waits, at most until a
        time.monotonic() moment. Elsewhere it does nothing."""
        if not self._must_write_here:
            return
        lent = False
        try:
            while True:
                with self.lock:
                    if self.turn.holder or self._is_over() or not (self._batch or self._take_batch()):
                        break
                    rest = self._rest()
                    lent = True
                    self.turn.take()
                is_done = self._write_before(deadline, rest)
                with self.lock:
                    if is_done:
                        self._clear_batch()
                    self.turn.give_back()
                if not is_done:
                    break
        except OSError as error:
            self._fail_lent(error)
        except BaseException:
            self._interrupted(lent)
            raise
        else:
            self._settle_if_over()

    def _write_before(self, deadline: float | None, rest: memoryview) -> bool:
        """Write until all is written (True), the deadline passes, or writing is stopped."""
        poller = select.poll()
        poller.register(self._transport.sock.fileno(), select.POLLOUT)
        while rest:
            count = self._transport.send_now(rest)
            self.wrote(count)
            rest = rest[count:]
            if rest and (self._stopped or not poller.poll(poll_timeout(deadline))):
                return False
        return True

    # ---- with the lock held ----

    def _may_write_now(self) -> bool:
        """Whether a frame may be written at once: the turn is free and nothing waits."""
        return not (self.turn.holder or self._batch or self._data or self._controls or self._answers or self._closing)

    def check_fragmenting(self) -> None:
        """Raises WebSocketProtocolException where this thread's own fragmented message is under way."""
        if self._fragmenting == get_ident() and not self._closing:
            raise WebSocketProtocolException(
                "a new message before the end of this thread's fragmented one (RFC 6455 5.4); send the rest of it as"
                " OPCODE_CONT, the last frame with fin=1"
            )

    def _queue(
        self,
        frame: bytes,
        timeout: float | None,
        continues: bool = False,
        fragmenting: int = 0,
        placed: Callable[[], None] | None = None,
    ) -> bool:
        """Append a data frame, waiting for room; False where nothing is accepted any more. fragmenting: the thread
        whose fragmented message is under way from then on."""
        size = _size(frame)
        if self._closing or not self._has_room(size, continues) or (self._line and not continues):
            # A signal handler does not stand behind the send() that it has interrupted: that cannot go on.
            if not continues and all(waiting.thread != get_ident() for waiting in self._line):
                return self._wait_in_line(_InLine(frame, size, fragmenting, placed, Condition(self.lock)), timeout)
            if not self.wait_for(self._changed, lambda: self._has_room(size, continues), timeout):
                return False
        self._append(frame, size, fragmenting, placed)
        return True

    def _append(self, frame: bytes, size: int, fragmenting: int, placed: Callable[[], None] | None) -> None:
        self._fragmenting = fragmenting  # first: a signal handler's exception must not leave a fragment without it
        self._data.append(frame)
        self._messages += 1
        self._bytes += size
        self._wake_writer()
        if placed is not None:
            placed()

    def _has_room(self, size: int, continues: bool) -> bool:
        if self._fragmenting and not continues:
            return False
        if not self._messages:
            return True
        return self._messages < self._max_messages and self._bytes + size <= self._max_bytes

    def _wait_in_line(self, mine: _InLine, timeout: float | None) -> bool:
        def has_come() -> bool:
            return mine.is_placed or (self._line[0] is mine and self._has_room(mine.size, False))

        accepted = False
        try:
            self._line.append(mine)
            accepted = self.wait_for(mine.changed, has_come, timeout)
        finally:
            if not mine.is_placed:
                self._line = deque(other for other in self._line if other is not mine)
                if accepted:
                    self._append(mine.frame, mine.size, mine.fragmenting, mine.placed)
                self._call_next()
        return accepted or mine.is_placed

    def _call_next(self) -> None:
        """There may be room: let the first in line look, and those who are in none."""
        if self._line and self._has_room(self._line[0].size, False):
            self._line[0].changed.notify()
        self._changed.notify_all()

    def _admit(self) -> None:
        """Take in the frames of those who stand in line, as far as there is room.

        Where each sender takes in its own it has to run first. Those that come meanwhile stand behind it, so that the
        line never ends, and with a thread switch for each message eight threads sent 40,000 in a second. Only the
        writer's thread does this, so that no exception of a signal handler comes between the steps; and, while the
        process ends, who writes in its place.
        """
        while self._line and not self._closing and self._has_room(self._line[0].size, False):
            first = self._line.popleft()
            first.is_placed = True
            self._append(first.frame, first.size, first.fragmenting, first.placed)
            first.changed.notify()

    def waiting_place(self) -> Condition:
        """A condition to wait on that is notified when nothing is accepted any more."""
        place = Condition(self.lock)
        self._places.append(place)
        return place

    def wait_for(self, place: Condition, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until the condition holds (True) or nothing is accepted any more (False). Raises
        WebSocketTimeoutException."""
        self._blocked += 1
        try:
            met = place.wait_for(lambda: self._closing or condition(), timeout)
        finally:
            self._blocked -= 1
        if not met:
            raise WebSocketTimeoutException(
                f"send timed out after {timeout} s: {self._messages} messages of {self._bytes} bytes wait for the"
                " peer to read; the message was not accepted"
            )
        return not self._closing

    def _is_over(self) -> bool:
        """Whether nothing more is to be written, once the turn is free."""
        return self._stopped or (self._closing and self._is_empty())

    def _retire(self) -> None:
        """Nobody writes any more; what was not written is unsent."""
        self._stopped = True
        self.turn.retire()
        self._give_up_data()

    def _rest(self) -> memoryview:
        """What is to be written of the batch: all of it, or the rest of a lent write."""
        return memoryview(b"".join(self._batch))[self._written :]

    def _wake_writer(self) -> None:
        if not self.turn.holder:
            self.turn.wake_owner()

    def _refuse_all(self) -> None:
        self._closing = True
        for waiting in self._line:
            waiting.changed.notify()
        for place in self._places:
            place.notify_all()

    def _is_empty(self) -> bool:
        return not (self._batch or self._data or self._controls or self._answers or self._close_frame)

    def _take_batch(self) -> bytes:
        """What is to be written next, in one piece: control frames first, then data, the close frame last."""
        batch = self._batch
        size = 0
        for lane in (self._answers, self._controls, self._data):
            before, before_size = len(batch), size
            while lane and (not size or size + len(lane[0]) <= _BATCH_BYTES):
                frame = lane.popleft()
                batch.append(frame)
                size += len(frame)
            if lane is self._data:
                data = batch[before:]
                self._batch_messages = len(data)
                # One by one only where some are compressed: the lock is held, and senders wait for it.
                self._batch_bytes = size - before_size if set(map(type, data)) <= {bytes} else sum(map(_size, data))
        is_last = not (self._data or self._controls or self._answers)
        if self._close_frame and is_last and size <= _BATCH_BYTES:
            batch.append(self._close_frame)
            self._close_frame = None
            self._close_written = True
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _clear_batch(self) -> None:
        self._messages -= self._batch_messages
        self._bytes -= self._batch_bytes
        self._batch_messages = self._batch_bytes = 0
        self._batch.clear()
        self._written = 0
        if self._blocked:
            self._admit()
            self._call_next()

    def _give_up_data(self) -> None:
        """Put into `unsent` what was not written, oldest first."""
        if self._is_given_up:
            return
        end = 0
        unsent: list[bytes | str | ABNF] = []
        for frame in self._batch:
            end += len(frame)
            if end > self._written:  # a frame that is not written whole does not exist for the peer
                self._give_up(frame, unsent)
        for frame in (*self._dropped, *self._data):
            self._give_up(frame, unsent)
        self.unsent = unsent  # all of it again, where an exception of a signal handler comes before the next line
        self._is_given_up = True
        self._batch.clear()
        self._dropped.clear()
        self._data.clear()

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

    # ---- a borrower of the writing turn ----

    def _write_or(self, frame: bytes, queue: Callable[[], bool], timeout: float | None) -> bool:
        """Write a control frame at once, or call `queue` with the lock held. Returns whether it was accepted."""
        lent = False
        try:
            self._go_on_before(timeout)
            with self.lock:
                if self._may_write_now():
                    lent = True
                    self.turn.take()
                else:
                    accepted = queue()
            if lent:
                return self._write_lent(frame, data=False, timeout=timeout)
            self._go_on(timeout)
            return accepted
        except BaseException:
            self._interrupted(lent)
            raise

    def _write_lent(self, frame: bytes, data: bool, timeout: float | None) -> bool:
        """Write one frame with the turn that was taken, without waiting; leave the rest to the writer. False where
        the transport has failed: the frame was then not accepted."""
        try:
            written = self._transport.send_now(frame)
        except OSError as error:
            self._fail_lent(error)
            return False
        with self.lock:
            if written < len(frame):
                self._batch.append(frame)
                self._written = written
                if data:
                    self._batch_messages, self._batch_bytes = 1, _size(frame)
                    self._messages += 1
                    self._bytes += self._batch_bytes
            self.turn.give_back()
            is_more = self._closing or self._flush_wanted or not self._is_empty()
            if is_more:
                self.turn.wake_owner()
        if is_more:
            self._go_on(timeout)
        return True

    def _interrupted(self, lent: bool) -> None:
        """An exception has come out of a method that may have taken the turn: one of a signal handler, in which
        case nobody knows how much was written, and the connection cannot go on."""
        if lent and self.turn.is_mine():
            self._fail_lent(OSError("writing was interrupted by an exception of a signal handler"))
        else:
            self._go_on(timeout=0)  # it may have come before the writer was called for what was accepted

    def _fail_lent(self, error: OSError) -> None:
        with self.lock:
            self.failure = self.failure or error
            self._refuse_all()
            self._stopped = True
            self.turn.give_back()
            self.turn.wake_owner()
        self.fail(error)
        self._go_on(timeout=0)
