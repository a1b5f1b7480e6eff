"""The client's side of the tests through proxies and reverse proxies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from websocket import WebSocket, create_connection

from ..certs import Authority
from ..conftest import background
from ..recorder import Recorder


class Client:
    """Connects, trusting the authority of the tests; what it has connected is cut after the test."""

    def __init__(self, authority: Authority) -> None:
        self.sslopt = {"ca_certs": authority.ca_file}
        self.cleanup = ExitStack()

    def connect(self, url: str, **options: Any) -> WebSocket:
        connection = create_connection(url, sslopt=self.sslopt, **options)
        self.cleanup.callback(connection.shutdown)
        return connection

    def run(self, url: str, **options: Any) -> tuple[Recorder, Callable[[], Any]]:
        """An app that is connected, and a function that waits for the end of its run."""
        app = Recorder(url)
        result = background(lambda: app.run_forever(sslopt=self.sslopt, **options))
        self.cleanup.callback(result)
        self.cleanup.callback(app.close)
        app.wait_for("open")
        return app, result

    def close(self) -> None:
        self.cleanup.close()
