"""One run of a WebSocketApp: connect, let callbacks happen, wait, connect again.

The thread that calls run() makes the attempts, waits between them, and looks on while a connection stands; callbacks
of a connection come on its reader thread. `lock` guards what both, and close() from any thread, look at; it is never
held while anything is called or waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from . import _logging
from ._abnf import ABNF
from ._backoff import Backoff, FixedDelay, Schedule
from ._callbacks import Callbacks
from ._core import Feeding, WebSocket
from ._exceptions import WebSocketConnectionClosedException
from ._socket import getdefaulttimeout
from .threads import lifetime
from .threads.condition import Condition, is_owned
from .threads.connection import Connection

# Without a default timeout an attempt ends after this long: a server that accepts and never answers must not stop the
# reconnects for good.
_CONNECT_SECONDS: Final = 60.0

# What Ctrl-C leaves for the closing handshake, and for a callback to come to its end.
_GOODBYE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class RunOptions:
    """The options of run_forever(), by who takes them.

    socket: those of the WebSocket class.  connect: those of connect().  prepared: a connected socket for the first
    attempt.  policy: when to connect again, None for never.  retry: whether an exception is worth that.
    """

    socket: dict[str, Any]
    connect: dict[str, Any]
    policy: Backoff | FixedDelay | None
    retry: Callable[[BaseException], bool]
    prepared: Any = None
    timeout: float | None = field(default_factory=getdefaulttimeout)


class Run:
    """What a run is, whoever drives it. app: the WebSocketApp, whose `sock` and `has_errored` it sets."""

    def __init__(self, app: Any, options: RunOptions) -> None:
        self.callbacks = Callbacks(app)
        self.lock = threading.RLock()  # re-entrant, for signal handlers that close
        self.changed = Condition(self.lock)
        self._app = app
        self._options = options
        self._prepared = options.prepared
        self._schedule: Schedule | None = None if options.policy is None else options.policy.begin()
        # All that follows is guarded by self.lock.
        self.has_opened = False  # a connection has stood, and the callback that tells it has returned
        self.is_over = False  # nothing more will happen
        # What failed last, None while a connection stands or after a good end.
        self.failure: BaseException | None = None
        self.exit: BaseException | None = None  # what a callback raised to leave run_forever()
        self._websocket: WebSocket | None = None
        self._closing = False  # the program wants the end
        self._standing: Connection | None = None  # what feeds callbacks, from just before it begins to its last call
        self._again = False  # a connection has stood
        self._told = False  # on_close was called, and nothing was begun since
        self._next_delay: float | None = None  # after the connection that ended last; None: no further attempt
        self._is_final = False  # the last callback is running, or has run
        self.outer: Run | None = None  # the run in whose last callback this one began; guarded by the app's lock
        self._caller = 0  # the thread that is in a callback; written by that thread

    # ---- any thread ----

    def close(self, **options: Any) -> None:
        """End the run: the connection, the attempt or the wait that it is in. Raises as WebSocket.close()."""
        is_inside = is_owned(self.lock)
        with self.lock:
            self._closing = True
            websocket = self._websocket
            self.changed.notify_all()
        if is_inside:  # a signal handler, maybe just before the wait that it is to end: tell it again, in the wait
            self._tell_again()
        if websocket is not None:
            self._close(websocket, options)

    def _close(self, websocket: WebSocket, options: dict[str, Any]) -> None:
        websocket.close(**options)

    def look_again(self) -> None:
        """keep_running has been set to False."""
        is_inside = is_owned(self.lock)
        with self.lock:
            self.changed.notify_all()
            websocket = None if self._closing or self.is_in_callback else self._websocket
            self._closing = self._closing or websocket is not None
        if is_inside:
            self._tell_again()
        if websocket is not None:
            websocket._close_unattended()

    def _tell_again(self) -> None:
        def tell() -> None:
            with self.lock:
                self.changed.notify_all()

        try:
            lifetime.run_on_bare_thread(tell)
        except RuntimeError:
            pass  # no thread can be started; the wait ends in its own time

    @property
    def connection(self) -> Connection | None:
        """The current connection, None without one."""
        websocket = self._websocket
        return None if websocket is None else websocket._connection

    @property
    def is_in_callback(self) -> bool:
        """Whether the calling thread is in a callback of this run."""
        return self._caller == threading.get_ident()

    @property
    def may_be_replaced(self) -> bool:
        """Whether another run may begin: after this one, or from its very last callback on."""
        return self.is_over or self._is_final

    # ---- attempts ----

    def _is_current(self) -> bool:
        """Whether no other run has begun, which the state of the app belongs to from then on."""
        return self._app._run is self

    def _is_wanted(self) -> bool:
        """Whether the program has not asked for the end. With the lock held."""
        return not self._closing and self._is_current() and bool(self._app.keep_running)

    def _note(self, has_errored: bool) -> None:
        if self._is_current():
            self._app.has_errored = has_errored

    def _new_websocket(self, feeding: Feeding) -> WebSocket | None:
        """The WebSocket of the next attempt, which close() finds from here on; None where no more is wanted."""
        websocket = WebSocket(fire_cont_frame=self._app.on_cont_message is not None, **self._options.socket)
        websocket._feeding = feeding
        with self.lock:
            # In this order, for a signal handler that closes in the middle.
            self._websocket = websocket
            if not self._is_wanted():
                self._websocket = None
                return None
            self._told = False
            self._app.sock = websocket
        return websocket

    def _connect(self, websocket: WebSocket) -> Exception | None:
        """One attempt; what it failed with, or None where a connection stands."""
        app = self._app
        prepared, self._prepared = self._prepared, None
        timeout = self._options.timeout
        try:
            header = app.header
            if callable(header):
                with self._guard():
                    header = header()
                if self.exit is not None:
                    raise WebSocketConnectionClosedException("the header function has left run_forever()")
            websocket.connect(
                app.url,
                timeout=_CONNECT_SECONDS if timeout is None else timeout,
                header=header,
                cookie=app.cookie,
                subprotocols=app.subprotocols,
                socket=prepared,
                **self._options.connect,
            )
        except Exception as error:  # noqa: BLE001  # header() is the program's
            with self.lock:
                self._closing = self._closing or websocket._is_over  # the program has closed app.sock
            self._let_go()
            return error
        websocket.timeout = timeout
        if self._schedule is not None:
            self._schedule.opened()
        self._note(has_errored=False)
        _logging.info("%s: connected", app.url)
        return None

    def _let_go(self) -> None:
        with self.lock:
            self._websocket = None
        with self._app._lock:  # not inside self.lock, nor the other way: a signal handler may want both
            if self._is_current():
                self._app.sock = None

    def _fail(self, error: BaseException) -> None:
        """Tell it, unless the program itself has asked for the end."""
        with self.lock:
            if self._closing:
                return
            self.failure = error
            self._told = False
        self._note(has_errored=True)
        with self._guard():
            self.callbacks.failed(error)

    # ---- a connection ----

    def _begin(self, connection: Connection) -> None:
        """The connection stands; callbacks are about to begin."""
        with self.lock:
            self._standing = connection
            self._next_delay = None
            self.failure = None

    def _stands(self) -> bool:
        """Whether a last call of callbacks is still to come. With the lock held."""
        return self._standing is not None

    def opened(self) -> None:
        """Call on_open, or on_reconnect."""
        again, self._again = self._again, True
        try:
            with self._guard():
                self.callbacks.opened(again)
                if not self._app.keep_running:
                    self._stop()
        finally:
            with self.lock:
                self.has_opened = True
                self.changed.notify_all()

    def take(self, messages: list[Any], controls: list[tuple[int, ABNF]]) -> None:
        """Call on_message and its like."""
        with self._guard():
            if not self.callbacks.deliver(messages, controls):
                self._stop()

    def ended(self) -> None:
        """The connection is no more: call on_error where it failed, and on_close."""
        try:
            self._tell_end()
        finally:
            with self.lock:
                self._standing = None
                self.changed.notify_all()

    def _tell_end(self) -> None:
        assert self._standing is not None
        outcome = self._standing.end.outcome()
        with self.lock:
            is_failure = outcome.is_failure and not (self._closing or outcome.by_program)
            self.failure = outcome.error if is_failure else None
        self._note(has_errored=is_failure)
        if self._is_current():
            self._app.last_close_frame = self._standing.end.close_frame
        if is_failure or outcome.error.unsent:
            with self._guard():
                self.callbacks.failed(outcome.error)
        self._let_go()
        delay = self._next_delay = self._delay(None if outcome.by_program else outcome.error)
        with self.lock:
            self._is_final = delay is None
        with self._guard():
            self.callbacks.closed(outcome.code, outcome.reason)
        with self.lock:
            self._told = delay is None or not self._is_wanted()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """The program's code: what comes out of it, and is no Exception, ends the run and leaves run_forever()."""
        with self._in_callback():
            try:
                yield
            except Exception:
                raise
            except BaseException as exception:  # noqa: BLE001  # SystemExit and its like
                self._leave(exception)

    @contextmanager
    def _in_callback(self) -> Iterator[None]:
        """The program's code runs on this thread."""
        outer = self._caller
        try:
            self._caller = threading.get_ident()
            yield
        finally:
            self._caller = outer

    def _leave(self, exception: BaseException) -> None:
        with self.lock:
            self.exit = self.exit or exception
        self._stop()

    def _stop(self) -> None:
        self._no_more()
        if not self._closing:  # else with the program's own time
            self.close()

    def _no_more(self) -> None:
        with self._app._lock:  # so that it is not said to a run that begins meanwhile
            if self._is_current():
                self._app._keep_running = False

    # ---- between connections ----

    def _delay(self, error: BaseException | None) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        with self.lock:
            if self._schedule is None or error is None or not self._is_wanted():
                return None
        if not self._is_worth_retrying(error):
            return None
        delay = self._schedule.next_delay(error)
        if delay is None:
            _logging.error("%s: giving up after %s", self._app.url, repr(error))  # a record must not hold the error
            if self.failure is None:  # a normal close, which told nobody
                self._fail(error)
        else:
            _logging.info("%s: connecting again in %.1f s after %s", self._app.url, delay, repr(error))
        return delay

    def _is_worth_retrying(self, error: BaseException) -> bool:
        is_worth = False
        try:
            with self._guard():
                is_worth = bool(self._options.retry(error))
        except Exception as mistake:  # noqa: BLE001  # retry= is the program's
            self._fail(mistake)
        return is_worth

    def _finish(self) -> bool:
        """The last act: on_close where it is due, and what run_forever() returns."""
        with self.lock:
            self._closing = not self._is_wanted()
            is_due = not (self._told or self._stands() or self.is_over)
            result = self.failure is not None and not self._closing
        self._no_more()
        self._note(has_errored=result)
        if is_due:
            self._let_go()
            self._is_final = True
            with self._guard():
                self._told = True  # here, and not before: Ctrl-C may come just before it and lead to here again
                self.callbacks.closed(None, None)
        return result

    def _retire(self) -> None:
        """Let go of the app, which may be run again."""
        with self.lock:
            self.is_over = True
            self._websocket = None
            self.changed.notify_all()
        self._app._forget(self)


