"""Signal handlers in the middle of a compressing send(), and forks: nothing gets stuck, nothing is inflated wrongly."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import PerMessageDeflate, WebSocket, WebSocketConnectionClosedException
from websocket.testing import Server, echo

from .compressing import Connect, Sink, deflating, fill, large, outbox
from .conftest import PATIENCE, Interrupter, background, is_sending, wait_until
from .test_interruptions import Interrupted, has_threads, interrupt, signal_in
from .test_lifecycle import run_python

OnSignal = Callable[[Callable[[], Any]], None]


@pytest.fixture
def on_signal() -> Iterator[OnSignal]:
    """Sets what the handler of SIGUSR1 does, the first time that it is called."""

    def install(action: Callable[[], Any]) -> None:
        left = [action]
        signal.signal(signal.SIGUSR1, lambda *_: left.pop()() if left else None)

    yield install
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


PLACES = [
    (part, method, before)
    for part, method in [
        ("deflating", "_take_turn"),
        ("deflater", "message"),
        ("outbox", "put"),
        ("deflating", "_give_back"),
        ("outlet turn", "take"),
        ("transport", "send_now"),
        ("outlet turn", "give_back"),
    ]
    for before in (True, False)
]


def part_of(connection: WebSocket, name: str) -> Any:
    inner: Any = connection._connection
    parts = {
        "deflating": inner.deflating,
        "deflater": inner.deflating._deflater,
        "outbox": inner.outbox,
        "outlet turn": inner.outlet.turn,
        "transport": inner.transport,
    }
    return parts[name]


def has_begun(connection: WebSocket) -> None:
    connection.send(large("before"))
    assert connection.recv() == large("before")


@pytest.mark.parametrize(("part", "method", "before"), PLACES)
def test_an_exception_in_the_middle_of_a_compressing_send_leaves_nothing_stuck(
    compressing: Connect, compression: PerMessageDeflate, on_signal: OnSignal, part: str, method: str, before: bool
) -> None:
    """The connection either goes on, with messages that inflate, or ends and says why."""
    connection = compressing(echo, compression)
    has_begun(connection)
    on_signal(interrupt)
    signal_in(part_of(connection, part), method, before=before)
    with pytest.raises(Interrupted):
        connection.send(large("interrupted"))
    try:
        background(lambda: connection.send(large("another thread")))()
        connection.send(iter([large("chunk"), "x"]))
        connection.send(large("after"))
        received = list(iter(connection.recv, large("after")))
        assert received[-2:] == [large("another thread"), large("chunk") + "x"]
        assert received[:-2] in ([], [large("interrupted")])
    except WebSocketConnectionClosedException as error:
        assert "interrupted" in str(error)
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("part", "method", "before"), PLACES)
def test_a_handler_may_send_in_the_middle_of_a_compressing_send(
    compressing: Connect,
    compression: PerMessageDeflate,
    on_signal: OnSignal,
    part: str,
    method: str,
    before: bool,
    chunked: bool,
) -> None:
    connection = compressing(echo, compression)
    has_begun(connection)
    on_signal(lambda: connection.send(iter(["hand", large("ler")]) if chunked else large("handler")))
    signal_in(part_of(connection, part), method, before=before)
    connection.send(large("interrupted"))
    connection.send(large("after"))
    received = [connection.recv() for _ in range(3)]
    assert sorted(received[:2]) == [large("handler"), large("interrupted")]
    assert received[2] == large("after")


@pytest.mark.parametrize(("part", "method", "before"), PLACES)
def test_a_handler_may_close_in_the_middle_of_a_compressing_send(
    compressing: Connect, compression: PerMessageDeflate, on_signal: OnSignal, part: str, method: str, before: bool
) -> None:
    sink = Sink(is_open=True)
    connection = compressing(sink, compression, "wss")
    connection.send(large("before"))
    on_signal(lambda: connection.close(timeout=None))
    signal_in(part_of(connection, part), method, before=before)
    expected = [large("before")]
    try:
        connection.send(large("accepted"))
        expected.append(large("accepted"))
    except WebSocketConnectionClosedException:
        pass  # the handler came before the message had a place
    connection.close(timeout=PATIENCE)
    assert not has_threads(connection)
    assert sink.messages == expected


@pytest.mark.parametrize("kind", [None, PerMessageDeflate()])
@pytest.mark.parametrize("before", [True, False])
def test_an_exception_in_the_middle_of_a_first_chunk_leaves_no_half_message_that_others_wait_for(
    compressing: Connect, on_signal: OnSignal, before: bool, kind: PerMessageDeflate | None
) -> None:
    connection = compressing(echo, kind, timeout=2)
    on_signal(interrupt)
    signal_in(outbox(connection), "put_fragment", before=before)
    with pytest.raises(Interrupted):
        connection.send(iter(["chunk", "chunk"]))
    try:
        background(lambda: connection.send(large("after")))()
        assert connection.recv() == large("after")
    except WebSocketConnectionClosedException:
        assert not before, "nothing had been sent"


def test_a_handler_may_send_while_the_send_that_it_interrupts_waits_for_the_turn(
    compressing: Connect, compression: PerMessageDeflate, interrupting: Callable[..., Interrupter]
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, max_outbox_messages=1)
    sent = fill(connection)
    interrupter = interrupting(lambda: connection.send(large("from the handler")))
    holder = background(lambda: connection.send(large("holder")))
    wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the holder waits for room")
    connection.settimeout(None)  # a timeout that passes would look again

    def deliver() -> None:
        wait_until(lambda: is_sending(connection, 2), "main waits for the turn")
        released = background(lambda: wait_until(lambda: is_sending(connection, 3), "both wait") or sink.gate.set())
        try:
            interrupter.deliver()
            released()
            wait_until(lambda: not is_sending(connection), "all have sent")
        except AssertionError:
            connection.abort()  # or main would wait for ever
            raise

    delivering = background(deliver)
    try:
        connection.send(large("interrupted"))
    finally:
        delivering()
    holder()
    connection.close(timeout=PATIENCE)
    assert sink.messages[: len(sent) + 1] == [*sent, large("holder")]
    assert sorted(map(str, sink.messages[len(sent) + 1 :])) == [large("from the handler"), large("interrupted")]


def test_an_exception_in_who_has_just_got_the_turn_passes_it_on(
    compressing: Connect, compression: PerMessageDeflate, on_signal: OnSignal
) -> None:
    sink = Sink()
    connection = compressing(sink, compression, max_outbox_messages=1)
    sent = fill(connection)
    holder = background(lambda: connection.send(large("holder")))
    wait_until(lambda: deflating(connection)._holder and is_sending(connection), "the holder waits for room")
    connection.settimeout(None)  # a timeout that passes would look again
    on_signal(interrupt)
    signal_in(outbox(connection), "wait_for", before=False)

    def other() -> None:
        wait_until(lambda: is_sending(connection, 2), "main waits for the turn")
        waiting = background(lambda: connection.send(large("other")))
        wait_until(lambda: is_sending(connection, 3), "the other waits for the turn")
        sink.gate.set()
        waiting()

    others = background(other)
    with pytest.raises(Interrupted):
        connection.send(large("interrupted"))
    others()
    holder()
    connection.close(timeout=PATIENCE)
    assert sink.messages == [*sent, large("holder"), large("other")]


FORKED = """
import os, sys, threading, websocket
from websocket._deflate import Deflater
from websocket import WebSocketConnectionClosedException

