"""The results as a chart: for each row the libraries as bars, as long as they are fast beside ours, with values and
goals. Written as SVG by hand; colours follow the reader's light or dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from .results import Line, libraries_of, lines
from .rows import OURS, SCHEMES
from .tables import number

MARGIN, LABELS, GAP = 20, 150, 24
BARS, VALUES = 270, 105  # the widths of a panel's bars and of the values after them
PANEL = BARS + VALUES
LONGEST = 1.5  # times ours; a longer bar is cut off there, and its value says how long it is
BAR, STEP, BETWEEN = 11, 14, 20  # heights of a bar, from bar to bar, and between rows
HEAD = 122
TITLES = {"ws": "ws://", "wss": "wss://, TLS"}
COLOURS = {
    "ours": ("#0b6bcb", "#4da3ff"),  # in light and dark mode
    "websocket-client": ("#d98200", "#e69f00"),
    "websockets": ("#00916a", "#1fb58a"),
    "picows": ("#b8578f", "#cc79a7"),
    "socket": ("#8a8f98", "#767c86"),
}
SHORT_UNITS = {"us": "µs", "messages/s": "/s", "replies/s": "/s", "KiB each": "KiB", "CPU ms/s": "ms/s", "modules": ""}
STYLE = """
text { fill: #24292f; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
.paper { fill: #fff } .soft { fill: #5c646d } .title { font-size: 17px; font-weight: 600 } .name { font-weight: 600 }
.small { font-size: 11px } .value { font-size: 11px; paint-order: stroke; stroke: #fff; stroke-width: 3px }
.rule { stroke: #d5dae0 } .one { stroke: #8c959f; stroke-dasharray: 3 3 }
.goal { stroke: #cf222e; stroke-width: 2 } .no { fill: #cf222e }
"""
DARK = """
text { fill: #e6edf3 } .paper { fill: #0d1117 } .soft { fill: #9aa4af } .rule { stroke: #30363d }
.value { stroke: #0d1117 } .one { stroke: #6e7681 } .goal { stroke: #ff7b72 } .no { fill: #ff7b72 }
"""


def svg(report: dict[str, Any]) -> str:
    """The chart of a report, as a whole file."""
    groups: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines(report):
        groups.setdefault((line.row.name, line.measure.name), {})[line.scheme] = line
    shown = {scheme for group in groups.values() for scheme in group}
    schemes = [scheme for scheme in SCHEMES if scheme in shown]
    libraries = libraries_of(report)
    width = MARGIN * 2 + LABELS + len(schemes) * PANEL + max(len(schemes) - 1, 0) * GAP
    width = max(width, 640)
    body: list[str] = []
    y = HEAD
    for group in groups.values():
        height = STEP * max(len(_bars(line)) for line in group.values()) + BETWEEN
        body += _group(group, schemes, y, width, height)
        y += height
    for column, scheme in enumerate(schemes):
        x = _left(column) + BARS / LONGEST
        body.append(_text(_left(column), HEAD - 12, TITLES[scheme], "name"))
        body.append(f'<path class="one" d="M{x:.1f} {HEAD - 6}V{y - BETWEEN / 2:.0f}"/>')
    height = y + 48
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>Speed of {escape(', '.join(libraries))}, relative to ours</title>",
            f"<style>{STYLE}{_colours(0)}@media (prefers-color-scheme: dark) {{{DARK}{_colours(1)}}}\n</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *_head(libraries),
            *body,
            *_foot(report, y),
            "</svg>\n",
        ]
    )


def relative(line: Line, library: str) -> float | None:
    """How many times as fast as ours, or as sparing; without ours, as the first that there is."""
    base = line.medians.get(OURS) or next(iter(line.medians.values()), 0.0)
    own = line.medians.get(library, 0.0)
    if not base or not own:
        return None
    return base / own if line.measure.lower_is_better else own / base


def short(value: float, unit: str) -> str:
    """A value with its unit in few characters."""
    if unit.endswith("/s") and value >= 1000:
        if unit == "MB/s":
            return f"{number(value / 1e3)} GB/s"
        return f"{number(value / 1e3)} k/s" if value < 1e6 else f"{number(value / 1e6)} M/s"
    if unit == "us" and value >= 1000:
        return f"{number(value / 1000)} ms"
    return f"{number(value)} {SHORT_UNITS.get(unit, unit)}"


def _group(group: dict[str, Line], schemes: list[str], y: int, width: int, height: int) -> Iterator[str]:
    """One measure of one row: its name, and a panel for each scheme."""
    line = next(iter(group.values()))
    middle = y + (height - BETWEEN) / 2
    yield f'<path class="rule" d="M{MARGIN} {y - BETWEEN / 2:.0f}H{width - MARGIN}"/>'
    yield _text(MARGIN, middle, line.row.name, "name")
    yield _text(MARGIN, middle + 15, line.measure.name_with_unit.replace("us", "µs"), "soft small")
    for column, scheme in enumerate(schemes):
        if scheme in group:
            yield from _panel(group[scheme], _left(column), y)


def _panel(line: Line, left: int, y: int) -> Iterator[str]:
    ticks = _ticks(line)
    for place, library in enumerate(_bars(line)):
        top = y + place * STEP
        share = relative(line, library)
        if share is None:
            yield _text(left, top + BAR - 1, f"{library}: failed", "no small")
            continue
        length = min(share, LONGEST) * BARS / LONGEST
        said = short(line.medians[library], line.measure.unit)
        if share > LONGEST:
            said = f"» {said}, x {number(share)}"
        yield (
            f'<rect class="{library}" x="{left}" y="{top}" width="{max(length, 1):.1f}" height="{BAR}" rx="1.5">'
            f"<title>{escape(f'{library}: {said}, {number(share)} times ours')}</title></rect>"
        )
        for tick in ticks.get(library, ()):
            if tick <= LONGEST:
                x = left + tick * BARS / LONGEST
                yield f'<path class="goal" d="M{x:.1f} {top - 2}v{BAR + 4}"/>'
        furthest = max([length, *(tick * BARS / LONGEST for tick in ticks.get(library, ()) if tick <= LONGEST)])
        near = furthest if furthest - length < 70 else length
        yield _text(left + near + 5, top + BAR - 1.5, said, "value")
    if verdicts := line.verdicts:
        met = sum(verdict.met for verdict in verdicts)
        said = f"{'goal' if len(verdicts) == 1 else f'{met} of {len(verdicts)} goals'} {'met' if met else 'not met'}"
        said = said.replace(f"0 of {len(verdicts)} goals not", "no goal")
        style = "soft small" if met == len(verdicts) else "no small"
        yield _text(left + PANEL, y + BAR - 1.5, said, style, anchor="end")


def _ticks(line: Line) -> dict[str, list[float]]:
    """Where the bars of the others may end at most, for ours to reach its goals."""
    ticks: dict[str, list[float]] = {}
    for goal in line.measure.goals.get(line.scheme, ()):
        for library in goal.against:
            ticks.setdefault(library, []).append(goal.factor if line.measure.lower_is_better else 1 / goal.factor)
    return ticks


def _bars(line: Line) -> list[str]:
    return [library for library in COLOURS if library in line.medians or library in line.errors]


def _left(column: int) -> int:
    return MARGIN + LABELS + column * (PANEL + GAP)


def _head(libraries: list[str]) -> Iterator[str]:
    """What the chart says, and the legend."""
    yield _text(MARGIN, 32, "Speed beside other libraries", "title")
    yield _text(MARGIN, 52, "The longer, the faster or the more sparing; the dashed line is ours.", "soft")
    x = MARGIN
    for library in libraries:
        said = "plain socket, the limit" if library == "socket" else library
        yield f'<rect class="{library}" x="{x}" y="68" width="{BAR}" height="{BAR}" rx="1.5"/>'
        yield _text(x + 17, 78, said)
        x += 32 + 7 * len(said)
    yield f'<path class="goal" d="M{x + 4} 66v15"/>'
    yield _text(x + 13, 78, "goal: the bar ends before it")


def _foot(report: dict[str, Any], y: int) -> Iterator[str]:
    machine = report["machine"]
    said = f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}, {machine['openssl']}"
    yield _text(MARGIN, y + 16, said, "soft small")
    yield _text(MARGIN, y + 32, f"medians of {report['rounds']} rounds, commit {machine['commit']}", "soft small")


def _colours(mode: int) -> str:
    return " ".join(f".{library} {{ fill: {colours[mode]} }}" for library, colours in COLOURS.items())


def _text(x: float, y: float, said: str, style: str = "", anchor: str = "") -> str:
    attributes = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(said)}</text>'
