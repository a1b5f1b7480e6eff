"""Threads, descriptors and memory from the first reference to the last, and what a process's end and fork do."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from websocket import ABNF, WebSocket, create_connection
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, Collected, background, is_receiving, wait_until

Connect = Callable[..., WebSocket]


def run_python(script: str, *arguments: str) -> str:
    """Run a script in an interpreter of its own; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def leave_something_to_the_writer(connection: WebSocket) -> None:
    """Without this there is no thread for it. Returns when it is done and waits for more."""
    inner: Any = connection._connection
    inner.outlet.want_flush()
    outlet = inner.outlet
    wait_until(
        lambda: len(outlet.turn._changed._waiters) == 1 and not outlet._flush_wanted, "the writer waits for more"
    )


def test_threads_are_named_after_what_they_do_and_are_daemons(serve: Callable[..., Server]) -> None:
    server = serve()
    before = set(threading.enumerate())
    with create_connection(server.url) as connection:
        leave_something_to_the_writer(connection)
        mine = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("websocket-")]
        names = sorted(thread.name.rpartition(" #")[0] for thread in mine)
        assert names == [
            f"websocket-reader ws://127.0.0.1:{server.port}",
            f"websocket-writer ws://127.0.0.1:{server.port}",
        ]
        assert all(thread.daemon for thread in mine)
        assert "secret" not in "".join(names)


def test_a_dropped_connection_is_closed_with_a_resource_warning(serve: Callable[..., Server]) -> None:
    collected = Collected()
    connection = create_connection(serve(collected).url)
    connection.send("sent before it was dropped")
    with pytest.warns(ResourceWarning, match="unclosed <WebSocket ws://"):
        del connection  # no cycle keeps it until the next garbage collection
    assert collected.done.wait(PATIENCE)
    assert collected.frames == ["sent before it was dropped", (ABNF.OPCODE_CLOSE, b"\x03\xe9")]


def test_a_dropped_connection_that_is_closed_or_ended_warns_of_nothing(serve: Callable[..., Server]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection = create_connection(serve().url)
        connection.close()
        del connection
        connection = create_connection(serve(lambda peer: None).url)
        assert connection.recv() == ""
        del connection
        gc.collect()


def test_a_connection_is_not_kept_alive_by_its_threads(serve: Callable[..., Server]) -> None:
    for url in [serve().url] * 20:
        connection = create_connection(url)
        connection.send("x")
        assert connection.recv() == "x"
        with pytest.warns(ResourceWarning):
            del connection
    # The fixture finds threads and descriptors that stay.


def test_a_thousand_connections_leave_nothing(serve: Callable[..., Server]) -> None:
    url = serve().url
    for _ in range(300):
        connection = create_connection(url)
        connection.send("x")
        assert connection.recv() == "x"
        connection.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")] == []


def voluntary_switches(threads: list[threading.Thread]) -> list[str]:
    """How often each thread has gone to sleep: it stays the same as long as none wakes up."""
    return [
        line
        for thread in threads
        for line in Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]


def is_asleep(threads: list[threading.Thread]) -> bool:
    states = [Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2] for thread in threads]
    return all(state.split()[0] == "S" for state in states)


def be_busy_elsewhere(url: str) -> None:
    """Let some tenths of a second pass: long beside every interval in the package."""
    with create_connection(url) as other:
        start = time.monotonic()
        while time.monotonic() - start < 0.3:
            other.send("x")
            assert other.recv() == "x"


def test_an_idle_connection_does_not_wake_up(connect_to: Connect, scheme: str, serve: Callable[..., Server]) -> None:
    connection = connect_to(echo, scheme)
    connection.send("x")
    assert connection.recv() == "x"
    inner = connection._connection
    assert inner is not None
    threads = [thread for thread in threading.enumerate() if thread.name.endswith(inner.name)]
    assert len(threads) == 1  # the reader; nothing was left to a writer
    wait_until(
        lambda: connection._inbox.turn.holder == inner._reader_thread.ident, "the reader has taken its turn back"
    )
    wait_until(lambda: is_asleep(threads), "it sleeps")
    before = voluntary_switches(threads)
    be_busy_elsewhere(serve().url)
    assert voluntary_switches(threads) == before


