"""A long time of bad network: is every message accounted for, and do threads, descriptors and memory stay level?

    python benchmarks/soak.py [--minutes M] [--connections N] [--seed S] [--rate R] [--compression] [--svg FILE]

N connections at a time, half of them of WebSockets used by several threads each, half of WebSocketApps with reconnect
and keepalive, half of either by wss, go through a proxy that delays, throttles, pauses, cuts, resets, stalls and
corrupts them at random, to an echo server (soak_far.py, in a process of its own, so that the figures are the
client's). Each connection is followed by the next at once (soak_load.py says what is done on one). --rate is of
messages per second on each connection: the default leaves two processors some air.

It is judged, and the exit status is 1 where one of these does not hold:

* Every message that send() accepted is echoed intact, or corrupted, or in `unsent` and not at the server, or lost on a
  connection that the proxy has damaged, and in one of these classes only (soak_account.py); on a connection that the
  proxy left alone all are echoed, or at the server where the program did not wait for that, and it ends normally.
* Nothing comes twice, out of order, or after on_close, which comes once for each connection; no thread hangs; no
  exception is raised that is none of the package's, and none by the package's threads; nothing is logged as an error.
* Threads and descriptors are level: after a warm-up of 10 s the median of the last third exceeds that of the first
  third by no more than 5 % or 4, whichever is more.
* Resident memory likewise, after two minutes, by no more than 10 % or 5 MB; a run of less than five minutes does not
  tell. glibc's allocator has an arena for each few of the hundreds of threads, and each keeps what its fullest moment
  took, one after the other for half an hour; with two arenas (MALLOC_ARENA_MAX) it is soon at its level, and a leak of
  a kilobyte for each connection shows. The garbage collector is left to itself: ended connections do not need it.
* Once all connections are closed, threads and descriptors are as many as before the first, and the garbage collector
  leaves no connection.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak_account import CLASSES, Judge
from soak_load import HANG, KEEPALIVE, AppSlot, PlainSlot, Settings, Slot
from soak_plot import Sample, svg, thirds
from soak_proxy import SMALL_BUFFER

from websocket.threads.connection import Connection

SAMPLE = 2.0  # seconds between looks at the resources
REPORT = 10.0  # seconds between lines of progress
LAST_REPORTS = 15.0  # seconds for the proxy's word of the last connections
SETTLING = 5.0  # seconds for the last threads
LEVEL = {"threads": (1.05, 4), "descriptors": (1.05, 4), "memory": (1.10, 5)}  # times the first, or more by so many
WARM_UP = {"threads": 10.0, "descriptors": 10.0, "memory": 120.0}  # seconds
LEAST = {"threads": 12, "descriptors": 12, "memory": 80}  # samples after it that tell something


def look(start: float) -> Sample:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Sample(
        time.monotonic() - start,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")) - 1,  # that of listing them
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


class FarSide:
    """The process with the proxy and the servers."""

    def __init__(self, seed: int, secure: list[bool], small: list[bool], directory: str, judge: Judge) -> None:
        command = [sys.executable, str(Path(__file__).with_name("soak_far.py")), "--seed", str(seed)]
        for name, flags in (("--secure", secure), ("--small", small)):
            command += [name, "".join("01"[flag] for flag in flags)]
        self._process = subprocess.Popen(
            [*command, "--directory", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        first = json.loads(self._process.stdout.readline())
        self.ports: list[int] = first["ports"]
        self.ca_file: str = first["ca"]
        self._judge = judge
        self._is_ending = False
        self._listener = threading.Thread(target=self._listen, name="soak far side", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report: dict[str, Any] = json.loads(line)
            if "error" in report:
                self._judge.error("the server", report["error"])
            elif "seen" in report:
                self._judge.server_says(report["serial"], report["seen"])
            else:
                self._judge.proxy_says(report["serial"], report["slot"], report["did"])
        if not self._is_ending:
            self._judge.error("the far side has ended")

    def close(self) -> None:
        self._is_ending = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._listener.join()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class ErrorLog(logging.Handler):
    """What the package logs as an error is one."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(logging.ERROR)
        self._judge = judge

    def emit(self, record: logging.LogRecord) -> None:
        self._judge.error("logged", record.getMessage())


