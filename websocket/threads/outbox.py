"""The outbox: frames that send() accepted, on their way to the writer, bounded in messages and bytes.

Any thread puts; the writing turn takes (outlet.py). A frame that is put is written, in order, unless the connection
fails first; then it is in `unsent`. Control frames overtake waiting data between frames; a close frame is the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import get_ident
from typing import Final

from .._exceptions import WebSocketProtocolException
from .condition import Condition
from .intake import LARGEST
from .lanes import size_of
from .outlet import Outlet

# More than this many sends in a row, none longer than the gap after the one before and nothing received between
# them, are a burst: there one system call for many frames is worth a thread switch.
_BURST_SENDS: Final = 16
_BURST_GAP: Final = 50e-6  # seconds
# Frames larger than those of the intake are worth a system call of their own.
_NO_BURST: Final = LARGEST

_OPCODE: Final = 0x0F
_FIN: Final = 0x80


class Outbox:
    """See the module. Any thread may call it.

    refusal: gives the exception for a send() that is not accepted any more; called without the lock.
    """

    def __init__(self, outlet: Outlet, refusal: Callable[[], Exception]) -> None:
        self.outlet = outlet
        self.lock = outlet.lock
        self.refusal = refusal
        self._lanes = outlet.lanes
        self._waiting = outlet.waiting
        self._intake = outlet.intake
        self._last_send = 0.0  # guarded by the lock, as the next
        self.streak = 0  # sends in a row; set to 0 by the reader, without the lock, when something comes in

    # ---- any thread ----

    def put(self, frame: bytes, timeout: float | None, placed: Callable[[], None] | None = None) -> None:
        """Accept a whole message's frame; write it at once where nobody else writes and this is no burst.

        placed: called, with the lock held, when the frame has its place before all that will be put after it.

        Waits up to `timeout` seconds (None: for ever) for room, and with a large frame a moment for the writer. Raises
        WebSocketTimeoutException, or the refusal; the message was then not accepted.
        """
        if placed is None and self._intake.put(frame):
            return
        now = time.monotonic()
        lent = False
        try:
            self.outlet.go_on_before(timeout)
            with self.lock:
                self.outlet.empty_intake()  # what this thread has put there comes first
                if now - max(self._last_send, self.outlet.rested_at) > _BURST_GAP:
                    self.streak = 0
                self._last_send = now
                self.streak += 1
                if len(frame) >= _NO_BURST:
                    self.outlet.await_writer(timeout)  # releases the lock
                # Compressing takes longer than a system call: a burst of that is not worth the threads' switching.
                is_worth_a_call = self.streak <= _BURST_SENDS or len(frame) >= _NO_BURST or placed
                if is_worth_a_call and not (self._lanes.fragmenting or self.outlet.turn.holder):
                    lent = True  # already, as an exception of a signal handler may come when it is
                    lent = self.outlet.borrow()
                if not lent:
                    self.check_fragmenting()
                    accepted = self._queue(frame, timeout, placed=placed)
                    self.outlet.empty_intake()
                elif placed is not None:
                    placed()
            if lent:
                accepted = self.outlet.write_lent(frame, is_data=True, timeout=timeout)
            else:
                self.outlet.go_on(timeout)
        except BaseException:
            self.outlet.interrupted(lent)
            raise
        if not accepted:
            raise self.refusal()

    def put_fragment(self, frame: bytes, timeout: float | None, placed: Callable[[], None] | None = None) -> None:
        """Accept one frame of a fragmented message. From its first frame to its last no other message goes out;
        other threads' wait (RFC 6455 5.4). placed: as for put(). Raises as put(), and WebSocketProtocolException out of
        order."""
        continues = not frame[0] & _OPCODE
        try:
            self.outlet.go_on_before(timeout)
            with self.lock:
                self.outlet.close_intake()
                if not continues:
                    self.check_fragmenting()
                elif not self._lanes.fragmenting:
                    raise WebSocketProtocolException(
                        "a continuation frame with nothing to continue (RFC 6455 5.4); a fragmented message begins with"
                        " a frame of OPCODE_TEXT or OPCODE_BINARY and fin=0"
                    )
                fragmenting = 0 if frame[0] & _FIN else get_ident()
                accepted = self._queue(frame, timeout, continues, fragmenting, placed)
                if accepted:
                    self._waiting.call_next()
                self.outlet.empty_intake()
            self.outlet.go_on(timeout)
        except BaseException:
            self.outlet.interrupted(lent=False)
            raise
        if not accepted:
            raise self.refusal()

    def put_control(self, frame: bytes, timeout: float | None) -> None:
        """Accept a ping or pong of the program, ahead of waiting data. Raises as put()."""
        accepted = True

        def has_room() -> bool:  # which nobody makes while a signal handler interrupts a lent write
            return self._lanes.has_room_for_control() or self.outlet.turn.is_mine()

        def borrow() -> bool:
            nonlocal accepted
            if self.outlet.borrow():
                return True
            accepted = self._waiting.wait_for(None, has_room, timeout)
            if accepted:
                self._lanes.controls.append(frame)
                self.outlet.wake_writer()
            return False

        if not (self.outlet.write_if(borrow, frame, timeout) and accepted):
            raise self.refusal()

    def answer(self, frame: bytes) -> None:
        """Send the answer to a ping; never waits. Reading turn."""

        def borrow() -> bool:
            if self.outlet.borrow():
                return True
            if not self.is_closing:
                self._lanes.answers.append(frame)
                self.outlet.wake_writer()
            return False

        self.outlet.write_if(borrow, frame, timeout=0)

    def begin_close(self, frame: bytes) -> bool:
        """Accept nothing more; write what was accepted and then the close frame. False where that was so already."""
        is_first = True

        def borrow() -> bool:
            nonlocal is_first
            if self.is_closing:
                is_first = False
                return False
            self.outlet.refuse_all()  # first: then no signal handler sends between the look and the write
            if self.outlet.turn.holder or self._lanes.has_before_data():
                self._lanes.close_frame = frame
                self.outlet.wake_writer()
                return False
            self._lanes.close_written = True
            self.outlet.turn.take()
            return True

        self.outlet.write_if(borrow, frame, timeout=0)
        return is_first

    def answer_close(self, frame: bytes) -> bool:
        """Write the close frame next, in place of what waits; what waits is unsent. False where a close frame is
        written already, or was put there before."""
        lanes = self._lanes
        answers = False

        def borrow() -> bool:
            nonlocal answers
            self.outlet.refuse_all()
            lanes.drop_all()
            answers = not (lanes.close_written or lanes.close_frame)
            if not (lanes.close_written or self.outlet.stopped or lanes.batch or self.outlet.turn.holder):
                lanes.close_frame = None
                lanes.close_written = True
                self.outlet.turn.take()
                return True
            if not lanes.close_written:
                lanes.close_frame = frame
                self.outlet.wake_writer()
            return False

        self.outlet.write_if(borrow, frame, timeout=0)
        return answers

    @property
    def is_closing(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._waiting.refused

    def is_fragmenting_here(self) -> bool:
        """Whether the calling thread's fragmented message is under way."""
        return self._lanes.fragmenting == get_ident()

    @property
    def has_blocked(self) -> bool:
        """Whether senders wait for room."""
        return self._waiting.blocked > 0

    def close_in_child(self) -> None:
        """Make a forked child's copy refuse everything; its lock may be held by a thread that is not there."""
        self.outlet.close_in_child()
        self.__init__(self.outlet, self.refusal)  # type: ignore[misc]

    # ---- with the lock held ----

    def check_fragmenting(self) -> None:
        """Raises WebSocketProtocolException where this thread's own fragmented message is under way."""
        if self.is_fragmenting_here() and not self.is_closing:
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
        waiting, lanes = self._waiting, self._lanes
        size = size_of(frame)
        if self.is_closing or not lanes.has_room(size, continues) or (waiting.line and not continues):
            self.outlet.close_intake()  # those who wait come first
            # A signal handler does not stand behind the send() that it has interrupted: that cannot go on. In the
            # middle of a lent write it needs no room, as nobody makes any before that is over.
            is_in_write = self.outlet.turn.is_mine()
            if not (continues or is_in_write or waiting.is_in_line()):
                accepted = waiting.wait_in_line(frame, size, fragmenting, placed, timeout)
                self.outlet.wake_writer()
                return accepted

            def may_go_on() -> bool:
                if lanes.has_room(size, continues) or (is_in_write and (continues or not lanes.fragmenting)):
                    return True
                # Or cannot: the interrupted send() has begun a fragmented message meanwhile.
                return not continues and self.is_fragmenting_here()

            if not waiting.wait_for(None, may_go_on, timeout):
                return False
            if not continues:
                self.check_fragmenting()
        waiting.append(frame, size, fragmenting, placed)
        self.outlet.wake_writer()
        return True

    def waiting_place(self) -> Condition:
        """A condition to wait on that is notified when nothing is accepted any more."""
        return self._waiting.place()

    def wait_for(self, place: Condition, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until the condition holds (True) or nothing is accepted any more (False). Raises
        WebSocketTimeoutException."""
        return self._waiting.wait_for(place, condition, timeout)
