"""The program of the two libraries with websocket-client's API, this one and websocket-client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

import blocking
from worker import TRIGGER, Round, Setting, check, main

import websocket


def options(setting: Setting) -> dict[str, Any]:
    return {"sslopt": {"context": setting.context()}} if setting.is_secure else {}


def connect(setting: Setting) -> blocking.Connect:
    return partial(websocket.create_connection, **options(setting))


@contextmanager
def callbacks(setting: Setting) -> Iterator[Round]:
    """A flood by on_message of a WebSocketApp."""
    expected, count = setting.message, setting.count
    opened, done = Event(), Event()
    received = 0

    def on_message_checked(_: Any, message: str | bytes) -> None:
        check(message, expected)
        on_message(app, message)

    def on_message(_: Any, message: str | bytes) -> None:
        nonlocal received
        received += 1
        if received == count:
            done.set()

    def on_error(_: Any, error: BaseException) -> None:
        raise SystemExit(repr(error))

    def work() -> dict[str, Any]:
        nonlocal received
        received = 0
        done.clear()
        app.send(TRIGGER)
        done.wait()
        return {}

    app = websocket.WebSocketApp(
        setting.flood, on_open=lambda _: opened.set(), on_message=on_message_checked, on_error=on_error
    )
    thread = Thread(target=app.run_forever, kwargs=options(setting))
    thread.start()
    opened.wait()
    work()
    app.on_message = on_message
    yield work
    app.close()
    thread.join()


if __name__ == "__main__":
    main({**blocking.tasks(blocking.Library(connect, send_binary="send_binary")), "callbacks": callbacks})
