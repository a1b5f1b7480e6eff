"""What the C library's allocator should know of large payloads.

glibc gives the end of its heap back to the system whenever more than a threshold is free there, and gets it again, a
page fault for every 4 KiB, with the next large block: that costs more than all else that a large message needs (256 KiB
messages: 0.95 GB/s, and 4.7 without). It raises the threshold by itself, to twice the size of the largest block that it
has mapped alone and that was freed; but buffer, payload and text of one message are several blocks at a time.
"""

from __future__ import annotations

from typing import Final

# glibc learns from blocks up to this size (DEFAULT_MMAP_THRESHOLD_MAX), its own header included.
_LARGEST: Final = 32 * 1024 * 1024 - 4096
# Blocks of a message that are in use at a time: what was read, its pieces, the whole, its text.
_AT_A_TIME: Final = 4
# Smaller ones do not reach the threshold that glibc begins with.
_WORTH_IT: Final = 32 * 1024

_expected = _WORTH_IT  # the largest size so far; no lock: threads that meet here do the same thing twice


def expect_blocks(size: int) -> None:
    """Blocks of `size` bytes are going to come and go: let the allocator keep what a few of them take. Any thread.

    Takes no memory: the block that glibc learns from is not written to. Where a program has set glibc's thresholds
    itself they stay as they are, and other allocators see a block that comes and goes.
    """
    global _expected
    if size > _expected:
        _expected = size
        bytes(min(_AT_A_TIME * size, _LARGEST))
