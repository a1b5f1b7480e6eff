"""The writer thread is started when something is first left to it: who does, when that fails, when the end is near."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException
from websocket.testing import Peer, Server, echo
from websocket.threads import lifetime

from .conftest import PATIENCE, Collected, background, run_all, wait_until
from .test_interruptions import Interrupted, interrupt, on_signal, signal_in
from .test_lifecycle import run_python

Connect = Callable[..., WebSocket]

__all__ = ["on_signal"]  # a fixture

SMALL = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
LARGE = "x" * 500_000  # more than the kernel takes at once of SMALL


def writers(connection: WebSocket) -> list[threading.Thread]:
    name = f"websocket-writer {connection._connection.name}"  # type: ignore[union-attr]
    return [thread for thread in threading.enumerate() if thread.name == name]


def outlet_of(connection: WebSocket) -> Any:
    return connection._connection.outlet  # type: ignore[union-attr]


class Held:
    """A method of a connection's part that waits, in whatever thread calls it, until it is let go."""

    def __init__(self, target: Any, method: str) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        self._original = getattr(target, method)
        setattr(target, method, self)

    def __call__(self, *arguments: Any) -> Any:
        self.reached.set()
        assert self.go.wait(PATIENCE)
        return self._original(*arguments)


# ---- when there is none ----


def test_who_only_asks_and_gets_replies_has_no_writer(connect_to: Connect, scheme: str) -> None:
    connection = connect_to(echo, scheme)
    for number in range(50):
        connection.send(f"{number}")
        assert connection.recv() == f"{number}"
    connection.ping("x")
    connection.close()
    assert not outlet_of(connection).has_writer


def test_a_close_of_the_peer_is_answered_without_a_writer(connect_to: Connect, scheme: str) -> None:
    answered: list[Any] = []

    def close(peer: Peer) -> None:
        peer.close(3000)
        answered.append(peer.recv())
        answered.append(peer.close_frame)

    connection = connect_to(close, scheme)
    assert connection.recv() == ""
    connection.close()
    wait_until(lambda: len(answered) == 2, "the server has our answer")
    assert answered[1].data == b"\x0b\xb8"
    assert not outlet_of(connection).has_writer


def test_without_a_writer_it_is_known_at_once_that_nothing_is_unsent(connect_to: Connect) -> None:
    """Else the exceptions of an ended connection would wait for a thread that is not there."""
    gate = threading.Event()

    def late(peer: Peer) -> None:
        gate.wait(PATIENCE)
        peer.recv()

    connection = connect_to(late)
    connection.send_close()
    inner: Any = connection._connection
    assert inner.end.settled
    gate.set()


# ---- its start ----


def test_threads_that_leave_something_at_once_get_one_writer(connect_to: Connect, scheme: str) -> None:
    collected = Collected()
    connection = connect_to(collected, scheme)
    barrier = threading.Barrier(8)
    seen: list[threading.Thread] = []

    def burst(number: int) -> None:
        barrier.wait(PATIENCE)
        for count in range(200):
            connection.send(f"{number} {count}")
        seen.extend(writers(connection))

    run_all(*(lambda number=number: burst(number) for number in range(8)))  # type: ignore[misc]
    connection.close(timeout=PATIENCE)
    for number in range(8):
        mine = [message for message in collected.messages if message.startswith(f"{number} ")]
        assert mine == [f"{number} {count}" for count in range(200)]
    assert len(set(seen)) <= 1
    assert writers(connection) == []


def test_the_reader_leaves_an_answer_to_a_writer_that_it_starts(connect_to: Connect) -> None:
    """The pong finds a lent write under way, which was not finished."""
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)
    outlet = outlet_of(connection)
    held = Held(outlet, "_start_writer")
    sending = background(lambda: connection.send(LARGE))
    assert held.reached.wait(PATIENCE)
    outlet._start_writer = held._original  # the sender's call alone is held
    connection._connection.outbox.answer(b"\x8a\x80\0\0\0\0")
    held.go.set()
    sending()
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert [frame if isinstance(frame, tuple) else len(frame) for frame in collected.frames] == [
        len(LARGE),
        (ABNF.OPCODE_PONG, b""),
        (ABNF.OPCODE_CLOSE, b"\x03\xe8"),
    ]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("method", ["_start_writer", "go_on", "_call_writer"])
