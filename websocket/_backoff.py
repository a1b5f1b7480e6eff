"""How long a WebSocketApp waits before its next attempt to connect, and whether there is one.

Backoff and FixedDelay hold settings, never change, and may be shared by any number of apps and threads. begin() makes
a Schedule: the state of one run, for the one thread that runs it. Nothing here waits; clocks and chance are given.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from ._exceptions import (
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketProxyException,
)

__all__ = ["Backoff", "FixedDelay", "Schedule", "is_worth_retrying", "reconnect_policy"]

_NORMAL_CLOSURE: Final = 1000  # RFC 6455 7.4.1
_TOO_MANY_REQUESTS: Final = 429  # RFC 6585 4
_SERVICE_UNAVAILABLE: Final = 503  # RFC 9110 15.6.4

# A lock that is asked to wait longer raises OverflowError.
_LONGEST_DELAY: Final = threading.TIMEOUT_MAX


class Schedule(Protocol):
    """When one run makes its attempts: told what happens, it answers how long to wait."""

    def opened(self) -> None:
        """A connection stands now."""

    def next_delay(self, error: BaseException | None) -> float | None:
        """Seconds to wait after a failed attempt, or after the end of a connection; None: give up.

        error: what the attempt, or the connection, failed with, if anything. Whether it is_worth_retrying() is not
        looked at.
        """


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Delays that grow with every attempt of a row, each a random part of a ceiling.

    A row begins with a failure: an attempt that failed, or a connection that ended. All times are in seconds.

    first: the ceiling of the first delay of a row.
    factor: what the ceiling is multiplied by after each attempt.
    limit: the largest ceiling.
    jitter: how much of the delay is random: 1.0 waits anything from nothing to the ceiling, 0.25 the upper quarter of
        it, 0.0 the ceiling itself.
    attempts: give up after so many attempts in a row; the one whose failure began the row is not counted. None: never.
    deadline: give up where the next attempt would come later than this after the row's first failure. None: never.
    reset_after: a connection that has held so long ends the row; a shorter one is one more attempt of it.

    An answer of 503 or 429 with a Retry-After (RFC 9110 10.2.3) adds what it asks for to the delay, so that clients
    that were all told the same second do not come in the same second. Raises ValueError for settings that make no
    sense.
    """

    # The figures are benchmarks/storm.py's: 100,000 clients lose a server for 60 s, which then takes 5,000 a second.

    # RFC 6455 7.2.3 names 0 to 5 s. The first rush is 30,000 attempts/s, with 2 s 70,000, with 1 s 119,000; a client
    # that is alone is back 2.2 s (median) after a blip of 1 s.
    first: float = 5.0
    # With 1.5 the server that is down sees 9,900 attempts/s instead of 7,400; with 3 it sees 6,000, but 1 in 100 of the
    # clients that are alone is back only 14 s after the blip, not 9 s.
    factor: float = 2.0
    # Once up, 3,200 attempts/s, so that none is refused, and all are back in 60 s; with 30 s it is 6,400, more than it
    # takes (all back in 37 s), with 120 s it is 2,300, but the last is back after 120 s.
    limit: float = 60.0
    # Half of it leaves gaps between waves: peaks of 40,000 and, once up, 4,900/s; half are back in 31 s, not 19 s.
    # Without it all come in the same second each time, and the last is back after 22 min.
    jitter: float = 1.0
    # Like websocket-client's reconnect=, which never gives up.
    attempts: int | None = None
    deadline: float | None = None
    # Half the limit: a server that drops every connection after 20 s then sees 2,000 attempts/s, with 10 s 4,500;
    # one that drops them after any time sees no more than one that is down for long (3,300).
    reset_after: float = 30.0

    def __post_init__(self) -> None:
        _check_seconds("first", self.first)
        _check_seconds("limit", self.limit)
        if self.limit < self.first:
            raise ValueError(f"limit must not be below first={self.first!r}, not {self.limit!r}")
        if not _is_number(self.factor) or not self.factor >= 1:
            raise ValueError(f"factor must be a number of at least 1 (1 keeps the ceiling), not {self.factor!r}")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be a number from 0 (none) to 1 (the whole delay), not {self.jitter!r}")
        if self.attempts is not None and not _is_count(self.attempts):
            raise ValueError(f"attempts must be an int of at least 1, or None for no end, not {self.attempts!r}")
        if self.deadline is not None:
            _check_seconds("deadline", self.deadline, ", or None for no end")
        if not _is_number(self.reset_after) or not self.reset_after >= 0:
            raise ValueError(
                f"reset_after must be a number of seconds of at least 0 (0: every connection ends the row), not"
                f" {self.reset_after!r}"
            )

    def begin(
        self,
        clock: Callable[[], float] = time.monotonic,
        # Python seeds it anew in a forked child, so workers of one parent do not come together.
        random: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> Schedule:
        """The state of one run. random: gives 0 <= x < 1.  wall_clock: what a Retry-After that is a date refers to."""
        return _BackoffSchedule(self, clock, random, wall_clock)


@dataclass(frozen=True)
class FixedDelay:
    """The same delay before each attempt, for ever: what `reconnect=5` means, as in websocket-client.

    No Retry-After is looked at. Raises ValueError for what is no number of seconds above 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds)

    def begin(
        self,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> Schedule:
        """The state of one run; takes what Backoff.begin() takes and uses none of it."""
        return _FixedSchedule(_waitable(self.seconds))


class _FixedSchedule:
    def __init__(self, delay: float) -> None:
        self._delay = delay

    def opened(self) -> None:
        pass

    def next_delay(self, error: BaseException | None) -> float | None:
        return self._delay


class _BackoffSchedule:
    __slots__ = ("_attempts", "_ceiling", "_clock", "_opened_at", "_random", "_row_began", "_settings", "_wall_clock")

    def __init__(
        self,
        settings: Backoff,
        clock: Callable[[], float],
        random: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._wall_clock = wall_clock
        self._opened_at: float | None = None  # None: no connection stands
        self._row_began: float | None = None  # the row's first failure
        self._attempts = 0  # granted in this row
        self._ceiling = _waitable(settings.first)  # of the next delay

    def opened(self) -> None:
        self._opened_at = self._clock()

    def next_delay(self, error: BaseException | None) -> float | None:
        settings, now = self._settings, self._clock()
        if self._opened_at is not None and now - self._opened_at >= settings.reset_after:
            self._row_began = None
        self._opened_at = None
        if self._row_began is None:
            self._row_began = now
            self._attempts = 0
            self._ceiling = _waitable(settings.first)

        if settings.attempts is not None and self._attempts >= settings.attempts:
            return None
        spread = 1 - settings.jitter + settings.jitter * self._random()
        delay = _waitable(_retry_after(error, self._wall_clock) + self._ceiling * spread)
        if settings.deadline is not None and now + delay - self._row_began > settings.deadline:
            return None
        self._attempts += 1
        # Multiplied step by step, because a power of the number of attempts overflows after a long night.
        self._ceiling = min(self._ceiling * _waitable(settings.factor), _waitable(settings.limit))
        return delay


def is_worth_retrying(error: BaseException) -> bool:
    """Whether another attempt may go better: the rule of an app that is given no other.

    True for what networks and servers do: failures, timeouts, TLS, breaches of the protocol, closes with a code that
    tells of a fault, answers of 5xx and 429. False for a normal close (code 1000, or a close frame without a code), for
    other answers of 4xx and other refusals of a proxy, which the same request meets again, and for all that is no
    OSError or WebSocketException: mistakes of the program.
    """
    if isinstance(error, WebSocketBadStatusException):
        return error.status_code == _TOO_MANY_REQUESTS or not 400 <= error.status_code <= 499
    if isinstance(error, WebSocketProxyException) and not isinstance(error, OSError):
        status = error.status_code
        if isinstance(error.__cause__, WebSocketProtocolException):
            return True
        return status is not None and (status == _TOO_MANY_REQUESTS or status >= 500)
    if isinstance(error, WebSocketConnectionClosedException):
        lost = isinstance(error, WebSocketConnectionLostException)
        return error.code != _NORMAL_CLOSURE and (lost or error.code is not None)
    return isinstance(error, (OSError, WebSocketException))


def reconnect_policy(reconnect: float | Backoff | FixedDelay | None) -> Backoff | FixedDelay | None:
    """What the `reconnect` of a WebSocketApp means; None: no second attempt. Raises ValueError for anything else."""
    if reconnect is None or isinstance(reconnect, (Backoff, FixedDelay)):
        return reconnect
    if not _is_number(reconnect) or not reconnect >= 0:
        raise ValueError(
            f"reconnect must be a number of seconds between attempts, 0 for no second attempt, or a Backoff,"
            f" not {reconnect!r}"
        )
    return FixedDelay(reconnect) if reconnect > 0 else None


def _retry_after(error: BaseException | None, wall_clock: Callable[[], float]) -> float:
    """The seconds that a server or a proxy has asked to be left alone for; 0 where it has not, or not so that it is
    understood."""
    if not isinstance(error, (WebSocketBadStatusException, WebSocketProxyException)):
        return 0.0
    if error.status_code not in (_SERVICE_UNAVAILABLE, _TOO_MANY_REQUESTS):
        return 0.0
    value = (error.resp_headers or {}).get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)  # not int(): that refuses thousands of digits
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if date.tzinfo is None:  # asctime's form, which is in UTC (RFC 9110 5.6.7)
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, date.timestamp() - wall_clock())


def _waitable(number: float) -> float:
    """As a float that a lock can wait for, whatever the size of an int."""
    return float(min(number, _LONGEST_DELAY))


def _is_number(value: Any) -> bool:
    """A finite int or float; True and False, though ints, are mistakes here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -float("inf") < value < float("inf")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_seconds(name: str, value: Any, or_else: str = "") -> None:
    if not _is_number(value) or not value > 0:
        raise ValueError(f"{name} must be a number of seconds above 0{or_else}, not {value!r}")
