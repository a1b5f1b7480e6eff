"""Logging and tracing, the functions over a bare socket, the small ones of websocket-client, and the exceptions."""

from __future__ import annotations

import logging
import pickle
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import websocket
from websocket import _exceptions, _logging, _utils

from .conftest import PATIENCE, background


class Lines(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    logger = logging.getLogger("websocket")
    level, handlers = logger.level, list(logger.handlers)
    yield
    websocket.enableTrace(False)
    logger.setLevel(level)
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)


# ---- logging


def test_nothing_is_printed_unless_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    websocket.error("an error that nobody listens to")
    websocket.dump("title", "message")
    websocket.trace("frame")
    assert capfd.readouterr() == ("", "")


def test_trace_goes_to_the_handler() -> None:
    lines = Lines()
    websocket.enableTrace(True, lines)
    websocket.trace("a frame")
    websocket.dump("request header", "GET /")
    assert lines.texts == ["a frame", "--- request header ---\nGET /\n-----------------------"]
    assert {record.levelno for record in lines.records} == {logging.DEBUG}
    assert {record.name for record in lines.records} == {"websocket"}


def test_trace_goes_to_standard_error_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    websocket.enableTrace(True)
    websocket.trace("a frame")
    websocket.enableTrace(False)
    assert capfd.readouterr() == ("", "a frame\n")


@pytest.mark.parametrize("own_handler", [False, True])
def test_trace_turned_on_twice_gives_no_line_twice(capfd: pytest.CaptureFixture[str], own_handler: bool) -> None:
    lines = Lines()
    for _ in range(3):
        if own_handler:
            websocket.enableTrace(True, lines)
        else:
            websocket.enableTrace(True)
    websocket.trace("once")
    assert lines.texts + capfd.readouterr().err.splitlines() == ["once"]


def test_another_handler_takes_the_place_of_the_first() -> None:
    first, second = Lines(), Lines()
    websocket.enableTrace(True, first)
    websocket.enableTrace(True, second)
    websocket.trace("x")
    assert (first.texts, second.texts) == ([], ["x"])


def test_trace_turned_off_is_silent_and_leaves_no_handler() -> None:
    logger = logging.getLogger("websocket")
    before = list(logger.handlers)
    lines = Lines()
    websocket.enableTrace(True, lines)
    websocket.enableTrace(False)
    websocket.enableTrace(False)
    websocket.trace("x")
    websocket.dump("x", "y")
    assert lines.texts == []
    assert logger.handlers == before
    assert not _logging.tracing


def test_trace_turned_on_by_two_threads_at_once_leaves_one_handler() -> None:
    logger = logging.getLogger("websocket")
    before = len(logger.handlers)
    second = threading.Thread(target=websocket.enableTrace, args=(True, Lines()), name="test second", daemon=True)

    class Yes:
        """True, and looked at by enableTrace() in its midst: the moment for the second thread to come in."""

        def __bool__(self) -> bool:
            if second.ident is None:
                second.start()
                second.join(0.2)  # it has either come in and gone, or waits until the first is done
            return True

    websocket.enableTrace(Yes(), Lines())  # type: ignore[arg-type]
    second.join(PATIENCE)
    assert len(logger.handlers) == before + 1
    websocket.enableTrace(False)
    assert len(logger.handlers) == before


@pytest.mark.parametrize("level", ["INFO", "WARNING", "ERROR", logging.ERROR])
def test_trace_sets_the_level(level: Any) -> None:
    lines = Lines()
    websocket.enableTrace(True, lines, level)
    for function in (websocket.trace, websocket.debug, websocket.info, websocket.warning, websocket.error):
        function(function.__name__)
    expected = {"INFO": ["info", "warning", "error"], "WARNING": ["warning", "error"]}
    assert lines.texts == expected.get(level, ["error"])


