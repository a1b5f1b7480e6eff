"""What the client of soak.py does on its connections. A slot has one at a time, and the next after it.

A PlainSlot has a WebSocket: one thread sends, one receives (and answers now and then), a third pings, closes and
connects again. An AppSlot has a WebSocketApp that reconnects by itself: a thread sends on its connections, on_message
answers now and then. Where the proxy leaves a connection alone until its time is over, it ends in one of these ways,
after which every message must have come back: send_close() and receiving to the end; close() after the last echo; for
an app a message that makes the server close with 1012. Or it ends by close() at once, behind many messages: then all
must have reached the server.

No exception is caught but those that the package documents. All others end their thread, and soak.py hears of them.
"""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from soak_account import AT_ONCE, Judge, Record
from soak_message import compose

from websocket import (
    ABNF,
    Backoff,
    WebSocket,
    WebSocketApp,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
)

LIVES = (1.0, 14.0)  # seconds that a connection is used for, unless the proxy ends it
PATIENCE = 12.0  # seconds for the last echo; a proxy that does no damage needs 2 s at most
HANG = 20.0  # seconds after which a thread that should have ended hangs
TIMEOUT = 5.0  # seconds, of connecting and of send()
KEEPALIVE = {"ping_interval": 4.0, "ping_timeout": 3.0}
BEFORE_NEXT = 0.1  # seconds at most before a slot's next connection
RECONNECT = Backoff(first=0.05, limit=0.4)
BODIES = {16: 30, 200: 40, 2_000: 25, 20_000: 4.5, 150_000: 0.5}  # sizes, and how often of 100
BURST = 20  # messages, one at once after the other
BACKLOG = 40  # messages right before a close
BURSTS = 0.02  # of all pauses between messages, those that a burst follows
ANSWERS = 0.05  # of all messages received, those that are answered
PINGS = 0.05  # of the looks of a slot's own thread, ten a second

_POOL = "".join(random.Random(0).choices(string.ascii_letters + "äß€", k=400_000))


@dataclass(frozen=True)
class Settings:
    """What all slots have in common. options: of connect()."""

    rate: float
    options: dict[str, Any]
    judge: Judge
    stop: threading.Event


