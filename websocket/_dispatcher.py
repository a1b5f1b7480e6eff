"""A run in a foreign event loop: run_forever(dispatcher=rel), and any loop with read(), timeout(), signal(), abort().

All callbacks and all calls of the loop's own methods happen on the thread that runs the loop, but for run_forever()
itself, which makes the first attempt and returns. Further attempts are made on a thread of their own, so that they do
not hold up the loop. The loop polls two kinds of descriptors: a connection's, readable while something has arrived,
and the run's own, by which other threads hand it work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from . import _logging
from ._abnf import ABNF
from ._core import Feeding, WebSocket
from ._exceptions import WebSocketException
from ._pollable import PollableEvent
from ._run import Run, RunOptions
from .threads.connection import Connection

# Messages for each turn of the loop, so that it gets to its other work too.
_BATCH: Final = 256

_SIGINT: Final = 2


class ForeignLoop:
    """What is asked of a dispatcher. Raises WebSocketException for an object that is none.

    buffwrite(), where a dispatcher has it, is not needed: sends do not wait, the connection's writer thread does.
    """

    def __init__(self, dispatcher: Any) -> None:
        for name in ("read", "timeout", "signal", "abort"):
            if not callable(getattr(dispatcher, name, None)):
                raise WebSocketException(
                    f"dispatcher {dispatcher!r} has no {name}(); it must have read(), timeout(), signal() and abort()"
                    " as rel has"
                )
        self._dispatcher = dispatcher

    def read(self, source: Any, callback: Callable[[], bool]) -> None:
        """Call back whenever the source's fileno() is readable, until the callback returns False."""
        self._dispatcher.read(source, callback)

    def timeout(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once, after so many seconds."""
        self._dispatcher.timeout(seconds, callback)

    def abort_on_interrupt(self) -> None:
        """Let Ctrl-C end the loop, where signals can be had: in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._dispatcher.signal(_SIGINT, self._dispatcher.abort)


class _Polled:
    """What a loop is given to poll: an object with a fileno() that stays the same."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


class LoopRun(Run):
    """See the module. Its methods run on the loop's thread; run() before there is one, _connect() of further attempts
    on a thread of its own, and close(), look_again() and call_soon() on any."""

    def __init__(self, app: Any, options: RunOptions, loop: ForeignLoop) -> None:
        super().__init__(app, options)
        self._loop = loop
        self._wake = PollableEvent()
        self._work: deque[Callable[[], None]] = deque()  # appended to by any thread
        self._is_receiving = False  # a connection's descriptor is registered, or about to be

    def run(self) -> bool:
        """Make the first attempt and leave the rest to the loop. True where that attempt has failed."""
        self._loop.abort_on_interrupt()
        self._loop.read(self._wake, self._do_work)
        websocket = self._new_websocket(Feeding(on_closed=lambda: self.call_soon(self._connection_closed)))
        if websocket is None:
            self._end()
            return False
        try:
            error = self._connect(websocket)
        except BaseException:  # Ctrl-C: the loop has not begun, and never hears of this run
            self.close(timeout=0)
            self._finish()
            self._retire()
            raise
        self._connected(websocket, error)
        if self.is_over:
            self._let_out()
        return self.failure is not None

    def call_soon(self, work: Callable[[], None]) -> None:
        """Let the loop do some work. Any thread."""
        self._work.append(work)
        self._wake.set()

    def close(self, **options: Any) -> None:
        super().close(**options)
        self.call_soon(self._end_where_nothing_stands)

    def _close(self, websocket: WebSocket, options: dict[str, Any]) -> None:
        if self.is_in_callback:  # the loop has other work to do than to wait
            websocket._close_unattended(**options)
        else:
            websocket.close(**options)

    @property
    def may_be_replaced(self) -> bool:
        # A loop that was aborted never gets to the end of a run that was closed. One that is in a callback is alive.
        return (self._closing and not self._caller) or super().may_be_replaced

    def look_again(self) -> None:
        super().look_again()
        self.call_soon(self._end_where_nothing_stands)

    # ---- the loop's thread ----

    def _do_work(self) -> bool:
        self._wake.clear()
        while self._work:
            self._work.popleft()()
        if self.is_over:
            # The loop lets go of the descriptor when this returns; only then may it be given back, and an exception
            # leave the loop.
            self._loop.timeout(0, self._retired)
        return not self.is_over

    def _retired(self) -> None:
        """A timer's callback. It returns None, or the timer would come again."""
        self._wake.close()
        self._let_out()

    def _let_out(self) -> None:
        """Raise what a callback raised to leave the loop, once the run has come to its end."""
        exception, self.exit = self.exit, None
        if exception is not None:
            raise exception

    def _connected(self, websocket: WebSocket, error: BaseException | None) -> None:
        """An attempt has come to its end."""
        if error is not None:
            self._fail(error)
            self._go_on(self._delay(error))
            return
        connection = websocket._connection
        assert connection is not None
        self._is_receiving = True
        self._begin(connection)
        self.call_soon(lambda: self._opened(connection))

    def _opened(self, connection: Connection) -> None:
        with self._in_callback():  # before the look, as in take()
            if not self._closing:
                self.opened()
        self._loop.read(_Polled(connection.receiving.fileno_of_all()), lambda: self._receive(connection))

    def take(self, messages: list[Any], controls: list[tuple[int, ABNF]]) -> None:
        with self._in_callback():  # before the look, so that may_be_replaced sees one or the other
            if not self._closing:
                super().take(messages, controls)

    def _receive(self, connection: Connection) -> bool:
        batch = connection.receiving.receive_batch(_BATCH)
        if batch is not None:
            self.take(*batch)
            return True
        # The loop lets go of the descriptor when this returns; only then may it be given back.
        self._is_receiving = False
        self.call_soon(self._connection_closed)
        return False

    def _connection_closed(self) -> None:
        """All was received, or the socket is given back: the later of the two comes to the end of the connection."""
        connection = self._standing
        if connection is None or self._is_receiving or not connection.has_ended:
            return
        connection.release_event()
        self.ended()
        self._go_on(self._next_delay)

    def _go_on(self, delay: float | None) -> None:
        """Set a timer for the next attempt, or come to the end."""
        if delay is None:
            self._end()
        else:
            self._loop.timeout(delay, self._attempt)

    def _attempt(self) -> None:
        """The timer's callback. It returns None, or the timer would come again."""
        if self.is_over:
            return
        websocket = self._new_websocket(Feeding(on_closed=lambda: self.call_soon(self._connection_closed)))
        if websocket is None:
            self._end()
            return

        def connect() -> None:
            error: BaseException | None = None
            try:
                error = self._connect(websocket)
            except BaseException as mistake:  # a log filter's, no memory: said aloud by the thread's excepthook
                error = mistake
                websocket.shutdown()
                self._let_go()
                raise
            finally:
                outcome = error
                self.call_soon(lambda: self._connected(websocket, outcome))

        try:
            threading.Thread(target=connect, name=f"websocket-connect {self._app.url}", daemon=True).start()
        except RuntimeError as error:
            self._let_go()
            _logging.error("%s: no thread can be started: %s", self._app.url, error)
            self._fail(error)
            self._end()

    def _end_where_nothing_stands(self) -> None:
        """The program has asked for the end: in a wait between attempts nothing else would bring it about."""
        with self.lock:
            is_idle = self._websocket is None and not self._is_wanted()
        if is_idle and not self.is_over:
            self._end()

    def _end(self) -> None:
        self._finish()
        self._retire()
        self._wake.set()  # so that the loop lets go of it
