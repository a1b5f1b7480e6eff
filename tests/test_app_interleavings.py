"""Runs of a WebSocketApp that meet: one begun in the last callback of another, one ended at a bad moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

import pytest

from websocket import WebSocket, WebSocketApp, WebSocketConnectionClosedException, WebSocketException, enableTrace
from websocket.testing import Peer, Server, echo

from .conftest import PATIENCE, Interrupter, background, wait_until
from .recorder import Blocked, Record, Recorder, once, resting
from .test_dispatcher import SmallLoop
from .test_reconnect import SOON

Connect = Callable[..., WebSocket]

FINAL = [("open",), ("close", 1000, "")]


@pytest.fixture
def aloud(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the excepthook of threads is given."""
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    return seen


def closes_first(peer: Peer) -> None:
    """A handler that closes the first connection and echoes on the others."""
    if len(peer.server.peers) == 1:
        peer.close(1000)
    else:
        echo(peer)


# ---- start() and stop() ----


def test_with_starts_again_what_was_started_and_stopped(record: Record) -> None:
    app = record()
    app.start()
    app.stop()
    assert not app.ready()
    with app:
        app.send("again")
        app.wait_for("message", "again")
    assert app.told == [*FINAL, ("open",), ("message", "again"), ("close", 1000, "")]


def test_with_starts_again_what_was_started_and_has_ended(record: Record) -> None:
    app = record(closes_first)
    app.start()
    assert app.join(PATIENCE) is False
    with app:
        app.send("again")
        app.wait_for("message", "again")
    assert app.told == [*FINAL, ("open",), ("message", "again"), ("close", 1000, "")]


