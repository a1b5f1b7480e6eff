"""The reader: bytes in, messages out to the inbox; answers pings and close frames.

Its thread holds the reading turn while nobody waits for a message, so that pings are answered while the program
does something else. A recv() that finds the inbox empty and the turn free borrows it and reads for itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from .. import _logging
from .._abnf import ABNF, new_masking_key
from .._frames import encode_frame
from .._parser import HEADER, Parser
from .._read_size import LARGEST_READ, SMALLEST_READ, ReadSize
from .._transport import ReadWait, Transport
from .end import End
from .ending import Ending
from .inbox import Inbox
from .outbox import Outbox

# How long the reader leaves the turn to borrowers after one was there: a request-reply loop never switches
# threads, and a ping waits no longer than this for its answer.
GRACE: Final = 0.010  # seconds

# Bytes to be fed to the parser, or how many have landed in its place; b"" and 0 are the end of the stream.
Received: TypeAlias = "bytes | int"

_PONG: Final = 0x80 | ABNF.OPCODE_PONG


class Reader:
    """Reads the transport. Its methods but run() belong to whoever holds the reading turn.

    recallable: whether another thread can have the turn at once though the reader's own waits for bytes; costs one
        more system call for each read.
    on_pong: called with each pong's payload.
    on_end: called once, with the Ending, by whoever read it; it must not wait.
    wind_up: called at the end of the reader thread, with the reading turn retired.
    """

    def __init__(
        self,
        transport: Transport,
        parser: Parser,
        inbox: Inbox,
        outbox: Outbox,
        *,
        name: str,
        recallable: bool,
        end: End,
        on_pong: Callable[[bytes], None],
        on_end: Callable[[Ending], None],
        wind_up: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._parser = parser
        self._inbox = inbox
        self._outbox = outbox
        self._outlet = outbox.outlet
        self._name = name
        self._recallable = recallable
        self._on_pong = on_pong
        self._on_end = on_end
        self._wind_up = wind_up
        self._end_state = end
        self._read_size = ReadSize()  # reading turn
        self._undelivered = 0  # reading turn: bytes read since the last delivery
        self._wait = ReadWait(transport)  # reading turn, but for its wake-up
        self._close_frame: ABNF | None = None  # reading turn: the peer's, which may wait for a callback to return
        # Since when nothing kept this side from reading; a pong cannot be due before. Guarded by the inbox's lock.
        self.reading_since = time.monotonic()
        self.received = 0  # bytes ever; written with the reading turn
        # No pong can overtake a frame (RFC 6455 5.4): one that takes so many seconds to arrive counts as not reading.
        self.slow_frame = math.inf  # set before the threads start
        self._frame_since = 0.0  # reading turn: when the frame under way began
        self._reported_slow = False  # reader thread
        self.parsing = threading.RLock()  # held while bytes are parsed and delivered; taken before the inbox's lock

    @property
    def ending(self) -> Ending | None:
        """What ended the connection, once something has."""
        return self._end_state.ending

    # ---- the reader thread ----

    def run(self) -> None:
        try:
            self._read_to_the_end()
        except BaseException as error:  # a bug, or no memory: said aloud by the thread's excepthook
            self._lost(error)
            raise
        finally:
            self._retire_turn()
            with self.parsing:  # hand_over_begun() may be at it
                self._parser.forget()
            self._wind_up()

    def _read_to_the_end(self) -> None:
        while self._take_turn():
            self._read_while_alone()

    def _retire_turn(self) -> None:
        """Nobody reads any more but this thread, which winds up."""
        inbox = self._inbox
        with inbox.lock:
            while inbox.turn.holder and not inbox.turn.is_mine():
                self.recall()
                inbox.turn.wait_for_return()
            inbox.turn.retire()

    def _take_turn(self) -> bool:
        """Wait until the reader should read, and take the turn; False where the connection has ended."""
        inbox, turn = self._inbox, self._inbox.turn
        with inbox.lock:
            while True:
                grace = self._grace()
                if turn.holder:
                    # A borrower that has come within the grace time may go on coming: who asks to be woken when it
                    # gives the turn back finds it taken again, batch by batch.
                    if grace > 0 and self._may_be_borrowed():
                        turn.wait(grace)
                    else:
                        turn.wait_for_return()
                elif self.ending is not None:
                    turn.take()
                    return False
                elif self._must_pause():
                    self._stall()
                elif grace > 0 and (self._may_be_borrowed() or self._offer_to_waiter()):
                    turn.wait(grace)
                else:
                    turn.take()
                    return True

    def _may_be_borrowed(self) -> bool:
        """Whether there is a use in leaving the turn free for a while. With the lock held."""
        inbox = self._inbox
        return not (inbox.waiting or inbox.is_polled or inbox.ended or self._outlet.failure)

    def _offer_to_waiter(self) -> bool:
        """Where one thread alone waits for a message, let it borrow the turn after all: it came again before this
        thread had given the turn back, and would do so each time on a busy machine. The switch to it costs nobody
        time while no message is here. With the lock held."""
        inbox = self._inbox
        return not (inbox.is_polled or inbox.ended or self._outlet.failure) and inbox.wake_lone_waiter()

    def _grace(self) -> float:
        """Seconds for which the turn is left free."""
        return self._inbox.turn.returned_at + GRACE - time.monotonic()

    def _stall(self) -> None:
        """Wait for room in the inbox. Until then nothing is read, and TCP pushes back on the server."""
        inbox = self._inbox
        inbox.stall()
        if not self._reported_slow:
            load = inbox.load()
            inbox.lock.release()
            try:
                self._report_slow(*load)
            finally:
                inbox.lock.acquire()
        # A take from here on finds `watched` and wakes this thread; one before has made room already.
        if self._must_pause() and self.ending is None:
            inbox.turn.wait()
        inbox.resume()
        self.reading_since = time.monotonic()

    def _report_slow(self, messages: int, size: int) -> None:
        """Once for each connection, without a lock."""
        if not self._reported_slow:
            self._reported_slow = True
            _logging.warning(
                "%s: slow consumer: %d messages of %d bytes wait to be received; reading stops until there is room,"
                " pings go unanswered meanwhile",
                self._name,
                messages,
                size,
            )

    def _read_while_alone(self) -> None:
        """Read batch after batch until somebody waited for one: then borrowers shall have the turn."""
        try:
            waited = False
            while not waited and self.ending is None:
                with self._inbox.lock:
                    full = self._inbox.is_full()
                if full:  # writing has failed, and why cannot be read
                    self._lost(self._outlet.failure or OSError("writing has failed"))
                    break
                data = self._read_recallable() if self._recallable else self._read()
                if data is None:
                    break
                waited = self._take_in(data)
                if self._end_state.cut_off and self.ending is None:
                    self._end_of_stream()  # which a peer that has sent without end keeps the kernel from telling
                with self._inbox.lock:
                    waited = waited or self._must_pause()
        except OSError as error:
            self._lost(error)
        finally:
            with self._inbox.lock:
                self._inbox.turn.give_back()

    def _must_pause(self) -> bool:
        """Whether the inbox is full and there is somebody to wait for. With the lock held."""
        return self._inbox.is_full() and self._outlet.failure is None

    def _read(self) -> Received:
        # All of it is waited for; but not where it is wanted in pieces, since the message has begun.
        if not self._parser.hands_over and (place := self._parser.place()) is not None:
            return self._transport.recv_into(place)
        if self._parser.expects_large_payload():
            return self._transport.recv(HEADER)
        data = self._transport.recv(self._batch_size())
        self._read_size.adapt(len(data))
        return data

    def _batch_size(self) -> int:
        most = self._parser.most_at_once
        return self._read_size.current if most is None else min(self._read_size.current, most)

    def _read_recallable(self, deadline: float | None = None) -> Received | None:
        """Read, waiting for bytes; None where another thread wants the turn, or the deadline has passed."""
        wait = self._wait
        while wait(deadline):
            if wait.wake.is_set():
                wait.wake.clear()
                return None
            data = self._read_now()
            if data is not None:  # over TLS, half a record is readable and yet no data
                return data
        return None

    def _read_now(self) -> Received | None:
        if self._parser.routine:
            size = self._read_size.current
            data = self._transport.recv_now(size)
            if data is not None and (len(data) == size or size > SMALLEST_READ):
                self._read_size.adapt(len(data))
            return data
        if (place := self._parser.place()) is not None:
            return self._transport.recv_into_now(place)
        if self._parser.expects_large_payload():
            return self._transport.recv_now(HEADER)
        data = self._transport.recv_now(self._batch_size())
        if data is not None:
            self._read_size.adapt(len(data))
        return data

    # ---- a borrower ----

    def read_lent(self, deadline: float | None) -> bool:
        """Read with the turn that the caller has taken, until something can be taken from the inbox, the turn is
        wanted back, or the deadline passes (False). Gives the turn back."""
        reading = False
        wait = self._wait
        try:
            while wait(deadline):
                if wait.wake.is_set():
                    wait.wake.clear()
                    return True
                reading = True
                try:
                    data = self._read_now()
                except OSError as error:
                    self._lost(error)
                    return True
                if data is not None and self._take_in(data, borrowed=True):
                    return True
                reading = False
                if deadline is not None and time.monotonic() >= deadline:
                    break  # a stream of fragments is always readable
            return False
        except BaseException as error:
            if reading:  # a signal handler raised in the middle: bytes may be lost, so the stream is
                self._lost(InterruptedError(f"reading was interrupted by {error!r} of a signal handler"))
            raise
        finally:
            self._give_back_lent()

    def take_what_is_here(self, is_enough: Callable[[], bool], most: int, verdict: Callable[[], Ending]) -> bool:
        """The pinger: read what has arrived and nobody has read yet, until is_enough(), or `received` is `most`. Where
        that does not come, and nothing keeps this side from reading, end the connection with the verdict; True where
        it has ended. most=-1: read nothing, and end it even if this side does not read."""
        with self._inbox.lock:
            if self._inbox.turn.holder:
                self.recall()
            if not self._inbox.turn.claim():
                return True
        try:
            while not is_enough():
                if self._is_at_end_of_protocol():  # and the reader thread has not got to it yet
                    return False
                with self._inbox.lock:
                    if most >= 0 and (self._inbox.stalled or self._inbox.is_full()):
                        return False
                data = self._read_now() if self.received < most else None
                if data is None:
                    self._end(verdict())
                    return True
                if self._take_in(data) and self.ending is not None:
                    return True
            return False
        except OSError as error:
            self._lost(error)
            return True
        except BaseException as error:  # what was read is lost, and so the stream is
            self._lost(error)
            raise
        finally:
            self._give_back_lent()

    def _give_back_lent(self) -> None:
        with self._inbox.lock:
            self._inbox.turn.give_back()
            if self._inbox.waiting or self.ending is not None:
                self._inbox.turn.wake_owner()

    def take_first(self, data: bytes) -> None:
        """Take in what was received behind the handshake. Before the thread starts."""
        with self._inbox.lock:
            self._inbox.turn.take()
        try:
            if data:
                self._take_in_first(data)
        finally:
            with self._inbox.lock:
                self._inbox.turn.give_back()

    def _take_in_first(self, data: bytes) -> None:
        self._take_in(data)

    def wind_up_unstarted(self) -> None:
        """The thread could not be started: do here what it does at its end."""
        self._lost(OSError("the reader thread could not be started"))
        self._retire_turn()
        self._wind_up()

    def recall(self) -> None:
        """Make a borrower give the turn back, and the reader thread look again. Any thread, with the inbox's lock
        held."""
        if self._inbox.turn.holder:
            self._wait.wake.set()
        self._inbox.turn.wake_owner()

    # ---- whoever holds the turn ----

    def _take_in(self, received: Received, borrowed: bool = False) -> bool:
        """Parse and deliver what was read. Returns whether somebody waited for it, which a borrower does."""
        if not received:
            self._end_of_stream()
            return True
        with self.parsing:
            before = self.received
            messages, controls = self._parse(received)
            self._undelivered += self.received - before
            if self._parser.routine:  # there are messages, and nothing else
                size, self._undelivered = self._undelivered, 0
                return self._inbox.deliver(messages, (), size, ()) or borrowed
            waited = self._deliver(messages, controls, borrowed)
        if self._is_at_end_of_protocol():
            self._end_of_protocol()
            return True
        return waited

    def hand_over_begun(self) -> None:
        """Hand over what has come of a message under way, where the parser has just been told to. Any thread."""
        if self._inbox.turn.is_mine():  # a signal handler in the midst of parsing: that hands over itself
            return
        with self.parsing:
            messages = self._parser.feed(b"")
            if messages:
                self._inbox.deliver(messages, [], self._undelivered, self._parser.parts)
                self._undelivered = 0

    def _deliver(self, messages: list[Any], controls: Sequence[tuple[int, ABNF]], borrowed: bool) -> bool:
        parts = self._parser.parts
        self._undelivered += self._parser.inflated
        waited = False
        if messages or controls or parts:
            # What is handed over in parts counts part by part.
            waited = self._inbox.deliver(messages, controls, self._undelivered if messages else 0, parts)
            if messages or parts:
                self._undelivered = 0
                waited = waited or borrowed
            elif controls and borrowed:
                waited = True  # the borrower may be one that takes control frames
        return waited

    def _parse(self, received: Received) -> tuple[list[Any], list[tuple[int, ABNF]]]:
        """Messages, and pings and pongs with the number of messages before each; pings are answered."""
        parser = self._parser
        was_routine = parser.routine
        before = 0 if was_routine else parser.frame_under_way
        if isinstance(received, int):
            messages = parser.landed(received)
            self.received += received
        else:
            messages = parser.feed(received)
            self.received += len(received)
        if self._transport.has_output():
            self._outlet.want_flush()
        if not (was_routine and parser.routine):
            return messages, self._look_at_all(messages, before)
        self._outbox.streak = 0
        if _logging.tracing:
            self._trace(messages, ())
        return messages, []

    def _look_at_all(self, messages: list[Any], before: int) -> list[tuple[int, ABNF]]:
        """What else there is about bytes that were parsed. before: the frame that was under way before them."""
        parser = self._parser
        controls, parser.controls = parser.controls, []  # which an idle connection would keep
        if before or parser.frame_under_way:
            self._note_slow_frame(before)
        if messages or controls:
            self._outbox.streak = 0
            if _logging.tracing:
                self._trace(messages, controls)
            for _, frame in controls:
                if frame.opcode == ABNF.OPCODE_PING:
                    if _logging.tracing:
                        _logging.trace("++Sent pong: %r", frame.data)
                    self._outbox.answer(encode_frame(_PONG, frame.data, new_masking_key()))
                elif frame.opcode == ABNF.OPCODE_PONG:
                    self._on_pong(frame.data)
            if parser.closed and self._close_frame is None:
                self._close_frame = controls.pop()[1]
        return controls

    def _note_slow_frame(self, before: int) -> None:
        now = time.monotonic()
        if before and now - self._frame_since >= self.slow_frame:
            with self._inbox.lock:
                self.reading_since = now
        if before != self._parser.frame_under_way:
            self._frame_since = now

    def _is_at_end_of_protocol(self) -> bool:
        return self._close_frame is not None or self._parser.error is not None

    def _trace(self, messages: Sequence[object], controls: Sequence[tuple[int, ABNF]]) -> None:
        for message in messages:
            _logging.trace("++Rcv message: %r", message)
        for _, frame in controls:
            _logging.trace("++Rcv frame: %s", frame)

    def _end_of_protocol(self) -> None:
        """The parser has come to an end: a close frame, or a breach of the protocol."""
        parser = self._parser
        frame = self._close_frame
        if frame is None:
            assert parser.error is not None
            self._end(Ending(error=parser.error, cause=parser.error, answer=parser.error_code.to_bytes(2, "big")))
            return
        # RFC 6455 5.5.1: the answer echoes the code; a close frame without one is answered by one without.
        self._end(Ending(close_frame=frame, answer=bytes(frame.data[:2])))

    def _end_of_stream(self) -> None:
        if self._is_at_end_of_protocol():
            self._end_of_protocol()
            return
        what = "the peer ended the stream without a close frame"
        if not self._parser.at_message_boundary():
            what += ", in the middle of a message"
        cause: BaseException = EOFError(what)
        self._end(Ending(cause=self._outlet.failure or cause))

    def _lost(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            error.__traceback__ = None  # its frames would hold what holds it
        self._end(Ending(cause=self._outlet.failure or error))

    def _end(self, ending: Ending) -> None:
        if self._end_state.see(ending):
            self._on_end(ending)

    # ---- after the end, on the reader thread ----

    def drain(self, deadline: float) -> bool:
        """Read and forget until the peer ends the stream (True) or the deadline passes."""
        wait = self._wait
        try:
            while time.monotonic() < deadline and wait(deadline):
                if wait.wake.is_set():
                    wait.wake.clear()
                    if self._end_state.cut_off:
                        return False
                elif self._transport.recv_now(LARGEST_READ) == b"":
                    return True
        except OSError:
            return True  # a reset is an end as well
        return False

    def close_in_child(self) -> None:
        """Give the descriptor back in a forked child, where no thread uses it."""
        self._wait.wake.close_in_child()

    def close(self) -> None:
        """Give back what reading needed. After the end."""
        self._wait.wake.close()
