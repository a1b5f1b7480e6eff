"""Sec-WebSocket-Extensions of any kind, as offer and as answer: refused with ValueError, or taken for what both sides
can keep to. What one side answers the other accepts, and messages go there and back."""

from __future__ import annotations

import random

from harness import Input, instrumented, run

with instrumented():
    from websocket._deflate import (
        EXTENSION,
        Agreement,
        Deflater,
        Inflater,
        PerMessageDeflate,
        answer_offers,
        check_answer,
        format_extension,
        parse_offers,
    )

NOISE = random.Random(1).randbytes(1 << 15)
WORDS = (
    *(EXTENSION, "client_max_window_bits", "server_max_window_bits", "client_no_context_takeover"),
    *("server_no_context_takeover", "; ", ";", ", ", ",", "=", '"', "=8", "=9", "=12", "=15", "=16", "=09", "8", "15"),
    *(" ", "\t", "x-webkit-deflate-frame", "permessage-deflate; client_max_window_bits", "PerMessage-Deflate"),
)


def header(source: Input) -> str:
    """Words that mean something in it, and any others."""
    parts = []
    for _ in range(source.byte() % 32):
        number = source.byte()
        parts.append(WORDS[number] if number < len(WORDS) else source.text(number & 7))
    return "".join(parts)


def wanted(source: Input) -> PerMessageDeflate:
    bits, (client_resets, server_resets) = source.byte(), source.flags(2)
    client, server = (None if part < 8 else part for part in (bits >> 4, bits & 15))
    level, memory = source.byte() % 11 - 1, 1 + source.byte() % 9
    return PerMessageDeflate(client, server, client_resets, server_resets, level, memory, source.byte())


def offers(source: Input) -> None:
    text = header(source)
    try:
        parsed = parse_offers(text)
    except ValueError:
        return
    assert parsed
    for offer in parsed:
        assert parse_offers(format_extension(offer)) == [offer], offer
        assert list(parse_offers(format_extension(offer))[0]) == list(offer)
    assert parse_offers(", ".join(map(format_extension, parsed))) == parsed


def answer(source: Input) -> None:
    """A server's answer to any header, or to what a client of this package says."""
    client, server = wanted(source), wanted(source)
    is_own = source.byte() % 2
    text = format_extension(client.offer) if is_own else header(source)
    try:
        answered = answer_offers(text, server)
    except ValueError:
        assert not is_own
        return
    first = next((each for each in text.split(",") if each.split(";")[0].strip(" \t") == EXTENSION), None)
    if first is None:
        assert answered is None
        return
    assert answered is not None
    given, of_server = answered
    offered = parse_offers(first)
    of_client = check_answer(given, offered, client)
    agree(of_client, of_server)
    if is_own:
        assert (offered, client.offer) == ([client.offer], offered[0])
        assert of_client.window_bits <= (client.client_max_window_bits or 15)
        assert of_client.peer_window_bits <= (client.server_max_window_bits or 15)
        assert of_client.resets >= client.client_no_context_takeover
        assert of_server.resets >= client.server_no_context_takeover
    there_and_back(of_client, of_server, source.rest())


def agree(of_client: Agreement, of_server: Agreement) -> None:
    assert of_client.peer_window_bits == of_server.window_bits
    assert of_client.window_bits <= of_server.peer_window_bits
    for each in (of_client, of_server):
        assert 8 <= each.window_bits <= 15
        assert 8 <= each.peer_window_bits <= 15


def there_and_back(of_client: Agreement, of_server: Agreement, data: bytes) -> None:
    """Messages that repeat what is at the far end of the window, and beyond it."""
    for sender, receiver in ((of_client, of_server), (of_server, of_client)):
        deflater, inflater = Deflater(sender), Inflater(receiver)
        far = NOISE[: (1 << max(sender.window_bits, 9)) - 300]
        for message in (data, far, far[:-100] + data, b"", data):
            payload = deflater.message(message)
            assert b"".join(inflater.inflate(payload)) + b"".join(inflater.finish()) == message
        parts = [*map(deflater.part, (data, b"", far, data)), deflater.end()]
        got = b"".join(piece for part in parts for piece in inflater.inflate(part)) + b"".join(inflater.finish())
        assert got == data + far + data