class OwnRun(Run):
    """A run that its caller's thread supervises: run_forever() without a dispatcher."""

    def __init__(self, app: Any, options: RunOptions) -> None:
        super().__init__(app, options)
        self._left = False  # guarded by self.lock: run() has returned

    def run(self) -> bool:
        """Supervise until the end. Returns what run_forever() does; raises what a callback raised to leave it."""
        try:
            try:
                while self._one_connection():
                    pass
                result = self._finish()
            except KeyboardInterrupt:  # not one of a callback: those are kept in self.exit
                self._say_goodbye()
                result = self._finish()
            if self.exit is not None:
                raise self.exit
            return result
        finally:
            self.abandon()

    def _one_connection(self) -> bool:
        """An attempt, and what comes of it, and the wait before the next; False where there is no next."""
        websocket = self._new_websocket(Feeding(consumer=self))
        if websocket is None:
            return False
        error = self._connect(websocket)
        if error is None:
            connection = websocket._connection
            assert connection is not None
            self._begin(connection)
            if connection.begin_callbacks():
                connection.attend()
            delay = self._next_delay
        else:
            self._fail(error)
            delay = self._delay(error)
        if delay is None:
            return False
        with self.lock:
            self.changed.wait_for(lambda: not self._is_wanted(), delay)
            return self._is_wanted()

    def _say_goodbye(self) -> None:
        """Ctrl-C: close, and give a callback that is running a moment."""
        deadline = time.monotonic() + _GOODBYE_SECONDS
        self._no_more()
        self.close(timeout=_GOODBYE_SECONDS)
        if not self._is_current():  # on_close has begun another run, and waits for it
            self._app.close(timeout=_GOODBYE_SECONDS)
        with self.lock:
            self.changed.wait_for(lambda: not self._stands(), max(0.0, deadline - time.monotonic()))

    def _stands(self) -> bool:
        # An exception of a signal handler may have come just before begin_callbacks(); then no call follows.
        return self._standing is not None and self._standing.has_begun_callbacks

    def ended(self) -> None:
        super().ended()
        with self.lock:
            left = self._left
        if left:
            self._retire()

    def abandon(self) -> None:
        """Leave nothing behind, whatever has happened: an exception of a signal handler in the middle of it."""
        with self.lock:
            self._closing = True
            self._left = True
            stands = self._stands()
            websocket = self._websocket
        self._no_more()
        if websocket is not None and not stands:
            websocket.shutdown()
        elif websocket is not None:
            websocket.close(timeout=0)
        if not stands:
            self._retire()
