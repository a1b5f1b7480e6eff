"""Taking what has arrived: the side of a connection that recv() is.

A taker that finds the inbox empty and the reading turn free borrows that and reads for itself; else it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from .._abnf import ABNF
from .._exceptions import WebSocketException, WebSocketTimeoutException
from .._message import MessageInParts, RawText
from .._parser import Parser
from .callback_reader import Batch
from .end import End
from .inbox import Inbox
from .reader import Reader

_TIMED_OUT: Final = "Connection timed out: no message arrived in time"


class Receiving:
    """See the module. Any thread may call any method at any time.

    has_consumer: messages go to callbacks.  gives_parts: messages can be handed over in parts.  answer_breach: called
    when somebody gets the exception of a peer that broke the protocol, or is the first to find nothing more.
    """

    def __init__(
        self,
        inbox: Inbox,
        reader: Reader,
        parser: Parser,
        end: End,
        *,
        has_consumer: bool,
        gives_parts: bool,
        answer_breach: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._reader = reader
        self._parser = parser
        self._end = end
        self._has_consumer = has_consumer
        self._gives_parts = gives_parts
        self._answer_breach = answer_breach

    def receive(self, deadline: float | None, control: bool = False) -> Any:
        """The next item of the inbox: str, bytes, RawText, Fragment, or ABNF for the peer's close frame and, with
        `control`, pings and pongs.

        Raises WebSocketTimeoutException after the deadline (time.monotonic()), the exception that ended the
        connection once, and closed_error() from then on.
        """
        item = self.receive_start(deadline, control)
        return self.join(item, deadline) if type(item) is MessageInParts else item

    def receive_start(self, deadline: float | None, control: bool = False) -> Any:
        """receive(), but a MessageInParts for a message that is still arriving."""
        if self._has_consumer:
            raise WebSocketException("messages of a WebSocketApp go to its callbacks; there are none for recv()")
        return self._take(deadline, lambda: self._inbox.take(control))

    # ---- messages in parts ----

    def begin_parts(self) -> None:
        """Hand over messages while they arrive, from now on. Raises WebSocketException where that is not possible."""
        if not self._gives_parts:
            raise WebSocketException(
                "recv_streaming() is not possible where messages go to callbacks, or with fire_cont_frame, which gives"
                " frames already"
            )
        if self._parser.parts_from != 0:
            self._parser.parts_from = 0
            self._reader.hand_over_begun()

    def receive_part(self, message: MessageInParts, deadline: float | None) -> Any:
        """The next part of a message that was taken, None at its end, or the peer's close frame where that came within
        it. Raises as receive().

        Where an exception of a signal handler costs a part, the rest is dropped: a message has no holes.
        """
        is_in_hand = False

        def take() -> Any:
            nonlocal is_in_hand
            is_in_hand = bool(message.parts)
            return self._inbox.take_part(message)

        try:
            part = self._take(deadline, take)
        except BaseException:
            if is_in_hand:
                self.drop(message)
            raise
        return None if part is message else part

    def join(self, message: MessageInParts, deadline: float | None) -> Any:
        """The whole of a message that was taken: str, bytes or RawText; or the peer's close frame, where that came
        within it. Raises as receive(); after a timeout the next receive() goes on with it."""
        try:
            while (part := self.receive_part(message, deadline)) is not None:
                if isinstance(part, ABNF):
                    return part
                message.taken.append(part)
        except BaseException as error:
            if isinstance(error, WebSocketTimeoutException) or not isinstance(error, WebSocketException):
                with self._inbox.lock:
                    if not message.is_dropped:
                        self._inbox.put_back(message)
            raise
        parts = message.taken
        if message.opcode == ABNF.OPCODE_TEXT and not (parts and isinstance(parts[0], bytes)):
            return "".join(parts)
        return RawText(b"".join(parts)) if message.opcode == ABNF.OPCODE_TEXT else b"".join(parts)

    def drop(self, message: MessageInParts) -> None:
        """Nobody wants the rest of a message that was taken."""
        self._inbox.drop(message)

    # ---- polling ----

    def fileno(self) -> int:
        """A descriptor that is readable exactly while receive_start() would not wait. From the first call on the reader
        thread alone reads."""
        descriptor = self._inbox.event().fileno()
        with self._inbox.lock:
            self._reader.recall()
        return descriptor

    def fileno_of_all(self) -> int:
        """fileno() for receive_batch()."""
        descriptor = self._inbox.event(controls=True).fileno()
        with self._inbox.lock:
            self._reader.recall()
        return descriptor

    def receive_batch(self, limit: int) -> Batch | None:
        """At most `limit` messages, and the control frames between them, maybe none; None once all has been taken
        and the connection has ended. Never waits."""
        with self._inbox.lock:
            batch = self._inbox.take_batch(limit)
            is_over = self._inbox.ended and not (batch[0] or batch[1])
        if is_over:
            self._answer_breach()
        return None if is_over else batch

    # ---- inside ----

    def _take(self, deadline: float | None, take: Callable[[], Any]) -> Any:
        """What `take`, called with the inbox's lock held, gives as soon as that is not None; see receive()."""
        inbox = self._inbox
        turn = inbox.turn
        in_time = True
        borrowed = False
        while True:
            borrowed_before, borrowed = borrowed, False
            try:
                with inbox.lock:
                    item = take()
                    if item is not None or inbox.ended:
                        break
                    if not in_time:
                        raise WebSocketTimeoutException(_TIMED_OUT)
                    if borrowed_before and deadline is not None and time.monotonic() >= deadline:
                        raise WebSocketTimeoutException(_TIMED_OUT)  # pings alone are no message
                    if turn.is_mine():
                        raise WebSocketException(
                            "recv() inside recv() of the same thread, by a signal or log handler: it would wait for"
                            " itself"
                        )
                    if turn.holder or inbox.is_polled or inbox.is_full():  # full: of another's message in parts
                        in_time = inbox.wait(deadline)
                    else:
                        borrowed = True
                        turn.take()
                if borrowed:
                    in_time = self._reader.read_lent(deadline)
            except BaseException:
                with inbox.lock:
                    if borrowed and turn.is_mine():
                        turn.give_back()
                raise
        if item is None:
            if not self._end.know(deadline):
                raise WebSocketTimeoutException("the connection has ended, and what is unsent is not known yet")
            raise self._end.closed_error()
        if isinstance(item, WebSocketException):
            self._answer_breach()
            self._end.know(deadline)
            self._end.complete(item)
            raise item
        return item
