"""The callbacks of a WebSocketApp: which come, in what order, on which thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocketAddressException,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketPayloadException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket._abnf import encode_frame
from websocket.testing import Peer

from .conftest import PATIENCE
from .recorder import Record, Recorder, at_once, one_write

# ---- how a connection begins and ends ----


@dataclass(frozen=True)
class End:
    """What a server does after it has got "go", and what the app is told of it.

    error: its class and a part of its text, None for none.  cause: the class of its cause.  answer: the payload of
    the close frame that the server gets, None where it cannot get one.
    """

    act: Callable[[Peer], None]
    code: int | None = None
    reason: str | None = None
    error: tuple[type[Exception], str] | None = None
    cause: type[BaseException] | None = None
    answer: bytes | None = None


LOST = "Connection to remote host was lost"


def cut_short(peer: Peer) -> None:
    peer.send_raw(b"\x81\x05hel")
    peer.hang_up()


ENDS = {
    "1000": End(lambda peer: peer.close(1000, "bye"), 1000, "bye", answer=b"\x03\xe8"),
    "1000 without a reason": End(lambda peer: peer.close(1000), 1000, "", answer=b"\x03\xe8"),
    "1001": End(lambda peer: peer.close(1001, "é"), 1001, "é", answer=b"\x03\xe9"),
    "no code": End(lambda peer: peer.send_frame(ABNF.OPCODE_CLOSE), answer=b""),
    "1011": End(
        lambda peer: peer.close(1011, "broken"),
        1011,
        "broken",
        (WebSocketConnectionClosedException, r"1011 \(broken\)"),
        answer=b"\x03\xf3",
    ),
    "4000": End(
        lambda peer: peer.close(4000), 4000, "", (WebSocketConnectionClosedException, "4000"), answer=b"\x0f\xa0"
    ),
    "reset": End(Peer.reset, error=(WebSocketConnectionLostException, LOST), cause=ConnectionResetError),
    "end of the stream": End(Peer.hang_up, error=(WebSocketConnectionLostException, LOST), cause=EOFError),
    "end in a frame": End(cut_short, error=(WebSocketConnectionLostException, "in the middle"), cause=EOFError),
    "bad UTF-8": End(
        lambda peer: peer.send_raw(b"\x81\x02\xc3\x28"),
        error=(WebSocketPayloadException, "UTF-8"),
        answer=b"\x03\xef",
    ),
    "unknown opcode": End(
        lambda peer: peer.send_raw(b"\x83\x00"), error=(WebSocketProtocolException, "opcode"), answer=b"\x03\xea"
    ),
    "too large": End(
        lambda peer: peer.send("x" * 2000), error=(WebSocketPayloadException, "max_message_size"), answer=b"\x03\xf1"
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_way_to_end_has_its_callbacks_in_order_on_the_reader_thread(
    record: Record, scheme: str, name: str
) -> None:
    end = ENDS[name]
    answers = []

    def handler(peer: Peer) -> None:
        peer.send("hello")
        assert peer.recv() == "go"
        end.act(peer)
        if end.answer is not None:
            assert peer.recv() is None
            answers.append(peer.close_frame.data)  # type: ignore[union-attr]
            peer.hang_up()

    app = record(handler, scheme)
    app.then["message"] = lambda _: app.send("go")
    result = app.run(max_message_size=1000)
    failed = end.error is not None
    told: list[Any] = [("open",), ("message", "hello"), ("close", end.code, end.reason)]
    assert app.told == ([*told[:2], ("error",), *told[2:]] if failed else told)
    assert result is failed
    assert app.has_errored is failed
    assert {call.thread.rpartition(" #")[0] for call in app.calls} == {f"websocket-reader {app.url[:-1]}"}
    assert [call.ready for call in app.calls] == [True, True, *([False] * (len(app.calls) - 2))]
    assert [call.has_errored for call in app.calls] == [False, False, *([failed] * (len(app.calls) - 2))]
    assert (app.sock, app.keep_running, app.overlaps) == (None, False, [])
    if end.error is not None:
        error = app.errors[0]
        assert isinstance(error, end.error[0])
        assert end.error[1].replace("\\", "") in str(error)
        assert (error.code, error.reason, error.unsent) == (end.code, end.reason or None, [])
        if end.cause is not None and scheme == "ws":
            assert isinstance(error.__cause__, end.cause)
    frame = app.last_close_frame
    assert (frame is None) is (end.code is None and name != "no code")
    if end.code is not None:
        assert frame.data[:2] == end.code.to_bytes(2, "big")  # type: ignore[union-attr]
    if end.answer is not None:
        assert answers == [end.answer]


def answers_with(head: bytes) -> Callable[[Peer], None]:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(head)
        peer.half_close()
        while peer.sock.recv(1000):
            pass

    return handler


ATTEMPTS = {
    "403": (answers_with(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), WebSocketBadStatusException),
    "not HTTP": (answers_with(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), WebSocketException),
    "wrong accept": (
        answers_with(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        WebSocketException,
    ),
    "end of the stream": (Peer.hang_up, WebSocketException),
    "silence": (Peer.stall, WebSocketTimeoutException),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_that_fails_is_told_on_the_thread_of_run_forever(record: Record, scheme: str, name: str) -> None:
    handler, kind = ATTEMPTS[name]
    app = record(handler, scheme, raw=True)
    # Silence alone is waited for; else the time is never needed.
    assert app.run(timeout=0.2 if name == "silence" else PATIENCE) is True
    assert app.told == [("error",), ("close", None, None)]
    assert isinstance(app.errors[0], kind)
    assert {call.thread for call in app.calls} == {threading.current_thread().name}
    assert [call.ready for call in app.calls] == [False, False]
    assert app.has_errored
    assert (app.sock, app.keep_running, app.last_close_frame) == (None, False, None)
    if name == "403":
        assert (app.errors[0].status_code, app.errors[0].resp_body) == (403, b"no")


def test_a_refused_connection_is_told_as_such(deaf_port: int) -> None:
    app = Recorder(f"ws://127.0.0.1:{deaf_port}")
    assert app.run_forever() is True
    assert app.told == [("error",), ("close", None, None)]
    assert isinstance(app.errors[0], WebSocketConnectionRefusedException)


def test_a_name_that_cannot_be_resolved_is_told_as_such() -> None:
    app = Recorder("ws://no-such-host.invalid")
    assert app.run_forever() is True
    assert app.told == [("error",), ("close", None, None)]
    assert isinstance(app.errors[0], WebSocketAddressException)


def test_what_comes_in_one_segment_with_the_handshake_is_told_in_order(record: Record, scheme: str) -> None:
    """Even the close frame: the callbacks before it come first, and may still send."""
    replies = []

    def handler(peer: Peer) -> None:
        peer.read_request()
        with one_write(peer):
            peer.accept()
            peer.send("hello")
            peer.send_frame(ABNF.OPCODE_PING, b"p")
            peer.send("again")
            peer.close(1001, "bye")
        while (message := peer.recv()) is not None:
            replies.append(message)
        replies.append(peer.close_frame.data)  # type: ignore[union-attr]

    app = record(handler, scheme, raw=True)
    app.then["open"] = lambda: app.send("opened")
    app.then["message"] = lambda message: app.send(f"got {message}")
    assert app.run() is False
    assert app.told == [("open",), ("message", "hello"), ("ping", b"p"), ("message", "again"), ("close", 1001, "bye")]
    assert replies == ["opened", "got hello", "got again", b"\x03\xe9"]


def test_a_breach_in_one_segment_with_the_handshake_comes_after_on_open(record: Record) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        with one_write(peer):
            peer.accept()
            peer.send("hello")
            peer.send_raw(b"\x83\x00")
        peer.recv()

    app = record(handler, raw=True)
    assert app.run() is True
    assert app.told == [("open",), ("message", "hello"), ("error",), ("close", None, None)]
    assert isinstance(app.errors[0], WebSocketProtocolException)


def test_a_reply_to_a_message_that_came_in_one_segment_with_the_close_frame_arrives(
    record: Record, scheme: str
) -> None:
    replies = []

    def handler(peer: Peer) -> None:
        assert peer.recv() == "begin"
        with one_write(peer):
            peer.send("last")
            peer.close(1000, "bye")
        while (message := peer.recv()) is not None:
            replies.append(message)

    app = record(handler, scheme)
    app.then["open"] = lambda: app.send("begin")
    app.then["message"] = lambda message: app.send(f"re: {message}")
    assert app.run() is False
    assert app.told == [("open",), ("message", "last"), ("close", 1000, "bye")]
    assert replies == ["re: last"]


# ---- what is told of messages and control frames ----


def test_pings_and_pongs_come_between_the_messages_where_they_were_on_the_wire(record: Record, scheme: str) -> None:
    pongs = []

    def handler(peer: Peer) -> None:
        at_once(
            peer,
            (ABNF.OPCODE_PING, b"first"),
            (ABNF.OPCODE_TEXT, b"one"),
            (ABNF.OPCODE_PING, b"a"),
            (ABNF.OPCODE_PONG, b"b"),
            (ABNF.OPCODE_BINARY, b"two"),
            (ABNF.OPCODE_TEXT, b"three"),
            (ABNF.OPCODE_PONG, b""),
        )
        peer.recv()
        pongs.extend(peer.pongs)

    app = record(handler, scheme)
    app.then["pong"] = lambda payload: payload or app.close()
    assert app.run() is False
    assert app.told == [
        ("open",),
        ("ping", b"first"),
        ("message", "one"),
        ("ping", b"a"),
        ("pong", b"b"),
        ("message", b"two"),
        ("message", "three"),
        ("pong", b""),
        ("close", 1000, ""),
    ]
    assert pongs == [b"first", b"a"]


def fragments(peer: Peer) -> None:
    """A text and a binary message in three frames each, a ping among them, and one whole message."""
    for opcode, parts in ((ABNF.OPCODE_TEXT, ("é", "b", "c")), (ABNF.OPCODE_BINARY, ("1", "", "3"))):
        at_once(
            peer,
            encode_frame(opcode, parts[0].encode(), None),
            (ABNF.OPCODE_PING, b""),
            encode_frame(ABNF.OPCODE_CONT, parts[1].encode(), None),
            (ABNF.OPCODE_CONT, parts[2].encode()),
        )
    peer.send("whole")
    peer.close()


def test_on_cont_message_gets_the_frames_after_the_first(record: Record) -> None:
    app = record(fragments, names=("data", "message", "cont_message"))
    assert app.run() is False
    assert app.told == [
        ("data", "é", ABNF.OPCODE_TEXT, 0),
        ("message", "é"),
        ("data", b"b", ABNF.OPCODE_CONT, 0),
        ("cont_message", b"b", 0),
        ("data", b"c", ABNF.OPCODE_CONT, 1),
        ("cont_message", b"c", 1),
        ("data", b"1", ABNF.OPCODE_BINARY, 0),
        ("message", b"1"),
        ("data", b"", ABNF.OPCODE_CONT, 0),
        ("cont_message", b"", 0),
        ("data", b"3", ABNF.OPCODE_CONT, 1),
        ("cont_message", b"3", 1),
        ("data", "whole", ABNF.OPCODE_TEXT, 1),
        ("message", "whole"),
    ]


def test_without_on_cont_message_messages_come_joined(record: Record) -> None:
    app = record(fragments, names=("data", "message"))
    assert app.run() is False
    assert app.told == [
        ("data", "ébc", ABNF.OPCODE_TEXT, 1),
        ("message", "ébc"),
        ("data", b"13", ABNF.OPCODE_BINARY, 1),
        ("message", b"13"),
        ("data", "whole", ABNF.OPCODE_TEXT, 1),
        ("message", "whole"),
    ]


def test_pings_among_fragments_are_told_before_the_message_that_they_interrupt(record: Record) -> None:
    app = record(fragments, names=("message", "ping"))
    assert app.run() is False
    assert [call.name for call in app.calls] == ["ping", "message", "ping", "message", "message"]


@pytest.mark.parametrize("name", ["data", "message", "cont_message", "ping", "pong", "open", "error", "close"])
def test_each_callback_alone_is_enough(record: Record, name: str) -> None:
    def handler(peer: Peer) -> None:
        at_once(peer, (ABNF.OPCODE_PONG, b"x"))
        fragments(peer)

    app = record(handler, names=(name,))
    assert app.run() is False
    assert {call.name for call in app.calls} == ({name} if name != "error" else set())


def test_text_that_is_not_checked_comes_as_bytes(record: Record) -> None:
    def handler(peer: Peer) -> None:
        at_once(peer, (ABNF.OPCODE_TEXT, b"\xc3\x28"), (ABNF.OPCODE_BINARY, b"\xff"), (ABNF.OPCODE_TEXT, b"ok"))
        peer.close()

    app = record(handler, names=("data", "message"))
    assert app.run(skip_utf8_validation=True) is False
    assert app.told == [
        ("data", b"\xc3\x28", ABNF.OPCODE_TEXT, 1),
        ("message", b"\xc3\x28"),
        ("data", b"\xff", ABNF.OPCODE_BINARY, 1),
        ("message", b"\xff"),
        ("data", b"ok", ABNF.OPCODE_TEXT, 1),
        ("message", b"ok"),
    ]
    assert {type(call.arguments[0]) for call in app.calls} == {bytes}


def test_callbacks_may_be_exchanged_in_the_middle_of_a_batch(record: Record) -> None:
    def handler(peer: Peer) -> None:
        peer.send("one", "two", "three")
        peer.close()

    later: list[str] = []
    app = record(handler)
    app.then["message"] = lambda _: setattr(app, "on_message", lambda _, message: later.append(message))
    assert app.run() is False
    assert app.told == [("open",), ("message", "one"), ("close", 1000, "")]
    assert later == ["two", "three"]
