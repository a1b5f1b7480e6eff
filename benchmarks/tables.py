"""The results as text for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .results import Cost, Line, Verdict, costs, libraries_of, lines

UNSTEADY = 2.0
UNSTEADY_BY_NATURE = {"p90", "p99", "p99.9", "max", "rest"}


def number(value: float | None) -> str:
    """Three digits or more, as a reader wants them: 1,234,568, 12.3, 0.123."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.095 or not value else f"{value:.3f}"


def title(line: Line | Cost) -> str:
    return f"{line.row.name} {line.scheme}" if line.row.uses_network else line.row.name


def ratio(verdict: Verdict) -> str:
    if verdict.reached is None:
        return ""
    against = f" x {verdict.peer}" if verdict.peer and "the best" in verdict.goal else ""
    return f"{verdict.reached:.2f}{against}"


def text(report: dict[str, Any]) -> str:
    """Both tables, what failed, and the machine."""
    parts = [
        aligned(list(_goal_table(report)), right=_numeric(report)),
        "CPU time of the client per message in microseconds, and its context switches per message",
        aligned(list(_cost_table(report)), right=lambda column: column > 0),
        *_failures(report),
        *_unsteady(report),
        "\n".join(_about(report)),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(report: dict[str, Any]) -> str:
    """The same for the documentation."""
    first, *rows = (["**" + cell + "**" if cell == "NOT met" else cell for cell in row] for row in _goal_table(report))
    costs_first, *costs_rows = _cost_table(report)
    parts = [
        pipes(first, rows, _numeric(report)),
        "CPU time of the client per message in microseconds / its context switches per message:",
        pipes(costs_first, costs_rows, lambda column: column > 0),
        *(f"    {failure}" for failure in _failures(report)),
        *_unsteady(report),
        "\n".join(f"* {line}" for line in _about(report)),
    ]
    return "\n\n".join(parts) + "\n"


def aligned(table: list[list[str]], right: Callable[[int], bool]) -> str:
    """Columns of equal width; those of numbers to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right(column) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def pipes(first: list[str], rows: list[list[str]], right: Callable[[int], bool]) -> str:
    rule = ["--:" if right(column) else "---" for column in range(len(first))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, rule, *rows))


def _numeric(report: dict[str, Any]) -> Callable[[int], bool]:
    return lambda column: 2 <= column < 2 + len(libraries_of(report))


def _goal_table(report: dict[str, Any]) -> Iterator[list[str]]:
    """A line for each measure, and one more for each goal after its first."""
    libraries = libraries_of(report)
    yield ["row", "unit", *libraries, "goal", "reached", ""]
    for line in lines(report):
        values = ["failed" if name in line.errors else number(line.medians.get(name)) for name in libraries]
        cells = [title(line), line.measure.name_with_unit, *values]
        for verdict in line.verdicts:
            yield [*cells, verdict.goal, ratio(verdict), verdict.word]
            cells = [""] * len(cells)
        if not line.verdicts:
            yield [*cells, "", "", ""]


def _cost_table(report: dict[str, Any]) -> Iterator[list[str]]:
    libraries = libraries_of(report)
    yield ["row", *libraries]
    for cost in costs(report):
        yield [
            title(cost),
            *(
                f"{number(cost.cpu[name])} / {number(cost.switches[name])}" if name in cost.cpu else ""
                for name in libraries
            ),
        ]


def _failures(report: dict[str, Any]) -> Iterator[str]:
    for result in report["results"]:
        if result["error"]:
            yield f"{result['row']} {result['scheme']}, {result['library']}: {result['error']}"


def _unsteady(report: dict[str, Any]) -> Iterator[str]:
    """Says whose rounds differ so much that the median means little: the machine was busy, or there are two modes."""
    found = [
        f"{title(line)} {library} {line.spread[library]:.1f}"
        for line in lines(report)
        for library in line.spread
        if line.spread[library] > UNSTEADY and line.measure.name not in UNSTEADY_BY_NATURE
    ]
    if found:
        yield f"The largest value of a round is more than {UNSTEADY:g} times the smallest: {', '.join(found)}"


def _about(report: dict[str, Any]) -> Iterator[str]:
    machine, load = report["machine"], report["load"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}, {machine['openssl']}"
    for library, versions in report["versions"].items():
        yield f"{library}: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    yield f"commit {machine['commit']}; medians of {report['rounds']} rounds{', short ones' if report['quick'] else ''}"
    yield f"load average before {load['start']}, after {load['end']}"
