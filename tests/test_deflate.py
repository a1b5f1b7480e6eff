"""permessage-deflate by its values: what is offered, and which answers are answers to it (RFC 7692 7.1)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from websocket import PerMessageDeflate
from websocket._deflate import (
    Agreement,
    answer_offers,
    check_answer,
    format_extension,
    parse_offers,
)
from websocket._handshake import RequestOptions, build_request
from websocket._url import parse_target


def agreed(bits: int = 15, resets: bool = False, peer_bits: int = 15, **options: int) -> Agreement:
    values = {"level": 3, "memory_level": 8, "min_size": 1024, **options}
    return Agreement(bits, resets, peer_bits, **values)


# ---- what is offered ----


@pytest.mark.parametrize(
    ("wanted", "offer"),
    [
        (PerMessageDeflate(), "permessage-deflate; client_max_window_bits"),
        (PerMessageDeflate(client_max_window_bits=15), "permessage-deflate; client_max_window_bits=15"),
        (
            PerMessageDeflate(server_max_window_bits=8),
            "permessage-deflate; client_max_window_bits; server_max_window_bits=8",
        ),
        (
            PerMessageDeflate(9, 10, True, True),
            "permessage-deflate; client_max_window_bits=9; server_max_window_bits=10; client_no_context_takeover;"
            " server_no_context_takeover",
        ),
    ],
)
def test_an_offer_as_it_is_written_can_be_read_again(wanted: PerMessageDeflate, offer: str) -> None:
    assert format_extension(wanted.offer) == offer
    assert parse_offers(offer) == [wanted.offer]
    request = build_request(parse_target("ws://host/"), RequestOptions(compression=wanted))
    assert f"\r\nSec-WebSocket-Extensions: {offer}\r\n".encode() in request.data
    assert request.offers == (wanted.offer,)
    assert request.compression == wanted


def test_nothing_is_offered_by_default() -> None:
    request = build_request(parse_target("ws://host/"), RequestOptions())
    assert b"extensions" not in request.data.lower()
    assert request.offers == ()


def test_deflate_means_the_defaults() -> None:
    assert PerMessageDeflate.parse("deflate") == PerMessageDeflate()
    assert PerMessageDeflate.parse(None) is None
    given = PerMessageDeflate(level=9)
    assert PerMessageDeflate.parse(given) is given


@pytest.mark.parametrize("option", ["gzip", "", True, False, 1, b"deflate", {}, ["deflate"], PerMessageDeflate])
def test_other_options_are_refused_by_value(option: Any) -> None:
    with pytest.raises(ValueError, match="compression must be") as caught:
        RequestOptions(compression=option)
    assert repr(option) in str(caught.value)


BAD_VALUES = [
    *itertools.product(["client_max_window_bits", "server_max_window_bits"], [7, 16, 0, -15, "15", 9.0, True]),
    *itertools.product(["client_no_context_takeover", "server_no_context_takeover"], [0, 1, None, "yes"]),
    *itertools.product(["level"], [-2, 10, None, "3", True]),
    *itertools.product(["memory_level"], [0, 10, None, False]),
    *itertools.product(["min_size"], [-1, None, 1.5, True]),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_value_beyond_its_bounds_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be") as caught:
        PerMessageDeflate(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"client_max_window_bits": 8, "server_max_window_bits": 15},
        {"level": -1, "memory_level": 1, "min_size": 0},
        {"level": 0, "memory_level": 9, "min_size": 1 << 70},
        {"level": 9},
    ],
)
def test_the_bounds_themselves_are_allowed(options: dict[str, int]) -> None:
    assert {name: getattr(PerMessageDeflate(**options), name) for name in options} == options  # type: ignore[arg-type]


# ---- a header of the program's own ----


@pytest.mark.parametrize(
    ("header", "offers"),
    [
        ("permessage-deflate", [{}]),
        (" permessage-deflate ;\tclient_max_window_bits = 10 ", [{"client_max_window_bits": 10}]),
        ('permessage-deflate; server_max_window_bits="12"', [{"server_max_window_bits": 12}]),
        (
            "permessage-deflate; server_no_context_takeover, permessage-deflate; client_max_window_bits",
            [{"server_no_context_takeover": None}, {"client_max_window_bits": None}],
        ),
        (", permessage-deflate,,", [{}]),
    ],
)
@pytest.mark.parametrize("name", ["Sec-WebSocket-Extensions", "sec-websocket-extensions"])
def test_a_header_of_the_program_is_an_offer(name: str, header: str, offers: list[dict[str, int | None]]) -> None:
    for given in ({name: header}, [f"{name}: {header}"]):
        request = build_request(parse_target("ws://host/"), RequestOptions(header=given))
        assert list(request.offers) == offers
        assert request.data.lower().count(b"sec-websocket-extensions:") == 1
        assert header.strip(" \t").encode() in request.data
        assert request.compression == PerMessageDeflate()


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("x-webkit-deflate-frame", "x-webkit-deflate-frame"),
        ("permessage-deflate, permessage-bzip2", "permessage-bzip2"),
        ("", "offers nothing"),
        (" , ", "offers nothing"),
        ("permessage-deflate; client_max_window_bits=16", "8 to 15"),
        ("permessage-deflate; client_max_window_bits=08", "8 to 15"),
        ("permessage-deflate; server_max_window_bits", "needs a value"),
        ("permessage-deflate; client_no_context_takeover=1", "takes no value"),
        ("permessage-deflate; max_window", "no parameter 'max_window'"),
        ("permessage-deflate;", "is no extension"),
        ("permessage deflate", "is no extension"),
    ],
)
def test_a_header_that_could_not_be_kept_to_is_refused(header: str, why: str) -> None:
    with pytest.raises(ValueError, match="header Sec-WebSocket-Extensions") as caught:
        build_request(parse_target("ws://host/"), RequestOptions(header={"Sec-WebSocket-Extensions": header}))
    assert why in str(caught.value)


def test_a_header_and_the_option_are_one_too_many() -> None:
    options = RequestOptions(header=["Sec-WebSocket-Extensions: permessage-deflate"], compression="deflate")
    with pytest.raises(ValueError, match="give one of them"):
        build_request(parse_target("ws://host/"), options)


def test_two_headers_of_the_program_are_both_offers() -> None:
    """RFC 6455 9.1: the header may be split into several lines."""
    lines = [f"Sec-WebSocket-Extensions: permessage-deflate{rest}" for rest in ("; client_max_window_bits", "")]
    request = build_request(parse_target("ws://host/"), RequestOptions(header=lines))
    assert list(request.offers) == [{"client_max_window_bits": None}, {}]
    with pytest.raises(ValueError, match="x-other"):
        build_request(
            parse_target("ws://host/"), RequestOptions(header=["Sec-WebSocket-Extensions: x-other", lines[1]])
        )


# ---- answers ----

EVERYTHING = PerMessageDeflate(12, 11, True, True)
DEMANDS_NOTHING = PerMessageDeflate()


@pytest.mark.parametrize(
    ("wanted", "answer", "expected"),
    [
        (DEMANDS_NOTHING, "", agreed()),
        (DEMANDS_NOTHING, "; client_max_window_bits=8", agreed(8)),
        (DEMANDS_NOTHING, "; client_max_window_bits=15; server_max_window_bits=9", agreed(15, peer_bits=9)),
        (DEMANDS_NOTHING, "; server_max_window_bits=8; client_no_context_takeover", agreed(15, True, 8)),
        (DEMANDS_NOTHING, "; server_no_context_takeover", agreed()),
        (DEMANDS_NOTHING, ' ; server_max_window_bits = "10"\t', agreed(peer_bits=10)),
        (PerMessageDeflate(client_max_window_bits=10), "", agreed(10)),
        (PerMessageDeflate(client_max_window_bits=10), "; client_max_window_bits=9", agreed(9)),
        (PerMessageDeflate(client_max_window_bits=10), "; client_max_window_bits=15", agreed(10)),
        (PerMessageDeflate(client_no_context_takeover=True), "", agreed(15, True)),
        (PerMessageDeflate(server_max_window_bits=10), "; server_max_window_bits=10", agreed(peer_bits=10)),
        (EVERYTHING, "; server_no_context_takeover; server_max_window_bits=8", agreed(12, True, 8)),
        (PerMessageDeflate(level=9, memory_level=1, min_size=0), "", agreed(level=9, memory_level=1, min_size=0)),
    ],
)
def test_a_legal_answer_settles_what_is_agreed(wanted: PerMessageDeflate, answer: str, expected: Agreement) -> None:
    assert check_answer("permessage-deflate" + answer, [wanted.offer], wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "answer", "why"),
    [
        (DEMANDS_NOTHING, "permessage-bzip2", "nothing else"),
        (DEMANDS_NOTHING, "x-webkit-deflate-frame", "nothing else"),
        (DEMANDS_NOTHING, "permessage-deflate, permessage-deflate", "nothing else"),
        (DEMANDS_NOTHING, "permessage-deflate, x-other", "nothing else"),
        (DEMANDS_NOTHING, "permessage-deflate=1", "is no extension"),
        (DEMANDS_NOTHING, "permessage-deflate; no_context", "no parameter 'no_context'"),
        (DEMANDS_NOTHING, "permessage-deflate; Server_No_Context_Takeover", "no parameter"),
        (
            DEMANDS_NOTHING,
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "comes twice",
        ),
        (DEMANDS_NOTHING, "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9", "comes twice"),
        (DEMANDS_NOTHING, "permessage-deflate; client_max_window_bits", "needs a value"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits", "needs a value"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits=", "is no extension"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits=7", "8 to 15"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits=16", "8 to 15"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits=010", "8 to 15"),
        (DEMANDS_NOTHING, "permessage-deflate; server_max_window_bits=+9", "8 to 15"),
        (DEMANDS_NOTHING, "permessage-deflate; client_max_window_bits=\u0669", "is no extension"),
        (DEMANDS_NOTHING, "permessage-deflate; server_no_context_takeover=true", "takes no value"),
        (DEMANDS_NOTHING, 'permessage-deflate; server_max_window_bits="9', "is no extension"),
        (DEMANDS_NOTHING, 'permessage-deflate; server_max_window_bits="9 "', "is no extension"),
        (DEMANDS_NOTHING, 'permessage-deflate; server_max_window_bits="07"', "8 to 15"),
        (DEMANDS_NOTHING, "permessage-deflate;; server_no_context_takeover", "is no extension"),
        (DEMANDS_NOTHING, "permessage-deflate;", "is no extension"),
        (DEMANDS_NOTHING, "; permessage-deflate", "is no extension"),
        (DEMANDS_NOTHING, "permessage-deflate \x00", "is no extension"),
        (DEMANDS_NOTHING, "", "nothing else"),
        (EVERYTHING, "permessage-deflate; server_no_context_takeover", "server_max_window_bits must be at most the 11"),
        (
            EVERYTHING,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12",
            "server_max_window_bits must be at most the 11",
        ),
        (EVERYTHING, "permessage-deflate; server_max_window_bits=11", "server_no_context_takeover was asked for"),
    ],
)
def test_an_illegal_answer_is_refused_and_why_is_said(wanted: PerMessageDeflate, answer: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_answer(answer, [wanted.offer], wanted)
    assert why in str(caught.value)


def test_an_answer_to_no_offer_is_refused() -> None:
    with pytest.raises(ValueError, match="no extension was asked for"):
        check_answer("permessage-deflate", [], DEMANDS_NOTHING)


def test_an_answer_is_held_against_each_offer() -> None:
    offers = parse_offers("permessage-deflate; server_no_context_takeover, permessage-deflate; client_max_window_bits")
    answer = "permessage-deflate; client_max_window_bits=9"
    assert check_answer(answer, offers, DEMANDS_NOTHING) == agreed(9)
    with pytest.raises(ValueError, match="client_max_window_bits was not offered"):
        check_answer(answer + "; server_no_context_takeover", offers[:1], DEMANDS_NOTHING)


@pytest.mark.parametrize(
    ("header", "wanted", "answer", "expected"),
    [
        ("permessage-deflate", PerMessageDeflate(), "", agreed()),
        ("x-other, permessage-deflate", PerMessageDeflate(9, 10), "; server_max_window_bits=10", agreed(10)),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=9; server_no_context_takeover",
            PerMessageDeflate(8, 10, True),
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9;"
            " client_max_window_bits=8",
            agreed(9, True, 8),
        ),
        (
            "permessage-deflate; client_max_window_bits=9",
            PerMessageDeflate(10, server_no_context_takeover=True),
            "; server_no_context_takeover; client_max_window_bits=9",
            agreed(15, True, 9),
        ),
    ],
)
def test_a_servers_answer_is_legal_to_the_offer(
    header: str, wanted: PerMessageDeflate, answer: str, expected: Agreement
) -> None:
    assert answer_offers(header, wanted) == ("permessage-deflate" + answer, expected)
    offers = parse_offers(header.removeprefix("x-other, "))
    assert check_answer("permessage-deflate" + answer, offers, DEMANDS_NOTHING).peer_window_bits == expected.window_bits


def test_a_server_does_not_answer_other_extensions() -> None:
    assert answer_offers("", PerMessageDeflate()) is None
    assert answer_offers("x-other; a=1", PerMessageDeflate()) is None
