"""start(), join(), stop() and the with statement of a WebSocketApp."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from websocket import (
    WebSocketApp,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketConnectionRefusedException,
    WebSocketException,
)
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, run_all, wait_until
from .recorder import Blocked, Leave, Oops, Record, Recorder, once


def start(app: Recorder, **options: Any) -> WebSocketApp:
    return app.start(**app.trusting(options))


def test_start_returns_once_the_connection_stands(record: Record, scheme: str) -> None:
    app = record(scheme=scheme)
    before = threading.current_thread()
    assert start(app) is app
    assert threading.current_thread() is before
    assert app.ready()
    app.send("hello")
    app.wait_for("message", "hello")
    app.stop()
    assert app.join() is False
    assert app.told == [("open",), ("message", "hello"), ("close", 1000, "")]


def test_start_waits_for_on_open(record: Record) -> None:
    slow = Blocked()
    app = record()
    app.then["open"] = slow
    starting = background(app.start)
    assert slow.begun.wait(PATIENCE)
    wait_until(lambda: app._run.connection.inbox.turn.holder, "the run's thread looks on")  # type: ignore[union-attr]
    run: Any = app._run
    assert run.changed._waiters, "start() has returned before on_open has"
    slow.release.set()
    assert starting() is app
    app.stop()


def test_an_exception_in_on_open_does_not_keep_start_from_returning(record: Record) -> None:
    app = record(then={"open": once(Oops())})
    assert app.start() is app
    assert app.ready()
    app.stop()


def test_start_raises_what_went_wrong(record: Record, deaf_port: int) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    app = record(refuse, raw=True)
    with pytest.raises(WebSocketBadStatusException, match="403") as caught:
        app.start()
    assert app.errors == [caught.value]
    assert app.told == [("error",), ("close", None, None)]
    assert app.join() is True
    app.url = f"ws://127.0.0.1:{deaf_port}"
    with pytest.raises(WebSocketConnectionRefusedException):
        app.start()


def test_start_raises_for_mistakes_as_run_forever_does(record: Record) -> None:
    app = record()
    with pytest.raises(TypeError, match="nonsense"):
        app.start(nonsense=1)
    with pytest.raises(ValueError, match="reconnect"):
        app.start(reconnect=-1)
    with pytest.raises(WebSocketException, match="dispatcher"):
        app.start(dispatcher=object())
    with pytest.raises(TypeError):
        Recorder(app.url, get_mask_key=5).start()  # type: ignore[arg-type]
    assert app.told == []
    app.start()
    app.stop()


def test_start_raises_where_it_is_closed_before_a_connection_stands(record: Record) -> None:
    app = record(Peer.stall, raw=True)
    starting = background(app.start)
    wait_until(lambda: app.server and app.server.peers, "the server has accepted")
    app.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        starting()
    assert app.join() is False


def test_start_with_reconnect_waits_for_the_attempt_that_succeeds() -> None:
    """The server comes to listen on its port after some attempts have been refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        def on_error(_: Exception) -> None:
            if len(app.errors) == 3:
                listener.listen()
                listening.set()

        listening = threading.Event()
        app = Recorder(f"ws://127.0.0.1:{listener.getsockname()[1]}", then={"error": on_error})
        starting = background(lambda: app.start(reconnect=0.001))
        assert listening.wait(PATIENCE)
        listener.settimeout(PATIENCE)
        sock, address = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            peer = Peer(None, sock, address)  # type: ignore[arg-type]
            peer.read_request()
            peer.accept()
            assert starting() is app
            assert app.ready()
            closing = background(app.stop)
            assert peer.recv() is None
            peer.close()
        closing()
    assert app.told == [("error",)] * 3 + [("open",), ("close", 1000, "")]


def test_start_raises_what_a_callback_raised_to_leave_before_a_connection_stood(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}", then={"error": once(Leave())})
    with pytest.raises(Leave):
        app.start(reconnect=3600)
    with pytest.raises(Leave):
        app.join()


def test_start_twice_says_that_it_is_open(record: Record) -> None:
    app = record()
    app.start()
    with pytest.raises(WebSocketException, match="already opened"):
        app.start()
    app.send("undisturbed")
    app.wait_for("message", "undisturbed")
    app.stop()