def check(source: Input) -> None:
    """A client's judgement of any answer."""
    client = wanted(source)
    text, own = header(source), header(source)
    try:
        offered = parse_offers(own) if source.byte() % 2 else [client.offer]
        agreement = check_answer(text, offered, client)
    except ValueError:
        return
    (taken,) = parse_offers(text)
    assert taken.get("client_max_window_bits", 15) is not None
    assert any(fits(taken, offer) for offer in offered), (text, offered)
    assert agreement.peer_window_bits == taken.get("server_max_window_bits", 15)
    assert 8 <= agreement.window_bits <= (taken.get("client_max_window_bits") or 15)
    assert agreement.resets or "client_no_context_takeover" not in taken
    assert check_answer(format_extension(taken), offered, client) == agreement


def fits(taken: dict[str, int | None], offer: dict[str, int | None]) -> bool:
    """RFC 7692 7.1: whether it answers the offer."""
    if "client_max_window_bits" in taken and "client_max_window_bits" not in offer:
        return False
    if "server_no_context_takeover" in offer and "server_no_context_takeover" not in taken:
        return False
    most = offer.get("server_max_window_bits")
    return most is None or (taken.get("server_max_window_bits") or 16) <= most


def target(data: bytes) -> None:
    source = Input(data)
    source.choice((offers, answer, check))(source)


def words(*wanted: str) -> bytes:
    """A header() of these words."""
    return bytes([len(wanted), *map(WORDS.index, wanted)])


DEFAULTS = b"\x00\x00\x04\x07\x00"  # of wanted(), but for min_size
ALL = (
    *(EXTENSION, "; ", "client_max_window_bits", "; ", "server_max_window_bits", "=12", "; "),
    *("client_no_context_takeover", ";", "server_no_context_takeover"),
)
SEEDS = [
    b"\x00" + words(*ALL),
    b"\x00" + words(*ALL, ", ", EXTENSION, ",", EXTENSION, ";", "client_max_window_bits", "=", '"', "15", '"'),
    b"\x00" + words(",", " ", EXTENSION, "\t", ",", "x-webkit-deflate-frame"),
    b"\x01" + DEFAULTS * 2 + b"\x01some data that is some data",
    b"\x01\xc9\x03\x06\x08\x00" + b"\x9a\x01\x02\x00\x00" + b"\x01" + bytes(range(200)),
    b"\x01" + DEFAULTS + b"\x98\x03\x06\x08\x00" + b"\x00" + words(*ALL) + b"data",
    b"\x01" + DEFAULTS * 2 + b"\x00" + words("x-webkit-deflate-frame", ", ", EXTENSION, "; ", "client_max_window_bits"),
    b"\x01" + DEFAULTS + b"\x98\x03\x06\x08\x00" + b"\x00" + words(EXTENSION) + b"data",
    b"\x02" + DEFAULTS + words(EXTENSION) + words(EXTENSION),
    b"\x02\x00\x02\x04\x07\x00" + words(EXTENSION) + b"\x00\x00",
    b"\x02" + DEFAULTS + words(EXTENSION, "; ", "client_max_window_bits") + b"\x00\x00",
    b"\x02" + DEFAULTS + words(EXTENSION, ";", "client_max_window_bits", "=9") + words(*ALL[:3]) + b"\x01",
    b"\x02\x0c\x03\x04\x07\x00" + words(EXTENSION, "; ", "server_max_window_bits", "=9", ";", ALL[-1]) + b"\x00\x00",
]

if __name__ == "__main__":
    run(target, SEEDS, max_len=400)
