"""How wsdump shows what has arrived: on a terminal, or as one line of a pipe.

Text in, text out: no thread, no descriptor.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from dataclasses import dataclass
from typing import Final

# A message that is larger when inflated is shown as it came: a few KiB can be made to hold GiB.
_MAX_INFLATED: Final = 16 * 1024 * 1024
# Larger or deeper JSON is shown as it came: nobody reads it on a screen, and indentation would multiply it.
_MAX_JSON: Final = 1024 * 1024
_MAX_DEPTH: Final = 64

# zlib's `wbits` for the formats; the last, without header or checksum, is what permessage-deflate and Go's flate use.
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW_DEFLATE: Final = -15

# What a terminal obeys or what hides other text: control characters, marks that turn the direction of writing, and
# halves of surrogate pairs. Line feed and tab are what they say.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_JSON_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}\[\],:"]+|[{}\[\],:]')

_RECEIVED: Final = "\x1b[36m"
_NOTICE: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


def visible(text: str) -> str:
    """The text with control characters written out, as in "\\x1b"."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """The text, visible, as one line."""
    return visible(" ".join(text.split()))


@dataclass(frozen=True)
class Display:
    """How messages are shown.

    terminal: control characters are made visible, JSON is indented, and "< " goes before each message. Otherwise
    each message becomes one line.  raw: none of this but the control characters.  colour: with colours.
    verbose: with the opcode's name.  timings: with the seconds since `started` (time.monotonic()).
    """

    terminal: bool = False
    raw: bool = False
    colour: bool = False
    verbose: bool = False
    timings: bool = False
    started: float = 0.0

    def message(self, payload: str | bytes) -> str:
        """A text or binary message, as whole lines."""
        if isinstance(payload, str):
            return self._received("text", self._body(payload))
        inflated = _inflated(payload)
        body = repr(payload) if inflated is None else f"[{inflated[0]}] {self._body(inflated[1])}"
        return self._received("binary", body)

    def control(self, name: str, payload: bytes, remark: str = "") -> str:
        """A ping, pong or close, always with its name."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            text = repr(payload)
        return self._received(name, on_one_line(f"{text} {remark}".strip()), named=True)

    def notice(self, text: str) -> str:
        """What the command itself has to say on a terminal."""
        text = on_one_line(text)
        return f"{_NOTICE}{text}{_PLAIN}\n" if self.colour else f"{text}\n"

    def _body(self, text: str) -> str:
        if self.terminal:
            tokens = None if self.raw else _json_tokens(text)
            body = None if tokens is None else _indented(tokens)
            return visible(text.replace("\r\n", "\n") if body is None else body)
        if self.raw or "\n" not in text:
            return text
        tokens = _json_tokens(text)
        if tokens is not None:
            return _compact(tokens)
        # The line's own end serves as the end of the message.
        text = text.removesuffix("\n").removesuffix("\r")
        return text.replace("\r", "\\r").replace("\n", "\\n") if "\n" in text else text

    def _received(self, name: str, body: str, named: bool = False) -> str:
        if self.verbose or named:
            body = f"{name}: {body}"
        if self.timings:
            body = f"{time.monotonic() - self.started:.6f}: {body}"
        if self.raw or not self.terminal:
            return body + "\n"
        # Further lines are indented, so that none can pass for a prompt or another message.
        body = "< " + body.removesuffix("\n").replace("\n", "\n  ")
        return f"{_RECEIVED}{body}{_PLAIN}\n" if self.colour else body + "\n"


def _inflated(payload: bytes) -> tuple[str, str] | None:
    """(format, text) of a compressed payload; None for anything else."""
    formats = [("gzip", _GZIP)] if payload[:2] == b"\x1f\x8b" else [("zlib", _ZLIB), ("zlib", _RAW_DEFLATE)]
    for name, wbits in formats:
        inflater = zlib.decompressobj(wbits)
        try:
            text = inflater.decompress(payload, _MAX_INFLATED).decode()
        except (zlib.error, UnicodeDecodeError):
            continue
        # Two or three bytes are often a raw deflate stream of nothing by chance.
        if text and inflater.eof and not inflater.unused_data:
            return name, text
    return None


def _json_tokens(text: str) -> list[str] | None:
    """The tokens of a JSON object or array, as they stand, so that no number or escape is changed; None for other
    text."""
    if len(text) > _MAX_JSON or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _JSON_TOKEN.findall(text)


def _compact(tokens: list[str]) -> str:
    spaced = {",": ", ", ":": ": "}
    return "".join(spaced.get(token, token) for token in tokens)


def _indented(tokens: list[str]) -> str | None:
    """JSON over several lines; None where it is too deep for that."""
    parts: list[str] = []
    depth = 0
    before = ""
    for token in tokens:
        if token in ("}", "]"):
            depth -= 1
            if before not in ("{", "["):
                parts.append("\n" + "  " * depth)
        elif before in ("{", "[", ","):
            parts.append("\n" + "  " * depth)
        parts.append(": " if token == ":" else token)
        if token in ("{", "["):
            depth += 1
            if depth > _MAX_DEPTH:
                return None
        before = token
    return "".join(parts)
