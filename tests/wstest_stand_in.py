"""A program that speaks as the Autobahn Testsuite's fuzzing server does, with a few cases of its own.

It takes wstest's command line, `-m fuzzingserver --webport=0 -s SPECIFICATION`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

CASES = {
    "1.1": "echo",
    "3.1": "is not reported",
    "4.1": "is never strict",
    "9.1": "echo, of more",
    "9.2": "silence: nothing comes, and the file `silent` has this process's id",
    "12.1": "echo, with compression",
}


class StandIn:
    """folder: for the reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, dict[str, Any]] = {}  # by case, of the one agent that there is
        self.lock = threading.Lock()  # held during a case and during a report, which has all cases that came before

    def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        target = urlsplit(connection.request.path)
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        case = list(CASES)[int(query["case"]) - 1] if "case" in query else ""
        if target.path == "/getCaseCount":
            connection.send(json.dumps(len(CASES)))
        elif target.path == "/getCaseInfo":
            connection.send(json.dumps({"id": case, "description": CASES[case]}))
        elif target.path == "/runCase":
            with self.lock:
                self.run(case, connection)
        elif target.path == "/updateReports":
            with self.lock:
                self.report(query["agent"])

    def run(self, case: str, connection: ServerConnection) -> None:
        received: list[Any] = []
        expected = [["message", "hello", False]]
        try:
            if case == "9.2":
                Path("silent").write_text(str(os.getpid()))
            else:
                connection.send("hello")
            received.append(["message", connection.recv(), False])
            connection.close()
        except ConnectionClosed:
            pass  # the results tell
        if case == "3.1":
            return
        good = "NON-STRICT" if case == "4.1" else "OK"
        self.results[case] = {
            "description": CASES[case],
            "expectation": "The message<br>comes back.",
            "behavior": good if received == expected else "FAILED",
            "behaviorClose": "OK" if received else "UNCLEAN",
            "expected": {good: expected},
            "received": received,
            "result": "compared",
            "resultClose": "looked at",
            "expectedClose": {"closeCode": [1000]},
            "failedByMe": False,
            "localCloseCode": 1000,
            "localCloseReason": None,
            "remoteCloseCode": connection.close_code if received else None,
            "remoteCloseReason": None,
        }

    def report(self, agent: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        index = {}
        for case, result in self.results.items():
            name = f"case_{case.replace('.', '_')}.json"
            (self.folder / name).write_text(json.dumps(result))
            index[case] = {key: result[key] for key in ("behavior", "behaviorClose", "remoteCloseCode")}
            index[case]["reportfile"] = name
        (self.folder / "index.json").write_text(json.dumps({agent: index}))


def main() -> None:
    specification = json.loads(Path(sys.argv[-1]).read_text())
    stand_in = StandIn(Path(specification["outdir"]))
    with serve(stand_in.handle, "127.0.0.1", urlsplit(specification["url"]).port) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
