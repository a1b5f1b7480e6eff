"""Keepalive: pings, latency, and the verdict on a peer that is gone, and on nobody else."""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import websocket.threads.callback_reader
import websocket.threads.pinger
from websocket import (
    ABNF,
    WebSocket,
    WebSocketApp,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
    enableTrace,
)
from websocket._parser import Parser
from websocket._transport import unacknowledged_bytes
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import (
    PATIENCE,
    Collected,
    Interrupter,
    background,
    is_receiving,
    is_sending,
    run_all,
    wait_until,
)
from .test_interruptions import Interrupted, has_threads
from .test_lifecycle import be_busy_elsewhere, is_asleep, run_python, voluntary_switches

Connect = Callable[..., WebSocket]

# For a peer that is gone: the verdict comes soon. (The machine may be slow; nothing here depends on it.)
SOON: dict[str, Any] = {"ping_interval": 0.06, "ping_timeout": 0.05}
# For a peer that answers: it has a time for it that a busy machine keeps.
FAIR: dict[str, Any] = {"ping_interval": 0.42, "ping_timeout": 0.4}

TIMED_OUT = "^ping/pong timed out$"

# For what is the same over TLS and takes its time.
without_tls = pytest.mark.parametrize("scheme", ["ws"])


def pong(peer: Peer, payload: bytes) -> None:
    peer.send_frame(ABNF.OPCODE_PONG, payload)


def ignore(peer: Peer, payload: bytes) -> None:
    """What a server does with a ping that is gone without a word."""


def answer_wrongly(peer: Peer, payload: bytes) -> None:
    pong(peer, payload + b"?")


class Keeper:
    """A server's handler that echoes messages and keeps the pings that come.

    answer: called for each ping.  greet: called first.  pings: their payloads.  times: when (time.monotonic()) they
    came.  lock: held while anything is sent.  answered: by (client's address, number of the ping), the socket through
    which any Keeper has answered.
    """

    answered: dict[tuple[Any, bytes], Any] = {}

    def __init__(
        self, answer: Callable[[Peer, bytes], None] = pong, greet: Callable[[Peer], Any] = lambda peer: None
    ) -> None:
        self.pings: list[bytes] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self._answer = answer
        self._greet = greet

    def __call__(self, peer: Peer) -> None:
        self._greet(peer)
        parser = Parser(max_message_size=None, server=True)
        while not parser.closed and (data := peer.sock.recv(1 << 18)):
            messages = parser.feed(data)
            for _, frame in parser.controls:
                if frame.opcode == ABNF.OPCODE_PING:
                    with self.lock:
                        self._answer(peer, frame.data)
                    self.answered[peer.address, frame.data] = peer.sock
                    self.times.append(time.monotonic())
                    self.pings.append(frame.data)
                elif frame.opcode == ABNF.OPCODE_CLOSE:
                    peer.close_frame = frame
            if messages:
                with self.lock:
                    peer.send(*messages)
        if peer.close_frame is None:
            peer.hang_up()

    def wait_for(self, pings: int) -> None:
        wait_until(lambda: len(self.pings) >= pings, f"{pings} pings have come")

    def wait_for_more(self, pings: int) -> None:
        self.wait_for(len(self.pings) + pings)


def pinger_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("websocket-pinger")]


def package_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("websocket-")]


class Events:
    """The callbacks of a WebSocketApp: keeps what they were called with, in order.

    on_message and its like: called by the callback of that name, behind the record.
    """

    def __init__(self, url: str, **further: Callable[..., Any]) -> None:
        self.all: list[tuple[Any, ...]] = []
        names = ("on_open", "on_reconnect", "on_message", "on_ping", "on_pong", "on_error", "on_close")
        self.app = WebSocketApp(url, **{name: self._keep(name, further.get(name)) for name in names})

    def _keep(self, name: str, function: Callable[..., Any] | None) -> Callable[..., Any]:
        def callback(app: Any, *arguments: Any) -> None:
            self.all.append((name.removeprefix("on_"), *arguments))
            if function is not None:
                function(app, *arguments)

        return callback

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        return [event for event in self.all if event[0] in names]

    def count(self, name: str) -> int:
        return len(self.of(name))

    @property
    def but_pongs(self) -> list[tuple[Any, ...]]:
        return [event for event in self.all if event[0] != "pong"]


class Hosts:
    """Starts servers of a scheme and knows the options to connect to them."""

    def __init__(self, scheme: str, serve: Callable[..., Server], authority: Authority) -> None:
        self.scheme = scheme
        self._serve = serve
        self._authority = authority

    def url(self, handler: Callable[[Peer], None]) -> str:
        context = self._authority.server_context() if self.scheme == "wss" else None
        return self._serve(handler, ssl_context=context).url

    @property
    def sslopt(self) -> dict[str, Any]:
        return {"ca_certs": self._authority.ca_file} if self.scheme == "wss" else {}


@pytest.fixture
def hosts(scheme: str, serve: Callable[..., Server], authority: Authority) -> Hosts:
    return Hosts(scheme, serve, authority)


@pytest.fixture
def endless_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ping_timeout is given, a pong is waited for as long as the test takes."""

    def extend(keepalive: Any) -> None:
        object.__setattr__(keepalive, "timeout", 3600.0)

    monkeypatch.setattr(websocket.threads.pinger.Keepalive, "__post_init__", extend)


@pytest.fixture
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a Keeper's pong is in this side's kernel, or has been read, when it is due: before,
    the pinger waits for the server."""
    is_alive = websocket.threads.pinger.Pinger._is_alive
    answered: dict[tuple[Any, bytes], Any] = {}

    def is_here(key: tuple[Any, bytes]) -> bool:
        return key in answered and not unacknowledged_bytes(answered[key])

    def wait_and_see(pinger: Any, *arguments: Any) -> bool:
        key = (pinger._reader._transport.sock.getsockname(), str(pinger._count).encode())
        wait_until(lambda: is_here(key) or pinger._is_over(), "the server has answered")
        return is_alive(pinger, *arguments)

    monkeypatch.setattr(Keeper, "answered", answered)
    monkeypatch.setattr(websocket.threads.pinger.Pinger, "_is_alive", wait_and_see)


@pytest.fixture
def nobody_reads_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a callback takes long, run_forever()'s thread does not come to read in its place."""
    monkeypatch.setattr(websocket.threads.callback_reader, "_LOOK", 3600.0)


class Holding(logging.Handler):
    """A log handler that holds the thread which logs a record with these words, once, until it is let go."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go = threading.Event()
        self._words = words

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock, so that other threads log on."""
        if not self.reached.is_set() and self._words in record.getMessage():
            self.reached.set()
            assert self.go.wait(PATIENCE)
        return True


@pytest.fixture
def holding() -> Iterator[Callable[[str], Holding]]:
    """Makes a Holding and lets it see the trace of the package, for the time of the test."""
    made: list[Holding] = []

    def make(words: str) -> Holding:
        made.append(Holding(words))
        enableTrace(True, made[-1])
        return made[-1]

    yield make
    for handler in made:
        handler.go.set()
    enableTrace(False)
    logging.getLogger("websocket").setLevel(logging.NOTSET)


# ---- pings ----


@without_tls
def test_pings_come_every_interval_and_the_first_after_one(connect_to: Connect, scheme: str) -> None:
    keeper = Keeper()
    start = time.monotonic()
    connection = connect_to(keeper, scheme, ping_interval=0.05)
    keeper.wait_for(5)
    connection.close()
    assert keeper.pings[:5] == [b"1", b"2", b"3", b"4", b"5"]
    for number, moment in enumerate(keeper.times, 1):
        assert moment - start >= number * 0.05


