"""Signal handlers in the middle of any method: they may close the connection that they interrupt, and may raise."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException, WebSocketException, create_connection
from websocket.testing import Peer, echo

from .conftest import PATIENCE, Collected, Interrupter, background, is_receiving, is_sending, wait_until

Connect = Callable[..., WebSocket]

pytestmark = pytest.mark.usefixtures("always_borrowed")


class Interrupted(BaseException):
    """What a signal handler raises, as KeyboardInterrupt is one."""


def interrupt() -> None:
    raise Interrupted


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Sets what the handler of SIGUSR1 does, the first time that it is called."""

    def install(action: Callable[[], Any]) -> None:
        left = [action]
        signal.signal(signal.SIGUSR1, lambda *_: left.pop()() if left else None)

    yield install
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def signal_in(target: Any, name: str, *, before: bool) -> None:
    """Let a method be interrupted by the signal, just before or just after its work, once."""
    original = getattr(target, name)
    main = threading.get_ident()
    left = [True]

    def interrupted(*arguments: Any, **options: Any) -> Any:
        mine = threading.get_ident() == main and bool(left)
        if mine and before:
            left.clear()
            signal.raise_signal(signal.SIGUSR1)
        result = original(*arguments, **options)
        if mine and not before:
            left.clear()
            signal.raise_signal(signal.SIGUSR1)
        return result

    setattr(target, name, interrupted)


def parts(connection: WebSocket) -> dict[str, Any]:
    inner: Any = connection._connection
    return {
        "transport": inner.transport,
        "outlet turn": inner.outlet.turn,
        "outlet": inner.outlet,
        "lanes": inner.outlet.lanes,
        "inbox turn": inner.inbox.turn,
        "inbox": inner.inbox,
        "reader": inner._reader,
        "event": inner.inbox._event,
    }


def has_threads(connection: WebSocket) -> bool:
    name = connection._connection.name  # type: ignore[union-attr]
    return any(thread.name.endswith(name) for thread in threading.enumerate())


SENDING = [
    ("transport", "send_now", True),
    ("transport", "send_now", False),
    ("outlet turn", "take", True),
    ("outlet turn", "take", False),
    ("outlet turn", "give_back", True),
    ("outlet turn", "give_back", False),
    ("outlet", "may_write_now", False),
    ("lanes", "is_empty", False),
]


@pytest.mark.parametrize(("part", "method", "before"), SENDING)
def test_a_handler_may_close_in_the_middle_of_a_send(
    connect_to: Connect,
    on_signal: Callable[[Callable[[], Any]], None],
    scheme: str,
    part: str,
    method: str,
    before: bool,
) -> None:
    collected = Collected()
    connection = connect_to(collected, scheme)
    on_signal(lambda: connection.close(timeout=None))
    signal_in(parts(connection)[part], method, before=before)
    connection.send("accepted")
    assert collected.done.wait(PATIENCE)
    assert collected.frames == ["accepted", (ABNF.OPCODE_CLOSE, b"\x03\xe8")]
    assert collected.after_close == b""
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


@pytest.mark.parametrize(
    ("part", "method", "before"),
    [
        ("inbox", "take", True),
        ("inbox", "take", False),
        ("inbox", "wait", True),
        ("inbox turn", "take", True),
        ("inbox turn", "take", False),
        ("reader", "read_lent", True),
        ("inbox turn", "give_back", True),
    ],
)
def test_a_handler_may_close_in_the_middle_of_a_recv(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], part: str, method: str, before: bool
) -> None:
    connection = connect_to(echo)
    if method == "wait":
        connection.fileno()  # so that recv() waits for the reader thread
    on_signal(lambda: connection.close(timeout=None))
    signal_in(parts(connection)[part], method, before=before)
    if method == "give_back":
        connection.send("x")
    with pytest.raises(WebSocketConnectionClosedException):
        for _ in range(3):
            connection.recv()
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


