"""permessage-deflate (RFC 7692): what is offered, what is agreed, how a message is compressed and inflated.

Bytes and values only: no socket, no thread, no lock. A Deflater belongs to whoever sends at the moment, an Inflater to
the connection's parser.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ._pure import Payload

EXTENSION: Final = "permessage-deflate"

# What a message's last flush ends in, which is not sent (RFC 7692 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"
# With the tail behind it, an empty block: what the last frame of a message needs where all has been flushed before.
_EMPTY_BLOCK: Final = b"\x00"

_WINDOW_BITS: Final = range(8, 16)
# What inflating gives at a time, so that a limit is noticed before much is in memory.
_PIECE: Final = 1024 * 1024
# What is looked at in one go behind a final block: zlib copies what it leaves over, for each such block again.
_BEHIND_FINAL: Final = 4096

# RFC 6455 9.1: tokens; a value may be quoted, and is a token then, too.
_ITEM: Final = re.compile(
    r"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:=[ \t]*("?)([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\2[ \t]*)?"""
)

# The parameters of an offer or an answer; None for one without a value.
Parameters: TypeAlias = "dict[str, int | None]"

_CLIENT_BITS: Final = "client_max_window_bits"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_RESETS: Final = "client_no_context_takeover"
_SERVER_RESETS: Final = "server_no_context_takeover"


@dataclass(frozen=True)
class PerMessageDeflate:
    """What a program wants of permessage-deflate (RFC 7692); the `compression` option of connect().

    client_max_window_bits: 8 to 15, the window (2 to the power of it, in bytes) of what is sent is no larger; None
        leaves it to the server, or is 15.
    server_max_window_bits: 8 to 15, demand that of the server; None leaves it to the server.
    client_no_context_takeover: compress each message for itself.  server_no_context_takeover: demand it of the server.
    level: zlib's, 0 to 9, or -1 for zlib's default; 3 takes 0.6 of the time of 6 and gives a tenth more bytes.
    memory_level: zlib's, 1 to 9, and no more than a small window has use for. Sending needs 2**(window bits + 2) +
        2**(memory_level + 9) bytes (256 KiB by default), receiving 2**(window bits) + 7 KiB (39 KiB).
    min_size: messages of fewer bytes are sent as they are.

    Raises ValueError for values beyond these.
    """

    client_max_window_bits: int | None = None
    server_max_window_bits: int | None = None
    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False
    level: int = 3
    memory_level: int = 8
    min_size: int = 1024

    def __post_init__(self) -> None:
        for name in (_CLIENT_BITS, _SERVER_BITS):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), _WINDOW_BITS.start, _WINDOW_BITS.stop - 1)
        for name in (_CLIENT_RESETS, _SERVER_RESETS):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        _check_number("level", self.level, -1, 9)
        _check_number("memory_level", self.memory_level, 1, 9)
        _check_number("min_size", self.min_size, 0, None)

    @staticmethod
    def parse(option: Any) -> PerMessageDeflate | None:
        """The `compression` option: None for none, "deflate" for the defaults, or a PerMessageDeflate. Raises
        ValueError for anything else."""
        if option is None or isinstance(option, PerMessageDeflate):
            return option
        if option == "deflate":
            return PerMessageDeflate()
        raise ValueError(f'compression must be None, "deflate" or a PerMessageDeflate, not {option!r}')

    @property
    def offer(self) -> Parameters:
        """What the request says."""
        offer: Parameters = {_CLIENT_BITS: self.client_max_window_bits}
        if self.server_max_window_bits is not None:
            offer[_SERVER_BITS] = self.server_max_window_bits
        if self.client_no_context_takeover:
            offer[_CLIENT_RESETS] = None
        if self.server_no_context_takeover:
            offer[_SERVER_RESETS] = None
        return offer


