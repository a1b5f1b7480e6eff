"""Senders that wait: for room in the outbox, one behind the other, or for something else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Final

from .._exceptions import WebSocketTimeoutException
from .condition import Condition
from .lanes import Lanes

# How long a sender waits where it need not: no longer than any thread may have to until it runs.
_MOMENT: Final = 0.005  # seconds
_MOST_SKIPPED: Final = 127


class _InLine:
    """A sender that waits for room, and its frame."""

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


class Waiting:
    """Those who wait for the outbox to have room. All is guarded by its lock, with which each method is called.

    blocked: how many cannot go on.
    refused: whether nothing is accepted any more.
    """

    def __init__(self, lock: threading.RLock, lanes: Lanes) -> None:
        self._lock = lock
        self._lanes = lanes
        self._places: list[Condition] = []
        self._changed = self.place()  # senders of pings and of further fragments wait here
        # One behind the other, so that small messages do not pass a large one for ever.
        self.line: deque[_InLine] = deque()
        self.blocked = 0
        self._in_a_moment = 0  # how many wait_a_moment()
        self._skipped = 0  # how many moments are skipped after the latest, which was in vain
        self._to_skip = 0  # of these, still to come
        self.refused = False

    def place(self) -> Condition:
        """A condition to wait on that is notified when nothing is accepted any more."""
        place = Condition(self._lock)
        self._places.append(place)
        return place

    def wait_for(self, place: Condition | None, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until the condition holds (True) or nothing is accepted any more (False). Raises
        WebSocketTimeoutException. place: from place(); None: where those wait who stand in no line."""
        self.blocked += 1
        try:
            met = (place or self._changed).wait_for(lambda: self.refused or condition(), timeout)
        finally:
            self.blocked -= 1
        if not met:
            raise WebSocketTimeoutException(
                f"send timed out after {timeout} s: {self._lanes.messages} messages of {self._lanes.bytes} bytes wait"
                " for the peer to read; the message was not accepted"
            )
        return not self.refused

    def wait_a_moment(self, condition: Callable[[], bool], timeout: float | None) -> None:
        """Wait for what is better though it is not needed: until the condition holds, or for a moment. Each moment in
        vain doubles how many of the next are skipped, so that a slow peer keeps nobody waiting."""
        if self._to_skip:
            self._to_skip -= 1
            return
        self._in_a_moment += 1
        try:
            moment = _MOMENT if timeout is None else min(_MOMENT, timeout)
            met = self._changed.wait_for(lambda: self.refused or condition(), moment)
        finally:
            self._in_a_moment -= 1
        self._skipped = 0 if met else min(_MOST_SKIPPED, 2 * self._skipped + 1)
        self._to_skip = self._skipped

    @property
    def has_any(self) -> bool:
        """Whether anybody waits for anything."""
        return self.blocked > 0 or self._in_a_moment > 0

    def is_in_line(self) -> bool:
        """Whether the calling thread is: then it is a signal handler that has interrupted a send(), which cannot go on
        before it."""
        thread = get_ident()
        return any(waiting.thread == thread for waiting in self.line)

    def wait_in_line(
        self, frame: bytes, size: int, fragmenting: int, placed: Callable[[], None] | None, timeout: float | None
    ) -> bool:
        """Wait for room for a frame behind those who came before, and let it in; False where nothing is accepted any
        more. Raises WebSocketTimeoutException."""
        mine = _InLine(frame, size, fragmenting, placed, Condition(self._lock))

        def has_come() -> bool:
            return mine.is_placed or (self.line[0] is mine and self._lanes.has_room(size, False))

        accepted = False
        try:
            self.line.append(mine)
            accepted = self.wait_for(mine.changed, has_come, timeout)
        finally:
            if not mine.is_placed:
                if mine in self.line:
                    self.line.remove(mine)
                if accepted:
                    self.append(frame, size, fragmenting, placed)
                self.call_next()
        return accepted or mine.is_placed

    def call_next(self) -> None:
        """There may be room: let the first in line look, and those who are in none."""
        if self.line and self._lanes.has_room(self.line[0].size, False):
            self.line[0].changed.notify()
        self._changed.notify_all()

    def admit(self) -> None:
        """Take in the frames of those who stand in line, as far as there is room.

        Where each sender takes in its own it has to run first. Those that come meanwhile stand behind it, so that the
        line never ends, and with a thread switch for each message eight threads sent 40,000 in a second. Only the
        writer's thread does this, so that no exception of a signal handler comes between the steps; and, while the
        process ends, who writes in its place.
        """
        while self.line and not self.refused and self._lanes.has_room(self.line[0].size, False):
            first = self.line.popleft()
            first.is_placed = True
            self.append(first.frame, first.size, first.fragmenting, first.placed)
            first.changed.notify()

    def append(self, frame: bytes, size: int, fragmenting: int, placed: Callable[[], None] | None) -> None:
        """Let a frame in."""
        self._lanes.append(frame, size, fragmenting)
        if placed is not None:
            placed()

    def refuse(self) -> None:
        """Nothing is accepted any more: let everybody look."""
        self.refused = True
        for waiting in self.line:
            waiting.changed.notify()
        for place in self._places:
            place.notify_all()
