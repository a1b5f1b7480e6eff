"""python -m tests.autobahn: the command line."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from websocket import WebSocketException

from .cases import Case, UnknownCaseError, choose, quick
from .client import AGENT, CASE_SECONDS, Run, list_cases, run_case, update_reports
from .installation import InstallationError, NoPython27Error
from .progress import Progress
from .report import Verdict, judge
from .server import Server, ServerError, fuzzing_server, reports, reserved_port

CANNOT_RUN = 2
INTERRUPTED = 130
TERMINATED = 143


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.autobahn",
        description="Run the client cases of the Autobahn Testsuite against this package.",
        epilog="Exit status: 0 where all is as it should be, 1 where a case deviates or is missing in the report,"
        " 2 where the testsuite cannot be run. It is installed at AUTOBAHN_HOME with a Python 2.7: that at PYTHON27,"
        " pyenv's, or the PATH's.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="an id, its first numbers, or a pattern: 3.2 7 '12.*.1'"
    )
    parser.add_argument("--quick", action="store_true", help="all but 9.*, 12.* and 13.*")
    parser.add_argument("--port", type=int, default=0, help="where the server listens (default: a free port)")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="keep the server's reports there; index.html is for you"
    )
    parser.add_argument(
        "--timeout", type=float, default=CASE_SECONDS, metavar="SECONDS", help="for each case (default: %(default)g)"
    )
    options = parser.parse_args(arguments)
    if options.quick and options.cases:
        parser.error("--quick is a set of cases itself: give it alone")
    if not 0 <= options.port <= 65535:
        parser.error(f"there is no port {options.port}")
    if options.timeout <= 0:
        parser.error("--timeout must be positive")
    return options


def run_all(server: Server, cases: Sequence[Case], seconds: float) -> dict[Case, Run]:
    """Run the cases one after the other, showing how far that is."""
    progress = Progress(len(cases), sys.stderr)
    runs: dict[Case, Run] = {}
    try:
        for case in cases:
            progress.running(case, len(runs))
            runs[case] = run_case(server.url, case, seconds)
            server.check()
    finally:
        progress.end()
    return runs


def run(options: argparse.Namespace, folder: Path) -> Verdict:
    """Start the server in a folder, run what the options say, and read the reports."""
    with reserved_port(options.port) as port, fuzzing_server(folder, port) as server:
        cases = list_cases(server.url)
        chosen = quick(cases) if options.quick else choose(cases, options.cases)
        runs = run_all(server, chosen, options.timeout)
        update_reports(server.url)
    if options.report:
        shutil.copytree(reports(folder), options.report, dirs_exist_ok=True)
    return judge(runs, reports(folder), AGENT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = parse(arguments)
    begin = time.monotonic()
    try:
        if options.report:
            options.report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
            verdict = run(options, Path(folder))
    except (NoPython27Error, InstallationError, ServerError, UnknownCaseError, OSError, WebSocketException) as error:
        print(error, file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    for deviation in verdict.deviations:
        print(deviation, end="\n\n")
    print(verdict.table())
    count = len(verdict.deviations)
    print(f"{count or 'no'} deviation{'' if count == 1 else 's'}, {time.monotonic() - begin:.1f} s")
    return verdict.exit_status


if __name__ == "__main__":
    # As Ctrl-C, so that the server is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(main())