def _check_number(name: str, value: Any, least: int, most: int | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an int {bounds}, not {value!r}")


@dataclass(frozen=True)
class Agreement:
    """What client and server have agreed upon, seen from one of them.

    window_bits, resets: of the messages sent: their window, and whether each is compressed for itself.
    peer_window_bits: of those received.  The others as in PerMessageDeflate.
    """

    window_bits: int
    resets: bool
    peer_window_bits: int
    level: int
    memory_level: int
    min_size: int


# ---- negotiating ----


def format_extension(parameters: Parameters) -> str:
    """An offer or an answer as it stands in Sec-WebSocket-Extensions."""
    return "; ".join([EXTENSION, *(name if value is None else f"{name}={value}" for name, value in parameters.items())])


def parse_offers(header: str) -> list[Parameters]:
    """The offers of a Sec-WebSocket-Extensions header that the program has made itself, the preferred one first.
    Raises ValueError for what this package could not keep to."""
    offers = []
    for name, pairs in _parse_extensions(header):
        if name != EXTENSION:
            raise ValueError(f"there is no extension {name!r} here; permessage-deflate is the only one")
        offers.append(_parameters(pairs, answer=False))
    if not offers:
        raise ValueError("it offers nothing")
    return offers


def check_answer(header: str, offers: Sequence[Parameters], wanted: PerMessageDeflate) -> Agreement:
    """Hold the server's Sec-WebSocket-Extensions against the offers. Raises ValueError that says what is illegal in it
    (RFC 7692 7.1; RFC 6455 9.1)."""
    if not offers:
        raise ValueError("no extension was asked for")
    extensions = _parse_extensions(header)
    if len(extensions) != 1 or extensions[0][0] != EXTENSION:
        raise ValueError(f"asked for was {EXTENSION} and nothing else")
    answer = _parameters(extensions[0][1], answer=True)
    reasons = [_misfit(answer, offer) for offer in offers]
    if None not in reasons:
        raise ValueError(str(reasons[0]))
    offer = offers[reasons.index(None)]
    return Agreement(
        window_bits=min(answer.get(_CLIENT_BITS) or 15, offer.get(_CLIENT_BITS) or 15),
        resets=_CLIENT_RESETS in answer or _CLIENT_RESETS in offer,
        peer_window_bits=answer.get(_SERVER_BITS) or 15,
        level=wanted.level,
        memory_level=wanted.memory_level,
        min_size=wanted.min_size,
    )


def answer_offers(header: str, wanted: PerMessageDeflate) -> tuple[str, Agreement] | None:
    """A server's part: the answer to a Sec-WebSocket-Extensions header, and what is then agreed; None to use no
    compression. Raises ValueError for a header that cannot be read."""
    for name, pairs in _parse_extensions(header):
        if name != EXTENSION:
            continue
        offer = _parameters(pairs, answer=False)
        answer: Parameters = {}
        if _SERVER_RESETS in offer or wanted.server_no_context_takeover:
            answer[_SERVER_RESETS] = None
        if wanted.client_no_context_takeover:
            answer[_CLIENT_RESETS] = None
        server_bits = min(offer.get(_SERVER_BITS) or 15, wanted.server_max_window_bits or 15)
        if _SERVER_BITS in offer or server_bits < 15:
            answer[_SERVER_BITS] = server_bits
        client_bits = 15
        if _CLIENT_BITS in offer and wanted.client_max_window_bits is not None:
            client_bits = answer[_CLIENT_BITS] = min(offer[_CLIENT_BITS] or 15, wanted.client_max_window_bits)
        return format_extension(answer), Agreement(
            server_bits, _SERVER_RESETS in answer, client_bits, wanted.level, wanted.memory_level, wanted.min_size
        )
    return None


def _misfit(answer: Parameters, offer: Parameters) -> str | None:
    """Why the answer is not one to this offer; None where it is."""
    if _CLIENT_BITS in answer and _CLIENT_BITS not in offer:
        return f"{_CLIENT_BITS} was not offered"  # 7.1.2.2
    if (most := offer.get(_SERVER_BITS)) is not None and (answer.get(_SERVER_BITS) or 16) > most:
        return f"{_SERVER_BITS} must be at most the {most} that was asked for"  # 7.1.2.1
    if _SERVER_RESETS in offer and _SERVER_RESETS not in answer:
        return f"{_SERVER_RESETS} was asked for"  # 7.1.1.1
    return None


def _parameters(pairs: list[tuple[str, str | None]], answer: bool) -> Parameters:
    """The parameters by name. Raises ValueError for what RFC 7692 7.1 does not know, and for one that comes twice."""
    found: Parameters = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} comes twice")
        if name in (_CLIENT_RESETS, _SERVER_RESETS):
            if value is not None:
                raise ValueError(f"{name} takes no value, not {value!r}")
            found[name] = None
        elif name in (_CLIENT_BITS, _SERVER_BITS):
            if value is None:
                if answer or name == _SERVER_BITS:
                    raise ValueError(f"{name} needs a value")
                found[name] = None
            elif value not in map(str, _WINDOW_BITS):
                raise ValueError(f"{name} must be 8 to 15, not {value!r}")
            else:
                found[name] = int(value)
        else:
            raise ValueError(f"{EXTENSION} has no parameter {name!r}")
    return found


