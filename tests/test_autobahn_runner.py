"""The runner of the Autobahn Testsuite, as far as it needs no Python 2.7."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import wstest_stand_in
from .autobahn import server as server_module
from .autobahn.__main__ import main
from .autobahn.cases import Case, UnknownCaseError, choose, quick
from .autobahn.client import AGENT, Run
from .autobahn.installation import InstallationError, NoPython27Error, find_python27, install
from .autobahn.report import judge
from .autobahn.server import Server, ServerError, reserved_port
from .conftest import PATIENCE, wait_until

CHECKOUT = Path(__file__).resolve().parents[1]
CASES = [
    Case(number, case_id, f"description of {case_id}")
    for number, case_id in enumerate(
        ["1.1.1", "1.1.2", "1.11.1", "3.2", "7.1", "9.1.1", "12.1.1", "12.2.1", "13.1.1"], 1
    )
]


def program(path: Path, script: str) -> Path:
    """A program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Python 2.7 and no testsuite; the folder returned is all of the PATH."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("PYTHON27", raising=False)
    monkeypatch.setenv("AUTOBAHN_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The testsuite seems to be installed, at the folder returned, and is the stand-in."""
    home = tmp_path / "home"
    command = shlex.join([sys.executable, wstest_stand_in.__file__])
    program(home / "bin" / "wstest", f'exec {command} "$@"')
    monkeypatch.setenv("AUTOBAHN_HOME", str(home))
    return home


# ---- which cases ----


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], [case.id for case in CASES]),
        (["3.2"], ["3.2"]),
        (["1.1"], ["1.1.1", "1.1.2"]),
        (["1"], ["1.1.1", "1.1.2", "1.11.1"]),
        (["12.*"], ["12.1.1", "12.2.1"]),
        (["1?.1.1"], ["12.1.1", "13.1.1"]),
        (["9", "1.1.1", "1.1"], ["1.1.1", "1.1.2", "9.1.1"]),
    ],
)
def test_cases_are_chosen_by_id_by_its_first_numbers_and_by_pattern(wanted: list[str], chosen: list[str]) -> None:
    assert [case.id for case in choose(CASES, wanted)] == chosen


@pytest.mark.parametrize("wanted", ["2", "3.", "1.1.1.1", "14.*", ""])
def test_an_argument_that_means_no_case_is_an_error(wanted: str) -> None:
    with pytest.raises(UnknownCaseError, match="no case is meant"):
        choose(CASES, ["3.2", wanted])


def test_quick_leaves_the_slow_sections_out() -> None:
    assert [case.id for case in quick(CASES)] == ["1.1.1", "1.1.2", "1.11.1", "3.2", "7.1"]


# ---- what a report says ----


def details(**changes: Any) -> dict[str, Any]:
    """What a case's own file says of one that is as it should be, and changes of that."""
    return {
        "description": "Send <b>a message</b>.",
        "expectation": "It comes<br/>back, 1 < 2.",
        "behavior": "OK",
        "behaviorClose": "OK",
        "expected": {"OK": [["message", "héllo", False], ["pong", ""]]},
        "received": [["message", "héllo", True]],
        "result": "Actual events differ from any expected.",
        "resultClose": "Connection was properly closed",
        "expectedClose": {"closeCode": [1000, 1001]},
        "failedByMe": False,
        "localCloseCode": 1000,
        "localCloseReason": None,
        "remoteCloseCode": 1000,
        "remoteCloseReason": "bye",
        **changes,
    }


def write_report(folder: Path, reported: dict[Case, dict[str, Any]]) -> None:
    index = {}
    for case, content in reported.items():
        name = f"case_{case.number}.json"
        (folder / name).write_text(json.dumps(content))
        index[case.id] = {
            "behavior": content["behavior"],
            "behaviorClose": content["behaviorClose"],
            "reportfile": name,
        }
    (folder / "index.json").write_text(json.dumps({AGENT: index, "another client": {}}))