def test_an_exception_of_a_handler_while_the_writer_is_called_loses_nothing(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], before: bool, method: str
) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)
    on_signal(interrupt)
    signal_in(outlet_of(connection), method, before=before)
    with pytest.raises(Interrupted):
        connection.send(LARGE)
    collected.gate.set()
    wait_until(lambda: collected.messages, "what was accepted is written, though nothing more is sent")
    assert len(writers(connection)) == 1
    connection.close(timeout=PATIENCE)
    assert [len(message) for message in collected.messages] == [len(LARGE)]
    assert writers(connection) == []


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("method", ["_start_writer", "go_on", "_call_writer"])
def test_a_handler_may_send_and_close_while_the_writer_is_called(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], before: bool, method: str
) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)

    def handler() -> None:
        connection.send("of the handler")
        connection._connection.begin_close(b"\x88\x82\0\0\0\0\x03\xe8")  # type: ignore[union-attr]

    on_signal(handler)
    signal_in(outlet_of(connection), method, before=before)
    connection.send(LARGE)
    collected.gate.set()
    connection.close(timeout=PATIENCE)
    assert [len(message) for message in collected.messages] == [len(LARGE), len("of the handler")]
    assert collected.frames[-1] == (ABNF.OPCODE_CLOSE, b"\x03\xe8")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("method", ["go_on", "_call_writer", "_start_writer"])
def test_a_handler_that_needs_room_does_not_wait_for_the_send_that_it_interrupts(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None], before: bool, method: str
) -> None:
    """That was about to call the writer, which nobody else does."""
    collected = Collected()
    connection = connect_to(collected, sockopt=SMALL, max_outbox_messages=1, timeout=PATIENCE)

    def handler() -> None:
        connection.send("of the handler")

    on_signal(handler)
    signal_in(outlet_of(connection), method, before=before)
    connection.send(LARGE)
    connection.close(timeout=PATIENCE)
    assert [len(message) for message in collected.messages] == [len(LARGE), len("of the handler")]


class Interrupting(deque[Any]):
    """A line in which an exception of a handler comes just when somebody has taken his place."""

    def append(self, item: Any) -> None:
        super().append(item)
        raise Interrupted

    def insert(self, index: int, item: Any) -> None:
        super().insert(index, item)
        raise Interrupted


def test_who_is_interrupted_when_he_has_just_lined_up_leaves_the_line(connect_to: Connect) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL, max_outbox_messages=1)
    outlet = outlet_of(connection)
    connection.send(LARGE)
    outlet.waiting.line = Interrupting()
    with pytest.raises(Interrupted):
        connection.send("interrupted")
    assert not outlet.waiting.line
    outlet.waiting.line = deque()
    collected.gate.set()
    connection.send("second")
    connection.close(timeout=PATIENCE)
    assert [len(message) for message in collected.messages] == [len(LARGE), len("second")]


def test_who_is_interrupted_when_he_has_just_lined_up_to_compress_leaves_the_line(
    compressing: Connect, compression: Any
) -> None:
    connection = compressing(echo, compression)
    deflating: Any = connection._connection.deflating  # type: ignore[union-attr]
    deflating._holder = -1  # some thread
    deflating._line = Interrupting()
    with pytest.raises(Interrupted):
        connection.send("x" * 1000)
    assert not deflating._line
    deflating._holder = 0
    connection.send("y" * 1000)
    assert connection.recv() == "y" * 1000


def test_an_exception_of_a_handler_while_it_is_said_what_is_unsent_says_it_once(
    connect_to: Connect, on_signal: Callable[[Callable[[], Any]], None]
) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)
    outlet = outlet_of(connection)
    held = Held(outlet, "admit_writer")
    connection.send(LARGE)
    connection.send("second")
    assert held.reached.wait(PATIENCE)
    on_signal(interrupt)
    signal_in(outlet.lanes, "_give_up", before=False)
    inner: Any = connection._connection
    with pytest.raises(Interrupted):
        inner.abort()
    inner.abort()
    assert inner.unsent == [LARGE, "second"]
    held.go.set()
    collected.gate.set()