connection = websocket.create_connection(sys.argv[1], compression="deflate", timeout=10)
LARGE = "large " * 1000
children = []

def expect_dead(call):
    try:
        call()
    except WebSocketConnectionClosedException as error:
        assert "parent process" in str(error), error
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    else:
        os._exit(2)

def fork():
    child = os.fork()
    if child:
        children.append(child)
    return child == 0

def chunks():
    yield LARGE
    fork()
    yield LARGE

if sys.argv[2] == "between":
    if fork():
        expect_dead(lambda: connection.send(LARGE))
        expect_dead(lambda: connection.send(iter([LARGE])))
        connection.close()
        os._exit(0)
    connection.send(LARGE)
elif sys.argv[2] == "chunks":
    parent = os.getpid()
    try:
        connection.send(chunks())
    except websocket.WebSocketException:
        if os.getpid() == parent:
            raise
    if os.getpid() != parent:
        expect_dead(lambda: connection.send(LARGE))
        os._exit(0)
else:
    method = getattr(Deflater, "message")
    def forking(self, data):
        Deflater.message = method
        if sys.argv[2] == "before":
            fork()
            return method(self, data)
        result = method(self, data)
        fork()
        return result
    Deflater.message = forking
    parent = os.getpid()
    if sys.argv[2] == "elsewhere":
        Deflater.message = method
        release = threading.Event()
        def slow(self, data):
            result = method(self, data)
            release.wait()
            return result
        Deflater.message = slow
        thread = threading.Thread(target=lambda: connection.send(LARGE))
        thread.start()
        while not connection._connection.deflating._holder:
            pass
        Deflater.message = method
        if fork():
            expect_dead(lambda: connection.send(LARGE))
            os._exit(0)
        release.set()
        thread.join()
    else:
        def send():
            connection.send(LARGE)
        try:
            send()
        except BaseException as error:
            if os.getpid() == parent:
                raise
            caught = error
            def again():
                raise caught
            expect_dead(again)
            expect_dead(send)
            os._exit(0)
        assert os.getpid() == parent
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert len(children) == 1
assert connection.recv() in (LARGE, 2 * LARGE)
connection.send(LARGE + "after")
assert connection.recv() == LARGE + "after"
connection.close()
print("parent: fine")
"""


@pytest.mark.parametrize("moment", ["between", "chunks", "before", "after", "elsewhere"])
def test_a_fork_leaves_the_parents_compression_alone_and_the_childs_copy_dead(
    serve: Callable[..., Server], moment: str
) -> None:
    assert run_python(FORKED, serve(compression="deflate").url, moment) == "parent: fine\n"
