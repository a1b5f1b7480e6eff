"""HTTP/1.1 answers: their first line, headers and bodies, from bytes in any cut, with limits (RFC 9112).

Bytes and values only. What a WebSocket handshake asks of them is in _handshake.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ._exceptions import WebSocketProtocolException

# Generous beside what servers send (nginx and Apache take 8 KiB for a line, 100 headers), small beside memory.
MAX_LINE: Final = 16 * 1024
MAX_HEADERS: Final = 256
MAX_HEAD: Final = 128 * 1024
# Enough of an error page to tell what is wrong.
MAX_BODY: Final = 64 * 1024

# RFC 9110 5.6.2: header names, and what else is a token.
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # which would reach terminals and logs
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: (.*))?")


class HeadParser:
    """The first line and the headers of an HTTP/1.1 message, from bytes in any cut, with limits on every length."""

    def __init__(self) -> None:
        self.first_line = ""
        self.fields: list[tuple[str, str]] = []  # names in lower case, as they came
        # The same as a mapping; fields of one name are joined, Set-Cookie by "; " as websocket-client does, others by
        # ", " (RFC 9110 5.3).
        self.headers: dict[str, str] = {}
        self.rest = b""  # what came after the head
        self._buffer = bytearray()
        self._searched = 0  # how much of the buffer holds no end of line

    def feed(self, data: bytes) -> bool:
        """Take bytes; returns whether the head is whole. Raises WebSocketProtocolException."""
        buffer = self._buffer
        buffer += data
        while (at := buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(buffer[self._searched : at]).removesuffix(b"\r")
            self._searched = at + 1
            if len(line) > MAX_LINE or at >= MAX_HEAD:
                self._check_limits(len(line))
            if not line:
                if not self.first_line:
                    continue  # RFC 9112 2.2: ignore empty lines before the first
                self.rest = bytes(buffer[at + 1 :])
                return True
            self._line(line)
        self._check_limits(len(buffer) - self._searched - buffer.endswith(b"\r"))
        return False

    def _check_limits(self, line_length: int) -> None:
        if line_length > MAX_LINE:
            raise WebSocketProtocolException(f"handshake: a line of more than {MAX_LINE} bytes")
        if self._searched > MAX_HEAD:
            raise WebSocketProtocolException(f"handshake: headers of more than {MAX_HEAD} bytes")

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if not self.first_line:
            self.first_line = text
            return
        if b"\r" in line or b"\0" in line:  # RFC 9110 5.5
            raise WebSocketProtocolException(f"handshake: a line with a bare CR or a NUL: {line[:200]!r}")
        if len(self.fields) == MAX_HEADERS:
            raise WebSocketProtocolException(f"handshake: more than {MAX_HEADERS} headers")
        name, colon, value = text.partition(":")
        if not colon or not TOKEN.fullmatch(name):
            raise WebSocketProtocolException(f"Invalid header: {text[:200]!r}")
        name, value = name.lower(), value.strip(" \t")
        self.fields.append((name, value))
        before = self.headers.get(name)
        if before is not None:
            value = before + ("; " if name == "set-cookie" else ", ") + value
        self.headers[name] = value


def parse_status_line(line: str, who: str = "the server") -> tuple[int, str]:
    """(status, reason phrase). Raises WebSocketProtocolException for what is no HTTP/1.1 status line."""
    if not (match := _STATUS_LINE.fullmatch(line)):
        raise _no_http(line, who)
    return int(match.group(1)), _CONTROL.sub("?", match.group(2) or "")


def _no_http(line: str, who: str) -> WebSocketProtocolException:
    hint = ", which is TLS: is the scheme of the URL right?" if line[:2] in ("\x15\x03", "\x16\x03") else ""
    return WebSocketProtocolException(f"{who} does not speak HTTP/1.1: its answer begins with {line[:200]!r}{hint}")


def check_start(start: bytes, who: str) -> None:
    """Raises WebSocketProtocolException where these first bytes of an answer cannot become one in HTTP/1.1: another
    protocol may never send a whole head, or a line."""
    line = start.lstrip(b"\r\n").partition(b"\n")[0].removesuffix(b"\r")
    if b"HTTP/1."[: len(line)] != line[:7]:
        raise _no_http(line.decode("utf-8", "replace"), who)


class BodyParser:
    """The body of an error response, whatever its framing: Content-Length, chunked, or to the end of the stream.
    `body` never grows beyond MAX_BODY."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._body = bytearray()
        self._chunked = headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked"
        length = headers.get("content-length", "")
        self._left = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        self._buffer = b""  # a line before a chunk that is not whole
        self._chunk = 0  # bytes of the chunk under way still to come

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    def feed(self, data: bytes) -> bool:
        """Take bytes; returns whether the body is whole or as long as it may get."""
        if self._chunked:
            return self._feed_chunks(data)
        most = MAX_BODY if self._left is None else min(self._left, MAX_BODY)
        self._body += data[: most - len(self._body)]
        return len(self._body) == most

    def _feed_chunks(self, data: bytes) -> bool:
        data = self._buffer + data
        self._buffer = b""
        at = 0
        while at < len(data) and len(self._body) < MAX_BODY:
            if self._chunk:
                piece = data[at : at + self._chunk]
                at += len(piece)
                self._chunk -= len(piece)
                self._body += piece[: MAX_BODY - len(self._body)]
                continue
            end = data.find(b"\n", at)
            line = data[at:] if end < 0 else data[at:end]
            if len(line) > MAX_LINE:
                return True
            if end < 0:
                self._buffer = line
                return False
            at = end + 1
            size = line.partition(b";")[0].strip()
            if not size:
                continue  # the line end that closes a chunk
            if not _CHUNK_SIZE.fullmatch(size):
                return True
            self._chunk = int(size, 16)
            if not self._chunk:
                return True
        return len(self._body) >= MAX_BODY
