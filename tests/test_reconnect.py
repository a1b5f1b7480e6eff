"""WebSocketApp that comes back: what is tried again and when, in which order it is told, and what it leaves behind."""

from __future__ import annotations

import gc
import logging
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import websocket
from websocket import (
    ABNF,
    Backoff,
    WebSocketApp,
    WebSocketBadStatusException,
    WebSocketCertificateException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
)
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, Interrupter, background, run_all, wait_until

Serve = Callable[..., Server]

SOON = 0.001  # seconds to the next attempt, where a test is not about the wait
NEVER = Backoff(first=3600, limit=3600, jitter=0)  # a wait that only close() and its like can end


class Diary(WebSocketApp):
    """An app that writes down its callbacks.

    events: "open", "reconnect", "message hi", "error ValueError", "close 1001 reason", as they came.  errors: what
    on_error was given.  moments: when (time.monotonic()) each event came.  idents: the thread of each.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.events: list[str] = []
        self.errors: list[Any] = []
        self.moments: list[float] = []
        self.idents: list[int] = []
        self._then: dict[str, Callable[[], Any]] = {}
        self._came = threading.Condition()
        callbacks: dict[str, Any] = {
            "on_open": lambda app: self._note("open"),
            "on_reconnect": lambda app: self._note("reconnect"),
            "on_message": lambda app, message: self._note(f"message {message}"),
            "on_error": self._note_error,
            "on_close": lambda app, code, reason: self._note(f"close {code} {reason}"),
        }
        super().__init__(url, **{**callbacks, **options})

    def then(self, event: str, act: Callable[[], Any]) -> Diary:
        """Do this in the callback of each event whose first word this is."""
        self._then[event] = act
        return self

    def _note_error(self, app: Any, error: BaseException) -> None:
        self.errors.append(error)
        self._note(f"error {type(error).__name__}")

    def _note(self, event: str) -> None:
        with self._came:
            self.moments.append(time.monotonic())
            self.idents.append(threading.get_ident())
            self.events.append(event)
            self._came.notify_all()
        act = self._then.get(event.split()[0])
        if act is not None:
            act()

    def count(self, word: str) -> int:
        """How many events begin with this word."""
        return sum(event.split()[0] == word for event in self.events)

    def wait_for(self, event: str, times: int = 1) -> None:
        """Wait until so many events begin with these words."""
        with self._came:
            assert self._came.wait_for(lambda: sum(e.startswith(event) for e in self.events) >= times, PATIENCE), (
                f"waited in vain for {event!r}, got {self.events}"
            )

    @property
    def gaps(self) -> list[float]:
        """Seconds between each event and the one before."""
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]


def waits(app: WebSocketApp) -> bool:
    """Whether the thread of run_forever() is in the wait between two attempts."""
    run: Any = app._run
    return run is not None and bool(run.changed._waiters)


class BeforeCallbacks(logging.Handler):
    """Does something in the thread that connects, each time between the handshake and the first callback."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__(logging.INFO)
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().endswith(" connected"):
            self._act()

    def __enter__(self) -> BeforeCallbacks:
        self._level = logging.getLogger("websocket").level
        logging.getLogger("websocket").setLevel(logging.INFO)
        logging.getLogger("websocket").addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger("websocket").removeHandler(self)
        logging.getLogger("websocket").setLevel(self._level)


class Script:
    """A handler that treats one connection after another as the next of these functions says, and the last of them
    all that follow. For a raw server."""

    def __init__(self, *handlers: Callable[[Peer], None]) -> None:
        self.count = 0
        self._handlers = handlers
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        with self._lock:
            handler = self._handlers[min(self.count, len(self._handlers) - 1)]
            self.count += 1
        handler(peer)


