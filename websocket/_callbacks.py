"""Calling a WebSocketApp's callbacks: in the order of the wire, with an exception of one going to on_error.

Runs on whatever thread delivers: a connection's reader, run_forever's own, or a foreign loop's; never two at once. What
is no Exception (SystemExit, KeyboardInterrupt) is let through to who called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from . import _logging
from ._abnf import ABNF
from ._message import Fragment, RawText

_TEXT: Final = ABNF.OPCODE_TEXT
_BINARY: Final = ABNF.OPCODE_BINARY


class Callbacks:
    """The callbacks of one app. They are looked up for each call, since a program may exchange them at any time."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def opened(self, again: bool) -> None:
        """A connection stands. again: another one stood before it in this run."""
        app = self._app
        self._call(app.on_reconnect if again and app.on_reconnect is not None else app.on_open)

    def failed(self, error: BaseException) -> None:
        """An attempt or a connection has failed."""
        self._call(self._app.on_error, error)

    def closed(self, code: int | None, reason: str | None) -> None:
        """A connection that stood has ended, or the run has."""
        self._call(self._app.on_close, code, reason)

    def deliver(self, messages: list[Any], controls: list[tuple[int, ABNF]]) -> bool:
        """What has arrived. controls: pings and pongs, each with the number of messages before it. False where the
        program wants no more."""
        app = self._app
        done = 0
        for index, frame in controls:
            if index > done:
                if not self._messages(messages[done:index]):
                    return False
                done = index
            if not app.keep_running:
                return False
            self._call(app.on_ping if frame.opcode == ABNF.OPCODE_PING else app.on_pong, frame.data)
        return self._messages(messages[done:] if done else messages)

    def _messages(self, messages: list[Any]) -> bool:
        app = self._app
        remaining = iter(messages)
        while True:
            try:
                # 0.15 us for a message; the try around the loop and not in it.
                for message in remaining:
                    if not app._keep_running:
                        return False
                    kind = type(message)
                    if (kind is str or kind is bytes) and app.on_data is None:
                        on_message = app.on_message
                        if on_message is not None:
                            on_message(app, message)
                    else:
                        self._with_data(message)
                return bool(app.keep_running)
            except Exception as error:  # noqa: BLE001  # of on_message, which is the program's
                self._report(app.on_message, error)

    def _with_data(self, message: Any) -> None:
        """One message for on_data and on_message, or one fragment for on_data and on_cont_message."""
        app = self._app
        if isinstance(message, Fragment):
            if message.opcode == ABNF.OPCODE_CONT and app.on_cont_message is not None:
                self._call(app.on_data, message.data, ABNF.OPCODE_CONT, message.fin)
                if app.keep_running:
                    self._call(app.on_cont_message, message.data, message.fin)
                return
            data: Any = message.data if message.text is None else message.text
            opcode, fin = message.opcode, bool(message.fin)
        else:
            data = bytes(message) if isinstance(message, RawText) else message
            opcode, fin = (_BINARY if type(message) is bytes else _TEXT), True
        self._call(app.on_data, data, opcode, fin)
        if app.keep_running:
            self._call(app.on_message, data)

    def _call(self, callback: Callable[..., Any] | None, *arguments: Any) -> None:
        if callback is None:
            return
        try:
            callback(self._app, *arguments)
        except Exception as error:  # noqa: BLE001  # whatever the program's function raises
            self._report(callback, error)

    def _report(self, callback: Callable[..., Any] | None, error: Exception) -> None:
        """An exception of a callback goes to on_error; one of on_error itself to the log."""
        on_error = self._app.on_error
        _logging.logger.error("error from callback %r: %r", callback, error, exc_info=error)
        if on_error is not None and callback is not on_error:
            self._call(on_error, error)