@pytest.mark.parametrize("before", [True, False])
def test_a_handler_may_close_while_a_polled_message_is_taken(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], before: bool
) -> None:
    connection = connect_to(echo)
    connection.fileno()
    connection.send("x")
    on_signal(lambda: connection.close(timeout=None))
    signal_in(parts(connection)["event"], "clear", before=before)
    assert connection.recv() == "x"
    with pytest.raises(WebSocketConnectionClosedException):
        connection.recv()
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


@pytest.mark.parametrize(("part", "method", "before"), SENDING)
def test_an_exception_in_the_middle_of_a_send_leaves_nothing_stuck(
    connect_to: Connect,
    on_signal: Callable[[Callable[[], Any]], None],
    scheme: str,
    part: str,
    method: str,
    before: bool,
) -> None:
    """What was being written is unknown then, so the connection either is untouched, or ends and says why."""

    connection = connect_to(echo, scheme)
    on_signal(interrupt)
    signal_in(parts(connection)[part], method, before=before)
    with pytest.raises(Interrupted):
        connection.send("interrupted")
    try:
        connection.send("after")
        while connection.recv() != "after":
            pass
    except WebSocketConnectionClosedException as error:
        assert "interrupted" in str(error)
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


@pytest.mark.parametrize("method", ["_take_in", "_read_now"])
def test_an_exception_while_bytes_are_in_hand_ends_the_connection_and_says_so(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], method: str
) -> None:
    connection = connect_to(echo)
    on_signal(interrupt)
    signal_in(parts(connection)["reader"], method, before=False)
    connection.send("x")
    with pytest.raises(Interrupted):
        connection.recv()
    with pytest.raises(WebSocketConnectionClosedException, match="interrupted"):
        for _ in range(2):
            connection.recv()


def test_an_exception_in_a_wait_loses_nothing_and_wakes_nobody_less(
    connect_to: Connect, interrupting: Callable[..., Interrupter]
) -> None:
    """Main is interrupted just as it waits for the reader thread; the other waiter still gets its message."""

    release = threading.Event()

    def handler(peer: Peer) -> None:
        release.wait(PATIENCE)
        peer.send("x")
        peer.recv()

    connection = connect_to(handler)
    connection.fileno()
    interrupter = interrupting(interrupt)
    other = background(connection.recv)
    wait_until(lambda: is_receiving(connection, 1), "the other waits")
    delivering = background(
        lambda: wait_until(lambda: is_receiving(connection, 2), "both wait") or interrupter.deliver()
    )
    with pytest.raises(Interrupted):
        connection.recv()
    delivering()
    release.set()
    assert other() == "x"


