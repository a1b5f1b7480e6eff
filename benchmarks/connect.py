"""The time to connect and close, and what a first address that does not answer costs, side by side.

    python benchmarks/connect.py ours=.venv/bin/python websocket-client=PYTHON before=PYTHON:CHECKOUT

Each argument names an interpreter that has a package `websocket`, or takes it from the directory CHECKOUT. Every one
runs in a process of its own against the same bare-socket server at 127.0.0.1; rounds are interleaved; the first table
gives medians, and their ratio to the first peer's.

The second table is of a name with two addresses, a listener whose queue is full, so that the system answers nothing,
and the server: how much longer connecting takes than with the server's address alone, and how it fails if it does. The
timeout is 3 s.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

ROUNDS = 10
CONNECTIONS = 200  # a round
RACES = 3
TIMEOUT = 3.0


def serve(listener: socket.socket) -> None:
    """Shakes hands, and answers the client's first frame, its close frame, with one."""
    while True:
        connection, _ = listener.accept()
        try:
            head = connection.recv(65536)  # one write, and at this machine one read
            key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            if connection.recv(65536):
                connection.sendall(b"\x88\x02\x03\xe8")
        except OSError:
            pass  # the client is done
        connection.close()


def work(port: int, black_hole: int) -> dict[str, Any]:
    """One round, in a process of its own."""
    import websocket

    def seconds(url: str) -> float:
        start = time.perf_counter()
        websocket.create_connection(url, timeout=TIMEOUT).close()
        return time.perf_counter() - start

    direct = [seconds(f"ws://127.0.0.1:{port}/") for _ in range(CONNECTIONS)]
    result: dict[str, Any] = {"file": websocket.__file__, "direct": statistics.median(direct)}
    if not black_hole:
        return result
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number)) for number in (black_hole, port)]
    socket.getaddrinfo = lambda *_, **__: addresses[-1:]  # type: ignore[assignment]
    alone = seconds("ws://server.test/")
    socket.getaddrinfo = lambda *_, **__: addresses  # type: ignore[assignment]
    start = time.perf_counter()
    try:
        result["extra"] = seconds("ws://server.test/") - alone
    except Exception as error:  # noqa: BLE001  # of whichever package
        result["extra"] = time.perf_counter() - start - alone
        result["error"] = type(error).__name__
    return result


def run(peer: str, *arguments: int) -> dict[str, Any]:
    """A round of one of the peers, which must be the package that it says it is."""
    python, _, checkout = peer.partition(":")
    environment = {**os.environ, "PYTHONPATH": os.path.abspath(checkout) if checkout else ""}
    command = [python, __file__, "--work", *map(str, arguments)]
    result: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment))
    if checkout and result["file"] != os.path.abspath(f"{checkout}/websocket/__init__.py"):
        sys.exit(f"{peer} is {result['file']}")
    return result


def main() -> None:
    if sys.argv[1] == "--work":
        print(json.dumps(work(int(sys.argv[2]), int(sys.argv[3]))))
        return
    peers = dict(argument.split("=", 1) for argument in sys.argv[1:])
    listener, full = (socket.create_server(("127.0.0.1", 0), backlog=backlog) for backlog in (16, 0))
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    port, black_hole = listener.getsockname()[1], full.getsockname()[1]
    with socket.create_connection(("127.0.0.1", black_hole)):
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in peers}
        for number in range(ROUNDS):
            for name, peer in peers.items():
                results[name].append(run(peer, port, black_hole if number < RACES else 0))
    server.terminate()
    server.join()
    direct = {name: statistics.median(round["direct"] for round in rounds) for name, rounds in results.items()}
    print("connect and close, median")
    for name, rounds in results.items():
        ratio = direct[name] / direct[next(iter(peers))]
        print(f"  {name:20} {direct[name] * 1e6:10,.0f} us {ratio:8.2f} x {next(iter(peers))}   {rounds[0]['file']}")
    print("extra time for a first address that does not answer, median")
    for name, rounds in results.items():
        extra = statistics.median(round["extra"] for round in rounds[:RACES])
        print(f"  {name:20} {extra:10.3f} s   {rounds[0].get('error', '')}")


if __name__ == "__main__":
    main()
