"""The inbox: messages that arrived, on their way to recv(), bounded in messages and bytes.

The reading turn delivers, a batch at a time; any thread takes, each message once. recv() takes without a lock
where it can: a deque's popleft() is atomic. Where a take matters to somebody, a stalled reader or a poller,
`watched` is set, and who took without the lock calls taken() afterwards.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from .._abnf import ABNF
from .._message import MessageInParts
from .._pollable import PollableEvent
from .condition import Condition
from .turn import Turn

# Pings and pongs kept for a program that asks for control frames; the oldest go first.
_MAX_CONTROLS: Final = 128
# What a part of a message counts beside its bytes, so that tiny ones cost no unbounded number of objects.
_PART: Final = 64


class Inbox:
    """See the module.

    fast: popleft() from it gives the next message; IndexError: use take().  watched: call taken() after it.
    """

    def __init__(self, max_messages: int, max_bytes: int, special: bool) -> None:
        """special: messages are not all str and bytes, so that each must be looked at and `fast` gives none."""
        self.lock = threading.RLock()  # re-entrant, as the outbox's
        self.turn = Turn(self.lock)
        self._arrived = Condition(self.lock)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # All that follows is guarded by self.lock, but that takers may pop from self._messages by self.fast.
        self._messages: deque[Any] = deque()
        self.fast: deque[Any] = deque() if special else self._messages
        self.watched = False  # a take matters to somebody; read without the lock after a pop
        self._delivered = 0  # messages ever
        self._marks: deque[tuple[int, int]] = deque()  # (self._delivered after a batch, bytes of that batch)
        self._bytes = 0  # of the batches that are not taken whole
        self._part_bytes = 0  # of the parts that are not taken
        self._has_parts = False  # a message in parts was delivered, which each take must look out for
        self._controls: deque[tuple[int, ABNF]] = deque(maxlen=_MAX_CONTROLS)  # (messages before it, frame)
        self._waiting = 0  # threads that wait for a message
        self._woken = 0  # of these, about how many have been told of one and have not run yet
        self._end: deque[ABNF | Exception] = deque(maxlen=1)  # what exactly one recv() gets after the messages
        self.ended = False  # no message will be delivered any more
        self.stalled = False  # the reader waits for room
        self._event: PollableEvent | None = None  # set while a take would not wait
        self._polls_controls = False  # control frames set it too

    # ---- the reading turn ----

    def deliver(
        self,
        messages: list[Any],
        controls: Sequence[tuple[int, ABNF]],
        size: int,
        parts: Sequence[tuple[MessageInParts, str | bytes | None]],
    ) -> bool:
        """Hand over a batch. controls: each with the number of the batch's messages before it.  size: its bytes.
        parts: as the parser's.

        Returns whether somebody waited for it. What comes after a local close is dropped.
        """
        with self.lock:
            if self.ended:
                return False
            if messages and type(messages[-1]) is MessageInParts:  # begun, so it can only be the last
                self._has_parts = self.watched = True  # before it is there to be taken
            if parts:
                self._add_parts(parts)
            for index, frame in controls:
                self._controls.append((self._delivered + index, frame))
            if messages:
                self._delivered += len(messages)
                self._marks.append((self._delivered, size))
                self._bytes += size
                self._messages.extend(messages)
            if self._event is not None and (messages or self._polls_controls):
                self._event.set()
            waited = self._waiting > 0
            if waited:
                # All, where a control frame or a part came: only some of those who wait take these.
                count = min(self._waiting, self._waiting if controls or parts else len(messages))
                self._arrived.notify(count)
                self._woken = min(self._woken + count, self._waiting)
            return waited

    def _add_parts(self, parts: Sequence[tuple[MessageInParts, str | bytes | None]]) -> None:
        for message, part in parts:
            if part is None:
                message.is_whole = True
            elif not message.is_dropped:
                message.parts.append(part)
                self._part_bytes += len(part) + _PART

    def finish(self, end: ABNF | Exception | None) -> None:
        """No more messages: what was delivered can still be taken, then `end` by one taker, then the end."""
        with self.lock:
            if self.ended:
                return
            self.ended = True
            if end is not None:
                self._end.append(end)
            self._arrived.notify_all()
            if self._event is not None:
                self._event.set()

    def is_full(self) -> bool:
        """Whether reading must wait for a taker. With the lock held."""
        if self.ended or (len(self._messages) < self._max_messages and self._load < self._max_bytes):
            return False
        self._settle_bytes()
        return len(self._messages) >= self._max_messages or self._load >= self._max_bytes

    @property
    def _load(self) -> int:
        return self._bytes + self._part_bytes

    def stall(self) -> None:
        """The reader is about to wait for room, if is_full() still: takes tell it. With the lock held."""
        self.stalled = True
        self.watched = True

    def resume(self) -> None:
        """The reader has room again. With the lock held."""
        self.stalled = False
        self.watched = self._event is not None or self._has_parts

    def load(self) -> tuple[int, int]:
        """(messages, bytes) that wait. With the lock held."""
        return len(self._messages), self._load

    def _settle_bytes(self) -> None:
        taken = self._delivered - len(self._messages)
        while self._marks and self._marks[0][0] <= taken:
            self._bytes -= self._marks.popleft()[1]

    # ---- takers; with the lock held ----

    def take(self, control: bool) -> Any:
        """The next message, end item, or (with `control`) control frame; None where there is none now."""
        if control and self._controls and self._controls[0][0] <= self._delivered - len(self._messages):
            return self._controls.popleft()[1]
        try:
            item = self._messages.popleft()
        except IndexError:
            return self._end.popleft() if self._end else None
        if self.watched:
            self.taken()
        return item

    def taken(self) -> None:
        """A message was taken while `watched`: tell a stalled reader of room, a poller of emptiness."""
        with self.lock:
            if self.stalled and len(self._messages) <= self._max_messages // 2:
                self._settle_bytes()
                if self._load <= self._max_bytes // 2 or not (self._messages or self._part_bytes):
                    self.turn.wake_owner()
            has_more = self._messages or self.ended or (self._polls_controls and self._controls)
            if self._event is not None and not has_more:
                self._event.clear()

    def put_back(self, message: MessageInParts) -> None:
        """A taker has not got the whole message in its time: the next one shall have it."""
        self._messages.appendleft(message)
        self._arrived.notify()
        if self._event is not None:
            self._event.set()

    def take_part(self, message: MessageInParts) -> Any:
        """The next part of a message that was taken, itself at its end, the end item, or None where there is none of
        these now."""
        if not message.parts:
            if message.is_whole:
                return message
            return self._end.popleft() if self._end else None
        part = message.parts.popleft()
        self._part_bytes -= len(part) + _PART
        self.taken()
        return part

    def drop(self, message: MessageInParts) -> None:
        """Nobody wants the rest of a message that was taken. Takes the lock itself."""
        with self.lock:
            message.is_dropped = True
            while message.parts:
                self.take_part(message)

    def take_batch(self, limit: int | None = None) -> tuple[list[Any], list[tuple[int, ABNF]]]:
        """What deliver() was given and nobody has taken, at most `limit` messages of it: messages, and control
        frames, each with the number of these messages before it."""
        before = self._delivered - len(self._messages)
        count = len(self._messages) if limit is None else min(limit, len(self._messages))
        messages = [self._messages.popleft() for _ in range(count)]
        controls = []
        while self._controls and self._controls[0][0] <= before + count:
            index, frame = self._controls.popleft()
            controls.append((max(0, index - before), frame))
        if self.watched:
            self.taken()
        self._settle_bytes()
        if not self._messages:
            self._end.clear()  # who takes batches looks at the connection's end itself
        return messages, controls

    def wait(self, deadline: float | None) -> bool:
        """Wait for something to arrive; False where the deadline passes first."""
        self._waiting += 1
        try:
            return self._arrived.wait(None if deadline is None else deadline - time.monotonic())
        finally:
            self._waiting -= 1
            self._woken = max(0, self._woken - 1)

    def wake_lone_waiter(self) -> bool:
        """Let the one thread that waits look again; False where there are several, or none. With the lock held."""
        if self._waiting != 1 or self._woken:
            return False
        self._arrived.notify()
        self._woken = 1
        return True

    @property
    def waiting(self) -> int:
        """How many threads wait for a message and have not been told of one."""
        return self._waiting - self._woken

    @property
    def has_delivered(self) -> bool:
        """Whether there ever was a message."""
        return self._delivered > 0

    @property
    def unread(self) -> bool:
        """Whether messages wait, or the peer's close frame."""
        return bool(self._messages or self._end)

    def event(self, controls: bool = False) -> PollableEvent:
        """The event that is set exactly while a take would not wait; with `controls`, one that counts control
        frames. From the first call on every take looks after it."""
        with self.lock:
            self._polls_controls = self._polls_controls or controls
            if self._event is None:
                self._event = PollableEvent()
                self.watched = True
                if self._messages or self.ended or (controls and self._controls):
                    self._event.set()
            return self._event

    @property
    def is_polled(self) -> bool:
        """Whether somebody polls the event, so that only the reader may read."""
        return self._event is not None

    def close_event(self) -> None:
        """Give the event's descriptor back."""
        with self.lock:
            if self._event is not None:
                self._event.close()

    def close_in_child(self) -> None:
        """Make a forked child's copy empty and ended; its lock may be held by a thread that is not there."""
        event = self._event
        self.__init__(1, 1, special=True)  # type: ignore[misc]
        self.ended = True
        if event is not None:
            event.close_in_child()
