"""What the server's reports say of a run, and what of that is not as it should be."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case
from .client import Run

GOOD = ("OK", "INFORMATIONAL")
# In the order of the table; what else a report says comes after them.
OUTCOMES = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED")
WIDTH = 116
SHOWN_EVENTS = 6


@dataclass(frozen=True)
class Result:
    """What the report says of one case: how the client behaved, how in closing, and all else in the case's own file."""

    case: Case
    behaviour: str
    closing: str
    details: Mapping[str, Any] = field(repr=False)

    @property
    def wrong_code(self) -> bool:
        """Whether the client closed with a code that the case does not expect; without any is right always."""
        expected = self.details.get("expectedClose", {}).get("closeCode")
        code = self.details.get("remoteCloseCode")
        return self.closing != "INFORMATIONAL" and expected is not None and code is not None and code not in expected

    @property
    def accused(self) -> bool:
        """Whether the server has failed the connection for what the client sent: its own code says for what."""
        return self.closing != "INFORMATIONAL" and bool(self.details.get("failedByMe"))

    @property
    def deviates(self) -> bool:
        return self.behaviour not in GOOD or self.closing not in GOOD or self.wrong_code or self.accused


@dataclass(frozen=True)
class Verdict:
    """All results, and the deviations, each as text."""

    results: Sequence[Result]
    deviations: Sequence[str]

    @property
    def exit_status(self) -> int:
        return 1 if self.deviations else 0

    def table(self) -> str:
        """How many cases had which outcome."""
        behaviour = Counter(result.behaviour for result in self.results)
        closing = Counter(result.closing for result in self.results)
        others = sorted({*behaviour, *closing} - set(OUTCOMES))
        rows = [f"{'':16}{'behaviour':>10}{'closing':>10}"]
        rows += [f"{outcome:16}{behaviour[outcome]:10}{closing[outcome]:10}" for outcome in (*OUTCOMES, *others)]
        rows.append(f"{'all':16}{behaviour.total():10}{closing.total():10}")
        return "\n".join(rows)


def judge(runs: Mapping[Case, Run], folder: Path, agent: str) -> Verdict:
    """Read the reports in a folder, and compare them with what was run."""
    index_file = folder / "index.json"
    index = json.loads(index_file.read_text()).get(agent, {}) if index_file.exists() else {}
    results = []
    deviations = []
    for case, run in runs.items():
        entry = index.get(case.id)
        if entry is None:
            deviations.append(_text(f"{case.id}  {case.description}", ["missing in the report", _client(run)]))
            continue
        case_file = folder / entry["reportfile"]
        details = json.loads(case_file.read_text()) if case_file.exists() else None
        result = Result(case, entry["behavior"], entry["behaviorClose"], details or {})
        results.append(result)
        if result.deviates or run.failed or details is None:
            description = details["description"] if details else case.description
            deviations.append(_text(f"{case.id}  {_plain(description)}", _explanation(result, run)))
    return Verdict(results, deviations)


def _explanation(result: Result, run: Run) -> list[str]:
    details = result.details
    lines = [f"behaviour {result.behaviour}, closing {result.closing}"]
    if details:
        lines.append(f"case: {_plain(details['expectation'])}")
        lines += [
            f"expected for {outcome}: {_events(events)}" for outcome, events in sorted(details["expected"].items())
        ]
        lines.append(f"received: {_events(details['received'])}")
        lines.append(f"result: {details['result']}")
        expected = " or ".join(map(str, details["expectedClose"].get("closeCode", []))) or "any"
        codes = (
            f"expected of the client: {expected}, received: {_code(details, 'remote')}, sent: {_code(details, 'local')}"
        )
        lines.append(f"close codes: {codes}")
        lines.append(f"closing: {details['resultClose']}")
        if result.accused:
            lines.append("the server has failed the connection for what the client sent")
    else:
        lines.append("the report has no file of the case's own")
    lines.append(_client(run))
    return lines


def _client(run: Run) -> str:
    return f"client: {run.ended}"


def _plain(markup: str) -> str:
    """What the reports tell in HTML, as text."""
    return " ".join(re.sub(r"</?(?:b|br)\s*/?>", " ", markup).split())


def _code(details: Mapping[str, Any], side: str) -> str:
    code = details[f"{side}CloseCode"]
    if code is None:
        return "none"
    reason = details[f"{side}CloseReason"]
    return f"{code} {reason!r}" if reason else str(code)


def _events(events: Sequence[Sequence[Any]]) -> str:
    """Messages and control frames: ["message", payload, whether it is binary], or a kind and a payload."""
    shown = []
    for kind, payload, *binary in events[:SHOWN_EVENTS]:
        name = ("binary" if binary[0] else "text") if kind == "message" else kind
        shown.append(f"{name} {payload!r}")
    if len(events) > SHOWN_EVENTS:
        shown.append(f"and {len(events) - SHOWN_EVENTS} more")
    return ", ".join(shown) or "nothing"


def _text(title: str, lines: Sequence[str]) -> str:
    text = textwrap.fill(title, WIDTH, subsequent_indent="    ")
    for line in lines:
        text += "\n" + textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="        ")
    return text
