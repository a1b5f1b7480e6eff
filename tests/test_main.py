"""python -m websocket, and the package on a Python that was built without OpenSSL."""

from __future__ import annotations

import sys
from collections.abc import Callable
from subprocess import CompletedProcess, run

from websocket.testing import Server

from .patience import PATIENCE


def python(*arguments: str) -> CompletedProcess[str]:
    return run([sys.executable, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_demo_checks_what_it_shows() -> None:
    shown = python("-m", "websocket", "--demo")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.endswith("every check held\n")


def test_the_demo_without_its_certificates_says_what_to_install() -> None:
    told = python("-c", "import sys; sys.modules['trustme'] = None; sys.argv[1:] = ['--demo']\n" + AS_MODULE)
    assert told.returncode == 2
    assert "the demo needs trustme for its certificate: pip install" in told.stderr


AS_MODULE = "import websocket.__main__ as command; sys.exit(command.main())"

WITHOUT_SSL = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
import websocket
with websocket.create_connection(sys.argv[1], timeout=20) as connection:
    connection.send("plain")
    print(connection.recv())
try:
    websocket.create_connection(sys.argv[1].replace("ws:", "wss:"), timeout=20)
except websocket.WebSocketException as error:
    print(type(error).__name__, error)
"""


def test_a_python_without_openssl_speaks_ws_and_says_why_it_does_not_speak_wss(serve: Callable[..., Server]) -> None:
    shown = python("-c", WITHOUT_SSL, serve().url)
    assert shown.returncode == 0, shown.stderr
    first, second = shown.stdout.splitlines()
    assert first == "plain"
    assert second.startswith("WebSocketException ")
    assert second.endswith("use ws://")