def test_messages_are_formatted_with_their_arguments_and_percent_signs_alone_are_left() -> None:
    lines = Lines()
    websocket.enableTrace(True, lines)
    websocket.debug("%s of %d", "one", 2)
    websocket.info("100 %")
    websocket.trace("%s")
    assert lines.texts == ["one of 2", "100 %", "%s"]
    assert [record.levelname for record in lines.records] == ["DEBUG", "INFO", "DEBUG"]


def test_is_enabled_for_tells_what_would_be_taken() -> None:
    asked = (websocket.isEnabledForError, websocket.isEnabledForDebug, websocket.isEnabledForTrace)
    logging.getLogger("websocket").setLevel(logging.CRITICAL)
    assert [ask() for ask in asked] == [False, False, False]
    websocket.enableTrace(True, Lines(), "ERROR")
    assert [ask() for ask in asked] == [True, False, True]
    websocket.enableTrace(True, Lines())
    assert [ask() for ask in asked] == [True, True, True]
    websocket.enableTrace(False)
    assert websocket.isEnabledForTrace() is False


# ---- _utils


def test_no_lock_lets_everyone_in_and_exceptions_out() -> None:
    lock = _utils.NoLock()
    with lock, lock, pytest.raises(KeyError), lock:
        raise KeyError


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        (b"", True),
        ("żó".encode(), True),
        ("text", True),
        (bytearray(b"a"), True),
        (b"\xff", False),
        (b"\xed\xa0\x80", False),
    ],
)
def test_validate_utf8(data: Any, valid: bool) -> None:
    assert _utils.validate_utf8(data) is valid


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (Exception(), None, None),
        (Exception("a"), "a", None),
        (Exception("a", "b"), "a", None),
        (OSError(3, "x"), "3", 3),
        (Exception(3), "3", None),
    ],
)
def test_message_and_code_of_an_exception(error: Exception, message: str | None, code: int | None) -> None:
    shown = _utils.extract_err_message(error)
    assert (shown if shown is None else str(shown)) == message
    assert _utils.extract_error_code(error) == code


# ---- sock_opt, default timeout, recv, recv_line, send


def test_sock_opt_keeps_what_it_is_given() -> None:
    empty = websocket.sock_opt(None, None)
    assert (empty.sockopt, empty.sslopt, empty.timeout) == ([], {}, None)
    option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    full = websocket.sock_opt((option,), {"ca_certs": "x"})
    assert (full.sockopt, full.sslopt) == ([option], {"ca_certs": "x"})
    assert websocket.sock_opt(None, None).sockopt is not empty.sockopt


def test_the_default_socket_options_can_be_set() -> None:
    with socket.socket() as sock:
        for level, option, value in websocket.DEFAULT_SOCKET_OPTION:
            sock.setsockopt(level, option, value)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("timeout", [None, 0, 2.5])
def test_the_default_timeout_is_the_one_that_was_set(timeout: float | None) -> None:
    websocket.setdefaulttimeout(timeout)
    assert websocket.getdefaulttimeout() == timeout


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        theirs.settimeout(PATIENCE)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_send_and_recv_carry_bytes_and_text(pair: Pair) -> None:
    ours, theirs = pair
    assert websocket.send(ours, b"ab") == 2
    assert websocket.send(ours, "ż") == 2
    assert websocket.recv(theirs, 3) == b"ab\xc5"
    assert websocket.recv(theirs, 100) == b"\xbc"


def test_recv_line_takes_one_line_and_nothing_after_it(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"one\r\n\ntwo\nrest")
    assert [websocket.recv_line(ours) for _ in range(3)] == [b"one\r\n", b"\n", b"two\n"]
    assert websocket.recv(ours, 100) == b"rest"