def test_a_waiting_recv_on_an_idle_connection_does_not_wake_up(
    connect_to: Connect, serve: Callable[..., Server]
) -> None:
    connection = connect_to(echo)
    receiving = background(connection.recv)
    wait_until(lambda: is_receiving(connection), "recv() waits")
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(("websocket-", "test"))]
    wait_until(lambda: connection._inbox.turn._return_wanted or connection._inbox._waiting, "the reader has settled")
    wait_until(lambda: is_asleep(threads), "all threads sleep")
    before = voluntary_switches(threads)
    be_busy_elsewhere(serve().url)
    assert voluntary_switches(threads) == before
    connection.send("x")
    assert receiving() == "x"


FLUSHED = """
import sys, websocket
connection = websocket.create_connection(sys.argv[1], sslopt={"ca_certs": sys.argv[2]})
for number in range(2000):
    connection.send(f"{number}:" + "x" * 1000)
print("sent", flush=True)
"""


def test_what_was_accepted_is_flushed_when_the_interpreter_exits(
    serve: Callable[..., Server], authority: Authority, scheme: str
) -> None:
    collected = Collected()
    server = serve(collected, ssl_context=authority.server_context() if scheme == "wss" else None)
    assert run_python(FLUSHED, server.url, authority.ca_file) == "sent\n"
    assert collected.done.wait(PATIENCE)
    assert [message.partition(":")[0] for message in collected.messages] == [str(number) for number in range(2000)]
    assert collected.frames[-1] == (ABNF.OPCODE_CLOSE, b"\x03\xe9")


STUCK = """
import sys, websocket
connection = websocket.create_connection(sys.argv[1])
for number in range(100):
    connection.send_bytes(bytes(100_000))
"""


def test_a_server_that_reads_nothing_holds_up_the_interpreters_exit_for_seconds_only(
    serve: Callable[..., Server],
) -> None:
    start = time.monotonic()
    run_python(STUCK, serve(Peer.stall).url)
    assert time.monotonic() - start < PATIENCE / 2


FORKED = """
import os, sys, threading, websocket
connection = websocket.create_connection(sys.argv[1], sslopt={"ca_certs": sys.argv[2]})
connection.send("before")
assert connection.recv() == "before"
polled = connection.fileno() if sys.argv[3] == "polled" else None
waiting = threading.Thread(target=lambda: print("parent thread:", connection.recv(), flush=True))
waiting.start()
child = os.fork()
if child == 0:
    try:
        for call in (connection.recv, lambda: connection.send("x"), connection.ping, connection.recv_data):
            try:
                call()
            except websocket.WebSocketConnectionClosedException as error:
                assert "parent process" in str(error), error
            else:
                raise AssertionError("the child's copy is alive")
        assert not connection.connected
        connection.close()
        connection.shutdown()
        own = websocket.create_connection(sys.argv[1], sslopt={"ca_certs": sys.argv[2]})
        own.send("child")
        assert own.recv() == "child"
        own.close()
        connection.connect(sys.argv[1], sslopt={"ca_certs": sys.argv[2]})
        connection.send("again")
        assert connection.recv() == "again"
        connection.close()
        print("child: fine", flush=True)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
connection.send("after")
waiting.join()
connection.close()
print("parent: fine", flush=True)
"""


@pytest.mark.parametrize("polled", ["polled", "not polled"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_childs_copy_is_dead_and_the_parents_goes_on(
    serve: Callable[..., Server], authority: Authority, scheme: str, polled: str
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    output = run_python(FORKED, server.url, authority.ca_file, polled)
    assert output.splitlines() == ["child: fine", "parent thread: after", "parent: fine"]
