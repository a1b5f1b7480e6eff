"""How long an app waits before its next attempt, on virtual clocks and with given chance: nothing here waits."""

from __future__ import annotations

import dataclasses
import math
import pickle
import random
import statistics
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from websocket._backoff import Backoff, FixedDelay, Schedule, is_worth_retrying, reconnect_policy
from websocket._exceptions import (
    WebSocketAddressException,
    WebSocketBadStatusException,
    WebSocketCertificateException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
    WebSocketTLSException,
)

REFUSED = WebSocketConnectionRefusedException("nothing listens")

# Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 5.6.7, in its three forms.
RFC_DATE = 784_111_777.0
RFC_DATE_FORMS = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
]


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Run:
    """A schedule on a clock of its own; no jitter reaches it unless chance says so."""

    def __init__(
        self, policy: Backoff | FixedDelay, chance: Callable[[], float] = lambda: 0.5, wall: float = RFC_DATE
    ) -> None:
        self.clock = Clock()
        self.wall_clock = Clock(wall)
        self.schedule: Schedule = policy.begin(self.clock, chance, self.wall_clock)

    def fails(self, error: BaseException | None = REFUSED) -> float | None:
        """An attempt fails, or a connection ends; the delay passes, and it is the time of the next attempt."""
        delay = self.schedule.next_delay(error)
        if delay is not None:
            self.clock.now += delay
        return delay

    def delays(self, count: int) -> list[float | None]:
        return [self.fails() for _ in range(count)]

    def holds(self, seconds: float) -> None:
        """A connection opens and stands for so long."""
        self.schedule.opened()
        self.clock.now += seconds


def even(**settings: Any) -> Backoff:
    """A Backoff without jitter, growing 1, 2, 4, 8, 8, ... unless told otherwise."""
    return Backoff(**{"first": 1, "factor": 2, "limit": 8, "jitter": 0, **settings})


def bad_status(status: int, headers: Mapping[str, str] | None = None) -> WebSocketBadStatusException:
    return WebSocketBadStatusException(f"Handshake status {status}", status, None, headers)


def refusal(status: int) -> WebSocketProxyException:
    error = WebSocketProxyException(f"refused CONNECT: {status}")
    error.status_code = status
    return error


def unavailable(retry_after: str) -> WebSocketBadStatusException:
    return bad_status(503, {"retry-after": retry_after})


# ---- ceilings ----


def test_without_jitter_the_delay_is_the_ceiling_and_grows_to_the_limit() -> None:
    assert Run(even()).delays(6) == [1, 2, 4, 8, 8, 8]


def test_the_last_step_to_the_limit_is_cut_where_the_limit_is_no_power() -> None:
    assert Run(even(limit=5)).delays(5) == [1, 2, 4, 5, 5]


def test_a_factor_of_one_keeps_the_ceiling() -> None:
    assert Run(even(factor=1)).delays(4) == [1, 1, 1, 1]


def test_a_limit_equal_to_first_keeps_the_ceiling() -> None:
    assert Run(even(first=3, limit=3)).delays(3) == [3, 3, 3]


def test_delays_are_floats_whatever_the_settings_are() -> None:
    assert [type(delay) for delay in Run(even()).delays(5)] == [float] * 5
    assert type(Run(FixedDelay(5)).fails()) is float


@pytest.mark.parametrize("factor", [1.0000001, 2, 1e300, 10**400])
def test_a_million_failures_in_a_row_overflow_nothing(factor: float) -> None:
    schedule = even(factor=factor, limit=60).begin(Clock(), lambda: 0.5)
    delays = [schedule.next_delay(None) for _ in range(1_000_000)]
    assert delays[0] == 1
    assert all(delay is not None and 1 <= delay <= 60 for delay in delays)
    assert delays[-1] == (60 if factor >= 2 else pytest.approx(math.exp(0.1)))


@pytest.mark.parametrize("huge", [1e300, 10**400, threading.TIMEOUT_MAX * 2])
def test_no_delay_is_longer_than_a_lock_can_wait(huge: float) -> None:
    for policy in (even(first=huge, limit=huge), even(limit=huge, factor=huge), FixedDelay(huge)):
        delays = Run(policy).delays(4)
        assert all(delay is not None and delay <= threading.TIMEOUT_MAX for delay in delays)
        assert delays[-1] == threading.TIMEOUT_MAX
        assert threading.Lock().acquire(timeout=threading.TIMEOUT_MAX), "more raises OverflowError"


# ---- jitter ----


