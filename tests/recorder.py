"""An app whose callbacks are kept, for the tests of WebSocketApp."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from websocket import ABNF, WebSocketApp
from websocket._abnf import encode_frame
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .patience import PATIENCE

Record = Callable[..., "Recorder"]


@dataclass(frozen=True)
class Call:
    """One call of a callback, and what the app was like in it."""

    name: str
    arguments: tuple[Any, ...]
    thread: str
    ready: bool
    has_errored: bool


class Recorder(WebSocketApp):
    """An app that keeps the calls of its callbacks, and then does what `then` says for them.

    server, ca_file: as maker() sets them.  names: the callbacks that are set.  then: functions of the callback's
    arguments, by its name.  overlaps: calls that began before another one had ended.
    """

    def __init__(
        self,
        url: str,
        names: tuple[str, ...] = ("open", "message", "ping", "pong", "error", "close"),
        then: dict[str, Callable[..., Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, **options)
        self.server: Server | None = None
        self.ca_file = ""
        self.calls: list[Call] = []
        self.then = {} if then is None else then
        self.overlaps: list[str] = []
        self._inside = threading.Lock()
        self._came = threading.Condition()
        for name in names:
            setattr(self, f"on_{name}", self._recorded(name))

    def run(self, **options: Any) -> Any:
        """run_forever(); trusts the authority of the tests, unless told otherwise."""
        return self.run_forever(**self.trusting(options))

    def trusting(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options, with the authority of the tests among them where there is need of it."""
        return {"sslopt": {"ca_certs": self.ca_file}, **options} if self.ca_file else options

    def _recorded(self, name: str) -> Callable[..., Any]:
        def callback(app: Any, *arguments: Any) -> None:
            assert app is self
            free = self._inside.acquire(blocking=False)
            if not free:
                self.overlaps.append(name)
            try:
                thread = threading.current_thread().name
                with self._came:
                    self.calls.append(Call(name, arguments, thread, self.ready(), self.has_errored))
                    self._came.notify_all()
                if name in self.then:
                    self.then[name](*arguments)
            finally:
                if free:
                    self._inside.release()

        return callback

    @property
    def told(self) -> list[Any]:
        """The calls as ("message", "hi"); without the exception of on_error."""
        return [(call.name, *(() if call.name == "error" else call.arguments)) for call in list(self.calls)]

    @property
    def errors(self) -> list[Any]:
        """What on_error was given."""
        return [call.arguments[0] for call in list(self.calls) if call.name == "error"]

    def wait_for(self, name: str, *arguments: Any, times: int = 1) -> None:
        """Wait until a callback was called so often, with these as its first arguments."""

        def has_come() -> bool:
            matching = [c for c in self.calls if c.name == name and c.arguments[: len(arguments)] == arguments]
            return len(matching) >= times

        with self._came:
            assert self._came.wait_for(has_come, PATIENCE), f"waited in vain for on_{name}, got {self.told}"


class Blocked:
    """A callback that takes as long as the test says: call it in one; `begun` tells that it is in there."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self, *_: Any) -> None:
        self.begun.set()
        assert self.release.wait(PATIENCE)


def maker(serve: Callable[..., Server], authority: Authority) -> Record:
    """record(handler, "wss", raw=True, names=..., then=...): makes a server with a handler, and an app for it."""

    def record(
        handler: Callable[[Peer], None] = echo, scheme: str = "ws", raw: bool = False, **options: Any
    ) -> Recorder:
        secure = scheme == "wss"
        server = serve(handler, raw=raw, ssl_context=authority.server_context() if secure else None)
        app = Recorder(server.url, **options)
        app.server = server
        app.ca_file = authority.ca_file if secure else ""
        return app

    return record


def at_once(peer: Peer, *frames: tuple[int, bytes] | bytes) -> None:
    """Send frames, each (opcode, payload) or bytes as they are, in one write."""
    peer.send_raw(b"".join(f if isinstance(f, bytes) else encode_frame(0x80 | f[0], f[1], None) for f in frames))


@contextmanager
def one_write(peer: Peer) -> Iterator[None]:
    """What the peer sends inside goes out in one write at the end."""
    parts: list[bytes] = []
    peer.send_raw = parts.append  # type: ignore[assignment, method-assign]
    yield
    del peer.send_raw
    peer.send_raw(b"".join(parts))


@contextmanager
def nobody_listens() -> Iterator[int]:
    """A port at which nobody listens, and that nobody else gets."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def once(error: BaseException) -> Callable[..., None]:
    """Raises the error when it is called for the first time."""
    left = [error]

    def act(*_: Any) -> None:
        if left:
            raise left.pop()

    return act


class Oops(Exception):
    """What a callback raises."""


class Leave(BaseException):
    """What is no Exception and none that Python knows."""


def resting(app: WebSocketApp) -> bool:
    """Whether on_open has returned, and the thread of run_forever() rests, because nothing goes on."""
    run: Any = app._run
    connection = None if run is None else run.connection
    if connection is None:
        return False
    reader = connection._callback_reader
    return bool(reader._unattended and reader._batches and not reader._calling)


def everything(then: Callable[[Peer], Any]) -> Callable[[Peer], None]:
    """A handler that has something for every callback, in one write, and then does what is given."""

    def handler(peer: Peer) -> None:
        at_once(
            peer,
            (ABNF.OPCODE_TEXT, b"one"),
            (ABNF.OPCODE_PING, b""),
            (ABNF.OPCODE_PONG, b""),
            b"\x02\x01x",
            (ABNF.OPCODE_CONT, b"y"),
            (ABNF.OPCODE_TEXT, b"two"),
        )
        then(peer)

    return handler


CALLBACKS = ("open", "data", "message", "cont_message", "ping", "pong", "error", "close")