# ---- the end while it comes ----


def test_a_writer_that_comes_after_the_end_does_not_begin(connect_to: Connect) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)
    held = Held(outlet_of(connection), "admit_writer")
    connection.send(LARGE)
    connection.send("second")
    assert held.reached.wait(PATIENCE)
    inner: Any = connection._connection
    inner.abort()
    assert inner.end.settled
    assert inner.end.closed
    assert inner.unsent == [LARGE, "second"]
    held.go.set()
    wait_until(lambda: not lifetime._bare_threads, "it has gone")
    assert writers(connection) == []
    collected.gate.set()


def test_the_end_waits_for_a_writer_that_is_just_starting(connect_to: Connect) -> None:
    collected = Collected(gate=False)
    connection = connect_to(collected, sockopt=SMALL)
    inner: Any = connection._connection
    held = Held(inner, "_thread")
    connection.send(LARGE)
    assert held.reached.wait(PATIENCE)
    aborting = background(inner.abort)
    wait_until(lambda: inner.inbox.turn.holder == -1, "the connection winds up")
    assert not inner.end.closed
    held.go.set()
    aborting()
    assert inner.end.closed
    assert writers(connection) == []
    assert inner.unsent == [LARGE]
    collected.gate.set()


def test_the_end_waits_for_a_lent_write(connect_to: Connect) -> None:
    """Without a writer the reader thread says what is unsent, but not while somebody writes."""
    collected = Collected()
    connection = connect_to(collected)
    inner: Any = connection._connection
    held = Held(inner.transport, "send_now")
    sending = background(lambda: connection.send("under way"))
    assert held.reached.wait(PATIENCE)
    aborting = background(inner.abort)
    wait_until(lambda: inner.inbox.turn.holder == -1, "the connection winds up")
    assert not inner.end.settled
    held.go.set()
    with pytest.raises(WebSocketConnectionClosedException):
        sending()
    aborting()
    assert inner.end.settled
    assert not inner.outlet.has_writer


# ---- where no thread can be started ----

LIMITED = """
import gc, resource, sys, threading, websocket
connection = websocket.create_connection(sys.argv[1])
threading.stack_size(1 << 30)  # more than there may be
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), resource.RLIM_INFINITY))
message = "x" * 8_000_000
connection.send(message)
try:
    connection.send("x")
except websocket.WebSocketConnectionClosedException as error:
    assert "could not be started" in str(error), error
    assert list(error.unsent) == [message], len(error.unsent)
else:
    raise AssertionError("the connection goes on")
connection.close()
assert [thread for thread in threading.enumerate() if thread.name.startswith("websocket-")] == []
print("done")
"""


def test_where_no_thread_can_be_started_the_connection_fails_and_says_what_is_unsent(
    serve: Callable[..., Server],
) -> None:
    assert run_python(LIMITED, serve(Peer.stall).url) == "done\n"


# ---- the end of the process ----

AT_EXIT = """
import atexit, sys, websocket
connection = websocket.create_connection(sys.argv[1], sslopt={"ca_certs": sys.argv[2]}, timeout=10)
def at_exit():
    connection.send("x" * 8_000_000)
    for number in range(200):
        connection.send(f"{number}")
    if sys.argv[3] == "close":
        connection.close(timeout=10)
atexit.register(at_exit)
"""

AFTER_MAIN = """
import sys, threading, websocket
connection = websocket.create_connection(sys.argv[1], sslopt={"ca_certs": sys.argv[2]}, timeout=10)
def go_on():
    threading.main_thread().join()
    connection.send("x" * 8_000_000)
    for number in range(200):
        connection.send(f"{number}")
    if sys.argv[3] == "close":
        connection.close(timeout=10)
threading.Thread(target=go_on).start()
"""