def test_full_jitter_reaches_from_nothing_to_the_ceiling() -> None:
    assert Run(even(jitter=1), lambda: 0.0).delays(4) == [0, 0, 0, 0]
    assert Run(even(jitter=1), lambda: 0.5).delays(4) == [0.5, 1, 2, 4]
    highest = Run(even(jitter=1), lambda: math.nextafter(1, 0)).delays(4)
    assert highest == pytest.approx([1, 2, 4, 8])


def test_a_part_of_jitter_spares_the_lower_part_of_the_ceiling() -> None:
    assert Run(even(jitter=0.25), lambda: 0.0).delays(4) == [0.75, 1.5, 3, 6]
    assert Run(even(jitter=0.25), lambda: 0.5).delays(4) == [0.875, 1.75, 3.5, 7]


@pytest.mark.parametrize("jitter", [0, 0.1, 0.3, 0.7, 0.9, 1])
def test_no_jitter_goes_above_the_ceiling(jitter: float) -> None:
    for chance in (0.0, 0.5, math.nextafter(1, 0), 1.0):
        delay = Run(even(jitter=jitter), lambda chance=chance: chance).fails()  # type: ignore[misc]
        assert delay is not None
        assert 1 - jitter <= delay <= 1


@pytest.mark.parametrize(("jitter", "lowest"), [(1.0, 0.0), (0.5, 5.0), (0.2, 8.0)])
def test_delays_are_spread_evenly_over_their_range(jitter: float, lowest: float) -> None:
    chance = random.Random(7).random
    policy = Backoff(first=10, limit=10, jitter=jitter)
    delays = [policy.begin(Clock(), chance).next_delay(REFUSED) for _ in range(20_000)]
    known = [delay for delay in delays if delay is not None]
    assert len(known) == len(delays)
    assert lowest <= min(known) <= max(known) <= 10
    assert statistics.mean(known) == pytest.approx((lowest + 10) / 2, rel=0.01)
    width = (10 - lowest) / 10
    tenths = [sum(lowest + n * width <= delay < lowest + (n + 1) * width for delay in known) for n in range(10)]
    assert all(1_800 < count < 2_200 for count in tenths), tenths


def test_each_delay_is_drawn_anew() -> None:
    drawn = iter([0.1, 0.9, 0.4])
    assert Run(even(jitter=1, factor=1), lambda: next(drawn)).delays(3) == pytest.approx([0.1, 0.9, 0.4])


def test_runs_of_the_same_settings_do_not_come_together() -> None:
    policy = Backoff()
    assert len({policy.begin().next_delay(REFUSED) for _ in range(50)}) == 50


# ---- the row ----


def test_a_connection_that_has_held_ends_the_row() -> None:
    run = Run(even(reset_after=30))
    assert run.delays(3) == [1, 2, 4]
    run.holds(30)
    assert run.delays(3) == [1, 2, 4]


def test_a_connection_that_was_too_short_goes_on_in_the_row() -> None:
    run = Run(even(reset_after=30))
    assert run.delays(2) == [1, 2]
    run.holds(29.9)
    assert run.delays(2) == [4, 8]


def test_short_connections_do_not_add_up_to_a_long_one() -> None:
    run = Run(even(reset_after=30))
    delays = []
    for _ in range(5):
        run.holds(20)
        delays.append(run.fails())
    assert delays == [1, 2, 4, 8, 8]


def test_the_time_without_a_connection_does_not_count_as_held() -> None:
    run = Run(even(reset_after=30))
    run.holds(10)
    assert run.fails() == 1
    run.clock.now += 1000  # an attempt that takes long, and fails
    assert run.delays(2) == [2, 4]


def test_with_reset_after_zero_every_connection_ends_the_row() -> None:
    run = Run(even(reset_after=0))
    assert run.delays(2) == [1, 2]
    run.holds(0)
    assert run.delays(2) == [1, 2]


def test_the_first_connection_may_hold_before_any_failure() -> None:
    run = Run(even(reset_after=30))
    run.holds(5)
    assert run.delays(2) == [1, 2]


def test_the_end_of_a_connection_needs_no_error() -> None:
    run = Run(even())
    assert [run.fails(None), run.fails(None)] == [1, 2]


# ---- giving up ----


def test_attempts_are_those_after_the_failure_that_began_the_row() -> None:
    run = Run(even(attempts=3))
    assert run.delays(5) == [1, 2, 4, None, None]


def test_attempts_begin_anew_with_the_row() -> None:
    run = Run(even(attempts=2, reset_after=30))
    assert run.delays(2) == [1, 2]
    run.holds(30)
    assert run.delays(3) == [1, 2, None]


