"""Where the testsuite is installed: a virtual environment of Python 2.7, the last that it runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

INSTALL_SECONDS = 600.0
ANSWER_SECONDS = 30.0


class NoPython27Error(Exception):
    """This machine has no Python 2.7."""


class InstallationError(Exception):
    """The testsuite cannot be installed."""


def home(environment: Mapping[str, str]) -> Path:
    """The folder of the virtual environment: AUTOBAHN_HOME, or one in the system's temporary directory."""
    return Path(environment.get("AUTOBAHN_HOME") or Path(tempfile.gettempdir(), "autobahn-testsuite")).absolute()


def wstest(folder: Path) -> Path:
    """The testsuite's program in that environment; there, where it is installed."""
    return folder / "bin" / "wstest"


def find_python27(environment: Mapping[str, str]) -> str:
    """The path of a Python 2.7: what PYTHON27 says, else pyenv's, else that on the PATH.

    Raises NoPython27Error where none of these is one.
    """
    given = environment.get("PYTHON27")
    if given:
        if _is_python27(given):
            return given
        raise NoPython27Error(f"PYTHON27 is {given!r}, which is no Python 2.7")
    for candidate in _candidates(environment):
        if _is_python27(candidate):
            return candidate
    raise NoPython27Error("the Autobahn Testsuite needs Python 2.7, and there is none here: set PYTHON27 to its path")


def _candidates(environment: Mapping[str, str]) -> Iterator[str]:
    path = environment.get("PATH", os.defpath)
    pyenv = shutil.which("pyenv", path=path)
    if pyenv:
        versions = _answer([pyenv, "versions", "--bare"], environment)
        root = _answer([pyenv, "root"], environment)
        for version in versions.split():
            if root and version.startswith("2.7"):
                yield str(Path(root, "versions", version, "bin", "python2.7"))
    on_path = shutil.which("python2.7", path=path)
    if on_path:
        yield on_path


def _is_python27(python: str) -> bool:
    """A file of that name need not be one: pyenv puts scripts on the PATH for versions that are not chosen."""
    return _answer([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], os.environ) == "2.7"


def _answer(command: list[str], environment: Mapping[str, str]) -> str:
    """What a command prints; nothing where it fails."""
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def install(python: str, folder: Path) -> None:
    """Make the virtual environment, and install the testsuite into it.

    Raises InstallationError, with what the failing command has said.
    """
    with tempfile.TemporaryDirectory(prefix="virtualenv-") as tools:
        # virtualenv itself goes nowhere that stays: the Python 2.7 is the user's.
        _run([python, "-m", "pip", "install", "--target", tools, "virtualenv<20.22"])
        _run([python, "-m", "virtualenv", str(folder)], PYTHONPATH=tools)
    _run([str(folder / "bin" / "pip"), "install", "autobahntestsuite"])


def _run(command: list[str], **environment: str) -> None:
    shown = " ".join(command)
    try:
        result = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InstallationError(f"{shown} has not ended within {INSTALL_SECONDS:g} s") from None
    except OSError as error:
        raise InstallationError(f"{shown} cannot be started: {error}") from error
    if result.returncode != 0:
        raise InstallationError(f"{shown} ended with status {result.returncode}:\n{result.stdout}")
