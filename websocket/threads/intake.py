"""The intake: where the frames of a burst come into the outbox without its lock.

A thread that waits for a lock owns it from the moment it is free, long before it runs, and those behind it find it
taken: with several senders each message costs a thread switch (eight threads: 160,000 messages a second, and 1,200,000
through the intake). While the writer is awake, and will look again before it rests, a frame needs no more than an
append, which a deque does in one step.

It is closed first and emptied then. So whoever has put a frame in after that finds the intake closed, and takes the
frame back; where it is not there any more, it was let in.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

# Larger frames take longer to send than a lock to wait for; and the bound in bytes is kept by their number.
LARGEST: Final = 16 * 1024  # bytes


class Gate:
    """The way into the intake, from one closing to the next.

    room: how many frames may be in the intake; 0 while it is closed.
    """

    __slots__ = ("room",)

    def __init__(self) -> None:
        self.room = 0


class Intake:
    """Frames of whole messages. All but put() is called with the outbox's lock held.

    Senders that look for room at the same moment may exceed it by a message each.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._frames: deque[bytes] = deque()
        self._gate = Gate()  # written with the lock held

    def put(self, frame: bytes) -> bool:
        """Let a frame in where the intake is open and has room; False where that is not so. Any thread, without the
        lock."""
        frames = self._frames
        if not (len(frames) < self._gate.room and len(frame) < LARGEST and type(frame) is bytes):
            return False
        try:
            frames.append(frame)
            return self._gate.room > 0 or not self._take_back(frame)
        except BaseException:  # of a signal handler
            self._take_back(frame)
            raise

    def _take_back(self, frame: bytes) -> bool:
        """Whether it was there: this one, as with a constant masking key an equal one may have been let in."""
        with self._lock:
            if not any(other is frame for other in self._frames.copy()):
                return False
            try:
                self._frames.remove(frame)  # or one that is equal, and then this one stays in its place
            except ValueError:  # a signal handler has come between, and let it in
                return False
            return True

    def close(self) -> Gate:
        """Let no more frames in. Who gives the returned gate room opens the intake; the writer must be awake then. It
        has no effect where somebody has closed the intake since: a signal handler, between a look and that."""
        self._gate = gate = Gate()
        return gate

    def move_to(self, lane: deque[bytes]) -> int:
        """Move what has come to a lane of the outbox; returns how many frames. After close()."""
        before = len(lane)
        move_all(self._frames, lane)
        return len(lane) - before


def move_all(frames: deque[bytes], lane: deque[bytes]) -> None:
    """Move all frames behind those of a lane: in one step, which no exception of a signal handler interrupts, and which
    ends behind the last frame."""
    try:
        lane.extend(iter(frames.popleft, None))
    except IndexError:
        pass
