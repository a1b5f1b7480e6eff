"""What the fuzz targets share: how they are run, and how an input is taken apart.

A target is a function of bytes that raises where a property does not hold. It can be imported and called without
atheris, which only run() and instrumented() want.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
T = TypeVar("T")

sys.path.insert(1, str(HERE.parent))  # for tests.reference


def instrumented(*modules: str) -> contextlib.AbstractContextManager[object]:
    """With it around their imports, libFuzzer sees which branches of `websocket` and of these modules are taken."""
    try:
        import atheris
    except ImportError:
        return contextlib.nullcontext()
    return atheris.instrument_imports(include=["websocket", *modules])


def run(target: Callable[[bytes], None], seeds: Iterable[bytes], max_len: int = 1000) -> None:
    """Fuzz `target` with the command line's options, from `seeds` and what earlier runs have found worth keeping.

    A number alone means that many seconds; a file, that it alone is tried; anything else is libFuzzer's.
    """
    import atheris

    name = Path(sys.argv[0]).stem
    arguments = [f"-max_total_time={word}" if word.isdecimal() else word for word in sys.argv[1:]]
    findings = HERE / "findings"
    findings.mkdir(exist_ok=True)
    options = [f"-max_len={max_len}", "-timeout=20", f"-artifact_prefix={findings}/{name}-"]
    if all(word.startswith("-") for word in arguments):
        corpus = HERE / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
        arguments.append(str(corpus))
    atheris.Setup([sys.argv[0], *options, *arguments], target)
    atheris.Fuzz()


class Input:
    """An input taken apart from its front. Where it is used up there are zeros, so that any bytes are an input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes, as many of `size` as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def text(self, size: int) -> str:
        """The next bytes as str; those that are not UTF-8 become lone surrogates."""
        return self.take(size).decode("utf-8", "surrogateescape")

    def byte(self) -> int:
        return self.take(1)[0] if self else 0

    def number(self) -> int:
        return self.byte() << 8 | self.byte()

    def flags(self, count: int) -> list[bool]:
        """Up to eight flags from one byte."""
        value = self.byte()
        return [bool(value >> bit & 1) for bit in range(count)]

    def choice(self, values: Sequence[T]) -> T:
        return values[self.byte() % len(values)]

    def swollen(self, most: int) -> bytes:
        """The rest, of some inputs with a part of it repeated, so that a small input can be a long stream; at most
        `most` bytes and some thousand times."""
        start, size, count = self.byte(), self.byte(), self.number()
        data = self.rest()
        if size < 0xC0:
            return data[:most]
        unit = data[start : start + size - 0xC0]
        count = min(count, 3000, most // max(len(unit), 1))
        return (data[:start] + unit * count + data[start + len(unit) :])[:most]

    def cuts(self) -> list[int]:
        """Steps for pieces(): none, a few, or that of one byte at a time."""
        count = self.byte() % 8
        return [1] if count == 7 else [self.byte() for _ in range(count)]


def pieces(data: bytes, steps: Sequence[int], most: int = 1 << 20) -> list[bytes]:
    """`data` cut, each piece as long as the next of the steps says and at most `most`; the steps start anew where they
    are used up. Pieces may be empty; b"".join() gives the data."""
    if not any(steps):
        return [data[at : at + most] for at in range(0, len(data), most)] or [b""]
    result = []
    at = 0
    for step in itertools.cycle(steps):
        result.append(data[at : at + min(step, most)])
        at += min(step, most)
        if at >= len(data):
            return result
    return result
