"""close() of a WebSocketApp: from every callback and thread, in every state of a run."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import ABNF, WebSocketConnectionClosedException, WebSocketException
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, run_all, wait_until
from .recorder import CALLBACKS, Blocked, Oops, Record, Recorder, everything, once

CLOSE_1000 = (ABNF.OPCODE_CLOSE, b"\x03\xe8")


@pytest.mark.parametrize("name", CALLBACKS)
def test_close_in_a_callback_ends_the_run_with_nothing_but_on_close_after_it(
    record: Record, scheme: str, name: str
) -> None:
    collected = Collected()
    app = record(everything(collected), scheme, names=CALLBACKS)
    if name == "error":
        app.then["open"] = once(Oops())
    if name == "close":
        app.then["message"] = lambda _: app.close()
    app.then[name] = lambda *_: app.close()
    assert app.run() is False
    names = [call.name for call in app.calls]
    assert names[-2:] == ([name, "close"] if name != "close" else ["message", "close"])
    assert names.count(name) == 1 if name != "message" else True
    assert app.told[-1] == ("close", 1000, "")
    assert collected.done.wait(PATIENCE)
    assert collected.frames[-1] == CLOSE_1000
    assert collected.after_close == b""
    assert not app.has_errored


def test_close_in_a_callback_drops_the_rest_of_the_batch(record: Record) -> None:
    def handler(peer: Peer) -> None:
        peer.send(*(str(number) for number in range(1000)))
        peer.recv()

    app = record(handler, names=("message", "close"))
    app.then["message"] = lambda message: message == "5" and app.close()
    assert app.run() is False
    assert app.told == [*(("message", str(number)) for number in range(6)), ("close", 1000, "")]


def test_close_in_a_callback_returns_before_the_server_has_answered(record: Record, scheme: str) -> None:
    """And what was sent before it is sent before the close frame."""
    collected = Collected(gate=False)
    app = record(collected, scheme)

    def close() -> None:
        app.send("first")
        app.close(timeout=PATIENCE)
        assert not app.ready()
        with pytest.raises(WebSocketConnectionClosedException):
            app.send("refused")
        collected.gate.set()

    app.then["open"] = close
    assert app.run() is False
    assert app.told == [("open",), ("close", 1000, "")]
    assert collected.frames == ["first", CLOSE_1000]


@pytest.mark.parametrize("name", ["open", "message", "ping"])
def test_close_in_a_callback_is_bounded_where_the_server_never_answers(record: Record, scheme: str, name: str) -> None:
    app = record(everything(Peer.stall), scheme)
    app.then[name] = lambda *_: app.close(timeout=0.1)
    assert app.run() is False
    assert app.told[-1] == ("close", None, None)
    assert app.errors == []


def flood(peer: Peer) -> None:
    """Send until the client is gone, and read nothing."""
    while not peer.server.stopping.is_set():
        peer.send(*["x" * 100] * 100)


def test_close_in_a_callback_is_bounded_where_the_server_only_sends(record: Record, scheme: str) -> None:
    """Its messages come all the time, and do not put off the end."""
    app = record(flood, scheme)
    app.then["message"] = lambda _: app.close(timeout=0.1)
    assert app.run() is False
    assert app.told == [("open",), ("message", "x" * 100), ("close", None, None)]


def test_the_timeout_of_close_in_a_callback_holds_though_frames_come_after_it(record: Record) -> None:
    """Also where it is longer than that of a close() without one: the server answers when the test says so."""
    go = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send("first")
        assert closing.wait(PATIENCE)
        peer.send("second")
        assert go.wait(PATIENCE)
        assert peer.recv() is None

    closing = threading.Event()
    app = record(handler)
    app.then["message"] = lambda _: (app.close(timeout=None), closing.set())
    running = background(app.run)
    assert closing.wait(PATIENCE)
    run: Any = app._run
    wait_until(lambda: run.connection._callback_reader._batches == 3, "the second message has come")
    wait_until(lambda: not run.connection._callback_reader._calling, "it was looked at")
    assert run.connection._callback_reader.close_by is None
    go.set()
    assert running() is False
    assert app.told == [("open",), ("message", "first"), ("close", 1000, "")]


def test_close_from_another_thread_ends_the_run_and_waits_for_it(record: Record, scheme: str) -> None:
    collected = Collected()
    app = record(collected, scheme)
    running = background(app.run)
    app.wait_for("open")
    app.send("hello")
    app.close(timeout=PATIENCE)
    assert app.told == [("open",), ("close", 1000, "")]
    assert running() is False
    assert collected.frames == ["hello", CLOSE_1000]


def test_close_carries_its_code_and_reason(record: Record) -> None:
    collected = Collected()
    app = record(collected)
    running = background(app.run)
    app.wait_for("open")
    app.close(status=4001, reason="genug é", timeout=PATIENCE)
    assert running() is False
    assert collected.frames == [(ABNF.OPCODE_CLOSE, b"\x0f\xa1" + "genug é".encode())]
    assert app.told[-1] == ("close", 1000, ""), "what the server's close frame says"


def test_close_from_another_thread_is_bounded_where_the_server_never_answers(record: Record, scheme: str) -> None:
    app = record(Peer.stall, scheme)
    running = background(app.run)
    app.wait_for("open")
    app.close(timeout=0.1)
    assert running() is False
    assert app.told == [("open",), ("close", None, None)]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"status": 1005}, ValueError),
        ({"status": 99}, ValueError),
        ({"reason": "x" * 124}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "soon"}, ValueError),
        ({"code": 1000}, TypeError),
    ],
)
def test_close_with_arguments_that_make_no_sense_changes_nothing(
    record: Record, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    app = record()
    running = background(app.run)
    app.wait_for("open")
    with pytest.raises(kind):
        app.close(**arguments)
    assert app.keep_running
    assert app.ready()
    app.send("still here")
    app.wait_for("message", "still here")
    app.close()
    assert running() is False


@pytest.mark.parametrize("arguments", [{"status": 1005}, {"timeout": -1}, {"code": 1000}])
def test_close_with_arguments_that_make_no_sense_says_so_without_a_run_too(
    record: Record, arguments: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        record().close(**arguments)


def test_close_before_a_run_does_nothing(record: Record) -> None:
    app = record(lambda peer: peer.send("hello"))
    app.close()
    app.close(timeout=0)
    assert app.told == []
    assert app.run() is False
    assert app.told == [("open",), ("message", "hello"), ("close", 1000, "")]
    app.close()
    assert len(app.told) == 3


def test_close_twice_is_as_good_as_once(record: Record) -> None:
    app = record()
    app.then["open"] = lambda: (app.close(), app.close(status=4000))
    app.then["close"] = lambda *_: app.close()
    assert app.run() is False
    app.close()
    assert app.told == [("open",), ("close", 1000, "")]


def test_close_from_eight_threads_at_once(record: Record, scheme: str) -> None:
    collected = Collected()
    app = record(collected, scheme)
    running = background(app.run)
    app.wait_for("open")
    run_all(*[app.close] * 8)
    assert running() is False
    assert app.told == [("open",), ("close", 1000, "")]
    assert collected.frames == [CLOSE_1000]


def test_close_races_the_servers_close(record: Record) -> None:
    for _ in range(20):
        go = threading.Event()
        app = record(lambda peer, go=go: (go.wait(PATIENCE), peer.close(1001, "bye")))
        running = background(app.run)
        app.wait_for("open")
        run_all(app.close, go.set)
        assert running() is False
        assert [call.name for call in app.calls] == ["open", "close"]


# ---- before a connection stands ----


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that connecting to it does not come to an end."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            yield port


def test_close_ends_connecting(full_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{full_port}")
    running = background(lambda: app.run(reconnect=3600))
    wait_until(lambda: app.sock is not None and app.sock._attempt is not None, "connect() is under way")
    app.close()
    assert running() is False
    assert app.told == [("close", None, None)]
    assert (app.sock, app.keep_running, app.has_errored) == (None, False, False)


@pytest.mark.parametrize("stage", ["TLS", "handshake"])
def test_close_ends_a_handshake_that_is_never_answered(record: Record, scheme: str, stage: str) -> None:
    if stage == "TLS":
        app = record(Peer.stall, raw=True)
        app.url = app.url.replace("ws:", "wss:")
    else:
        app = record(Peer.stall, scheme, raw=True)
    running = background(app.run)
    wait_until(lambda: app.server and app.server.peers, "the server has accepted")
    app.close(status=1000, reason="late", timeout=PATIENCE)
    assert running() is False
    assert app.told == [("close", None, None)]


def test_close_in_the_header_function_ends_the_run(record: Record) -> None:
    app = record()
    app.header = lambda: app.close()
    assert app.run(reconnect=3600) is False
    assert app.told == [("close", None, None)]
    assert app.server is not None
    assert app.server.peers == []


def test_close_in_the_retry_function_ends_the_run(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    assert app.run(reconnect=3600, retry=lambda error: app.close() is None) is False
    assert app.told == [("error",), ("close", None, None)]


def test_close_in_on_error_of_an_attempt_ends_the_run(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    app.then["error"] = lambda _: app.close()
    app.run(reconnect=3600)
    assert app.told == [("error",), ("close", None, None)]


def test_close_during_the_wait_for_the_next_attempt_ends_the_run_at_once(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    running = background(lambda: app.run(reconnect=3600))
    wait_until(lambda: app._run is not None and app._run.changed._waiters, "the run waits")  # type: ignore[attr-defined]
    app.close()
    assert running() is False
    assert app.told == [("error",), ("close", None, None)]


class Acts(logging.Handler):
    """Does something when a line with a certain text is logged, in the thread that logs it."""

    def __init__(self, text: str, act: Callable[[], Any]) -> None:
        super().__init__()
        self._text = text
        self._act = act
        self.has_acted = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.has_acted = True
            self._act()


@pytest.fixture
def when_logged() -> Iterator[Callable[[str, Callable[[], Any]], Acts]]:
    """Does something at the moment in which a text is logged, for the time of the test."""
    logger = logging.getLogger("websocket")
    level, handlers = logger.level, list(logger.handlers)

    def install(text: str, act: Callable[[], Any]) -> Acts:
        handler = Acts(text, act)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return handler

    yield install
    logger.setLevel(level)
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)


@pytest.mark.parametrize("way", ["close", "keep_running", "shutdown", "close and start"])
def test_an_end_between_connecting_and_on_open_is_told_by_on_close_alone(
    record: Record, when_logged: Callable[..., Acts], way: str
) -> None:
    """The connection is closed, and its threads have ended, before callbacks could begin."""
    app = record()
    acts = {
        "close": app.close,
        "close and start": app.close,
        "shutdown": lambda: app.sock.shutdown(),  # type: ignore[union-attr]
        "keep_running": lambda: setattr(app, "keep_running", False),
    }
    handler = when_logged("connected", acts[way])
    if way == "close and start":
        with pytest.raises(WebSocketConnectionClosedException):
            app.start()
        assert app.join() is False
    else:
        assert app.run() is False
    assert handler.has_acted
    assert app.told in ([("close", None, None)], [("open",), ("close", 1000, "")])
    assert (app.sock, app.keep_running) == (None, False)


# ---- while a callback takes long ----


def test_close_is_bounded_while_a_callback_is_stuck(record: Record, scheme: str) -> None:
    stuck = Blocked()
    app = record(scheme=scheme)
    app.then["message"] = stuck
    running = background(app.run)
    app.wait_for("open")
    app.send("hello")
    assert stuck.begun.wait(PATIENCE)
    app.close(timeout=0.1)
    assert app.told == [("open",), ("message", "hello")], "the callback is still running"
    with pytest.raises(WebSocketException, match="already opened"):
        app.run()
    stuck.release.set()
    assert running() is False
    assert [call.name for call in app.calls] == ["open", "message", "close"]


def test_close_waits_for_the_callback_that_is_running(record: Record) -> None:
    slow = Blocked()
    app = record()
    app.then["message"] = slow
    running = background(app.run)
    app.wait_for("open")
    app.send("hello")
    assert slow.begun.wait(PATIENCE)
    closing = background(lambda: app.close(timeout=None))
    wait_until(lambda: not app.ready(), "close() has begun")
    assert len(app.told) == 2
    slow.release.set()
    closing()
    assert app.told == [("open",), ("message", "hello"), ("close", 1000, "")]
    assert running() is False


def test_messages_that_waited_for_a_slow_callback_are_not_delivered_after_close(record: Record) -> None:
    slow = Blocked()

    def handler(peer: Peer) -> None:
        peer.send("first")
        assert slow.begun.wait(PATIENCE)
        peer.send("second")
        peer.recv()

    app = record(handler)
    app.then["message"] = slow
    running = background(app.run)
    assert slow.begun.wait(PATIENCE)
    wait_until(lambda: app.sock.sock.pending(), "the second message waits")  # type: ignore[union-attr]
    closing = background(lambda: app.close(timeout=PATIENCE))
    wait_until(lambda: not app.ready(), "close() has begun")
    slow.release.set()
    closing()
    assert running() is False
    assert app.told == [("open",), ("message", "first"), ("close", 1000, "")]
