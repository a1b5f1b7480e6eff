"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import chart, machine, tables
from .environments import Needs, SetupError, distributions
from .results import ResultsError, all_met
from .rows import LIBRARIES, SCHEMES, SOCKET, Row, UnknownRowError, choose, listing
from .running import FailedError, Result, Runner, schemes_of

EPILOG = """
Rounds of the libraries take turns, each library in a process of its own, against a server in C. The number of messages
in a round is fixed; libraries that are far slower get fewer, which a rate does not notice. The server has a processor
of its own, which programs that wait for each answer keep off: on one processor together they would take a tenth of the
time, and the scheduler would choose. Everything it needs it makes under .benchmarks/ in the checkout, and keeps.
"""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="How fast the client is.", epilog=EPILOG)
    parser.add_argument("rows", nargs="*", default=["goals"], metavar="ROW", help="a row or a group (default: goals)")
    parser.add_argument("--list", action="store_true", help="list rows and groups")
    parser.add_argument("--rounds", type=int, help="rounds of each row (default: 7)")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--libraries", metavar="NAMES", help=f"some of {','.join(LIBRARIES)}")
    parser.add_argument("--scheme", action="append", choices=SCHEMES, default=[], help="only this one")
    parser.add_argument("--fresh", action="store_true", help="make everything under .benchmarks/ anew")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a goal is not met")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds and the facts of the machine")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for the documentation")
    parser.add_argument("--from", dest="source", type=Path, metavar="JSON", help="show these results, run nothing")
    options = parser.parse_args(given)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.libraries = options.libraries.split(",") if options.libraries else list(LIBRARIES)
    for name in options.libraries:
        if name not in LIBRARIES:
            parser.error(f"no library {name!r}; there are {', '.join(LIBRARIES)}")
    return options


def tell(what: str) -> None:
    """Progress, on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
    else:
        print(what, file=sys.stderr, flush=True)


def measured(options: argparse.Namespace, rows: list[Row]) -> dict[str, Any]:
    """A report of a run."""
    rounds = options.rounds or (3 if options.quick else 7)
    wanted = {name for row in rows for name in row.libraries}
    libraries = tuple(name for name in LIBRARIES if name in options.libraries and name in wanted)
    needs = Needs(tell, options.fresh)
    results: list[Result] = []
    with Runner(needs, libraries, rounds, options.quick, tell) as runner:
        load = {"start": machine.load()}
        for row in rows:
            for scheme in schemes_of(row, options.scheme):
                results += runner.run(row, scheme)
        load["end"] = machine.load()
    if sys.stderr.isatty():
        tell("")
    return {
        "machine": machine.facts(),
        "versions": {name: distributions(needs.python(name)) for name in libraries if name != SOCKET},
        "load": load,
        "rounds": rounds,
        "quick": options.quick,
        "results": [result.to_json() for result in results],
    }


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    if options.list:
        print("\n".join(listing()))
        return 0
    try:
        report = json.loads(options.source.read_text()) if options.source else measured(options, choose(options.rows))
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
        if options.svg:
            options.svg.write_text(chart.svg(report))
        if options.markdown:
            options.markdown.write_text(tables.markdown(report))
        print(tables.text(report), end="")
    except (UnknownRowError, SetupError, FailedError, ResultsError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    failed = any(result["error"] for result in report["results"])
    return 1 if failed or (options.check and not all_met(report)) else 0


if __name__ == "__main__":
    sys.exit(main())
