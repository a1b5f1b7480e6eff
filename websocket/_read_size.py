"""How many bytes to ask a stream for at once: few while little comes, since what is asked for is allocated first; many
where each read brings all that was asked for, since a batch saves calls."""

from __future__ import annotations

from typing import Final

from ._allocator import expect_blocks

SMALLEST_READ: Final = 16 * 1024
LARGEST_READ: Final = 256 * 1024

# Reads of less than a quarter of the size, so many in a row, halve it: an answer of 64 KiB is to be read at once though
# a short read stands between it and the next.
_SHORT_READS: Final = 16


class ReadSize:
    """The size follows the stream, up to `largest`. Belongs to whoever holds the reading turn."""

    def __init__(self, largest: int = LARGEST_READ) -> None:
        self._largest = largest
        self.current = SMALLEST_READ
        self._short_reads = 0  # in a row

    def adapt(self, received: int) -> None:
        """So many bytes have come of what was asked for."""
        size = self.current
        if received >= size // 4:
            self._short_reads = 0
            if received == size < self._largest:
                self.current = min(2 * size, self._largest)
                expect_blocks(self.current)
        elif size > SMALLEST_READ:
            self._short_reads += 1
            if self._short_reads == _SHORT_READS:
                self._short_reads = 0
                self.current = size // 2
