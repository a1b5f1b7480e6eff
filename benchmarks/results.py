"""From rounds to numbers: a measure's value of each round, their median, and how ours stands to its goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .rows import LIBRARIES, OURS, PEERS, ROWS, Goal, Measure, Row


class ResultsError(ValueError):
    """A file of results that this version cannot show."""


@dataclass(frozen=True)
class Verdict:
    """A goal, and what was reached: the ratio to the best of those it names, or a plain number."""

    goal: str
    reached: float | None  # None where ours or all of the others are missing
    met: bool
    peer: str | None = None  # the library that ours was held against
    bar: float | None = None  # the value that ours must have
    factor: float = 1.0

    @property
    def word(self) -> str:
        return "not measured" if self.reached is None else "met" if self.met else "NOT met"


@dataclass(frozen=True)
class Line:
    """A line of the table: one measure of one row with one scheme."""

    row: Row
    scheme: str
    measure: Measure
    medians: dict[str, float]  # by library
    errors: dict[str, str]
    spread: dict[str, float]  # how many times its smallest value a library's largest is

    @property
    def verdicts(self) -> list[Verdict]:
        return [judge(self, goal) for goal in self.measure.goals.get(self.scheme, ())]


@dataclass(frozen=True)
class Cost:
    """What a message takes of the processor and the scheduler, the median over rounds."""

    row: Row
    scheme: str
    cpu: dict[str, float]  # microseconds, by library
    switches: dict[str, float]


def value(measure: Measure, one_round: dict[str, Any]) -> float:
    """A measure's number of one round. Raises KeyError where the round has none."""
    name = measure.name
    if name == "rate":
        return float(one_round["messages"] / one_round["seconds"])
    if name == "throughput":
        return float(one_round["bytes"] / one_round["seconds"] / 1e6)
    if name == "memory":
        return float(one_round["memory"] / 1024)
    if name == "rest":
        return float(one_round["cpu"] / one_round["seconds"] * 1e3)
    if name == "import":
        return float(one_round["import"] * 1e3)
    if name == "modules":
        return float(one_round["modules"])
    return float(one_round["latency"][name] * 1e6)


def lines(report: dict[str, Any]) -> Iterator[Line]:
    """The lines of a report, in the order of its results. Raises ResultsError."""
    for row, scheme, results in _by_row(report):
        for measure in row.measures:
            values = {
                result["library"]: [value(measure, one_round) for one_round in result["rounds"]]
                for result in results
                if result["rounds"]
            }
            medians = {library: statistics.median(each) for library, each in values.items()}
            errors = {result["library"]: result["error"] for result in results if result["error"]}
            spread = {library: max(each) / min(each) for library, each in values.items() if min(each) > 0}
            yield Line(row, scheme, measure, medians, errors, spread)


def costs(report: dict[str, Any]) -> Iterator[Cost]:
    for row, scheme, results in _by_row(report):
        if any("cpu" not in one_round for result in results for one_round in result["rounds"]) or row.task == "idle":
            continue
        cpu, switches = {}, {}
        for result in results:
            if rounds := result["rounds"]:
                cpu[result["library"]] = statistics.median(one["cpu"] / one["messages"] * 1e6 for one in rounds)
                switches[result["library"]] = statistics.median(
                    (one["voluntary"] + one["involuntary"]) / one["messages"] for one in rounds
                )
        yield Cost(row, scheme, cpu, switches)


def judge(line: Line, goal: Goal) -> Verdict:
    """How ours stands to a goal. Where lower is better ours must be at most the factor times the best of the others."""
    lower = line.measure.lower_is_better
    sign, best = ("<=", min) if lower else (">=", max)
    said = f"{sign} {goal.factor:g}"
    ours = line.medians.get(OURS)
    peer, unit = None, 1.0
    if goal.against:
        several = "the best peer" if goal.against == PEERS else f"the best of {', '.join(goal.against)}"
        said += f" x {goal.against[0] if len(goal.against) == 1 else several}"
        others = {name: line.medians[name] for name in goal.against if name in line.medians}
        if not others:
            return Verdict(said, None, False)
        peer = best(others, key=lambda name: others[name])
        unit = others[peer]
    if ours is None or not unit:
        return Verdict(said, None, False, peer)
    reached = ours / unit
    met = reached <= goal.factor if lower else reached >= goal.factor
    return Verdict(said, reached, met, peer, goal.factor * unit, goal.factor)


def all_met(report: dict[str, Any]) -> bool:
    return all(verdict.met for line in lines(report) for verdict in line.verdicts)


def libraries_of(report: dict[str, Any]) -> list[str]:
    """Those that have a result, in the order of LIBRARIES."""
    found = {result["library"] for result in report["results"]}
    return [library for library in LIBRARIES if library in found]


def _by_row(report: dict[str, Any]) -> Iterator[tuple[Row, str, list[dict[str, Any]]]]:
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in report["results"]:
        grouped.setdefault((result["row"], result["scheme"]), []).append(result)
    for (name, scheme), results in grouped.items():
        if name not in ROWS:
            raise ResultsError(f"the results have a row {name!r}, which this version does not know")
        yield ROWS[name], scheme, results
