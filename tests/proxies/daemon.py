"""Programs of Debian packages, in the foreground, each with a configuration of its own.

They listen at a loopback address that no other test process uses, at ports that are theirs while they exist. What
they say goes to a file, so that no descriptor but those that keep the ports is open in the tests' process.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, TypeVar

import pytest

from ..conftest import wait_until

# The whole of 127.0.0.0/8 is the loopback interface's, and it has an address for every process id.
ADDRESS: Final = f"127.{64 + (os.getpid() >> 16) % 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"

D = TypeVar("D", bound="Daemon")


def find(program: str, package: str) -> str:
    """The path of a program. Without it the test is skipped, or fails where REQUIRE_PROXIES=1 is set."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")
    if path is not None:
        return path
    reason = f"there is no {program}: install the Debian package {package}"
    if os.environ.get("REQUIRE_PROXIES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def own_name() -> str:
    """The user that the tests run as, for programs that would change to another one."""
    return pwd.getpwuid(os.geteuid()).pw_name


def reserve(address: str) -> socket.socket:
    """A socket that keeps a port: nobody gets it from the system unless it is asked for by number and with
    SO_REUSEADDR, as all these programs do."""
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((address, 0))
    return keeper


class Daemon(ABC):
    """A program that listens, with a folder of its own; as a context manager it runs inside.

    port: where it listens, reserved until close(), and the same after another start().
    """

    program: ClassVar[str]
    package: ClassVar[str]
    address = ADDRESS
    ports = 1

    def __init__(self, folder: Path) -> None:
        self.path = find(self.program, self.package)
        self._keepers = [reserve(self.address) for _ in range(self.ports)]
        self.port, *self.other_ports = [keeper.getsockname()[1] for keeper in self._keepers]
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.program}-", dir=folder))
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def configuration(self) -> str:
        """The text of the file `configuration` in its folder."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """The command line after the program's name; the folder is the working directory."""

    @property
    def said(self) -> str:
        """All that it has written to its output so far."""
        return (self.folder / "output").read_text(errors="replace")

    def configure(self) -> None:
        (self.folder / "configuration").write_text(self.configuration())

    def start(self) -> None:
        """Start, and return when it accepts connections."""
        self.configure()
        # The kernel ends it where the tests' process ends without doing so.
        command = ["setpriv", "--pdeathsig", "TERM", self.path, *self.arguments()]
        with open(self.folder / "output", "ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            wait_until(self._accepts_or_has_ended, f"{self.program} accepts connections")
            assert not self._has_ended(), f"{self.program} has ended"
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; its output:\n{self.said}") from None

    def _has_ended(self) -> bool:
        assert self._process is not None
        # WNOWAIT: its id, which is its group's too, goes to nobody else before kill() has used it.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _accepts_or_has_ended(self) -> bool:
        return self._has_ended() or all(self._accepts(port) for port in (self.port, *self.other_ports))

    def _accepts(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address, port)) == 0

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def terminate(self) -> None:
        """Ask it to end, and return when it and all its processes have."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            try:
                wait_until(self._has_ended, f"{self.program} ends on SIGTERM")
            finally:
                self.kill()

    def kill(self) -> None:
        """End it and all its processes at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and give the ports back."""
        try:
            self.terminate()
        finally:
            for keeper in self._keepers:
                keeper.close()

    def __enter__(self: D) -> D:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
