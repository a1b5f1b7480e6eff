"""The reader of a connection that feeds callbacks, and who reads in its place while a callback takes long.

The reader thread reads a batch, gives the turn back, and calls. Meanwhile the thread that waits for the connection
to end (run_forever's) looks on: a callback that takes long finds it reading, so that pings are answered. What it has
read waits in the inbox, and the reader thread takes it from there, in order, before it reads again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from .._abnf import ABNF
from .condition import Condition
from .reader import Reader

Batch = tuple[list[Any], list[tuple[int, ABNF]]]

# How long a callback may take before somebody reads in its place; who looks on wakes up as often while something is
# going on, and not at all on a connection at rest.
_LOOK: Final = 0.1  # seconds


class Consumer(Protocol):
    """What is called. On the reader thread, one call at a time; none of these may raise."""

    def opened(self) -> None:
        """The connection stands, before anything else."""

    def take(self, messages: list[Any], controls: list[tuple[int, ABNF]]) -> None:
        """A batch: messages, and pings and pongs, each with the number of the messages before it."""

    def ended(self) -> None:
        """The connection has ended and its socket is given back; the last call."""


class CallbackReader(Reader):
    """See the module.

    close_by: a moment (time.monotonic()) at which the peer's answer to our close frame is waited for no longer, where
        nobody else does that.
    """

    def __init__(self, *arguments: Any, consumer: Consumer, progress: Condition, **options: Any) -> None:
        super().__init__(*arguments, recallable=True, **options)
        self.close_by: float | None = None  # reader thread
        self._consumer: Consumer | None = consumer  # let go of after its last call
        self._progress = progress  # of the inbox's lock: notified for who looks on
        self._begun = False  # guarded by the inbox's lock
        self._given_up = False  # likewise: this side has ended the connection before callbacks began
        self._is_last_batch = False  # reader thread: what it read itself came to the end of the protocol
        self._paused = False  # guarded by the inbox's lock: nobody read, because the inbox was full
        # Written by the reader thread, in this order, before it looks at self._unattended; who looks on writes that
        # before it looks at these. So one of them sees the other.
        self._batches = 0
        self._calling = False
        self._unattended = False

    # ---- the reader thread ----

    def begin(self) -> bool:
        """The connection may be used: callbacks begin, even if the peer has ended it meanwhile. False where this side
        has: then there are none. Any thread."""
        with self._inbox.lock:
            self._begun = not self._given_up
            self._inbox.turn.wake_owner()
            return self._begun

    def give_up(self) -> None:
        """This side ends the connection: where callbacks have not begun, they never will. Any thread."""
        with self._inbox.lock:
            self._given_up = self._given_up or not self._begun

    @property
    def is_calling(self) -> bool:
        """Whether a callback is running."""
        return self._calling

    @property
    def has_begun(self) -> bool:
        """Whether callbacks have begun, so that ended() is due."""
        return self._begun

    def _read_to_the_end(self) -> None:
        with self._inbox.lock:
            while not (self._begun or self._given_up):
                self._inbox.turn.wait()
        consumer = self._consumer
        assert consumer is not None
        if self._begun:
            self._call(consumer.opened)
        while (batch := self._next_batch()) is not None:
            if self._begun and (batch[0] or batch[1]):
                self._call(consumer.take, *batch)
            if self._is_last_batch:  # after the messages before it; another reader ends what it has read itself
                self._end_of_protocol()

    def _take_in_first(self, data: bytes) -> None:
        self._inbox.deliver(*self._parse(data), len(data), [])
        self._is_last_batch = self._is_at_end_of_protocol()  # told when callbacks have begun, in its place

    def call_last(self) -> None:
        """After the end: the last call."""
        consumer, self._consumer = self._consumer, None
        assert consumer is not None
        self._call(consumer.ended)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        self._batches += 1
        self._calling = True
        if self._unattended or self._consumer is None:  # who closes waits for the last call
            with self._inbox.lock:
                self._progress.notify_all()
        try:
            function(*arguments)
        finally:
            self._calling = False

    def _next_batch(self) -> Batch | None:
        """What is to be handed over next, maybe nothing; None at the end."""
        inbox, turn = self._inbox, self._inbox.turn
        with inbox.lock:
            while True:
                batch = inbox.take_batch()
                if self._is_last_batch and self.ending is None:
                    return batch
                if batch[0] or batch[1]:
                    if self._paused:
                        self._paused = False
                        self.reading_since = time.monotonic()
                    return batch
                if not turn.holder:
                    break
                self.recall()
                turn.wait_for_return()
            if self.ending is not None:
                return None
            turn.take()
        try:
            if self.close_by is not None and time.monotonic() >= self.close_by:
                self._lost(TimeoutError("the peer has not answered the close frame in time"))
                return [], []
            data = self._read_recallable(self.close_by)
            if data:
                batch = self._parse(data)
                self._is_last_batch = self._is_at_end_of_protocol()
                if self._end_state.cut_off and not self._is_last_batch:
                    self._end_of_stream()
                return batch
            if data is not None:
                self._end_of_stream()
        except OSError as error:
            self._lost(error)
        finally:
            with inbox.lock:
                turn.give_back()
        return [], []

    # ---- who looks on ----

    def attend(self, is_over: Callable[[], bool]) -> None:
        """Wait until is_over(), which is looked at with the inbox's lock held whenever the connection makes
        progress; read while a callback takes long. One thread at a time."""
        inbox = self._inbox
        try:
            self._attend(is_over)
        except BaseException:
            with inbox.lock:
                if inbox.turn.is_mine():  # an exception of a signal handler came between taking and giving back
                    self._give_back_lent()
            raise

    def _attend(self, is_over: Callable[[], bool]) -> None:
        inbox = self._inbox
        seen = 0
        while True:
            with inbox.lock:
                if is_over():
                    return
                if not self._is_slow(seen):
                    seen = self._look_on(seen)
                    continue
                if self._must_pause():
                    self._paused = True
                    load = inbox.load()
                else:
                    load = None
                    inbox.turn.take()
            if load is not None:
                self._report_slow(*load)
                with inbox.lock:
                    self._progress.wait(_LOOK)
            else:
                self.read_lent(None)

    def _is_slow(self, seen: int) -> bool:
        """Whether the callback of batch `seen` is still running, and nobody reads. With the lock held."""
        is_running = self._calling and self._batches == seen and not self._is_last_batch
        return is_running and not self._inbox.turn.holder and self.ending is None

    def _look_on(self, seen: int) -> int:
        """Wait for the next moment to look; returns the number of batches until then. With the lock held."""
        batches = self._batches
        if batches == seen and not self._calling:
            self._unattended = True
            if self._batches == seen and not self._calling:
                self._progress.wait()
            self._unattended = False
        else:
            self._progress.wait(_LOOK)
        return batches
