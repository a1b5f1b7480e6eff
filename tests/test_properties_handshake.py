"""The opening handshake: any answer is taken or refused by what the RFC demands, and nothing gets into a request but
what the options say."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket import WebSocketProtocolException
from websocket._handshake import Request, RequestOptions, accept_value, build_request, check_response, header_pairs
from websocket._http_message import HeadParser
from websocket._url import Target

from .strategies import ANY_TEXT, HEADER_VALUES, TOKENS, examples

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


# ---- the check of a response

ANSWER = {
    "Upgrade": ["websocket", "WebSocket", "h2c", "websocket, h2c"],
    "Connection": ["Upgrade", "keep-alive, upgrade", "keep-alive", "Upgraded", ",Upgrade ,"],
    "Sec-WebSocket-Accept": [accept_value(KEY), accept_value("other"), accept_value(KEY).lower(), "ż"],
    "Sec-WebSocket-Extensions": ["permessage-deflate", ""],
    "Sec-WebSocket-Protocol": ["chat", "CHAT", "other", "chat, other", ""],
}


@given(
    fields=st.tuples(*(st.sampled_from([None, *values, values[0]]) for values in ANSWER.values())),
    twice=st.none() | st.sampled_from(list(ANSWER)),
    offered=st.sampled_from([(), ("chat",), ("other", "chat")]),
)
@examples(250)
def test_a_response_is_taken_where_all_that_the_rfc_demands_is_in_it(
    fields: tuple[str | None, ...], twice: str | None, offered: tuple[str, ...]
) -> None:
    lines = [(name, value) for name, value in zip(ANSWER, fields, strict=True) if value is not None]
    lines += [line for line in lines if line[0] == twice]
    head = HeadParser()
    assert head.feed("\r\n".join(["HTTP/1.1 101 Ok", *map(": ".join, lines), "", ""]).encode())
    upgrade, connection, accept, extensions, subprotocol = (
        ", ".join(v for n, v in lines if n == name) for name in ANSWER
    )
    chosen = subprotocol if any(name == "Sec-WebSocket-Protocol" for name, _ in lines) else None
    good = (
        upgrade.lower() == "websocket"
        and "upgrade" in re.split(r"\s*,\s*", connection.lower())
        and accept == accept_value(KEY)
        and extensions == ""
        and (chosen.lower() in offered if chosen is not None else not offered)
    )
    try:
        assert check_response(head, Request(b"", KEY, offered)) == chosen
        assert good
    except WebSocketProtocolException:
        assert not good


# ---- the request


def lines_of(request: Request) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The first line and the headers of a request, taken apart at CRLF and nowhere else."""
    head, end, rest = request.data.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    first, *lines = head.split(b"\r\n")
    assert not re.search(rb"[\r\n\0]", b"".join([first, *lines]))
    pairs = [line.partition(b": ") for line in lines]
    assert all(re.fullmatch(rb"[^\0-\x20\x7f-\xff:]+", name) and colon for name, colon, _ in pairs)
    return first, [(name, value) for name, _, value in pairs]


# Where a text gets into a request; each is spoiled alone, or refusals of the others would hide what it does.
OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a header's name": lambda text: {"header": {"X-One": "1", text: "2"}},
    "a header's value": lambda text: {"header": {"X-One": "1", "X-Two": text}},
    "a header's line": lambda text: {"header": ["X-One: 1", text]},
    "the end of a header's line": lambda text: {"header": ["X-One: 1", f"X-Two: {text}"]},
    "the key": lambda text: {"header": {"X-One": "1", "Sec-WebSocket-Key": text}},
    "a subprotocol": lambda text: {"subprotocols": ["chat", text]},
    **{name: lambda text, name=name: {name: text} for name in ("cookie", "origin", "host", "connection")},
}
TARGETS: dict[str, Callable[[str], dict[str, Any]]] = {
    "the URL's host": lambda text: {"host": text},
    "the URL's path": lambda text: {"resource": f"/{text}"},
    "the URL's user": lambda text: {"user": text},
    "the URL's password": lambda text: {"password": text},
}