def judge_one(folder: Path, run: Run | None = None, **changes: Any) -> list[str]:
    """The deviations of a report of one case."""
    write_report(folder, {CASES[0]: details(**changes)})
    verdict = judge({CASES[0]: run or Run("closed")}, folder, AGENT)
    assert verdict.exit_status == (1 if verdict.deviations else 0)
    return list(verdict.deviations)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"remoteCloseCode": None},
        {"remoteCloseCode": 1001},
        {"behavior": "INFORMATIONAL"},
        {"behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL", "remoteCloseCode": 1002, "failedByMe": True},
    ],
)
def test_ok_and_informational_are_no_deviations(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert judge_one(tmp_path, Run("WebSocketProtocolException: just what the case asks for"), **changes) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"behavior": "NON-STRICT"}, "behaviour NON-STRICT, closing OK"),
        ({"behavior": "UNIMPLEMENTED"}, "behaviour UNIMPLEMENTED"),
        ({"behaviorClose": "WRONG CODE"}, "closing WRONG CODE"),
        ({"behaviorClose": "FAILED BY CLIENT"}, "closing FAILED BY CLIENT"),
        ({"remoteCloseCode": 1002}, "expected of the client: 1000 or 1001, received: 1002 'bye', sent: 1000"),
        ({"failedByMe": True}, "failed the connection for what the client sent"),
    ],
)
def test_all_else_deviates(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (deviation,) = judge_one(tmp_path, **changes)
    assert said in deviation


def test_a_deviation_tells_what_was_expected_and_what_came(tmp_path: Path) -> None:
    (deviation,) = judge_one(tmp_path, Run("WebSocketException: oh"), behavior="FAILED")
    assert deviation.splitlines() == [
        "1.1.1  Send a message .",
        "    behaviour FAILED, closing OK",
        "    case: It comes back, 1 < 2.",
        "    expected for OK: text 'héllo', pong ''",
        "    received: binary 'héllo'",
        "    result: Actual events differ from any expected.",
        "    close codes: expected of the client: 1000 or 1001, received: 1000 'bye', sent: 1000",
        "    closing: Connection was properly closed",
        "    client: WebSocketException: oh",
    ]


def test_long_conversations_are_cut(tmp_path: Path) -> None:
    (deviation,) = judge_one(tmp_path, behavior="FAILED", received=[["ping", str(number)] for number in range(10)])
    assert "received: ping '0', ping '1', ping '2', ping '3', ping '4', ping '5', and 4 more\n" in deviation


def test_a_case_that_failed_for_the_client_deviates_whatever_the_report_says(tmp_path: Path) -> None:
    (deviation,) = judge_one(tmp_path, Run("did not end within 120 s", failed=True))
    assert "client: did not end within 120 s" in deviation


def test_a_case_without_a_file_of_its_own_deviates(tmp_path: Path) -> None:
    write_report(tmp_path, {CASES[0]: details()})
    (tmp_path / "case_1.json").unlink()
    (deviation,) = judge({CASES[0]: Run("closed")}, tmp_path, AGENT).deviations
    assert deviation.startswith("1.1.1  description of 1.1.1\n")
    assert "the report has no file of the case's own" in deviation


def test_cases_that_are_missing_in_the_report_deviate(tmp_path: Path) -> None:
    write_report(tmp_path, {CASES[0]: details()})
    verdict = judge({CASES[0]: Run("closed"), CASES[1]: Run("closed")}, tmp_path, AGENT)
    assert verdict.deviations == ["1.1.2  description of 1.1.2\n    missing in the report\n    client: closed"]
    assert verdict.exit_status == 1


def test_without_a_report_all_cases_are_missing(tmp_path: Path) -> None:
    verdict = judge(dict.fromkeys(CASES, Run("closed")), tmp_path, AGENT)
    assert len(verdict.deviations) == len(CASES)
    assert verdict.exit_status == 1


def test_the_table_counts_all_outcomes(tmp_path: Path) -> None:
    reported = {
        CASES[0]: details(),
        CASES[1]: details(behaviorClose="UNCLEAN"),
        CASES[2]: details(behavior="FAILED", behaviorClose="FAILED BY CLIENT"),
    }
    write_report(tmp_path, reported)
    table = judge(dict.fromkeys(reported, Run("closed")), tmp_path, AGENT).table()
    assert [line.rsplit(maxsplit=2) for line in table.splitlines()] == [
        ["behaviour", "closing"],
        ["OK", "2", "1"],
        ["INFORMATIONAL", "0", "0"],
        ["NON-STRICT", "0", "0"],
        ["UNIMPLEMENTED", "0", "0"],
        ["WRONG CODE", "0", "0"],
        ["UNCLEAN", "0", "1"],
        ["FAILED", "1", "0"],
        ["FAILED BY CLIENT", "0", "1"],
        ["all", "3", "3"],
    ]


# ---- Python 2.7, and the testsuite in it ----


def test_without_python_27_the_runner_says_so(bare_environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 2
    assert "needs Python 2.7, and there is none here: set PYTHON27" in capsys.readouterr().err


def test_a_python27_that_is_none_is_not_passed_over(bare_environment: Path) -> None:
    program(bare_environment / "python2.7", "echo 2.7")
    with pytest.raises(NoPython27Error, match="/nowhere/python"):
        find_python27({**os.environ, "PYTHON27": "/nowhere/python"})
    with pytest.raises(NoPython27Error, match=r"no Python 2\.7"):
        find_python27({**os.environ, "PYTHON27": sys.executable})


def test_python27_comes_before_pyenv_and_that_before_the_path(bare_environment: Path, tmp_path: Path) -> None:
    on_path = program(bare_environment / "python2.7", "echo 2.7")
    assert find_python27(os.environ) == str(on_path)
    root = tmp_path / "versions of pyenv"
    in_pyenv = program(root / "versions" / "2.7.18" / "bin" / "python2.7", "echo 2.7")
    answers = f'case $1 in versions) echo "3.12.1\n2.7.9\n2.7.18";; root) echo "{root}";; esac'
    program(bare_environment / "pyenv", answers)
    assert find_python27(os.environ) == str(in_pyenv)
    given = program(tmp_path / "given", "echo 2.7")
    assert find_python27({**os.environ, "PYTHON27": str(given)}) == str(given)


def test_a_python27_on_the_path_that_does_not_run_is_none(bare_environment: Path) -> None:
    program(bare_environment / "python2.7", "echo the version is not chosen >&2; exit 127")
    program(bare_environment / "pyenv", "exit 1")
    with pytest.raises(NoPython27Error):
        find_python27(os.environ)


def test_an_installation_that_fails_tells_what_was_said(tmp_path: Path) -> None:
    python = program(tmp_path / "python2.7", "echo no module named pip; exit 1")
    with pytest.raises(InstallationError, match=r"-m pip install .* ended with status 1:\nno module named pip"):
        install(str(python), tmp_path / "home")
    with pytest.raises(InstallationError, match="cannot be started"):
        install(str(tmp_path / "nothing"), tmp_path / "home")


# ---- the server's process ----

LISTEN = """
import signal, socket, sys
{before}
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


@contextmanager
def listening(folder: Path, before: str = "") -> Iterator[Server]:
    """A server that listens, after something else."""
    with reserved_port() as port:
        command = [sys.executable, "-c", LISTEN.format(before=before), str(port)]
        with Server(command, folder, port) as server:
            yield server


def has_ended(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_server_listens_inside_and_has_ended_after(tmp_path: Path) -> None:
    with listening(tmp_path) as server:
        socket.create_connection(("127.0.0.1", server.port), PATIENCE).close()
        server.check()
        assert not has_ended(server.process_id)
    assert has_ended(server.process_id)


def test_a_server_that_ignores_the_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "END_SECONDS", 0.1)
    with (
        pytest.raises(ZeroDivisionError),
        listening(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)") as server,
    ):
        raise ZeroDivisionError
    assert has_ended(server.process_id)


def test_a_server_that_dies_before_it_listens_is_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"(?s)ended with status 3.*nothing to serve"),
        listening(tmp_path, "print('nothing to serve'); sys.exit(3)"),
    ):
        pytest.fail("it did not listen")


def test_a_server_that_dies_later_is_noticed(tmp_path: Path) -> None:
    with listening(tmp_path) as server:
        os.kill(server.process_id, signal.SIGKILL)
        with pytest.raises(ServerError, match=f"ended with status -{signal.SIGKILL.value}"):
            wait_until(lambda: server.check(), "the end of the server")


def test_a_server_that_never_listens_is_ended(tmp_path: Path) -> None:
    with reserved_port() as port:
        server = Server([sys.executable, "-c", "import signal; signal.pause()"], tmp_path, port, seconds=0.1)
        with pytest.raises(ServerError, match=r"does not listen after 0\.1 s"), server:
            pytest.fail("it did not listen")
    assert has_ended(server.process_id)


def test_a_port_that_is_taken_is_told(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert f"no server can listen at port {port}" in capsys.readouterr().err


# ---- runs, against the stand-in ----


def test_a_run_without_deviations(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["1", "9.1", "--report", str(tmp_path / "kept" / "here")]) == 0
    output = capsys.readouterr().out
    assert "no deviations" in output
    assert ["OK", "2", "2"] in [line.split() for line in output.splitlines()]
    index = json.loads((tmp_path / "kept" / "here" / "index.json").read_text())
    assert sorted(index[AGENT]) == ["1.1", "9.1"]


def test_a_run_of_the_quick_cases_with_deviations(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 1
    output = capsys.readouterr().out
    assert "3.1  is not reported\n    missing in the report\n    client: closed\n" in output
    assert "4.1  is never strict\n    behaviour NON-STRICT, closing OK\n" in output
    assert "2 deviations" in output


def test_a_case_that_hangs_is_cut_short_and_deviates(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["9.2", "--timeout", "0.5"]) == 1
    output = capsys.readouterr().out
    assert "9.2  silence: nothing comes" in output
    assert "client: did not end within 0.5 s" in output
    assert "1 deviation," in output


def test_an_unknown_case_is_told(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["77"]) == 2
    assert "no case is meant by '77'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--quick", "1"], ["--port", "65536"], ["--port", "-1"], ["--timeout", "0"], ["--slow"]]
)
def test_a_command_line_that_makes_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m tests.autobahn" in capsys.readouterr().err


@pytest.mark.usefixtures("ctrl_c_is_not_ignored")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_its_server(
    stand_in: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.autobahn", "9.2"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: [file for file in temporary.glob("*/silent") if file.read_text()], "the case runs")
        (file,) = temporary.glob("*/silent")
        server_id = int(file.read_text())
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
    finally:
        process.kill()
        process.wait()
    assert has_ended(server_id)
    assert list(temporary.iterdir()) == []
