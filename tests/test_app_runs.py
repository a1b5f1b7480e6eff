"""The runs of a WebSocketApp: keep_running, one run after another, one in the place of another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, WebSocketException
from websocket.testing import Peer, echo

from .conftest import PATIENCE, background, wait_until
from .recorder import CALLBACKS, Record, Recorder, everything, resting

# ---- keep_running ----


def test_keep_running_tells_whether_a_run_is_wanted(record: Record) -> None:
    app = record()
    seen = []
    for name in ("open", "close"):
        app.then[name] = lambda *_: seen.append(app.keep_running)
    assert not app.keep_running
    running = background(app.run)
    app.wait_for("open")
    assert app.keep_running
    app.close()
    assert running() is False
    assert seen == [True, False]


@pytest.mark.parametrize("opcode", [ABNF.OPCODE_TEXT, ABNF.OPCODE_PING, ABNF.OPCODE_PONG])
def test_keep_running_set_to_false_ends_the_run_at_the_next_frame(record: Record, scheme: str, opcode: int) -> None:
    go = threading.Event()

    def handler(peer: Peer) -> None:
        assert go.wait(PATIENCE)
        peer.send_frame(opcode, b"next")
        assert peer.recv() is None

    app = record(handler, scheme)
    running = background(app.run)
    wait_until(lambda: resting(app), "the connection rests")
    app.keep_running = False
    go.set()
    assert running() is False
    assert app.told == [("open",), ("close", 1000, "")]


@pytest.mark.parametrize("name", ["message", "ping", "pong", "data", "cont_message"])
def test_keep_running_set_to_false_in_a_callback_ends_the_run(record: Record, name: str) -> None:
    app = record(everything(echo), names=CALLBACKS)
    app.then[name] = lambda *_: setattr(app, "keep_running", False)
    assert app.run() is False
    names = [call.name for call in app.calls if call.name not in ("data", "message")]
    assert names[-1] == "close"
    if name in names:
        assert names[-2] == name
    assert ("message", "two") not in app.told
    assert app.told[-1] == ("close", 1000, "")


def test_keep_running_set_to_false_ends_the_wait_for_the_next_attempt_at_once(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    running = background(lambda: app.run(reconnect=3600))
    wait_until(lambda: app._run is not None and app._run.changed._waiters, "the run waits")  # type: ignore[attr-defined]
    app.keep_running = False
    assert running() is False
    assert app.told == [("error",), ("close", None, None)]


# ---- once more ----

FIRST_ENDS: dict[str, Callable[[Peer], Any]] = {
    "1000": lambda peer: peer.close(1000),
    "1011": lambda peer: peer.close(1011, "broken"),
    "reset": Peer.reset,
    "end of the stream": Peer.hang_up,
    "bad UTF-8": lambda peer: peer.send_raw(b"\x81\x02\xc3\x28"),
    "in a fragmented message": lambda peer: (peer.send_raw(b"\x01\x03abc"), peer.hang_up()),
    "close()": lambda peer: peer.send("close"),
    "SystemExit": lambda peer: peer.send("exit"),
}


@pytest.mark.parametrize("name", FIRST_ENDS)
def test_a_run_after_any_end_begins_afresh(record: Record, scheme: str, name: str) -> None:
    def handler(peer: Peer) -> None:
        assert app.server is not None
        if len(app.server.peers) == 1:
            FIRST_ENDS[name](peer)
            peer.recv()
        else:
            echo(peer)

    def on_message(message: str) -> None:
        if message == "close":
            app.close()
        elif message == "exit":
            raise SystemExit

    app = record(handler, scheme)
    app.then["message"] = on_message
    try:
        first = app.run()
    except SystemExit:
        first = False
    assert first is (name not in ("1000", "close()", "SystemExit"))
    assert app.has_errored is first
    assert app.told[-1][0] == "close"
    app.calls.clear()
    app.then["open"] = lambda: app.send("hello")
    app.then["message"] = lambda _: (app.send("again"), app.then.__setitem__("message", lambda _: app.close()))
    assert app.run() is False
    assert app.told == [("open",), ("message", "hello"), ("message", "again"), ("close", 1000, "")]
    assert not app.has_errored
    assert [call.has_errored for call in app.calls] == [False] * 4
    assert app.last_close_frame is not None


def test_a_new_run_forgets_how_the_last_one_ended(record: Record) -> None:
    seen: list[Any] = []
    app = record(lambda peer: peer.close(1011))
    app.then["open"] = lambda: seen.append((app.has_errored, app.last_close_frame))
    assert app.run() is True
    assert app.run() is True
    assert seen == [(False, None)] * 2


def test_three_hundred_runs_of_one_app(record: Record) -> None:
    app = record(lambda peer: peer.close(1000))
    for _ in range(300):
        assert app.run() is False
    assert [call.name for call in app.calls] == ["open", "close"] * 300


def test_run_forever_while_it_runs_says_that_it_is_open(record: Record) -> None:
    app = record()
    running = background(app.run)
    app.wait_for("open")
    for begin in (app.run_forever, app.start):
        with pytest.raises(WebSocketException, match="socket is already opened"):
            begin()
    app.send("undisturbed")
    app.wait_for("message", "undisturbed")
    app.close()
    assert running() is False


@pytest.mark.parametrize("name", ["open", "message", "ping"])
def test_run_forever_in_a_callback_says_that_it_is_open(record: Record, name: str) -> None:
    app = record(everything(lambda peer: peer.close()))
    app.then[name] = lambda *_: app.run_forever()
    assert app.run() is False
    assert {str(error).split(":")[0] for error in app.errors} == {"socket is already opened"}


@pytest.mark.parametrize("how", ["1000", "1011", "refused", "close()"])
def test_run_forever_in_on_close_runs_again(record: Record, deaf_port: int, how: str) -> None:
    results: list[Any] = []

    def handler(peer: Peer) -> None:
        peer.send(str(len(peer.server.peers)))
        if how == "1011" and len(peer.server.peers) == 1:
            peer.close(1011)
        elif how == "close()":
            peer.recv()

    app = record(handler)
    url = app.url

    def on_close(*_: Any) -> None:
        del app.then["close"]
        app.url = url
        results.append(app.run())

    if how == "refused":
        app.url = f"ws://127.0.0.1:{deaf_port}"
    if how == "close()":
        app.then["message"] = lambda _: app.close()
    app.then["close"] = on_close
    app.run()
    assert results == [False]
    first = {
        "1000": [("open",), ("message", "1"), ("close", 1000, "")],
        "1011": [("open",), ("message", "1"), ("error",), ("close", 1011, "")],
        "refused": [("error",), ("close", None, None)],
        "close()": [("open",), ("message", "1"), ("close", 1000, "")],
    }[how]
    number = "1" if how == "refused" else "2"
    assert app.told == [*first, ("open",), ("message", number), ("close", 1000, "")]
    assert (app.sock, app.keep_running, app.has_errored) == (None, False, False)
    app.calls.clear()
    app.then["open"] = app.close
    assert app.run() is False, "and the app can be run again"
    assert app.told == [("open",), ("close", 1000, "")]
