"""The demo: eight threads send numbered messages of mixed sizes through one wss:// connection to a local server,
four receive the echoes, and every one is checked."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import ssl
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import trustme

from .. import WebSocket, WebSocketConnectionClosedException, __version__, create_connection
from .server import Peer, Server, echo

SENDERS: Final = 8
RECEIVERS: Final = 4
MESSAGES: Final = 2_000  # of each sender
SIZES: Final = (0, 20, 100, 100, 100, 1_000, 1_000, 10_000, 200_000)  # bytes of body, drawn at random
ROUND_TRIPS: Final = 2_000
TIMEOUT: Final = 30.0  # seconds; far more than any step needs


@dataclass
class Checks:
    """What was checked, and whether it held. Any thread may add."""

    results: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, what: str, holds: bool) -> None:
        self.results.append((what, holds))

    @property
    def all_hold(self) -> bool:
        return all(holds for _, holds in self.results)


def message(sender: int, number: int, size: int) -> str | bytes:
    """A message that tells its sender and number and can be checked: text and binary by turns."""
    body = chr(ord("a") + sender) * size
    head = f"{sender} {number} {hashlib.sha256(body.encode()).hexdigest()[:16]} "
    return head + body if number % 2 else (head + body).encode()


def read(received: str | bytes) -> tuple[int, int, bool]:
    """(sender, number, whether it is whole) of a message."""
    text = received if isinstance(received, str) else received.decode()
    sender, number, digest, body = text.split(" ", 3)
    return int(sender), int(number), hashlib.sha256(body.encode()).hexdigest()[:16] == digest


class OrderWatch:
    """Checks that the numbers of each sender only ever grow; by one each time where `without_gaps`."""

    def __init__(self, without_gaps: bool) -> None:
        self.holds = True
        self._without_gaps = without_gaps
        self._last = [-1] * SENDERS

    def see(self, sender: int, number: int) -> None:
        expected = number == self._last[sender] + 1 if self._without_gaps else number > self._last[sender]
        self.holds = self.holds and expected
        self._last[sender] = number


def run() -> int:
    """Run the demo and print its report; returns 0 if every check held, else 1."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    checks = Checks()
    on_the_wire = OrderWatch(without_gaps=True)
    lines = [f"websocket-threads {__version__}, Python {platform.python_version()}, {os.cpu_count()} processors", ""]

    def handler(peer: Peer) -> None:
        if peer.path == "/echo":
            echo(peer)
            return
        while batch := peer.recv_batch():
            for received in batch:
                sender, number, _ = read(received)
                on_the_wire.see(sender, number)
            peer.send(*batch)

    with tempfile.TemporaryDirectory() as directory:
        ca_file = os.path.join(directory, "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        with Server(handler, ssl_context=server_context, host="localhost") as server:
            sslopt = {"ca_certs": ca_file}
            lines += _measure_round_trips(server.url + "echo", sslopt, checks)
            lines += _exchange(server.url, sslopt, checks)
    checks.add("the server saw each sender's messages in order, without a gap", on_the_wire.holds)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("websocket-")]
    checks.add("no thread of the connections is left", not left)
    lines += ["", "checks"]
    lines += [f"  {'ok' if holds else 'FAILED':8}{what}" for what, holds in checks.results]
    lines += ["", "every check held" if checks.all_hold else "SOME CHECKS FAILED"]
    print("\n".join(lines))
    return 0 if checks.all_hold else 1


def _measure_round_trips(url: str, sslopt: dict[str, str], checks: Checks) -> list[str]:
    """One thread sends 64 bytes and waits for the echo, again and again."""
    connection = create_connection(url, timeout=TIMEOUT, sslopt=sslopt)
    times = []
    same = True
    for number in range(ROUND_TRIPS):
        text = f"{number:064}"
        start = time.perf_counter()
        connection.send(text)
        same = connection.recv() == text and same
        times.append(time.perf_counter() - start)
    connection.close()
    checks.add(f"{ROUND_TRIPS} echoes of 64 bytes, each the same as what was sent", same)
    times.sort()
    return [
        f"round trip of 64 bytes over {url}, one thread",
        f"  median {statistics.median(times) * 1e6:.0f} us, 99% within {times[len(times) * 99 // 100] * 1e6:.0f} us,"
        f" longest {times[-1] * 1e6:.0f} us",
    ]


def _exchange(url: str, sslopt: dict[str, str], checks: Checks) -> list[str]:
    """The main part: all senders and receivers on one connection."""
    connection = create_connection(url, timeout=TIMEOUT, sslopt=sslopt)
    certificate = connection.sock.getpeercert()
    tls = f"{connection.sock.version()}, {connection.sock.cipher()[0]}"
    checks.add("the server's certificate was verified", bool(certificate))
    seen: list[list[tuple[int, int]]] = [[] for _ in range(RECEIVERS)]
    sizes = [0] * SENDERS
    whole = [True] * RECEIVERS
    ordered = [OrderWatch(without_gaps=False) for _ in range(RECEIVERS)]
    errors: list[str] = []

    def send(sender: int) -> None:
        choose = random.Random(sender)
        for number in range(MESSAGES):
            payload = message(sender, number, choose.choice(SIZES))
            sizes[sender] += len(payload)
            if isinstance(payload, str):
                connection.send(payload)
            else:
                connection.send_bytes(payload)

    def receive(receiver: int) -> None:
        while (received := _next(connection)) is not None:
            sender, number, is_whole = read(received)
            whole[receiver] = whole[receiver] and is_whole
            ordered[receiver].see(sender, number)
            seen[receiver].append((sender, number))
            if sum(map(len, seen)) == SENDERS * MESSAGES:
                connection.send_close()  # the last echo is here; the server's answer ends the other receivers

    def guarded(work: object, index: int) -> None:
        try:
            work(index)  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001  # a failed thread is a failed check, whatever it failed of
            errors.append(f"{threading.current_thread().name}: {error!r}")

    threads = [
        *(threading.Thread(target=guarded, args=(send, n), name=f"sender {n}") for n in range(SENDERS)),
        *(threading.Thread(target=guarded, args=(receive, n), name=f"receiver {n}") for n in range(RECEIVERS)),
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    seconds = time.perf_counter() - start
    connection.close()
    expected = [(sender, number) for sender in range(SENDERS) for number in range(MESSAGES)]
    checks.add("no thread failed" + "".join(f"; {error}" for error in errors), not errors)
    checks.add(
        f"{len(expected)} messages came back, each once", sorted(pair for one in seen for pair in one) == expected
    )
    checks.add("each message came back whole", all(whole))
    checks.add("each receiver saw each sender's messages in order", all(watch.holds for watch in ordered))
    checks.add("nothing was left unsent", connection.unsent == [])
    answer = connection.close_frame
    checks.add("the connection closed normally", answer is not None and answer.data[:2] == b"\x03\xe8")
    total = sum(sizes)
    return [
        "",
        f"{SENDERS} senders and {RECEIVERS} receivers on one connection to {url} ({tls})",
        f"  {len(expected)} messages with bodies of {min(SIZES)} to {max(SIZES)} bytes, {total / 1e6:.0f} MB, out and"
        f" back in {seconds:.2f} s",
        f"  {len(expected) / seconds:,.0f} messages/s and {total / seconds / 1e6:,.0f} MB/s each way, checks included",
        f"  shares of the receivers: {', '.join(str(len(one)) for one in seen)}",
    ]


def _next(connection: WebSocket) -> str | bytes | None:
    """The next message, None after the end."""
    try:
        return connection.recv() or None
    except WebSocketConnectionClosedException:
        return None
