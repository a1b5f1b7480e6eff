"""What is measured: the rows of the table, the goals, and the groups that rows are chosen by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

OURS, WSC, WEBSOCKETS, PICOWS, SOCKET = LIBRARIES = ("ours", "websocket-client", "websockets", "picows", "socket")
PEERS = (WSC, WEBSOCKETS, PICOWS)  # a plain socket is a limit and no peer
THREADED = (WSC, WEBSOCKETS)
SCHEMES = ("ws", "wss")


@dataclass(frozen=True)
class Goal:
    """How ours is to stand to the best of some libraries, in the unit of the measure; against none: to the number."""

    factor: float
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """One number of a round, and what it is wanted to be."""

    name: str  # see results.value()
    unit: str
    lower_is_better: bool
    goals: dict[str, tuple[Goal, ...]] = field(default_factory=dict)  # by scheme

    @property
    def name_with_unit(self) -> str:
        """The unit, and which of the numbers where the unit does not tell."""
        return f"{self.unit}, {self.name}" if self.unit == "us" and self.name != "p50" else self.unit


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    task: str  # of the libraries' programs
    libraries: tuple[str, ...]
    measures: tuple[Measure, ...]
    count: int  # messages of a round, which then takes about 0.4 s
    slow: dict[str, int] = field(default_factory=dict)  # fewer, for libraries that are far slower
    setting: dict[str, Any] = field(default_factory=dict)
    schemes: tuple[str, ...] = SCHEMES  # unless others are asked for
    rounds: int | None = None  # at most
    uses_network: bool = True


class UnknownRowError(ValueError):
    """A name that is no row and no group; the message lists those that are."""


def latency(ws: tuple[Goal, ...] = (), wss: tuple[Goal, ...] = (), name: str = "p50") -> Measure:
    return Measure(name, "us", True, {"ws": ws, "wss": wss})


def rate(ws: tuple[Goal, ...] = (), wss: tuple[Goal, ...] = (), unit: str = "messages/s") -> Measure:
    return Measure("rate", unit, False, {"ws": ws, "wss": wss})


def throughput(ws: tuple[Goal, ...] = (), wss: tuple[Goal, ...] = ()) -> Measure:
    return Measure("throughput", "MB/s", False, {"ws": ws, "wss": wss})


def at_least_the_best(*libraries: str) -> tuple[Goal, ...]:
    """1.0 times the best of the libraries, whichever way is better."""
    return (Goal(1.0, libraries or PEERS),)


def text(size: int) -> dict[str, Any]:
    return {"size": size, "opcode": "text"}


def binary(size: int) -> dict[str, Any]:
    return {"size": size, "opcode": "binary"}


RECEIVERS = (OURS, WSC, WEBSOCKETS, SOCKET)

ROUND_TRIP = (
    Row(
        "round-trip-64B",
        "64 bytes of text there and back, the median",
        "round_trip",
        LIBRARIES,
        (latency((Goal(1.0, (PICOWS,)), Goal(0.85, (WSC,)), Goal(1.05, (SOCKET,))), at_least_the_best()),),
        20_000,
        setting=text(64),
    ),
    Row(
        "round-trip-64KB",
        "65,536 bytes of text there and back, the median",
        "round_trip",
        LIBRARIES,
        (latency((Goal(1.2, (PICOWS,)),), at_least_the_best()),),
        4_000,
        slow={WSC: 40},
        setting=text(65536),
    ),
)
IN = (
    Row(
        "in-100B",
        "text of 100 bytes in, by recv()",
        "receive",
        RECEIVERS,
        (rate((Goal(10, (WEBSOCKETS,)),), (Goal(10, (WEBSOCKETS,)),)),),
        2_000_000,
        slow={WSC: 20_000, WEBSOCKETS: 100_000},
        setting=text(100),
    ),
    Row(
        "in-1KB",
        "text of 1,000 bytes in, by recv()",
        "receive",
        RECEIVERS,
        (rate((Goal(6, (WEBSOCKETS,)),), at_least_the_best()),),
        500_000,
        slow={WSC: 3_500, WEBSOCKETS: 80_000},
        setting=text(1000),
    ),
    Row(
        "in-64KiB",
        "binary messages of 64 KiB in, by recv()",
        "receive",
        LIBRARIES,
        (throughput((Goal(1.3, THREADED), Goal(0.75, (SOCKET,))), at_least_the_best()),),
        6_000,
        setting=binary(64 << 10),
    ),
    Row(
        "in-1MiB",
        "binary messages of 1 MiB in, by recv()",
        "receive",
        LIBRARIES,
        (throughput((Goal(1.0, THREADED), Goal(0.85, (SOCKET,))), at_least_the_best()),),
        400,
        setting=binary(1 << 20),
    ),
    Row(
        "in-1MiB-text",
        "text of 1 MiB in, by recv()",
        "receive",
        LIBRARIES,
        (throughput((Goal(1.3, (WEBSOCKETS,)),), at_least_the_best()),),
        400,
        slow={WSC: 3},
        setting=text(1 << 20),
    ),
)
OUT = (
    Row(
        "out-100B",
        "text of 100 bytes out, by one thread",
        "send",
        RECEIVERS,
        (rate((Goal(2.5, THREADED),), (Goal(2.5, THREADED),)),),
        200_000,
        slow={WSC: 60_000, WEBSOCKETS: 60_000},
        setting=text(100),
    ),
    Row(
        "out-100B-8",
        "text of 100 bytes out, by eight threads on one connection",
        "send",
        (OURS, WSC, WEBSOCKETS),
        (rate((Goal(6, THREADED),), (Goal(6, THREADED),)),),
        200_000,
        slow={WSC: 16_000, WEBSOCKETS: 16_000},
        setting={**text(100), "threads": 8},
    ),
    Row(
        "out-64KiB",
        "binary messages of 64 KiB out",
        "send",
        RECEIVERS,
        (throughput((Goal(1.0, (WEBSOCKETS,)), Goal(0.8, (SOCKET,))), at_least_the_best(*THREADED)),),
        8_000,
        slow={WSC: 2_000},
        setting=binary(64 << 10),
    ),
    Row(
        "out-1MiB",
        "binary messages of 1 MiB out",
        "send",
        RECEIVERS,
        (throughput((Goal(1.0, (WEBSOCKETS,)), Goal(0.8, (SOCKET,))), at_least_the_best(*THREADED)),),
        800,
        slow={WSC: 80},
        setting=binary(1 << 20),
    ),
)
CONNECT = Row(
    "connect",
    "connecting and closing, both handshakes in full, the median",
    "connect",
    LIBRARIES,
    (latency((Goal(1.0, (WSC,)),), at_least_the_best(*THREADED)),),
    200,
)
APP = Row(
    "app-100B",
    "text of 100 bytes in, by on_message of WebSocketApp or on_ws_frame of a listener",
    "callbacks",
    (OURS, WSC, PICOWS),
    (rate((Goal(0.7, (PICOWS,)),), (Goal(0.7, (PICOWS,)),)),),
    2_000_000,
    slow={WSC: 20_000},
    setting=text(100),
)
IDLE = Row(
    "idle-1000",
    "a thousand connections at rest",
    "idle",
    (OURS, WSC, WEBSOCKETS, PICOWS),
    (
        Measure("memory", "KiB each", True, {scheme: (Goal(60),) for scheme in SCHEMES}),
        Measure("rest", "CPU ms/s", True, {scheme: (Goal(1),) for scheme in SCHEMES}),
    ),
    1,
    setting={"connections": 1000, "seconds": 2.0},
    schemes=("ws",),
    rounds=3,
)
REQUEST_REPLY = tuple(
    Row(
        f"request-reply-{name}",
        f"binary requests and replies of {size:,} bytes, one after the other",
        "round_trip",
        LIBRARIES,
        (rate(unit="replies/s"),),
        count,
        setting=binary(size),
    )
    for name, size, count in (("256B", 256, 20_000), ("8KB", 8_192, 15_000), ("100KB", 102_400, 3_000))
)
LATENCY = Row(
    "latency",
    "64 bytes of text there and back",
    "round_trip",
    LIBRARIES,
    tuple(latency(name=name) for name in ("p50", "p90", "p99", "p99.9", "max")),
    40_000,
    setting=text(64),
)
GROWTH_CONNECTIONS = tuple(
    Row(
        f"connections-{connections}",
        f"64 bytes of text there and back, on {connections} connections in turn",
        "round_trip",
        LIBRARIES,
        (latency(), rate(unit="replies/s")),
        20_000,
        setting={**text(64), "connections": connections},
        schemes=("ws",),
    )
    for connections in (1, 10, 100, 1000)
)
GROWTH_THREADS = tuple(
    Row(
        f"threads-{threads}",
        f"text of 100 bytes out, by {threads} threads on one connection",
        "send",
        (OURS, WSC, WEBSOCKETS),
        (rate(),),
        192_000,
        slow={WSC: 16_000, WEBSOCKETS: 16_000},
        setting={**text(100), "threads": threads},
        schemes=("ws",),
    )
    for threads in (1, 2, 4, 8, 16, 32, 64)
)
# Messages of a round: in, out, and of those that are slower with small ones, or with large ones.
SIZES = (
    ("16B", 16, 1_000_000, 200_000, 60_000),
    ("256B", 256, 800_000, 200_000, 60_000),
    ("4KiB", 4 << 10, 100_000, 60_000, 20_000),
    ("64KiB", 64 << 10, 6_000, 6_000, 2_000),
    ("1MiB", 1 << 20, 400, 400, 100),
    ("16MiB", 16 << 20, 20, 20, 8),
    ("64MiB", 64 << 20, 5, 5, 2),
)
GROWTH_SIZE = tuple(
    Row(
        f"size-{way}-{name}",
        f"binary messages of {name} {way}",
        task,
        libraries,
        (throughput(),),
        count,
        slow={WSC: fewer, WEBSOCKETS: fewer},
        setting=binary(size),
        schemes=("ws",),
    )
    for way, task, libraries in (("in", "receive", LIBRARIES), ("out", "send", RECEIVERS))
    for name, size, count_in, count_out, fewer in SIZES
    for count in ((count_in if way == "in" else count_out),)
)
IMPORT = Row(
    "import",
    "importing the library in a fresh process, less the start of a bare one",
    "import",
    (OURS, WSC, WEBSOCKETS, PICOWS),
    (Measure("import", "ms", True), Measure("modules", "modules", True)),
    10,
    schemes=("ws",),
    uses_network=False,
)

GOALS = (*ROUND_TRIP, *IN, *OUT, CONNECT, APP, IDLE)
GROUPS: dict[str, tuple[Row, ...]] = {
    "goals": GOALS,
    "round-trip": ROUND_TRIP,
    "in": IN,
    "out": OUT,
    "request-reply": REQUEST_REPLY,
    "growth-connections": GROWTH_CONNECTIONS,
    "growth-threads": GROWTH_THREADS,
    "growth-size": GROWTH_SIZE,
    "growth": (*GROWTH_CONNECTIONS, *GROWTH_THREADS, *GROWTH_SIZE),
}
ROWS = {row.name: row for row in (*GOALS, *REQUEST_REPLY, LATENCY, *GROUPS["growth"], IMPORT)}
GROUPS["all"] = tuple(ROWS.values())


def choose(names: Iterable[str]) -> list[Row]:
    """The rows of these names and groups, each once, in the order of the table. Raises UnknownRowError."""
    chosen: set[str] = set()
    for name in names:
        if name in ROWS:
            chosen.add(name)
        elif name in GROUPS:
            chosen.update(row.name for row in GROUPS[name])
        else:
            raise UnknownRowError(f"no row or group {name!r}; rows: {', '.join(ROWS)}; groups: {', '.join(GROUPS)}")
    return [row for name, row in ROWS.items() if name in chosen]


def listing() -> Iterator[str]:
    """The lines of --list."""
    for name, row in ROWS.items():
        yield f"{name:20} {row.what}"
    for name, rows in GROUPS.items():
        yield f"{name:20} a group: {', '.join(row.name for row in rows)}"