@pytest.mark.parametrize("payload", ["beat", "herzschlag ♥", b"\x00\xff\xfe", "x" * 125])
def test_a_given_payload_is_in_every_ping(connect_to: Connect, scheme: str, payload: Any) -> None:
    keeper = Keeper()
    connection = connect_to(keeper, scheme, ping_interval=0.02, ping_payload=payload)
    keeper.wait_for(3)
    wait_until(lambda: connection.latency is not None, "a pong has come")
    assert set(keeper.pings) == {payload if isinstance(payload, bytes) else payload.encode()}


def test_latency_is_that_of_the_latest_ping(connect_to: Connect, scheme: str) -> None:
    go = threading.Event()

    def answer(peer: Peer, payload: bytes) -> None:
        if payload == b"2":
            threading.Event().wait(0.05)
        if payload == b"3":
            go.wait(PATIENCE)
        pong(peer, payload)

    connection = connect_to(Keeper(answer), scheme, ping_interval=0.02)
    assert connection.latency is None
    wait_until(lambda: connection.latency, "the first ping is answered")
    for payload in (b"1", b"2"):
        assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, payload)
    assert connection.latency is not None
    assert connection.latency >= 0.05
    go.set()
    wait_until(lambda: 0 < (connection.latency or 0) < 0.05, "it is that of a quick answer again")


def test_latency_is_none_without_keepalive(connect_to: Connect) -> None:
    connection = connect_to(echo)
    connection.ping("1")
    assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"1")
    assert connection.latency is None


def test_an_app_is_told_of_pongs_and_knows_when_they_came(hosts: Hosts) -> None:
    keeper = Keeper()
    before = time.time()
    figures: list[tuple[float, float, float | None]] = []
    events = Events(
        hosts.url(keeper),
        on_open=lambda app: figures.append((app.last_ping_tm, app.last_pong_tm, app.latency)),
        on_pong=lambda app, payload: figures.append((app.last_ping_tm, app.last_pong_tm, app.latency)),
    )
    running = background(lambda: events.app.run_forever(sslopt=hosts.sslopt, ping_interval=0.05))
    wait_until(lambda: events.count("pong") >= 3, "on_pong was called")
    events.app.close()
    assert running() is False
    assert events.of("pong")[:3] == [("pong", b"1"), ("pong", b"2"), ("pong", b"3")]
    assert events.but_pongs == [("open",), ("close", 1000, "")]
    assert figures[0] == (0.0, 0.0, None)
    for last_ping, last_pong, latency in figures[1:4]:
        assert before <= last_ping <= time.time()
        assert before <= last_pong <= time.time()
        assert latency is not None
        assert latency > 0
    assert figures[1][0] < figures[3][0]
    assert figures[1][1] < figures[3][1]


def test_an_app_pings_with_the_payload_that_it_is_given(hosts: Hosts) -> None:
    keeper = Keeper()
    events = Events(hosts.url(keeper), on_pong=lambda app, payload: app.close())
    assert events.app.run_forever(sslopt=hosts.sslopt, ping_interval=0.02, ping_payload="beat") is False
    assert events.all == [("open",), ("pong", b"beat"), ("close", 1000, "")]
    assert (events.app.ping_interval, events.app.ping_timeout, events.app.ping_payload) == (0.02, None, "beat")


def do_nothing(connection: WebSocket, keeper: Keeper) -> None:
    keeper.wait_for(4)


def wait_in_recv(connection: WebSocket, keeper: Keeper) -> None:
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    keeper.wait_for_more(3)
    connection.send("x")
    assert receiving() == "x"


def wait_in_recv_for_control_frames(connection: WebSocket, keeper: Keeper) -> None:
    numbers = [connection.recv_data(control_frame=True) for _ in range(4)]
    assert numbers == [(ABNF.OPCODE_PONG, str(number).encode()) for number in range(1, 5)]


def ask_and_get_replies(connection: WebSocket, keeper: Keeper) -> None:
    while len(keeper.pings) < 3:
        connection.send("x")
        assert connection.recv() == "x"


def poll(connection: WebSocket, keeper: Keeper) -> None:
    while len(keeper.pings) < 4:
        assert select.select([connection], [], [], 0.01)[0] == [], "a pong is no message"
    connection.send("x")
    assert select.select([connection], [], [], PATIENCE)[0] == [connection]
    assert connection.recv() == "x"


def send_a_fragmented_message(connection: WebSocket, keeper: Keeper) -> None:
    connection.send_frame(ABNF.create_frame("one ", ABNF.OPCODE_TEXT, fin=0))
    keeper.wait_for_more(2)  # control frames may come between the fragments (RFC 6455 5.4)
    connection.send_frame(ABNF.create_frame("two", ABNF.OPCODE_CONT, fin=1))
    assert connection.recv() == "one two"


@pytest.mark.parametrize(
    "occupation",
    [
        do_nothing,
        wait_in_recv,
        wait_in_recv_for_control_frames,
        ask_and_get_replies,
        poll,
        send_a_fragmented_message,
    ],
)
def test_pings_go_out_and_pongs_are_seen_whatever_the_program_does(
    connect_to: Connect, scheme: str, occupation: Callable[[WebSocket, Keeper], None]
) -> None:
    keeper = Keeper()
    connection = connect_to(keeper, scheme, ping_interval=0.03)
    occupation(connection, keeper)
    pinger: Any = connection._connection._pinger  # type: ignore[union-attr]
    wait_until(lambda: connection.latency is not None and pinger._is_answered(), "the latest ping is answered")
    connection.send("goes on")
    assert connection.recv() == "goes on"


@pytest.mark.usefixtures("never_late")
@without_tls
@pytest.mark.usefixtures("always_borrowed")
def test_pongs_are_seen_by_who_has_borrowed_the_turn(connect_to: Connect, scheme: str) -> None:
    """The reader never takes its turn back here: the request-reply loop reads the pongs, and the pinger too."""
    keeper = Keeper()
    connection = connect_to(keeper, scheme, **SOON)
    ask_and_get_replies(connection, keeper)
    assert connection.latency is not None


def test_a_connection_with_keepalive_sleeps_between_pings(connect_to: Connect, serve: Callable[..., Server]) -> None:
    connection = connect_to(echo, ping_interval=3600, ping_timeout=1800)
    connection.send("x")
    assert connection.recv() == "x"
    inner: Any = connection._connection
    threads = [thread for thread in threading.enumerate() if thread.name.endswith(inner.name)]
    assert sorted(thread.name.split()[0] for thread in threads) == [
        "websocket-pinger",
        "websocket-reader",
    ]
    wait_until(lambda: connection._inbox.turn.holder == inner._reader_thread.ident, "the reader has taken its turn")
    wait_until(lambda: is_asleep(threads), "all threads sleep")
    before = voluntary_switches(threads)
    be_busy_elsewhere(serve().url)
    assert voluntary_switches(threads) == before


# ---- no keepalive ----

NONE: list[dict[str, Any]] = [{}, {"ping_interval": None}, {"ping_interval": 0}, {"ping_timeout": 5}]


def test_who_asks_for_no_keepalive_gets_no_pinger(connect_to: Connect, serve: Callable[..., Server]) -> None:
    collected = [Collected() for _ in NONE]
    connections = [connect_to(handler, **options) for handler, options in zip(collected, NONE, strict=True)]
    be_busy_elsewhere(serve().url)
    assert len(package_threads()) == len(NONE)  # the readers
    assert pinger_threads() == []
    for connection in connections:
        connection.close()
        assert connection.latency is None
    assert [handler.frames for handler in collected] == [[(ABNF.OPCODE_CLOSE, b"\x03\xe8")]] * len(NONE)


