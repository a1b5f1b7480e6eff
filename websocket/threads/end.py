"""How far the end of a connection is, and how it is told to everybody who asks.

The first that ends the connection is the cause; then the writer ends, and it is known what is unsent; then the socket
is given back; then a consumer has its last call. Any thread may ask, and wait.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from .._abnf import ABNF
from .._exceptions import (
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
)
from .condition import Condition
from .ending import Ending, Outcome
from .inbox import Inbox
from .outlet import Outlet

# How long an exception waits for the reader to find out what has happened, and for the writer to say what is unsent.
VERDICT: Final = 2.0


class End:
    """See the module. All is guarded by the inbox's lock; flags go one way only, and are read without it.

    may_wait: whether the calling thread may wait for the connection's own threads.
    """

    def __init__(self, inbox: Inbox, outlet: Outlet, may_wait: Callable[[], bool]) -> None:
        # threading.Event is not used, because an exception of a signal handler may leave its lock held.
        self.progress = Condition(inbox.lock)
        self.ending: Ending | None = None  # what ended it, as the reading turn saw it
        self.closed_here = False  # this side ended the receiving before anything else did
        self.asked_for = False  # the program's close frame was the first reason to close
        self.cut_off = False  # nothing is waited for any more
        self.answered = False  # the peer's close frame, or its breach of the protocol, by ours
        self.settled = False  # the writer has ended; outlet.unsent is complete
        self.closed = False  # the socket is given back
        self.told = False  # the consumer, where there is one, has had its last call
        self.unacknowledged: int | None = None  # see WebSocketException
        self._gone: Condition | None = None  # notified when the socket is given back; who waits for it makes it
        self._claimed = False
        self.orphaned = False  # this is a forked child's copy
        self._inbox = inbox
        self._outlet = outlet
        self._may_wait = may_wait

    # ---- progress ----

    def claim(self) -> bool:
        """Whether the caller is the one that will end the connection, by being the first to ask."""
        with self._inbox.lock:
            first = not self._claimed
            self._claimed = True
            return first

    def see(self, ending: Ending) -> bool:
        """Take down what ended the connection; False where something else was first. Reading turn."""
        with self._inbox.lock:
            if self.ending is not None:
                return False
            self.ending = ending
            return True

    def stop_receiving(self) -> None:
        """This side wants no more messages."""
        with self._inbox.lock:
            if not self._inbox.ended:
                self.closed_here = True
            self._inbox.finish(None)
            self.progress.notify_all()  # the pinger has nothing more to do

    def reach(self, *, answered: bool = False, settled: bool = False, closed: bool = False, told: bool = False) -> None:
        """Tell all who wait how far it is."""
        with self._inbox.lock:
            self.answered = self.answered or answered
            self.settled = self.settled or settled
            self.closed = self.closed or closed
            self.told = self.told or told
            self.progress.notify_all()
            if closed and self._gone is not None:
                self._gone.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for a condition that reach() makes true; False where it does not come in time."""
        with self._inbox.lock:
            return self.progress.wait_for(condition, timeout)

    def wait_until_closed(self, timeout: float | None) -> bool:
        """Wait until the socket is given back; False where that does not come in time. On `progress` who closes would
        wake at each step on the way, and take the interpreter's lock from the reader thread, which takes the steps."""
        with self._inbox.lock:
            if not self.closed and self._gone is None:
                self._gone = Condition(self._inbox.lock)
            return self.closed or self._gone is None or self._gone.wait_for(lambda: self.closed, timeout)

    def know(self, deadline: float | None) -> bool:
        """Wait until it is known how the connection ended and what is unsent, where that is about to come; False
        where the deadline passes first."""
        if not self._may_wait():
            return True

        def is_known() -> bool:
            if self.ending is not None:
                return self.settled
            return self._outlet.failure is None  # else the reader is finding out what has happened

        if is_known():
            return True
        verdict = time.monotonic() + VERDICT
        limit = verdict if deadline is None else min(verdict, deadline)
        return self.wait_for(is_known, max(0.0, limit - time.monotonic())) or limit == verdict

    def orphan(self) -> None:
        """This is a forked child's copy: at its end, under a lock made anew."""
        self.orphaned = True
        self.progress = Condition(self._inbox.lock)
        self._gone = None
        self.settled = self.closed = self.told = True

    # ---- telling ----

    @property
    def is_normal(self) -> bool:
        """Whether the end was asked for here, or by the peer with a code that means no fault."""
        return self.closed_here or (self.ending is not None and self.ending.is_normal)

    @property
    def close_frame(self) -> ABNF | None:
        """The peer's close frame, once it has come."""
        return None if self.ending is None else self.ending.close_frame

    def closed_error(self) -> WebSocketConnectionClosedException:
        """A new exception that says how the connection ended."""
        if self.orphaned:
            return WebSocketConnectionClosedException(
                "socket is already closed: the connection belongs to the parent process; a forked child must make"
                " its own"
            )
        self.know(time.monotonic() + VERDICT)
        error: WebSocketConnectionClosedException
        failure = self._outlet.failure
        if self.ending is not None and not self.closed_here:
            error = self.ending.exception(self._cause(self.ending))
        elif failure is not None and not self.closed_here:  # the reader, in a callback, has not found it yet
            error = WebSocketConnectionLostException(f"Connection to remote host was lost: {failure}")
            error.__cause__ = failure
        else:
            error = WebSocketConnectionClosedException("socket is already closed.")
        self.complete(error)
        return error

    def outcome(self) -> Outcome:
        """How the connection ended. Once it has."""
        ending = self.ending
        by_program = self.closed_here or self.asked_for
        error: WebSocketException
        if ending is not None and ending.error is not None and not by_program:
            error = ending.error
            self.complete(error)
        elif by_program and (count := len(self._outlet.unsent)):
            error = WebSocketConnectionClosedException(
                f"closed by this program, and {count} messages that had been accepted could not be written; they are"
                " in `unsent`"
            )
            self.complete(error)
        else:
            error = self.closed_error()
        is_failure = bool(error.unsent) or not (by_program or self.is_normal)
        frame = self.close_frame
        reason = None if ending is None or frame is None or not frame.data else ending.reason or ""
        return Outcome(error, by_program, is_failure, None if ending is None else ending.code, reason)

    def complete(self, error: WebSocketException) -> None:
        """Add to an exception what is known of the end."""
        ending = self.ending
        if ending is not None:
            error.code, error.reason = ending.code, ending.reason
            if error is not ending.cause:
                error.__cause__ = self._cause(ending)
        error.unsent = list(self._outlet.unsent)
        error.unacknowledged = self.unacknowledged

    def _cause(self, ending: Ending) -> BaseException | None:
        """What failed first. A reset is told to one system call only: where that was the writer's, the reader saw
        a mere end of the stream. (EPIPE is what the writer gets from our own shutdown.)"""
        failure = self._outlet.failure
        if isinstance(ending.cause, EOFError) and failure is not None and failure.errno != errno.EPIPE:
            return failure
        return ending.cause