def test_stop_does_not_wait_for_what_another_thread_has_started_meanwhile(record: Record) -> None:
    app = record()
    close = app.close

    def close_and_another_starts(**options: Any) -> None:
        close(**options)
        wait_until(lambda: app._run is None, "the run is over")
        background(app.start)()

    app.start()
    app.close = close_and_another_starts  # type: ignore[method-assign]
    stopping = background(app.stop)
    try:
        app.wait_for("open", times=2)
        stopping()
        assert app.ready()
        app.send("undisturbed")
        app.wait_for("message", "undisturbed")
    finally:
        close()
    assert app.join(PATIENCE) is False
    assert app.told == [*FINAL, ("open",), ("message", "undisturbed"), ("close", 1000, "")]


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_while_start_makes_its_thread_leaves_no_run_behind(
    record: Record, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    app = record()
    start = threading.Thread.start
    interrupt = once(KeyboardInterrupt())

    def interrupted(thread: threading.Thread) -> None:
        is_the_apps = thread.name.startswith("websocket-app ")
        if is_the_apps and not begun:
            interrupt()
        start(thread)
        if is_the_apps and begun:
            interrupt()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.start()
    if begun:
        wait_until(lambda: app._run is None, "the thread has ended the run")
    assert not app.keep_running
    app.calls.clear()
    with app:
        app.send("again")
        app.wait_for("message", "again")
    assert app.told == [("open",), ("message", "again"), ("close", 1000, "")]


class InterruptedAtTheEndOfBeginning(Recorder):
    """Ctrl-C comes, once, when the app has a run and nobody else has it yet."""

    interrupt: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "ping_payload" and self.interrupt is not None:
            self.interrupt()


@pytest.mark.parametrize("method", ["start", "run_forever"])
def test_ctrl_c_before_the_run_is_handed_over_leaves_no_run_behind(serve: Callable[..., Server], method: str) -> None:
    app = InterruptedAtTheEndOfBeginning(serve(echo).url)
    app.interrupt = once(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        getattr(app, method)()
    assert (app.told, app.sock, app.keep_running) == ([], None, False)
    with app:
        app.send("again")
        app.wait_for("message", "again")
    assert app.told == [("open",), ("message", "again"), ("close", 1000, "")]


# ---- keep_running ----


def test_keep_running_set_to_false_by_another_thread_ends_a_run_on_which_nothing_comes(
    record: Record, scheme: str
) -> None:
    app = record(scheme=scheme)
    running = background(app.run)
    wait_until(lambda: resting(app), "the connection rests")
    app.keep_running = False
    assert running() is False
    assert app.told == FINAL


@pytest.mark.parametrize("who", ["on_open", "another thread"])
def test_keep_running_set_to_false_during_on_open_ends_the_run_after_it(record: Record, who: str) -> None:
    def let_go() -> None:
        app.keep_running = False

    app = record()
    app.then["open"] = let_go if who == "on_open" else lambda: background(let_go)()
    running = background(app.run)
    assert running() is False
    assert app.told == FINAL


def test_keep_running_set_to_false_by_another_thread_ends_an_idle_run_in_a_foreign_loop(record: Record) -> None:
    app, loop = record(), SmallLoop()

    def let_go() -> None:
        app.wait_for("open")
        app.keep_running = False

    letting_go = background(let_go)
    assert app.run(dispatcher=loop) is False
    loop.dispatch()
    letting_go()
    assert app.told == FINAL


# ---- a run in the last callback of another ----


def test_a_run_with_a_reconnect_policy_may_begin_in_on_close_of_another_that_had_one(record: Record) -> None:
    results: list[bool] = []

    def on_close(*_: Any) -> None:
        if len(app.calls) < 6:
            results.append(app.run(reconnect=SOON))

    app = record(lambda peer: peer.close(1000), then={"close": on_close})
    assert app.run(reconnect=SOON) is False
    assert app.told == FINAL * 3
    assert results == [False, False]
    assert (app.sock, app.keep_running, app.has_errored) == (None, False, False)


def test_a_run_may_begin_on_another_thread_while_on_close_of_the_last_one_runs(record: Record, scheme: str) -> None:
    others: list[Callable[[], Any]] = []

    def on_close(*_: Any) -> None:
        if not others:
            others.append(background(app.run))
            app.wait_for("open", times=2)

    app = record(closes_first, scheme, then={"close": on_close})
    assert app.run() is False
    assert app.keep_running, "the end of the first run says nothing of the second"
    assert app.ready()
    app.send("second")
    app.wait_for("message", "second")
    app.close()
    assert others[0]() is False
    assert app.told == [*FINAL, ("open",), ("message", "second"), ("close", 1000, "")]


def test_ctrl_c_ends_a_run_and_the_one_that_was_begun_in_its_on_close(
    record: Record, interrupting: Callable[[Callable[[], Any]], Interrupter]
) -> None:
    inner: list[bool] = []
    has_ended = threading.Event()

    def on_close(*_: Any) -> None:
        del app.then["close"]
        inner.append(app.run())
        has_ended.set()

    def interrupt() -> None:
        raise KeyboardInterrupt

    def deliver() -> None:
        app.wait_for("open", times=2)
        wait_until(lambda: resting(app), "the inner run rests")
        interrupter.deliver()

    app = record(closes_first, then={"close": on_close})
    interrupter = interrupting(interrupt)
    delivered = background(deliver)
    assert app.run() is False
    delivered()
    assert has_ended.wait(PATIENCE)
    assert inner == [False]
    assert app.told == FINAL * 2
    wait_until(lambda: app._run is None, "the outer run is over")
    assert (app.sock, app.keep_running) == (None, False)


def test_stop_in_on_close_does_not_wait_for_itself_after_a_run_in_there(record: Record) -> None:
    def on_close(*_: Any) -> None:
        del app.then["close"]
        app.run()
        app.stop()

    app = record(lambda peer: peer.close(1000), then={"close": on_close})
    app.start()
    assert app.join(PATIENCE) is False
    assert app.told == FINAL * 2


# ---- foreign loops ----


@pytest.mark.parametrize("who", ["the callback", "another thread"])
def test_a_foreign_loops_callback_after_close_cannot_run_again_and_is_the_last_but_on_close(
    record: Record, who: str
) -> None:
    loop = SmallLoop()

    def handler(peer: Peer) -> None:
        peer.send("first", "second", "third")
        echo(peer)

    def run_again() -> None:
        app.close(timeout=0)
        with pytest.raises(WebSocketException, match="socket is already opened"):
            app.run(dispatcher=loop)

    app = record(handler)
    app.then["message"] = lambda _: run_again() if who == "the callback" else background(run_again)()
    assert app.run(dispatcher=loop) is False
    loop.dispatch()
    assert [call.name for call in app.calls] == ["open", "message", "close"]
    app.calls.clear()
    app.then["message"] = lambda _: app.close()
    assert app.run() is False, "and afterwards the app can be run again"
    assert app.told == [("open",), ("message", "first"), ("close", 1000, "")]


def test_a_foreign_loop_that_comes_late_tells_nothing_of_what_a_new_run_has_replaced(record: Record) -> None:
    loop = SmallLoop()
    in_callback = Blocked()

    def handler(peer: Peer) -> None:
        peer.send(f"from {len(peer.server.peers)}")
        echo(peer)

    app = record(handler, then={"message": in_callback})
    assert app.run(dispatcher=loop) is False
    app.close(timeout=0)
    app.start()
    assert in_callback.begun.wait(PATIENCE)
    loop.dispatch()
    in_callback.release.set()
    app.stop()
    assert [call for call in app.told if call[0] != "close"] == [("open",), ("message", "from 2")]


class RaisingFilter(logging.Filter):
    """Raises for the records that it is asked to."""

    def __init__(self, is_meant: Callable[[logging.LogRecord], Any]) -> None:
        super().__init__()
        self._is_meant = is_meant

    def filter(self, record: logging.LogRecord) -> bool:
        if self._is_meant(record):
            raise ValueError("in a filter")
        return True


@contextmanager
def raising(is_meant: Callable[[logging.LogRecord], Any]) -> Iterator[None]:
    """The package's logger has a filter that raises for some records."""
    logger = logging.getLogger("websocket")
    level = logger.level
    trouble = RaisingFilter(is_meant)
    logger.addFilter(trouble)
    try:
        yield
    finally:
        logger.removeFilter(trouble)
        logger.setLevel(level)


def test_an_attempt_of_a_foreign_loop_whose_thread_fails_ends_the_run(
    record: Record, aloud: list[Any], scheme: str
) -> None:
    def handler(peer: Peer) -> None:
        if len(peer.server.peers) == 1:
            peer.hang_up()
        else:
            echo(peer)

    def is_meant(record: logging.LogRecord) -> bool:
        return threading.current_thread().name.startswith("websocket-connect ")

    loop = SmallLoop()
    app = record(handler, scheme)
    with raising(is_meant):
        logging.getLogger("websocket").setLevel(logging.INFO)
        assert app.run(dispatcher=loop, reconnect=SOON) is False
        loop.dispatch()
    assert [call.name for call in app.calls] == ["open", "error", "close", "error", "close"]
    assert str(app.errors[1]) == "in a filter"
    assert app.told[-1] == ("close", None, None)
    wait_until(lambda: aloud, "the thread has said so aloud")
    assert [str(seen.exc_value) for seen in aloud] == ["in a filter"]
    assert (app.sock, app.keep_running, app.has_errored) == (None, False, True)


# ---- the rest ----


@dataclass
class Named(WebSocketApp):
    """A subclass with an __eq__, and so without a hash."""

    address: str

    def __post_init__(self) -> None:
        super().__init__(self.address)


def test_an_app_may_be_a_dataclass(serve: Callable[..., Server]) -> None:
    server = serve(echo)
    for app in (Named(server.url), Named(server.url)):
        answers: Queue[str] = Queue()
        app.on_message = lambda _, message: answers.put(message)  # noqa: B023  # called in this turn of the loop
        with app:
            app.send("hello")
            assert answers.get(timeout=PATIENCE) == "hello"


def test_a_pinger_that_dies_while_the_inbox_is_full_ends_the_connection(
    connect_to: Connect, aloud: list[Any], scheme: str
) -> None:
    def handler(peer: Peer) -> None:
        peer.send(*["x"] * 400)
        echo(peer)

    may_die = threading.Event()

    def is_meant(record: logging.LogRecord) -> bool:
        return may_die.is_set() and "Sent ping" in record.getMessage()

    enableTrace(True, logging.NullHandler())
    received: list[Any] = []
    try:
        with raising(is_meant):
            connection = connect_to(handler, scheme, ping_interval=0.02, max_inbox_messages=100)
            wait_until(lambda: connection._inbox.is_full(), "the inbox is full")
            may_die.set()
            wait_until(lambda: aloud, "the pinger is dead")
            with pytest.raises(WebSocketConnectionClosedException, match="in a filter"):
                while True:
                    received.append(connection.recv(timeout=PATIENCE / 4))
    finally:
        enableTrace(False)
        logging.getLogger("websocket").setLevel(logging.NOTSET)
    assert received == ["x"] * len(received)
    assert len(received) >= 100
    assert [str(seen.exc_value) for seen in aloud] == ["in a filter"]
