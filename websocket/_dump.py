"""One run of wsdump: between standard input and output on one side and a WebSocketApp on the other.

The main thread takes what is typed or piped (_terminal.py), the connection's reader thread shows what arrives
(_display.py), a thread of _outgoing.py sends, and one more is run_forever's. Signals are only noted; the main thread
acts on them.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ._abnf import ABNF, MAX_CONTROL_PAYLOAD, STATUS_GOING_AWAY, STATUS_NORMAL, close_payload
from ._app import WebSocketApp
from ._backoff import Backoff, is_worth_retrying
from ._display import Display, on_one_line, visible
from ._exceptions import WebSocketConnectionClosedException, WebSocketException
from ._logging import enableTrace
from ._outgoing import Outgoing
from ._terminal import STDERR, Console, LineEditor

# All times in seconds.

# Many servers answer a close frame at once and drop the answers that they were still working on. So the close waits
# until as many messages have come as were sent, and then for what may come beside them; but no longer than until the
# server has said nothing for so long that it seems to have nothing to say.
_MORE: Final = 0.1
_ANSWER: Final = 1.0

# How long the server's answer to the close may take: since anything came, and in all.
_CLOSE_SILENCE: Final = 5.0
_CLOSE_AT_ALL: Final = 60.0

# What an interrupt leaves for the closing handshake.
_GOODBYE: Final = 1.0

# A message that takes longer to be shown is not waited for when the command is interrupted.
_STUCK: Final = 0.25

# Between a connection that was lost while it was being closed, with messages unsent, and the next one, where the
# command line does not say.
_ONCE_MORE: Final = 1.0

_COMMANDS: Final = "commands: /ping [PAYLOAD], /pong [PAYLOAD], /close [CODE [REASON]]; //TEXT sends /TEXT"


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    url: None for an echo server.  texts: sent first.  reads_input: whether standard input is sent after them.
    eof_wait: None for as long as answers seem to be on their way.  verbose: 0 to 2.
    app, run: arguments for WebSocketApp and for run_forever().  reconnects: whether the latter will.
    """

    url: str | None
    texts: list[str]
    reads_input: bool
    binary: bool
    eof_wait: float | None
    close_code: int
    raw: bool
    verbose: int
    timings: bool
    app: dict[str, Any]
    run: dict[str, Any]
    reconnects: bool