def test_of_eight_starts_at_once_one_succeeds(record: Record) -> None:
    app = record()

    def begin() -> bool:
        try:
            app.start()
        except WebSocketException as error:
            assert "already opened" in str(error)
            return False
        return True

    assert sorted(run_all(*[begin] * 8)) == [False] * 7 + [True]
    app.stop()
    assert app.told == [("open",), ("close", 1000, "")]


def test_start_again_after_a_run(record: Record) -> None:
    app = record(lambda peer: peer.send("hello"))
    for _ in range(3):
        app.start()
        assert app.join() is False
    assert app.told == [("open",), ("message", "hello"), ("close", 1000, "")] * 3


def test_join_says_how_the_run_ended(record: Record) -> None:
    app = record(lambda peer: (peer.recv(), peer.close(1011)))
    app.start()
    assert app.join(0) is None
    assert app.join(timeout=0) is None
    app.send("go")
    assert app.join() is True
    assert app.join() is True


def test_join_raises_what_a_callback_raised_to_leave(record: Record) -> None:
    app = record(then={"message": once(SystemExit(4))})
    app.start()
    app.send("go")
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            app.join()
        assert caught.value.code == 4


def test_join_without_start_says_so(record: Record) -> None:
    with pytest.raises(WebSocketException, match="start"):
        record().join()


@pytest.mark.parametrize("name", ["open", "message", "close"])
def test_join_in_a_callback_says_that_it_would_wait_for_itself(record: Record, name: str) -> None:
    app = record(lambda peer: peer.send("hello"))
    app.then[name] = lambda *_: app.join()
    app.start()
    assert app.join() is False
    assert ["wait for itself" in str(error) for error in app.errors] == [True]


@pytest.mark.parametrize("name", ["open", "message", "ping", "close", "error"])
def test_stop_in_a_callback_is_close(record: Record, name: str) -> None:
    def handler(peer: Peer) -> None:
        peer.send_frame(9)
        peer.send("hello")
        peer.recv()

    app = record(handler, then={name: lambda *_: app.stop()})
    if name == "error":
        app.then["open"] = once(Oops())
    if name == "close":
        app.then["message"] = lambda _: app.close()
    app.start()
    assert app.join() is False
    names = [call.name for call in app.calls]
    assert names[-1] == "close"
    assert names.count("close") == 1


def test_stop_without_a_run_does_nothing(record: Record) -> None:
    app = record()
    app.stop()
    app.start()
    app.stop()
    app.stop()
    assert app.told == [("open",), ("close", 1000, "")]


def test_stop_takes_the_options_of_close(record: Record) -> None:
    collected = Collected()
    app = record(collected)
    app.start()
    with pytest.raises(ValueError, match="1005"):
        app.stop(status=1005)
    assert app.ready()
    app.stop(status=4001, reason="done", timeout=PATIENCE)
    assert collected.frames == [(8, b"\x0f\xa1done")]


def test_stop_ends_a_run_forever_of_another_thread(record: Record) -> None:
    app = record()
    running = background(app.run)
    app.wait_for("open")
    app.stop()
    assert running() is False


def test_with_starts_and_stops(record: Record) -> None:
    app = record()
    with app as entered:
        assert entered is app
        assert app.ready()
        app.send("hello")
        app.wait_for("message", "hello")
    assert not app.keep_running
    assert app.told == [("open",), ("message", "hello"), ("close", 1000, "")]
    with app.start(ping_interval=3600):
        assert app.ping_interval == 3600
    assert app.told[3:] == [("open",), ("close", 1000, "")]
    with app:
        assert app.ready()
    assert len(app.told) == 7


def test_an_exception_in_a_with_block_stops_too(record: Record) -> None:
    app = record()
    with pytest.raises(Oops), app:
        raise Oops
    assert app.told == [("open",), ("close", 1000, "")]


def test_with_raises_what_went_wrong(deaf_port: int) -> None:
    entered = False
    with pytest.raises(WebSocketConnectionRefusedException), Recorder(f"ws://127.0.0.1:{deaf_port}"):
        entered = True
    assert not entered
