"""A callback of a WebSocketApp that takes long, and what was accepted and never written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocketApp,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketTimeoutException,
)
from websocket.testing import Peer

from .conftest import PATIENCE, Collected, background, wait_until
from .recorder import Blocked, Oops, Record, at_once, once

# ---- a callback that takes long ----


def is_caught_up(app: WebSocketApp) -> bool:
    """Whether the run's own thread rests, because nothing goes on."""
    return bool(app._run.connection._callback_reader._unattended)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["open", "message", "ping", "error"])
def test_while_a_callback_takes_long_pings_are_answered_and_messages_wait_in_order(
    record: Record, scheme: str, name: str
) -> None:
    blocked = Blocked()
    numbers = [str(number) for number in range(100)]

    def handler(peer: Peer) -> None:
        if name == "ping":
            peer.send_frame(ABNF.OPCODE_PING, b"first")
        else:
            peer.send("first")
        assert blocked.begun.wait(PATIENCE)
        for number in numbers:
            peer.send(number)
        peer.send_frame(ABNF.OPCODE_PING, b"are you there?")
        peer.answer_pings = False
        while b"are you there?" not in peer.pongs:
            assert peer._receive()
        blocked.release.set()
        peer.close()

    app = record(handler, scheme)
    app.then[name] = blocked
    if name == "error":
        app.then["message"] = once(Oops())
    assert app.run() is False
    assert [call[1] for call in app.told if call[0] == "message" and call[1] != "first"] == numbers
    assert ("ping", b"are you there?") in app.told
    assert app.told[-1] == ("close", 1000, "")
    assert app.overlaps == []
    assert app.server.errors == []  # type: ignore[union-attr]


def test_while_a_callback_takes_long_the_servers_close_is_answered(record: Record, scheme: str) -> None:
    blocked = Blocked()

    def handler(peer: Peer) -> None:
        peer.send("first")
        assert blocked.begun.wait(PATIENCE)
        peer.send("second")
        peer.close(1001, "bye")
        assert peer.recv() is None
        assert peer.close_frame is not None
        blocked.release.set()

    app = record(handler, scheme)
    app.then["message"] = blocked
    assert app.run() is False
    assert app.told == [("open",), ("message", "first"), ("message", "second"), ("close", 1001, "bye")]
    assert app.server.errors == []  # type: ignore[union-attr]


@pytest.mark.parametrize("act", [Peer.reset, Peer.hang_up])
def test_while_a_callback_takes_long_a_lost_connection_is_noticed_and_told_afterwards(
    record: Record, act: Callable[[Peer], None]
) -> None:
    blocked = Blocked()

    def handler(peer: Peer) -> None:
        peer.send("first")
        assert blocked.begun.wait(PATIENCE)
        act(peer)

    def wait_for_the_end(_: str) -> None:
        blocked.begun.set()
        wait_until(lambda: not app.ready(), "the end is noticed")
        with pytest.raises(WebSocketConnectionClosedException):
            app.send("too late")

    app = record(handler)
    app.then["message"] = wait_for_the_end
    assert app.run() is True
    assert app.told == [("open",), ("message", "first"), ("error",), ("close", None, None)]
    assert isinstance(app.errors[0], WebSocketConnectionLostException)


