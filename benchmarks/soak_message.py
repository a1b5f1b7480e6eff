"""The messages of soak.py.

Each has the number of its connection, of its stream (each thread that sends has one) and its own in that stream, and a
checksum over all of it.
"""

from __future__ import annotations

import zlib

STREAMS = (0, 1)  # that of a thread which does nothing else; that of who receives, and answers now and then


def compose(serial: int, stream: int, number: int, word: str, body: str) -> str | bytes:
    """A message: text and binary by turns."""
    rest = f"{serial} {stream} {number} {word} {body}"
    message = f"{zlib.crc32(rest.encode()):08x} {rest}"
    return message.encode() if number % 2 else message


def read(message: str | bytes, serial: int) -> tuple[int, int] | None:
    """(stream, number) of a message; None for one that is not as it was sent on this connection."""
    data = message if isinstance(message, bytes) else message.encode("utf-8", "surrogateescape")
    checksum, _, rest = data.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(rest):
        return None
    of, stream, number = map(int, rest.split(b" ", 3)[:3])
    if of != serial or isinstance(message, bytes) != bool(number % 2):
        return None
    return stream, number