def watch(judge: Judge) -> None:
    """Hear of everything that would otherwise be told to standard error at most."""

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        judge.error("exception", f"{arguments.thread}: {arguments.exc_value!r}")
        threading.__excepthook__(arguments)

    def unraisable(arguments: sys.UnraisableHookArgs) -> None:
        judge.error("unraisable", f"{arguments.object!r}: {arguments.exc_value!r}")

    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
    warnings.simplefilter("error", ResourceWarning)
    logger = logging.getLogger("websocket")
    logger.addHandler(ErrorLog(judge))
    logger.propagate = False


def make_slots(far: FarSide, seed: int, secure: list[bool], small: list[bool], settings: Settings) -> list[Slot]:
    slots: list[Slot] = []
    for number, port in enumerate(far.ports):
        options: dict[str, Any] = {}
        if secure[number]:
            options["sslopt"] = {"ca_certs": far.ca_file}
        if small[number]:
            options["sockopt"] = [(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)]
            options["max_outbox_messages"] = 64
        is_app = bool(number % 2)
        if is_app or number // 4 % 3:
            options.update(KEEPALIVE)
        url = f"{'wss' if secure[number] else 'ws'}://127.0.0.1:{port}/"
        slots.append((AppSlot if is_app else PlainSlot)(number, url, seed, settings, options))
    return slots


def clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def connections_in_memory() -> list[str]:
    return [connection.name for connection in gc.get_objects() if isinstance(connection, Connection)]


def progress(judge: Judge, sample: Sample, connections: int, more: str = "") -> None:
    classes = ", ".join(f"{judge.classes[name]:,} {name}" for name in CLASSES)
    print(
        f"{clock(sample.seconds)}  {judge.opened:,} connections ({max(0, judge.opened - connections):,} again,"
        f" {judge.failed.total():,} attempts failed), {judge.accepted:,} messages: {classes};"
        f" {sample.threads} threads, {sample.descriptors} descriptors, {sample.memory:.1f} MB{more}"
        + (f"; {judge.errors.total()} ERRORS" if judge.errors else ""),
        flush=True,
    )


def run(seconds: float, connections: int, judge: Judge, start: float) -> list[Sample]:
    """Look on; returns what was seen."""
    samples = [look(start)]
    next_report = REPORT
    while (now := time.monotonic() - start) < seconds:
        time.sleep(min(SAMPLE, seconds - now))
        samples.append(look(start))
        if samples[-1].seconds >= next_report:
            next_report += REPORT
            in_memory = len(connections_in_memory())
            progress(judge, samples[-1], connections, f", {in_memory} connections in memory")
    return samples


def join(slots: Sequence[Slot], judge: Judge) -> None:
    deadline = time.monotonic() + 3 * HANG
    for thread in (thread for slot in slots for thread in slot.threads):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            judge.error("hangs", thread.name)
    if judge.errors["hangs"]:
        faulthandler.dump_traceback()


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def compare(samples: list[Sample], judge: Judge) -> None:
    """Whether the last third is level with the first."""
    print("medians of the first and the last third after warm-up:")
    for name, (factor, more) in LEVEL.items():
        first, last = thirds(samples, WARM_UP[name])
        if 3 * len(first) < LEAST[name]:
            print(f"  {name:12} too short a run to tell")
            continue
        before = statistics.median(getattr(sample, name) for sample in first)
        after = statistics.median(getattr(sample, name) for sample in last)
        bound = max(before * factor, before + more)
        print(f"  {name:12} {before:8.1f} {after:8.1f}   at most {bound:.1f}")
        if after > bound:
            judge.error("not level", f"{name}: {before:.1f}, then {after:.1f}")