def test_while_a_callback_takes_long_no_more_is_kept_than_the_inbox_allows(
    record: Record, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = Blocked()
    count, size, limit = 40_000, 1000, 50
    # One read of 256 KiB may pass the limit.
    most = limit + 256 * 1024 // size
    sent_all = threading.Event()

    def handler(peer: Peer) -> None:
        peer.send("first")
        assert blocked.begun.wait(PATIENCE)
        for number in range(0, count, 100):
            peer.send(*(f"{n}:" + "x" * (size - 8) for n in range(number, number + 100)))
        sent_all.set()
        peer.close()

    app = record(handler, scheme, names=("message", "close"))
    app.then["message"] = lambda _: None if blocked.release.is_set() else blocked()
    with caplog.at_level(logging.WARNING, "websocket"):
        running = background(lambda: app.run(max_inbox_messages=limit))
        wait_until(lambda: sent_all.is_set() or "slow consumer" in caplog.text, "reading stops")
        assert not sent_all.is_set()
        assert limit <= app.sock.sock.pending() <= most  # type: ignore[union-attr]
        blocked.release.set()
        assert running() is False
    assert [message[1].split(":")[0] for message in app.told[1:-1]] == [str(number) for number in range(count)]
    assert app.told[-1] == ("close", 1000, "")


def test_callbacks_never_overlap_whatever_comes_and_whoever_reads(record: Record, scheme: str) -> None:
    """A callback now and then takes so long that the other thread reads, while a flood comes in."""
    rounds, batch = 4, 50

    def handler(peer: Peer) -> None:
        for number in range(rounds):
            for index in range(batch):
                at_once(peer, (ABNF.OPCODE_TEXT, f"{number} {index}".encode()), (ABNF.OPCODE_PING, b""))
            assert peer.recv() == f"{number}"
        peer.close()

    def on_message(message: str) -> None:
        number, index = message.split()
        if index == "1":
            reader = app._run.connection._callback_reader  # type: ignore[union-attr]
            holder = reader._inbox.turn
            wait_until(lambda: holder.holder, "the other thread reads")
        if index == str(batch - 1):
            app.send(number)

    app = record(handler, scheme)
    app.then["message"] = on_message
    assert app.run() is False
    assert app.overlaps == []
    expected = [("message", f"{number} {index}") for number in range(rounds) for index in range(batch)]
    assert [call for call in app.told if call[0] == "message"] == expected
    kinds = [call.name for call in app.calls[1:-1]]
    assert kinds == ["message", "ping"] * (rounds * batch)


# ---- what was accepted and never written ----


def fill(app: WebSocketApp) -> list[bytes]:
    """Send until neither the kernel nor the outbox takes any more; what was accepted."""
    accepted: list[bytes] = []
    app.sock.settimeout(0.05)  # type: ignore[union-attr]
    with pytest.raises(WebSocketTimeoutException):
        while True:
            message = b"%d:" % len(accepted) + bytes(90_000)
            app.send_bytes(message)
            accepted.append(message)
    app.sock.settimeout(PATIENCE)  # type: ignore[union-attr]
    return accepted


def test_a_close_of_a_server_that_reads_on_leaves_nothing_uncounted(record: Record, scheme: str) -> None:
    collected = Collected(gate=False)

    def handler(peer: Peer) -> None:
        assert collected.gate.wait(PATIENCE)
        peer.close(1011, "enough")
        wait_until(lambda: app._run.connection.outbox.is_closing, "the close frame is seen")  # type: ignore[union-attr]
        collected(peer)

    app = record(handler, scheme)
    accepted: list[bytes] = []

    def on_open() -> None:
        accepted.extend(fill(app))
        collected.gate.set()

    app.then["open"] = on_open
    assert app.run(max_outbox_bytes=2_000_000) is True
    assert app.told == [("open",), ("error",), ("close", 1011, "enough")]
    unsent = list(app.errors[0].unsent)
    assert unsent
    assert collected.messages + unsent == accepted


def test_a_reset_tells_what_was_accepted_and_never_written(record: Record, scheme: str) -> None:
    filled = threading.Event()
    got: list[Any] = []

    def handler(peer: Peer) -> None:
        got.append(peer.recv())
        assert filled.wait(PATIENCE)
        peer.reset()

    app = record(handler, scheme)
    accepted: list[bytes] = []

    def on_open() -> None:
        app.send_bytes(b"read")
        accepted.extend([b"read", *fill(app)])
        filled.set()

    app.then["open"] = on_open
    assert app.run(max_outbox_bytes=2_000_000) is True
    assert app.told == [("open",), ("error",), ("close", None, None)]
    error = app.errors[0]
    unsent = list(error.unsent)
    assert got == accepted[:1]
    assert unsent
    assert unsent == accepted[-len(unsent) :]
    assert isinstance(error, WebSocketConnectionLostException)


def test_close_that_cannot_write_everything_in_time_tells_on_error_first(record: Record, scheme: str) -> None:
    app = record(Peer.stall, scheme)
    accepted: list[bytes] = []
    running = background(lambda: app.run(max_outbox_bytes=2_000_000))
    app.wait_for("open")
    accepted.extend(fill(app))
    app.close(timeout=0.1)
    assert running() is False
    assert app.told == [("open",), ("error",), ("close", None, None)]
    unsent = list(app.errors[0].unsent)
    assert unsent == accepted[-len(unsent) :]
    assert not app.has_errored
