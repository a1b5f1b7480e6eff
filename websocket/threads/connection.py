"""One open connection: its transport, queues, threads and state.

open -> closing -> closed. It is closing once this side has asked for the end, the peer has sent its close frame or
broken the protocol, or something has failed; the first of these is the cause. The reader thread ends it: drains
what the peer still sends, joins the writer where there is one, and gives the socket back. Nothing here knows the
WebSocket in front, so that a program that drops that one can be noticed.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from .. import _logging
from .._abnf import (
    ABNF,
    STATUS_GOING_AWAY,
    close_payload,
    new_masking_key,
)
from .._deflate import Agreement, Inflater
from .._exceptions import WebSocketException
from .._frames import encode_frame
from .._parser import DEFAULT_MAX_MESSAGE_SIZE, Parser
from .._transport import Transport, unacknowledged_bytes
from . import lifetime
from .callback_reader import CallbackReader, Consumer
from .condition import is_owned
from .deflating import Deflating
from .end import VERDICT, End
from .ending import Ending
from .inbox import Inbox
from .limits import Limits
from .outbox import Outbox
from .outlet import Outlet
from .pinger import Keepalive, Pinger
from .reader import Reader
from .receiving import Receiving
from .writer import Writer

# After the close frames the server ends the TCP stream first (RFC 6455 7.1.1), and one that does not is asked to
# by our own end; both within the time that a busy server may need.
_PATIENCE: Final = 0.25  # seconds until our end
_WRITING: Final = 0.1  # seconds for our close frame, before the peer's end is looked for
_LINGER: Final = 1.0  # seconds in all

# Where the peer has broken the protocol, the program may answer the messages before that: until it comes for more, and
# at most so long.
_REPLY: Final = 1.0  # seconds

# A dropped connection gets as long for its closing as close() gives by default.
_UNATTENDED_CLOSE: Final = 3.0

_CLOSE: Final = 0x80 | ABNF.OPCODE_CLOSE


def _going_away() -> bytes:
    """The close frame of a connection that nobody closes."""
    return encode_frame(_CLOSE, close_payload(STATUS_GOING_AWAY, ""), new_masking_key())


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the connection for its parts, which hold it by this no longer than its threads and callers do: it is
    freed when the last of these lets go of it, not by the garbage collector. So who calls a method of a part holds the
    connection meanwhile."""
    # Not a WeakMethod, which takes longer to make: each connection has nine of these, and they share this reference.
    reference = weakref.ref(method.__self__)  # type: ignore[attr-defined]
    function = method.__func__  # type: ignore[attr-defined]

    def call(*arguments: Any) -> Any:
        connection = reference()
        assert connection is not None, "the connection is gone, and one of its parts is still at work"
        return function(connection, *arguments)

    return call


_numbers = itertools.count(1)  # next() of it is atomic


