"""Round trip of 64 bytes, and 100-byte messages in, by recv() and by callback, beside other clients in one run.

    python benchmarks/quick.py ours=.venv/bin/python websocket-client=PYTHON websockets=PYTHON

Each argument names a library (ours, websocket-client, websockets) and an interpreter that has it. Every library runs
in a process of its own against the same bare-socket server; rounds are interleaved; the table gives medians, and
their ratio to the first library named.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import time

ROUNDS = 5
ROUND_TRIPS = 5_000
MESSAGES_IN = 200_000


def handshake(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(65536)
    lines = head.decode().split("\r\n")
    key = next(line.split(": ")[1] for line in lines if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    return lines[0].split(" ")[1]


def serve(listener: socket.socket) -> None:
    """/echo: answers each read with a prebuilt 64-byte message; /flood, /app: sends prebuilt 100-byte messages."""
    answer = b"\x81\x40" + b"x" * 64
    flood = (b"\x81\x64" + b"x" * 100) * 1000
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if handshake(connection) == "/echo":
                while connection.recv(65536):
                    connection.sendall(answer)
            else:
                for _ in range(MESSAGES_IN // 1000):
                    connection.sendall(flood)
                while connection.recv(65536):
                    pass
        except OSError:
            pass  # the client is done
        connection.close()


def work(library: str, what: str, port: int) -> float:
    """One round, in the library's process: microseconds a round trip, or messages a second."""
    url = f"ws://127.0.0.1:{port}/{what}"
    if what == "app":
        return callbacks(url)
    if library == "websockets":
        from websockets.sync.client import connect

        client = connect(url, compression=None, max_queue=(1024, 512), ping_interval=None)
    else:
        import websocket

        client = websocket.create_connection(url)
    if what == "flood":
        start = time.perf_counter()
        for _ in range(MESSAGES_IN):
            client.recv()
        result = MESSAGES_IN / (time.perf_counter() - start)
    else:
        text = "x" * 64
        times = []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            client.send(text)
            client.recv()
            times.append(time.perf_counter() - start)
        result = statistics.median(times) * 1e6
    client.close()
    return result


def callbacks(url: str) -> float:
    """Messages a second through on_message of a WebSocketApp."""
    import websocket

    received = 0
    start = end = 0.0

    def on_open(_: object) -> None:
        nonlocal start
        start = time.perf_counter()

    def on_message(app: websocket.WebSocketApp, _: object) -> None:
        nonlocal received, end
        received += 1
        if received == MESSAGES_IN:
            end = time.perf_counter()
            app.close()

    websocket.WebSocketApp(url, on_open=on_open, on_message=on_message).run_forever()
    return MESSAGES_IN / (end - start)


def main() -> None:
    if sys.argv[1] == "--work":
        print(json.dumps(work(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    peers = dict(argument.split("=", 1) for argument in sys.argv[1:])
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    port = listener.getsockname()[1]
    results: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for what in ("echo", "flood", "app"):
            for name, python in peers.items():
                if what == "app" and name == "websockets":
                    continue  # it has no such class
                output = subprocess.run(
                    [python, __file__, "--work", name, what, str(port)], capture_output=True, text=True, check=True
                )
                results.setdefault((what, name), []).append(json.loads(output.stdout))
    server.terminate()
    server.join()
    first = next(iter(peers))
    for what, title, unit in (
        ("echo", "round trip, 64 B text, median", "us"),
        ("flood", "in, 100 B text, recv()", "messages/s"),
        ("app", "in, 100 B text, on_message of WebSocketApp", "messages/s"),
    ):
        print(title)
        base = statistics.median(results[what, first])
        for name in peers:
            if (what, name) not in results:
                continue
            value = statistics.median(results[what, name])
            print(f"  {name:20} {value:12,.1f} {unit:12} {value / base:8.2f} x {first}")


if __name__ == "__main__":
    main()
