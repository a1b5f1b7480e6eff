"""The client under test: a program that echoes, as a user of the package would write it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from websocket import ABNF, WebSocket, WebSocketException, WebSocketTimeoutException, create_connection

from .cases import COMPRESSION_SECTIONS, Case

# Under this name the server keeps the results.
AGENT = "websocket-threads"
CASE_SECONDS = 120.0
# For what is asked besides the cases; a report of all cases takes a while to write.
ANSWER_SECONDS = 120.0
ABORT_SECONDS = 10.0
STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Run:
    """ended: how a case ended for the client.  failed: in a way that no case asks for."""

    ended: str
    failed: bool = False


def list_cases(url: str) -> list[Case]:
    """All cases that the server has."""
    count = json.loads(_ask(f"{url}/getCaseCount"))
    cases = []
    for number in range(1, count + 1):
        info = json.loads(_ask(f"{url}/getCaseInfo?{urlencode({'case': number})}"))
        cases.append(Case(number, info["id"], info["description"]))
    return cases


def update_reports(url: str) -> None:
    """Make the server write its reports; they are written when this returns."""
    connection = create_connection(f"{url}/updateReports?{urlencode({'agent': AGENT})}", timeout=ANSWER_SECONDS)
    with connection:
        connection.recv_data()


def run_case(url: str, case: Case, seconds: float = CASE_SECONDS) -> Run:
    """Run one case, and cut it short where it does not end in that time."""
    query = urlencode({"case": case.number, "agent": AGENT})
    options = {"compression": "deflate"} if case.section in COMPRESSION_SECTIONS else {}
    echo = _Echo(f"{url}/runCase?{query}", seconds, options)
    echo.start()
    deadline = time.monotonic() + seconds
    # In steps, because a signal that comes just before a wait is seen only after it.
    while echo.is_alive() and (left := deadline - time.monotonic()) > 0:
        echo.join(min(left, STEP_SECONDS))
    if not echo.is_alive():
        return echo.result
    # The server tells nothing of a case while its connection stands.
    abort = threading.Thread(target=echo.abort, daemon=True)
    abort.start()
    abort.join(ABORT_SECONDS)
    return _hung(seconds)


def _ask(url: str) -> str | bytes:
    connection = create_connection(url, timeout=ANSWER_SECONDS)
    with connection:
        return connection.recv()


def _hung(seconds: float) -> Run:
    return Run(f"did not end within {seconds:g} s", failed=True)


class _Echo(threading.Thread):
    """The client's part of one case, on a thread that can be left behind: what is under test may hang anywhere."""

    def __init__(self, url: str, seconds: float, options: dict[str, Any]) -> None:
        super().__init__(name=f"echo {url}", daemon=True)
        self.result = Run("raised what is no WebSocketException; its traceback is in the output", failed=True)
        self._url = url
        self._seconds = seconds
        self._options = options
        self._connection: WebSocket | None = None

    def run(self) -> None:
        try:
            self._connection = create_connection(self._url, timeout=self._seconds, **self._options)
            with self._connection:
                self._echo(self._connection)
        except WebSocketTimeoutException:
            self.result = _hung(self._seconds)
        except WebSocketException as error:
            # Many cases ask for just that. Whether this one does, the report tells.
            self.result = Run(f"{type(error).__name__}: {error}")
        else:
            self.result = Run("closed")

    def _echo(self, connection: WebSocket) -> None:
        while True:
            opcode, data = connection.recv_data()
            if opcode == ABNF.OPCODE_CLOSE:
                return
            connection.send(data, opcode)

    def abort(self) -> None:
        if self._connection is not None:
            self._connection.shutdown()
