"""What wsdump is to send, in order, over as many connections as it takes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ._abnf import ABNF, STATUS_NORMAL
from ._core import WebSocket
from ._exceptions import WebSocketConnectionClosedException

# Bytes that wait before no more is read from standard input.
_ENOUGH: Final = 1024 * 1024


class Message(NamedTuple):
    payload: str | bytes
    opcode: int

    @property
    def is_data(self) -> bool:
        return self.opcode < ABNF.OPCODE_CLOSE


class Outgoing:
    """A queue with a thread of its own that sends, because a send may have to wait for the server.

    Any thread may call any method. on_progress: called, on the thread, whenever something was sent.
    """

    def __init__(self, on_progress: Callable[[], None]) -> None:
        self._on_progress = on_progress
        self._changed = threading.Condition()
        # All that follows is guarded by self._changed; only the thread takes from `_waiting` and puts back at its left.
        self._waiting: deque[Message] = deque()
        self._size = 0  # of these, in bytes or characters
        self._returned: list[Message] = []  # what a lost connection gave back: older than all that waits
        self._sending = False  # the thread has taken one
        self._connection: WebSocket | None = None
        self._ending: tuple[int, str] | None = None  # code and reason to close with when all is sent
        self._close_sent = False  # on this connection
        self._stopped = False
        self._sent = 0
        self._thread = threading.Thread(target=self._run, name="wsdump-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def put(self, payload: str | bytes, opcode: int) -> None:
        """Send this after all that was put before."""
        with self._changed:
            self._waiting.append(Message(payload, opcode))
            self._size += len(payload)
            self._changed.notify_all()

    def close(self, code: int = STATUS_NORMAL, reason: str = "") -> None:
        """Begin to close once all is sent."""
        with self._changed:
            self._ending = (code, reason)
            self._changed.notify_all()

    def opened(self, connection: WebSocket) -> None:
        """Send on this connection from now on."""
        with self._changed:
            self._connection = connection
            self._close_sent = False
            self._changed.notify_all()

    def lost(self, unsent: Iterable[str | bytes]) -> None:
        """The connection is no more, and this was accepted by it and not written."""
        with self._changed:
            self._connection = None
            for payload in unsent:
                opcode = ABNF.OPCODE_TEXT if isinstance(payload, str) else ABNF.OPCODE_BINARY
                self._returned.append(Message(payload, opcode))

    # ---- asking ----

    @property
    def has_room(self) -> bool:
        """Whether more should be put. on_progress is called when that changes."""
        return self._size < _ENOUGH

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def is_idle(self) -> bool:
        """Whether all is sent."""
        with self._changed:
            return not (self._waiting or self._returned or self._sending)

    @property
    def close_sent(self) -> bool:
        """Whether the close has begun on the current or latest connection."""
        return self._close_sent

    @property
    def sent(self) -> int:
        """How many messages were sent and not given back."""
        return self._sent - len(self._returned)

    @property
    def left(self) -> int:
        """How many messages nobody has sent."""
        with self._changed:
            return sum(message.is_data for message in (*self._returned, *self._waiting))

    # ---- the thread ----

    def _run(self) -> None:
        while (task := self._next()) is not None:
            connection, message = task
            try:
                if message is None:
                    assert self._ending is not None
                    connection.send_close(*self._ending)
                else:
                    connection.send(*message)
            except WebSocketConnectionClosedException:
                self._done(message, connection, sent=False)
            else:
                self._done(message, connection, sent=True)
            self._on_progress()

    def _next(self) -> tuple[WebSocket, Message | None] | None:
        """Wait for something to send, None being the close; None instead at the end."""
        with self._changed:
            while not self._stopped:
                if self._connection is not None:
                    if self._returned:
                        self._waiting.extendleft(reversed(self._returned))
                        self._size += sum(len(message.payload) for message in self._returned)
                        self._sent -= len(self._returned)
                        self._returned = []
                    if self._waiting:
                        message = self._waiting.popleft()
                        self._size -= len(message.payload)
                        self._sending = True
                        return self._connection, message
                    if self._ending is not None and not self._close_sent:
                        self._close_sent = True
                        return self._connection, None
                self._changed.wait()
            return None

    def _done(self, message: Message | None, connection: WebSocket, sent: bool) -> None:
        with self._changed:
            self._sending = False
            if not sent and self._connection is connection:
                self._connection = None  # until the next one
            if message is None:
                return
            if sent:
                self._sent += message.is_data
            else:
                self._waiting.appendleft(message)
                self._size += len(message.payload)
