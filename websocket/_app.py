"""WebSocketApp: a connection that calls back, and comes back.

The class is what programs see; a run of it is in _run.py, or _dispatcher.py where a foreign loop is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ._abnf import ABNF, close_payload
from ._backoff import Backoff, FixedDelay, is_worth_retrying, reconnect_policy
from ._core import WebSocket
from ._deflate import PerMessageDeflate
from ._dispatcher import ForeignLoop, LoopRun
from ._exceptions import WebSocketConnectionClosedException, WebSocketException
from ._options import ConnectOptions
from ._pure import Payload
from ._run import OwnRun, Run, RunOptions
from ._socket import checked_timeout, getdefaulttimeout, sock_opt
from ._url import parse_target
from .threads import lifetime
from .threads.connection import Connection

__all__ = ["WebSocketApp", "setReconnect", "set_reconnect"]

# What run_forever() takes where it is given no `reconnect`: seconds, 0 for no reconnect.
RECONNECT: float | Backoff = 0


def set_reconnect(reconnect: float | Backoff) -> None:
    """Set what run_forever() of every WebSocketApp takes where it is given no `reconnect`. Raises ValueError."""
    global RECONNECT
    reconnect_policy(reconnect)
    RECONNECT = reconnect


def setReconnect(reconnectInterval: float) -> None:
    """set_reconnect() by websocket-client's name."""
    set_reconnect(reconnectInterval)


class _Started:
    """What start() began: the thread, and what its run came to."""

    def __init__(self, run: OwnRun, name: str) -> None:
        self.thread = threading.Thread(target=self._work, args=(run,), name=name, daemon=True)
        self.result: bool | BaseException | None = None  # what run() returned or raised

    def _work(self, run: OwnRun) -> None:
        try:
            self.result = run.run()
        except BaseException as exception:  # noqa: BLE001  # raised by join()
            self.result = exception


