"""Sending and asking from any thread with a WebSocketApp, and what its runs leave behind."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocketApp,
    WebSocketConnectionClosedException,
    WebSocketException,
    create_connection,
)
from websocket.testing import Peer, Server

from .conftest import PATIENCE, background, run_all, wait_until
from .recorder import Record, Recorder, resting


def start(app: Recorder, **options: Any) -> WebSocketApp:
    return app.start(**app.trusting(options))


# ---- sending ----


@pytest.mark.parametrize("method", ["send", "send_text", "send_bytes"])
def test_sending_without_a_connection_is_refused(record: Record, method: str) -> None:
    app = record()
    data: Any = b"x" if method == "send_bytes" else "x"
    refused: list[Exception] = []

    def send_too_late(*_: Any) -> None:
        with pytest.raises(WebSocketConnectionClosedException) as caught:
            getattr(app, method)(data)
        refused.append(caught.value)

    send_too_late()
    app.then["open"] = app.close
    app.then["close"] = send_too_late
    app.run()
    send_too_late()
    assert len(refused) == 3


def test_sending_before_the_connection_stands_is_refused(record: Record) -> None:
    app = record(Peer.stall, raw=True)
    running = background(app.run)
    wait_until(lambda: app.server and app.server.peers and app.sock, "connecting")
    assert not app.ready()
    with pytest.raises(WebSocketConnectionClosedException):
        app.send("too early")
    app.close()
    assert running() is False


def test_each_kind_of_message_arrives_as_what_it_is(record: Record, scheme: str) -> None:
    app = record(scheme=scheme)
    start(app)
    app.send("é")
    app.send(b"\xc3\xa9", 1)
    app.send(b"\xff", 2)
    app.send_text("text")
    app.send_bytes(bytearray(b"\x00"))
    app.wait_for("message", times=5)
    app.send("ping", 9)
    app.wait_for("pong")
    app.stop()
    assert [call[1] for call in app.told[1:-1]] == ["é", "é", b"\xff", "text", b"\x00", b"ping"]
    with pytest.raises(ValueError, match="OPCODE"):
        start(app).send("x", 3)
    app.stop()


def test_eight_threads_send_at_once_and_each_ones_messages_arrive_in_order(record: Record, scheme: str) -> None:
    count = 200
    app = record(scheme=scheme)
    start(app)

    def sender(number: int) -> Callable[[], None]:
        def send() -> None:
            for index in range(count):
                (app.send if index % 2 else app.send_text)(f"{number} {index} " + "x" * (index % 7 * 1000))

        return send

    run_all(*[sender(number) for number in range(8)])
    app.wait_for("message", times=8 * count)
    app.stop()
    got = [call[1].split()[:2] for call in app.told if call[0] == "message"]
    for number in range(8):
        assert [index for sent_by, index in got if sent_by == str(number)] == [str(index) for index in range(count)]


def test_any_thread_may_ask_and_send_while_connections_come_and_go(record: Record) -> None:
    """The outcome is a result or an exception of the package."""
    app = record(lambda peer: (peer.send("x"), peer.close(1011)))
    done = threading.Event()
    asked = [
        lambda: app.sock.connected,  # type: ignore[union-attr]
        lambda: app.sock.sock.getpeername(),  # type: ignore[union-attr]
        lambda: app.sock.sock.pending(),  # type: ignore[union-attr]
        lambda: app.sock.ping(),  # type: ignore[union-attr]
        lambda: app.sock.unsent,  # type: ignore[union-attr]
        lambda: app.sock.getstatus(),  # type: ignore[union-attr]
        lambda: app.sock.close_frame,  # type: ignore[union-attr]
        lambda: app.send("y"),
        lambda: app.send_bytes(b"y"),
        lambda: (app.ready(), app.latency, app.last_ping_tm, app.last_pong_tm, app.keep_running),
    ]

    def ask() -> None:
        while not done.wait(0.0001):  # so that others run, too
            for question in asked:
                try:
                    question()
                except WebSocketException:
                    pass
                except AttributeError as error:
                    # The one that the program makes itself, where it looks at None.
                    assert str(error).startswith("'NoneType' object has no attribute")
                    assert error.__traceback__ is not None
                    assert error.__traceback__.tb_next is not None
                    assert error.__traceback__.tb_next.tb_next is None, "from inside the package"

    def run() -> None:
        try:
            app.run(reconnect=0.001)
        finally:
            done.set()

    def stop() -> None:
        app.wait_for("open", times=40)
        app.stop()

    run_all(run, stop, ask, ask, ask)
    names = [call.name for call in app.calls]
    assert names.count("open") >= 40
    assert names.count("open") <= names.count("close") <= names.count("open") + 1
    assert app.overlaps == []


# ---- what a run leaves behind ----


@pytest.mark.parametrize("how", ["peer", "close()", "reset", "refused", "callback", "SystemExit", "start"])
def test_nothing_holds_an_app_after_its_run(
    serve: Callable[..., Server], deaf_port: int, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.CRITICAL, "websocket")  # what is logged is kept by pytest, with the exception's traceback
    server = serve(Peer.reset if how == "reset" else (lambda peer: peer.send("hello")))
    app = WebSocketApp(f"ws://127.0.0.1:{deaf_port}" if how == "refused" else server.url)
    if how == "close()":
        app.on_open = WebSocketApp.close
    if how == "callback":
        app.on_message = lambda app, message: app.nonsense
    if how == "SystemExit":
        app.on_message = lambda app, message: (_ for _ in ()).throw(SystemExit)
    if how == "start":
        app.start()
        app.join()
    else:
        try:
            app.run_forever()
        except SystemExit:
            pass
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_an_app_that_took_anothers_place_leaves_the_first_one_free(serve: Callable[..., Server]) -> None:
    server = serve()
    first = WebSocketApp(server.url).start()
    gone = weakref.ref(first)
    second = WebSocketApp(server.url).start()
    first.stop()
    del first
    gc.collect()
    assert gone() is None
    second.stop()


def switches(threads: list[threading.Thread]) -> list[str]:
    """How often each thread has gone to sleep so far."""
    result = []
    for thread in threads:
        with open(f"/proc/self/task/{thread.native_id}/status") as status:
            result += [line for line in status if line.startswith("voluntary_ctxt_switches")]
    return result


def test_a_connection_at_rest_wakes_no_thread(record: Record, serve: Callable[..., Server], scheme: str) -> None:
    """After some messages there comes a time of half a second in which none of its threads runs."""
    app = record(scheme=scheme)
    before = set(threading.enumerate())
    start(app)
    app.send("hello")
    app.wait_for("message", "hello")
    mine = [t for t in set(threading.enumerate()) - before if t.name.startswith("websocket-")]
    assert len(mine) == 2  # nothing was left to a writer
    deadline = time.monotonic() + PATIENCE
    with create_connection(serve().url) as other:
        rested = False
        while not rested:
            assert time.monotonic() < deadline, "the threads wake up again and again"
            earlier = switches(mine)
            pause = time.monotonic() + 0.5
            while time.monotonic() < pause:  # work on another connection
                other.send("x")
                other.recv()
            rested = switches(mine) == earlier
    assert resting(app)
    app.stop()
