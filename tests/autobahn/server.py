"""The testsuite's fuzzing server, as a process of this one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from . import installation

ADDRESS = "127.0.0.1"
START_SECONDS = 60.0
CONNECT_SECONDS = 10.0
END_SECONDS = 10.0

# A script that installs and starts the server, where there is one beside the checkout.
SCRIPT = Path(__file__).resolve().parents[3] / "shared" / "autobahn" / "serve"


class ServerError(Exception):
    """The server does not run."""


@contextmanager
def reserved_port(wanted: int = 0) -> Iterator[int]:
    """A port where a server can listen, for as long as this lasts: the wanted one, or any.

    Raises ServerError where the wanted one is taken.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            keeper.bind((ADDRESS, wanted))
        except OSError as error:
            raise ServerError(f"no server can listen at port {wanted}: {error.strerror}") from error
        port: int = keeper.getsockname()[1]
        if sys.platform != "linux":
            keeper.close()  # it would keep the server off as well
        # Linux gives it now to nobody who does not ask for it by number and with SO_REUSEADDR, as the server does.
        yield port


class Server:
    """A program that listens at a port of this machine; as a context manager it runs inside.

    command: the program. It runs in `folder`, and what it says goes to the file `server.log` there.
    environment: what differs from this process's.  seconds: how long it may take until it listens.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        port: int,
        *,
        environment: Mapping[str, str] | None = None,
        seconds: float = START_SECONDS,
    ) -> None:
        self.port = port
        self.url = f"ws://{ADDRESS}:{port}"
        self.log = folder / "server.log"
        self._command = list(command)
        self._folder = folder
        self._seconds = seconds
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C is for this process, which ends the server when it needs it no more, and
            # with it what a script may have started.
            self._process = subprocess.Popen(
                [*_ended_with_this_process(), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Raises ServerError, with what the server has said, where it has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            said = self.log.read_text(errors="replace").strip()
            raise ServerError(f"the fuzzing server has ended with status {status}; it said:\n{said}")

    def close(self) -> None:
        """End the process that was started, and return when it has ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Nobody has waited for it yet, so its id, which is its group's too, is still its own.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it gets the other signal
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        pause = 0.05
        for _ in range(max(1, round(self._seconds / pause))):
            self.check()
            try:
                with socket.create_connection((ADDRESS, self.port), CONNECT_SECONDS) as probe:
                    # Where nobody listens, the system may choose that very port to connect from, and to itself.
                    if probe.getsockname() != probe.getpeername():
                        return
            except ConnectionRefusedError:
                pass  # not yet
            try:
                self._process.wait(pause)
            except subprocess.TimeoutExpired:
                pass  # good: it is still there
        said = self.log.read_text(errors="replace").strip()
        raise ServerError(f"the fuzzing server does not listen after {self._seconds:g} s; it said:\n{said}")


def _ended_with_this_process() -> list[str]:
    """What to put before a command, so that the kernel ends it where this process is killed; Linux has that."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def reports(folder: Path) -> Path:
    """Where the server that runs in a folder writes its reports."""
    return folder / "reports" / "clients"


def fuzzing_server(folder: Path, port: int) -> Server:
    """The testsuite's server, to be run in a folder. Installs the testsuite first where it is missing.

    Raises NoPython27Error or InstallationError where it is missing and cannot be installed.
    """
    home = installation.home(os.environ)
    program = installation.wstest(home)
    if program.exists():
        python = None
    else:
        python = installation.find_python27(os.environ)
        print(f"Installing the Autobahn Testsuite into {home}", file=sys.stderr, flush=True)
    if os.access(SCRIPT, os.X_OK):
        environment = {"AUTOBAHN_HOME": str(home), "AUTOBAHN_PORT": str(port)}
        seconds = START_SECONDS
        if python is not None:
            environment["PYTHON27"] = python
            seconds = installation.INSTALL_SECONDS
        return Server([str(SCRIPT)], folder, port, environment=environment, seconds=seconds)
    if python is not None:
        installation.install(python, home)
    specification = folder / "fuzzingserver.json"
    specification.write_text(
        json.dumps(
            {
                "url": f"ws://{ADDRESS}:{port}",
                "options": {"failByDrop": False},
                "outdir": str(reports(folder)),
                "cases": ["*"],
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    return Server([str(program), "-m", "fuzzingserver", "--webport=0", "-s", str(specification)], folder, port)
