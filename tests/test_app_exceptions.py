"""Exceptions in the callbacks of a WebSocketApp."""

from __future__ import annotations

import logging

import pytest

from websocket import (
    ABNF,
    WebSocketApp,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer, echo

from .recorder import Leave, Oops, Record, Recorder, at_once, once

ALL = ("open", "data", "message", "cont_message", "ping", "pong", "error", "close")


def everything(peer: Peer) -> None:
    """Something for every callback, in one write; then whatever the client does."""
    at_once(
        peer,
        (ABNF.OPCODE_TEXT, b"one"),
        (ABNF.OPCODE_PING, b""),
        (ABNF.OPCODE_PONG, b""),
        encode_frame(ABNF.OPCODE_BINARY, b"x", None),
        (ABNF.OPCODE_CONT, b"y"),
        (ABNF.OPCODE_TEXT, b"last"),
    )
    echo(peer)


TOLD_OF_EVERYTHING = [
    *("open", "data", "message", "ping", "pong", "data", "message", "data", "cont_message", "data", "message", "close")
]


@pytest.mark.parametrize("name", [name for name in ALL if name != "error"])
def test_an_exception_in_a_callback_goes_to_on_error_and_the_run_goes_on(record: Record, name: str) -> None:
    oops = Oops(name)
    app = record(everything, names=ALL)
    app.then["message"] = lambda message: message == "last" and app.close()
    if name == "message":
        app.then["message"] = lambda message: app.close() if message == "last" else raises()
        raises = once(oops)
    else:
        app.then[name] = once(oops)
    assert app.run() is False
    assert app.errors == [oops]
    names = [call.name for call in app.calls]
    assert names[names.index("error") - 1] == name
    names.remove("error")
    assert names == TOLD_OF_EVERYTHING
    assert app.told[-1 if name != "close" else -2] == ("close", 1000, "")


def test_an_exception_without_on_error_is_logged_and_the_run_goes_on(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    oops = Oops()
    app = record(everything, names=("open", "message", "close"))
    app.then["open"] = once(oops)
    app.then["message"] = lambda message: message == "last" and app.close()
    with caplog.at_level(logging.ERROR, "websocket"):
        assert app.run() is False
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [oops]
    assert app.told[-2:] == [("message", "last"), ("close", 1000, "")]


def test_an_exception_in_on_error_is_logged_and_the_run_goes_on(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Oops("of on_open"), Oops("of on_error")
    app = record(everything)
    app.then["open"] = once(first)
    app.then["error"] = once(second)
    app.then["message"] = lambda message: message == "last" and app.close()
    with caplog.at_level(logging.ERROR, "websocket"):
        assert app.run() is False
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [first, second]
    assert app.errors == [first]
    assert app.told[-2:] == [("message", "last"), ("close", 1000, "")]


def test_an_exception_in_on_error_of_an_attempt_is_logged_and_on_close_comes(
    deaf_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    oops = Oops()
    app = Recorder(f"ws://127.0.0.1:{deaf_port}", then={"error": once(oops)})
    with caplog.at_level(logging.ERROR, "websocket"):
        assert app.run_forever() is True
    assert oops in [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert app.told == [("error",), ("close", None, None)]


LEAVES = [SystemExit(3), KeyboardInterrupt(), Leave()]


def run_by_start(app: WebSocketApp) -> None:
    """start(), and then join()."""
    app.start()
    app.join()


WAYS = {"run_forever": WebSocketApp.run_forever, "start": run_by_start}


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_exception_ends_the_run_and_comes_out_of_it_after_on_close(
    record: Record, name: str, way: str, error: BaseException
) -> None:
    app = record(everything, names=ALL)
    app.then[name] = once(error)
    if name == "error":
        app.then["open"] = once(Oops())
    if name == "close":
        app.then["message"] = lambda message: app.close()
    with pytest.raises(type(error)) as caught:
        WAYS[way](app)
    assert caught.value is error
    names = [call.name for call in app.calls]
    if name == "close":
        assert names[-1] == "close"
    else:
        assert names[-2:] == [name, "close"]
    assert names.count("close") == 1
    assert names.count(name) == 1 if name not in ("data", "message") else True
    assert (app.sock, app.keep_running) == (None, False)
    app.then.clear()
    app.then["open"] = app.close
    assert app.run_forever() is False, "the app can be run again"


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["error", "close"])
def test_what_is_no_exception_comes_out_of_the_callbacks_of_an_attempt_too(
    deaf_port: int, name: str, error: BaseException
) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}", then={name: once(error)})
    with pytest.raises(type(error)) as caught:
        app.run_forever(reconnect=3600 if name == "error" else 0)
    assert caught.value is error
    assert app.told == [("error",), ("close", None, None)]


@pytest.mark.parametrize("error", [SystemExit(3), Leave()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_exception_comes_out_of_a_header_function_after_on_close(
    record: Record, way: str, error: BaseException
) -> None:
    app = record(header=once(error))
    with pytest.raises(type(error)) as caught:
        WAYS[way](app)
    assert caught.value is error
    assert app.told == [("close", None, None)]
    assert (app.sock, app.keep_running) == (None, False)


@pytest.mark.parametrize("error", [SystemExit(3), Leave()], ids=lambda error: type(error).__name__)
def test_what_is_no_exception_comes_out_of_a_retry_function_after_on_close(
    deaf_port: int, error: BaseException
) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    with pytest.raises(type(error)) as caught:
        app.run_forever(reconnect=3600, retry=once(error))
    assert caught.value is error
    assert app.told == [("error",), ("close", None, None)]


def test_an_exception_of_a_header_function_is_an_attempt_that_failed(record: Record) -> None:
    oops = Oops()
    app = record(header=once(oops))
    assert app.run_forever(reconnect=3600) is True
    assert app.told == [("error",), ("close", None, None)]
    assert app.errors == [oops]
    app.then["open"] = app.close
    assert app.run_forever() is False, "the function gives no header the second time"


def test_an_exception_of_a_retry_function_goes_to_on_error_and_nothing_more_is_tried(deaf_port: int) -> None:
    oops = Oops()
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    assert app.run_forever(reconnect=3600, retry=once(oops)) is True
    assert app.told == [("error",), ("error",), ("close", None, None)]
    assert app.errors[1] is oops