class Use:
    """One connection in use: its record, and sending."""

    def __init__(self, slot: Slot, ws: WebSocket) -> None:
        headers = ws.getheaders()
        assert headers is not None, "a connection that stands has had a handshake"
        self.ws = ws
        self.record = Record(slot.number, int(headers["x-soak-serial"]), slot.is_secure)
        self.hushed = threading.Event()  # nothing more is to be sent
        self.is_closing = False  # close() is called
        self._slot = slot
        self._next = [0, 0]
        self._answering = threading.Lock()
        slot.settings.judge.begun()

    def send(self, stream: int, chance: random.Random, send: Callable[[Any, int], Any], word: str = "echo") -> bool:
        """Send a message; False where it was not accepted. One thread for each stream."""
        number = self._next[stream]
        self._next[stream] += 1
        size = chance.choices(list(BODIES), list(BODIES.values()))[0]
        start = chance.randrange(len(_POOL) - size)
        message = compose(self.record.serial, stream, number, word, _POOL[start : start + size])
        try:
            send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)
        except WebSocketTimeoutException:
            self._slot.settings.judge.timed_out()
            return False
        except WebSocketConnectionClosedException:
            return False
        self.record.accepted[stream].append(number)
        return True

    def send_on(self, chance: random.Random, until: Callable[[], bool]) -> None:
        """Send at the rate until something is against it."""
        while not self.hushed.wait(chance.expovariate(self._slot.settings.rate)) and not until():
            for _ in range(BURST if chance.random() < BURSTS else 1):
                if not self.send(0, chance, self.ws.send):
                    break

    def send_many(self, chance: random.Random) -> None:
        """Messages that may be waiting to be written when this returns."""
        for _ in range(BACKLOG):
            if not self.send(0, chance, self.ws.send):
                break

    def answer(self, chance: random.Random, send: Callable[[Any, int], Any]) -> None:
        """What who receives does now and then."""
        if chance.random() < ANSWERS:
            with self._answering:
                if not self.hushed.is_set():
                    self.send(1, chance, send)

    def hush(self) -> None:
        """No answer is begun from here on, and none is under way."""
        self.hushed.set()
        with self._answering:
            pass

    def await_echoes(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.record.outstanding > 0 and time.monotonic() < deadline and not self.record.ended.wait(0.02):
            pass

    def conclude(self) -> None:
        self.record.unsent = list(self.ws.unsent)
        self._slot.settings.judge.ended(self.record)


class Slot:
    """One after the other: connections to one port of the proxy."""

    def __init__(self, number: int, url: str, seed: int, settings: Settings, options: dict[str, Any]) -> None:
        self.number = number
        self.url = url
        self.is_secure = url.startswith("wss")
        self.settings = settings
        self.options = settings.options | options
        self.chances = [random.Random(f"{seed} {number} {role}") for role in ("slot", "sender", "receiver")]
        self.threads: list[threading.Thread] = []

    def _thread(self, role: str, body: Callable[..., None], *arguments: Any) -> threading.Thread:
        return threading.Thread(target=body, args=arguments, name=f"soak {role} {self.number}", daemon=True)

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _pause(self) -> None:
        self.settings.stop.wait(self.chances[0].uniform(0, BEFORE_NEXT))

    def _error(self, kind: str, detail: str = "") -> None:
        self.settings.judge.error(kind, f"slot {self.number} {self.url} {detail}")


class PlainSlot(Slot):
    """See the module."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.threads = [self._thread("slot", self._run)]

    def _run(self) -> None:
        while not self.settings.stop.is_set():
            try:
                ws = create_connection(self.url, timeout=TIMEOUT, **self.options)
            except WebSocketException as error:
                self.settings.judge.attempt_failed(self.number, error)
            else:
                self._use(Use(self, ws))
            self._pause()

    def _use(self, use: Use) -> None:
        chance, record, ws = self.chances[0], use.record, use.ws
        sender = self._thread("sender", use.send_on, self.chances[1], record.ended.is_set)
        receiver = self._thread("receiver", self._receive, use)
        sender.start()
        receiver.start()
        deadline = time.monotonic() + chance.uniform(*LIVES)
        while not record.ended.wait(0.1) and time.monotonic() < deadline and not self.settings.stop.is_set():
            if chance.random() < PINGS:
                try:
                    ws.ping("are you there?")
                except (WebSocketConnectionClosedException, WebSocketTimeoutException):
                    pass  # the receiver hears of it; more pings wait than may
        use.hush()
        self._join(sender)
        way = chance.choice(("send_close", "after echoes", "at once"))
        if record.ended.is_set():
            pass
        elif way == "send_close":
            use.send_many(self.chances[1])
            record.asked = "send_close()"
            try:
                ws.send_close()
            except WebSocketConnectionClosedException:
                pass  # the receiver hears of it
            record.ended.wait(PATIENCE)
        elif way == "after echoes":
            use.await_echoes()
            record.asked = "close()"
        else:
            use.send_many(self.chances[1])
            record.asked = AT_ONCE
        use.is_closing = True
        ws.close(timeout=PATIENCE if record.asked == AT_ONCE else 2)
        self._join(receiver)
        use.conclude()

    def _join(self, thread: threading.Thread) -> None:
        thread.join(HANG)
        if thread.is_alive():
            self._error("hangs", thread.name)

    def _receive(self, use: Use) -> None:
        chance, record, ws = self.chances[2], use.record, use.ws
        try:
            while True:
                message = ws.recv(timeout=None)
                if message != "":  # of the peer's close frame
                    record.take(message)
                    use.answer(chance, ws.send)
        except WebSocketException as error:
            is_closing = use.is_closing
            if not (record.asked and (is_closing or error.code == 1000)):
                record.errors.append(error)
                record.end = type(error).__name__
            final = error if isinstance(error, WebSocketConnectionClosedException) else self._last_word(ws)
            if not is_closing and final is not None:  # else what is unsent is not known before close() has returned
                record.told_unsent = list(final.unsent)
        finally:
            record.ended.set()

    def _last_word(self, ws: WebSocket) -> WebSocketException | None:
        """After the exception that is told once, each recv() raises the other."""
        try:
            message = ws.recv(timeout=None)
        except WebSocketConnectionClosedException as error:
            return error
        self._error("recv() after the end", repr(message[:80]))
        return None


class AppSlot(Slot):
    """See the module. What callbacks change is read by the sender, as one look."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._app = WebSocketApp(
            self.url,
            on_open=self._on_open,
            on_reconnect=self._on_open,
            on_message=self._on_message,
            on_pong=self._on_pong,
            on_error=self._on_error,
            on_close=self._on_close,
        )
        self._use_now: Use | None = None
        self._is_over = False  # on_close has come that belongs to no connection: the run's last call
        self._runner = self._thread("runner", self._run)
        self.threads = [self._runner, self._thread("app sender", self._send)]

    # ---- the thread of run_forever() ----

    def _run(self) -> None:
        while not self.settings.stop.is_set():
            self._is_over = False
            self._app.run_forever(reconnect=RECONNECT, timeout=TIMEOUT, **self.options)
            if self._use_now is not None:
                self._error("no on_close", f"connection {self._use_now.record.serial}: run_forever() has returned")
                self._use_now = None
            self._pause()

    # ---- callbacks ----

    def _on_open(self, app: WebSocketApp) -> None:
        if self._use_now is not None or self._is_over:
            self._error("on_open before on_close, or after the run's last", f"{self._use_now} {self._is_over}")
        assert app.sock is not None
        self._use_now = Use(self, app.sock)

    def _on_message(self, app: WebSocketApp, message: str | bytes) -> None:
        use = self._use_now
        if use is None:
            self._error("on_message without a connection")
        else:
            use.record.take(message)
            use.answer(self.chances[2], app.send)

    def _on_pong(self, _: WebSocketApp, payload: bytes) -> None:
        if self._use_now is None:
            self._error("on_pong without a connection", repr(payload))

    def _on_error(self, _: WebSocketApp, error: BaseException) -> None:
        use = self._use_now
        if not isinstance(error, WebSocketException):
            self._error("on_error with what is none of the package's", repr(error))
        if self._is_over:
            self._error("on_error after the run's last on_close", repr(error))
        if use is None:
            self.settings.judge.attempt_failed(self.number, error)
            return
        record = use.record
        if isinstance(error, WebSocketException):
            record.told_unsent = list(error.unsent)
        if record.asked == "bye" and isinstance(error, WebSocketException) and error.code == 1012:
            return
        record.errors.append(error)
        record.end = type(error).__name__

    def _on_close(self, _: WebSocketApp, code: int | None, __: str | None) -> None:
        use, self._use_now = self._use_now, None
        if use is None:
            if self._is_over:
                self._error("on_close twice")
            self._is_over = True
            return
        record = use.record
        record.told_unsent = record.told_unsent or []
        if record.asked == "bye" and not record.errors:
            record.end = f"closed with {code}"
        record.ended.set()
        use.conclude()

    # ---- the sender ----

    def _send(self) -> None:
        while not self.settings.stop.is_set():
            use = self._use_now
            if use is None:
                self.settings.stop.wait(0.02)
            else:
                self._use(use)
        deadline = time.monotonic() + HANG
        while self._runner.is_alive() and time.monotonic() < deadline:
            self._app.close()  # again: the next run may have been about to begin
            self._runner.join(0.2)

    def _use(self, use: Use) -> None:
        chance, record = self.chances[1], use.record
        deadline = time.monotonic() + chance.uniform(*LIVES)
        use.send_on(
            chance,
            lambda: record.ended.is_set() or time.monotonic() >= deadline or self.settings.stop.is_set(),
        )
        use.hush()
        way = chance.choice(("bye", "after echoes", "at once"))
        if way == "bye" and not record.ended.is_set():
            use.send_many(chance)
            record.asked = "bye"
            if use.send(0, chance, use.ws.send, "bye"):
                record.ended.wait(PATIENCE)
        if way == "at once":
            use.send_many(chance)
        else:
            use.await_echoes()
        if not record.ended.is_set():
            record.asked = record.asked or (AT_ONCE if way == "at once" else "app.close()")
            self.settings.judge.gave_up(self.number)  # maybe of the attempt after this connection
            self._app.close(timeout=PATIENCE if way == "at once" else 2)
        if not record.ended.wait(HANG):
            self._error("hangs", f"no on_close of connection {record.serial}")