def test_a_connection_that_was_too_short_is_an_attempt() -> None:
    run = Run(even(attempts=2, reset_after=30))
    assert run.fails() == 1
    run.holds(1)
    assert run.fails() == 2
    run.holds(1)
    assert run.fails() is None


def test_without_attempts_and_deadline_it_never_gives_up() -> None:
    run = Run(Backoff())
    assert None not in run.delays(10_000)
    assert run.clock.now > 100_000


def test_no_attempt_comes_after_the_deadline() -> None:
    assert Run(even(deadline=10)).delays(4) == [1, 2, 4, None]  # at 1, 3 and 7 s; the next would come at 15 s


def test_an_attempt_at_the_deadline_is_made() -> None:
    assert Run(even(deadline=15)).delays(5) == [1, 2, 4, 8, None]


def test_the_time_that_attempts_take_counts_to_the_deadline() -> None:
    run = Run(even(deadline=10))
    assert run.fails() == 1
    run.clock.now += 8
    assert run.fails() is None


def test_the_deadline_counts_from_the_first_failure_of_the_row() -> None:
    run = Run(even(deadline=10, reset_after=30))
    run.clock.now += 500  # an attempt that took that long
    assert run.delays(3) == [1, 2, 4]
    run.holds(40)
    assert run.delays(4) == [1, 2, 4, None]


def test_a_short_connection_does_not_move_the_deadline() -> None:
    run = Run(even(deadline=10, reset_after=30))
    assert run.fails() == 1
    run.holds(9)
    assert run.fails() is None


def test_the_jittered_delay_is_what_is_held_against_the_deadline() -> None:
    assert Run(even(first=8, jitter=1, deadline=5), lambda: 0.5).fails() == 4
    assert Run(even(first=8, jitter=1, deadline=5), lambda: 0.75).fails() is None


# ---- Retry-After ----


@pytest.mark.parametrize("status", [503, 429])
def test_retry_after_in_seconds_is_waited_for_and_the_delay_comes_on_top(status: int) -> None:
    run = Run(even())
    assert run.fails(bad_status(status, {"retry-after": "120"})) == 121
    assert run.fails(bad_status(status, {"retry-after": "7"})) == 9
    assert run.fails() == 4, "it holds for the answer that has it, and the row goes on"


@pytest.mark.parametrize("date", RFC_DATE_FORMS)
def test_retry_after_may_be_a_date_in_each_form_of_the_rfc(date: str) -> None:
    assert Run(even(), wall=RFC_DATE - 90).fails(unavailable(date)) == 91


def test_retry_after_as_a_date_in_another_zone() -> None:
    assert Run(even(), wall=RFC_DATE).fails(unavailable("Sun, 06 Nov 1994 08:50:37 -0100")) == 3661


def test_a_date_that_has_passed_asks_for_nothing() -> None:
    assert Run(even(), wall=RFC_DATE + 90).fails(unavailable(RFC_DATE_FORMS[0])) == 1


def test_clients_told_the_same_second_come_at_different_times_after_it() -> None:
    chance = random.Random(3).random
    policy = Backoff()
    delays = [policy.begin(Clock(), chance).next_delay(unavailable("60")) or 0 for _ in range(1000)]
    assert 60 <= min(delays) < 60.1
    assert 64.9 < max(delays) <= 65
    assert len(set(delays)) == 1000


@pytest.mark.parametrize("status", [500, 502, 504, 403, 301, 200])
def test_retry_after_of_another_status_is_not_looked_at(status: int) -> None:
    assert Run(even()).fails(bad_status(status, {"retry-after": "120"})) == 1


@pytest.mark.parametrize("headers", [None, {}, {"server": "x"}])
def test_an_answer_without_retry_after_is_a_failure_like_others(headers: Mapping[str, str] | None) -> None:
    assert Run(even()).fails(bad_status(503, headers)) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        " ",
        "soon",
        "-5",
        "+5",
        "1.5",
        "1e3",
        "0x10",
        "5 s",
        "5, 5",
        "5;q=1",
        "inf",
        "nan",
        "\N{SUPERSCRIPT TWO}",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "2031-01-01T00:00:00Z",
        "Sun, 06 Nov 1994 08:49:37 +9999",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        "Sun, 32 Nov 2094 08:49:37 GMT",
        "Sun, 06 Nov 2094 08:49:61 GMT",
        "Sun, 06 Foo 2094 08:49:37 GMT",
        "Sun,",
        ",",
        "GMT",
        "\x00",
    ],
)
def test_a_retry_after_that_cannot_be_understood_is_ignored(garbage: str) -> None:
    assert Run(even()).fails(unavailable(garbage)) == 1