def test_an_app_without_keepalive_gets_no_pinger(serve: Callable[..., Server]) -> None:
    collected = [Collected() for _ in NONE]
    apps = [Events(serve(handler).url).app.start(**options) for handler, options in zip(collected, NONE, strict=True)]
    be_busy_elsewhere(serve().url)
    assert pinger_threads() == []
    for app in apps:
        assert (app.latency, app.last_ping_tm, app.last_pong_tm) == (None, 0.0, 0.0)
        app.stop()
    assert [handler.frames for handler in collected] == [[(ABNF.OPCODE_CLOSE, b"\x03\xe8")]] * len(NONE)


# ---- the verdict ----


def never_answers(peer: Peer) -> None:
    peer.answer_pings = False
    peer.recv()


def answers_with_another_payload(peer: Peer) -> None:
    Keeper(answer_wrongly)(peer)


def has_answered_before_it_was_asked(peer: Peer) -> None:
    """RFC 6455 5.5.3 allows pongs that answer nothing; a response to them is not expected, and they prove nothing."""
    for number in range(10):
        pong(peer, str(number).encode())
    Keeper(ignore)(peer)


GONE = [never_answers, answers_with_another_payload, has_answered_before_it_was_asked, Peer.stall]


@pytest.mark.parametrize("handler", GONE)
def test_a_missing_pong_ends_the_connection(connect_to: Connect, scheme: str, handler: Callable[[Peer], None]) -> None:
    start = time.monotonic()
    connection = connect_to(handler, scheme, **SOON)
    with pytest.raises(WebSocketTimeoutException, match=TIMED_OUT) as caught:
        connection.recv()
    assert PATIENCE / 2 > time.monotonic() - start >= sum(SOON.values())
    assert not connection.connected
    for call in (connection.recv, lambda: connection.send("x"), connection.ping, connection.recv_data):
        with pytest.raises(WebSocketConnectionClosedException, match="ping/pong timed out") as closed:
            call()
        assert closed.value.__cause__ is caught.value
        assert (closed.value.code, closed.value.reason) == (None, None)
    with pytest.raises(WebSocketConnectionClosedException):
        for _ in connection:
            pass
    wait_until(lambda: not has_threads(connection), "its threads have ended")
    connection.close()


@pytest.mark.parametrize("payload", [b"", b"beat"])
def test_a_pong_for_another_payload_than_the_given_one_is_none(connect_to: Connect, payload: bytes) -> None:
    connection = connect_to(Keeper(answer_wrongly), **SOON, ping_payload=payload)
    with pytest.raises(WebSocketTimeoutException, match=TIMED_OUT):
        connection.recv()


@without_tls
def test_of_all_who_wait_one_is_told_of_the_missing_pong_and_all_wake(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(never_answers, scheme, ping_interval=0.15, ping_timeout=0.1)
    told: list[WebSocketException] = []

    def receive() -> None:
        with pytest.raises(WebSocketException) as caught:
            connection.recv()
        told.append(caught.value)

    run_all(*[receive] * 5)
    [verdict] = [error for error in told if isinstance(error, WebSocketTimeoutException)]
    for error in told:
        assert error is verdict or (
            isinstance(error, WebSocketConnectionClosedException) and error.__cause__ is verdict
        )


def test_what_came_before_the_verdict_is_received_before_it(connect_to: Connect, scheme: str) -> None:
    def handler(peer: Peer) -> None:
        peer.send(*(str(number) for number in range(100)))
        never_answers(peer)

    connection = connect_to(handler, scheme, **SOON)
    wait_until(lambda: not has_threads(connection), "the verdict is spoken")
    assert [connection.recv() for _ in range(100)] == [str(number) for number in range(100)]
    with pytest.raises(WebSocketTimeoutException, match=TIMED_OUT):
        connection.recv()


def test_a_blocked_send_wakes_at_the_verdict_and_all_that_was_accepted_is_accounted_for(
    connect_to: Connect, holding: Callable[[str], Holding], scheme: str
) -> None:
    held = holding("Sent ping")
    connection = connect_to(Peer.stall, scheme, max_outbox_messages=3, **SOON)
    assert held.reached.wait(PATIENCE)
    accepted: list[bytes] = []

    def send() -> None:
        while True:
            message = bytes([len(accepted) % 256]) * 1_000_000
            connection.send_bytes(message)
            accepted.append(message)

    sending = background(send)
    wait_until(lambda: is_sending(connection), "send() waits for room")
    held.go.set()
    with pytest.raises(WebSocketTimeoutException, match=TIMED_OUT) as verdict:
        connection.recv()
    with pytest.raises(WebSocketConnectionClosedException, match="ping/pong timed out") as caught:
        sending()
    assert caught.value.__cause__ is verdict.value
    for error in (verdict.value, caught.value):
        kept = list(error.unsent)
        assert kept == accepted[len(accepted) - len(kept) :]
        assert len(kept) == 3, "the messages of the outbox, and no ping among them"
        assert error.unacknowledged is not None
        assert error.unacknowledged > 0


@pytest.mark.parametrize("handler", GONE)
def test_a_missing_pong_ends_an_apps_connection(hosts: Hosts, handler: Callable[[Peer], None]) -> None:
    events = Events(hosts.url(handler))
    start = time.monotonic()
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is True
    assert PATIENCE / 2 > time.monotonic() - start >= sum(SOON.values())
    (opened, (_, error), closed) = events.but_pongs
    assert (opened, closed) == (("open",), ("close", None, None))
    assert type(error) is WebSocketTimeoutException
    assert str(error) == "ping/pong timed out"
    assert error.unsent == []
    assert events.app.has_errored
    assert events.app.sock is None
    assert package_threads() == []


@without_tls
def test_what_an_app_could_not_send_is_in_the_error_of_the_verdict(
    hosts: Hosts, holding: Callable[[str], Holding]
) -> None:
    held = holding("Sent ping")
    message = b"x" * 20_000_000

    def send(app: WebSocketApp) -> None:
        app.send(message, ABNF.OPCODE_BINARY)
        held.go.set()

    events = Events(hosts.url(Peer.stall), on_open=send)
    assert events.app.run_forever(sslopt=hosts.sslopt, max_outbox_bytes=50_000_000, **SOON) is True
    [(_, error)] = events.of("error")
    assert isinstance(error, WebSocketTimeoutException)
    assert error.unsent == [message]
    assert error.unacknowledged is not None
    assert error.unacknowledged > 0


def test_an_app_whose_callback_waits_in_send_is_woken_by_the_verdict(hosts: Hosts) -> None:
    caught: list[WebSocketException] = []

    def send(app: WebSocketApp) -> None:
        try:
            while True:
                app.send(bytes(1_000_000), ABNF.OPCODE_BINARY)
        except WebSocketException as error:
            caught.append(error)

    events = Events(hosts.url(Peer.stall), on_open=send)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is True
    assert [type(error).__name__ for error in caught] == ["WebSocketConnectionClosedException"]
    assert "ping/pong timed out" in str(caught[0])
    assert [event[0] for event in events.all] == ["open", "error", "close"]
    assert isinstance(events.of("error")[0][1], WebSocketTimeoutException)


PROCESS = """
import ssl, sys
from websockets.sync.server import serve
context = None
if sys.argv[1:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
def echo(peer):
    for message in peer:
        peer.send(message)
with serve(echo, "127.0.0.1", 0, ssl=context) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"""


def has_stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return True  # a thread that has ended


class Process:
    """A server of the `websockets` package in a process of its own, which can be stopped."""

    def __init__(self, scheme: str, authority: Authority) -> None:
        secure = scheme == "wss"
        self.sslopt: dict[str, Any] = {"ca_certs": authority.ca_file} if secure else {}
        arguments = [authority.client_certificate("127.0.0.1")] if secure else []
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = f"{scheme}://127.0.0.1:{int(self._process.stdout.readline())}/"

    def stop(self) -> None:
        """Returns when none of its threads runs any more."""
        self._process.send_signal(signal.SIGSTOP)
        tasks = list(Path(f"/proc/{self._process.pid}/task").iterdir())
        wait_until(lambda: all(has_stopped(task) for task in tasks), "the process has stopped")

    def close(self) -> None:
        self._process.kill()  # a stopped process too
        self._process.communicate()


@pytest.fixture
def process(scheme: str, authority: Authority) -> Iterator[Process]:
    result = Process(scheme, authority)
    yield result
    result.close()


def test_a_server_process_that_is_stopped_is_noticed(process: Process) -> None:
    connection = create_connection(process.url, sslopt=process.sslopt, **FAIR)
    wait_until(lambda: connection.latency is not None, "a ping was answered")
    connection.send("x")
    assert connection.recv() == "x"
    process.stop()
    connection.send("to nobody")
    with pytest.raises(WebSocketTimeoutException, match=TIMED_OUT) as caught:
        connection.recv()
    assert caught.value.unsent == []  # the kernel has it, and the stopped process's kernel has confirmed it
    with pytest.raises(WebSocketConnectionClosedException, match="ping/pong timed out"):
        connection.send("x")
    connection.close()
    assert not has_threads(connection)


@without_tls
def test_a_server_process_that_is_stopped_ends_an_apps_run(process: Process) -> None:
    stopped = threading.Event()

    def stop(app: WebSocketApp, payload: bytes) -> None:
        if not stopped.is_set():
            stopped.set()
            process.stop()

    events = Events(process.url, on_pong=stop)
    assert events.app.run_forever(sslopt=process.sslopt, **FAIR) is True
    assert [event[0] for event in events.but_pongs] == ["open", "error", "close"]
    assert isinstance(events.of("error")[0][1], WebSocketTimeoutException)
    assert events.of("close") == [("close", None, None)]


# ---- pongs that are not missing ----


@without_tls
def test_a_pong_that_comes_late_but_in_time_is_good(connect_to: Connect, scheme: str) -> None:
    def answer(peer: Peer, payload: bytes) -> None:
        threading.Event().wait(0.1)
        pong(peer, payload)

    keeper = Keeper(answer)
    connection = connect_to(keeper, scheme, ping_interval=0.42, ping_timeout=0.4)
    keeper.wait_for(2)
    connection.send("x")
    assert connection.recv() == "x"
    assert connection.latency is not None
    assert connection.latency >= 0.1


@pytest.mark.usefixtures("never_late")
@without_tls
def test_pongs_that_answer_nothing_change_nothing(connect_to: Connect, scheme: str) -> None:
    def answer(peer: Peer, payload: bytes) -> None:
        pong(peer, b"")
        pong(peer, b"no number")
        pong(peer, payload)
        pong(peer, payload)
        pong(peer, b"1")

    keeper = Keeper(answer, greet=lambda peer: pong(peer, b"1"))
    connection = connect_to(keeper, scheme, **SOON)
    keeper.wait_for(2)
    connection.send("x")
    assert connection.recv() == "x"


@pytest.mark.parametrize("payload", ["", "the same"])
def test_the_pong_to_the_latest_ping_answers_those_before_it(connect_to: Connect, scheme: str, payload: str) -> None:
    """RFC 6455 5.5.3: who has several pings to answer may answer the latest only. Where all look the same, latency
    would be too long for ever if it were taken for that of the oldest."""
    answers = iter([ignore, ignore, pong])
    connection = connect_to(
        Keeper(lambda peer, payload: next(answers, ignore)(peer, payload)),
        scheme,
        ping_interval=0.03,
        ping_payload=payload,
    )
    pinger: Any = connection._connection._pinger  # type: ignore[union-attr]
    wait_until(lambda: connection.latency is not None, "the third ping is answered")
    assert all(number > 3 for number, _, _ in list(pinger._unanswered))


def test_pongs_that_come_after_several_intervals_are_taken(connect_to: Connect, scheme: str) -> None:
    held: list[bytes] = []

    def answer(peer: Peer, payload: bytes) -> None:
        held.append(payload)
        if len(held) == 5:
            for payload in held:
                pong(peer, payload)

    connection = connect_to(Keeper(answer), scheme, ping_interval=0.03)
    wait_until(lambda: len(held) >= 5, "five pings are held")
    for number in range(1, 6):
        assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, str(number).encode())
    assert connection.latency is not None
    assert connection.latency < 5 * PATIENCE