def test_an_exception_while_a_borrower_ends_the_connection_wakes_everybody(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    release = threading.Event()

    def handler(peer: Peer) -> None:
        release.wait(PATIENCE)
        peer.hang_up()

    connection = connect_to(handler)
    on_signal(interrupt)
    signal_in(parts(connection)["inbox"], "finish", before=True)

    def others() -> Any:
        wait_until(lambda: is_receiving(connection, 1), "main has the turn")
        waiting = background(connection.recv)
        wait_until(lambda: is_receiving(connection, 2), "the other waits")
        release.set()
        with pytest.raises(WebSocketConnectionClosedException, match="lost"):
            waiting()

    other = background(others)
    with pytest.raises(Interrupted):
        connection.recv()
    other()
    with pytest.raises(WebSocketConnectionClosedException, match="lost"):
        connection.recv()


def test_a_handler_may_send_in_the_middle_of_a_read_or_a_question_over_tls(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    connection = connect_to(echo, "wss")
    on_signal(lambda: connection.send("from the handler"))
    signal_in(parts(connection)["transport"], "_decrypt_locked", before=True)
    connection.send("x")
    assert [connection.recv(), connection.recv()] == ["x", "from the handler"]


def test_a_handler_may_close_in_the_middle_of_a_question_over_tls(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    connection = connect_to(echo, "wss")
    transport: Any = connection._connection.transport  # type: ignore[union-attr]

    class Asked:
        """The SSL object, with a signal in the middle of a question."""

        def __getattr__(self, name: str) -> Any:
            signal.raise_signal(signal.SIGUSR1)
            return getattr(ssl_object, name)

    ssl_object = transport.ssl_object
    on_signal(lambda: connection.close(timeout=None))
    sock = connection.sock
    transport.ssl_object = Asked()
    try:
        assert sock.cipher()
    finally:
        transport.ssl_object = ssl_object
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


def test_a_handler_may_send_while_the_send_that_it_interrupts_waits_for_room(
    connect_to: Connect, interrupting: Callable[..., Interrupter]
) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, max_outbox_messages=1)
    interrupter = interrupting(lambda: connection.send("from the handler"))

    def deliver() -> None:
        wait_until(lambda: len(connection._connection.outlet.waiting.line) == 1, "main stands in line")  # type: ignore[union-attr]
        released = background(
            lambda: wait_until(lambda: is_sending(connection, 2), "both wait") or collected.gate.set()
        )
        interrupter.deliver()
        released()

    delivering = background(deliver)
    # Fills the kernel first, and then waits for room.
    while connection._connection.outlet.lanes.messages == 0:  # type: ignore[union-attr]
        connection.send("x" * 1_000_000)
    connection.send("interrupted")
    delivering()
    connection.close(timeout=PATIENCE)
    assert sorted(collected.messages[-2:]) == ["from the handler", "interrupted"]


def test_a_timeout_error_of_a_handler_comes_out_of_recv_and_leaves_the_connection(
    connect_to: Connect, interrupting: Callable[..., Interrupter]
) -> None:
    """As signal.alarm() is used: the handler's exception is an OSError, and not one of the socket."""

    def interrupt() -> None:
        raise TimeoutError("of the handler")

    connection = connect_to(echo)
    interrupter = interrupting(interrupt)
    delivering = background(
        lambda: wait_until(lambda: is_receiving(connection), "recv() waits") or interrupter.deliver()
    )
    with pytest.raises(TimeoutError, match="of the handler"):
        connection.recv()
    delivering()
    connection.send("x")
    assert connection.recv() == "x"


def test_recv_in_a_handler_that_interrupts_recv_is_refused(
    connect_to: Connect, interrupting: Callable[..., Interrupter]
) -> None:
    connection = connect_to(echo)
    refused: list[BaseException] = []

    def receive() -> None:
        with pytest.raises(WebSocketException, match=r"recv\(\) inside recv\(\)") as caught:
            connection.recv()
        refused.append(caught.value)

    interrupter = interrupting(receive)

    def deliver() -> None:
        wait_until(lambda: is_receiving(connection), "recv() waits")
        interrupter.deliver()
        wait_until(lambda: refused, "the handler was refused")
        connection.send("x")

    delivering = background(deliver)
    assert connection.recv() == "x"
    delivering()


STARTING = [
    ("pinger", "start", True),
    ("pinger", "start", False),
    ("reader", "start", True),
    ("reader", "start", False),
]


@pytest.mark.parametrize(("actor", "method", "before"), STARTING)
@pytest.mark.parametrize("error", [Interrupted, RuntimeError])
def test_an_exception_while_the_threads_start_leaves_nothing(
    serve: Callable[..., Any], monkeypatch: Any, actor: str, method: str, before: bool, error: type[BaseException]
) -> None:
    """The fixture finds threads and descriptors that are left."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        mine = thread.name.startswith(f"websocket-{actor}")
        if mine and before:
            raise error
        start(thread)
        if mine and not before:
            raise error

    server = serve()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises((Interrupted, WebSocketException)):
        create_connection(server.url, ping_interval=3600)


def test_an_exception_just_before_a_connection_is_published_leaves_nothing(
    serve: Callable[..., Any], monkeypatch: Any
) -> None:
    def interrupted(*_: Any) -> None:
        raise Interrupted

    server = serve()
    connection = WebSocket()
    monkeypatch.setattr(WebSocket, "_publish", interrupted)
    with pytest.raises(Interrupted):
        connection.connect(server.url)
    assert not connection.connected
