"""Ctrl-C and other signals in the thread of WebSocketApp.run_forever(), whatever it is doing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from websocket import ABNF, WebSocketException
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, Interrupter, background, wait_until
from .recorder import Blocked, Leave, Record, Recorder, resting

CLOSE_1000 = (ABNF.OPCODE_CLOSE, b"\x03\xe8")

Interrupting = Callable[[Callable[[], Any]], Interrupter]


def ctrl_c() -> None:
    raise KeyboardInterrupt


def leave() -> None:
    raise Leave


def when(state: Callable[[], Any], what: str, interrupter: Interrupter) -> Callable[[], None]:
    """Interrupt the main thread, from another one, when a state is reached."""

    def deliver() -> None:
        wait_until(state, what)
        interrupter.deliver()

    return background(deliver)


@pytest.mark.parametrize("options", [{}, {"ping_interval": 3600}, {"ping_interval": 3600, "ping_timeout": 1800}])
def test_ctrl_c_at_rest_closes_and_returns_false(
    record: Record, interrupting: Interrupting, scheme: str, options: dict[str, Any]
) -> None:
    collected = Collected()
    app = record(collected, scheme)
    app.then["open"] = lambda: app.send("hello")
    delivered = when(lambda: resting(app), "the connection rests", interrupting(ctrl_c))
    assert app.run(**options) is False
    delivered()
    assert app.told == [("open",), ("close", 1000, "")]
    assert app.calls[-1].thread.startswith("websocket-reader ")
    assert collected.frames == ["hello", CLOSE_1000]
    assert (app.sock, app.keep_running, app.has_errored) == (None, False, False)
    app.then["open"] = app.close
    assert app.run() is False, "the app can be run again"


def test_ctrl_c_is_bounded_where_the_server_never_answers(record: Record, interrupting: Interrupting) -> None:
    app = record(Peer.stall)
    delivered = when(lambda: resting(app), "the connection rests", interrupting(ctrl_c))
    assert app.run() is False
    delivered()
    assert app.told == [("open",), ("close", None, None)]


def test_ctrl_c_during_the_handshake_returns_false(record: Record, interrupting: Interrupting, scheme: str) -> None:
    app = record(Peer.stall, scheme, raw=True)
    delivered = when(lambda: app.server and app.server.peers, "the server has accepted", interrupting(ctrl_c))
    assert app.run(reconnect=3600) is False
    delivered()
    assert app.told == [("close", None, None)]
    assert (app.sock, app.keep_running) == (None, False)


def test_ctrl_c_during_the_wait_for_the_next_attempt_returns_false(deaf_port: int, interrupting: Interrupting) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    delivered = when(
        lambda: app._run is not None and app._run.changed._waiters,  # type: ignore[attr-defined]
        "the run waits",
        interrupting(ctrl_c),
    )
    assert app.run(reconnect=3600) is False
    delivered()
    assert app.told == [("error",), ("close", None, None)]


@pytest.mark.parametrize("reading", [False, True])
def test_ctrl_c_does_not_wait_for_a_callback_that_is_stuck(
    record: Record, interrupting: Interrupting, reading: bool
) -> None:
    """Before and after the main thread reads in its place; on_close comes when it has returned."""
    stuck = Blocked()
    app = record()
    app.then["open"] = lambda: app.send("hello")
    app.then["message"] = stuck

    def is_reached() -> bool:
        if not stuck.begun.is_set():
            return False
        return not reading or bool(app._run.connection.inbox.turn.holder)  # type: ignore[union-attr]

    delivered = when(is_reached, "the callback is stuck", interrupting(ctrl_c))
    assert app.run() is False
    delivered()
    assert not stuck.release.is_set()
    assert [call.name for call in app.calls] == ["open", "message"]
    with pytest.raises(WebSocketException, match="already opened"):
        app.run()
    stuck.release.set()
    app.wait_for("close")
    assert [call.name for call in app.calls] == ["open", "message", "close"]
    assert app.overlaps == []
    wait_until(lambda: app._run is None, "the run is over")
    app.then["open"] = app.close
    assert app.run() is False


@pytest.mark.parametrize("before", [True, False])
def test_ctrl_c_just_as_the_main_thread_begins_to_read_leaves_nothing_taken(
    record: Record, interrupting: Interrupting, before: bool
) -> None:
    slow = Blocked()
    app = record()
    main = threading.get_ident()

    def arm() -> None:
        turn: Any = app._run.connection.inbox.turn  # type: ignore[union-attr]
        take = turn.take

        def interrupted() -> None:
            if threading.get_ident() != main:
                take()
                return
            del turn.take
            if not before:
                take()
            slow.release.set()
            signal.raise_signal(signal.SIGUSR1)

        turn.take = interrupted
        slow()

    interrupting(ctrl_c)._armed = True
    app.then["open"] = arm
    assert app.run() is False
    assert app.told[0] == ("open",)
    app.wait_for("close")
    assert [call.name for call in app.calls] == ["open", "close"]
    wait_until(lambda: app._run is None, "the run is over")


def test_what_another_signal_handler_raises_comes_out_after_on_close(
    record: Record, interrupting: Interrupting, scheme: str
) -> None:
    app = record(scheme=scheme)
    delivered = when(lambda: resting(app), "the connection rests", interrupting(leave))
    with pytest.raises(Leave):
        app.run()
    delivered()
    assert app.told[0] == ("open",)
    assert [call.name for call in app.calls] == ["open", "close"]
    assert (app.sock, app.keep_running) == (None, False)


@pytest.mark.parametrize("reading", [False, True])
def test_a_signal_handler_may_close(record: Record, interrupting: Interrupting, scheme: str, reading: bool) -> None:
    """At rest, and while the main thread reads because a callback takes long."""
    slow = Blocked()
    collected = Collected()
    app = record(collected, scheme)

    def close() -> None:
        app.close(timeout=0.1 if reading else PATIENCE)
        slow.release.set()

    if reading:
        app.then["open"] = slow
    state = (lambda: app._run and app._run.connection.inbox.turn.holder) if reading else (lambda: resting(app))  # type: ignore[union-attr]
    if reading:
        delivered = when(lambda: slow.begun.is_set() and state(), "the main thread reads", interrupting(close))
    else:
        delivered = when(state, "the connection rests", interrupting(close))
    assert app.run() is False
    delivered()
    assert [call.name for call in app.calls] == ["open", "close"]
    assert collected.done.wait(PATIENCE)
    assert collected.frames == [CLOSE_1000]


def test_ctrl_c_while_a_callback_of_the_main_threads_own_runs_comes_out(
    deaf_port: int, interrupting: Interrupting
) -> None:
    """It is the callback that is interrupted, so it counts as what the callback raised."""
    stuck = Blocked()
    app = Recorder(f"ws://127.0.0.1:{deaf_port}", then={"error": stuck})
    delivered = when(stuck.begun.is_set, "the callback runs", interrupting(ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        app.run(reconnect=3600)
    delivered()
    assert app.told == [("error",), ("close", None, None)]


def test_ctrl_c_during_start_comes_out_and_ends_the_run(record: Record, interrupting: Interrupting) -> None:
    app = record(Peer.stall, raw=True)
    delivered = when(lambda: app.server and app.server.peers, "the server has accepted", interrupting(ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        app.start()
    delivered()
    assert app.join(PATIENCE) is False
    assert app.told == [("close", None, None)]
    assert (app.sock, app.keep_running) == (None, False)


# The signal is sent until it is handled, since CPython may look just before the system call.
SCRIPT = """
import signal
import sys
import websocket

def once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, once)

def on_open(app):
    print("open", flush=True)

def on_close(app, code, reason):
    print("close", code, flush=True)

app = websocket.WebSocketApp(sys.argv[1], on_open=on_open, on_close=on_close)
print(app.run_forever(ping_interval=float(sys.argv[2])), flush=True)
"""


@pytest.mark.parametrize("ping_interval", ["0", "3600"])
def test_a_real_ctrl_c_ends_a_program(record: Record, ping_interval: str) -> None:
    app = record()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", SCRIPT, app.url, ping_interval],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        deadline = time.monotonic() + PATIENCE
        while program.poll() is None:
            assert time.monotonic() < deadline, "the program does not end"
            program.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(0.2)
        output, errors = program.communicate()
    assert (output, errors, program.returncode) == ("close 1000\nFalse\n", "", 0)