@pytest.mark.parametrize("place", [*OPTIONS, *TARGETS, "a kept cookie"])
@given(text=st.builds("{}{}{}".format, HEADER_VALUES, ANY_TEXT, HEADER_VALUES))
@examples(40)
def test_any_text_in_a_request_is_refused_or_adds_no_line_to_it(place: str, text: str) -> None:
    options = OPTIONS.get(place, lambda text: {})(text)
    target = replace(Target("h", 80, "/", False, "u", "p"), **TARGETS.get(place, lambda text: {})(text))
    try:
        request = build_request(target, RequestOptions(**options), cookie=text if place == "a kept cookie" else "")
    except ValueError:
        return
    first, pairs = lines_of(request)
    assert first == f"GET {target.resource} HTTP/1.1".encode()
    assert first.count(b" ") == 2
    given_names = [name.lower() for name, _ in header_pairs(options.get("header"))]
    ours = {"host", "upgrade", "connection", "origin", "sec-websocket-key", "sec-websocket-version", "authorization"}
    optional = {"cookie": place == "a kept cookie" and text, "sec-websocket-protocol": "subprotocols" in options}
    expected = [*given_names, *(ours | {name for name, wanted in optional.items() if wanted}) - set(given_names)]
    assert sorted(name.decode().lower() for name, _ in pairs) == sorted(expected)


@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "header": st.dictionaries(TOKENS | ANY_TEXT | st.integers(), ANY_TEXT | st.none() | st.binary(), max_size=2)
            | st.lists(ANY_TEXT | st.none() | st.binary(), max_size=2)
            | ANY_TEXT
            | st.integers(),
            **dict.fromkeys(("cookie", "origin", "host", "connection"), ANY_TEXT | st.binary(max_size=3)),
            "subprotocols": st.lists(TOKENS | ANY_TEXT | st.none(), max_size=2) | ANY_TEXT,
            **dict.fromkeys(("suppress_origin", "suppress_host"), st.booleans()),
        },
    ),
    credentials=st.booleans(),
)
@examples(150)
def test_options_of_any_type_are_refused_with_value_error_or_make_a_request(
    options: dict[str, Any], credentials: bool
) -> None:
    target = Target("h", 80, "/", False, "u", "p")
    try:
        request = build_request(target, RequestOptions(**options), credentials=credentials)
    except ValueError:
        return
    assert len(lines_of(request)[1]) <= len(header_pairs(options.get("header"))) + 7


@given(
    header=st.dictionaries(TOKENS.map(lambda name: f"x-{name.lower()}"), HEADER_VALUES, max_size=4),
    as_mapping=st.booleans(),
    named=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("origin", "host"), HEADER_VALUES.filter(bool))
        | {"connection": st.just("keep-alive, Upgrade")},
    ),
    subprotocols=st.lists(TOKENS, max_size=3),
    cookie=HEADER_VALUES,
    user=st.none() | st.text("ab:@ż", max_size=5),
)
@examples(120)
def test_a_request_parses_back_to_the_options_that_were_given(
    header: dict[str, str],
    as_mapping: bool,
    named: dict[str, str],
    subprotocols: list[str],
    cookie: str,
    user: str | None,
) -> None:
    target = Target("example.com", 8080, "/path?query", True, user, None if user is None else "word")
    own = header if as_mapping else list(itertools.starmap("{}: {}".format, header.items()))
    request = build_request(target, RequestOptions(header=own, subprotocols=subprotocols, **named), cookie=cookie)
    head = HeadParser()
    assert head.feed(request.data)
    assert head.first_line == "GET /path?query HTTP/1.1"
    expected = {
        "host": "example.com:8080",
        "origin": "https://example.com:8080",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": request.key,
        **named,
        **header,
    }
    if subprotocols:
        expected["sec-websocket-protocol"] = ",".join(subprotocols)
    if cookie:
        expected["cookie"] = cookie
    if user is not None:
        expected["authorization"] = "Basic " + base64.b64encode(f"{user}:word".encode()).decode()
    assert dict(head.fields) == expected
    assert len(head.fields) == len(expected)
    assert request.subprotocols == tuple(subprotocols)
