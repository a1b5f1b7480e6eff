"""A server is gone for a minute and all its clients want to be back: what each way of waiting does to it.

    python benchmarks/storm.py [--clients N] [--outage SECONDS] [--capacity N] [--seed S] [--svg FILE | --grid]

A simulation on virtual time that asks websocket's own Backoff and FixedDelay. The server goes down at 0 s and every
client notices within 0.1 s. Until it is up again it refuses every attempt at once; from then on it completes so many
handshakes per second, in the order of arrival, keeps at most BACKLOG of them waiting, and refuses at once what comes
beyond. Attempts take no time of their own. The table on stdout also tells when a client that is alone is back after
a blip of one second, and what a server that drops every connection soon after it has opened must bear.
--grid compares many settings in place of the usual few.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from websocket._backoff import Backoff, FixedDelay, Schedule

NOTICED_WITHIN = 0.1  # seconds from the loss until the last client knows
BACKLOG = 4_096  # handshakes that wait at the server: Linux' net.core.somaxconn
BLIP = 1  # seconds that the server is gone for the client that is alone
ALONE = 5_000  # such clients, each for itself, for a median and a percentile
CHURN = 3_600.0  # seconds for which connections are dropped soon after they have opened
CHURN_CLIENTS = 1_000  # simulated; counted as many times as it takes to make --clients
HELD = (5.0, 20.0, 40.0)  # seconds that such a connection holds

Policy = Backoff | FixedDelay


class Clock:
    """Virtual time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Completes handshakes one after another; what it has promised so far is the time at which it is free again."""

    def __init__(self, up_at: float, capacity: float) -> None:
        self._seconds_each = 1 / capacity
        self._longest_queue = (BACKLOG - 1) / capacity
        self._free_at = up_at

    def completes(self, now: float) -> float | None:
        """When the handshake of an attempt made now is done; None: refused."""
        if self._free_at - now > self._longest_queue:
            return None
        self._free_at = max(self._free_at, now) + self._seconds_each
        return self._free_at


@dataclass
class Storm:
    """attempts: by the second in which they were made.  back_at: seconds, in order, from the return of the server."""

    attempts: Counter[int]
    back_at: list[float]
    outage: int

    def peak(self, since: int = 0) -> int:
        return max((count for second, count in self.attempts.items() if second >= since), default=0)

    def per_second_while_down(self) -> float:
        return sum(count for second, count in self.attempts.items() if second < self.outage) / self.outage

    def back(self, part: float) -> float:
        return self.back_at[math.ceil(part * len(self.back_at)) - 1]


def storm(policy: Policy, clients: int, outage: int, capacity: float, chance: Callable[[], float]) -> Storm:
    clock = Clock()
    refused = ConnectionRefusedError()
    attempts: Counter[int] = Counter()
    arrivals: list[tuple[float, int, Schedule]] = []

    def next_attempt(schedule: Schedule) -> float:
        delay = schedule.next_delay(refused)
        assert delay is not None, "a policy of this table never gives up"
        return clock.now + delay

    # While the server is down no client meets another, so that each goes through the outage in one piece.
    for number in range(clients):
        clock.now = chance() * NOTICED_WITHIN
        schedule = policy.begin(clock, chance)
        at = next_attempt(schedule)
        while at < outage:
            attempts[int(at)] += 1
            clock.now = at
            at = next_attempt(schedule)
        arrivals.append((at, number, schedule))

    heapq.heapify(arrivals)
    server = Server(outage, capacity)
    back_at: list[float] = []
    while arrivals:
        clock.now, number, schedule = arrivals[0]
        attempts[int(clock.now)] += 1
        done = server.completes(clock.now)
        if done is None:
            heapq.heapreplace(arrivals, (next_attempt(schedule), number, schedule))
        else:
            heapq.heappop(arrivals)
            back_at.append(done - outage)
    return Storm(attempts, sorted(back_at), outage)


def churn(policy: Policy, held: float, chance: Callable[[], float]) -> float:
    """Attempts per second and client where every connection is dropped `held` seconds after it has opened."""
    clock = Clock()
    dropped = ConnectionResetError()
    attempts = 0
    for _ in range(CHURN_CLIENTS):
        clock.now = 0.0
        schedule = policy.begin(clock, chance)
        while True:
            delay = schedule.next_delay(dropped)
            assert delay is not None, "a policy of this table never gives up"
            clock.now += delay
            if clock.now > CHURN:
                break
            attempts += 1
            schedule.opened()
            clock.now += held
    return attempts / CHURN_CLIENTS / CHURN


# ---- the table ----

COLUMNS = (
    ("peak", "attempts/s"),
    ("while down", "attempts/s"),
    ("peak once up", "attempts/s"),
    ("attempts", "in all"),
    ("half back", "s after up"),
    ("99 % back", "s after up"),
    ("all back", "s after up"),
    ("alone, blip", "50 % / 99 % s"),
    ("dropped after " + "/".join(f"{held:g}" for held in HELD) + " s", "attempts/s"),
)


def row(policy: Policy, run: Storm, alone: Storm, dropped: list[float]) -> list[str]:
    return [
        f"{run.peak():,}",
        f"{run.per_second_while_down():,.0f}",
        f"{run.peak(since=run.outage):,}",
        f"{run.attempts.total():,}",
        f"{run.back(0.5):.1f}",
        f"{run.back(0.99):.1f}",
        f"{run.back(1):.1f}",
        f"{alone.back(0.5):.1f} / {alone.back(0.99):.1f}",
        " / ".join(f"{rate:,.0f}" for rate in dropped),
    ]


def table(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def backoff(**settings: Any) -> tuple[str, Backoff]:
    """A Backoff, under the name by which a program would write it."""
    return f"Backoff({', '.join(f'{name}={value:g}' for name, value in settings.items())})", Backoff(**settings)


# The first five make the chart.
USUAL: dict[str, Policy] = {
    "reconnect=1": FixedDelay(1),
    "reconnect=5": FixedDelay(5),
    **dict(
        [
            backoff(jitter=0),
            backoff(first=1),
            backoff(),
            backoff(jitter=0.5),
            backoff(first=2),
            backoff(factor=1.5),
            backoff(limit=30),
            backoff(limit=120),
            backoff(reset_after=0),
            backoff(reset_after=10),
        ]
    ),
}
CHARTED = 5

GRID: dict[str, Policy] = dict(
    backoff(first=first, factor=factor, limit=limit, jitter=jitter)
    for first, factor, limit, jitter in product((1, 2, 5), (1.5, 2, 3), (15, 30, 60, 120), (0.5, 1))
)


# ---- the chart ----

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 92, 60
COLOURS = ("#d55e00", "#e69f00", "#7a7a7a", "#0072b2", "#009e73")  # told apart by the colour-blind as well


def svg(runs: dict[str, Storm], clients: int, capacity: int) -> str:
    outage = next(iter(runs.values())).outage
    # To the time at which the slowest but one is back, in whole 20 s; one that takes for ever leaves room for the rest.
    last = sorted(run.back(1) for run in runs.values())[-2]
    end = math.ceil((outage + last) / 20) * 20
    decades = math.log10(max(run.peak() for run in runs.values()) * 2)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log10(max(rate, 1)) / decades

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#222">',
        f"<title>Attempts per second of {clients:,} clients whose server is down for {outage} s</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 26, f"{clients:,} clients lose a server for {outage} s", "start", ' font-size="17"'),
        text(LEFT, 46, f"connection attempts per second; once up, it takes {capacity:,} a second", "start"),
        f'<rect x="{x(0):.1f}" y="{TOP}" width="{x(outage) - x(0):.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        ' fill="#f3f3f3"/>',
        text(x(outage / 2), TOP + 16, "server down", more=' fill="#777"'),
    ]
    for decade in range(int(decades) + 1):
        at = y(10**decade)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        # A logarithm has no place for the seconds without an attempt: they are drawn on the lowest line.
        parts.append(text(LEFT - 8, at + 4, f"{10**decade:,}" if decade else "0 or 1", "end"))
    step = next(step for step in (10, 20, 30, 60, 120, 300, 600, 3600, end) if end / step <= 12)
    for seconds in range(0, end + 1, step):
        parts.append(f'<path d="M{x(seconds):.1f} {HEIGHT - BOTTOM}v5" stroke="#777"/>')
        parts.append(text(x(seconds), HEIGHT - BOTTOM + 21, f"{seconds}"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "seconds since the server went down"))
    parts.append(f'<path d="M{LEFT} {y(capacity):.1f}H{WIDTH - RIGHT}" stroke="#222" stroke-dasharray="6 4"/>')
    legend_x = float(LEFT)
    for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
        points = " ".join(f"{x(s + 0.5):.1f},{y(run.attempts[s]):.1f}" for s in range(min(end, max(run.attempts) + 2)))
        plain = name == "Backoff()"
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-linejoin="round"'
            f' stroke-width="{2.6 if plain else 1.4}"/>'
        )
        parts.append(f'<path d="M{legend_x:.0f} 70h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(legend_x + 28, 74, name, "start", ' font-weight="bold"' if plain else ""))
        legend_x += 28 + 8 * len(name) + 26
    halo = ' stroke="#fff" stroke-width="4" paint-order="stroke"'
    parts.append(text(WIDTH - RIGHT - 4, y(capacity) - 6, "capacity", "end", halo))
    return "\n".join([*parts, "</svg>", ""])


# ---- the program ----


def count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {word}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=count, default=100_000)
    parser.add_argument("--outage", type=count, default=60, metavar="SECONDS")
    parser.add_argument("--capacity", type=count, default=5_000, help="handshakes per second once it is up")
    parser.add_argument("--seed", type=int, default=1)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--svg", metavar="FILE", help="write a chart of attempts per second over time")
    output.add_argument("--grid", action="store_true", help="compare many settings of Backoff; two minutes or so")
    arguments = parser.parse_args()
    clients, outage, capacity = arguments.clients, arguments.outage, arguments.capacity

    policies = GRID if arguments.grid else USUAL
    print(
        f"{clients:,} clients, a server down for {outage} s that then completes {capacity:,} handshakes/s with at"
        f" most {BACKLOG:,} waiting; seed {arguments.seed}\n"
    )
    lines = [["", *(name for name, _ in COLUMNS)], ["", *(unit for _, unit in COLUMNS)]]
    charted: dict[str, Storm] = {}
    for number, (name, policy) in enumerate(policies.items(), 1):
        print(f"{number}/{len(policies)} {name}", file=sys.stderr)
        chance = random.Random(arguments.seed).random  # the same luck for each
        run = storm(policy, clients, outage, capacity, chance)
        alone = storm(policy, ALONE, BLIP, math.inf, chance)
        dropped = [churn(policy, held, chance) * clients for held in HELD]
        lines.append([name, *row(policy, run, alone, dropped)])
        if number <= CHARTED:
            charted[name] = run
    print(table(lines))
    if arguments.svg:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(svg(charted, clients, capacity))


if __name__ == "__main__":
    main()
