"""The program of picows: listeners on plain asyncio. The callback that has an answer sends the next message itself."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from worker import TRIGGER, Round, Setting, check, main, raise_file_limit, resident

MAX_FRAME = 128 << 20  # picows' own limit is 10 MiB

run: Callable[[Awaitable[Any]], Any]  # of the program's only loop, which runs while there is something to be done


class Held(WSListener):  # type: ignore[misc]
    """A connection, and the future that a round waits for."""

    transport: WSTransport
    done: asyncio.Future[None]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    async def close(self) -> None:
        self.transport.send_close()
        await self.transport.wait_disconnected()


class TextCounter(Held):
    """Takes each message of a flood as str, and counts. What comes when none is awaited is the close frame."""

    def __init__(self, setting: Setting) -> None:
        self.count = setting.count
        self.expected = setting.message
        self.left = 0

    async def round(self) -> None:
        self.left = self.count
        self.done = asyncio.get_running_loop().create_future()
        self.transport.send(WSMsgType.TEXT, TRIGGER.encode())
        await self.done

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.left:
            frame.get_payload_as_utf8_text()
            self.left -= 1
            if not self.left:
                self.done.set_result(None)


class BinaryCounter(TextCounter):
    """Takes each message of a flood as bytes, and counts."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.left:
            frame.get_payload_as_bytes()
            self.left -= 1
            if not self.left:
                self.done.set_result(None)


class Checker(TextCounter):
    """Compares each message of a flood, in a round that is not timed."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.left:
            is_text = isinstance(self.expected, str)
            check(frame.get_payload_as_utf8_text() if is_text else frame.get_payload_as_bytes(), self.expected)
            self.left -= 1
            if not self.left:
                self.done.set_result(None)


class Echoed(Held):
    """Round trips, on the next connection of a ring each time."""

    next: Echoed
    start = 0.0

    def __init__(self, setting: Setting, latencies: list[float]) -> None:
        message = setting.message
        self.is_text = isinstance(message, str)
        self.type = WSMsgType.TEXT if self.is_text else WSMsgType.BINARY
        self.message = message
        self.payload = message.encode() if isinstance(message, str) else message
        self.count = setting.count
        self.latencies = latencies  # of the whole ring
        self.checked = False

    def send(self) -> None:
        self.start = time.perf_counter()
        self.transport.send(self.type, self.payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            return
        message = frame.get_payload_as_utf8_text() if self.is_text else frame.get_payload_as_bytes()
        self.latencies.append(time.perf_counter() - self.start)
        if not self.checked:
            check(message, self.message)
            self.checked = True
        if len(self.latencies) < self.count:
            self.next.send()
        else:
            self.done.set_result(None)


async def opened(listener: Held, url: str, context: ssl.SSLContext | None) -> None:
    await ws_connect(lambda: listener, url, ssl_context=context, max_frame_size=MAX_FRAME)


@contextmanager
def round_trip(setting: Setting) -> Iterator[Round]:
    """One message at a time, there and back, on each connection in turn."""
    raise_file_limit()
    latencies: list[float] = []
    context = setting.context()
    ring = [Echoed(setting, latencies) for _ in range(setting.connections)]
    for one, following in zip(ring, ring[1:] + ring[:1], strict=True):
        one.next = following
        run(opened(one, f"{setting.url}/echo", context))

    async def all_trips() -> None:
        latencies.clear()
        done = asyncio.get_running_loop().create_future()
        for one in ring:
            one.done = done
        ring[0].send()
        await done

    def work() -> dict[str, Any]:
        run(all_trips())
        return {"latencies": latencies}

    yield work
    for one in ring:
        run(one.close())


@contextmanager
def receive(setting: Setting) -> Iterator[Round]:
    """A flood, message by message."""
    context = setting.context()
    checker, counter = Checker(setting), (TextCounter if setting.opcode == "text" else BinaryCounter)(setting)
    run(opened(checker, setting.flood, context))
    run(checker.round())
    run(checker.close())
    run(opened(counter, setting.flood, context))

    def work() -> dict[str, Any]:
        run(counter.round())
        return {}

    yield work
    run(counter.close())


@contextmanager
def connect(setting: Setting) -> Iterator[Round]:
    """Connecting and closing, with all of both handshakes."""
    context, url = setting.context(), f"{setting.url}/"

    async def all_connections() -> list[float]:
        latencies = []
        for _ in range(setting.count):
            start = time.perf_counter()
            listener = Held()
            await opened(listener, url, context)
            await listener.close()
            latencies.append(time.perf_counter() - start)
        return latencies

    yield lambda: {"latencies": run(all_connections())}


@contextmanager
def idle(setting: Setting) -> Iterator[Round]:
    """Many connections on which nothing happens: their memory, and what they cost meanwhile."""
    raise_file_limit()
    context = setting.context()
    held = [Held() for _ in range(setting.connections + 1)]
    run(opened(held[0], f"{setting.url}/idle", context))  # what the first takes, modules too, is not theirs
    before = resident()
    for listener in held[1:]:
        run(opened(listener, f"{setting.url}/idle", context))
    run(asyncio.sleep(1))
    memory = (resident() - before) / setting.connections

    def work() -> dict[str, Any]:
        run(asyncio.sleep(setting.seconds))
        return {"memory": memory}

    yield work
    for listener in held:
        run(listener.close())


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    tasks = {task.__name__: task for task in (round_trip, receive, connect, idle)}
    main({**tasks, "callbacks": receive})
    loop.close()
