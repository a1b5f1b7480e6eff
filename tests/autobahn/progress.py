"""How far a run is, on one line of a terminal, or in a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from .cases import Case

LINE_SECONDS = 10.0


class Progress:
    """total: how many cases there are.  stream: where to show it."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._one_line = stream.isatty()
        self._width = 0
        self._shown_at = time.monotonic()

    def running(self, case: Case, done: int) -> None:
        """A case begins, and so many have ended before."""
        text = f"{case.id}  {done}/{self._total}"
        if self._one_line:
            self._stream.write(f"\r{text:{self._width}}")
            self._width = len(text)
        elif time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._stream.write(f"{text}\n")
            self._shown_at = time.monotonic()
        self._stream.flush()

    def end(self) -> None:
        """Leave a terminal's line empty."""
        if self._one_line and self._width:
            self._stream.write(f"\r{'':{self._width}}\r")
            self._stream.flush()
            self._width = 0