class WebSocketApp:
    """A client that calls back: websocket-client's class, on a connection with threads of its own.

    run_forever() connects and returns when all is over; start() does that on a thread of its own. Every method may be
    called from any thread at any time, and from inside every callback.

    url: ws:// or wss://.
    header: a dict, or a list of "Name: value" lines, or a function that gives one, called for each attempt anew.
    cookie, subprotocols, compression, get_mask_key: as in WebSocket.connect() and WebSocket.
    socket: a connected socket for the first attempt.
    keep_running: this argument is taken for compatibility and not looked at; see the attribute.

    Callbacks, each with the app as first argument. Those of one run never overlap, and come in the order of the wire:
    on the connection's reader thread, on run_forever()'s own where no connection came to be, or in the foreign loop
    where there is one. An exception in one goes to on_error; SystemExit and KeyboardInterrupt end the run and come out
    of run_forever().

    on_open(app): a connection stands.  on_reconnect(app): in its place from the second connection of a run on.
    on_message(app, message): str for text, bytes for binary (and for text with skip_utf8_validation).
    on_data(app, data, opcode, fin): before on_message and on_cont_message, with the frame's opcode.
    on_cont_message(app, data, fin): where it is given, messages in several frames come frame by frame: the first to
        on_message, the others here, as bytes, `fin` being 0 until the last.
    on_ping(app, payload), on_pong(app, payload): bytes. Pings are answered by themselves.
    on_error(app, exception): each failure: of an attempt, of a connection, of a callback. An exception that tells of an
        end has `unsent`: what send() accepted and nobody wrote.
    on_close(app, code, reason): once for each connection that has stood, with what the peer's close frame said, None
        and None without one; and at the end of a run that ends in another way.
    """

    def __init__(
        self,
        url: str,
        header: Any = None,
        on_open: Callable[[Any], Any] | None = None,
        on_reconnect: Callable[[Any], Any] | None = None,
        on_message: Callable[[Any, Any], Any] | None = None,
        on_error: Callable[[Any, Any], Any] | None = None,
        on_close: Callable[[Any, Any, Any], Any] | None = None,
        on_ping: Callable[[Any, Any], Any] | None = None,
        on_pong: Callable[[Any, Any], Any] | None = None,
        on_cont_message: Callable[[Any, Any, Any], Any] | None = None,
        keep_running: bool = True,
        get_mask_key: Callable[[int], str | bytes] | None = None,
        cookie: str | None = None,
        subprotocols: list[str] | None = None,
        on_data: Callable[[Any, Any, Any, Any], Any] | None = None,
        socket: Any = None,
        compression: str | PerMessageDeflate | None = None,
    ) -> None:
        self.url = url
        self.header = [] if header is None else header
        self.cookie = cookie
        self.subprotocols = subprotocols
        self.get_mask_key = get_mask_key
        self.prepared_socket = socket
        self.compression = PerMessageDeflate.parse(compression)
        self.on_open = on_open
        self.on_reconnect = on_reconnect
        self.on_message = on_message
        self.on_data = on_data
        self.on_error = on_error
        self.on_close = on_close
        self.on_ping = on_ping
        self.on_pong = on_pong
        self.on_cont_message = on_cont_message
        self.ping_interval: float = 0.0
        self.ping_timeout: float | None = None
        self.ping_payload: str | bytes = ""
        # The current WebSocket, None outside of attempts and connections; written by the run.
        self.sock: WebSocket | None = None
        # Whether the latest thing that happened was a failure; after a run, what it returned.
        self.has_errored = False
        # The peer's close frame of the connection that ended last in the latest run, None where it sent none.
        self.last_close_frame: ABNF | None = None
        self._keep_running = False
        self._lock = threading.RLock()  # re-entrant, for signal handlers that close
        self._run: Run | None = None  # guarded by self._lock
        self._started: _Started | None = None  # by start(); guarded by self._lock
        self._is_fresh = False  # start() was called, and neither a with block entered nor stop() or join() called
        lifetime.watch(self)

    # ---- sending ----

    def send(self, data: str | Payload | Iterable[str | Payload], opcode: int = ABNF.OPCODE_TEXT) -> None:
        """Send a message on the current connection, as WebSocket.send(). Raises WebSocketConnectionClosedException
        where none stands; the message was then not accepted."""
        websocket = self.sock
        if websocket is None:
            raise WebSocketConnectionClosedException("Connection is already closed: none stands at the moment.")
        websocket.send(data, opcode)

    def send_text(self, text_data: str | Iterable[str]) -> None:
        """Send a text message; see send()."""
        self.send(text_data, ABNF.OPCODE_TEXT)

    def send_bytes(self, data: Payload | Iterable[Payload]) -> None:
        """Send a binary message; see send()."""
        self.send(data, ABNF.OPCODE_BINARY)

    # ---- the end ----

    def close(self, **kwargs: Any) -> None:
        """End the run: close the connection, or the attempt to connect, or the wait before the next one; no message is
        delivered any more. Takes status, reason and timeout as WebSocket.close() does, and waits as that
        does, but in a callback, where it only begins. Without a run it does nothing."""
        if unknown := sorted(kwargs.keys() - {"status", "reason", "timeout"}):
            raise TypeError(f"close() takes status, reason and timeout, not {', '.join(unknown)}")
        close_payload(kwargs.get("status", 1000), kwargs.get("reason", b""))
        checked_timeout(kwargs.get("timeout"))
        self._keep_running = False
        with self._lock:
            run = self._run
        if run is not None:
            run.close(**kwargs)

    @property
    def keep_running(self) -> bool:
        """Whether a run is under way that nobody has asked to end. Setting it to False ends the run; in a callback,
        when that has returned."""
        return self._keep_running

    @keep_running.setter
    def keep_running(self, value: bool) -> None:
        self._keep_running = value
        if not value:
            run = self._run
            if run is not None:
                run.look_again()

    # ---- asking ----

    def ready(self) -> bool:
        """Whether a connection stands on which messages can be sent."""
        websocket = self.sock
        return websocket is not None and websocket.connected

    @property
    def latency(self) -> float | None:
        """Seconds from the keepalive's latest answered ping to its pong; None without one."""
        websocket = self.sock
        return None if websocket is None else websocket.latency

    @property
    def last_ping_tm(self) -> float:
        """When (time.time()) the current connection's keepalive sent its latest ping; 0.0 before."""
        connection = self._connection
        return 0.0 if connection is None else connection.last_ping

    @property
    def last_pong_tm(self) -> float:
        """When (time.time()) the current connection's latest pong came; 0.0 before."""
        connection = self._connection
        return 0.0 if connection is None else connection.last_pong

    @property
    def _connection(self) -> Connection | None:
        run = self._run
        return None if run is None else run.connection

    # ---- running ----

    def run_forever(
        self,
        sockopt: Any = None,
        sslopt: dict[str, Any] | None = None,
        ping_interval: float = 0,
        ping_timeout: float | None = None,
        ping_payload: str | bytes = "",
        http_proxy_host: str | None = None,
        http_proxy_port: int | str | None = None,
        http_no_proxy: list[str] | None = None,
        http_proxy_auth: tuple[str, str] | None = None,
        http_proxy_timeout: float | None = None,
        skip_utf8_validation: bool = False,
        host: str | None = None,
        origin: str | None = None,
        dispatcher: Any = None,
        suppress_origin: bool = False,
        proxy_type: str | None = None,
        reconnect: float | Backoff | FixedDelay | None = None,
        *,
        retry: Callable[[BaseException], bool] | None = None,
        **options: Any,
    ) -> bool:
        """Connect, call back, and return when all is over.

        sockopt, sslopt, skip_utf8_validation: as in the WebSocket class.
        ping_interval, ping_timeout, ping_payload: the keepalive, see WebSocket.connect().
        http_proxy_*, proxy_type, host, origin, suppress_origin, and any other keyword: options of WebSocket.connect().
            `timeout` is the time for each attempt (60 s where getdefaulttimeout() is None) and then that of send().
        dispatcher: a foreign event loop, an object with read(), timeout(), signal() and abort() such as the package
            rel. Then this makes the first attempt and returns, and the rest happens in the loop.
        reconnect: seconds between attempts, or a Backoff; 0 for one attempt only; None for what set_reconnect() set.
        retry: called with the exception that an attempt or a connection ended with, says whether to try again. By
            default network failures, TLS errors, timeouts, abnormal closes and HTTP answers but 4xx other than 429 are
            tried again; a close with 1000 or no code, and what the program ends itself are not.

        Returns False where the program has ended it (close(), keep_running, Ctrl-C) or the peer has closed normally,
        True where the last thing was a failure. May be called again afterwards. Ctrl-C is answered at once, with a
        second for the closing handshake.

        Raises WebSocketException where the keepalive's numbers make no sense, and "socket is already opened" where a
        run is under way; ValueError and TypeError for other options that make no sense; what a callback raises that is
        no Exception, such as SystemExit.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "options")}
        run: OwnRun | LoopRun | None = None
        try:
            run = self._begin(arguments | options)
            return run.run()
        except BaseException:  # maybe Ctrl-C before run() could catch it, or while it was leaving
            if isinstance(run, OwnRun):
                run.abandon()
            raise

    def _begin(self, options: dict[str, Any]) -> OwnRun | LoopRun:
        """The run that these options of run_forever() ask for; from here on close() ends it."""
        interval, timeout = options.get("ping_interval", 0), options.get("ping_timeout")
        if timeout is not None and timeout <= 0:
            raise WebSocketException("Ensure ping_timeout > 0")
        if interval is not None and interval < 0:
            raise WebSocketException("Ensure ping_interval >= 0")
        if timeout and interval and interval <= timeout:
            raise WebSocketException("Ensure ping_interval > ping_timeout")
        parse_target(self.url)
        chosen = self._split_options(dict(options))
        loop = self.create_dispatcher(timeout, options.get("dispatcher"), self.url.startswith("wss"))
        run = OwnRun(self, chosen) if loop is None else LoopRun(self, chosen, loop)
        try:
            with self._lock:
                if self._run is not None and not self._run.may_be_replaced:
                    raise WebSocketException(
                        "socket is already opened: a run of this WebSocketApp is under way; close() it first"
                    )
                run.outer, self._run = self._run, run
                self._keep_running = True
                self.has_errored = False
                self.last_close_frame = None
                self.prepared_socket = None
                self.ping_interval = interval or 0.0
                self.ping_timeout = timeout
                self.ping_payload = options.get("ping_payload", "")
            return run
        except BaseException:  # maybe Ctrl-C: the caller never hears of the run
            if self._run is run:
                run.close(timeout=0)
                self._keep_running = False
                self._forget(run)
            raise

    def _split_options(self, options: dict[str, Any]) -> RunOptions:
        """The options by who takes them. Raises ValueError and TypeError for what makes no sense."""
        options.pop("dispatcher", None)
        reconnect = options.pop("reconnect", None)
        retry = options.pop("retry", None)
        if retry is not None and not callable(retry):
            raise TypeError(f"retry must be a function of an exception, not {retry!r}")
        timeout = checked_timeout(options.pop("timeout")) if "timeout" in options else getdefaulttimeout()
        of_class = {
            "sockopt": options.pop("sockopt", None) or (),
            "sslopt": options.pop("sslopt", None) or {},
            "skip_utf8_validation": options.pop("skip_utf8_validation", False),
            "get_mask_key": self.get_mask_key,
        }
        sock_opt(of_class["sockopt"], of_class["sslopt"])
        for name in ("cookie", "header", "socket", "subprotocols"):
            if name in options:
                raise TypeError(f"{name} is an argument of WebSocketApp(), not of run_forever()")
        options.setdefault("compression", self.compression)
        ConnectOptions.check(options)
        return RunOptions(
            socket=of_class,
            connect=options,
            policy=reconnect_policy(RECONNECT if reconnect is None else reconnect),
            retry=is_worth_retrying if retry is None else retry,
            prepared=self.prepared_socket,
            timeout=timeout,
        )

    def create_dispatcher(
        self, ping_timeout: float | None, dispatcher: Any = None, is_ssl: bool = False
    ) -> ForeignLoop | None:
        """The foreign loop that a run uses, as a ForeignLoop; None for none. The other arguments are
        websocket-client's."""
        return None if dispatcher is None else ForeignLoop(dispatcher)

    def _forget(self, run: Run) -> None:
        """A run is over."""
        with self._lock:
            if self._run is run:
                outer = run.outer
                self._run = None if outer is None or outer.is_over else outer
            run.outer = None

    def after_fork_in_child(self) -> None:
        """For threads.lifetime: the run is the parent's, and a lock may be held by a thread that is not there."""
        self._lock = threading.RLock()
        self._run = None
        self._started = None
        self._keep_running = False
        self.sock = None

    # ---- on a thread of its own ----

    def start(self, **options: Any) -> WebSocketApp:
        """run_forever(**options) on a thread of its own; returns the app once a connection stands and on_open has
        returned. With `reconnect`, that may be after several attempts.

        Raises what went wrong where no connection comes to stand, and as run_forever() does.
        """
        started: _Started | None = None
        run = self._begin(options)
        try:
            if not isinstance(run, OwnRun):
                self._forget(run)
                raise WebSocketException("start() runs on a thread of its own; with a dispatcher, call run_forever()")
            started = _Started(run, f"websocket-app {self.url}")
            started.thread.start()
            with self._lock:
                self._started = started
            with run.lock:
                run.changed.wait_for(lambda: run.has_opened or run.is_over)
        except BaseException as error:
            run.close(timeout=0)
            if isinstance(run, OwnRun) and (started is None or started.thread.ident is None):
                run.abandon()  # the thread, if it comes to run all the same, finds the run over
                if isinstance(error, RuntimeError):
                    raise WebSocketException(f"{self.url}: no thread can be started: {error}") from error
            raise
        if run.has_opened:
            self._is_fresh = True
            return self
        assert started is not None
        started.thread.join()
        if isinstance(started.result, BaseException):
            raise started.result
        raise run.failure or WebSocketConnectionClosedException("closed by this program before a connection stood")

    def join(self, timeout: float | None = None) -> bool | None:
        """Wait until what start() began has ended, at most `timeout` seconds. Returns what run_forever() would have
        returned, None where it has not ended; raises what a callback raised to leave it. Not in a callback, which it
        would wait for."""
        started = self._started
        if started is None:
            raise WebSocketException("start() was not called")
        return self._join(started, timeout)

    def _join(self, started: _Started, timeout: float | None) -> bool | None:
        if self._is_in_callback():
            raise WebSocketException("join() in a callback would wait for itself; use close()")
        started.thread.join(timeout)
        if started.thread.is_alive():
            return None
        with self._lock:
            if self._started is started:
                self._is_fresh = False  # a with block begins anew
        if isinstance(started.result, BaseException):
            raise started.result
        return started.result

    def stop(self, **options: Any) -> None:
        """close(**options), and then join() what start() began, within `timeout` seconds where that is given; in a
        callback, close() alone. Raises as join()."""
        timeout = options.get("timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        if (started := self._close_and_wait(options, deadline)) is not None:
            self._join(started, 0)

    def _close_and_wait(self, options: dict[str, Any], deadline: float | None) -> _Started | None:
        """What is to be joined, if anything."""
        started = self._started  # before close(): another thread may start() again behind it
        is_in_callback = self._is_in_callback()
        self.close(**options)
        if started is None or is_in_callback:
            return None
        with self._lock:
            if self._started is started:
                self._is_fresh = False
        started.thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return started

    def _is_in_callback(self) -> bool:
        run = self._run
        return run is not None and run.is_in_callback

    def __enter__(self) -> WebSocketApp:
        if not self._is_fresh:
            self.start()
        self._is_fresh = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:  # which what a callback raised must not hide
            self._close_and_wait({}, None)
