"""The program of a plain socket: the same bytes, with no library. It is the limit of what Python can do with them.

The handshake is done by hand, frames are made and masked beforehand, and what arrives is read into one large buffer and
not looked at.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from worker import MASK, TRIGGER, Round, Setting, check, header_size, main, raise_file_limit

BUFFER = 64 << 10  # in sizes from 32 to 256 KiB it makes little difference; smaller and larger ones are slower
CLOSE = b"\x88\x80" + MASK


def frame(message: str | bytes, masked: bool = True) -> bytes:
    payload = message.encode() if isinstance(message, str) else message
    size, bit = len(payload), 0x80 if masked else 0
    lengths = {2: bytes([bit | size & 0x7F]), 4: b"%c" % (bit | 126) + (size & 0xFFFF).to_bytes(2, "big")}
    head = b"\x81" if isinstance(message, str) else b"\x82"
    head += lengths.get(header_size(size)) or b"%c" % (bit | 127) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    whole = int.from_bytes((MASK * (size // 4 + 1))[:size], "big")
    return head + MASK + (int.from_bytes(payload, "big") ^ whole).to_bytes(size, "big")


def connector(setting: Setting) -> Callable[[str], socket.socket]:
    context = setting.context()

    def connect(path: str) -> socket.socket:
        url = urlsplit(path)
        assert url.port
        connection = socket.create_connection((url.hostname, url.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            connection = context.wrap_socket(connection, server_hostname=url.hostname)
        connection.sendall(
            f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(4096)
        check(answer[:12], b"HTTP/1.1 101")
        return connection

    return connect


def close(connection: socket.socket) -> None:
    connection.sendall(CLOSE)
    while connection.recv(4096):
        pass
    connection.close()


def read_exactly(connection: socket.socket, buffer: bytearray, size: int) -> None:
    """`size` bytes, in as few calls as they come in; more cannot come, since the server waits for us."""
    receive = connection.recv_into
    while size > 0:
        count = receive(buffer)
        if not count:
            raise SystemExit("the server has ended the connection")
        size -= count


def read_checked(connection: socket.socket, buffer: bytearray, expected: bytes, count: int) -> None:
    """`count` frames, each compared; bytes go through a buffer of one frame."""
    view = memoryview(buffer)
    received = bytearray()
    for _ in range(count):
        while len(received) < len(expected):
            received += view[: connection.recv_into(buffer)]
        check(received[: len(expected)], expected)
        del received[: len(expected)]


@contextmanager
def round_trip(setting: Setting) -> Iterator[Round]:
    """One message at a time, there and back, on each connection in turn."""
    raise_file_limit()
    request, answer = frame(setting.message), frame(setting.message, masked=False)
    size, buffer, clock = len(answer), bytearray(BUFFER), time.perf_counter
    connect = connector(setting)
    connections = [connect(f"{setting.url}/echo") for _ in range(setting.connections)]
    for connection in connections:
        connection.sendall(request)
        read_checked(connection, buffer, answer, 1)

    def work() -> dict[str, Any]:
        latencies = []
        for _ in range(setting.count // setting.connections):
            for connection in connections:
                start = clock()
                connection.sendall(request)
                read_exactly(connection, buffer, size)
                latencies.append(clock() - start)
        return {"latencies": latencies}

    yield work
    for connection in connections:
        close(connection)


@contextmanager
def receive(setting: Setting) -> Iterator[Round]:
    """A flood, as bytes."""
    request, answer = frame(TRIGGER), frame(setting.message, masked=False)
    size, buffer = setting.count * len(answer), bytearray(BUFFER)
    connection = connector(setting)(setting.flood)
    connection.sendall(request)
    read_checked(connection, buffer, answer, setting.count)

    def work() -> dict[str, Any]:
        connection.sendall(request)
        read_exactly(connection, buffer, size)
        return {}

    yield work
    close(connection)


@contextmanager
def send(setting: Setting) -> Iterator[Round]:
    """Frames out, a call for each; the round ends when the server has them all."""
    request, answer, buffer = frame(setting.message), frame("all in", masked=False), bytearray(BUFFER)
    connection = connector(setting)(setting.sink)

    def work() -> dict[str, Any]:
        sendall = connection.sendall
        for _ in range(setting.count):
            sendall(request)
        read_exactly(connection, buffer, len(answer))
        return {}

    yield work
    close(connection)


@contextmanager
def connect(setting: Setting) -> Iterator[Round]:
    """Connecting and closing, with all of both handshakes."""
    connect, clock = connector(setting), time.perf_counter

    def work() -> dict[str, Any]:
        latencies = []
        for _ in range(setting.count):
            start = clock()
            close(connect(f"{setting.url}/"))
            latencies.append(clock() - start)
        return {"latencies": latencies}

    yield work


if __name__ == "__main__":
    main({task.__name__: task for task in (round_trip, receive, send, connect)})