def summary(judge: Judge) -> None:
    print("what the proxy did, and how the connections ended:")
    for did, ends in sorted(judge.ends.items()):
        told = ", ".join(f"{count:,} {end}" for end, count in ends.most_common())
        print(f"  {did:10} {ends.total():7,}   {told}")
    failed = ", ".join(f"{count:,} {name}" for name, count in judge.failed.most_common())
    print(f"  attempts that failed {judge.failed.total():,}   {failed}")
    print(f"  send() timed out, not accepted {judge.send_timeouts:,}")
    total = sum(judge.classes.values())
    classes = " + ".join(f"{judge.classes[name]:,} {name}" for name in CLASSES)
    print(f"{judge.accepted:,} accepted = {classes}" + ("" if total == judge.accepted else "   WRONG"))
    for kind, count in judge.errors.most_common():
        print(f"ERROR {count:6,}   {kind}")
    for detail in judge.details:
        print(f"  {detail}")


def soak(arguments: argparse.Namespace, directory: str) -> int:
    judge = Judge()
    watch(judge)
    options: dict[str, Any] = {}
    if arguments.compression:
        options["compression"] = "deflate"
    numbers = range(arguments.connections)
    secure = [number // 2 % 2 == 1 for number in numbers]
    small = [number // 4 % 2 == 1 for number in numbers]
    far = FarSide(arguments.seed, secure, small, directory, judge)
    settings = Settings(arguments.rate, options, judge, threading.Event())
    slots = make_slots(far, arguments.seed, secure, small, settings)
    start = time.monotonic()
    before = look(start)
    for slot in slots:
        slot.start()
    seconds = arguments.minutes * 60
    samples = [before]
    try:
        samples += run(seconds, arguments.connections, judge, start)
    finally:
        settings.stop.set()
    join(slots, judge)
    wait_for(lambda: not judge.is_waiting, LAST_REPORTS)
    wait_for(lambda: (now := look(start)).threads <= before.threads and now.descriptors <= before.descriptors, SETTLING)
    after = look(start)
    if (after.threads, after.descriptors) != (before.threads, before.descriptors):
        names = [thread.name for thread in threading.enumerate()]
        judge.error(
            "left behind",
            f"{before.threads} and then {after.threads} threads ({names}), {before.descriptors} and then"
            f" {after.descriptors} descriptors",
        )
    gc.collect()
    if kept := connections_in_memory():
        judge.error("left behind", f"{len(kept)} connections: {kept[:5]}")
    far.close()
    judge.close()

    progress(judge, after, arguments.connections)
    compare(samples[1:], judge)
    print(
        f"at the start {before.threads} threads, {before.descriptors} descriptors, {before.memory:.1f} MB; at the end"
        f" {after.threads}, {after.descriptors}, {after.memory:.1f} MB"
    )
    if arguments.svg:
        chart = svg(
            samples[1:],
            WARM_UP,
            f"{arguments.connections} connections through a proxy that damages them, for {clock(seconds)}",
            f"the client process; {judge.opened:,} connections one after the other, {judge.accepted:,} messages;"
            f" seed {arguments.seed}",
        )
        Path(arguments.svg).write_text(chart, encoding="utf-8")
    summary(judge)
    print("ALL ACCOUNTED FOR AND LEVEL" if not judge.errors else f"{judge.errors.total()} ERRORS")
    return 1 if judge.errors else 0


def positive(word: str) -> float:
    number = float(word)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {word}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=positive, default=30.0)
    parser.add_argument("--connections", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1, help="of the proxy's decisions and the client's")
    parser.add_argument("--rate", type=positive, default=20.0, help="messages per second on each connection")
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate")
    parser.add_argument("--svg", metavar="FILE", help="write a chart of threads, descriptors and memory over time")
    arguments = parser.parse_args()
    if "MALLOC_ARENA_MAX" not in os.environ:  # the allocator reads it when the process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_ARENA_MAX": "2"})
    with tempfile.TemporaryDirectory() as directory:
        return soak(arguments, directory)


if __name__ == "__main__":
    sys.exit(main())