@without_tls
def test_without_a_timeout_no_pong_is_ever_missing(connect_to: Connect, scheme: str) -> None:
    keeper = Keeper(ignore)
    connection = connect_to(keeper, scheme, ping_interval=0.001)
    keeper.wait_for(200)  # more than are remembered
    connection.send("x")
    assert connection.recv() == "x"
    assert connection.latency is None


# ---- a callback that takes long ----


def say(*messages: str) -> Callable[[Peer], None]:
    return lambda peer: peer.send(*messages)


@pytest.mark.usefixtures("never_late")
def test_a_callback_that_takes_long_is_no_missing_pong(hosts: Hosts) -> None:
    """Its time is several times interval and timeout, and each ping but the first says that the one before was
    answered."""
    keeper = Keeper(greet=say("slow", "quick"))

    def on_message(app: WebSocketApp, message: str) -> None:
        if message == "slow":
            keeper.wait_for(8)

    def on_pong(app: WebSocketApp, payload: bytes) -> None:
        if len(events.of("pong")) >= 8:
            app.close()

    events = Events(hosts.url(keeper), on_message=on_message, on_pong=on_pong)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    assert events.all[:3] == [("open",), ("message", "slow"), ("message", "quick")]
    assert events.of("pong")[:8] == [("pong", str(number).encode()) for number in range(1, 9)]
    assert events.of("error", "close") == [("close", 1000, "")]


@pytest.mark.usefixtures("never_late")
@without_tls
@pytest.mark.parametrize("together", [True, False])
def test_several_long_callbacks_in_a_row_are_no_missing_pong(hosts: Hosts, together: bool) -> None:
    numbers = [str(number) for number in range(3)]
    keeper = Keeper(greet=say(*numbers) if together else say(numbers[0]))

    def on_message(app: WebSocketApp, message: str) -> None:
        threading.Event().wait(3 * sum(SOON.values()))
        if message == numbers[-1]:
            app.close()
        elif not together:
            app.send(str(int(message) + 1))

    events = Events(hosts.url(keeper), on_message=on_message)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    assert [message for _, message in events.of("message")] == numbers
    assert events.of("error", "close") == [("close", 1000, "")]
    assert len(keeper.pings) >= 3


@pytest.mark.usefixtures("never_late")
@without_tls
def test_an_on_open_that_takes_long_is_no_missing_pong(hosts: Hosts) -> None:
    keeper = Keeper()
    events = Events(hosts.url(keeper), on_open=lambda app: keeper.wait_for(8) or app.close())
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    assert events.of("error", "close") == [("close", 1000, "")]


@pytest.mark.usefixtures("never_late")
@without_tls
@pytest.mark.usefixtures("nobody_reads_instead")
def test_a_pong_that_nobody_has_read_yet_when_it_is_due_is_read_first(hosts: Hosts) -> None:
    """The callback keeps the reader thread from it, so the pinger reads it: the next ping would not come else."""
    keeper = Keeper(greet=say("slow", *(str(number) for number in range(10))))

    def on_message(app: WebSocketApp, message: str) -> None:
        if message == "slow":
            keeper.wait_for(8)
            app.send("over")
        elif message == "over":
            app.close()

    events = Events(hosts.url(keeper), on_message=on_message)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    numbers = [str(number) for number in range(10)]
    assert [message for _, message in events.of("message")] == ["slow", *numbers, "over"]
    assert events.of("error", "close") == [("close", 1000, "")]
    assert events.count("pong") >= 7