def test_recv_wakes_when_bytes_come(pair: Pair) -> None:
    ours, theirs = pair
    asked = threading.Event()

    def read() -> bytes:
        asked.set()
        return websocket.recv_line(ours)

    line = background(read)
    assert asked.wait(PATIENCE)
    theirs.sendall(b"li")
    theirs.sendall(b"ne\n")
    assert line() == b"line\n"


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_recv_and_send_tell_of_a_timeout(pair: Pair, timeout: float) -> None:
    ours, _ = pair
    ours.settimeout(timeout)
    with pytest.raises(websocket.WebSocketTimeoutException) as caught:
        websocket.recv(ours, 1)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(websocket.WebSocketTimeoutException):
        websocket.recv_line(ours)

    def fill() -> None:
        while websocket.send(ours, bytes(65536)):
            pass

    with pytest.raises(websocket.WebSocketTimeoutException):
        fill()


def test_recv_tells_of_the_end_of_the_stream(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"half a line")
    theirs.close()
    with pytest.raises(websocket.WebSocketConnectionClosedException, match="lost"):
        websocket.recv_line(ours)
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        websocket.recv(ours, 1)


def test_without_a_socket_there_is_no_connection() -> None:
    calls: list[Callable[[], object]] = [
        lambda: websocket.recv(None, 1),  # type: ignore[arg-type]
        lambda: websocket.recv_line(None),  # type: ignore[arg-type]
        lambda: websocket.send(None, b"x"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(websocket.WebSocketConnectionClosedException, match="closed"):
            call()


# ---- exceptions

CLASSES = [getattr(_exceptions, name) for name in _exceptions.__all__]


def made(cls: type[websocket.WebSocketException]) -> websocket.WebSocketException:
    if issubclass(cls, websocket.WebSocketBadStatusException):
        return cls("what happened", 404, "Not Found", {"a": "b"}, b"body")
    return cls("what happened")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exception_is_a_websocket_exception_and_says_what_happened(cls: Any) -> None:
    error = made(cls)
    assert isinstance(error, websocket.WebSocketException)
    assert str(error) == "what happened"
    assert (error.code, error.reason, list(error.unsent), error.unacknowledged) == (None, None, [], None)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exception_survives_pickling_with_all_it_tells(cls: Any) -> None:
    error = made(cls)
    error.code, error.reason, error.unsent, error.unacknowledged = 1001, "bye", ["a", b"b"], 7
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.args == error.args
    assert (again.code, again.reason, again.unsent, again.unacknowledged) == (1001, "bye", ["a", b"b"], 7)


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (websocket.WebSocketTimeoutException, TimeoutError),
        (websocket.WebSocketTimeoutException, OSError),
        (websocket.WebSocketConnectException, OSError),
        (websocket.WebSocketConnectionRefusedException, ConnectionRefusedError),
        (websocket.WebSocketConnectionRefusedException, websocket.WebSocketConnectException),
        (websocket.WebSocketTLSException, ssl.SSLError),
        (websocket.WebSocketTLSException, websocket.WebSocketConnectException),
        (websocket.WebSocketCertificateException, ssl.SSLCertVerificationError),
        (websocket.WebSocketCertificateException, websocket.WebSocketTLSException),
    ],
)
def test_an_exception_is_also_the_standard_librarys(cls: type[Exception], base: type[Exception]) -> None:
    assert issubclass(cls, base)
    with pytest.raises(base):
        raise cls("x")


def test_a_closed_connection_is_no_protocol_error_and_no_timeout() -> None:
    closed = websocket.WebSocketConnectionClosedException
    others = (websocket.WebSocketProtocolException, websocket.WebSocketTimeoutException, OSError)
    assert not issubclass(closed, others)


def test_a_bad_status_tells_what_the_server_answered() -> None:
    error = made(websocket.WebSocketBadStatusException)
    again = pickle.loads(pickle.dumps(error))
    for each in (error, again):
        assert (each.status_code, each.status_message) == (404, "Not Found")
        assert (each.resp_headers, each.resp_body) == ({"a": "b"}, b"body")
    bare = websocket.WebSocketBadStatusException("m", 500)
    assert (bare.status_code, bare.status_message, bare.resp_headers, bare.resp_body) == (500, None, None, None)
