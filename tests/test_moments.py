"""Large messages wait a moment for the writer, where that is at work, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import websocket.threads.waiting
from websocket import WebSocket, WebSocketConnectionClosedException

from .conftest import PATIENCE, Collected, Interrupter, background, wait_until
from .test_intake import stuck

__all__ = ["stuck"]  # a fixture

MESSAGE = bytes(50_000)  # large enough to be written at once


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the writer is soon done."""
    monkeypatch.setattr(websocket.threads.waiting, "_MOMENT", 3600.0)


def waits_a_moment(connection: WebSocket) -> bool:
    return connection._connection.outlet.waiting._in_a_moment == 1  # type: ignore[union-attr]


@pytest.mark.usefixtures("long_moment")
def test_a_large_message_is_written_at_once_when_the_writer_is_done(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    connection.send("before")
    outlet = connection._connection.outlet  # type: ignore[union-attr]
    original, lent = outlet.write_lent, []

    def write_lent(frame: bytes, **options: Any) -> bool:
        lent.append(len(frame))
        return original(frame, **options)

    outlet.write_lent = write_lent
    sending = background(lambda: connection.send_bytes(MESSAGE))
    wait_until(lambda: waits_a_moment(connection), "it waits for the writer")
    collected.gate.set()
    sending()
    assert lent == [len(MESSAGE) + 8]
    connection.close(timeout=PATIENCE)
    assert collected.messages[1:] == ["before", MESSAGE]


def test_large_messages_do_not_wait_for_a_slow_server(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    waiting = connection._connection.outlet.waiting  # type: ignore[union-attr]
    original, moments = waiting._changed.wait_for, []

    def wait_for(condition: Callable[[], bool], timeout: float | None) -> bool:
        moments.append(timeout)
        return original(condition, timeout)

    waiting._changed.wait_for = wait_for
    count = 200
    for _ in range(count):
        connection.send_bytes(MESSAGE)
    assert len(moments) <= 8  # before the 1st, 3rd, 7th, 15th, ... 127th
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert collected.messages[1:] == [MESSAGE] * count


@pytest.mark.usefixtures("long_moment")
@pytest.mark.parametrize("end", ["begin_close", "abort", "peer"])
def test_an_end_ends_the_moment(stuck: tuple[WebSocket, Collected], end: str) -> None:
    connection, collected = stuck
    sending = background(lambda: connection.send_bytes(MESSAGE))
    wait_until(lambda: waits_a_moment(connection), "it waits for the writer")
    inner: Any = connection._connection
    if end == "begin_close":
        inner.begin_close(b"\x88\x82\0\0\0\0\x03\xe8")
    elif end == "abort":
        connection.abort()
    else:
        inner.transport.shutdown()
    with pytest.raises(WebSocketConnectionClosedException):
        sending()
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert MESSAGE not in collected.messages


@pytest.mark.usefixtures("long_moment")
def test_a_send_without_time_waits_no_moment(stuck: tuple[WebSocket, Collected]) -> None:
    connection, collected = stuck
    connection.settimeout(0)
    background(lambda: connection.send_bytes(MESSAGE))()
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert collected.messages[1:] == [MESSAGE]


@pytest.mark.usefixtures("long_moment")
def test_an_exception_of_a_handler_in_the_moment_takes_the_message_back(
    stuck: tuple[WebSocket, Collected], interrupting: Callable[..., Interrupter]
) -> None:
    connection, collected = stuck

    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupter = interrupting(interrupt)
    delivering = background(lambda: wait_until(lambda: waits_a_moment(connection), "it waits") or interrupter.deliver())
    with pytest.raises(KeyboardInterrupt):
        connection.send_bytes(MESSAGE)
    delivering()
    collected.gate.set()
    connection.send("after")
    connection.close(timeout=PATIENCE)
    assert collected.messages[1:] == ["after"]
