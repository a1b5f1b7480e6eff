"""permessage-deflate, for any message and any parameters: what is compressed can be inflated, and what one side answers
the other can keep to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket._abnf import encode_frame
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

from .reference import Outcome
from .strategies import ANY_TEXT, cuts_of, examples, payloads, pieces

BITS = st.integers(8, 15)
WANTED = st.builds(
    PerMessageDeflate,
    client_max_window_bits=st.none() | BITS,
    server_max_window_bits=st.none() | BITS,
    client_no_context_takeover=st.booleans(),
    server_no_context_takeover=st.booleans(),
    level=st.integers(-1, 9),
    memory_level=st.integers(1, 9),
)
AGREEMENTS = BITS.flatmap(
    lambda bits: st.builds(
        Agreement,
        window_bits=st.just(bits),
        resets=st.booleans(),
        peer_window_bits=st.integers(bits, 15),
        level=st.integers(-1, 9),
        memory_level=st.integers(1, 9),
        min_size=st.just(0),
    )
)
# What cannot be compressed, what repeats at once and what repeats at the end of a window and beyond it.
MESSAGES = (
    payloads(3000)
    | st.builds(
        lambda data, size: bytes(range(256)) * (size // 256) + data * 2,
        st.binary(max_size=300),
        st.sampled_from([256, 512, 33_000]),
    )
    | st.randoms(use_true_random=False).map(lambda random: random.randbytes(random.choice([300, 40_000])) * 2)
)
PARAMETERS = ["client_max_window_bits", "server_max_window_bits"]
HEADER_PARTS = [
    *(EXTENSION, f"{EXTENSION}; ", *PARAMETERS, "client_no_context_takeover", "server_no_context_takeover"),
    *("; ", ";", ", ", ",", "=", '"', " ", "\t", "=8", "=15", "=16", "=010", '="12"', "x-deflate"),
]
OFFERS = st.fixed_dictionaries(
    {},
    optional={
        "client_max_window_bits": st.none() | BITS,
        "server_max_window_bits": BITS,
        "client_no_context_takeover": st.none(),
        "server_no_context_takeover": st.none(),
    },
).map(format_extension)
HEADERS = (
    OFFERS
    | st.lists(OFFERS | st.just("x-deflate; a=b") | st.just(""), max_size=3).map(", ".join)
    | st.lists(st.sampled_from(HEADER_PARTS) | ANY_TEXT, max_size=10).map("".join)
)


def inflated(inflater: Inflater, parts: list[bytes]) -> bytes:
    return b"".join(piece for part in parts for piece in inflater.inflate(part)) + b"".join(inflater.finish())


# ---- messages


@given(agreement=AGREEMENTS, messages=st.lists(MESSAGES, min_size=1, max_size=4), data=st.data())
@examples(100)
def test_messages_that_are_compressed_and_inflated_are_themselves_in_any_cut(
    agreement: Agreement, messages: list[bytes], data: st.DataObject
) -> None:
    deflater, inflater = Deflater(agreement), Inflater(agreement)
    # Said again, this is at the far end of the window.
    noise = random.Random(1).randbytes(2 ** max(agreement.window_bits, 9) - 300)
    for message in [*messages, noise, noise]:
        payload = deflater.message(message)
        assert inflated(inflater, pieces(payload, data.draw(cuts_of(payload)))) == message
        chunks = pieces(message, sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=3))))
        assert inflated(inflater, [*map(deflater.part, chunks), deflater.end()]) == message


@given(bits=BITS, message=MESSAGES, excess=st.integers(-2, 2), data=st.data())
@examples(60)
def test_the_limit_of_a_message_is_that_of_what_it_gives_in_any_cut(
    bits: int, message: bytes, excess: int, data: st.DataObject
) -> None:
    agreement = Agreement(bits, False, bits, data.draw(st.integers(1, 9)), 8, 0)
    deflater = Deflater(agreement)
    limit = max(len(message) + excess, 0)
    stream = b"".join(encode_frame(0xC2, deflater.message(message), None) for _ in range(2))
    expected = ([message, message], 0, False) if len(message) <= limit else ([], 1009, False)
    for cuts in ([], data.draw(cuts_of(stream))):
        outcome = Outcome(stream, cuts, inflater=Inflater(agreement), max_message_size=limit)
        assert outcome.all == expected


@pytest.mark.parametrize(("bits", "memory_level"), [(9, 1), (9, 3), (15, 1), (15, 9)])
def test_a_message_within_the_limit_is_taken_although_it_became_longer_by_being_compressed(
    bits: int, memory_level: int
) -> None:
    message = random.Random(1).randbytes(300_000)
    agreement = Agreement(bits, False, bits, 9, memory_level, 0)
    frame = encode_frame(0xC2, Deflater(agreement).message(message), None)
    assert len(frame) > len(message)
    outcome = Outcome(frame, [len(frame) // 2], inflater=Inflater(agreement), max_message_size=len(message))
    assert outcome.all == ([message], 0, False)


@given(agreement=AGREEMENTS, parts=st.lists(st.binary(max_size=40), max_size=4), data=st.data())
@examples(100)
def test_any_bytes_are_the_same_message_or_failure_in_any_cut(
    agreement: Agreement, parts: list[bytes], data: st.DataObject
) -> None:
    frames = [
        *(encode_frame(0x42 if number == 0 else 0, part, None) for number, part in enumerate(parts)),
        encode_frame(0x80 if parts else 0xC2, data.draw(st.sampled_from([b"", b"\x00"])), None),
    ]
    stream = b"".join(frames)
    results: list[Any] = []
    for cuts in ([], data.draw(cuts_of(stream))):
        outcome = Outcome(stream, cuts, inflater=Inflater(agreement), max_message_size=None)
        results.append((*outcome.all, type(outcome.parser.error), outcome.error_code or outcome.at_boundary))
    assert results[0] == results[1]
    assert results[0][1] in (0, 1007)


# ---- negotiation


@given(HEADERS)
@examples(150)
def test_any_header_is_refused_or_holds_offers_that_can_be_written_and_read_again(header: str) -> None:
    try:
        offers = parse_offers(header)
    except ValueError:
        return
    assert [parse_offers(format_extension(offer)) for offer in offers] == [[offer] for offer in offers]
    assert parse_offers(", ".join(map(format_extension, offers))) == offers


@given(client=WANTED, server=WANTED, header=st.none() | HEADERS)
@examples(150)
def test_what_is_answered_to_an_offer_is_an_answer_to_it(
    client: PerMessageDeflate, server: PerMessageDeflate, header: str | None
) -> None:
    own = format_extension(client.offer)
    try:
        answered = answer_offers(own if header is None else header, server)
    except ValueError:
        assert header is not None
        return
    elements = (own if header is None else header).split(",")
    ours = [element for element in elements if element.split(";")[0].strip(" \t") == EXTENSION]
    assert bool(answered) is bool(ours)
    if answered is None:
        return
    offers = parse_offers(ours[0])
    of_client, of_server = check_answer(answered[0], offers, client), answered[1]
    assert of_client.peer_window_bits == of_server.window_bits
    assert of_client.window_bits <= of_server.peer_window_bits
    assert of_server.resets or not server.server_no_context_takeover
    assert of_client.resets or not server.client_no_context_takeover
    assert of_server.window_bits <= (server.server_max_window_bits or 15)
    if header is None:
        assert offers == [client.offer]
        assert of_client.window_bits <= (client.client_max_window_bits or 15)
        assert of_client.peer_window_bits <= (client.server_max_window_bits or 15)
        assert of_client.resets or not client.client_no_context_takeover
        assert of_server.resets or not client.server_no_context_takeover


def fits(answer: dict[str, int | None], offer: dict[str, int | None]) -> bool:
    """RFC 7692 7.1: whether it answers the offer."""
    if "client_max_window_bits" in answer and "client_max_window_bits" not in offer:
        return False
    if "server_no_context_takeover" in offer and "server_no_context_takeover" not in answer:
        return False
    most = offer.get("server_max_window_bits")
    return most is None or (answer.get("server_max_window_bits") or 16) <= most


@given(answer=HEADERS, offers=st.none() | HEADERS, wanted=WANTED)
@examples(150)
def test_any_answer_is_refused_or_one_that_both_can_keep_to(
    answer: str, offers: str | None, wanted: PerMessageDeflate
) -> None:
    try:
        asked = [wanted.offer] if offers is None else parse_offers(offers)
        agreement = check_answer(answer, asked, wanted)
    except ValueError:
        return
    (taken,) = parse_offers(answer)
    assert taken.get("client_max_window_bits", 15) is not None
    assert agreement.peer_window_bits == taken.get("server_max_window_bits", 15)
    assert 8 <= agreement.window_bits <= (taken.get("client_max_window_bits") or 15)
    assert agreement.resets or "client_no_context_takeover" not in taken
    assert any(fits(taken, offer) for offer in asked)
    assert check_answer(format_extension(taken), asked, wanted) == agreement