class _Trace(logging.Handler):
    """Shows records as they come, around a line that is being edited."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write(visible(self.format(record)) + "\n", STDERR)


class Dump:
    """See the module. run() does it all, once, in the main thread."""

    def __init__(self, settings: Settings, url: str, started: float) -> None:
        self._settings = settings
        out_is_terminal = sys.stdout is not None and sys.stdout.isatty()
        both_are = out_is_terminal and sys.stdin is not None and sys.stdin.isatty()
        self._takes_commands = both_are and settings.reads_input and not settings.raw
        self._display = Display(
            terminal=out_is_terminal,
            raw=settings.raw,
            colour=out_is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb",
            verbose=settings.verbose > 0,
            timings=settings.timings,
            started=started,
        )
        edits = both_are and settings.reads_input
        self._console = Console(LineEditor.load("" if settings.raw else "> ") if edits else None)
        self._outgoing = Outgoing(self._console.wake)
        self._url = url
        self._app = WebSocketApp(
            url,
            on_open=self._on_open,
            on_reconnect=self._on_reconnect,
            on_message=self._on_message,
            on_ping=self._on_ping,
            on_pong=self._on_pong,
            on_error=self._on_error,
            on_close=self._on_close,
            **settings.app,
        )
        self._thread = threading.Thread(target=self._connect, name="wsdump-connection", daemon=True)
        self._pings: dict[bytes, float] = {}  # payload to when (time.monotonic()), until the pong has come
        # Main thread only.
        self._close: tuple[int, str] = (settings.close_code, "")
        self._wants_close = False  # /close was typed
        self._gave_up = ""  # what the main thread waited for in vain
        # Written by the threads of the connection, read by the main thread after it was woken.
        self._has_opened = False
        self._is_open = False
        self._is_over = False  # there will be no connection any more
        self._crashed = False  # by a mistake in the package; Python has shown where
        self._failure = ""  # the latest, none while a connection stands
        self._received = 0
        self._showing_since = math.inf  # when (time.monotonic()) a message began to be shown that is not shown yet
        self._heard = 0.0  # when (time.monotonic()) something came last and was shown; inf while it is being shown
        self._held_up = 0.0  # how long showing has taken in all: somebody may read our pipe slowly
        self._no_more = threading.Event()  # no connection is wanted any more

    def run(self) -> int:
        """Returns the command's exit status."""
        if self._settings.verbose > 1:
            enableTrace(True, handler=_Trace(self._console))
        with self._console:
            self._thread.start()
            self._outgoing.start()
            try:
                while self._goes_on and not self._has_opened:
                    self._console.wait()
                self._take_input()
                self._take_leave()
            finally:
                self._shut_down()
            return self._status()

    # ---- the main thread ----

    @property
    def _goes_on(self) -> bool:
        return not (self._is_over or self._console.interrupted or self._console.output_gone)

    def _take_input(self) -> None:
        for text in self._settings.texts:
            self._put(text.encode())
        if not self._settings.reads_input:
            return
        while self._goes_on and not (self._console.at_end or self._wants_close):
            if self._outgoing.has_room or self._takes_commands:
                for line in self._console.read():
                    self._take_line(line)
            else:
                self._console.wait()

    def _take_line(self, line: bytes) -> None:
        try:
            if self._takes_commands and line.startswith(b"//"):
                self._put(line[1:])
            elif self._takes_commands and line.startswith(b"/"):
                self._command(line.decode())
            else:
                self._put(line)
        except ValueError as error:
            if self._takes_commands:
                self._say(str(error))
            else:
                self._give_up(str(error))

    def _put(self, line: bytes) -> None:
        """Send a line. Raises ValueError for one that cannot be text."""
        if self._settings.binary:
            self._outgoing.put(line, ABNF.OPCODE_BINARY)
            return
        try:
            self._outgoing.put(line.removesuffix(b"\r").decode(), ABNF.OPCODE_TEXT)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"not sent, because it is not UTF-8 ({error.reason}): {line[:40]!r}; --binary would send it"
            ) from error

    def _command(self, line: str) -> None:
        """A line that begins with a slash, at the prompt. Raises ValueError for one that makes no sense."""
        name, _, rest = line.partition(" ")
        if name in ("/ping", "/pong"):
            payload = rest.encode()
            if len(payload) > MAX_CONTROL_PAYLOAD:
                raise ValueError(
                    f"{name}: {len(payload)} bytes are too long; at most {MAX_CONTROL_PAYLOAD} can be sent"
                )
            if name == "/ping":
                self._pings[payload] = time.monotonic()
            self._outgoing.put(payload, ABNF.OPCODE_PING if name == "/ping" else ABNF.OPCODE_PONG)
        elif name == "/close":
            code, _, reason = rest.strip().partition(" ")
            if code and not (code.isascii() and code.isdigit()):
                raise ValueError(f"/close: {code!r} is no close code; {_COMMANDS}")
            close = (int(code) if code else self._settings.close_code, reason.strip())
            close_payload(*close)
            self._close = close
            self._wants_close = True
        else:
            raise ValueError(_COMMANDS)

    def _take_leave(self) -> None:
        """The input has ended: send what is left of it, wait for answers, close."""
        settings, console, outgoing = self._settings, self._console, self._outgoing
        if console.at_end or self._wants_close:
            console.stop_editing()
        while self._goes_on and not outgoing.is_idle:
            if self._takes_commands and not outgoing.is_connected:
                return  # who has typed it sees that it will not be sent now
            console.wait()
        if not self._goes_on:
            return
        if settings.eof_wait is not None and not self._wants_close:
            moment = time.monotonic() + settings.eof_wait
            self._wait(lambda: moment)
        elif not self._takes_commands and outgoing.sent:
            self._await_answers()
        if self._goes_on:
            self._finish()

    def _await_answers(self) -> None:
        began = time.monotonic()

        def until() -> float:
            enough = self._received >= self._outgoing.sent
            return max(self._heard, began) + (_MORE if enough else _ANSWER)

        self._wait(until)

    def _finish(self) -> None:
        """Close, and wait for the server's answer."""
        if not self._outgoing.is_connected:
            return  # all is sent, and there is nothing to close until the next connection
        self._outgoing.close(*self._close)
        began, held_up = time.monotonic(), self._held_up

        def until() -> float:
            heard = max(self._heard, began)
            at_last = began + _CLOSE_AT_ALL + self._held_up - held_up
            return heard if heard == math.inf else min(heard + _CLOSE_SILENCE, at_last)

        self._wait(until)
        if self._goes_on:
            self._give_up("the server has not answered the close")

    def _wait(self, until: Callable[[], float]) -> None:
        """Wait for a moment (time.monotonic()) that what happens meanwhile may move."""
        while self._goes_on and time.monotonic() < (moment := until()):
            self._console.wait(None if moment == math.inf else moment)

    def _give_up(self, why: str) -> None:
        self._gave_up = why
        self._is_over = True

    def _shut_down(self) -> None:
        self._console.stop_editing()
        self._no_more.set()
        self._outgoing.stop()
        code, reason = self._close
        # Who writes into a pipe that nobody empties does not come back.
        is_stuck = time.monotonic() - self._showing_since > _STUCK
        patience = 0 if self._gave_up or self._console.output_gone or is_stuck else _GOODBYE
        self._app.close(status=code, reason=reason, timeout=patience)
        self._thread.join(0 if is_stuck else _GOODBYE)

    def _status(self) -> int:
        if self._console.interrupted is not None:
            return 128 + self._console.interrupted
        if self._console.output_gone and not self._gave_up:
            return 0
        problem = self._gave_up or self._failure
        if not problem and (left := self._outgoing.left):
            problem = _unsent(left)
        elif not problem and self._crashed:
            problem = "this is a mistake in the package"
        if problem:
            self._console.write(f"wsdump: {on_one_line(problem)}\n", STDERR)
        return 1 if problem else 0

    def _say(self, text: str) -> None:
        """Tell who types."""
        self._console.write(self._display.notice(text))

    # ---- the threads of the connection ----

    def _connect(self) -> None:
        self._crashed = True
        try:
            while not self._no_more.is_set():
                self._app.run_forever(retry=self._retry, **self._settings.run)
                # A connection that this side closes is not made again; but what it was to flush is still to be sent.
                if not (self._settings.reconnects and self._outgoing.close_sent and self._outgoing.left):
                    break
                self._console.write(f"wsdump: {_unsent(self._outgoing.left)}; connecting again\n", STDERR)
                delay = self._settings.run["reconnect"]
                self._no_more.wait(_ONCE_MORE if isinstance(delay, Backoff) else delay)
            self._crashed = False
        except (WebSocketException, ValueError, TypeError) as error:
            self._failure = _told(error)
            self._crashed = False
        finally:
            self._is_over = True
            self._console.wake()

    def _retry(self, error: BaseException) -> bool:
        worth = is_worth_retrying(error)
        if worth and not self._no_more.is_set():
            self._console.write(f"wsdump: {on_one_line(_told(error))}; connecting again\n", STDERR)
        return worth

    def _on_open(self, app: WebSocketApp) -> None:
        websocket = app.sock
        assert websocket is not None
        if self._has_opened:  # the run of another run_forever()
            self._on_reconnect(app)
            return
        if self._takes_commands:
            protocol = websocket.getsubprotocol()
            chosen = f", subprotocol {protocol}" if protocol else ""
            self._say(f"connected to {self._url}{chosen}; Ctrl-D closes, /help tells more")
        self._opened(app)

    def _on_reconnect(self, app: WebSocketApp) -> None:
        self._console.write("wsdump: connected again\n", STDERR)
        self._opened(app)

    def _opened(self, app: WebSocketApp) -> None:
        assert app.sock is not None
        self._failure = ""
        self._is_open = True
        self._outgoing.opened(app.sock)
        self._has_opened = True
        self._console.wake()

    def _on_message(self, app: WebSocketApp, message: str | bytes) -> None:
        self._received += 1
        self._showing_since, self._heard = time.monotonic(), math.inf
        self._console.write(self._display.message(message))
        self._heard = time.monotonic()
        self._held_up += self._heard - self._showing_since
        self._showing_since = math.inf
        if self._console.at_end or not self._settings.reads_input:
            self._console.wake()  # it may wait for this answer

    def _on_ping(self, app: WebSocketApp, payload: bytes) -> None:
        if self._display.verbose:
            self._console.write(self._display.control("ping", payload))

    def _on_pong(self, app: WebSocketApp, payload: bytes) -> None:
        sent = self._pings.pop(payload, None)
        if sent is not None:
            took = f"({(time.monotonic() - sent) * 1000:.1f} ms)"
            self._console.write(self._display.control("pong", payload, took))
        elif self._display.verbose:
            self._console.write(self._display.control("pong", payload))

    def _on_error(self, app: WebSocketApp, error: Exception) -> None:
        self._failure = _told(error)
        self._outgoing.lost(getattr(error, "unsent", ()))

    def _on_close(self, app: WebSocketApp, code: int | None, reason: str | None) -> None:
        self._outgoing.lost(())
        was_open, self._is_open = self._is_open, False
        if not was_open or app.last_close_frame is None:
            return
        if code not in (None, STATUS_NORMAL, STATUS_GOING_AWAY, self._close[0]):
            # In answer to our close, too: the server has something to complain of.
            self._failure = f"the server closed the connection{_code(code, reason)}"
        if self._display.verbose:
            self._console.write(
                self._display.control("close", f"{'' if code is None else code} {reason or ''}".encode())
            )
        elif self._takes_commands and not self._failure:
            by_whom = "" if self._outgoing.close_sent or self._no_more.is_set() else " by the server"
            self._say(f"closed{by_whom}{_code(code, reason)}")


def _told(error: BaseException) -> str:
    """An exception for somebody who does not know the package."""
    if isinstance(error, WebSocketConnectionClosedException) and error.code is not None:
        return f"the server closed the connection{_code(error.code, error.reason)}"
    if type(error) is WebSocketConnectionClosedException and error.unsent:
        return _unsent(len(error.unsent))
    # Without the number that OSError puts first.
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _unsent(count: int) -> str:
    return f"the connection was closed before {count} message{'s' * (count > 1)} could be sent"


def _code(code: int | None, reason: str | None) -> str:
    return " without a code" if code is None else f" with code {code}" + (f" ({reason})" if reason else "")
