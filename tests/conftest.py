"""What all tests share: servers, certificates, and a look after each test at what it has left behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import websocket
import websocket.threads.reader
from websocket import PerMessageDeflate, WebSocket, create_connection
from websocket._parser import Parser
from websocket.testing import Peer, Server

from .certs import Authority
from .compressing import COMPRESSIONS, compressing_to
from .patience import PATIENCE as PATIENCE
from .recorder import Record, maker, nobody_listens


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No thread and no file descriptor outlives the test that made it."""
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    yield
    left = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in left:
        thread.join(PATIENCE)
    assert [thread.name for thread in left if thread.is_alive()] == []
    if open_descriptors().keys() - descriptors.keys():
        gc.collect()  # what is in a cycle was let go of as well
    after = open_descriptors()
    assert {number: what for number, what in after.items() if number not in descriptors} == {}


def open_descriptors() -> dict[int, str]:
    """The process's file descriptors, and what each is."""
    result = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            result[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return result


@pytest.fixture
def ctrl_c_is_not_ignored() -> Iterator[None]:
    """A shell has it ignored in what a script starts in the background, and children inherit that."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(autouse=True)
def _default_timeout() -> Iterator[None]:
    """A test that hangs fails with the line where it hangs."""
    websocket.setdefaulttimeout(PATIENCE)
    yield
    websocket.setdefaulttimeout(None)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Makes servers that are closed after the test: serve(handler, ssl_context=..., raw=...)."""
    servers: list[Server] = []

    def make(*arguments: Any, **options: Any) -> Server:
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect_to(serve: Callable[..., Server], authority: Authority) -> Iterator[Callable[..., WebSocket]]:
    """Starts a server with a handler and connects to it: connect_to(handler, scheme="wss", **options). The
    connection is closed after the test; its server is at `websocket.server`."""
    connections: list[WebSocket] = []

    def make(handler: Callable[[Peer], None], scheme: str = "ws", raw: bool = False, **options: Any) -> WebSocket:
        secure = scheme == "wss"
        server = serve(handler, ssl_context=authority.server_context() if secure else None, raw=raw)
        if secure:
            options.setdefault("sslopt", {"ca_certs": authority.ca_file})
        connection = create_connection(server.url, **options)
        connection.server = server  # type: ignore[attr-defined]
        connections.append(connection)
        return connection

    yield make
    for connection in connections:
        connection.shutdown()


@pytest.fixture(params=COMPRESSIONS)
def compression(request: pytest.FixtureRequest) -> PerMessageDeflate:
    return COMPRESSIONS[request.param]


@pytest.fixture
def compressing(serve: Callable[..., Server], authority: Authority) -> Iterator[Callable[..., WebSocket]]:
    """See compressing_to()."""
    with compressing_to(serve, authority) as make:
        yield make


@pytest.fixture
def record(serve: Callable[..., Server], authority: Authority) -> Record:
    return maker(serve, authority)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    with nobody_listens() as port:
        yield port


def run_all(*functions: Callable[[], Any]) -> list[Any]:
    """Run each function on a thread of its own, all starting at once; their results, or the first exception."""
    barrier = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int, function: Callable[[], Any]) -> None:
        barrier.wait(PATIENCE)
        try:
            results[index] = function()
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(index, function), name=f"test {function}", daemon=True)
        for index, function in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    assert not [thread for thread in threads if thread.is_alive()], "a thread hangs"
    return results


def background(function: Callable[[], Any]) -> Callable[[], Any]:
    """Run a function on a thread; the result is a function that waits for it and gives its result or exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread
            outcome.append((False, error))

    thread = threading.Thread(target=run, name=f"test {function}", daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(PATIENCE)
        assert outcome, "the thread hangs"
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value

    return result


@pytest.fixture(params=[1e-6, 5e-3])
def switch_interval(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads that interleave as finely as the interpreter can, and as they do by default."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(interval)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a state of another thread that no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.0005)


def is_receiving(connection: WebSocket, threads: int = 1) -> bool:
    """Whether so many threads wait in recv()."""
    inbox = connection._inbox
    borrowed = inbox.turn.holder not in (0, connection._connection._reader_thread.ident)  # type: ignore[union-attr]
    return inbox._waiting + borrowed >= threads


def is_sending(connection: WebSocket, sends: int = 1) -> bool:
    """Whether so many calls of send() wait for room."""
    return connection._connection.outbox._waiting.blocked >= sends  # type: ignore[union-attr]


class Collected:
    """A server's handler that keeps what comes: messages, and control frames among them, in the order of the wire.

    gate: reading begins when it is set.  done: set when the client has closed or gone.  after_close: bytes that
    came after the client's close frame.
    """

    def __init__(self, gate: bool = True) -> None:
        self.frames: list[Any] = []  # str, bytes, and (opcode, payload) for control frames
        self.after_close = b""
        self.gate = threading.Event()
        self.done = threading.Event()
        if gate:
            self.gate.set()

    @property
    def messages(self) -> list[Any]:
        return [frame for frame in self.frames if not isinstance(frame, tuple)]

    def __call__(self, peer: Peer) -> None:
        try:
            self.gate.wait(PATIENCE)
            parser = Parser(max_message_size=None, server=True)
            while not parser.closed and (data := peer.sock.recv(1 << 18)):
                messages = parser.feed(data)
                if parser.error is not None:
                    raise parser.error
                taken = 0
                for index, frame in parser.controls:
                    self.frames += messages[taken:index]
                    self.frames.append((frame.opcode, frame.data))
                    taken = index
                self.frames += messages[taken:]
            if parser.closed:
                peer.close_frame = parser.controls[-1][1]
                peer.close()
                peer.half_close()
                while data := peer.sock.recv(1 << 18):
                    self.after_close += data
                peer.hang_up()
        finally:
            self.done.set()


class Interrupter:
    """Interrupts the main thread, once for each deliver(), in whatever it waits for there.

    action: what the signal's handler does.
    """

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self._armed = False
        self._handled = threading.Event()

    def handle(self, *_: Any) -> None:
        if self._armed:
            self._armed = False
            self._handled.set()
            self._action()

    def deliver(self) -> None:
        """From another thread: interrupt the main thread, and return when its handler has begun."""
        main = threading.main_thread().ident
        assert main is not None
        self._handled.clear()
        self._armed = True
        # Again until it is handled: CPython handles a signal that comes between its last look and the system call
        # only when that call returns.
        deadline = time.monotonic() + PATIENCE
        while not self._handled.wait(0.02):
            assert time.monotonic() < deadline, "the main thread handles no signal"
            signal.pthread_kill(main, signal.SIGUSR1)


@pytest.fixture
def always_borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader never takes its turn back while a recv() may borrow it, however slow the machine is."""
    monkeypatch.setattr(websocket.threads.reader, "GRACE", 3600.0)


@pytest.fixture
def interrupting() -> Iterator[Callable[[Callable[[], Any]], Interrupter]]:
    """Makes an Interrupter whose handler does what is given, for the time of the test."""

    def make(action: Callable[[], Any]) -> Interrupter:
        interrupter = Interrupter(action)
        signal.signal(signal.SIGUSR1, interrupter.handle)
        return interrupter

    yield make
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a last signal may be on its way