@pytest.mark.usefixtures("never_late")
@without_tls
@pytest.mark.parametrize("borrowed", [True, False])
def test_who_holds_the_turn_while_the_pong_is_due_is_waited_for(
    connect_to: Connect, holding: Callable[[str], Holding], scheme: str, borrowed: bool
) -> None:
    """A thread that has read a message is held up before it can give the turn back; the pong is in the kernel."""
    keeper = Keeper()
    connection = connect_to(keeper, scheme, **SOON)
    turn: Any = connection._inbox.turn
    held = holding("Rcv message: 'x'")
    receiving = background(connection.recv) if borrowed else connection.recv
    if borrowed:
        wait_until(lambda: is_receiving(connection), "recv() waits")
    connection.send("x")
    assert held.reached.wait(PATIENCE)
    keeper.wait_for(1)
    wait_until(lambda: turn._heir, "the pinger has claimed the turn")
    held.go.set()
    assert receiving() == "x"
    keeper.wait_for_more(2)
    connection.send("y")
    assert connection.recv() == "y"


# ---- a consumer that pauses ----


class Flood:
    """A server's handler that sends numbered messages as fast as they are taken, and answers pings between them.

    sizes: of the messages; a message begins with its number.
    """

    def __init__(self, sizes: list[int]) -> None:
        self.keeper = Keeper()
        self.blocked = threading.Event()
        self._sizes = sizes

    def __call__(self, peer: Peer) -> None:
        flooding = threading.Thread(target=self._flood, args=(peer,), name="flood", daemon=True)
        flooding.start()
        try:
            self.keeper(peer)
        finally:
            flooding.join()

    def _flood(self, peer: Peer) -> None:
        try:
            for number, size in enumerate(self._sizes):
                with self.keeper.lock:
                    peer.send(f"{number}:".encode().ljust(size, b"x"))
        except OSError:
            return  # the connection was ended; the test says why


def receive_all(connection: WebSocket, sizes: list[int], first: int = 0) -> None:
    for number, size in list(enumerate(sizes))[first:]:
        message = connection.recv()
        assert isinstance(message, bytes)
        assert (message.partition(b":")[0], len(message)) == (str(number).encode(), size)


def let_timeouts_pass() -> None:
    threading.Event().wait(2.2 * FAIR["ping_timeout"])


def test_a_consumer_that_pauses_is_no_missing_pong(connect_to: Connect, scheme: str) -> None:
    """Nothing is read while the inbox is full, so the pong waits behind tens of megabytes."""
    sizes = [100_000] * 400
    flood = Flood(sizes)
    connection = connect_to(flood, scheme, max_inbox_messages=4, **FAIR)
    wait_until(lambda: connection._inbox.stalled, "the inbox is full")
    let_timeouts_pass()
    receive_all(connection, sizes)
    flood.keeper.wait_for_more(2)
    connection.send("goes on")
    assert connection.recv() == "goes on"


@without_tls
def test_a_consumer_that_takes_one_message_and_pauses_again_is_no_missing_pong(
    connect_to: Connect, scheme: str
) -> None:
    """There is room in the inbox then, but not enough for the reader to go on; what is in the kernel is a part of a
    message, and the pong is behind it."""
    sizes = [10] * 10 + [20_000_000] + [10] * 10
    flood = Flood(sizes)
    connection = connect_to(flood, scheme, max_inbox_messages=10, **FAIR)
    wait_until(lambda: connection._inbox.stalled, "the inbox is full")
    let_timeouts_pass()
    assert connection.recv() == b"0:xxxxxxxx"
    let_timeouts_pass()
    assert pinger_threads() != [], "the verdict is spoken"
    receive_all(connection, sizes, 1)
    flood.keeper.wait_for_more(1)
    connection.send("goes on")
    assert connection.recv() == "goes on"


@without_tls
def test_a_large_message_on_its_way_is_no_missing_pong(connect_to: Connect, scheme: str) -> None:
    """A pong cannot come in the middle of a frame (RFC 6455 5.4), and bytes keep coming."""
    parts = 32

    def handler(peer: Peer) -> None:
        part = bytes(625_000)
        peer.send_raw(b"\x82\x7f" + (parts * len(part)).to_bytes(8, "big"))
        for _ in range(parts):
            threading.Event().wait(0.04)
            peer.send_raw(part)
        Keeper()(peer)

    connection = connect_to(handler, scheme, **FAIR)
    assert connection.recv() == bytes(20_000_000)
    connection.send("goes on")
    assert connection.recv() == "goes on"


@without_tls
def test_the_time_for_a_pong_behind_a_large_message_counts_from_its_end(connect_to: Connect, scheme: str) -> None:
    """The server comes to the ping only then; the pong is due a whole timeout later, whenever that was."""
    timeout = 0.4
    asked = threading.Event()

    def answer(peer: Peer, payload: bytes) -> None:
        asked.set()
        sending.join(PATIENCE)
        threading.Event().wait(0.45 * timeout)
        pong(peer, payload)

    def send(peer: Peer) -> None:
        part = bytes(1000)
        peer.send_raw(b"\x82\x7f" + (10_000 * len(part)).to_bytes(8, "big"))
        sent = 0
        while not asked.wait(0.01):
            peer.send_raw(part)
            sent += 1
        end = time.monotonic() + 1.75 * timeout
        while time.monotonic() < end:
            threading.Event().wait(0.01)
            peer.send_raw(part)
            sent += 1
        peer.send_raw(part * (10_000 - sent))

    def greet(peer: Peer) -> None:
        nonlocal sending
        sending = threading.Thread(target=send, args=(peer,), name="sending", daemon=True)
        sending.start()

    sending = threading.current_thread()
    connection = connect_to(Keeper(answer, greet), scheme, ping_interval=timeout + 0.01, ping_timeout=timeout)
    assert connection.recv() == bytes(10_000_000)
    wait_until(lambda: connection.latency is not None or not pinger_threads(), "the pong has come")
    assert connection.latency is not None


@without_tls
@pytest.mark.usefixtures("nobody_reads_instead")
def test_a_full_inbox_behind_a_long_callback_is_no_missing_pong(hosts: Hosts) -> None:
    """The pinger itself has filled the inbox, and must not take the rest for silence."""
    sizes = [100_000] * 300
    flood = Flood(sizes)

    def on_message(app: WebSocketApp, message: Any) -> None:
        if message == "over":
            app.close()
        elif message.startswith(b"0:"):
            let_timeouts_pass()
        elif message.startswith(b"299:"):
            app.send("over")

    events = Events(hosts.url(flood), on_message=on_message)
    assert events.app.run_forever(sslopt=hosts.sslopt, max_inbox_messages=4, **FAIR) is False
    *messages, over = (message for _, message in events.of("message"))
    assert [int(message.partition(b":")[0]) for message in messages] == list(range(300))
    assert over == "over"
    assert events.of("error", "close") == [("close", 1000, "")]


@without_tls
@pytest.mark.parametrize("end", [Peer.recv, Peer.reset])
def test_a_close_of_the_peer_behind_a_long_callback_is_a_close(hosts: Hosts, end: Callable[[Peer], Any]) -> None:
    """Who has sent a close frame sends no pong any more; that this side has not got to it is no fault of the peer."""
    opened, calling = threading.Event(), threading.Event()

    def greet(peer: Peer) -> None:
        peer.answer_pings = False
        opened.wait(PATIENCE)
        peer.send_raw(b"\x81\x04slow\x88\x06\x03\xe8done")
        calling.wait(PATIENCE)
        end(peer)

    def on_message(app: WebSocketApp, message: str) -> None:
        calling.set()
        threading.Event().wait(0.6)

    events = Events(hosts.url(greet), on_open=lambda app: opened.set(), on_message=on_message)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    assert events.all == [("open",), ("message", "slow"), ("close", 1000, "done")]


