"""The testsuite's cases, and which of them a command line means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Sections of many and of large messages: limits and performance, and compression.
SLOW_SECTIONS = ("9", "12", "13")
COMPRESSION_SECTIONS = ("12", "13")


@dataclass(frozen=True)
class Case:
    """number: by which the server runs it.  id: such as 12.1.3, by which all else goes."""

    number: int
    id: str
    description: str

    @property
    def section(self) -> str:
        return self.id.partition(".")[0]


class UnknownCaseError(ValueError):
    """There is no case of that name."""


def matches(case_id: str, wanted: str) -> bool:
    """Whether an id is meant by an id, by the first numbers of some ids (7, 7.1), or by a pattern (12.*.1)."""
    return case_id == wanted or case_id.startswith(f"{wanted}.") or fnmatchcase(case_id, wanted)


def choose(cases: Sequence[Case], wanted: Iterable[str]) -> list[Case]:
    """The cases that are meant by any of the arguments, all where there are none, in the server's order.

    Raises UnknownCaseError where an argument means no case.
    """
    wanted = list(wanted)
    for each in wanted:
        if not any(matches(case.id, each) for case in cases):
            raise UnknownCaseError(f"no case is meant by {each!r}: give an id, its first numbers, or a pattern")
    return [case for case in cases if not wanted or any(matches(case.id, each) for each in wanted)]


def quick(cases: Iterable[Case]) -> list[Case]:
    """The cases that take no time."""
    return [case for case in cases if case.section not in SLOW_SECTIONS]