def test_no_retry_after_raises() -> None:
    chance = random.Random(11)
    words = [
        "Sun,",
        "06",
        "Nov",
        "1994",
        "08:49:37",
        "GMT",
        "+0000",
        "-2400",
        "99",
        "-",
        ":",
        "06-Nov-94",
        "AM",
        "",
        "(",
    ]
    for _ in range(5_000):
        value = " ".join(chance.choices(words, k=chance.randrange(9)))
        delay = Run(even()).fails(unavailable(value))
        assert delay is not None, value
        assert 1 <= delay <= threading.TIMEOUT_MAX, value


def test_spaces_around_retry_after_do_not_matter() -> None:
    assert Run(even()).fails(unavailable(" 30\t")) == 31


@pytest.mark.parametrize("forever", ["9" * 12, "9" * 5000])
def test_a_retry_after_beyond_all_clocks_is_waited_for_as_long_as_a_lock_can(forever: str) -> None:
    assert Run(even()).fails(unavailable(forever)) == threading.TIMEOUT_MAX
    assert Run(even(deadline=3600)).fails(unavailable(forever)) is None


def test_a_retry_after_beyond_the_deadline_gives_up_at_once() -> None:
    assert Run(even(deadline=60)).fails(unavailable("61")) is None
    assert Run(even(deadline=60)).fails(unavailable("59")) == 60
    assert Run(even(deadline=60)).fails(unavailable("60")) is None, "the delay comes on top"


def test_retry_after_does_not_change_how_the_ceilings_grow() -> None:
    run = Run(even())
    assert run.fails(unavailable("100")) == 101
    assert run.delays(3) == [2, 4, 8]


# ---- one delay for ever ----


def test_a_fixed_delay_is_always_the_same_and_never_gives_up() -> None:
    run = Run(FixedDelay(5))
    assert run.delays(1000) == [5] * 1000
    run.holds(3600)
    assert run.fails(None) == 5


def test_a_fixed_delay_looks_at_no_retry_after() -> None:
    assert Run(FixedDelay(5)).fails(unavailable("120")) == 5


def test_a_fixed_delay_begins_without_arguments_as_a_backoff_does() -> None:
    assert FixedDelay(2.5).begin().next_delay(None) == 2.5


# ---- settings ----


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert dataclasses.asdict(Backoff()) == {
        "first": 5.0,
        "factor": 2.0,
        "limit": 60.0,
        "jitter": 1.0,
        "attempts": None,
        "deadline": None,
        "reset_after": 30.0,
    }


def test_the_first_delay_by_default_is_random_and_at_most_the_five_seconds_of_the_rfc() -> None:
    chance = random.Random(5).random
    delays = [Backoff().begin(Clock(), chance).next_delay(REFUSED) or 0 for _ in range(2_000)]
    assert 0 < min(delays) < 0.1
    assert 4.9 < max(delays) <= 5


def test_a_backoff_is_shared_because_it_keeps_no_state() -> None:
    policy = even()
    one, other = Run(policy), Run(policy)
    assert one.delays(3) == [1, 2, 4]
    assert other.delays(3) == [1, 2, 4]
    assert policy == even()
    assert {policy: 1}[even()] == 1
    assert pickle.loads(pickle.dumps(policy)) == policy
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.first = 2  # type: ignore[misc]


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Backoff(1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["first", "factor", "limit", "jitter", "deadline", "reset_after", "attempts"])
@pytest.mark.parametrize("value", [True, False, math.nan, math.inf, -math.inf, -1, -0.5, "5", b"5", [5], 5j, object])
def test_what_is_no_number_in_range_is_refused_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must ") as refusal:
        Backoff(**{name: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize("name", ["first", "factor", "limit", "jitter", "reset_after"])
def test_none_means_no_end_only_where_it_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must .*None"):
        Backoff(**{name: None})  # type: ignore[arg-type]
    assert Backoff(attempts=None, deadline=None) == Backoff()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 0}, "first must be a number of seconds above 0, not 0"),
        ({"limit": 0}, "limit must be a number of seconds above 0, not 0"),
        ({"first": 10, "limit": 9.5}, "limit must not be below first=10, not 9.5"),
        ({"limit": 4}, "limit must not be below first=5.0, not 4"),
        ({"first": 61}, "limit must not be below first=61, not 60.0"),
        ({"factor": 0.99}, "factor must be a number of at least 1 (1 keeps the ceiling), not 0.99"),
        ({"jitter": 1.01}, "jitter must be a number from 0 (none) to 1 (the whole delay), not 1.01"),
        ({"attempts": 0}, "attempts must be an int of at least 1, or None for no end, not 0"),
        ({"attempts": 2.0}, "attempts must be an int of at least 1, or None for no end, not 2.0"),
        ({"deadline": 0}, "deadline must be a number of seconds above 0, or None for no end, not 0"),
    ],
)
def test_a_refusal_names_the_field_the_value_and_the_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must") as refusal:
        Backoff(**settings)
    assert str(refusal.value) == message


