"""The pinger: a thread of a connection that wants keepalive. Pings, measures, ends a connection whose peer is gone.

It ends with its connection, and what it knows ends with it. A pong that could not come because this side did not
read (a slow callback, a full inbox) is not missing: the time for it counts from when reading went on, and before the
verdict everything that has arrived is read.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .. import _logging
from .._abnf import ABNF, MAX_CONTROL_PAYLOAD, new_masking_key
from .._exceptions import WebSocketConnectionClosedException, WebSocketTimeoutException
from .._frames import encode_frame
from .condition import Condition
from .ending import Ending
from .inbox import Inbox
from .outbox import Outbox
from .reader import Reader

# More than a pong has in front of it in the kernels' buffers (Linux' defaults: 6 MiB to receive, 4 MiB to send; some
# machines allow 32 MiB).
_MOST_IN_FLIGHT: Final = 64 * 1024 * 1024

# A lock cannot wait for longer than it can count; 23 days are as good as for ever.
_LONGEST: Final = 2_000_000.0

_PING: Final = 0x80 | ABNF.OPCODE_PING
# Pings without an answer that are remembered, where no ping_timeout ends the connection.
_MAX_UNANSWERED: Final = 128


@dataclass(frozen=True)
class Keepalive:
    """What a connection's pinger does.

    interval: seconds between pings.  timeout: seconds in which a pong must come, None for any; less than interval.
    payload: sent in every ping; by default each ping has a number of its own. Raises ValueError for what makes no
    sense.
    """

    interval: float
    timeout: float | None = None
    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_seconds("ping_interval", self.interval)
        if self.timeout is not None:
            _check_seconds("ping_timeout", self.timeout)
            if self.interval <= self.timeout:
                raise ValueError(f"ping_interval={self.interval!r} must be more than ping_timeout={self.timeout!r}")
        if len(self.payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"ping_payload must be at most {MAX_CONTROL_PAYLOAD} bytes (RFC 6455 5.5), not {len(self.payload)}"
            )


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds > 0, not {value!r}")


class Pinger:
    """The body of the pinger thread, and what it has measured.

    latency: seconds from the latest answered ping to its pong, None before the first.  last_ping: when (time.time())
        the latest ping was sent, 0.0 before the first.  Any thread may read them.
    is_over: whether there is nothing to keep alive any more; called with the inbox's lock held, whose `progress` tells
        of a change.
    """

    def __init__(
        self,
        keepalive: Keepalive,
        reader: Reader,
        inbox: Inbox,
        outbox: Outbox,
        progress: Condition,
        is_over: Callable[[], bool],
    ) -> None:
        self.latency: float | None = None
        self.last_ping = 0.0
        self._keepalive = keepalive
        self._reader = reader
        self._inbox = inbox
        self._outbox = outbox
        self._progress = progress
        self._is_over = is_over
        if keepalive.timeout is not None:
            reader.slow_frame = keepalive.timeout / 2
        self._count = 0  # pinger thread
        # (number, payload, when it was sent) of pings without a pong, oldest first. Guarded by the inbox's lock.
        self._unanswered: deque[tuple[int, bytes, float]] = deque(maxlen=_MAX_UNANSWERED)

    # ---- the pinger thread ----

    def run(self) -> None:
        try:
            self._keep_alive()
        except BaseException as error:  # a bug, a log handler's, no memory: said aloud by the thread's excepthook
            cause = error
            self._reader.take_what_is_here(lambda: False, -1, lambda: Ending(cause=cause))
            raise

    def _keep_alive(self) -> None:
        interval = min(self._keepalive.interval, _LONGEST)
        timeout = self._keepalive.timeout
        following = time.monotonic() + interval
        while self._wait_until(following):
            sent = time.monotonic()
            if not self._ping(sent):
                if timeout is not None:
                    self._await_the_answer_to_our_close(interval + timeout)
                return
            if timeout is not None and not self._is_alive(sent, min(timeout, _LONGEST)):
                return
            following = max(sent + interval, time.monotonic())

    def _wait_until(self, moment: float) -> bool:
        """False where there is nothing to keep alive any more."""
        with self._inbox.lock:
            while not self._is_over():
                remaining = moment - time.monotonic()
                if remaining <= 0:
                    return True
                self._progress.wait(remaining)
            return False

    def _ping(self, now: float) -> bool:
        """Send a ping; False where nothing is accepted any more."""
        self._count += 1
        payload = self._keepalive.payload or str(self._count).encode()
        with self._inbox.lock:
            self._unanswered.append((self._count, payload, now))
        self.last_ping = time.time()
        if _logging.tracing:
            _logging.trace("++Sent ping: %r", payload)
        try:
            self._outbox.put_control(encode_frame(_PING, payload, new_masking_key()), 0)
        except WebSocketTimeoutException:
            pass  # more pings than can wait are unwritten; the peer reads nothing, and has a time for its pong
        except WebSocketConnectionClosedException:
            return False
        return True

    def _is_alive(self, sent: float, timeout: float) -> bool:
        """Wait for the pong to the latest ping; where it does not come, end the connection and return False."""
        due = sent + timeout
        most = -1  # known when the pong is first due
        while self._wait_until(due):
            if self._is_answered():
                return True
            with self._inbox.lock:
                paused = self._inbox.stalled or self._inbox.is_full()
                due = self._reader.reading_since + timeout
            now = time.monotonic()
            if most < 0 or paused:
                most = self._reader.received + _MOST_IN_FLIGHT
            if paused:
                due = now + timeout
            elif due <= now:
                if self._reader.take_what_is_here(self._is_answered, most, self._verdict):
                    return False
                if self._is_answered():
                    return True
                due = now + timeout  # the inbox is full
        return False

    def _await_the_answer_to_our_close(self, silence: float) -> None:
        """Nothing may be sent any more, so a peer that says nothing at all for so long is gone."""
        reader = self._reader
        received = reader.received

        def says_something() -> bool:
            return reader.received != received

        while self._wait_until(time.monotonic() + silence):
            if reader.take_what_is_here(says_something, received + _MOST_IN_FLIGHT, self._verdict):
                return
            received = reader.received

    def _is_answered(self) -> bool:
        with self._inbox.lock:
            return not self._unanswered or self._unanswered[-1][0] != self._count

    @staticmethod
    def _verdict() -> Ending:
        error = WebSocketTimeoutException("ping/pong timed out")
        return Ending(error=error, cause=error)

    # ---- the reading turn ----

    def pong(self, payload: bytes) -> None:
        """A pong has come: it answers the ping of this payload, and those before it (RFC 6455 5.5.3)."""
        with self._inbox.lock:
            for number, expected, sent in reversed(self._unanswered):
                if payload == expected:
                    self.latency = time.monotonic() - sent
                    while self._unanswered and self._unanswered[0][0] <= number:
                        self._unanswered.popleft()
                    return