def accepting(handler: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """The handshake, then the handler, then the usual end."""

    def handle(peer: Peer) -> None:
        peer.read_request()
        peer.accept()
        handler(peer)
        peer.finish()

    return handle


def answering(status: str, *headers: str) -> Callable[[Peer], None]:
    """An answer to the opening handshake that is not the one hoped for."""

    def handle(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw("\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]).encode())

    return handle


def closing(code: int, reason: str = "") -> Callable[[Peer], None]:
    return accepting(lambda peer: peer.close(code, reason))


def without_code(peer: Peer) -> None:
    peer.send_frame(ABNF.OPCODE_CLOSE)
    peer._close_sent = True


vanishing = accepting(Peer.hang_up)


def resetting(peer: Peer) -> None:
    """A reset that does not destroy the handshake: the client has said that it stands."""
    peer.read_request()
    peer.accept()
    assert peer.recv() == "here I am"
    peer.reset()


class Port:
    """A port of the loopback address at which servers come and go, and that nobody else gets meanwhile."""

    def __init__(self) -> None:
        self._claim = self._bound(0)
        self.number: int = self._claim.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.number}/"

    def _bound(self, number: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", number))
        return sock

    def listen(self) -> socket.socket:
        listener = self._bound(self.number)
        listener.listen(128)
        listener.settimeout(PATIENCE)
        return listener

    def accept_one(self) -> Peer:
        """Bring a server up for one connection; it does not listen any more when this returns."""
        with self.listen() as listener:
            sock, address = listener.accept()
        sock.settimeout(PATIENCE)
        peer = Peer(None, sock, address)  # type: ignore[arg-type]
        peer.read_request()
        peer.accept()
        return peer

    def close(self) -> None:
        self._claim.close()


@pytest.fixture
def port() -> Iterator[Port]:
    result = Port()
    yield result
    result.close()


# ---- when ----


@pytest.mark.parametrize("way", ["reconnect", "set_reconnect", "setReconnect"])
def test_a_number_of_seconds_passes_before_each_attempt(serve: Serve, way: str) -> None:
    script = Script(answering("500 no"), answering("500 no"), closing(1012), answering("500 no"), closing(1000))
    app = Diary(serve(script, raw=True).url)
    if way == "reconnect":
        assert app.run_forever(reconnect=0.05) is False
    else:
        try:
            getattr(websocket, way)(0.05)
            assert app.run_forever() is False
        finally:
            websocket.set_reconnect(0)
    failed = "error WebSocketBadStatusException"
    assert app.events == [
        *(failed, failed, "open", "error WebSocketConnectionClosedException", "close 1012 "),
        *(failed, "reconnect", "close 1000 "),
    ]
    waits = [gap for event, gap in zip(app.events[1:], app.gaps, strict=True) if event in (failed, "open", "reconnect")]
    assert len(waits) == 4
    assert all(wait >= 0.05 for wait in waits)


def test_without_reconnect_there_is_one_attempt(serve: Serve) -> None:
    script = Script(answering("500 no"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever() is True
    assert app.run_forever(reconnect=0) is True
    assert script.count == 2
    assert app.events == ["error WebSocketBadStatusException", "close None None"] * 2


@pytest.mark.parametrize("value", [-1, "5", float("nan"), float("inf"), True])
def test_a_reconnect_that_makes_no_sense_is_refused(value: Any) -> None:
    app = Diary("ws://127.0.0.1:1/")
    with pytest.raises(ValueError, match="reconnect"):
        app.run_forever(reconnect=value)
    with pytest.raises(ValueError, match="reconnect"):
        websocket.set_reconnect(value)
    assert app.events == []


def test_backoff_waits_longer_each_time(serve: Serve) -> None:
    script = Script(*[answering("503 no")] * 3, closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=0.05, factor=2, limit=0.15, jitter=0)) is False
    assert app.events == ["error WebSocketBadStatusException"] * 3 + ["open", "close 1000 "]
    assert all(gap >= least for gap, least in zip(app.gaps, [0.05, 0.1, 0.15], strict=False)), app.gaps


def test_backoff_gives_up_after_its_attempts(serve: Serve) -> None:
    script = Script(answering("500 no"), answering("502 no"), answering("504 not yet"), answering("500 no"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=SOON, attempts=2)) is True
    assert [error.status_code for error in app.errors] == [500, 502, 504]
    assert app.events == ["error WebSocketBadStatusException"] * 3 + ["close None None"]
    assert script.count == 3
    assert app.has_errored


def test_backoff_that_gives_up_after_a_connection_closes_it_once(serve: Serve) -> None:
    app = Diary(serve(lambda peer: peer.close(1012)).url)
    assert app.run_forever(reconnect=Backoff(first=SOON, attempts=1)) is True
    failure = ["error WebSocketConnectionClosedException", "close 1012 "]
    assert app.events == ["open", *failure, "reconnect", *failure]


def test_giving_up_after_the_peer_went_away_names_the_cause(serve: Serve) -> None:
    """1001 is no error by itself; that nothing more is tried is one."""
    app = Diary(serve(lambda peer: peer.close(1001, "restart")).url)
    assert app.run_forever(reconnect=Backoff(first=SOON, attempts=1)) is True
    assert app.events[:3] == ["open", "close 1001 restart", "reconnect"]
    assert app.events[3:] == ["error WebSocketConnectionClosedException", "close 1001 restart"]
    assert (app.errors[0].code, app.errors[0].reason) == (1001, "restart")


def test_a_connection_that_has_held_begins_the_backoff_anew(serve: Serve) -> None:
    script = Script(*[closing(1012)] * 5, closing(1000))
    app = Diary(serve(script, raw=True).url)
    # Each connection has held for long enough, so that none is a second attempt.
    assert app.run_forever(reconnect=Backoff(first=SOON, attempts=1, reset_after=0)) is False
    assert app.count("reconnect") == 5


def test_backoff_gives_up_at_its_deadline(serve: Serve) -> None:
    script = Script(answering("500 no"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=0.02, factor=1, jitter=0, deadline=0.1)) is True
    assert 2 <= script.count <= 6
    assert app.events == ["error WebSocketBadStatusException"] * script.count + ["close None None"]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_backoff_heeds_retry_after(serve: Serve, status: str) -> None:
    """An hour is more than the deadline leaves, so that giving up at once shows that it was heeded."""
    app = Diary(serve(Script(answering(status, "Retry-After: 3600"), echo), raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=SOON, deadline=60)) is True
    assert app.events == ["error WebSocketBadStatusException", "close None None"]


def test_backoff_waits_as_long_as_retry_after_asks(serve: Serve) -> None:
    app = Diary(serve(Script(answering("503 no", "Retry-After: 1"), closing(1000)), raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=SOON)) is False
    assert app.events == ["error WebSocketBadStatusException", "open", "close 1000 "]
    assert app.gaps[0] >= 1


def test_retry_after_is_for_backoff_and_for_503_and_429(serve: Serve) -> None:
    script = Script(answering("500 no", "Retry-After: 3600"), closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=Backoff(first=SOON, deadline=60)) is False
    script = Script(answering("503 no", "Retry-After: 3600"), closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is False


# ---- what ----

GOOD = ["reconnect", "close 1000 bye"]

# How a connection that stands may end, and what is told of it before the reconnect.
ENDS: dict[str, tuple[Callable[[Peer], None], list[str], type[BaseException] | None]] = {
    "1001": (closing(1001, "moving"), ["close 1001 moving"], None),
    "1011": (
        closing(1011, "oops"),
        ["error WebSocketConnectionClosedException", "close 1011 oops"],
        WebSocketConnectionClosedException,
    ),
    "1012": (
        closing(1012),
        ["error WebSocketConnectionClosedException", "close 1012 "],
        WebSocketConnectionClosedException,
    ),
    "4000": (
        closing(4000, "ours"),
        ["error WebSocketConnectionClosedException", "close 4000 ours"],
        WebSocketConnectionClosedException,
    ),
    "reset": (resetting, ["error WebSocketConnectionLostException", "close None None"], ConnectionResetError),
    "vanished": (
        vanishing,
        ["error WebSocketConnectionLostException", "close None None"],
        WebSocketConnectionLostException,
    ),
    "half closed": (
        accepting(lambda peer: (peer.half_close(), peer.recv(), peer.hang_up())[-1]),
        ["error WebSocketConnectionLostException", "close None None"],
        WebSocketConnectionLostException,
    ),
    "bad UTF-8": (
        accepting(lambda peer: (peer.send_frame(ABNF.OPCODE_TEXT, b"\xff"), peer.recv(), peer.hang_up())[-1]),
        ["error WebSocketPayloadException", "close None None"],
        WebSocketPayloadException,
    ),
    "bad frame": (
        accepting(lambda peer: (peer.send_raw(b"\x83\x00"), peer.recv(), peer.hang_up())[-1]),
        ["error WebSocketProtocolException", "close None None"],
        WebSocketProtocolException,
    ),
    "too large": (
        accepting(lambda peer: (peer.send(bytes(2000)), peer.recv(), peer.hang_up())[-1]),
        ["error WebSocketPayloadException", "close None None"],
        WebSocketPayloadException,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_abnormal_end_is_told_and_followed_by_a_reconnect(serve: Serve, end: str) -> None:
    handler, told, kind = ENDS[end]
    script = Script(handler, handler, closing(1000, "bye"))
    app = Diary(serve(script, raw=True).url)
    if end == "reset":
        app.then("open", lambda: app.send("here I am"))
        app.then("reconnect", lambda: app.send("here I am") if script.count < 3 else None)
    assert app.run_forever(reconnect=SOON, max_message_size=1000) is False
    assert app.events == ["open", *told, "reconnect", *told, *GOOD]
    assert [isinstance(error, kind) for error in app.errors if kind is not None] == [True] * len(app.errors)
    assert script.count == 3
    assert not app.has_errored


@pytest.mark.parametrize("end", ENDS)
def test_an_abnormal_end_without_reconnect_ends_the_run(serve: Serve, end: str) -> None:
    handler, told, kind = ENDS[end]
    app = Diary(serve(handler, raw=True).url)
    if end == "reset":
        app.then("open", lambda: app.send("here I am"))
    assert app.run_forever(max_message_size=1000) is (kind is not None)
    assert app.events == ["open", *told]
    assert app.has_errored is (kind is not None)


@pytest.mark.parametrize(
    ("end", "told"),
    [(closing(1000, "done"), "close 1000 done"), (accepting(without_code), "close None None")],
    ids=["1000", "no code"],
)
def test_a_normal_close_of_the_peer_is_not_followed_by_an_attempt(
    serve: Serve, end: Callable[[Peer], None], told: str
) -> None:
    script = Script(end)
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is False
    assert app.events == ["open", told]
    assert script.count == 1


def test_a_peer_that_answers_no_pings_is_told_and_tried_again(serve: Serve) -> None:
    """The timers of one connection do not touch the next, however many have timed out."""

    def silent(peer: Peer) -> None:
        peer.answer_pings = False
        peer.recv()

    script = Script(*[accepting(silent)] * 3, closing(1000, "bye"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON, ping_interval=0.05, ping_timeout=0.04) is False
    told = ["error WebSocketTimeoutException", "close None None"]
    assert app.events == ["open", *told, "reconnect", *told, "reconnect", *told, *GOOD]
    assert [str(error) for error in app.errors] == ["ping/pong timed out"] * 3


def test_after_a_ping_timeout_the_next_connection_lives(serve: Serve) -> None:
    def silent(peer: Peer) -> None:
        peer.answer_pings = False
        peer.recv()

    def answered(peer: Peer) -> None:
        """Answers until its pongs have been seen for several intervals."""
        while app.pongs < 3:
            assert peer._receive()
        peer.close(1000, "bye")

    class Counting(Diary):
        pongs = 0

    app = Counting(serve(Script(accepting(silent), accepting(answered)), raw=True).url)

    def on_pong(_: Any, __: Any) -> None:
        app.pongs += 1

    app.on_pong = on_pong
    assert app.run_forever(reconnect=SOON, ping_interval=0.3, ping_timeout=0.29) is False
    assert app.events == ["open", "error WebSocketTimeoutException", "close None None", *GOOD]
    assert app.pongs >= 3


def test_a_refused_connection_is_tried_until_a_server_is_there(port: Port) -> None:
    app = Diary(port.url)
    running = background(lambda: app.run_forever(reconnect=SOON))
    app.wait_for("error", times=5)
    peer = port.accept_one()
    peer.close(1000, "bye")
    peer.finish()
    peer.sock.close()
    assert running() is False
    assert app.events == ["error WebSocketConnectionRefusedException"] * len(app.errors) + ["open", "close 1000 bye"]
    assert all(isinstance(error, WebSocketConnectionRefusedException) for error in app.errors)


@pytest.mark.parametrize("status", [300, 304, 408, 429, 500, 502, 503, 504])
def test_answers_that_may_pass_are_tried_again(serve: Serve, status: int) -> None:
    again = status == 429 or not 400 <= status <= 499
    script = Script(answering(f"{status} no"), closing(1000, "bye"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is not again
    error = "error WebSocketBadStatusException"
    assert app.events == [error, *(["open", "close 1000 bye"] if again else ["close None None"])]
    assert app.errors[0].status_code == status


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 426])
def test_answers_that_stay_end_the_run(serve: Serve, status: int) -> None:
    script = Script(answering(f"{status} no"), closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is True
    assert app.events == ["error WebSocketBadStatusException", "close None None"]
    assert script.count == 1


def test_an_answer_that_stays_ends_a_run_whose_connections_have_stood(serve: Serve) -> None:
    app = Diary(serve(Script(closing(1012), answering("403 no")), raw=True).url)
    assert app.run_forever(reconnect=SOON) is True
    assert app.events == [
        *("open", "error WebSocketConnectionClosedException", "close 1012 "),
        *("error WebSocketBadStatusException", "close None None"),
    ]


def test_a_mistake_in_the_headers_ends_the_run(serve: Serve) -> None:
    def header() -> list[str]:
        raise ValueError("no token")

    script = Script(closing(1000))
    url = serve(script, raw=True).url
    for given, text in ((header, "no token"), (["Name: a\r\nInjected: b"], "must not be in a request")):
        app = Diary(url, header=given)
        assert app.run_forever(reconnect=SOON) is True
        assert app.events == ["error ValueError", "close None None"]
        with pytest.raises(ValueError, match=text):
            raise app.errors[0]
    assert script.count == 0


def test_retry_is_asked_with_the_exception_and_decides(serve: Serve) -> None:
    script = Script(answering("403 no"), closing(1000), closing(1012), answering("500 no"), closing(1000))
    app = Diary(serve(script, raw=True).url)
    asked: list[Any] = []

    def retry(error: BaseException) -> bool:
        asked.append(error)
        return len(asked) < 4

    assert app.run_forever(reconnect=SOON, retry=retry) is True
    assert [getattr(error, "status_code", error.code) for error in asked] == [403, 1000, 1012, 500]
    assert script.count == 4
    assert app.events == [
        "error WebSocketBadStatusException",
        *("open", "close 1000 "),
        *("reconnect", "error WebSocketConnectionClosedException", "close 1012 "),
        *("error WebSocketBadStatusException", "close None None"),
    ]


def test_retry_is_not_asked_where_the_program_ends_it(serve: Serve) -> None:
    app = Diary(serve().url)
    app.then("open", lambda: app.close())
    asked: list[Any] = []
    assert app.run_forever(reconnect=SOON, retry=lambda error: asked.append(error) or True) is False
    assert asked == []


def test_a_retry_that_raises_is_told_and_ends_the_run(serve: Serve) -> None:
    app = Diary(serve(Script(answering("500 no")), raw=True).url)
    assert app.run_forever(reconnect=SOON, retry=lambda error: {}[error]) is True
    assert app.events == ["error WebSocketBadStatusException", "error KeyError", "close None None"]
    with pytest.raises(TypeError, match="retry"):
        app.run_forever(retry=5)  # type: ignore[arg-type]


# ---- the order ----


def test_on_open_is_for_the_first_connection_and_on_reconnect_for_those_after(serve: Serve) -> None:
    script = Script(answering("500 no"), *[closing(1001)] * 3, closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is False
    assert app.events == [
        *("error WebSocketBadStatusException", "open", "close 1001 "),
        *["reconnect", "close 1001 "] * 2,
        *("reconnect", "close 1000 "),
    ]


def test_on_open_comes_each_time_where_on_reconnect_is_not_given(serve: Serve) -> None:
    app = Diary(serve(Script(*[closing(1001)] * 2, closing(1000)), raw=True).url, on_reconnect=None)
    assert app.run_forever(reconnect=SOON) is False
    assert app.events == ["open", "close 1001 ", "open", "close 1001 ", "open", "close 1000 "]


def test_a_second_run_begins_with_on_open_again(serve: Serve) -> None:
    app = Diary(serve(Script(closing(1001), closing(1000), closing(1001), closing(1000)), raw=True).url)
    for _ in range(2):
        app.events.clear()
        assert app.run_forever(reconnect=SOON) is False
        assert app.events == ["open", "close 1001 ", "reconnect", "close 1000 "]


def test_each_kind_of_event_comes_in_the_documented_order(serve: Serve) -> None:
    def with_messages(code: int) -> Callable[[Peer], None]:
        return accepting(lambda peer: (peer.send("one", "two"), peer.close(code))[-1])

    script = Script(
        *(answering("500 no"), with_messages(1012), answering("500 no"), answering("500 no"), with_messages(1001)),
        *(accepting(lambda peer: (peer.send("last"), peer.hang_up())[-1]), with_messages(1000)),
    )
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is False
    failed, lost = "error WebSocketBadStatusException", "error WebSocketConnectionLostException"
    assert app.events == [
        failed,
        *("open", "message one", "message two", "error WebSocketConnectionClosedException", "close 1012 "),
        failed,
        failed,
        *("reconnect", "message one", "message two", "close 1001 "),
        *("reconnect", "message last", lost, "close None None"),
        *("reconnect", "message one", "message two", "close 1000 "),
    ]


@pytest.mark.parametrize("end", ["1012", "1000"])
def test_what_comes_with_the_handshakes_answer_is_told_in_order(serve: Serve, end: str) -> None:
    """The answer, messages and the close frame in one packet, which is read before there are callbacks."""

    def at_once(peer: Peer) -> None:
        peer.read_request()
        written: list[bytes] = []
        peer.send_raw = written.append  # type: ignore[method-assign]
        peer.accept()
        peer.send("one", "two")
        peer.close(int(end), "bye")
        peer.sock.sendall(b"".join(written))
        peer.finish()

    script = Script(at_once, at_once, closing(1000))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON) is False
    messages = ["message one", "message two"]
    if end == "1000":
        assert app.events == ["open", *messages, "close 1000 bye"]
    else:
        told = [*messages, "error WebSocketConnectionClosedException", "close 1012 bye"]
        assert app.events == ["open", *told, "reconnect", *told, "reconnect", "close 1000 "]


@pytest.mark.parametrize("act", ["close", "sock.close", "sock.shutdown"])
@pytest.mark.parametrize("connection", [1, 2])
def test_close_between_the_handshake_and_the_first_callback_ends_the_run(
    serve: Serve, act: str, connection: int
) -> None:
    script = Script(*[closing(1012)] * (connection - 1), accepting(echo))
    app = Diary(serve(script, raw=True).url)

    def end() -> None:
        if script.count == connection:
            (app.close if act == "close" else getattr(app.sock, act.removeprefix("sock.")))()

    with BeforeCallbacks(end):
        assert app.run_forever(reconnect=SOON) is False
    before = ["open", "error WebSocketConnectionClosedException", "close 1012 "][: 3 * (connection - 1)]
    assert app.events in ([*before, "close None None"], [*before, "open", "close 1000 "])
    assert app.count("close") == connection
    assert script.count == connection
    assert app.sock is None


def test_callbacks_come_on_the_connections_threads_and_where_there_is_none_on_run_forevers(serve: Serve) -> None:
    app = Diary(serve(Script(answering("500 no"), closing(1001), closing(1000)), raw=True).url)
    app.run_forever(reconnect=SOON)
    assert app.events == ["error WebSocketBadStatusException", "open", "close 1001 ", "reconnect", "close 1000 "]
    here, first, first_again, second, second_again = app.idents
    assert here == threading.get_ident()
    assert first == first_again != here
    assert second == second_again != here


def test_app_sock_is_none_between_connections(serve: Serve) -> None:
    app = Diary(serve(Script(closing(1001), answering("500 no"), closing(1000)), raw=True).url)
    seen: list[Any] = []

    def look() -> None:
        seen.append(app.sock)
        assert not app.ready()
        with pytest.raises(WebSocketConnectionClosedException, match="already closed"):
            app.send("to nobody")

    app.then("close", look)
    app.run_forever(reconnect=SOON)
    assert seen == [None, None]
    assert app.sock is None
    assert app.events == ["open", "close 1001 ", "error WebSocketBadStatusException", "reconnect", "close 1000 "]


def test_what_is_unsent_at_each_end_is_in_the_error_of_that_end(serve: Serve) -> None:
    filled = threading.Event()

    def ignore(peer: Peer) -> None:
        """Reads nothing, so that messages wait, and ends with a code that alone is no error."""
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert filled.wait(PATIENCE)
        filled.clear()
        peer.reset()

    app = Diary(serve(Script(accepting(ignore), accepting(ignore), closing(1000)), raw=True).url)
    number = iter(range(1, 1000))

    def fill() -> None:
        first = next(number)
        for _ in range(30):
            app.send(f"{first} {'x' * 500_000}")
        filled.set()

    app.then("open", fill).then("reconnect", lambda: fill() if app.count("reconnect") == 1 else None)
    assert app.run_forever(reconnect=SOON) is False
    assert [error.unsent[-1][:2] for error in app.errors] == ["1 ", "2 "]
    assert all(message[:2] == f"{n} " for n, error in enumerate(app.errors, 1) for message in error.unsent)
    lost = ["error WebSocketConnectionLostException", "close None None"]
    assert app.events == ["open", *lost, "reconnect", *lost, "reconnect", "close 1000 "]


# ---- the program's end ----


@pytest.mark.parametrize("act", ["close", "keep_running"])
@pytest.mark.parametrize("last", ["failed", "lost"])
def test_the_wait_ends_at_once_when_another_thread_says_so(serve: Serve, act: str, last: str) -> None:
    script = Script(answering("500 no") if last == "failed" else vanishing)
    app = Diary(serve(script, raw=True).url)
    running = background(lambda: app.run_forever(reconnect=NEVER))
    app.wait_for("error" if last == "failed" else "close")
    wait_until(lambda: waits(app), "the run waits for its next attempt")
    if act == "close":
        app.close()
    else:
        app.keep_running = False
    assert running() is False
    first = [] if last == "failed" else ["open"]
    error = f"error WebSocket{'BadStatus' if last == 'failed' else 'ConnectionLost'}Exception"
    closed = ["close None None"] if last == "failed" else ["close None None", "close None None"]
    assert app.events == [*first, error, *closed]
    assert script.count == 1


def talking(peer: Peer) -> None:
    peer.send("hi", "hi")
    peer.close(1012)


@pytest.mark.parametrize("act", ["close", "keep_running"])
@pytest.mark.parametrize(
    ("event", "before"),
    [
        ("open", ["open"]),
        ("message", ["open", "message hi"]),
        ("error", ["open", "message hi", "message hi", "error WebSocketConnectionClosedException"]),
        ("close", ["open", "message hi", "message hi", "error WebSocketConnectionClosedException"]),
    ],
)
def test_what_a_callback_ends_is_not_tried_again(serve: Serve, act: str, event: str, before: list[str]) -> None:
    script = Script(accepting(talking))
    app = Diary(serve(script, raw=True).url)

    def end() -> None:
        if act == "close":
            app.close()
        else:
            app.keep_running = False

    app.then(event, end)
    assert app.run_forever(reconnect=SOON) is False
    assert app.events[:-1] == before
    assert app.events[-1].startswith("close ")
    assert script.count == 1


@pytest.mark.parametrize("act", ["close", "shutdown", "abort", "send_close"])
@pytest.mark.parametrize("event", ["open", "message"])
def test_what_a_callback_ends_by_the_socket_is_not_tried_again(serve: Serve, act: str, event: str) -> None:
    def greet(peer: Peer) -> None:
        peer.send("hi")
        peer.recv()

    script = Script(accepting(greet))
    app = Diary(serve(script, raw=True).url)
    app.then(event, lambda: getattr(app.sock, act)())
    assert app.run_forever(reconnect=SOON) is False
    assert app.events[0] == "open"
    assert app.events[-1].startswith("close ")
    assert app.count("close") == 1
    assert app.count("error") == 0
    assert script.count == 1


@pytest.mark.parametrize("act", ["close", "shutdown", "abort"])
def test_what_another_thread_ends_by_the_socket_is_not_tried_again(serve: Serve, act: str) -> None:
    script = Script(accepting(Peer.recv))
    app = Diary(serve(script, raw=True).url)
    running = background(lambda: app.run_forever(reconnect=SOON))
    app.wait_for("open")
    getattr(app.sock, act)()
    assert running() is False
    assert app.events == ["open", "close 1000 " if act == "close" else "close None None"]
    assert script.count == 1


def test_a_failed_attempt_in_whose_on_error_the_program_closes_is_the_last(serve: Serve) -> None:
    script = Script(answering("500 no"))
    app = Diary(serve(script, raw=True).url)
    app.then("error", app.close)
    assert app.run_forever(reconnect=NEVER) is False
    assert app.events == ["error WebSocketBadStatusException", "close None None"]


@pytest.mark.parametrize("stage", ["request", "first answer"])
def test_close_ends_an_attempt_that_is_under_way(serve: Serve, stage: str) -> None:
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        if stage == "first answer":
            peer.read_request()
            peer.send_raw(b"HTTP/1.1 101 Switching")
        asked.set()
        peer.stall()

    script = Script(closing(1012), silent)
    app = Diary(serve(script, raw=True).url)
    running = background(lambda: app.run_forever(reconnect=SOON))
    assert asked.wait(PATIENCE)
    app.close()
    assert running() is False
    assert app.events == ["open", "error WebSocketConnectionClosedException", "close 1012 ", "close None None"]
    assert script.count == 2


def test_an_attempt_that_is_ended_by_its_socket_is_the_last(serve: Serve) -> None:
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        asked.set()
        peer.stall()

    script = Script(closing(1012), silent)
    app = Diary(serve(script, raw=True).url)
    running = background(lambda: app.run_forever(reconnect=SOON))
    assert asked.wait(PATIENCE)
    assert app.sock is not None
    app.sock.close()
    running()
    assert app.events[-1] == "close None None"
    assert script.count == 2


def test_ctrl_c_ends_the_wait_at_once(serve: Serve, interrupting: Callable[..., Interrupter]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupter = interrupting(interrupt)
    script = Script(vanishing)
    app = Diary(serve(script, raw=True).url)

    def deliver() -> None:
        wait_until(lambda: waits(app), "the run waits for its next attempt")
        interrupter.deliver()

    delivered = background(deliver)
    assert app.run_forever(reconnect=NEVER) is False
    delivered()
    assert app.events == ["open", "error WebSocketConnectionLostException", "close None None", "close None None"]
    assert script.count == 1


def test_ctrl_c_ends_an_attempt_at_once(serve: Serve, interrupting: Callable[..., Interrupter]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupter = interrupting(interrupt)
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        asked.set()
        peer.stall()

    app = Diary(serve(Script(closing(1012), silent), raw=True).url)
    delivered = background(lambda: (asked.wait(PATIENCE), interrupter.deliver()))
    assert app.run_forever(reconnect=SOON) is False
    delivered()
    assert app.events == ["open", "error WebSocketConnectionClosedException", "close 1012 ", "close None None"]


def leave() -> None:
    raise SystemExit(7)


@pytest.mark.parametrize(
    ("event", "script", "told"),
    [
        ("error", Script(answering("500 no")), ["error WebSocketBadStatusException", "close None None"]),
        ("error", Script(vanishing), ["open", "error WebSocketConnectionLostException", "close None None"]),
        ("close", Script(closing(1001)), ["open", "close 1001 "]),
        ("reconnect", Script(closing(1001), accepting(echo)), ["open", "close 1001 ", "reconnect", "close 1000 "]),
    ],
)
def test_system_exit_ends_the_reconnects(serve: Serve, event: str, script: Script, told: list[str]) -> None:
    app = Diary(serve(script, raw=True).url)
    app.then(event, leave)
    with pytest.raises(SystemExit) as exit:
        app.run_forever(reconnect=SOON)
    assert exit.value.code == 7
    assert app.events == told
    assert not app.keep_running


def test_an_exception_of_a_callback_does_not_end_the_reconnects(serve: Serve) -> None:
    app = Diary(serve(Script(closing(1001), closing(1012), closing(1000)), raw=True).url)

    def fail() -> None:
        raise ZeroDivisionError

    app.then("close", fail).then("reconnect", fail)
    assert app.run_forever(reconnect=SOON) is False
    assert app.events == [
        *("open", "close 1001 ", "error ZeroDivisionError"),
        *("reconnect", "error ZeroDivisionError", "error WebSocketConnectionClosedException", "close 1012 "),
        "error ZeroDivisionError",
        *("reconnect", "error ZeroDivisionError", "close 1000 ", "error ZeroDivisionError"),
    ]


def test_start_returns_once_a_connection_stands_after_failed_attempts(serve: Serve) -> None:
    app = Diary(serve(Script(answering("500 no"), answering("502 no"), accepting(echo)), raw=True).url)
    with app.start(reconnect=SOON):
        assert app.ready()
        assert app.events == ["error WebSocketBadStatusException"] * 2 + ["open"]
    assert app.events[3:] == ["close 1000 "]


def test_start_raises_the_last_cause_where_it_gives_up(serve: Serve) -> None:
    app = Diary(serve(Script(answering("500 no"), answering("403 no")), raw=True).url)
    with pytest.raises(WebSocketBadStatusException, match="403"):
        app.start(reconnect=SOON)
    assert app.join() is True


# ---- each attempt ----


def test_a_header_function_is_asked_for_each_attempt(serve: Serve) -> None:
    seen: list[str] = []

    def keeping(handler: Callable[[Peer], None]) -> Callable[[Peer], None]:
        def handle(peer: Peer) -> None:
            peer.read_request()
            seen.append(peer.headers["x-attempt"])
            handler(peer)

        return handle

    def refuse(peer: Peer) -> None:
        peer.send_raw(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n")

    def close(code: int) -> Callable[[Peer], None]:
        return lambda peer: (peer.accept(), peer.close(code), peer.finish())[-1]

    asked = iter(range(1, 100))
    script = Script(keeping(refuse), keeping(close(1012)), keeping(close(1001)), keeping(close(1000)))
    app = Diary(serve(script, raw=True).url, header=lambda: {"X-Attempt": str(next(asked))})
    assert app.run_forever(reconnect=SOON) is False
    assert seen == ["1", "2", "3", "4"]
    assert next(asked) == 5


def test_a_given_socket_is_for_the_first_attempt_only(serve: Serve) -> None:
    server = serve(Script(closing(1001), closing(1000)), raw=True)
    app = Diary(server.url, socket=socket.create_connection(("127.0.0.1", server.port)))
    assert app.run_forever(reconnect=SOON) is False
    assert app.events == ["open", "close 1001 ", "reconnect", "close 1000 "]


def test_a_server_that_never_answers_is_given_up_and_tried_again(serve: Serve) -> None:
    script = Script(Peer.stall, closing(1001), Peer.stall, closing(1000, "bye"))
    app = Diary(serve(script, raw=True).url)
    assert app.run_forever(reconnect=SOON, timeout=0.2) is False
    failed = "error WebSocketTimeoutException"
    assert app.events == [failed, "open", "close 1001 ", failed, *GOOD]


def test_a_certificate_that_changes_is_verified_anew_each_time(serve: Serve, authority: Authority) -> None:
    def secured(context: Any, handler: Callable[[Peer], None]) -> Callable[[Peer], None]:
        def handle(peer: Peer) -> None:
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
            handler(peer)

        return handle

    good, expired = authority.server_context(), authority.server_context(expired=True)
    renewed, other_host = authority.server_context(), authority.server_context("example.org")
    script = Script(
        *(secured(good, closing(1001)), secured(expired, closing(1001)), secured(other_host, closing(1001))),
        *(secured(renewed, closing(1012)), secured(good, closing(1000, "bye"))),
    )
    server = serve(script, raw=True)
    app = Diary(server.url.replace("ws:", "wss:"))
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": authority.ca_file}) is False
    refused = "error WebSocketCertificateException"
    assert app.events == [
        *("open", "close 1001 ", refused, refused),
        *("reconnect", "error WebSocketConnectionClosedException", "close 1012 ", *GOOD),
    ]
    assert "expired" in str(app.errors[0])
    assert isinstance(app.errors[1], WebSocketCertificateException)


# ---- many ----


def package_objects() -> Counter[str]:
    """What of the package is alive, by class; the test's server is not counted."""
    gc.collect()
    modules = [(type(thing).__module__, type(thing).__name__) for thing in gc.get_objects()]
    return Counter(
        f"{module}.{name}"
        for module, name in modules
        if module.startswith("websocket.") and not module.startswith("websocket.testing")
    )


@pytest.mark.parametrize("way", ["1012", "lost", "refused"])
def test_a_thousand_reconnects_leave_the_stack_the_threads_and_the_memory_flat(port: Port, way: str) -> None:
    reconnects = 1000
    ends = 0
    depths: set[tuple[str, int]] = set()
    threads: list[int] = []
    alive: list[Counter[str]] = []

    def serve() -> None:
        with port.listen() as listener:
            for _ in range(reconnects):
                sock, address = listener.accept()
                with sock:
                    sock.settimeout(PATIENCE)
                    peer = Peer(None, sock, address)  # type: ignore[arg-type]
                    peer.read_request()
                    peer.accept()
                    if way == "1012":
                        peer.close(1012)
                        peer.finish()

    def measure(kind: str) -> None:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        depths.add((kind, depth))

    def on_end(app: WebSocketApp) -> None:
        nonlocal ends
        ends += 1
        measure("end")
        threads.append(sum(thread.name.startswith("websocket-") for thread in threading.enumerate()))
        if ends in (reconnects // 2, reconnects):
            alive.append(package_objects())
        if ends == reconnects:
            app.close()

    serving = background(serve) if way != "refused" else None
    app = WebSocketApp(
        port.url,
        on_open=lambda app: measure("open"),
        on_reconnect=lambda app: measure("open"),
        on_error=(lambda app, error: on_end(app)) if way == "refused" else None,
        on_close=(lambda app, code, reason: on_end(app)) if way != "refused" else None,
    )
    assert app.run_forever(reconnect=1e-6) is False
    if serving is not None:
        serving()
    assert ends == reconnects
    kinds = {kind for kind, _ in depths}
    assert len(depths) == len(kinds), "the stack has another depth"
    # In a callback of the end: the connection's reader, no other.
    assert max(threads) <= 1
    growth = {kind: (alive[0][kind], count) for kind, count in alive[1].items() if count > alive[0][kind] + 20}
    assert growth == {}, "as many more as there were connections"


def test_no_message_is_lost_or_doubled_over_twenty_restarts(port: Port) -> None:
    """The server goes down with a clean close, and another one goes on counting at the same port."""
    sent: list[str] = []
    amounts = random.Random(7)

    def restart() -> None:
        for restart in range(21):
            peer = port.accept_one()
            batch = [str(number) for number in range(len(sent), len(sent) + amounts.randrange(1, 3000))]
            for start in range(0, len(batch), 100):
                peer.send(*batch[start : start + 100])
            sent.extend(batch)
            peer.close(*((1012, "restart") if restart < 20 else (1000, "bye")))
            peer.finish()
            peer.sock.close()

    serving = background(restart)
    app = Diary(port.url)
    assert app.run_forever(reconnect=SOON) is False
    serving()
    assert [event[8:] for event in app.events if event.startswith("message ")] == sent
    others = [event for event in app.events if not event.startswith("message ") and "Refused" not in event]
    lost = ["error WebSocketConnectionClosedException", "close 1012 restart"]
    assert others == [*("open", *lost), *("reconnect", *lost) * 19, "reconnect", "close 1000 bye"]


class Restarting:
    """An echo server that ends one connection after another in the ways given, after some messages.

    received, echoed: for each connection, what it has read, and what it has sent back before its end.
    """

    def __init__(self, port: Port, ways: list[str], chance: random.Random) -> None:
        self.received: list[list[str]] = []
        self.echoed: list[list[str]] = []
        self._port = port
        self._ways = ways
        self._amounts = [chance.randrange(1, 400) for _ in ways]

    def run(self) -> None:
        for way, amount in zip(self._ways, self._amounts, strict=True):
            received: list[str] = []
            echoed: list[str] = []
            self.received.append(received)
            self.echoed.append(echoed)
            peer = self._port.accept_one()
            with peer.sock:
                while len(received) < amount and (batch := peer.recv_batch()):
                    received += batch  # type: ignore[arg-type]
                    peer.send(*batch)
                    echoed += batch  # type: ignore[arg-type]
                if way == "reset":
                    peer.reset()
                    continue
                if way == "1012":
                    peer.close(1012)
                elif way == "half close":
                    peer.half_close()
                # All that the client has written comes before the end of its side.
                while batch := peer.recv_batch():
                    received += batch  # type: ignore[arg-type]
                    if way == "client closes":
                        peer.send(*batch)
                        echoed += batch  # type: ignore[arg-type]
                if peer.close_frame is not None:
                    if way == "client closes":
                        peer.close()
                    if way != "half close":
                        peer.half_close()
                    while peer.sock.recv(65536):
                        raise AssertionError("something came after the close frame")


@pytest.mark.parametrize("ways", ["1012", "half close", "all"])
def test_each_message_of_eight_threads_is_accounted_for_over_restarts(port: Port, ways: str) -> None:
    """Received by the server, or in the `unsent` of an error, or refused to its sender; where the server resets, lost
    in the kernels between what it has received and what is unsent; never two of these."""
    chance = random.Random(11)
    restarts = 30
    chosen = [chance.choice(["1012", "half close", "reset"]) if ways == "all" else ways for _ in range(restarts)]
    server = Restarting(port, [*chosen, "client closes"], chance)
    serving = background(server.run)
    app = Diary(port.url)
    ends: list[WebSocketException | None] = []  # for each connection what on_error was given
    failure: list[WebSocketException] = []
    app.then("error", lambda: None if "Refused" in app.events[-1] else failure.append(app.errors[-1]))
    app.then("close", lambda: (ends.append(failure[-1] if failure else None), failure.clear()))
    on_the_last = threading.Event()
    app.then("reconnect", lambda: on_the_last.set() if len(ends) == restarts else None)
    running = background(lambda: app.run_forever(reconnect=SOON, max_outbox_messages=200))
    accepted: list[list[str]] = [[] for _ in range(8)]
    refused: list[list[str]] = [[] for _ in range(8)]

    def send(sender: int) -> None:
        number = 0
        sent_on_the_last = 0
        while sent_on_the_last < 50:
            last = on_the_last.is_set()
            message = f"{sender} {number}"
            number += 1
            try:
                app.send(message)
            except WebSocketConnectionClosedException:
                refused[sender].append(message)
                wait_until(lambda: app.ready(), "a connection stands again")
            else:
                accepted[sender].append(message)
                sent_on_the_last += last

    app.wait_for("open")
    run_all(*[lambda sender=sender: send(sender) for sender in range(8)])
    app.close()
    assert running() is False
    serving()

    assert len(server.received) == len(ends) == restarts + 1
    # Where each message has gone: to the server on connection n (n, 0), or unsent at its end (n, 1).
    places: dict[str, tuple[int, int]] = {}
    for connection, error in enumerate(ends):
        unsent = [] if error is None else list(error.unsent)
        for place, messages in (((connection, 0), server.received[connection]), ((connection, 1), unsent)):
            for message in messages:
                assert message not in places, f"{message} is at {places[message]} and {place}"
                places[message] = place
    assert places.keys() <= {message for messages in accepted for message in messages}
    resets = [connection for connection, way in enumerate(chosen) if way == "reset"]
    for messages in accepted:
        # In the order in which its thread has sent them: connection after connection, received before unsent.
        known = [places[message] for message in messages if message in places]
        assert known == sorted(known)
        # What is nowhere went into a connection that was reset, behind what the server received of it.
        before, lost = (0, 0), ""
        for message in [*messages, "the end"]:
            place = places.get(message) if message != "the end" else (restarts + 1, 0)
            if place is None:
                lost = lost or message
            else:
                if lost:
                    may_be = any(before <= (reset, 0) and (reset, 1) <= place for reset in resets)
                    assert may_be, f"{lost} was lost between {before} and {place}, where nothing was reset"
                before, lost = place, ""
    if not resets:
        assert len(places) == sum(len(messages) for messages in accepted)
    echoes = [event[8:] for event in app.events if event.startswith("message ")]
    assert len(set(echoes)) == len(echoes)
    for connection, way in enumerate([*chosen, "client closes"]):
        mine = set(server.echoed[connection])
        back = [message for message in echoes if message in mine]
        assert back == server.echoed[connection][: len(back)]
        if way in ("1012", "half close"):
            assert len(back) == len(mine)


def test_twenty_apps_that_reconnect_are_all_closed_from_one_thread(serve: Serve) -> None:
    url = serve(Script(vanishing), raw=True).url
    apps = [Diary(url) for _ in range(20)]
    runs = [background(lambda app=app: app.run_forever(reconnect=0.01)) for app in apps]
    for app in apps:
        app.wait_for("reconnect", times=3)
    for app in apps:
        app.close()
    assert [run() for run in runs] == [False] * 20
    for app in apps:
        opened = app.count("open") + app.count("reconnect")
        assert opened <= app.count("close") <= opened + 1
        assert app.events[-1].startswith("close ")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")] == []


@pytest.mark.parametrize("end", ["reset", "hang_up"])
def test_a_server_that_ends_the_connection_within_the_handshake_is_tried_again(serve: Serve, end: str) -> None:
    def drop(peer: Peer) -> None:
        peer.read_request()
        getattr(peer, end)()

    errors: list[BaseException] = []

    def on_error(app: websocket.WebSocketApp, error: BaseException) -> None:
        errors.append(error)
        if len(errors) == 3:
            app.close()

    websocket.WebSocketApp(serve(drop, raw=True).url, on_error=on_error).run_forever(reconnect=0.001)
    assert [type(error) for error in errors] == [websocket.WebSocketConnectionLostException] * 3
