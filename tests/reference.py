"""What a parser says about a stream, twice: by the package's Parser, and by a second one that was written for the tests
alone: slow, strict, a frame at a time by the words of the RFC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from websocket._message import Fragment, RawText
from websocket._parser import Parser


class Outcome:
    """All that a parser said about a stream: messages and control frames in their order, and how it ended."""

    def __init__(self, stream: bytes, cuts: Iterable[int] = (), **options: Any) -> None:
        self.parser = parser = Parser(**options)
        self.events: list[Any] = []
        start = 0
        for cut in [*cuts, len(stream)]:
            messages = parser.feed(stream[start:cut])
            start = cut
            taken = 0
            for position, control in parser.controls:
                self.events += [self._plain(message) for message in messages[taken:position]]
                taken = position
                self.events.append((control.opcode, control.data))
            self.events += [self._plain(message) for message in messages[taken:]]
        self.error_code = parser.error_code
        self.closed = parser.closed
        self.at_boundary = parser.at_message_boundary()

    @staticmethod
    def _plain(message: Any) -> Any:
        if isinstance(message, Fragment):
            return ("fragment", message.opcode, message.fin, message.data, message.text)
        return ("raw", bytes(message)) if isinstance(message, RawText) else message

    @property
    def all(self) -> tuple[Any, ...]:
        return (self.events, self.error_code, self.closed)


def utf8_state(data: bytes) -> str:
    """ "whole", "unfinished" or "bad", by table 3-7 of Unicode 15: a byte at a time, no codec."""
    expected: list[tuple[int, int]] = []  # the ranges that the next bytes must be in
    for octet in data:
        if expected:
            low, high = expected.pop(0)
            if not low <= octet <= high:
                return "bad"
        elif octet <= 0x7F:
            continue
        elif 0xC2 <= octet <= 0xDF:
            expected = [(0x80, 0xBF)]
        elif 0xE0 <= octet <= 0xEF:
            second = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(octet, (0x80, 0xBF))
            expected = [second, (0x80, 0xBF)]
        elif 0xF0 <= octet <= 0xF4:
            second = {0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(octet, (0x80, 0xBF))
            expected = [second, (0x80, 0xBF), (0x80, 0xBF)]
        else:
            return "bad"
    return "unfinished" if expected else "whole"


class Failure(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Reference:
    """Takes a whole stream; `events`, `error_code`, `closed` and `all` as of an Outcome, at_boundary where the stream
    neither failed nor closed. The options are Parser's."""

    def __init__(
        self,
        stream: bytes,
        *,
        server: bool = False,
        max_message_size: int | None = None,
        skip_utf8_validation: bool = False,
        fire_cont_frame: bool = False,
    ) -> None:
        self.events: list[Any] = []
        self.error_code = 0
        self.closed = False
        self.server = server
        self.limit = max_message_size
        self.skip_utf8 = skip_utf8_validation
        self.fragments = fire_cont_frame
        self.message_opcode = 0
        self.message = b""
        self.shown = 0  # bytes of a text message that its fragments so far have shown as text
        self.stream = stream
        try:
            while not self.closed and self.stream and self.frame():
                pass
        except Failure as failure:
            self.error_code = failure.code
        self.at_boundary = not self.stream and not self.message_opcode

    @property
    def all(self) -> tuple[Any, ...]:
        return (self.events, self.error_code, self.closed)

    def frame(self) -> bool:
        """Take one frame off the stream; False where it is not whole."""
        data = self.stream
        if len(data) < 2:
            return False
        fin, opcode = bool(data[0] & 0x80), data[0] & 0x0F
        masked, field = bool(data[1] & 0x80), data[1] & 0x7F
        if data[0] & 0x70 or masked != self.server or opcode not in (0, 1, 2, 8, 9, 10):
            raise Failure(1002)
        is_control = opcode >= 8
        if is_control and (not fin or field > 125 or (opcode == 8 and field == 1)):
            raise Failure(1002)
        if (opcode == 0 and not self.message_opcode) or (opcode in (1, 2) and self.message_opcode):
            raise Failure(1002)
        width = {126: 2, 127: 8}.get(field, 0)
        head = 2 + width + (4 if masked else 0)
        if len(data) < head:
            return False
        length = int.from_bytes(data[2 : 2 + width], "big") if width else field
        if length >= 2**63:
            raise Failure(1002)
        if not is_control and self.limit is not None and len(self.message) + length > self.limit:
            raise Failure(1009)
        key = data[head - 4 : head] if masked else bytes(4)
        payload = bytes(octet ^ key[i % 4] for i, octet in enumerate(data[head : head + length]))
        whole = len(payload) == length
        if is_control:
            return whole and self.control(opcode, payload, head + length)
        self.message_opcode = opcode or self.message_opcode
        self.message += payload
        self.check_text(fin and whole)
        if not whole:
            return False
        if self.fragments:
            self.events.append(("fragment", opcode, int(fin), payload, self.new_text()))
        elif fin:
            self.events.append(self.whole_message())
        if fin:
            self.message_opcode, self.message, self.shown = 0, b"", 0
        self.stream = data[head + length :]
        return True

    def check_text(self, ends: bool) -> None:
        if self.message_opcode == 1 and not self.skip_utf8:
            state = utf8_state(self.message)
            if state == "bad" or (ends and state != "whole"):
                raise Failure(1007)

    def whole_message(self) -> Any:
        if self.message_opcode == 2:
            return self.message
        return ("raw", self.message) if self.skip_utf8 else self.message.decode()

    def new_text(self) -> str | None:
        """The characters that became whole with this fragment, None where nothing is decoded."""
        if self.message_opcode == 2 or self.skip_utf8:
            return None
        end = len(self.message)
        while utf8_state(self.message[:end]) == "unfinished":
            end -= 1
        text = self.message[self.shown : end].decode()
        self.shown = end
        return text

    def control(self, opcode: int, payload: bytes, size: int) -> bool:
        if opcode == 8 and payload:
            code = int.from_bytes(payload[:2], "big")
            if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
                raise Failure(1002)
            if utf8_state(payload[2:]) != "whole":
                raise Failure(1007)
        self.events.append((opcode, payload))
        self.closed = opcode == 8
        self.stream = self.stream[size:]
        return True