class Connection:
    """See the module. Any thread may call any public method at any time."""

    def __init__(
        self,
        transport: Transport,
        peer: str,
        limits: Limits,
        *,
        first_bytes: bytes = b"",
        compression: Agreement | None = None,
        skip_utf8_validation: bool = False,
        fire_cont_frame: bool = False,
        keepalive: Keepalive | None = None,
        consumer: Consumer | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        """peer: what the connection is called in messages, "ws://host:port".  first_bytes: what was received
        behind the handshake.  compression: what was agreed about it.  consumer: gets what arrives, in place of
        receiving.receive(), from begin_callbacks() on.
        on_closed: called by the reader thread as its last act."""
        self.name = f"{peer} #{next(_numbers)}"
        self.transport = transport
        self.inbox = Inbox(
            limits.max_inbox_messages,
            limits.max_inbox_bytes,
            special=skip_utf8_validation or fire_cont_frame or consumer is not None,
        )
        self.outlet = Outlet(
            transport,
            limits.max_outbox_messages,
            limits.max_outbox_bytes,
            on_failure=weakly(self._recall_reader),
            on_settled=weakly(self._on_settled),
            start_writer=weakly(self._start_writer),
        )
        self.outbox = Outbox(self.outlet, refusal=weakly(self._closed_error))
        self.end = End(self.inbox, self.outlet, may_wait=weakly(self._may_wait))
        self.deflating = None if compression is None else Deflating(compression, self.outbox)
        # Not to callbacks, and not where frames are.
        gives_parts = not (fire_cont_frame or consumer or on_closed)
        parser = Parser(
            max_message_size=limits.max_message_size,
            skip_utf8_validation=skip_utf8_validation,
            fire_cont_frame=fire_cont_frame,
            inflater=None if compression is None else Inflater(compression),
            # Without a limit the memory is bounded all the same, where the program takes what comes.
            parts_from=DEFAULT_MAX_MESSAGE_SIZE if gives_parts and limits.max_message_size is None else None,
        )
        self.last_pong = 0.0  # reading turn: when (time.time()) a pong came
        self._on_closed = on_closed
        options: dict[str, Any] = {
            "name": self.name,
            "on_pong": weakly(self._on_pong),
            "end": self.end,
            "on_end": weakly(self._on_end),
            "wind_up": weakly(self._wind_up),
        }
        self._callback_reader: CallbackReader | None = None
        self._reader: Reader
        if consumer is None:
            recallable = keepalive is not None
            self._reader = Reader(transport, parser, self.inbox, self.outbox, recallable=recallable, **options)
        else:
            self._callback_reader = self._reader = CallbackReader(
                transport, parser, self.inbox, self.outbox, consumer=consumer, progress=self.end.progress, **options
            )
        self.receiving = Receiving(
            self.inbox,
            self._reader,
            parser,
            self.end,
            has_consumer=consumer is not None,
            gives_parts=gives_parts,
            answer_breach=weakly(self._answer_breach),
        )
        self._writer = Writer(transport, self.outlet)
        self._pinger: Pinger | None = None
        self._pinger_thread: threading.Thread | None = None
        if keepalive is not None:
            self._pinger = Pinger(
                keepalive, self._reader, self.inbox, self.outbox, self.end.progress, weakly(self._has_ended_receiving)
            )
            self._pinger_thread = self._thread("pinger", self._pinger.run)
        self._first_bytes = first_bytes
        self._actors: set[int] = set()  # idents of the connection's threads, while they run; each adds its own
        self._reader_thread = self._thread("reader", self._read)
        self._writer_thread: threading.Thread | None = None

    def _thread(self, role: str, body: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._act, args=(body,), name=f"websocket-{role} {self.name}", daemon=True)

    def _act(self, body: Callable[[], None]) -> None:
        self._actors.add(threading.get_ident())
        try:
            body()
        finally:
            self._actors.discard(threading.get_ident())

    def _closed_error(self) -> WebSocketException:
        return self.end.closed_error()

    def _may_wait(self) -> bool:
        return not (self._is_actor() or self._is_inside())

    def _has_ended_receiving(self) -> bool:
        return self.inbox.ended

    def start(self) -> None:
        """Start the threads, but for the writer's. Once, before anything else. Whatever it raises, the connection ends
        and leaves nothing: WebSocketException where no thread can be started."""
        try:
            lifetime.watch_exit(self)
            self._reader.take_first(self._first_bytes)
            if self._pinger_thread is not None:
                self._pinger_thread.start()
            self._reader_thread.start()
        except BaseException as error:
            self._cut()
            # The thread that was to be started may run all the same: who is first ends the connection.
            if self.end.claim():
                self._reader.wind_up_unstarted()
            lifetime.forget(self)
            if isinstance(error, RuntimeError):
                raise WebSocketException(f"{self.name}: no thread can be started: {error}") from error
            raise

    def _read(self) -> None:
        """The reader thread."""
        if not self.end.claim():
            return
        try:
            self._reader.run()
        finally:
            try:
                if self._callback_reader is not None and self._callback_reader.has_begun and not self.end.orphaned:
                    self._callback_reader.call_last()
            finally:
                self.end.reach(told=True)
            on_closed, self._on_closed = self._on_closed, None
            if on_closed is not None:
                on_closed()
            lifetime.forget(self)

    def _start_writer(self) -> None:
        """For the outlet. On a bare thread, as a send() that a signal handler makes or interrupts is no place to wait
        until a thread has started."""
        lifetime.run_on_bare_thread(self._become_writer)

    def _become_writer(self) -> None:
        if not self.outlet.admit_writer():
            return
        try:
            thread = self._thread("writer", self._writer.run)
            self._writer_thread = thread  # before it runs: who winds up joins it
            thread.start()
        except (RuntimeError, MemoryError):  # then this one does it, which has no name
            self._writer_thread = None
            self._act(self._writer.run)

    def _on_settled(self) -> None:
        self.end.reach(settled=True)

    def _await_writer(self) -> None:
        """The writer has been stopped: let it end."""
        if not self.outlet.has_writer:
            self.outlet.settle()
            return
        self.end.wait_for(lambda: self.end.settled, None)
        if self._writer_thread is not None:
            self._writer_thread.join()

    # ---- callbacks ----

    def begin_callbacks(self) -> bool:
        """The connection is where callbacks find it: let them begin. False where this side has ended it already, so
        that there will be none."""
        assert self._callback_reader is not None
        return self._callback_reader.begin()

    @property
    def has_begun_callbacks(self) -> bool:
        """Whether begin_callbacks() was called, so that the consumer gets a last call."""
        return self._callback_reader is not None and self._callback_reader.has_begun

    def attend(self) -> None:
        """Wait until the consumer has had its last call; meanwhile read while a callback takes long."""
        assert self._callback_reader is not None
        self._callback_reader.attend(lambda: self.end.told)

    @property
    def latency(self) -> float | None:
        """Seconds from the latest answered ping of the keepalive to its pong."""
        return None if self._pinger is None else self._pinger.latency

    @property
    def last_ping(self) -> float:
        """When (time.time()) the keepalive sent its latest ping; 0.0 before the first."""
        return 0.0 if self._pinger is None else self._pinger.last_ping

    # ---- the end ----

    def begin_close(self, frame: bytes) -> bool:
        """Accept nothing more to send, write what was accepted and then the close frame; go on receiving. False
        where the end has begun already."""
        if self._is_inside():
            self._elsewhere(lambda: self._ask_for_end(frame))
            return True
        return self._ask_for_end(frame)

    def close(self, status: int, reason: str | bytes, timeout: float | None) -> None:
        """Do the closing handshake: flush, close frame, the peer's answer, the end of the stream; at most
        `timeout` seconds (None: as long as it takes), then cut the connection. Wakes every waiter at once. When
        it returns, the threads have ended. Called by a signal handler that has interrupted a method of this
        connection, it only begins: what it would wait for waits for that method."""
        frame = self._close_frame(status, reason)
        if self._is_inside():
            self._elsewhere(lambda: self._shake_hands(frame, timeout))
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._shake_hands(frame, timeout)
        if not self._is_actor():
            self._await_last_call(deadline)

    def close_unattended(self, status: int, reason: str | bytes, timeout: float | None) -> None:
        """close() without waiting, for a thread that has other work to do."""
        frame = self._close_frame(status, reason)
        self._elsewhere(lambda: self._shake_hands(frame, timeout))

    def give_up(self, status: int, reason: str | bytes, timeout: float | None) -> None:
        """close_unattended(), and nothing is accepted any more when it returns (but within a signal handler)."""
        frame = self._close_frame(status, reason)
        self.begin_close(frame)
        self._elsewhere(lambda: self._shake_hands(frame, timeout))

    @staticmethod
    def _close_frame(status: int, reason: str | bytes) -> bytes:
        payload = close_payload(status, reason)
        if _logging.tracing:
            _logging.trace("++Sent close: %r", payload)
        return encode_frame(_CLOSE, payload, new_masking_key())

    def abort(self) -> None:
        """Cut the connection without a closing handshake, and wait for the threads; from a signal handler as
        close()."""
        if self._is_inside():
            self._elsewhere(self._cut)
            return
        self._cut()
        if not self._is_actor():
            self.end.wait_for(lambda: self.end.closed or self._is_calling(), VERDICT)
            self._await_last_call(0)

    def _await_last_call(self, deadline: float | None) -> None:
        """Let the reader thread end, which may be in a callback: that is waited for until the deadline at most."""
        if not (self.end.told or self._is_calling()):  # the last call may be about to begin
            self.end.wait_for(lambda: self.end.told or self._is_calling(), VERDICT)
        if self._is_calling():
            self._reader_thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        else:
            self._reader_thread.join(VERDICT)

    def _is_calling(self) -> bool:
        return self._callback_reader is not None and self._callback_reader.is_calling

    def release_event(self) -> None:
        """Give back the descriptor that fileno() has made, where the program does not poll any more."""
        if self.inbox.is_polled and not self._is_inside():
            self.inbox.close_event()

    def release(self) -> None:
        """The WebSocket in front is gone: close without anybody waiting. Called from __del__, maybe in the middle
        of anything, so the work is left to a thread of its own."""
        self._elsewhere(lambda: self._shake_hands(_going_away(), _UNATTENDED_CLOSE))

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to end it; after the peer's close, whether something still waits to be received."""
        # Looked at first: an end is seen before the outbox is closed, and the inbox hears of it after that.
        is_closing = self.outbox.is_closing
        if self.inbox.ended:
            return self.inbox.unread and not self.end.closed_here
        ending = self.end.ending
        if ending is not None:
            return self.inbox.unread or (ending.error or ending.close_frame) is not None
        return not is_closing

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun, on either side."""
        return self.inbox.ended

    @property
    def has_ended(self) -> bool:
        """Whether the socket is given back."""
        return self.end.closed

    @property
    def unsent(self) -> list[Any]:
        """What was accepted and not written; complete once the connection is closed."""
        return list(self.outlet.unsent)

    # ---- inside ----

    def _is_inside(self) -> bool:
        """Whether the calling thread is in the middle of a method of this connection: then this is a signal handler
        that has interrupted it, and must neither wait nor change what that method is working on."""
        return (
            self.inbox.turn.is_mine()
            or self.outlet.turn.is_mine()
            or is_owned(self.inbox.lock)
            or is_owned(self.outbox.lock)
            or is_owned(self.transport.guard)
            or is_owned(self._reader.parsing)
        )

    def _is_actor(self) -> bool:
        """Whether the calling thread is one of the connection's own, which nobody may wait for in it."""
        return threading.get_ident() in self._actors

    def _elsewhere(self, work: Callable[[], object]) -> None:
        """Do the work on a bare thread. Nothing in it may ask for threading.current_thread(), which would leave a dummy
        behind."""
        try:
            lifetime.run_on_bare_thread(work)
        except RuntimeError:  # no thread can be started: the process is at its end, or at its limit
            self._cut()

    def _shake_hands(self, frame: bytes, timeout: float | None) -> None:
        """Begin the end and wait for it; cut the connection where it does not come in time."""
        is_actor = self._is_actor()
        if is_actor and self._callback_reader is not None and timeout is not None:
            moment, before = time.monotonic() + timeout, self._callback_reader.close_by
            self._callback_reader.close_by = moment if before is None else min(before, moment)
        self._begin_end(frame)  # wakes the reader, which looks at close_by
        if not is_actor:
            self._wait_or_cut(timeout)

    def _wait_or_cut(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        self.outlet.write_here(deadline)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self.end.wait_until_closed(left):
            self._cut()
            self.end.wait_for(lambda: self.end.closed or self._is_calling(), VERDICT)

    def _begin_end(self, frame: bytes) -> None:
        self._stop_receiving()
        self._ask_for_end(frame)
        self._recall_reader()

    def _ask_for_end(self, frame: bytes) -> bool:
        self._answer_breach()
        first = self.outbox.begin_close(frame)
        self.end.asked_for = self.end.asked_for or first
        return first

    def _cut(self) -> None:
        self._stop_receiving()
        self.end.cut_off = True
        self.end.reach()
        if self.end.unacknowledged is None and not self.end.closed:
            with self.transport.guard:
                self.end.unacknowledged = unacknowledged_bytes(self.transport.sock)
        self.outlet.stop()
        self.transport.shutdown()
        self._recall_reader()

    def _stop_receiving(self) -> None:
        if self._callback_reader is not None:
            self._callback_reader.give_up()
        self.end.stop_receiving()

    def _recall_reader(self) -> None:
        with self.inbox.lock:
            self._reader.recall()

    def _on_pong(self, payload: bytes) -> None:
        self.last_pong = time.time()
        if self._pinger is not None:
            self._pinger.pong(payload)

    def _on_end(self, ending: Ending) -> None:
        """The reading turn has seen the end. Wakes everybody; does not wait. May be called again."""
        if ending.answer is None:
            if self.end.unacknowledged is None:
                self.end.unacknowledged = unacknowledged_bytes(self.transport.sock)
            self.outlet.stop()
            self.transport.shutdown()
        elif not self.end.answered and (ending.error is None or not self._may_be_replying()):
            self._answer(ending.answer)
        self.inbox.finish(ending.error or ending.close_frame)
        self.end.reach()

    def _may_be_replying(self) -> bool:
        """Whether the program may have taken a message before the peer broke the protocol, and not come back yet."""
        has_some = self.inbox.has_delivered or self._callback_reader is not None
        return has_some and not self.outbox.has_blocked

    def _answer_breach(self) -> None:
        """Where the peer has broken the protocol: tell it now."""
        ending = self.end.ending
        if ending is not None and ending.error is not None and ending.answer is not None and not self.end.answered:
            # Behind the program's replies, unless the peer does not take them.
            self._answer(ending.answer, flush=not self.outbox.has_blocked)

    def _answer(self, payload: bytes, flush: bool = False) -> None:
        """Send the close frame that answers the peer's doing; with `flush` behind what was accepted."""
        frame = encode_frame(_CLOSE, payload, new_masking_key())
        answers = self.outbox.begin_close(frame) if flush else self.outbox.answer_close(frame)
        if answers and _logging.tracing:
            _logging.trace("++Sent close: %r", payload)
        self.end.reach(answered=True)

    def _wind_up(self) -> None:
        """The last of the reader thread: see the module."""
        ending = self.end.ending
        assert ending is not None
        try:
            self._on_end(ending)  # again: an exception of a signal handler may have cut it short in a borrower
            if ending.answer is not None:
                if self._callback_reader is None and not self.end.answered:  # else the callbacks have returned
                    self.end.wait_for(lambda: self.end.answered or self.end.cut_off, _REPLY)
                self._answer_breach()
                self._linger()
        finally:
            self.outlet.stop()
            self.transport.shutdown()
            self._await_writer()
            if self._pinger_thread is not None and self._pinger_thread.ident is not None:
                self._pinger_thread.join()
            self.transport.close()
            self._reader.close()
            self.end.reach(closed=True)
        if self.outlet.unsent:
            _logging.warning("%s: closed with %d messages unsent", self.name, len(self.outlet.unsent))

    def _await_close_frame(self, timeout: float) -> None:
        if not self.end.settled:
            self.end.wait_for(lambda: self.end.settled or self.end.cut_off, timeout)

    def _linger(self) -> None:
        """Let the peer end the stream, so that it has all that was sent before a reset can destroy it."""
        start = time.monotonic()
        # A peer that has ended its side may still read our close frame, but OpenSSL writes nothing once it has read an
        # end without close_notify. A peer that reads nothing before it has written all is drained meanwhile.
        self._await_close_frame(_WRITING)
        if self.end.cut_off:
            return
        if self._reader.drain(start + _PATIENCE):
            self._await_close_frame(_PATIENCE)
            return
        if self.end.cut_off:
            return
        if self.end.settled:
            self.transport.finish()
        self._reader.drain(start + _LINGER)

    # ---- the end of the process, and fork ----

    def begin_exit(self) -> None:
        """For lifetime: start to flush and close."""
        self._begin_end(_going_away())

    def finish_exit(self, deadline: float) -> None:
        """For lifetime: wait for that, and give up at the deadline."""
        if not (self.end.cut_off and self._is_calling()):  # else it waits for a callback of the program
            self._wait_or_cut(max(0.0, deadline - time.monotonic()))
        if self._reader_thread.ident is not None and not self._is_calling():
            self._reader_thread.join(max(0.0, deadline - time.monotonic()))

    def after_fork_in_child(self) -> None:
        """For lifetime: the descriptors are closed, which leaves the parent's alone; locks and queues are made
        anew, dead."""
        self._reader.close_in_child()
        self.inbox.close_in_child()
        self.outbox.close_in_child()
        if self.deflating is not None:
            self.deflating.close_in_child()
        self.transport.close_in_child()
        self.end.orphan()
