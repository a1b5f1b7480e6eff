"""What the programs of all libraries share: the setting of a row, what a round measures, and the talk with the runner.

A program hands `main()` its tasks: context managers that connect, check in untimed messages that the content is right,
and yield the function that does one round. The runner says "round" on standard input, and gets one line of JSON; at
the end of the input the program ends. It runs as a script, in the library's environment.
"""

from __future__ import annotations

import json
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

Round = Callable[[], dict[str, Any]]
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
TEXT_PERIOD = bytes(range(0x20, 0x7F))
BINARY_PERIOD = bytes(range(251))
TRIGGER = "more"  # what asks the server for a flood
MASK = b"\x37\xfa\x21\x3d"  # of frames that are made beforehand


@dataclass(frozen=True)
class Setting:
    """One row, for one library: the runner's JSON."""

    url: str  # of the server, without a path
    certificate: str  # that the server's is verified by
    timeout: float  # seconds for one round, after which the process ends itself
    count: int  # messages, or connections made, in a round
    size: int = 0  # bytes of a message
    opcode: str = "text"
    threads: int = 1
    connections: int = 1
    seconds: float = 0.0  # at rest

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("wss:")

    @property
    def message(self) -> str | bytes:
        """The text or bytes that the server's floods repeat, and that clients send."""
        if self.opcode == "text":
            return (TEXT_PERIOD * (self.size // len(TEXT_PERIOD) + 1))[: self.size].decode()
        return (BINARY_PERIOD * (self.size // len(BINARY_PERIOD) + 1))[: self.size]

    @property
    def flood(self) -> str:
        return f"{self.url}/flood?size={self.size}&opcode={self.opcode}&count={self.count}"

    @property
    def sink(self) -> str:
        """A path whose server answers once it has all bytes of a round."""
        return f"{self.url}/sink?bytes={self.count * (header_size(self.size) + len(MASK) + self.size)}"

    def context(self) -> ssl.SSLContext | None:
        """One for all connections of the process, as every library here takes it; it verifies name and certificate."""
        return ssl.create_default_context(cafile=self.certificate) if self.is_secure else None


def header_size(payload: int) -> int:
    return 2 if payload < 126 else 4 if payload < 65536 else 10


def check(received: object, expected: object) -> None:
    if received != expected:
        raise SystemExit(f"the server sent {str(received)[:60]!r}, not {str(expected)[:60]!r}")


def resident() -> int:
    """Bytes of memory that this process has in RAM."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Seconds at PERCENTILES, and the longest."""
    ordered = sorted(latencies)
    result = {name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] for name, share in PERCENTILES.items()}
    return {**result, "max": ordered[-1]}


def measure(work: Round) -> dict[str, Any]:
    """One round, with the time, the CPU time and the context switches that all threads of this process took for it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    told = work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    latencies = told.pop("latencies", None)
    if latencies:
        told["latency"] = percentiles(latencies)
    return {
        "seconds": seconds,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "voluntary": after.ru_nvcsw - before.ru_nvcsw,
        "involuntary": after.ru_nivcsw - before.ru_nivcsw,
        **told,
    }


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main(tasks: Mapping[str, Callable[[Setting], AbstractContextManager[Round]]]) -> None:
    """The program: arguments are a task's name and a Setting as JSON."""
    setting = Setting(**json.loads(sys.argv[2]))
    # A second net, below the runner's: whatever hangs, this process is not left over.
    limit = int(setting.timeout) + 10
    signal.alarm(limit)
    with tasks[sys.argv[1]](setting) as work:
        measure(work)  # untimed: caches, buffers and TCP's windows are then as in the rounds that count
        say({"ready": True})
        signal.alarm(0)
        for _ in sys.stdin:
            signal.alarm(limit)
            say({"messages": setting.count, "bytes": setting.count * setting.size, **measure(work)})
            signal.alarm(0)
        signal.alarm(limit)