def _parse_extensions(header: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """A Sec-WebSocket-Extensions header as (name, [(parameter, value or None), ...]). Raises ValueError."""
    extensions: list[tuple[str, list[tuple[str, str | None]]]] = []
    for element in header.split(","):  # no token holds a comma or a semicolon, a quoted one neither
        if not element.strip(" \t"):
            continue  # RFC 9110 5.6.1: empty elements are ignored
        items = [_ITEM.fullmatch(item) for item in element.split(";")]
        if None in items or (items[0] is not None and items[0][3] is not None):
            raise ValueError(f"{element.strip()!r} is no extension")
        pairs = [(item[1], item[3]) for item in items if item is not None]
        extensions.append((pairs[0][0], pairs[1:]))
    return extensions


# ---- messages ----


class Deflater:
    """Compresses messages, one after the other."""

    def __init__(self, agreement: Agreement) -> None:
        # zlib has no window of 8 bits for sending; with 9 its matches reach back 250 bytes at most, which fits in one.
        bits = max(9, agreement.window_bits)
        # zlib goes through its hash table once per window: one larger than the window makes that ten times slower.
        memory_level = min(agreement.memory_level, bits - 6)
        self._stream = zlib.compressobj(agreement.level, zlib.DEFLATED, -bits, memory_level)
        # A full flush makes zlib forget what was before, and keep its memory.
        self._flush = zlib.Z_FULL_FLUSH if agreement.resets else zlib.Z_SYNC_FLUSH

    def message(self, data: Payload) -> bytes:
        """The payload of a whole message."""
        return self.part(data)[: -len(_TAIL)] if data else _EMPTY_BLOCK

    def part(self, data: Payload) -> bytes:
        """The payload of a frame that is not its message's last."""
        return self._stream.compress(data) + self._stream.flush(self._flush) if data else b""

    @staticmethod
    def end() -> bytes:
        """The payload of the last frame of a message whose others were made by part()."""
        return _EMPTY_BLOCK


class InflateError(Exception):
    """The data is no DEFLATE stream, or refers to something before its window."""


class Inflater:
    """Inflates messages, one after the other. The window and its memory are kept from one to the next, also where the
    server has agreed not to make use of it."""

    def __init__(self, agreement: Agreement) -> None:
        self._bits = -agreement.peer_window_bits
        self._stream = zlib.decompressobj(self._bits)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """What these bytes of a message give, in pieces of at most 1 MiB, each made when it is asked for. Raises
        InflateError."""
        view = memoryview(data)
        position, step = 0, len(data)
        while position < len(data):
            chunk: Payload = view[position : position + step]
            position += len(chunk)
            while True:
                try:
                    piece = self._stream.decompress(chunk, _PIECE)
                except zlib.error as error:
                    raise InflateError(str(error)) from error
                if piece:
                    yield piece
                if self._stream.eof:
                    # RFC 7692 7.2.3.4 allows final blocks. zlib begins a new stream behind one, without the window:
                    # a peer that ends its streams begins anew itself.
                    position -= len(self._stream.unused_data)
                    self._stream = zlib.decompressobj(self._bits)
                    step = _BEHIND_FINAL
                    break
                chunk = self._stream.unconsumed_tail
                if not chunk and len(piece) < _PIECE:
                    break

    def finish(self) -> Iterator[bytes]:
        """The end of a message: the rest of what it gives."""
        return self.inflate(_TAIL)
