"""The outlet: how what waits in the outbox leaves it.

Who has the writing turn writes: a sender that borrows it, for one frame and without waiting; the writer's thread; at
the end of the process whoever is there.

Most connections need no writer, as their senders write for themselves, so it is started when something is first left
to it: whoever gives the turn back, or puts a frame, calls it then (`go_on`). Where it never was, whoever comes to the
end of all writing says what is unsent.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

from .._abnf import ABNF
from .._pure import Payload
from .._transport import Transport, poll_timeout
from . import lifetime
from .intake import LARGEST, Intake
from .lanes import Lanes
from .turn import RETIRED, Turn
from .waiting import Waiting


class Outlet:
    """See the module. Any thread may call it.

    on_failure: called once writing has failed.  on_settled: called when nothing more will be written, and `unsent` is
    complete; maybe again.  start_writer: lets a thread be started that runs the writer where admit_writer() says so;
    must not wait, and raises RuntimeError where no thread can be started.  All are called without the lock, but by
    signal handlers.
    """

    def __init__(
        self,
        transport: Transport,
        max_messages: int,
        max_bytes: int,
        *,
        on_failure: Callable[[], None],
        on_settled: Callable[[], None],
        start_writer: Callable[[], None],
    ) -> None:
        self.lock = threading.RLock()  # re-entrant, so that a signal handler may close the connection it interrupts
        self.turn = Turn(self.lock)
        self._transport = transport
        self._on_failure = on_failure
        self._on_settled = on_settled
        self._start_writer = start_writer
        # All that follows is guarded by self.lock.
        self.intake = Intake(self.lock)
        self.lanes = Lanes(max_messages, max_bytes, self.intake)
        self.waiting = Waiting(self.lock, self.lanes)
        self.stopped = False  # nothing is written any more
        self._flush_wanted = False  # the transport has bytes of its own to write (TLS)
        # That a writer is asked for spares asking again, no more: an exception of a signal handler may have come
        # between. Whether there is one, its own thread says.
        self._writer_called = False
        self._writer_admitted = False
        self._must_write_here = False  # the process is ending, and no writer can be started any more
        self._is_settled = False  # who had to be told of the end without a writer has been
        # The writer will look for something to write before it rests; while it does not, the intake is closed.
        self._writer_attends = False
        self.rested_at = 0.0  # when (time.monotonic()) the writer last had nothing to write any more
        self.failure: OSError | None = None  # why writing failed, where it did

    def stop(self) -> None:
        """Write nothing more."""
        with self.lock:
            self.refuse_all()
            self.stopped = True
            self.wake_writer()
        self.go_on(timeout=0)

    def want_flush(self) -> None:
        """Let the writer write what the transport has produced by itself. Reading turn."""
        with self.lock:
            self._flush_wanted = True
            self.wake_writer()
        self.go_on(timeout=0)

    @property
    def unsent(self) -> list[bytes | str | ABNF]:
        """What was accepted and not written; complete once on_settled was called."""
        return self.lanes.unsent

    @property
    def is_closing(self) -> bool:
        """Whether nothing is accepted any more."""
        return self.waiting.refused

    # ---- the writer ----

    def admit_writer(self) -> bool:
        """A thread for the writer is there; returns whether there is work for one. Then it must run the writer, and
        nobody else will."""
        with self.lock:
            if self._writer_admitted or self.stopped or self.turn.holder == RETIRED:
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
                self.empty_intake()
                if not self.turn.holder:
                    if self._is_over():
                        return None
                    batch = self.lanes.rest() if self.lanes.batch else self.lanes.take_batch()
                    if batch or self._flush_wanted:
                        self._flush_wanted = self._flush_wanted and bool(batch)
                        self.turn.take()
                        self._writer_attends = True
                        self.empty_intake()
                        return batch
                if self._writer_attends:
                    self.close_intake()  # and look once more
                    self._writer_attends = False
                    self.rested_at = time.monotonic()
                else:
                    self.turn.wait()

    def wrote(self, count: int) -> None:
        """Count bytes of the batch that the transport took. Writing turn."""
        self.lanes.wrote(count)

    def batch_done(self) -> None:
        """The batch is written whole: give the turn back, make room."""
        with self.lock:
            self._clear_batch()
            self.turn.give_back()

    def settle(self) -> None:
        """The writer has ended: take the writing turn for good, let nobody in any more; what was not written is
        unsent."""
        with self.lock:
            self.refuse_all()
            while self.turn.holder not in (0, RETIRED) and not self.turn.is_mine():
                self.turn.wait_for_return()  # a borrower does not wait in the transport, so this is short
            self._retire()
        self._on_settled()

    def fail(self, error: OSError) -> None:
        """Writing has failed. The reader finds out what has happened to the connection, and ends it."""
        error.__traceback__ = None  # its frames would hold what holds it
        with self.lock:
            self.refuse_all()
            self.stopped = True
            self.failure = self.failure or error
        self._transport.shutdown_reading()
        self._on_failure()

    def close_in_child(self) -> None:
        """Make a forked child's copy refuse everything; its lock may be held by a thread that is not there."""
        self.__init__(  # type: ignore[misc]
            self._transport,
            1,
            1,
            on_failure=self._on_failure,
            on_settled=self._on_settled,
            start_writer=self._start_writer,
        )
        self.waiting.refused = self.stopped = self.lanes.close_written = self._is_settled = True

    # ---- without a writer ----

    def go_on(self, timeout: float | None) -> None:
        """Where the turn is free: call the writer if something is left to it, and settle if this is the end and there
        is no writer that does it. Without the lock; timeout: seconds to wait where writing must be done here."""
        if self._writer_admitted:
            return  # and has been woken
        self._settle_if_over()
        with self.lock:
            # Who has the turn comes here when it has given it back.
            is_called_for = not self.turn.holder and (self._flush_wanted or not self.lanes.is_empty())
        if is_called_for and not (self._writer_called or self._must_write_here):
            self._call_writer()
        if is_called_for and self._must_write_here:
            self.write_here(None if timeout is None else time.monotonic() + timeout)

    def go_on_before(self, timeout: float | None) -> None:
        """Before a frame is put, for which there may be no room yet: it must not be this very thread that has still to
        call who makes some. That is so in a signal handler that has interrupted a send() before its go_on(), and at
        the end of the process, where what a timeout has cut short is written by who comes next."""
        if not self._writer_admitted and (self.lanes.batch or self.lanes.data):
            self.go_on(timeout)

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
                    lanes = self.lanes
                    if self.turn.holder or self._is_over() or not (lanes.batch or lanes.take_batch()):
                        break
                    lent = True
                    self.turn.take()
                    rest = lanes.rest()  # now, as a signal handler that writes may have come before
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
            self.interrupted(lent)
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
            if rest and (self.stopped or not poller.poll(poll_timeout(deadline))):
                return False
        return True

    # ---- with the lock held ----

    def may_write_now(self) -> bool:
        """Whether a frame may be written at once: the turn is free and nothing goes out before."""
        return not (self.turn.holder or self.lanes.has_before_data() or self.is_closing)

    def borrow(self) -> bool:
        """Take the turn to write a frame at once; False where that may not be."""
        if not self.may_write_now():
            return False
        self.turn.take()
        if not (self.lanes.has_before_data() or self.is_closing):
            return True
        # A signal handler has come between, and sent; what the kernel did not take of it goes out before.
        if self.stopped:
            self.turn.retire()
        else:
            self.turn.give_back()
        self._rouse_writer()
        return False

    def empty_intake(self) -> None:
        """Let in what has come into the intake, and as much again as there is room for behind it."""
        if self._writer_attends and not self.is_closing:
            gate = self.lanes.take_in()
            # Looked at once more, now that whatever changes it closes the gate.
            if self._writer_attends and not (self.is_closing or self.waiting.line):
                gate.room = self.lanes.room_for(LARGEST)

    def close_intake(self) -> None:
        """Let in what has come into the intake, and nothing more."""
        if self._writer_attends and not self.is_closing:
            self.lanes.take_in()

    def await_writer(self, timeout: float | None) -> None:
        """Before a large frame is put: where the writer is at work, and is soon done, the frame can be written at once,
        from the cache where it was masked."""
        # A signal handler in the middle of a lent write holds up the writer itself.
        if self._writer_attends and not (self.waiting.line or self.turn.is_mine()):
            self.waiting.wait_a_moment(self.may_write_now, timeout)

    def _is_over(self) -> bool:
        """Whether nothing more is to be written, once the turn is free."""
        return self.stopped or (self.is_closing and self.lanes.is_empty())

    def _retire(self) -> None:
        """Nobody writes any more; what was not written is unsent."""
        self.stopped = True
        self.turn.retire()
        self.lanes.give_up()

    def wake_writer(self) -> None:
        """Something waits. Who has the turn looks when giving it back."""
        if not self.turn.holder:
            self._rouse_writer()

    def _rouse_writer(self) -> None:
        self._writer_attends = self._writer_admitted
        self.turn.wake_owner()

    def refuse_all(self) -> None:
        """Accept nothing more."""
        if not self.is_closing:
            self.lanes.take_in()
        self.waiting.refuse()

    def _clear_batch(self) -> None:
        self.lanes.clear_batch()
        if self.waiting.has_any:
            self.waiting.admit()
            self.waiting.call_next()

    # ---- a borrower of the writing turn ----

    def write_if(self, borrow: Callable[[], bool], frame: bytes, timeout: float | None) -> bool:
        """Write a control frame at once where borrow() takes the turn, which is called with the lock held, and else
        leaves the frame to others or to nobody. False where the transport has failed."""
        lent = False
        try:
            self.go_on_before(timeout)
            with self.lock:
                # Already, as an exception of a signal handler may come when it is; not where this is in a lent write.
                lent = not self.turn.is_mine()
                lent = borrow()
            if lent:
                return self.write_lent(frame, is_data=False, timeout=timeout)
            self.go_on(timeout)
            return True
        except BaseException:
            self.interrupted(lent)
            raise

    def write_lent(self, frame: bytes, is_data: bool, timeout: float | None) -> bool:
        """Write one frame with the turn that was taken, without waiting; leave the rest to the writer. False where
        the transport has failed: the frame was then not accepted."""
        try:
            written = self._transport.send_now(frame)
        except OSError as error:
            self._fail_lent(error)
            return False
        with self.lock:
            if written < len(frame):
                self.lanes.leave_rest(frame, written, is_data)
            self.turn.give_back()
            is_more = self.is_closing or self._flush_wanted or not self.lanes.is_empty()
            if is_more:
                self._rouse_writer()
        if is_more:
            self.go_on(timeout)
        return True

    def interrupted(self, lent: bool) -> None:
        """An exception has come out of a method that may have taken the turn (lent): one of a signal handler, in which
        case nobody knows how much was written, and the connection cannot go on."""
        if lent and self.turn.is_mine():
            self._fail_lent(OSError("writing was interrupted by an exception of a signal handler"))
        else:
            with self.lock:
                self.wake_writer()  # it may have come before that
            self.go_on(timeout=0)  # or before the writer was called for what was accepted

    def _fail_lent(self, error: OSError) -> None:
        with self.lock:
            self.failure = self.failure or error
            self.refuse_all()
            self.stopped = True
            self.turn.give_back()
            self.turn.wake_owner()
        self.fail(error)
        self.go_on(timeout=0)
