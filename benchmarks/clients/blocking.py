"""The tasks of libraries whose connections have blocking methods: what is timed are the library's own methods, with
nothing of ours between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

from worker import TRIGGER, Round, Setting, check, raise_file_limit, resident

Connect = Callable[[str], Any]
Task = Callable[[Setting], AbstractContextManager[Round]]


@dataclass(frozen=True)
class Library:
    """How a library connects, and the names of its connections' methods."""

    connect: Callable[[Setting], Connect]  # prepares what is not part of connecting, such as the TLS context
    send_text: str = "send"
    send_binary: str = "send"

    def sender(self, connection: Any, opcode: str) -> Callable[[Any], Any]:
        send: Callable[[Any], Any] = getattr(connection, self.send_text if opcode == "text" else self.send_binary)
        return send


@contextmanager
def round_trip(library: Library, setting: Setting) -> Iterator[Round]:
    """One message at a time, there and back; where there are several connections, on each in turn."""
    raise_file_limit()
    message, clock = setting.message, time.perf_counter
    connect = library.connect(setting)
    with ExitStack() as stack:
        methods = []
        for _ in range(setting.connections):
            connection = stack.enter_context(closing(connect(f"{setting.url}/echo")))
            methods.append((library.sender(connection, setting.opcode), connection.recv))
        for send, receive in methods:
            send(message)
            check(receive(), message)

        def work() -> dict[str, Any]:
            latencies = []
            for _ in range(setting.count // setting.connections):
                for send, receive in methods:
                    start = clock()
                    send(message)
                    receive()
                    latencies.append(clock() - start)
            return {"latencies": latencies}

        yield work


@contextmanager
def receive(library: Library, setting: Setting) -> Iterator[Round]:
    """A flood, message by message."""
    message, count = setting.message, setting.count
    with closing(library.connect(setting)(setting.flood)) as connection:
        ask, receive = partial(connection.send, TRIGGER), connection.recv
        ask()
        for _ in range(count):
            check(receive(), message)

        def work() -> dict[str, Any]:
            ask()
            for _ in range(count):
                receive()
            return {}

        yield work


@contextmanager
def send(library: Library, setting: Setting) -> Iterator[Round]:
    """Messages out by one or several threads; the round ends when the server has them all."""
    message, count, threads = setting.message, setting.count, setting.threads
    with closing(library.connect(setting)(setting.sink)) as connection:
        send, receive = library.sender(connection, setting.opcode), connection.recv

        def send_share(share: int) -> None:
            for _ in range(share):
                send(message)

        def work() -> dict[str, Any]:
            if threads == 1:
                send_share(count)
            else:
                senders = [Thread(target=send_share, args=(count // threads,)) for _ in range(threads)]
                for sender in senders:
                    sender.start()
                for sender in senders:
                    sender.join()
            check(receive(), "all in")
            return {}

        yield work


@contextmanager
def connect(library: Library, setting: Setting) -> Iterator[Round]:
    """Connecting and closing, with all of both handshakes."""
    url, count, clock = f"{setting.url}/", setting.count, time.perf_counter
    connect = library.connect(setting)

    def work() -> dict[str, Any]:
        latencies = []
        for _ in range(count):
            start = clock()
            connect(url).close()
            latencies.append(clock() - start)
        return {"latencies": latencies}

    yield work


@contextmanager
def idle(library: Library, setting: Setting) -> Iterator[Round]:
    """Many connections on which nothing happens: their memory, and what they cost meanwhile."""
    raise_file_limit()
    connect = library.connect(setting)
    with ExitStack() as stack:
        stack.enter_context(closing(connect(f"{setting.url}/idle")))  # what the first takes, modules too, is not theirs
        before = resident()
        for _ in range(setting.connections):
            stack.enter_context(closing(connect(f"{setting.url}/idle")))
        time.sleep(1)  # threads that have just started are not at rest
        memory = (resident() - before) / setting.connections

        def work() -> dict[str, Any]:
            time.sleep(setting.seconds)
            return {"memory": memory}

        yield work


def tasks(library: Library) -> Mapping[str, Task]:
    return {task.__name__: partial(task, library) for task in (round_trip, receive, send, connect, idle)}
