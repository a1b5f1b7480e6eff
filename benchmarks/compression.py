"""Compressed messages in and out, beside websockets' client for threads, in one run.

    python benchmarks/compression.py [ours=PYTHON] [websockets=PYTHON]

Each argument names an interpreter that has the library; without one it is the running interpreter, and websockets is
left out where that has none. Both run with their own defaults for compression="deflate" (websockets may read further
ahead than by default, and does not ping), each round in a process of its own, against the same bare-socket server;
rounds are interleaved, and who goes first alternates. The messages are text that looks like JSON: one of them again and
again, and messages that differ in prices, symbols and ids.

In: the server sends frames that were compressed before, by zlib's level 6 and with the whole window, and recv() takes
each message. Out: send() takes each message; the server counts the frames, inflates nothing, and answers the last one.
The first pass of each direction is not timed, but every message in it is compared with what it has to be.

The table gives medians of the time, the ratio of ours to theirs (below 1: ours is faster), and what a message takes on
the wire, with its header.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import multiprocessing
import random
import socket
import statistics
import subprocess
import sys
import time
import zlib
from typing import Any

ROUNDS = 7
BYTES = 20_000_000  # of the messages of one pass
LIMIT = 60.0  # seconds for any wait of the server's, and for a client's process
WRITE = 65_536
DIFFERING = 524_288  # bytes of messages, which then come again: far behind what the largest window (32 KiB) sees

# title, differing, bytes of a message, compressed
ROWS = (
    ("1 KB, all the same", False, 1024, True),
    ("1 KB, differing", True, 1024, True),
    ("16 KB, differing", True, 16_384, True),
    ("1 KB, not compressed", True, 1024, False),
    ("16 KB, not compressed", True, 16_384, False),
)


@functools.cache
def messages(differing: bool, size: int) -> list[str]:
    """The messages of one pass, the same ones in every process."""
    chance = random.Random(7692)

    def trade() -> dict[str, object]:
        return {
            "symbol": chance.choice(("BTC", "ETH", "SOL", "XRP", "ADA")) + chance.choice(("-USD", "-EUR", "-GBP")),
            "price": round(chance.uniform(1, 60_000), 2),
            "side": chance.choice(("buy", "sell")),
            "id": chance.randrange(10**9, 10**10),
        }

    count = DIFFERING // size if differing else 1
    some = [json.dumps([trade() for _ in range(size // 64)])[:size] for _ in range(count)]
    return [some[number % len(some)] for number in range(BYTES // size)]


# ---- the server ----


def encode(payload: bytes, first_byte: int) -> bytes:
    size = len(payload)
    return bytes((first_byte, size) if size < 126 else (first_byte, 126, size >> 8, size & 255)) + payload


@functools.cache
def frames_in(differing: bool, size: int, compressed: bool) -> bytes:
    """All frames of one pass. They refer to nothing before the first, so that they may be sent twice."""
    texts = [text.encode() for text in messages(differing, size)]
    if not compressed:
        return b"".join(encode(text, 0x81) for text in texts)
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return b"".join(encode((stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4], 0xC1) for text in texts)


def handshake(connection: socket.socket) -> list[str]:
    """Agrees to permessage-deflate where it is offered. Returns the two parts of the path."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(WRITE)
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    answer.append("Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
    if "sec-websocket-extensions" in headers:
        answer.append("Sec-WebSocket-Extensions: permessage-deflate")
    connection.sendall("\r\n".join([*answer, "", ""]).encode())
    return lines[0].split(" ")[1].strip("/").split("/")


def count_frames(connection: socket.socket, count: int, kept: list[bytes] | None = None) -> int:
    """Waits until so many frames are here whole, of less than 64 KiB each. Returns the number of their bytes."""
    total, data, position = 0, b"", 0  # position: where the next frame begins, maybe behind what is here
    while count or position:
        received = connection.recv(4 * WRITE)
        if not received:
            raise ConnectionError("the client has left too early")
        if kept is not None:
            kept.append(received)
        total += len(received)
        data += received
        while position + 4 <= len(data):
            size = data[position + 1] & 127
            position += 6 + size if size < 126 else 8 + (data[position + 2] << 8 | data[position + 3])
            count -= 1
        data, position = data[position:], max(0, position - len(data))
    return total


def texts_of(data: bytes) -> list[str]:
    """What these frames of a client say."""
    stream, texts, position = zlib.decompressobj(-15), [], 0
    while position < len(data):
        start, size = position + 2, data[position + 1] & 127
        if size == 126:
            start, size = start + 2, int.from_bytes(data[start : start + 2], "big")
        key, masked = data[start : start + 4], data[start + 4 : start + 4 + size]
        mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(masked, "big") ^ mask).to_bytes(size, "big")
        if data[position] & 0x40:
            payload = stream.decompress(payload + b"\x00\x00\xff\xff")
        texts.append(payload.decode())
        position = start + 4 + size
    return texts


