"""The accounts of soak.py: what became of every message, and what must not have happened.

A Record is what the client saw of one connection. The Judge gets the records, the proxy's word of what it did to each
connection and the server's of what it has received, and puts every message that send() accepted into one class:

    intact      echoed and received as it was sent
    corrupted   received otherwise, or swallowed while later ones came; on a connection that was corrupted only
    unsent      in ws.unsent, and so in the exception's; the server does not have it
    unawaited   not received, because the program has called close() with echoes outstanding; the server has it
    lost        written, and not echoed before the end of a connection that the proxy has damaged

All else is an error.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from soak_message import STREAMS, read
from soak_proxy import HARMLESS

SHOWN = 40  # errors that are kept in words
CLASSES = ("intact", "corrupted", "unsent", "unawaited", "lost")
AT_ONCE = "close() with echoes outstanding"


class Record:
    """One connection, as the client saw it. Each list is appended to by one thread, and read when all is over.

    errors: what told of an end that was not asked for, oldest first.  unsent: ws.unsent after the end.  told_unsent:
    `unsent` of the exception that told of the end, None where it need not be complete.  asked: how the program has
    asked for the end; "" while it has not.  end: how it ended.
    """

    def __init__(self, slot: int, serial: int, is_secure: bool) -> None:
        self.slot = slot
        self.serial = serial
        self.is_secure = is_secure
        self.accepted: tuple[list[int], list[int]] = ([], [])
        self.received: tuple[list[int], list[int]] = ([], [])
        self.mangled = 0
        self.errors: list[BaseException] = []
        self.unsent: list[Any] = []
        self.told_unsent: list[Any] | None = None
        self.asked = ""
        self.end = "closed by the program"
        self.ended = threading.Event()

    def take(self, message: str | bytes) -> None:
        """An echo has come."""
        known = read(message, self.serial)
        if known is None:
            self.mangled += 1
        else:
            self.received[known[0]].append(known[1])

    @property
    def outstanding(self) -> int:
        return sum(map(len, self.accepted)) - sum(map(len, self.received)) - self.mangled


@dataclass
class Split:
    """How the messages of a connection were classed."""

    intact: int = 0
    gaps: int = 0
    tail: int = 0
    seen: int = 0  # of the tail, by the server
    unsent: int = 0


@dataclass
class Report:
    """What is known of a connection, in the order in which it comes."""

    record: Record | None = None
    did: str = ""
    slot: int = -1
    seen: list[list[int]] = field(default_factory=list)  # for each stream

    @property
    def is_whole(self) -> bool:
        return bool(self.record is not None and self.did and self.seen)


class Judge:
    """See the module. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.errors: Counter[str] = Counter()  # by kind
        self.details: list[str] = []
        self.accepted = 0
        self.classes: Counter[str] = Counter()
        self.opened = 0
        self.judged = 0
        self.ends: defaultdict[str, Counter[str]] = defaultdict(Counter)  # what the proxy did: how it ended
        self.failed: Counter[str] = Counter()  # attempts, by exception
        self.send_timeouts = 0
        self._failed_in: Counter[int] = Counter()  # attempts, by slot
        self._given_up_in: Counter[int] = Counter()  # calls that may have ended an attempt, by slot
        self._reports: defaultdict[int, Report] = defaultdict(Report)  # those that are not whole

    # ---- what happens ----

    def error(self, kind: str, detail: str = "") -> None:
        with self._lock:
            self._error(kind, detail)

    def _error(self, kind: str, detail: str) -> None:
        self.errors[kind] += 1
        if len(self.details) < SHOWN:
            self.details.append(f"{kind}: {detail}")

    def begun(self) -> None:
        with self._lock:
            self.opened += 1

    def attempt_failed(self, slot: int, error: BaseException) -> None:
        with self._lock:
            self.failed[type(error).__name__] += 1
            self._failed_in[slot] += 1

    def gave_up(self, slot: int) -> None:
        with self._lock:
            self._given_up_in[slot] += 1

    def timed_out(self) -> None:
        with self._lock:
            self.send_timeouts += 1

    def ended(self, record: Record) -> None:
        with self._lock:
            self._reports[record.serial].record = record
            self._look(record.serial)

    def proxy_says(self, serial: int, slot: int, did: str) -> None:
        with self._lock:
            self._reports[serial].slot, self._reports[serial].did = slot, did
            self._look(serial)

    def server_says(self, serial: int, seen: list[list[int]]) -> None:
        with self._lock:
            self._reports[serial].seen = seen
            self._look(serial)

    def _look(self, serial: int) -> None:
        report = self._reports[serial]
        if report.is_whole:
            del self._reports[serial]
            assert report.record is not None
            self._judge(report.record, report.did, report.seen)

    @property
    def is_waiting(self) -> bool:
        """Whether the far side has not said all of the connections that have ended."""
        with self._lock:
            return any(report.record is not None for report in self._reports.values())

    # ---- the verdict ----

    def _judge(self, record: Record, did: str, seen: list[list[int]]) -> None:
        where = f"connection {record.serial} of slot {record.slot} ({'wss' if record.is_secure else 'ws'}, {did})"
        is_corrupted = did == "corrupt" and not record.is_secure
        ends = f"asked {record.asked!r}, end {record.end}, errors {record.errors!r}"
        splits = [self._split(record, stream, seen[stream], where, is_corrupted) for stream in STREAMS]
        whole = Split(*(sum(values) for values in zip(*(vars(split).values() for split in splits), strict=True)))
        if record.mangled and not is_corrupted:
            self._error("mangled without corruption", f"{where}: {record.mangled} messages")
        if record.told_unsent is not None and record.told_unsent != record.unsent:
            self._error(
                "the exception's unsent is not ws.unsent",
                f"{where}: {len(record.told_unsent)} and {len(record.unsent)}; {ends}",
            )
        # What cannot be recognised stands for as many as are missing.
        beyond = min(whole.tail, max(0, record.mangled - whole.gaps))
        unawaited = min(whole.seen, whole.tail - beyond) if record.asked == AT_ONCE else 0
        lost = whole.tail - beyond - unawaited
        if did in HARMLESS:
            if lost or whole.unsent:
                self._error("lost without damage", f"{where}: {lost} lost, {whole.unsent} unsent; {ends}")
            if record.errors or not record.asked:
                self._error("ended without damage", f"{where}: {ends}")
        counts = dict(zip(CLASSES, (whole.intact, whole.gaps + beyond, whole.unsent, unawaited, lost), strict=True))
        accepted = sum(map(len, record.accepted))
        if sum(counts.values()) != accepted:
            self._error("the sum is wrong", f"{where}: {accepted} accepted, {counts}")
        self.accepted += accepted
        self.classes.update(counts)
        self.ends[did][record.end] += 1
        self.judged += 1

    def _split(self, record: Record, stream: int, seen: list[int], where: str, is_corrupted: bool) -> Split:
        accepted, received = record.accepted[stream], record.received[stream]
        where += f" stream {stream}"
        known = [read(message, record.serial) for message in record.unsent]
        if None in known:
            self._error("unsent is not what was sent", where)
        unsent = [number for of, number in filter(None, known) if of == stream]
        for who, numbers in (("the server", seen), ("the client", received)):
            if wrong := [pair for pair in pairwise(numbers) if pair[0] >= pair[1]]:
                self._error(f"twice or out of order at {who}", f"{where}: {wrong[:5]}")
            if unknown := set(numbers) - set(accepted):
                self._error(f"not accepted, and at {who}", f"{where}: {sorted(unknown)}, accepted {accepted[-5:]}")
            if both := set(unsent) & set(numbers):
                self._error(f"unsent and at {who}", f"{where}: {sorted(both)}")
            before = numbers[-1] if numbers else -1
            if not is_corrupted and (
                gap := [number for number in accepted if number < before and number not in numbers]
            ):
                self._error(f"a gap at {who}", f"{where}: {gap[:20]} missing before {before}")
        if unknown := set(received) - set(seen):
            self._error("echoed, and not at the server", f"{where}: {sorted(unknown)}")
        if unsent and unsent != accepted[-len(unsent) :]:
            self._error("unsent is not the end of what was accepted", f"{where}: {unsent}, accepted {accepted[-20:]}")
        missing = set(accepted) - set(received) - set(unsent)
        last = received[-1] if received else -1
        tail = {number for number in missing if number > last}
        return Split(
            len(set(received) & set(accepted)), len(missing) - len(tail), len(tail), len(tail & set(seen)), len(unsent)
        )

    def close(self) -> None:
        """All is over, and all reports are in."""
        with self._lock:
            for report in self._reports.values():
                if report.record is not None:
                    self._error("no word of the far side", f"connection {report.record.serial}: {report.did}")
            if self.judged != self.opened:
                self._error("connections without an end", f"{self.opened} opened, {self.judged} judged")
            # What is left belongs to attempts that came to nothing.
            harmed = Counter(report.slot for report in self._reports.values() if report.did not in HARMLESS)
            harmless = Counter(report.slot for report in self._reports.values() if report.did in HARMLESS)
            for slot, count in self._failed_in.items():
                if count > harmed[slot]:
                    self._error("attempts failed without damage", f"slot {slot}: {count} of {harmed[slot]} damaged")
            for slot, count in harmless.items():
                if count > self._given_up_in[slot]:
                    self._error("attempts came to nothing", f"slot {slot}: {count}, given up {self._given_up_in[slot]}")