@pytest.mark.parametrize("closing", ["close", "leave"])
@pytest.mark.parametrize("script", [AT_EXIT, AFTER_MAIN])
def test_what_is_sent_while_the_process_ends_is_written(
    serve: Callable[..., Server], authority: Any, scheme: str, script: str, closing: str
) -> None:
    """From CPython 3.12 on no thread can be started then."""
    collected = Collected()
    server = serve(collected, ssl_context=authority.server_context() if scheme == "wss" else None)
    run_python(script, server.url, authority.ca_file, closing)
    assert collected.done.wait(PATIENCE)
    assert [len(message) for message in collected.messages[:1]] == [8_000_000]
    assert collected.messages[1:] == [str(number) for number in range(200)]
    assert collected.frames[-1][0] == ABNF.OPCODE_CLOSE


OF_A_POOL = """
import sys, threading, websocket
from concurrent.futures import ThreadPoolExecutor
connection = websocket.create_connection(sys.argv[1], timeout=10)
go = threading.Event()
def work():
    assert go.wait(10)
    connection.send("x" * 8_000_000)
    for number in range(200):
        connection.send(f"{number}")
pool = ThreadPoolExecutor(1)
pool.submit(work)
threading._register_atexit(go.set)  # called before the pool's, which was registered earlier
"""


def test_a_worker_for_which_the_end_of_the_process_waits_may_send(serve: Callable[..., Server]) -> None:
    """concurrent.futures waits before `threading` calls the main thread dead; CPython 3.12 starts no threads then."""
    collected = Collected()
    run_python(OF_A_POOL, serve(collected).url)
    assert collected.done.wait(PATIENCE)
    assert [len(message) for message in collected.messages[:1]] == [8_000_000]
    assert collected.messages[1:] == [str(number) for number in range(200)]


CUT_SHORT = """
import atexit, sys, websocket
connection = websocket.create_connection(sys.argv[1], timeout=0.1, max_outbox_messages=1)
def at_exit():
    connection.send("x" * 20_000_000)
    print("first", flush=True)
    sys.stdin.readline()
    connection.settimeout(10)
    connection.send("second")
atexit.register(at_exit)
"""


def test_what_a_timeout_has_cut_short_while_the_process_ends_is_written_by_the_next_send(
    serve: Callable[..., Server],
) -> None:
    collected = Collected(gate=False)
    command = [sys.executable, "-X", "dev", "-c", CUT_SHORT, serve(collected).url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        collected.gate.set()
        assert process.communicate("\n", timeout=PATIENCE)[1] == ""
    assert collected.done.wait(PATIENCE)
    assert [len(message) for message in collected.messages] == [20_000_000, len("second")]


STUCK_AT_EXIT = """
import atexit, sys, websocket
connection = websocket.create_connection(sys.argv[1], timeout=0.1)
def at_exit():
    for number in range(3):
        try:
            connection.send("x" * 8_000_000)
        except websocket.WebSocketTimeoutException:
            pass
atexit.register(at_exit)
"""


def test_a_server_that_reads_nothing_does_not_hold_up_the_exit_without_a_writer(serve: Callable[..., Server]) -> None:
    run_python(STUCK_AT_EXIT, serve(Peer.stall).url)


FORKED = """
import os, socket, sys, threading, websocket
small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
connection = websocket.create_connection(sys.argv[1], sockopt=small, timeout=10)
outlet = connection._connection.outlet
go, reached, admit = threading.Event(), threading.Event(), outlet.admit_writer
def held():
    reached.set()
    assert go.wait(10)
    return admit()
outlet.admit_writer = held
connection.send("x" * 500_000)
assert reached.wait(10)
child = os.fork()
if child == 0:
    try:
        connection.send("y")
    except websocket.WebSocketConnectionClosedException as error:
        os._exit(0 if "parent process" in str(error) else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
go.set()
assert len(connection.recv()) == 500_000
connection.close()
print("done")
"""


def test_a_fork_while_the_writer_comes_leaves_it_to_the_parent(serve: Callable[..., Server]) -> None:
    assert run_python(FORKED, serve().url) == "done\n"
