"""The functions that every message goes through, in Python. _speedups.c has them once more: the same results for the
same arguments.

Bytes and values only. Any thread may call them; a list that is given belongs to the caller.
"""

from __future__ import annotations

import functools
import mmap
import struct
from typing import Any, Final, TypeAlias

# What len() counts in bytes and bytes can be joined with.
Payload: TypeAlias = "bytes | bytearray | memoryview"

# Below, masking is one XOR of two big integers (0.4 to 4 us), from here on a translation of every fourth byte for each
# byte of the key (1.0 against 0.6 GB/s).
_LANES_FROM: Final = 2 * 1024
# Larger payloads are masked piece by piece, so that what is worked on stays in the processor's cache.
_PIECE: Final = 64 * 1024

_ALL_BYTES: Final = int.from_bytes(bytes(range(256)), "little")


@functools.cache
def _xor_table(key_byte: int) -> bytes:
    """What bytes.translate() needs to XOR with `key_byte`."""
    return (_ALL_BYTES ^ int.from_bytes(bytes([key_byte]) * 256, "little")).to_bytes(256, "little")


def apply_mask(key: bytes, data: Any) -> bytes:
    """The bytes-like `data` XOR the repeated four-byte `key` (RFC 6455 5.3); masks and unmasks."""
    size = len(data)
    if size < _LANES_FROM:
        pad = int.from_bytes((key * ((size + 3) >> 2))[:size], "little")
        return (int.from_bytes(data, "little") ^ pad).to_bytes(size, "little")
    tables = [_xor_table(key_byte) for key_byte in key]
    masked = bytearray(size)
    for start in range(0, size, _PIECE):
        piece = bytes(data[start : start + _PIECE])
        for lane, table in enumerate(tables):
            masked[start + lane : start + len(piece) : 4] = piece[lane::4].translate(table)
    return bytes(masked)


_SHORT: Final = struct.Struct("!BB4s")
_MEDIUM: Final = struct.Struct("!BBH4s")
_LONG: Final = struct.Struct("!BBQ4s")
_SHORT_PLAIN: Final = struct.Struct("!BB")
_MEDIUM_PLAIN: Final = struct.Struct("!BBH")
_LONG_PLAIN: Final = struct.Struct("!BBQ")


def encode_frame(first_byte: int, payload: Payload | str, key: bytes | None) -> bytes:
    """The bytes of one frame.

    first_byte: FIN, RSV1 to 3 and the opcode.  payload: bytes-like, or a str of ASCII, which need not be encoded
    first.  key: the masking key, None for a frame that is not masked (a server's).
    """
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload)
    if key is None:
        if size < 126:
            return _SHORT_PLAIN.pack(first_byte, size) + payload
        if size < 65536:
            return _MEDIUM_PLAIN.pack(first_byte, 126, size) + payload
        return _LONG_PLAIN.pack(first_byte, 127, size) + payload
    if size < 126:
        return _SHORT.pack(first_byte, 0x80 | size, key) + apply_mask(key, payload)
    if size < 65536:
        return _MEDIUM.pack(first_byte, 0xFE, size, key) + apply_mask(key, payload)
    return _LONG.pack(first_byte, 0xFF, size, key) + apply_mask(key, payload)


def new_payload(size: int) -> tuple[bytes | mmap.mmap, memoryview]:
    """Memory for `size` bytes, at least 2, and the view by which it is to be written. It takes no memory before.

    bytes() makes the payload of the first: a copy in Python; in C it is a bytes object already, not to be shown to
    anybody while the view is in use.
    """
    if size < 2:
        raise ValueError(f"a payload to be written needs at least 2 bytes, not {size}")
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE)  # a bytearray would be filled with zeros
    return memory, memoryview(memory)


def take_plain_frames(data: bytes, position: int, messages: list[Any], most: int) -> int:
    """Append to `messages` what is in the frames from `position` on that are whole, not masked, of at most `most` bytes
    and a message each: str for text, bytes for binary. Returns the position of the first byte that is of no such frame.

    Raises UnicodeDecodeError for a text that is not UTF-8; the messages before it are in the list.
    """
    end = len(data)
    while position + 2 <= end:
        # 0.2 us for a message: header bytes compared, payload sliced and decoded, nothing else.
        first = data[position]
        size = data[position + 1]
        start = position + 2
        if size == 126 and start + 2 <= end:
            size = data[start] << 8 | data[start + 1]
            start += 2
        elif size == 127 and start + 8 <= end:
            size = int.from_bytes(data[start : start + 8], "big")
            start += 8
        elif size >= 126:
            break
        stop = start + size
        if stop > end or size > most:
            break
        if first == 0x81:
            messages.append(data[start:stop].decode())
        elif first == 0x82:
            messages.append(data[start:stop])
        else:
            break
        position = stop
    return position
