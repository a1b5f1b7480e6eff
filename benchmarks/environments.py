"""What a run needs, made under .benchmarks/ and kept: an environment for each library, the compiled server, and
certificates. Each is made anew when what it was made from has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .rows import OURS, PICOWS, SOCKET, WEBSOCKETS, WSC

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".benchmarks"
CLIENTS = ROOT / "benchmarks" / "clients"
SERVER_SOURCE = ROOT / "benchmarks" / "server.c"
REQUIREMENTS = {WSC: "websocket-client==1.8.0", WEBSOCKETS: "websockets==17.4", PICOWS: "picows==2.3.*"}
TOOLS = ("tools", "trustme>=1.1")
NOT_INSTALLED = {"benchmarks", "build", "dist", "fuzzing", "tests"}  # directories that make no difference to ours
CERTIFICATES = """
import pathlib, sys, trustme
folder = pathlib.Path(sys.argv[1])
authority = trustme.CA()
authority.cert_pem.write_to_path(str(folder / "authority.pem"))
issued = authority.issue_cert("localhost", "127.0.0.1")
issued.private_key_pem.write_to_path(str(folder / "server.key"))
for certificate in issued.cert_chain_pems:
    certificate.write_to_path(str(folder / "server.pem"), append=True)
"""
DISTRIBUTIONS = """
import importlib.metadata, importlib.util, json
found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
if "websocket-threads" in found:
    found["C part"] = "built" if importlib.util.find_spec("websocket._speedups") else "not built"
print(json.dumps(found))
"""
Tell = Callable[[str], None]


class SetupError(Exception):
    """Something that a run needs could not be made; the message says what, and what the command printed."""


class Needs:
    """Makes what a run needs, or finds it made. `fresh` makes everything anew."""

    def __init__(self, tell: Tell, fresh: bool = False) -> None:
        self._tell = tell
        if fresh:
            shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir(exist_ok=True)

    def python(self, library: str) -> Path:
        """The interpreter that has the library."""
        if library == OURS:
            return self._environment(OURS, fingerprint(installed_files()), lambda python: install_tree(python))
        if library == SOCKET:
            return Path(sys.executable)
        return self._environment_of(library, REQUIREMENTS[library])

    def server(self) -> list[str]:
        """The server's command."""
        program, certificates = KEPT / "server", self.certificates()
        command = ["cc", "-O2", "-o", str(program), str(SERVER_SOURCE), "-lssl", "-lcrypto", "-lpthread"]
        self._make(program, fingerprint([SERVER_SOURCE]), lambda: run(command))
        return [str(program), str(certificates / "server.pem"), str(certificates / "server.key")]

    def certificates(self) -> Path:
        """The folder that has the server's certificate, and authority.pem, which it is verified by."""
        python, folder = self._environment_of(*TOOLS), KEPT / "certificates"

        def make() -> None:
            folder.mkdir()
            run([str(python), "-c", CERTIFICATES, str(folder)])

        self._make(folder, CERTIFICATES, make)
        return folder

    def _environment_of(self, name: str, requirement: str) -> Path:
        return self._environment(name, requirement, lambda python: pip_install(python, requirement))

    def _environment(self, name: str, made_from: str, install: Callable[[Path], None]) -> Path:
        folder = KEPT / "environments" / name
        python = folder / "bin" / "python"

        def make() -> None:
            run([sys.executable, "-m", "venv", str(folder)])
            install(python)

        self._make(folder, f"{sys.version}\n{made_from}", make)
        return python

    def _make(self, what: Path, made_from: str, make: Callable[[], object]) -> None:
        """Makes a file or folder, unless it is there and was made from the same."""
        stamp = what.with_name(f"{what.name}.made-from")
        if what.exists() and stamp.exists() and stamp.read_text() == made_from:
            return
        self._tell(f"making {what.relative_to(ROOT)}")
        stamp.unlink(missing_ok=True)
        if what.is_dir():
            shutil.rmtree(what)
        make()
        stamp.write_text(made_from)


def run(command: list[str]) -> str:
    """A command's output. Raises SetupError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise SetupError(f"{' '.join(command)} has failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def pip_install(python: Path, *what: str) -> None:
    run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what])


def install_tree(python: Path) -> None:
    """Ours, from a copy of the working tree: a build leaves its files beside the sources, and would find old ones."""
    copy = KEPT / "source"
    shutil.rmtree(copy, ignore_errors=True)
    for file in installed_files():
        to = copy / file.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to)
    pip_install(python, str(copy))


def installed_files() -> Iterator[Path]:
    """The files of the working tree that may make a difference to what is installed."""
    for top in sorted(ROOT.iterdir()):
        if top.is_file() and not top.name.startswith("."):
            yield top
        elif top.is_dir() and not top.name.startswith(".") and top.name not in NOT_INSTALLED:
            yield from sorted(
                file
                for file in top.rglob("*")
                if file.is_file()
                and file.suffix not in {".pyc", ".so"}
                and not any(part.endswith((".egg-info", "__pycache__")) for part in file.parts)
            )


def fingerprint(files: Iterator[Path] | list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def distributions(python: Path) -> dict[str, str]:
    """What is installed beside an interpreter, and which version."""
    found: dict[str, str] = json.loads(run([str(python), "-I", "-c", DISTRIBUTIONS]))
    return {name: version for name, version in sorted(found.items()) if name not in {"pip", "setuptools"}}
