"""Runs rows: a process for each library, told to do one round at a time, and rounds in turns.

Whatever takes too long is killed and stands in the results as failed; the run goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from .environments import CLIENTS, Needs
from .rows import OURS, PICOWS, SOCKET, WEBSOCKETS, WSC, Row

PROGRAMS = {
    OURS: "websocket_api.py",
    WSC: "websocket_api.py",
    WEBSOCKETS: "websockets_threads.py",
    PICOWS: "picows_listener.py",
    SOCKET: "plain_socket.py",
}
MODULES = {OURS: "websocket", WSC: "websocket", WEBSOCKETS: "websockets.sync.client", PICOWS: "picows"}
READY_TIMEOUT = 120.0  # seconds until a program has connected, checked, and done a round that does not count
ROUND_TIMEOUT = 60.0
END_TIMEOUT = 30.0  # for closing a thousand connections
QUICK = 0.4  # of the messages of a round


class FailedError(Exception):
    """A process has ended, or says nothing, or something else than JSON."""


@dataclass
class Result:
    """What one library did in one row; `error` where it did not get to the end."""

    row: str
    scheme: str
    library: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Program:
    """A process that is told lines on its standard input, prints lines of JSON, and ends when its input does."""

    def __init__(self, command: list[str], processors: set[int] | None = None) -> None:
        """processors: those that it may run on, None for all."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        # Nothing of the caller's environment may put another package in the place of the library, or speed one up.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        self._unread = b""
        if processors:
            os.sched_setaffinity(self._process.pid, processors)  # inherited by the threads that it is going to have

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends it, by force where it does not end by itself."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def tell(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which does not come, says so

    def answer(self, timeout: float) -> dict[str, Any]:
        """Its next line. Raises FailedError, and kills it, when there is none in time."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._failed(f"no answer in {timeout:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise self._failed("ended")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self._failed(f"said {line[:100]!r}") from error
        assert isinstance(value, dict)
        return value

    def _failed(self, what: str) -> FailedError:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return FailedError(f"{what} (exit status {status}) {said[-1500:]}".strip())


def processors_apart() -> tuple[set[int] | None, set[int] | None]:
    """Where the server is to run, and where programs that wait for each of its answers are: on one processor together
    they take 6 us for a round trip, on two of them 60, and the scheduler chooses now this and now that."""
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (None, None)


@dataclass
class Runner:
    """Runs rows against one server, which is there for as long as the runner is entered."""

    needs: Needs
    libraries: tuple[str, ...]
    rounds: int
    quick: bool
    tell: Callable[[str], None]

    def __enter__(self) -> Runner:
        self._certificate = self.needs.certificates() / "authority.pem"
        self._pythons = {library: self.needs.python(library) for library in self.libraries}
        self._servers, self._clients = processors_apart()
        self._server = Program(self.needs.server(), self._servers)
        self._ports = self._server.answer(READY_TIMEOUT)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._server.__exit__(*exception)

    def run(self, row: Row, scheme: str) -> list[Result]:
        """All libraries' rounds of a row: the first of each, the second of each, another library first each time."""
        results = {name: Result(row.name, scheme, name) for name in row.libraries if name in self.libraries}
        rounds = min(self.rounds, row.rounds or self.rounds)
        with ExitStack() as stack:
            programs: dict[str, Program] = {}
            for library in results:
                self.tell(f"{row.name} {scheme}: {library} gets ready")
                where = self._clients if row.task == "round_trip" else None
                program = stack.enter_context(Program(self._command(row, scheme, library), where))
                try:
                    program.answer(READY_TIMEOUT)
                    programs[library] = program
                except FailedError as error:
                    results[library].error = str(error)
            for number in range(rounds):
                names = list(results)
                first = number % len(names)
                for library in names[first:] + names[:first]:
                    if library not in programs:
                        continue
                    self.tell(f"{row.name} {scheme}: round {number + 1} of {rounds}, {library}")
                    try:
                        programs[library].tell("round")
                        results[library].rounds.append(programs[library].answer(ROUND_TIMEOUT))
                    except FailedError as error:
                        results[library].error = str(error)
                        del programs[library]
        return list(results.values())

    def _command(self, row: Row, scheme: str, library: str) -> list[str]:
        python, program = str(self._pythons[library]), PROGRAMS[library]
        count = row.slow.get(library, row.count)
        if not row.uses_network:
            return [python, str(CLIENTS / "importing.py"), MODULES[library], json.dumps({"count": count})]
        setting = {
            "url": f"{scheme}://127.0.0.1:{self._ports[scheme]}",
            "certificate": str(self._certificate),
            "timeout": READY_TIMEOUT,
            "count": self._in_a_round(count, row.setting),
            **row.setting,
        }
        return [python, str(CLIENTS / program), row.task, json.dumps(setting)]

    def _in_a_round(self, count: int, setting: dict[str, Any]) -> int:
        """The messages of a round: as many for each of its threads and connections."""
        divisor = max(setting.get("threads", 1), setting.get("connections", 1)) if count > 1 else 1
        wanted = int(count * QUICK) if self.quick else count
        return max(wanted // divisor, 1) * divisor


def schemes_of(row: Row, asked: Iterable[str]) -> tuple[str, ...]:
    """The schemes that a row runs with: those that were asked for, or its own."""
    return tuple(asked) if asked and row.uses_network else row.schemes