# ---- timers belong to a connection ----


def deaf_first(connections: int, answer: Callable[[Peer, bytes], None] = pong) -> tuple[Callable[[Peer], None], Keeper]:
    """A handler that answers no ping on so many connections, and then is a Keeper, which is returned as well."""
    keeper = Keeper(answer)
    deaf = iter(range(connections))

    def handler(peer: Peer) -> None:
        (never_answers if next(deaf, None) is not None else keeper)(peer)

    return handler, keeper


@without_tls
def test_a_reconnect_after_a_ping_timeout_starts_clean(hosts: Hosts) -> None:
    handler, keeper = deaf_first(1)
    pingers: list[int] = []

    def on_pong(app: WebSocketApp, payload: bytes) -> None:
        pingers.append(len(pinger_threads()))
        if len(pingers) == 3:
            app.close()

    events = Events(hosts.url(handler), on_pong=on_pong)
    assert events.app.run_forever(sslopt=hosts.sslopt, reconnect=0.05, **FAIR) is False
    assert [event[0] for event in events.but_pongs] == ["open", "error", "close", "reconnect", "close"]
    assert isinstance(events.of("error")[0][1], WebSocketTimeoutException)
    assert events.of("pong") == [("pong", str(number).encode()) for number in range(1, 4)]
    assert keeper.pings[:3] == [b"1", b"2", b"3"], "a new connection counts anew"
    assert pingers == [1] * 3


def test_fifty_ping_timeouts_in_a_row_leave_no_thread_and_no_deeper_stack(serve: Callable[..., Server]) -> None:
    handler, _ = deaf_first(50)
    figures: list[tuple[int, int, int]] = []
    before = len(package_threads())

    def on_open(app: WebSocketApp) -> None:
        frame, depth = sys._getframe(), 0
        while frame.f_back is not None:
            frame, depth = frame.f_back, depth + 1
        figures.append((len(pinger_threads()), len(package_threads()) - before, depth))

    def on_pong(app: WebSocketApp, payload: bytes) -> None:
        app.close()

    events = Events(serve(handler).url, on_open=on_open, on_reconnect=on_open, on_pong=on_pong)
    stack: list[int] = []

    def retry(error: BaseException) -> bool:
        stack.append(len(traceback.extract_stack()))
        return True

    options: dict[str, Any] = {"ping_interval": 0.006, "ping_timeout": 0.005}
    running = background(lambda: events.app.run_forever(reconnect=0.001, retry=retry, **options))
    wait_until(lambda: len(figures) >= 51 or not events.app.keep_running, "fifty connections have been ended")
    events.app.close()
    assert running() is False
    assert len(figures) >= 51
    pingers, threads, depths = zip(*figures, strict=True)
    assert max(pingers) <= 1
    assert max(threads) <= 3
    assert len(set(depths)) == 1
    assert len(set(stack)) == 1
    assert events.count("error") >= 50
    assert {str(error) for _, error in events.of("error")} == {"ping/pong timed out"}


def test_connect_again_takes_the_new_keepalive_and_drops_the_old(connect_to: Connect, scheme: str) -> None:
    keeper = Keeper()
    connection = connect_to(keeper, scheme, ping_interval=0.02, ping_payload="first")
    url = connection.server.url  # type: ignore[attr-defined]
    keeper.wait_for(2)
    connection.connect(url, ping_interval=0.02, ping_payload="second")
    assert connection.latency is None or len(pinger_threads()) == 1
    before = len(keeper.pings)
    wait_until(lambda: b"second" in keeper.pings, "the new one pings")
    wait_until(lambda: keeper.pings.count(b"second") >= 3, "it goes on")
    assert b"first" not in keeper.pings[before + 1 :]
    assert len(pinger_threads()) == 1
    connection.connect(url)
    assert pinger_threads() == []
    assert connection.latency is None


def test_a_run_without_keepalive_after_one_with_it_has_none(serve: Callable[..., Server]) -> None:
    url = serve(never_answers).url
    events = Events(url)
    assert events.app.run_forever(**SOON) is True
    collected = Collected()
    events.app.url = serve(collected).url
    with events.app.start():
        be_busy_elsewhere(serve().url)
        assert pinger_threads() == []
    assert collected.frames == [(ABNF.OPCODE_CLOSE, b"\x03\xe8")]
    assert (events.app.ping_interval, events.app.ping_timeout) == (0, None)


# ---- an end while a ping is outstanding ----


def outstanding(connect_to: Connect, scheme: str, handler: Callable[[Peer], None], keeper: Keeper) -> WebSocket:
    """A connection whose pinger waits for a pong, for an hour if need be. With endless_timeouts."""
    connection = connect_to(handler, scheme, **SOON)
    keeper.wait_for(1)
    return connection


@pytest.mark.usefixtures("endless_timeouts")
@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("end", [WebSocket.close, WebSocket.shutdown, WebSocket.abort])
def test_an_end_does_not_wait_for_an_outstanding_pong(
    connect_to: Connect, scheme: str, end: Callable[[WebSocket], None], waiting: bool
) -> None:
    keeper = Keeper(ignore)
    connection = outstanding(connect_to, scheme, keeper, keeper)
    receiving = background(connection.recv) if waiting else None
    if waiting:
        wait_until(lambda: is_receiving(connection), "recv() waits")
    end(connection)
    assert not has_threads(connection)
    if receiving is not None:
        with pytest.raises(WebSocketConnectionClosedException):
            receiving()


@pytest.mark.usefixtures("endless_timeouts")
@pytest.mark.parametrize("end", [Peer.close, Peer.hang_up, Peer.reset])
def test_an_end_by_the_peer_does_not_wait_for_an_outstanding_pong(
    connect_to: Connect, scheme: str, end: Callable[[Peer], None]
) -> None:
    go = threading.Event()

    def answer(peer: Peer, payload: bytes) -> None:
        go.wait(PATIENCE)
        end(peer)
        peer.sock.recv(1)

    keeper = Keeper(answer)
    connection = connect_to(keeper, scheme, **SOON)
    go.set()
    with pytest.raises(WebSocketConnectionClosedException):
        assert connection.recv() == ""
        connection.recv()
    wait_until(lambda: not has_threads(connection), "its threads have ended")


@pytest.mark.usefixtures("endless_timeouts")
@pytest.mark.parametrize("by", ["close", "keep_running", "server"])
def test_an_app_ends_at_once_while_a_ping_is_outstanding(hosts: Hosts, by: str) -> None:
    def answer(peer: Peer, payload: bytes) -> None:
        if by == "server":
            peer.close(1000, "bye")
        elif by == "close":
            background(events.app.close)  # it waits for this server's answer
        else:
            events.app.keep_running = False
            peer.send("a frame")

    events = Events(hosts.url(Keeper(answer)))
    assert background(lambda: events.app.run_forever(sslopt=hosts.sslopt, **SOON))() is False
    assert [event[0] for event in events.but_pongs if event[0] != "message"] == ["open", "close"]
    assert package_threads() == []


def test_send_close_is_not_followed_by_pings(connect_to: Connect, scheme: str) -> None:
    """Nothing is sent after a close frame (RFC 6455 5.5.1); what the peer still sends is received."""
    closed, go = threading.Event(), threading.Event()
    frames: list[int] = []

    def handler(peer: Peer) -> None:
        parser = Parser(server=True)
        while not parser.closed:
            parser.feed(peer.sock.recv(1 << 18))
            for _, frame in parser.controls:
                frames.append(frame.opcode)
                if frame.opcode == ABNF.OPCODE_PING:
                    pong(peer, frame.data)
        peer.close_frame = parser.controls[-1][1]
        closed.set()
        go.wait(PATIENCE)
        peer.send("still on its way")

    connection = connect_to(handler, scheme, ping_interval=0.05)
    wait_until(lambda: frames, "a ping has come")
    connection.send_close(1000, "bye")
    assert closed.wait(PATIENCE)
    wait_until(lambda: pinger_threads() == [], "the pinger has nothing to do any more")
    go.set()
    assert connection.recv() == "still on its way"
    assert connection.recv() == ""
    assert frames[-1] == ABNF.OPCODE_CLOSE
    assert set(frames[:-1]) == {ABNF.OPCODE_PING}


