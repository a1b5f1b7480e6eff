"""Memory for a large payload, which is received into it while it arrives, and not joined from pieces."""

from __future__ import annotations

from ._frames import new_payload


class Place:
    """Memory for `size` bytes, at least 2 of them. No lock of its own: fill() and take() are called under the parser's,
    rest() by who receives."""

    def __init__(self, size: int) -> None:
        self._payload, self._view = new_payload(size)
        self._filled = 0
        self._taken = 0

    def put(self, data: bytes) -> None:
        """Bytes that have been received already; no more than there is room for."""
        self._view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def rest(self) -> memoryview:
        """What is still to be filled, from its beginning on."""
        return self._view[self._filled :]

    def fill(self, count: int) -> None:
        """So many bytes were written into rest()."""
        self._filled += count

    @property
    def is_full(self) -> bool:
        return self._filled == len(self._view)

    def take(self) -> bytes:
        """What has come and was not taken yet: not copied (by the C part) where that is all of it."""
        if self._taken or not self.is_full:
            start, self._taken = self._taken, self._filled
            return bytes(self._view[start : self._filled])
        self._taken = self._filled
        self._view.release()
        return bytes(self._payload)
