"""Compressing what is sent: in the sender's thread, in the order of the wire.

A compressed message may refer to those before it, so whoever compresses one must also get the next place in the
outbox. The right to do so is a turn: taken before compressing, given back as soon as the frame has its place. A
compressor whose message did not get one is replaced by a new one, which refers to nothing and so is always right.
"""

from __future__ import annotations

import time
from collections import deque
from threading import get_ident

from .._deflate import Agreement, Deflater
from .._frames import encode_frame
from .._pure import Payload
from .lanes import CompressedFrame
from .outbox import Outbox

_FIN = 0x80
_RSV1 = 0x40  # compressed, RFC 7692 6


class Deflating:
    """See the module. Any thread may call it.

    min_size: shorter messages are not worth it and need not come here.
    """

    def __init__(self, agreement: Agreement, outbox: Outbox) -> None:
        self.agreement = agreement
        self.min_size = agreement.min_size
        self._outbox = outbox
        # What follows is guarded by the outbox's lock; the deflater belongs to the holder.
        self._holder = 0  # the thread that has the turn
        self._free = outbox.waiting_place()
        self._line: deque[tuple[int]] = deque()  # the threads that wait, each behind those who came before it
        self._deflater: Deflater | None = None  # made when it is needed: it takes 256 KiB

    def put(self, opcode: int, data: Payload, key: bytes, timeout: float | None) -> int:
        """Compress a message and put it into the outbox; returns the number of bytes of its frame. Raises as
        Outbox.put()."""
        if self._is_in_send():
            frame = encode_frame(_FIN | opcode, data, key)
            self._outbox.put(frame, timeout)
            return len(frame)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            deflater = self._take_turn(timeout)
            frame = CompressedFrame(encode_frame(_FIN | _RSV1 | opcode, deflater.message(data), key), data)
            self._outbox.put(frame, _left(deadline), self._give_back)
        except BaseException:
            self._give_up()
            raise
        return len(frame)

    def put_first(self, opcode: int, data: Payload, key: bytes, timeout: float | None) -> tuple[Deflater | None, int]:
        """Put the first frame of a fragmented message into the outbox; returns what compresses the others, None where
        they go plainly, and the number of its bytes. Raises as Outbox.put_fragment().

        The message has a compressor of its own, so that nobody else's waits for its chunks; the messages behind it
        begin anew.
        """
        if self._is_in_send():
            frame = encode_frame(opcode, data, key)
            self._outbox.put_fragment(frame, timeout)
            return None, len(frame)
        deadline = None if timeout is None else time.monotonic() + timeout
        deflater = Deflater(self.agreement)
        try:
            self._take_turn(timeout)
            frame = CompressedFrame(encode_frame(_RSV1 | opcode, deflater.part(data), key), data)
            self._outbox.put_fragment(frame, _left(deadline), self._begin_anew)
        except BaseException:
            self._give_up()
            raise
        return deflater, len(frame)

    def _is_in_send(self) -> bool:
        """Whether this is a signal handler in the midst of a send(): it sends plainly, for which it needs no turn. In
        the middle of a lent write who has the turn may be waiting for room, which nobody makes before that is over."""
        return self._holder == get_ident() or self._outbox.outlet.turn.is_mine()

    def _take_turn(self, timeout: float | None) -> Deflater:
        outbox = self._outbox
        with outbox.lock:
            outbox.check_fragmenting()  # the holder may be waiting for the end of this thread's message
            if self._wait_in_line(timeout):
                self._holder = get_ident()
                if self._deflater is None:
                    self._deflater = Deflater(self.agreement)
                return self._deflater
        raise outbox.refusal()  # without the lock: it may wait for the connection's threads

    def _wait_in_line(self, timeout: float | None) -> bool:
        """Wait until the turn is free; False where nothing is accepted any more. With the lock held."""
        if not (self._holder or self._line):
            return not self._outbox.is_closing
        place = (get_ident(),)
        # A signal handler stands before the send() that it has interrupted: that cannot go on.
        mine = [number for number, other in enumerate(self._line) if other == place]
        try:
            self._line.insert(mine[0] if mine else len(self._line), place)
            return self._outbox.wait_for(self._free, lambda: not self._holder and self._line[0] is place, timeout)
        finally:
            # By identity: another of this thread's may be equal.
            self._line = deque(other for other in self._line if other is not place)

    def _give_back(self) -> None:
        """The frame has its place. With the lock held."""
        self._holder = 0
        self._free.notify_all()

    def _begin_anew(self) -> None:
        self._deflater = None
        self._give_back()

    def _give_up(self) -> None:
        """The frame got no place."""
        with self._outbox.lock:
            if self._holder == get_ident():
                self._begin_anew()
            elif not self._holder:
                self._free.notify_all()  # it may have been this thread that was told

    def close_in_child(self) -> None:
        """Make a forked child's copy one that no thread holds, on the outbox's new lock."""
        self.__init__(self.agreement, self._outbox)  # type: ignore[misc]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
