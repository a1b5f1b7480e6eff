"""Heads and bodies of HTTP messages, for any bytes and in any cut."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket import WebSocketProtocolException
from websocket._http_message import MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_LINE, BodyParser, HeadParser, parse_status_line

from .strategies import ANY_TEXT, HEADER_VALUES, TOKENS, cuts_of, examples, pieces

READ = 16 * 1024  # as much as is read from a connection at once
HEAD_PARTS = [
    b"HTTP/1.1 101 Ok",
    b"HTTP/1.1 200",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"a:b",
    b"a: b\r\n",
    b"Upgrade: ",
    b":",
    b" ",
]
HEAD_BYTES = st.lists(st.sampled_from(HEAD_PARTS) | st.binary(max_size=8), max_size=14).map(b"".join)
CHUNK_PARTS = [b"5\r\n", b"0", b"\r\n", b"\n", b"f" * 15, b"f" * 16, b";", b"x" * 9]
CHUNK_BYTES = st.lists(st.sampled_from(CHUNK_PARTS), max_size=12).map(b"".join)


def fed(parts: list[bytes]) -> tuple[Any, ...]:
    """What a head says that gets these bytes: (first line, fields, whether it is whole, what is behind it, error)."""
    head = HeadParser()
    for number, part in enumerate(parts):
        try:
            if head.feed(part):
                return (head.first_line, head.fields, True, head.rest + b"".join(parts[number + 1 :]), "")
        except WebSocketProtocolException as error:
            return (head.first_line, head.fields, False, b"", str(error))
    return (head.first_line, head.fields, False, b"", "")


# ---- heads


@given(data=st.data(), stream=HEAD_BYTES)
@examples(250)
def test_any_bytes_are_the_same_head_in_any_cut_or_a_protocol_error(data: st.DataObject, stream: bytes) -> None:
    whole = fed([stream])
    assert fed(pieces(stream, data.draw(cuts_of(stream)))) == whole
    assert all(value == value.strip(" \t") and name == name.lower() for name, value in whole[1])
    assert not any(re.search("[\r\n\0]", name + value) for name, value in whole[1])


@given(
    status=st.integers(100, 599),
    fields=st.lists(st.tuples(TOKENS, HEADER_VALUES), max_size=8),
    blank=st.sampled_from(["", " ", "\t", "  "]),
    end=st.sampled_from(["\r\n", "\n"]),
    rest=st.binary(max_size=20),
    data=st.data(),
)
@examples(100)
def test_a_valid_head_says_what_was_written(
    status: int, fields: list[tuple[str, str]], blank: str, end: str, rest: bytes, data: st.DataObject
) -> None:
    line = f"HTTP/1.1 {status} Żart"
    text = end.join(["", line, *(f"{name}:{blank}{value}{blank}" for name, value in fields), "", ""])
    stream = text.encode() + rest
    expected = [(name.lower(), value) for name, value in fields]
    assert fed(pieces(stream, data.draw(cuts_of(stream)))) == (line, expected, True, rest, "")
    assert parse_status_line(line) == (status, "Żart")


@given(
    prefix=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"\r\n", b"a"]),
    unit=st.sampled_from([b"a", b"\n", b"\r\n", b"a:b\n", b"a:" + b"x" * 2000 + b"\r\n", b"a: ", b"\xff"])
    | st.binary(min_size=1, max_size=4),
    step=st.sampled_from([1000, 1024, 5000, READ]),
)
@examples(60)
def test_a_head_without_an_end_is_refused_whatever_its_cut(prefix: bytes, unit: bytes, step: int) -> None:
    bound = MAX_HEAD + MAX_LINE + 2
    stream = prefix + unit * ((bound + 2 * step) // len(unit))
    head = HeadParser()
    taken = 0
    for start in range(0, len(stream), step):
        try:
            if head.feed(stream[start : start + step]):
                break
        except WebSocketProtocolException:
            break
        taken += step
        assert taken <= bound
    assert len(head.fields) <= MAX_HEADERS


@pytest.mark.parametrize(("excess", "taken"), [(0, True), (1, False)])
@given(step=st.integers(1, 40_000), end=st.sampled_from([b"\n", b"\r\n"]))
@examples(10)
def test_the_limit_of_a_line_is_exact_in_any_cut(excess: int, taken: bool, step: int, end: bytes) -> None:
    line = b"a:" + b"x" * (MAX_LINE - 2 + excess) + end
    stream = b"HTTP/1.1 200 OK\r\n" + line + end
    assert fed([stream[at : at + step] for at in range(0, len(stream), step)])[2] is taken


@given(
    ANY_TEXT
    | st.builds("HTTP/1.{} {}{}".format, st.integers(0, 10), st.integers(0, 700), ANY_TEXT.map(" ".__add__) | ANY_TEXT)
)
@examples(120)
def test_any_line_is_a_status_line_or_a_protocol_error(line: str) -> None:
    try:
        status, reason = parse_status_line(line)
    except WebSocketProtocolException:
        return
    assert re.fullmatch(rf"HTTP/1\.[0-9] {status}( .*)?", line, re.DOTALL)
    assert 100 <= status <= 599
    assert not re.search("[\0-\x08\n-\x1f\x7f]", reason)


# ---- bodies


@given(data=st.data(), body=st.binary(max_size=300), times=st.sampled_from([1, 1, 1, 300, 2000]))
@examples(120)
def test_a_body_is_the_same_in_each_framing_and_each_cut(data: st.DataObject, body: bytes, times: int) -> None:
    body *= times
    framing = data.draw(st.sampled_from(["length", "end", "chunked"]))
    headers = {"content-length": str(len(body))} if framing == "length" else {}
    stream = body
    if framing == "chunked":
        headers = {"transfer-encoding": data.draw(st.sampled_from(["chunked", "gzip, Chunked"]))}
        chunks = pieces(body, sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5))))
        extension = data.draw(st.sampled_from([b"", b";x=y", b" ; z", b";" + b"x" * 500]))
        sizes = data.draw(st.sampled_from(["%x", "%X", "%08x"]))
        stream = b"".join((sizes % len(c)).encode() + extension + b"\r\n" + c + b"\r\n" for c in chunks if c)
        stream += b"0\r\n\r\n"
    elif framing == "length":
        stream += b"and the next"
    parser = BodyParser(headers)
    whole = False
    for piece in pieces(stream, data.draw(cuts_of(stream))):
        if whole := parser.feed(piece):
            break
    assert parser.body == body[:MAX_BODY]
    assert whole is (framing != "end" or len(body) >= MAX_BODY)


@given(
    headers=st.fixed_dictionaries(
        {},
        optional={
            "transfer-encoding": st.sampled_from(["chunked", "identity", "x,chunked", "chunked,x"]) | ANY_TEXT,
            "content-length": st.integers(-5, 2**70).map(str) | ANY_TEXT | st.sampled_from(["5, 5", "\u0665", "\xb2"]),
        },
    ),
    stream=CHUNK_BYTES | CHUNK_BYTES.map(lambda part: part * 500),
    data=st.data(),
)
@examples(120)
def test_any_bytes_are_the_same_body_in_any_cut_and_never_too_long(
    headers: dict[str, str], stream: bytes, data: st.DataObject
) -> None:
    results = []
    for cuts in ([], data.draw(cuts_of(stream))):
        parser = BodyParser(headers)
        whole = any(parser.feed(piece) for piece in pieces(stream, cuts))
        assert len(parser.body) <= MAX_BODY
        results.append((whole, parser.body))
    assert results[0] == results[1]
