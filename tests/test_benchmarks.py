"""The benchmark's rows, verdicts, tables and chart, from results that are made up. No test measures anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import chart, tables
from benchmarks.__main__ import main
from benchmarks.results import ResultsError, all_met, lines
from benchmarks.rows import GROUPS, LIBRARIES, ROWS, SCHEMES, UnknownRowError, choose

SVG = "{http://www.w3.org/2000/svg}"


def one_round(**numbers: Any) -> dict[str, Any]:
    return {"seconds": 0.5, "cpu": 0.4, "voluntary": 3, "involuntary": 1, "messages": 4, "bytes": 400, **numbers}


def result(
    row: str, library: str, *rounds: dict[str, Any], scheme: str = "ws", error: str | None = None
) -> dict[str, Any]:
    return {"row": row, "scheme": scheme, "library": library, "rounds": list(rounds), "error": error}


def trips(library: str, *microseconds: float, scheme: str = "ws") -> dict[str, Any]:
    rounds = [one_round(latency={"p50": each / 1e6}) for each in microseconds]
    return result("round-trip-64B", library, *rounds, scheme=scheme)


def flood(library: str, messages: int) -> dict[str, Any]:
    return result("in-100B", library, one_round(messages=messages))


def report(*results: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {
            "cpu": "Some <CPU> & more",
            "cores": 2,
            "kernel": "Linux 6.1",
            "python": "CPython 3.12.1",
            "openssl": "OpenSSL 3.0",
            "commit": "0123456789ab",
        },
        "versions": {"ours": {"websocket-threads": "1.0"}},
        "load": {"start": [0.1, 0.2, 0.3], "end": [0.4, 0.5, 0.6]},
        "rounds": 3,
        "quick": False,
        "results": list(results),
    }


ROUND_TRIPS = report(
    trips("ours", 12.0, 90.0, 10.0), trips("websocket-client", 20.0), trips("picows", 10.0), trips("socket", 5.0)
)


def verdicts(of: dict[str, Any]) -> list[tuple[str, float | None, str]]:
    return [
        (verdict.goal, verdict.reached and round(verdict.reached, 3), verdict.word)
        for line in lines(of)
        for verdict in line.verdicts
    ]


def test_a_row_counts_as_the_median_of_its_rounds() -> None:
    (line,) = lines(ROUND_TRIPS)
    assert line.medians == pytest.approx({"ours": 12.0, "websocket-client": 20.0, "picows": 10.0, "socket": 5.0})


def test_where_lower_is_better_ours_must_be_at_most_the_factor() -> None:
    assert verdicts(ROUND_TRIPS) == [
        ("<= 1 x picows", 1.2, "NOT met"),
        ("<= 0.85 x websocket-client", 0.6, "met"),
        ("<= 1.05 x socket", 2.4, "NOT met"),
    ]


@pytest.mark.parametrize(("messages", "word"), [(99, "NOT met"), (100, "met"), (101, "met")])
def test_where_higher_is_better_ours_must_be_at_least_the_factor(messages: int, word: str) -> None:
    measured = report(flood("ours", messages), flood("websockets", 10))
    assert verdicts(measured) == [(">= 10 x websockets", messages / 10, word)]
    assert all_met(measured) == (word == "met")


def test_the_best_peer_is_the_fastest_of_those_that_were_measured() -> None:
    measured = report(
        *(trips(name, each, scheme="wss") for name, each in (("ours", 9), ("websockets", 10), ("picows", 6)))
    )
    ((verdict,),) = (line.verdicts for line in lines(measured))
    assert verdict.peer == "picows"
    assert verdict.reached == pytest.approx(1.5)
    assert not verdict.met
    assert "1.50 x picows" in tables.text(measured)


def test_a_goal_without_a_peer_is_a_number() -> None:
    rest = one_round(memory=61 * 1024, cpu=0.0001, messages=1)
    assert verdicts(report(result("idle-1000", "ours", rest))) == [("<= 60", 61.0, "NOT met"), ("<= 1", 0.2, "met")]


def test_a_goal_whose_peer_failed_is_not_measured_and_not_met() -> None:
    failed = result("in-100B", "websockets", error="no answer in 60 s")
    measured = report(flood("ours", 1000), failed)
    assert verdicts(measured) == [(">= 10 x websockets", None, "not measured")]
    assert not all_met(measured)
    said = tables.text(measured)
    assert "failed" in said
    assert "in-100B ws, websockets: no answer in 60 s" in said
    ElementTree.fromstring(chart.svg(measured))


def test_the_table_has_values_goals_and_costs() -> None:
    said = tables.text(ROUND_TRIPS).splitlines()
    assert said[0].split() == ["row", "unit", "ours", "websocket-client", "picows", "socket", "goal", "reached"]
    assert " ".join(said[1].split()) == "round-trip-64B ws us 12.0 20.0 10.0 5.00 <= 1 x picows 1.20 NOT met"
    assert any("100,000 / 1.00" in line for line in said)  # 0.4 s of CPU time and 4 switches for 4 messages
    assert "load average before [0.1, 0.2, 0.3], after [0.4, 0.5, 0.6]" in said


def test_rounds_that_differ_a_lot_are_pointed_out() -> None:
    assert "more than 2 times the smallest: round-trip-64B ws ours 9.0\n" in tables.text(ROUND_TRIPS)
    assert "more than 2 times" not in tables.text(report(trips("ours", 10.0, 19.0)))


def test_the_markdown_has_tables_of_one_width() -> None:
    said = tables.markdown(ROUND_TRIPS)
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert "**NOT met**" in rows[2]
    assert {row.count("|") for row in rows[:5]} == {10}
    assert {row.count("|") for row in rows[5:]} == {6}


def test_the_chart_is_xml_with_a_bar_for_each_library() -> None:
    root = ElementTree.fromstring(chart.svg(ROUND_TRIPS))
    said = [text.text for text in root.iter(f"{SVG}text")]
    assert {"12.0 µs", "20.0 µs", "1 of 3 goals met", "ours", "ws://"} <= set(said)
    assert "» 5.00 µs, x 2.40" in said  # longer than there is room for
    assert "wss://, TLS" not in said
    assert any("Some <CPU> & more" in str(text) for text in said)


def test_a_bar_of_the_chart_is_as_long_as_its_library_is_fast() -> None:
    (line,) = lines(ROUND_TRIPS)
    assert chart.relative(line, "ours") == 1
    assert chart.relative(line, "websocket-client") == pytest.approx(0.6)
    (line,) = lines(report(flood("ours", 100), flood("socket", 300)))
    assert chart.relative(line, "socket") == pytest.approx(3)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_goals_are_against_libraries_that_the_row_measures(row: Any) -> None:
    for measure in row.measures:
        for scheme, goals in measure.goals.items():
            assert scheme in SCHEMES
            assert all(not goal.against or set(goal.against) & set(row.libraries) for goal in goals)
    assert set(row.slow) <= set(row.libraries) <= set(LIBRARIES)


def test_rows_are_chosen_by_name_and_by_group_each_once() -> None:
    assert [row.name for row in choose(["in-100B", "round-trip", "in-100B"])] == [
        "round-trip-64B",
        "round-trip-64KB",
        "in-100B",
    ]
    assert choose(["all"]) == list(ROWS.values())
    assert set(GROUPS).isdisjoint(ROWS)


def test_an_unknown_row_is_named_beside_those_that_there_are() -> None:
    with pytest.raises(UnknownRowError, match=r"no row or group 'in-100b'; rows: round-trip-64B,.* groups: goals,"):
        choose(["in-100b"])


def test_results_of_an_unknown_row_are_refused() -> None:
    with pytest.raises(ResultsError, match="'in-7B'"):
        list(lines(report(result("in-7B", "ours", one_round()))))


def test_results_in_a_file_are_shown_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, picture, table = tmp_path / "results.json", tmp_path / "chart.svg", tmp_path / "table.md"
    source.write_text(json.dumps(ROUND_TRIPS))
    given = ["--from", str(source), "--svg", str(picture), "--markdown", str(table)]
    assert main(given) == 0
    assert capsys.readouterr().out == tables.text(ROUND_TRIPS)
    assert picture.read_text() == chart.svg(ROUND_TRIPS)
    assert table.read_text() == tables.markdown(ROUND_TRIPS)
    assert main([*given, "--check"]) == 1


def test_the_list_has_every_row_and_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {*ROWS, *GROUPS}


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--rounds", "0"], "at least 1"), (["--libraries", "ours,none"], "no library 'none'; there are")],
)
def test_options_that_make_no_sense_are_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(given)
    assert said in capsys.readouterr().err