def talk(connection: socket.socket) -> None:
    direction, number = handshake(connection)
    _, differing, size, compressed = ROWS[int(number)]
    texts = messages(differing, size)
    if direction == "in":
        data = memoryview(frames_in(differing, size, compressed))
        connection.sendall(encode(str(len(data)).encode(), 0x81))
        for _ in range(2):
            connection.recv(WRITE)  # the client asks for it
            for at in range(0, len(data), WRITE):
                connection.sendall(data[at : at + WRITE])
    else:
        kept: list[bytes] = []
        count_frames(connection, len(texts), kept)
        connection.sendall(encode(b"right" if texts_of(b"".join(kept)) == texts else b"wrong", 0x81))
        connection.sendall(encode(str(count_frames(connection, len(texts))).encode(), 0x81))
    connection.recv(WRITE)  # a close frame
    connection.sendall(b"\x88\x02\x03\xe8")


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(LIMIT)
        try:
            talk(connection)
        except (OSError, ValueError, zlib.error) as error:
            print(f"server: {error!r}", file=sys.stderr)
        connection.close()


# ---- the clients ----


def work(library: str, port: str, direction: str, number: str) -> tuple[float, float]:
    """One round, in the library's process: microseconds and bytes on the wire, both for a message."""
    _, differing, size, compressed = ROWS[int(number)]
    options: dict[str, Any] = {"compression": "deflate" if compressed else None}
    texts = messages(differing, size)
    if library == "websockets":
        import websockets.sync.client

        connect: Any = websockets.sync.client.connect
        options |= {"max_size": None, "max_queue": (1024, 512), "ping_interval": None}
    else:
        import websocket

        connect = websocket.create_connection
    with connect(f"ws://127.0.0.1:{port}/{direction}/{number}", **options) as client:
        right, wire, seconds = measure(client, direction == "in", texts)
    if not right:
        sys.exit(f"{library}: messages {direction} are not what they have to be")
    return seconds / len(texts) * 1e6, wire / len(texts)


def measure(client: Any, receives: bool, texts: list[str]) -> tuple[bool, int, float]:
    """Whether the messages of the first pass are right; bytes on the wire, and seconds, of the second."""
    if receives:
        wire = int(client.recv())
        client.send("go")
        right = [client.recv() for _ in texts] == texts
        start = time.perf_counter()
        client.send("go")
        for _ in texts:
            client.recv()
    else:
        for text in texts:
            client.send(text)
        right = client.recv() == "right"
        start = time.perf_counter()
        for text in texts:
            client.send(text)
        wire = int(client.recv())
    return right, wire, time.perf_counter() - start


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        print(json.dumps(work(*sys.argv[2:])))
        return
    peers = {"ours": sys.executable, "websockets": sys.executable}
    peers |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    if peers["websockets"] == sys.executable and importlib.util.find_spec("websockets") is None:
        del peers["websockets"]
    listener = socket.create_server(("127.0.0.1", 0))
    port = str(listener.getsockname()[1])
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    heading = [f"{name:>12}" for name in peers] + [f"{'ratio':>8}"] + [f"{'B ' + name:>14}" for name in peers]
    print(f"{f'us a message, median of {ROUNDS} rounds':40}", *heading)
    for direction in ("in", "out"):
        for number, (title, *_) in enumerate(ROWS):
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
            for turn in range(ROUNDS):
                for name in list(peers)[:: -1 if turn % 2 else 1]:
                    command = [peers[name], __file__, "--work", name, port, direction, str(number)]
                    results[name].append(json.loads(subprocess.check_output(command, timeout=LIMIT)))
            times = [statistics.median(time for time, _ in rounds) for rounds in results.values()]
            sizes = [statistics.median(size for _, size in rounds) for rounds in results.values()]
            cells = [f"{value:12,.2f}" for value in times] + [f"{times[0] / times[-1]:8.2f}"]
            print(f"{direction + ', ' + title:40}", *cells, *(f"{value:14,.1f}" for value in sizes), flush=True)
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
