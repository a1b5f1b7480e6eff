"""WebSocketApp in a foreign event loop: the real `rel`, and the smallest loop that will do."""

from __future__ import annotations

import gc
import heapq
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rel
import rel.rel

from websocket import (
    ABNF,
    Backoff,
    WebSocketApp,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
)
from websocket.testing import Peer, Server, echo

from .conftest import PATIENCE, Collected, background, open_descriptors, wait_until
from .test_reconnect import SOON, BeforeCallbacks, Diary, Script, accepting, answering, closing, vanishing

Serve = Callable[..., Server]


class SmallLoop:
    """What a dispatcher must have, by hand, on select(): also what a test likes to know.

    timeouts: the seconds of each timeout() of the package, if any.  signals: what signal() was given.  threads: the
    thread of each call of read(), timeout() and signal().  hurry: timers come at once, however long they are.
    """

    def __init__(self) -> None:
        self.timeouts: list[float] = []
        self.signals: list[tuple[int, Any]] = []
        self.threads: set[int] = set()
        self.hurry = False
        self._sources: dict[int, Callable[[], Any]] = {}
        self._timers: list[tuple[float, int, float, Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._running = False

    def read(self, source: Any, callback: Callable[[], Any]) -> None:
        self.threads.add(threading.get_ident())
        self._sources[source.fileno()] = callback

    def timeout(self, seconds: float, callback: Callable[[], Any]) -> None:
        self.threads.add(threading.get_ident())
        if seconds:
            self.timeouts.append(seconds)
        self.at(0 if self.hurry else seconds, callback)

    def signal(self, number: int, callback: Callable[[], Any]) -> None:
        self.threads.add(threading.get_ident())
        self.signals.append((number, callback))

    def abort(self) -> None:
        self._running = False
        self._sources.clear()
        self._timers.clear()

    def at(self, seconds: float, callback: Callable[[], Any]) -> None:
        """A timer of the test's: called again where it returns something true."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), seconds, callback))

    def dispatch(self) -> None:
        """Run until nothing is left to be done, or abort()."""
        self._running = True
        deadline = time.monotonic() + PATIENCE
        while self._running and (self._sources or self._timers):
            assert time.monotonic() < deadline, "the loop still has something to do"
            due = self._timers[0][0] if self._timers else deadline
            readable, _, _ = select.select(list(self._sources), [], [], max(0.0, due - time.monotonic()))
            for number in readable:
                callback = self._sources.get(number)
                if callback is not None and not callback():
                    self._sources.pop(number, None)
            now = time.monotonic()
            for _ in range(len(self._timers)):
                if self._timers and self._timers[0][0] <= now:
                    _, _, seconds, act = heapq.heappop(self._timers)
                    if act():
                        self.at(seconds, act)


class RelLoop:
    """The same for rel, whose dispatch() goes on for ever once a signal is registered: abort when nothing is read."""

    dispatcher = rel

    def at(self, seconds: float, callback: Callable[[], Any]) -> None:
        rel.timeout(seconds, callback)

    def abort(self) -> None:
        rel.abort()

    def dispatch(self) -> None:
        deadline = time.monotonic() + PATIENCE

        def look() -> bool:
            assert time.monotonic() < deadline, "the loop still has something to do"
            if not rel.report()["reads"]:
                rel.abort()
            return rel.is_running()

        rel.timeout(0.0001, look)
        rel.dispatch()


@pytest.fixture
def rel_loop() -> Iterator[RelLoop]:
    """rel, as new, and with nothing left of it afterwards: it is a global of its module."""
    interrupt = signal.getsignal(signal.SIGINT)
    rel.initialize()
    yield RelLoop()
    rel.abort()
    rel.init()
    rel.rel.registrar.poll.close()
    rel.rel.registrar = None
    rel.rel.threader = None
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture
def small_loop() -> SmallLoop:
    return SmallLoop()


@pytest.fixture(params=["rel", "small"])
def loop(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_loop")


def start(app: WebSocketApp, loop: Any, **options: Any) -> bool:
    return app.run_forever(dispatcher=getattr(loop, "dispatcher", loop), **options)


def run(app: WebSocketApp, loop: Any, **options: Any) -> None:
    start(app, loop, **options)
    loop.dispatch()


# ---- websocket-client's own example ----

EXAMPLE = """
import sys

import rel
import websocket


def on_message(ws, message):
    print(message, flush=True)


def on_error(ws, error):
    print(error, flush=True)


def on_close(ws, close_status_code, close_msg):
    print("### closed ###", flush=True)


def on_open(ws):
    print("Opened connection", flush=True)


if __name__ == "__main__":
    websocket.enableTrace(True)
    ws = websocket.WebSocketApp(sys.argv[1], on_open=on_open, on_message=on_message, on_error=on_error,
                                on_close=on_close)

    ws.run_forever(dispatcher=rel, reconnect=SECONDS)
    rel.signal(2, rel.abort)  # Keyboard Interrupt
    rel.dispatch()
    print("dispatch has returned")
"""


def run_example(url: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", EXAMPLE.replace("SECONDS", str(seconds)), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def test_the_example_of_websocket_clients_readme_runs_and_ctrl_c_ends_it(serve: Serve) -> None:
    collected = Collected()

    def first(peer: Peer) -> None:
        peer.send("one", "two")
        peer.close(1012)

    def second(peer: Peer) -> None:
        peer.send("three")
        collected(peer)

    script = Script(accepting(first), answering("503 no"), accepting(second))
    process = run_example(serve(script, raw=True).url, 0.05)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        stderr = process.stderr
        errors = background(stderr.read)
        expected = ["Opened connection", "one", "two", "1012", "### closed ###", "503", "Opened connection", "three"]
        try:
            for words in expected:
                assert words in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "dispatch has returned\n"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
        traced = errors()
    assert "Rcv message: 'three'" in traced
    assert "Traceback" not in traced
    # At the process's end the connection was closed, as nobody had.
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [(ABNF.OPCODE_CLOSE, b"\x03\xe9")]


# ---- what comes where ----


def test_callbacks_come_in_order_on_the_loops_thread(serve: Serve, loop: Any) -> None:
    def talk(peer: Peer) -> None:
        peer.send("one")
        peer.send_frame(ABNF.OPCODE_PING, b"a")
        peer.send("two", b"three")
        peer.send_frame(ABNF.OPCODE_PONG, b"b")
        peer.send("four")
        peer.close(1000, "bye")

    app = Diary(serve(talk).url)
    app.on_ping = lambda app, payload: app._note(f"ping {payload.decode()}")
    app.on_pong = lambda app, payload: app._note(f"pong {payload.decode()}")
    assert start(app, loop) is False
    assert app.events == []  # they are the loop's
    loop.dispatch()
    assert app.events == [
        *("open", "message one", "ping a", "message two", "message b'three'", "pong b", "message four"),
        "close 1000 bye",
    ]
    assert set(app.idents) == {threading.get_ident()}
    assert not app.keep_running
    assert app.sock is None


def test_on_data_and_fragments_come_in_the_loop_too(serve: Serve, loop: Any) -> None:
    def talk(peer: Peer) -> None:
        peer.send_frame(ABNF.OPCODE_TEXT, b"a", fin=0)
        peer.send_frame(ABNF.OPCODE_PING, b"between")
        peer.send_frame(ABNF.OPCODE_CONT, b"b")
        peer.send("whole")
        peer.close(1000)

    app = Diary(serve(talk).url)
    app.on_data = lambda app, data, opcode, fin: app._note(f"data {data} {opcode} {int(fin)}")
    app.on_cont_message = lambda app, data, fin: app._note(f"cont {data} {int(fin)}")
    app.on_ping = lambda app, payload: app._note(f"ping {payload.decode()}")
    run(app, loop)
    assert [event.replace("b'a'", "a") for event in app.events] == [
        *("open", "data a 1 0", "message a", "ping between", "data b'b' 0 1", "cont b'b' 1"),
        *("data whole 1 1", "message whole", "close 1000 "),
    ]


def test_messages_wait_while_the_loop_is_busy_and_pings_are_answered(serve: Serve, loop: Any) -> None:
    seen = threading.Event()

    def talk(peer: Peer) -> None:
        peer.send("first")
        for number in range(5):
            peer.send(f"behind {number}")
            peer.send_frame(ABNF.OPCODE_PING, str(number).encode())
        while len(peer.pongs) < 5:
            peer._receive()
        seen.set()
        peer.close(1000)

    app = Diary(serve(talk).url)
    app.then("message", lambda: seen.wait(PATIENCE))
    run(app, loop)
    assert seen.is_set()
    assert app.events == ["open", "message first", *(f"message behind {n}" for n in range(5)), "close 1000 "]


def test_on_open_comes_first_although_messages_were_faster(serve: Serve, loop: Any) -> None:
    app = Diary(serve(lambda peer: peer.send("hi")).url)
    start(app, loop)
    connection: Any = app._connection
    wait_until(lambda: connection.is_closing, "the message and the end have come")
    loop.dispatch()
    assert app.events == ["open", "message hi", "close 1000 "]


def test_an_end_that_is_known_before_run_forever_returns_is_told_in_order(serve: Serve, loop: Any) -> None:
    """The connection has come and gone between the handshake and the loop, the first time and in a reconnect."""

    def talk(peer: Peer) -> None:
        peer.send("hi")
        peer.close(1012)

    script = Script(accepting(talk), accepting(talk), closing(1000))
    app = Diary(serve(script, raw=True).url)

    def wait() -> None:
        connection: Any = app._connection
        wait_until(lambda: connection.end.closed and not connection._reader_thread.is_alive(), "all is over")

    with BeforeCallbacks(wait):
        start(app, loop, reconnect=SOON)
        loop.dispatch()
    told = ["message hi", "error WebSocketConnectionClosedException", "close 1012 "]
    assert app.events == ["open", *told, "reconnect", *told, "reconnect", "close 1000 "]


@pytest.mark.parametrize("act", ["close", "sock.close"])
def test_close_between_the_handshake_and_the_first_callback_ends_the_run(serve: Serve, loop: Any, act: str) -> None:
    script = Script(accepting(echo))
    app = Diary(serve(script, raw=True).url)
    with BeforeCallbacks(lambda: app.close() if act == "close" else app.sock.close()):  # type: ignore[union-attr]
        start(app, loop, reconnect=SOON)
    loop.dispatch()
    assert app.events in (["close None None"], ["close 1000 "], ["open", "close 1000 "])
    assert script.count == 1


def test_a_burst_is_delivered_whole_while_the_loop_does_its_other_work(serve: Serve, loop: Any) -> None:
    count = 10_000
    app = Diary(serve(lambda peer: peer.send(*map(str, range(count)))).url)
    start(app, loop)
    connection: Any = app._connection
    wait_until(lambda: connection.is_closing, "all has come")
    seen: list[int] = []

    def tick() -> bool:
        seen.append(app.count("message") if len(app.events) < count else count)
        return app.sock is not None

    loop.at(0.00001, tick)
    loop.dispatch()
    assert [event[8:] for event in app.events[1:-1]] == [str(number) for number in range(count)]
    assert len({number for number in seen if 0 < number < count}) >= 10


def test_what_callbacks_send_arrives_in_order(serve: Serve, loop: Any) -> None:
    collected = Collected()
    app = Diary(serve(collected).url)

    def talk() -> None:
        for number in range(1000):
            app.send(str(number))
        app.close()

    app.then("open", talk)
    run(app, loop)
    assert collected.messages == [str(number) for number in range(1000)]
    assert app.events == ["open", "close 1000 "]


# ---- reconnects ----


def test_reconnects_go_through_the_loops_timer_with_the_delay_given(serve: Serve, small_loop: SmallLoop) -> None:
    small_loop.hurry = True
    script = Script(
        *(answering("500 no"), closing(1012), answering("503 no", "Retry-After: 100"), closing(1001), vanishing),
        closing(1000, "bye"),
    )
    app = Diary(serve(script, raw=True).url)
    assert start(app, small_loop, reconnect=5) is True
    failed = "error WebSocketBadStatusException"
    assert app.events == [failed]  # the first attempt is run_forever()'s own
    small_loop.dispatch()
    assert small_loop.timeouts == [5] * 5
    assert app.events == [
        failed,
        *("open", "error WebSocketConnectionClosedException", "close 1012 "),
        failed,
        *("reconnect", "close 1001 "),
        *("reconnect", "error WebSocketConnectionLostException", "close None None"),
        *("reconnect", "close 1000 bye"),
    ]
    assert small_loop.threads == set(app.idents) == {threading.get_ident()}


def test_backoff_and_retry_after_give_the_loops_timer_its_delay(serve: Serve, small_loop: SmallLoop) -> None:
    small_loop.hurry = True
    script = Script(*[answering("500 no")] * 2, answering("429 no", "Retry-After: 100"), answering("500 no"))
    app = Diary(serve(script, raw=True).url)
    run(app, small_loop, reconnect=Backoff(first=3, factor=2, jitter=0, limit=10, attempts=4))
    assert small_loop.timeouts == [3, 6, 110, 10]
    assert app.events == ["error WebSocketBadStatusException"] * 5 + ["close None None"]
    assert app.has_errored


def test_the_delay_passes_before_each_attempt(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(closing(1001), answering("500 no"), closing(1000)), raw=True).url)
    run(app, loop, reconnect=0.05)
    assert app.events == ["open", "close 1001 ", "error WebSocketBadStatusException", "reconnect", "close 1000 "]
    assert app.gaps[1] >= 0.05
    assert app.gaps[2] >= 0.05


def test_an_attempt_does_not_hold_up_the_loop(serve: Serve, loop: Any) -> None:
    asked, ticked = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        peer.read_request()
        asked.set()
        assert ticked.wait(PATIENCE)
        peer.accept()
        peer.close(1000)
        peer.finish()

    app = Diary(serve(Script(closing(1001), slow), raw=True).url)

    def tick() -> bool:
        if asked.is_set():
            ticked.set()
        return not ticked.is_set()

    start(app, loop, reconnect=SOON)
    loop.at(0.0001, tick)
    loop.dispatch()
    assert app.events == ["open", "close 1001 ", "reconnect", "close 1000 "]


def test_a_hundred_reconnects_leave_the_stack_and_the_descriptors_flat(serve: Serve, small_loop: SmallLoop) -> None:
    def handle(peer: Peer) -> None:
        peer.hang_up()

    app = Diary(serve(handle).url)
    depths: set[int] = set()
    descriptors: list[int] = []

    def look() -> None:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        depths.add(depth)
        sockets = [what for what in open_descriptors().values() if "eventfd" in what]
        descriptors.append(len(sockets))
        if app.count("reconnect") == 100:
            app.close()

    app.then("reconnect", look)
    gc.disable()  # nothing is left to the collector
    try:
        run(app, small_loop, reconnect=1e-6)
    finally:
        gc.enable()
    assert app.events[-1].startswith("close")
    assert len(depths) == 1
    # All but this connection's own are given back soon: at most one connection's are not yet.
    assert max(descriptors) <= min(descriptors) + 6, descriptors


def test_a_run_gives_its_descriptors_back_without_the_garbage_collector(serve: Serve, small_loop: SmallLoop) -> None:
    server = serve(lambda peer: peer.send("hi"))
    before = {number for number, what in open_descriptors().items() if "eventfd" in what}
    app = Diary(server.url)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            run(app, small_loop)
        after = {number for number, what in open_descriptors().items() if "eventfd" in what}
    finally:
        gc.enable()
    assert app.count("close") == 5
    assert after - before == set()


# ---- ends ----


def test_a_first_attempt_that_fails_is_told_and_ends_the_run(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(answering("403 no")), raw=True).url)
    assert start(app, loop) is True
    assert app.events == ["error WebSocketBadStatusException", "close None None"]
    loop.dispatch()
    assert app.count("close") == 1


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (closing(1000, "x"), ["close 1000 x"]),
        (closing(1001, "x"), ["close 1001 x"]),
        (closing(1011, "x"), ["error WebSocketConnectionClosedException", "close 1011 x"]),
        (vanishing, ["error WebSocketConnectionLostException", "close None None"]),
    ],
    ids=["1000", "1001", "1011", "vanished"],
)
def test_each_end_is_told_in_the_order_of_other_runs(
    serve: Serve, loop: Any, end: Callable[[Peer], None], told: list[str]
) -> None:
    app = Diary(serve(end, raw=True).url)
    run(app, loop)
    assert app.events == ["open", *told]
    assert app.has_errored is (len(told) == 2)


def test_a_peer_that_answers_no_pings_is_told(serve: Serve, loop: Any) -> None:
    def silent(peer: Peer) -> None:
        peer.answer_pings = False
        peer.recv()

    app = Diary(serve(Script(accepting(silent), accepting(silent), closing(1000)), raw=True).url)
    run(app, loop, reconnect=SOON, ping_interval=0.05, ping_timeout=0.04)
    told = ["error WebSocketTimeoutException", "close None None"]
    assert app.events == ["open", *told, "reconnect", *told, "reconnect", "close 1000 "]
    assert isinstance(app.errors[0], WebSocketTimeoutException)
    assert str(app.errors[0]) == "ping/pong timed out"


def test_a_loop_that_is_busy_is_not_mistaken_for_a_dead_peer(serve: Serve, loop: Any) -> None:
    """The callback returns after the server has seen several keepalive pings, each of which had a time limit."""
    seen = threading.Event()

    def count(peer: Peer) -> None:
        peer.send("be busy")
        pings = 0
        while pings < 5:
            peer._receive()
            pings += sum(frame.opcode == ABNF.OPCODE_PING for _, frame in peer._parser.controls)
        seen.set()
        peer.close(1000)

    app = Diary(serve(count).url)
    app.then("message", lambda: seen.wait(PATIENCE))
    run(app, loop, ping_interval=0.3, ping_timeout=0.29)
    assert app.events == ["open", "message be busy", "close 1000 "]


def test_what_is_unsent_is_in_the_error(serve: Serve, loop: Any) -> None:
    filled = threading.Event()

    def ignore(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert filled.wait(PATIENCE)
        peer.reset()

    app = Diary(serve(ignore).url)

    def fill() -> None:
        for number in range(30):
            app.send(f"{number} {'x' * 500_000}")
        filled.set()

    app.then("open", fill)
    run(app, loop)
    assert app.events == ["open", "error WebSocketConnectionLostException", "close None None"]
    unsent = [int(message.split()[0]) for message in app.errors[0].unsent]
    assert unsent == list(range(unsent[0], 30))


# ---- close() ----


@pytest.mark.parametrize("event", ["open", "message", "error", "close"])
def test_close_in_a_callback_ends_the_run(serve: Serve, loop: Any, event: str) -> None:
    def talk(peer: Peer) -> None:
        peer.send("hi", "hi", "hi")
        if event in ("error", "close"):
            peer.close(1012)
        peer.recv()

    script = Script(accepting(talk))
    app = Diary(serve(script, raw=True).url)
    app.then(event, app.close)
    run(app, loop, reconnect=SOON)
    expected = {
        "open": ["open", "close 1000 "],
        "message": ["open", "message hi", "close 1000 "],
        "error": ["open", *["message hi"] * 3, "error WebSocketConnectionClosedException", "close 1012 "],
    }
    assert app.events == expected.get(event, expected["error"])
    assert script.count == 1
    assert not app.keep_running


def test_close_in_a_callback_begins_the_end_and_returns(serve: Serve, loop: Any) -> None:
    """The peer answers only once the callback has returned."""
    returned = threading.Event()

    def talk(peer: Peer) -> None:
        peer.send("close now")
        assert returned.wait(PATIENCE)
        peer.recv()

    app = Diary(serve(talk).url)

    def close() -> None:
        app.close()
        returned.set()

    app.then("message", close)
    run(app, loop)
    assert app.events == ["open", "message close now", "close 1000 "]


def test_close_in_a_callback_is_bounded_by_its_timeout(serve: Serve, loop: Any) -> None:
    """A peer that never answers the close frame does not keep the loop."""
    app = Diary(serve(Peer.stall).url)
    app.then("open", lambda: app.close(timeout=0.1))
    run(app, loop)
    assert app.events == ["open", "close None None"]


def test_keep_running_ends_the_run_at_the_next_message(serve: Serve, loop: Any) -> None:
    def talk(peer: Peer) -> None:
        peer.send("one", "two")
        peer.recv()

    app = Diary(serve(talk).url)

    def stop() -> None:
        app.keep_running = False

    app.then("message", stop)
    run(app, loop, reconnect=SOON)
    assert app.events == ["open", "message one", "close 1000 "]


def test_close_in_a_timer_of_the_loop_ends_the_run(serve: Serve, loop: Any) -> None:
    app = Diary(serve().url)
    start(app, loop, reconnect=SOON)
    loop.at(0.01, app.close)
    loop.dispatch()
    assert app.events in (["open", "close 1000 "], ["close 1000 "])


def test_close_of_another_thread_ends_the_run(serve: Serve, loop: Any) -> None:
    app = Diary(serve().url)
    closed = background(lambda: (app.wait_for("open"), app.close()))
    run(app, loop, reconnect=SOON)
    closed()
    assert app.events == ["open", "close 1000 "]
    assert set(app.idents) == {threading.get_ident()}


def in_the_wait(app: Diary, loop: Any) -> threading.Event:
    """Set once the loop has come back from the first on_close, so that the timer of the next attempt is set."""
    result = threading.Event()

    def look() -> bool:
        if app.count("close") == 1:
            result.set()
        return not result.is_set()

    loop.at(0.0001, look)
    return result


@pytest.mark.parametrize("act", ["close", "keep_running"])
def test_the_wait_ends_at_once_when_another_thread_says_so(serve: Serve, loop: Any, act: str) -> None:
    app = Diary(serve(Script(vanishing), raw=True).url)
    waiting = in_the_wait(app, loop)

    def end() -> None:
        assert waiting.wait(PATIENCE)
        if act == "close":
            app.close()
        else:
            app.keep_running = False

    def forget_the_timer() -> bool:
        if app.count("close") == 2:
            loop.abort()
        return app.count("close") < 2

    ended = background(end)
    start(app, loop, reconnect=3600)
    loop.at(0.001, forget_the_timer)
    loop.dispatch()
    ended()
    assert app.events == ["open", "error WebSocketConnectionLostException", "close None None", "close None None"]
    assert set(app.idents) == {threading.get_ident()}


def test_a_timer_that_comes_after_the_end_does_nothing(serve: Serve, small_loop: SmallLoop) -> None:
    script = Script(vanishing)
    app = Diary(serve(script, raw=True).url)

    def close() -> bool:
        if app.count("close") == 1:
            app.close()
        return app.count("close") == 0

    small_loop.at(0.0001, close)
    run(app, small_loop, reconnect=0.2)  # dispatch() returns when that has passed
    assert small_loop.timeouts == [0.2]
    assert app.events == ["open", "error WebSocketConnectionLostException", "close None None", "close None None"]
    assert script.count == 1


def test_close_ends_an_attempt_that_is_under_way(serve: Serve, loop: Any) -> None:
    asked = threading.Event()

    def silent(peer: Peer) -> None:
        asked.set()
        peer.stall()

    script = Script(closing(1001), silent)
    app = Diary(serve(script, raw=True).url)
    closed = background(lambda: (asked.wait(PATIENCE), app.close()))
    run(app, loop, reconnect=SOON)
    closed()
    assert app.events == ["open", "close 1001 ", "close None None"]
    assert script.count == 2


def test_what_the_socket_ends_is_not_tried_again(serve: Serve, loop: Any) -> None:
    script = Script(accepting(echo))
    app = Diary(serve(script, raw=True).url)
    app.then("open", lambda: app.sock.close())  # type: ignore[union-attr]
    run(app, loop, reconnect=SOON)
    assert app.events == ["open", "close 1000 "]
    assert script.count == 1


# ---- exceptions ----


def leave() -> None:
    raise SystemExit(7)


@pytest.mark.parametrize("event", ["open", "message", "error", "close"])
def test_system_exit_of_a_callback_comes_out_of_dispatch_after_on_close(serve: Serve, loop: Any, event: str) -> None:
    def talk(peer: Peer) -> None:
        peer.send("hi", "hi")
        if event in ("error", "close"):
            peer.close(1012)
        peer.recv()

    app = Diary(serve(talk).url)
    app.then(event, leave)
    start(app, loop, reconnect=SOON)
    with pytest.raises(SystemExit) as exit:
        loop.dispatch()
    assert exit.value.code == 7
    expected = {
        "open": ["open", "close 1000 "],
        "message": ["open", "message hi", "close 1000 "],
        "error": ["open", *["message hi"] * 2, "error WebSocketConnectionClosedException", "close 1012 "],
    }
    assert app.events == expected.get(event, expected["error"])
    assert not app.keep_running


def test_after_system_exit_the_app_runs_again(serve: Serve, loop: Any) -> None:
    app = Diary(serve().url)
    app.then("open", leave)
    start(app, loop)
    with pytest.raises(SystemExit):
        loop.dispatch()
    loop.abort()
    app.then("open", app.close)
    app.events.clear()
    run(app, loop)
    assert app.events == ["open", "close 1000 "]


def test_system_exit_of_on_error_comes_out_of_run_forever_where_the_first_attempt_fails(
    serve: Serve, loop: Any
) -> None:
    app = Diary(serve(Script(answering("500 no")), raw=True).url)
    app.then("error", leave)
    with pytest.raises(SystemExit):
        start(app, loop, reconnect=SOON)
    assert app.events == ["error WebSocketBadStatusException", "close None None"]
    loop.dispatch()
    assert app.count("close") == 1


def test_an_exception_of_a_callback_goes_to_on_error_and_the_loop_goes_on(serve: Serve, loop: Any) -> None:
    def talk(peer: Peer) -> None:
        peer.send("one", "two")
        peer.close(1000)

    app = Diary(serve(talk).url)

    def fail() -> None:
        raise ZeroDivisionError

    app.then("message", fail)
    run(app, loop)
    failed = "error ZeroDivisionError"
    assert app.events == ["open", "message one", failed, "message two", failed, "close 1000 "]


# ---- loops ----


def test_a_run_may_follow_a_run_in_the_same_loop(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(closing(1012), closing(1000)), raw=True).url)
    for told in (["error WebSocketConnectionClosedException", "close 1012 "], ["close 1000 "]):
        app.events.clear()
        run(app, loop)
        assert app.events == ["open", *told]


def test_a_run_may_begin_in_the_last_callback_of_the_one_before(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(closing(1012), closing(1000)), raw=True).url)
    begun: list[bool] = []

    def again() -> None:
        if not begun:
            begun.append(start(app, loop))

    app.then("close", again)
    run(app, loop)
    assert begun == [False]
    assert app.events == ["open", "error WebSocketConnectionClosedException", "close 1012 ", "open", "close 1000 "]


def test_a_second_run_at_the_same_time_is_refused(serve: Serve, loop: Any) -> None:
    app = Diary(serve().url)
    start(app, loop)
    with pytest.raises(WebSocketException, match="already opened"):
        start(app, loop)
    with pytest.raises(WebSocketException, match="already opened"):
        app.run_forever()
    app.then("open", app.close)
    loop.dispatch()
    assert app.events == ["open", "close 1000 "]


def test_two_apps_share_a_loop(serve: Serve, loop: Any) -> None:
    """Each answers the other by way of its own server, a hundred times."""
    url = serve().url
    first, second = Diary(url), Diary(url)
    turns = itertools.count(1)

    def hand_over(app: Diary, other: Diary) -> None:
        if (turn := next(turns)) <= 100:
            other.send(str(turn))
        else:
            first.close()
            second.close()

    first.then("message", lambda: hand_over(first, second))
    second.then("message", lambda: hand_over(second, first))
    second.then("open", lambda: first.send("go"))
    start(first, loop)
    start(second, loop)
    loop.dispatch()
    for app in (first, second):
        assert app.events[0] == "open"
        assert app.events[-1] == "close 1000 "
    assert [event[8:] for event in first.events[1:-1]] == ["go", *map(str, range(2, 101, 2))]
    assert [event[8:] for event in second.events[1:-1]] == [str(turn) for turn in range(1, 101, 2)]


def test_twenty_apps_share_a_loop_and_reconnect(serve: Serve, loop: Any) -> None:
    url = serve(lambda peer: (peer.send("hi"), peer.close(1012))[-1]).url
    apps = [Diary(url) for _ in range(20)]
    for app in apps:
        app.then("reconnect", lambda app=app: app.close() if app.count("reconnect") == 3 else None)
        start(app, loop, reconnect=0.001)
    loop.dispatch()
    once = ["message hi", "error WebSocketConnectionClosedException", "close 1012 "]
    for app in apps:
        assert app.events[:-1] == ["open", *once, "reconnect", *once, "reconnect", *once, "reconnect"]


def test_a_loop_outside_the_main_thread_works_without_the_signal(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(closing(1012), closing(1000)), raw=True).url)
    before = signal.getsignal(signal.SIGINT)
    background(lambda: run(app, loop, reconnect=SOON))()
    assert app.events[-2:] == ["reconnect", "close 1000 "]
    assert threading.get_ident() not in app.idents
    assert len(set(app.idents)) == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert getattr(loop, "signals", []) == []


def test_in_the_main_thread_ctrl_c_is_left_to_the_loop(serve: Serve, small_loop: SmallLoop) -> None:
    app = Diary(serve(lambda peer: None).url)
    run(app, small_loop)
    assert small_loop.signals == [(signal.SIGINT, small_loop.abort)]


def test_ctrl_c_aborts_rel(serve: Serve, rel_loop: RelLoop) -> None:
    app = Diary(serve().url)
    app.then("open", lambda: signal.raise_signal(signal.SIGINT))
    app.run_forever(dispatcher=rel)
    rel.dispatch()
    assert app.events == ["open"]
    assert app.ready()
    app.close()
    assert not app.ready()


@pytest.mark.parametrize("missing", ["read", "timeout", "signal", "abort"])
def test_a_dispatcher_that_lacks_a_method_is_refused_by_name(missing: str) -> None:
    dispatcher = SmallLoop()
    setattr(dispatcher, missing, None)
    app = Diary("ws://127.0.0.1:1/")
    with pytest.raises(WebSocketException, match=rf"no {missing}\(\)"):
        app.run_forever(dispatcher=dispatcher)
    assert app.events == []
    assert dispatcher.threads == set()


def test_start_does_not_take_a_dispatcher(small_loop: SmallLoop) -> None:
    app = Diary("ws://127.0.0.1:1/")
    with pytest.raises(WebSocketException, match="run_forever"):
        app.start(dispatcher=small_loop)
    assert small_loop.threads == set()


def test_a_subclass_may_give_its_own_loop(serve: Serve, small_loop: SmallLoop) -> None:
    class Own(Diary):
        def create_dispatcher(self, ping_timeout: Any, dispatcher: Any = None, is_ssl: bool = False) -> Any:
            return super().create_dispatcher(ping_timeout, small_loop, is_ssl)

    app = Own(serve(lambda peer: None).url)
    app.run_forever()
    small_loop.dispatch()
    assert app.events == ["open", "close 1000 "]


# ---- loops that are aborted ----


def test_an_app_whose_loop_was_aborted_can_be_closed(serve: Serve, loop: Any) -> None:
    collected = Collected()
    app = Diary(serve(lambda peer: (peer.send("hi"), collected(peer))[-1]).url)
    app.then("message", loop.abort)
    run(app, loop, reconnect=SOON)
    assert app.events == ["open", "message hi"]
    assert app.ready()
    app.send("accepted all the same")
    app.close()
    assert not app.ready()
    with pytest.raises(WebSocketConnectionClosedException):
        app.send("too late")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")] == []
    assert collected.done.wait(PATIENCE)
    assert collected.frames == ["accepted all the same", (ABNF.OPCODE_CLOSE, b"\x03\xe8")]


def test_an_app_whose_loop_was_aborted_can_be_run_again(serve: Serve, loop: Any) -> None:
    app = Diary(serve().url)
    app.then("open", loop.abort)
    run(app, loop)
    app.close()
    app.events.clear()
    app.then("open", app.close)
    run(app, loop)
    assert app.events == ["open", "close 1000 "]


def test_an_app_whose_loop_never_runs_can_be_closed(serve: Serve, loop: Any) -> None:
    collected = Collected()
    app = Diary(serve(collected).url)
    start(app, loop)
    app.send("hi")
    app.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")] == []
    assert collected.done.wait(PATIENCE)
    assert collected.messages == ["hi"]
    assert app.events == []
    loop.dispatch()
    assert app.events[-1] == "close 1000 "


def test_an_app_whose_loop_was_aborted_in_the_wait_can_be_closed(serve: Serve, loop: Any) -> None:
    app = Diary(serve(Script(vanishing), raw=True).url)
    app.then("close", loop.abort)
    run(app, loop, reconnect=3600)
    assert app.events == ["open", "error WebSocketConnectionLostException", "close None None"]
    app.close()
    assert app.sock is None
    assert not app.keep_running
    loop.abort()  # it still has the timer