@pytest.mark.parametrize("repeatedly", [True, False])
def test_close_in_on_pong_ends_the_run(hosts: Hosts, repeatedly: bool) -> None:
    def on_pong(app: WebSocketApp, payload: bytes) -> None:
        for _ in range(3 if repeatedly else 1):
            app.close()

    events = Events(hosts.url(Keeper()), on_pong=on_pong)
    assert events.app.run_forever(sslopt=hosts.sslopt, ping_interval=0.02) is False
    assert events.all == [("open",), ("pong", b"1"), ("close", 1000, "")]


def test_a_dropped_connection_takes_its_keepalive_with_it(serve: Callable[..., Server]) -> None:
    keeper = Keeper()
    connection = create_connection(serve(keeper).url, ping_interval=0.02)
    keeper.wait_for(2)
    with pytest.warns(ResourceWarning):
        del connection
    wait_until(lambda: package_threads() == [], "its threads have ended")


@without_tls
@pytest.mark.parametrize("answer", [pong, ignore])
def test_ctrl_c_ends_a_run_with_keepalive_and_returns_false(
    hosts: Hosts, interrupting: Callable[..., Interrupter], answer: Callable[[Peer, bytes], None]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    keeper = Keeper(answer)
    url = hosts.url(keeper)
    events = Events(url)
    interrupter = interrupting(interrupt)
    delivering = background(lambda: keeper.wait_for(2) or interrupter.deliver())
    assert events.app.run_forever(sslopt=hosts.sslopt, ping_interval=0.05) is False
    delivering()
    assert events.but_pongs == [("open",), ("close", 1000, "")]
    assert not events.app.has_errored
    assert package_threads() == []


@pytest.mark.usefixtures("endless_timeouts")
def test_ctrl_c_does_not_wait_for_an_outstanding_pong(hosts: Hosts, interrupting: Callable[..., Interrupter]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    keeper = Keeper(ignore)
    events = Events(hosts.url(keeper))
    interrupter = interrupting(interrupt)
    delivering = background(lambda: keeper.wait_for(1) or interrupter.deliver())
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is False
    delivering()
    assert package_threads() == []


INTERRUPTED = """
import os, signal, sys, threading, websocket
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts this in the background has it ignored
def on_pong(app, payload):
    os.kill(os.getpid(), signal.SIGINT)
app = websocket.WebSocketApp(sys.argv[1], on_pong=on_pong, on_close=lambda app, *rest: print("closed", *rest))
print(app.run_forever(ping_interval=0.05, ping_timeout=0.04))
"""


def test_the_process_gets_over_a_real_ctrl_c(serve: Callable[..., Server]) -> None:
    assert run_python(INTERRUPTED, serve().url).splitlines() == ["closed 1000 ", "False"]


# ---- options ----


NONSENSE: list[dict[str, Any]] = [
    {"ping_interval": -1},
    {"ping_interval": float("nan")},
    {"ping_interval": float("inf")},
    {"ping_interval": True},
    {"ping_interval": "10"},
    {"ping_interval": 10, "ping_timeout": 0},
    {"ping_interval": 10, "ping_timeout": -1},
    {"ping_interval": 10, "ping_timeout": float("nan")},
    {"ping_interval": 10, "ping_timeout": 10},
    {"ping_interval": 10, "ping_timeout": 11},
    {"ping_interval": 10, "ping_timeout": True},
    {"ping_interval": 10, "ping_timeout": "5"},
    {"ping_interval": 10, "ping_payload": "x" * 126},
    {"ping_interval": 10, "ping_payload": "ä" * 63},
    {"ping_interval": 10, "ping_payload": bytes(126)},
]


@pytest.mark.parametrize("options", NONSENSE, ids=str)
def test_connect_refuses_what_makes_no_sense_before_it_connects(
    serve: Callable[..., Server], options: dict[str, Any]
) -> None:
    server = serve()
    with pytest.raises(ValueError, match="ping_"):
        create_connection(server.url, **options)
    with pytest.raises(ValueError, match="ping_"):
        WebSocket().connect(server.url, **options)
    assert server.peers == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ping_timeout": 0}, "Ensure ping_timeout > 0"),
        ({"ping_timeout": -1}, "Ensure ping_timeout > 0"),
        ({"ping_interval": 10, "ping_timeout": -0.5}, "Ensure ping_timeout > 0"),
        ({"ping_interval": -1}, "Ensure ping_interval >= 0"),
        ({"ping_interval": -1, "ping_timeout": 5}, "Ensure ping_interval >= 0"),
        ({"ping_interval": 5, "ping_timeout": 5}, "Ensure ping_interval > ping_timeout"),
        ({"ping_interval": 5, "ping_timeout": 6}, "Ensure ping_interval > ping_timeout"),
    ],
)
def test_run_forever_refuses_numbers_in_websocket_clients_words(
    serve: Callable[..., Server], options: dict[str, Any], text: str
) -> None:
    server = serve()
    events = Events(server.url)
    for run in (events.app.run_forever, events.app.start):
        with pytest.raises(WebSocketException) as caught:
            run(**options)
        assert type(caught.value) is WebSocketException
        assert str(caught.value) == text
    assert events.all == []
    assert server.peers == []
    assert not events.app.keep_running


def test_run_forever_refuses_a_payload_that_is_too_long(serve: Callable[..., Server]) -> None:
    server = serve()
    events = Events(server.url)
    with pytest.raises(ValueError, match="125 bytes"):
        events.app.run_forever(ping_interval=10, ping_payload="x" * 126)
    assert events.all == []
    assert server.peers == []


@pytest.mark.parametrize("interval", [1e10, 1e300, 10**400], ids=["1e10", "1e300", "10**400"])
def test_an_interval_of_ages_is_an_interval(connect_to: Connect, interval: float) -> None:
    """A lock cannot be waited for so long at once; a pinger that dies of it is reported as an unhandled exception."""
    try:
        connection = connect_to(echo, ping_interval=interval)
    except ValueError as error:
        assert "ping_interval" in str(error)  # to refuse it is good as well
        return
    connection.send("x")
    assert connection.recv() == "x"
    assert len(pinger_threads()) == 1


# ---- many threads ----


def echo_numbers(connection: WebSocket, stop: threading.Event, threads: int) -> list[Callable[[], Any]]:
    """Functions for threads that send numbered messages and receive them back, until `stop`; the last one, which
    receives what is left, says what was lost."""
    sent: list[list[str]] = [[] for _ in range(threads)]
    received: list[str] = []
    sending = threading.Semaphore(0)

    def send(thread: int) -> None:
        try:
            while not stop.is_set():
                message = f"{thread} {len(sent[thread])}"
                connection.send(message)
                sent[thread].append(message)
                if len(sent[thread]) % 20 == 0:
                    # So that the server does not fall behind for ever.
                    wait_until(lambda: stop.is_set() or len(received) + 200 > sum(map(len, sent)), "the echo has come")
        finally:
            sending.release()

    def receive() -> None:
        while not stop.is_set():
            try:
                received.append(connection.recv(timeout=0.002))
            except WebSocketTimeoutException as error:
                if "ping" in str(error):
                    raise

    def finish() -> None:
        for _ in range(threads):
            assert sending.acquire(timeout=PATIENCE)
        total = sum(map(len, sent))
        while len(received) < total:
            try:
                received.append(connection.recv(timeout=0.1))
            except WebSocketTimeoutException as error:
                if "ping" in str(error):
                    raise
        assert sorted(received) == sorted(message for messages in sent for message in messages)

    return [*(lambda thread=thread: send(thread) for thread in range(threads)), *[receive] * threads, finish]