@pytest.mark.parametrize("seconds", [0, -1, True, False, math.nan, math.inf, None, "5"])
def test_a_fixed_delay_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"^seconds must be a number of seconds above 0, not ") as refusal:
        FixedDelay(seconds)
    assert repr(seconds) in str(refusal.value)


# ---- what reconnect= means ----


@pytest.mark.parametrize("nothing", [None, 0, 0.0, -0.0])
def test_reconnect_of_nothing_is_no_second_attempt(nothing: float | None) -> None:
    assert reconnect_policy(nothing) is None


@pytest.mark.parametrize("seconds", [5, 0.25, 10**400])
def test_reconnect_of_a_number_is_a_fixed_delay(seconds: float) -> None:
    assert reconnect_policy(seconds) == FixedDelay(seconds)


@pytest.mark.parametrize("policy", [Backoff(), even(attempts=3), FixedDelay(5)])
def test_reconnect_of_a_policy_is_that_policy(policy: Backoff | FixedDelay) -> None:
    assert reconnect_policy(policy) is policy


@pytest.mark.parametrize("value", [True, False, -1, -0.1, math.nan, math.inf, "5", [], {}, Backoff, object()])
def test_reconnect_of_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^reconnect must be a number of seconds .* or a Backoff, not ") as refusal:
        reconnect_policy(value)
    assert repr(value) in str(refusal.value)


# ---- what is worth another attempt ----


def closed(code: int | None, kind: type[WebSocketConnectionClosedException]) -> WebSocketConnectionClosedException:
    error = kind("closed")
    error.code = code
    return error


CLOSED, LOST = WebSocketConnectionClosedException, WebSocketConnectionLostException


@pytest.mark.parametrize(
    "error",
    [
        WebSocketAddressException("no such host"),
        WebSocketConnectException("network is unreachable"),
        WebSocketConnectionRefusedException("nothing listens"),
        WebSocketTLSException("no common version"),
        WebSocketCertificateException("expired"),
        WebSocketTimeoutException("timed out"),
        WebSocketProtocolException("reserved bit"),
        WebSocketPayloadException("not UTF-8"),
        WebSocketException("whatever else"),
        OSError("no buffer space"),
        TimeoutError(),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_the_network_and_the_peer_are_worth_another_attempt(error: BaseException) -> None:
    assert is_worth_retrying(error) is True


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        TypeError(),
        KeyError(),
        RuntimeError(),
        Exception(),
        KeyboardInterrupt(),
        SystemExit(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_mistakes_of_the_program_and_orders_to_stop_are_not(error: BaseException) -> None:
    assert is_worth_retrying(error) is False


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (WebSocketProxyException("no python-socks"), False),
        *((refusal(status), False) for status in (301, 400, 403, 404, 407)),
        *((refusal(status), True) for status in (429, 500, 502, 503, 504)),
        (WebSocketProxyConnectionException("refused"), True),
        (WebSocketProxyTimeoutException("silent"), True),
    ],
    ids=lambda value: f"{type(value).__name__} {value.status_code}" if isinstance(value, Exception) else "",
)
def test_a_proxy_is_asked_again_where_it_may_answer_otherwise(error: WebSocketProxyException, worth: bool) -> None:
    assert is_worth_retrying(error) is worth


@pytest.mark.parametrize(
    ("status", "worth"),
    [(200, True), (302, True), (399, True), (500, True), (502, True), (503, True), (599, True), (429, True)]
    + [(status, False) for status in (400, 401, 403, 404, 408, 426, 428, 430, 451, 499)],
)
def test_answers_of_4xx_but_429_are_not(status: int, worth: bool) -> None:
    assert is_worth_retrying(bad_status(status)) is worth


@pytest.mark.parametrize(
    ("kind", "code", "worth"),
    [
        (CLOSED, 1000, False),
        (CLOSED, None, False),
        (LOST, None, True),
        (LOST, 1000, False),
        *((kind, code, True) for kind in (CLOSED, LOST) for code in (1001, 1002, 1008, 1011, 1012, 1013, 3000, 4999)),
    ],
)
def test_a_close_is_worth_another_attempt_unless_it_is_a_normal_one(
    kind: type[WebSocketConnectionClosedException], code: int | None, worth: bool
) -> None:
    assert is_worth_retrying(closed(code, kind)) is worth