@pytest.mark.usefixtures("switch_interval")
def test_the_turn_goes_from_borrowers_to_the_pinger_and_back(connect_to: Connect, scheme: str) -> None:
    """What the pinger does when a pong is due, as soon as the server's kernel knows that it is here: no verdict."""
    answered = threading.Semaphore(0)

    def answer(peer: Peer, payload: bytes) -> None:
        pong(peer, payload)
        wait_until(lambda: not unacknowledged_bytes(peer.sock), "all is in the client's kernel")
        answered.release()

    connection = connect_to(Keeper(answer), scheme, ping_interval=3600)
    pinger: Any = connection._connection._pinger  # type: ignore[union-attr]
    stop = threading.Event()

    def claim() -> None:
        try:
            for _ in range(40):
                assert pinger._ping(time.monotonic())
                assert answered.acquire(timeout=PATIENCE)
                assert pinger._is_alive(time.monotonic(), 0.0)
                assert pinger._is_answered()
        finally:
            stop.set()

    run_all(claim, *echo_numbers(connection, stop, 3))


@pytest.mark.usefixtures("switch_interval")
def test_no_verdict_is_spoken_but_on_who_was_late(hosts: Hosts) -> None:
    """Pings at the shortest interval among the messages of many threads. A busy machine may make the server late,
    and then the verdict is right; the test goes on with another connection."""
    answered: dict[tuple[Any, int], float] = {}
    rounds = 0

    def answer(peer: Peer, payload: bytes) -> None:
        pong(peer, payload)
        answered[peer.address, int(payload)] = time.monotonic()

    keeper = Keeper(answer)
    url = hosts.url(keeper)
    deadline = time.monotonic() + PATIENCE
    while rounds < 12 and time.monotonic() < deadline:
        connection = create_connection(url, sslopt=hosts.sslopt, ping_interval=0.02, ping_timeout=0.015)
        address = connection.sock.getsockname()
        pinger: Any = connection._connection._pinger  # type: ignore[union-attr]
        stop = threading.Event()

        def watch(stop: threading.Event = stop, pinger: Any = pinger, already: int = rounds) -> int:
            wait_until(lambda: already + pinger._count > 12 or pinger._inbox.ended, "pings are answered")
            stop.set()
            return max(0, pinger._count - 1)

        try:
            rounds += run_all(watch, *echo_numbers(connection, stop, 3))[0]
        except WebSocketException as error:
            assert "ping/pong timed out" in str(error)
            number, _, sent = pinger._unanswered[-1]
            # Some of the time is left to the kernel, to bring it from one socket to the other.
            assert answered.get((address, number), float("inf")) > sent + 0.01, "the pong was here in time"
        finally:
            connection.close()
            keeper.pings.clear()


# ---- fork, and the end of the process ----


FORKED = """
import os, sys, threading, websocket
options = {"sslopt": {"ca_certs": sys.argv[2]}, "ping_interval": 0.02}
connection = websocket.create_connection(sys.argv[1], **options)
while connection.latency is None:
    connection.send("x")
    assert connection.recv() == "x"
child = os.fork()
if child == 0:
    try:
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("websocket-")]
        for call in (connection.recv, lambda: connection.send("x"), connection.ping):
            try:
                call()
            except websocket.WebSocketConnectionClosedException as error:
                assert "parent process" in str(error), error
            else:
                raise AssertionError("the child's copy is alive")
        assert connection.latency > 0
        connection.close()
        connection.connect(sys.argv[1], **options)
        while connection.latency is None:
            connection.send("x")
            assert connection.recv() == "x"
        connection.close()
        print("child: fine", flush=True)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
for _ in range(3):
    pong = connection.recv_data(control_frame=True)
    assert pong[0] == websocket.ABNF.OPCODE_PONG
connection.close()
print("parent: fine", flush=True)
"""


@without_tls
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keepalive_goes_on_in_the_parent_of_a_fork_and_not_in_the_child(
    serve: Callable[..., Server], authority: Authority, scheme: str
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    output = run_python(FORKED, server.url, authority.ca_file)
    assert output.splitlines() == ["child: fine", "parent: fine"]


LEFT = """
import sys, threading, websocket
connection = websocket.create_connection(sys.argv[1], ping_interval=0.02)
while connection.latency is None:
    connection.send("x")
    assert connection.recv() == "x"
connection.send("last words")
app = websocket.WebSocketApp(sys.argv[1])
app.start(ping_interval=3600, ping_timeout=1800)
print("left", flush=True)
"""


def test_a_running_keepalive_does_not_hold_up_the_interpreters_exit(serve: Callable[..., Server]) -> None:
    collected: list[Any] = []

    def handler(peer: Peer) -> None:
        while (message := peer.recv()) is not None:
            peer.send(message)
            collected.append(message)
        collected.append(peer.close_frame and peer.close_frame.data)

    server = serve(handler)
    assert run_python(LEFT, server.url) == "left\n"
    server.close()
    assert "last words" in collected
    assert collected.count(b"\x03\xe9") == 2


# ---- accidents ----


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", [Interrupted, RuntimeError])
def test_an_exception_while_the_pinger_starts_leaves_nothing(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, before: bool, error: type[BaseException]
) -> None:
    """The fixture finds threads and descriptors that are left."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        mine = thread.name.startswith("websocket-pinger")
        if mine and before:
            raise error
        start(thread)
        if mine and not before:
            raise error

    server = serve()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises((Interrupted, WebSocketException)):
        create_connection(server.url, ping_interval=0.01)


class Fault(logging.Handler):
    """A log handler that fails at a record with these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def handle(self, record: logging.LogRecord) -> bool:
        if self._words in record.getMessage():
            raise MemoryError("in the pinger")
        return True


def test_a_pinger_that_dies_ends_the_connection(
    connect_to: Connect, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """As a reader or writer that dies: a connection must not be left without the keepalive that it was promised."""
    aloud: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", aloud.append)
    connection = connect_to(echo, scheme, ping_interval=0.02)
    enableTrace(True, Fault("Sent ping"))
    try:
        with pytest.raises(WebSocketConnectionClosedException, match="in the pinger"):
            connection.recv(timeout=PATIENCE / 4)
    finally:
        enableTrace(False)
        logging.getLogger("websocket").setLevel(logging.NOTSET)
    assert [type(seen.exc_value) for seen in aloud] == [MemoryError]


@pytest.mark.usefixtures("nobody_reads_instead")
def test_bytes_that_a_dying_pinger_had_in_hand_end_the_connection(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read them from the socket: without them the stream is another, so the connection ends."""
    aloud: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", aloud.append)

    def on_message(app: WebSocketApp, message: str) -> None:
        if message == "slow":
            parse = app.sock._connection._reader._parse  # type: ignore[union-attr]

            def fail_in_the_pinger(data: bytes) -> Any:
                if threading.current_thread().name.startswith("websocket-pinger"):
                    raise MemoryError("in the pinger")
                return parse(data)

            app.sock._connection._reader._parse = fail_in_the_pinger  # type: ignore[union-attr,method-assign]
            app.send("1")
            wait_until(lambda: aloud, "the pinger has read and failed")
            with contextlib.suppress(WebSocketException):
                app.send("2")
        else:
            app.close()

    events = Events(hosts.url(Keeper(greet=say("slow"))), on_message=on_message)
    assert events.app.run_forever(sslopt=hosts.sslopt, **SOON) is True
    assert events.of("message") == [("message", "slow")]
    [(_, error)] = events.of("error")
    assert "in the pinger" in str(error)
