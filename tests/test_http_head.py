"""The head and the body of an HTTP answer, from bytes in any cut and with a limit on every length."""

from __future__ import annotations

import random

import pytest

from websocket import WebSocketProtocolException
from websocket._http_message import MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_LINE, BodyParser, HeadParser

HEAD = (
    b"\r\n\nHTTP/1.1 200 OK\r\nHost: a\r\nX-Empty:\r\nSet-Cookie: a=1\r\nset-cookie: b=2; Path=/\n"
    b"Accept: x\r\nACCEPT:\t y \r\nX-Name: za\xc5\xbc\xff\r\n\r\n"
)


# ---- the head


def test_a_head_in_any_cut_gives_the_same() -> None:
    stream = HEAD + b"\x81\x00\r\n\r\n"
    for cut in range(len(stream) + 1):
        head = HeadParser()
        rest = b""
        if head.feed(stream[:cut]):
            rest = stream[cut:]
        else:
            assert head.feed(stream[cut:]), f"cut at {cut}"
        assert head.first_line == "HTTP/1.1 200 OK"
        assert head.fields == [
            ("host", "a"),
            ("x-empty", ""),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2; Path=/"),
            ("accept", "x"),
            ("accept", "y"),
            ("x-name", "zaż\ufffd"),
        ]
        assert head.rest + rest == b"\x81\x00\r\n\r\n"


def test_a_head_byte_by_byte_is_whole_with_its_last_byte() -> None:
    head = HeadParser()
    whole = [head.feed(HEAD[at : at + 1]) for at in range(len(HEAD))]
    assert whole == [False] * (len(HEAD) - 1) + [True]
    assert head.rest == b""


@pytest.mark.parametrize(("excess", "taken"), [(0, True), (1, False)])
@pytest.mark.parametrize("step", [1, 2, 1000, MAX_LINE + 1, MAX_LINE + 2, 10**6])
def test_of_a_run_of_carriage_returns_the_last_alone_belongs_to_the_end_of_the_line(
    step: int, excess: int, taken: bool
) -> None:
    stream = b"x" * (MAX_LINE - 3 + excess) + b"\r\r\r\r\n\r\n"
    head = HeadParser()
    try:
        assert any(head.feed(stream[at : at + step]) for at in range(0, len(stream), step))
        assert taken
    except WebSocketProtocolException:
        assert not taken


def test_fields_of_one_name_are_joined() -> None:
    head = HeadParser()
    head.feed(HEAD)
    assert head.headers["set-cookie"] == "a=1; b=2; Path=/"
    assert head.headers["accept"] == "x, y"
    assert head.headers["x-empty"] == ""


@pytest.mark.parametrize("line", [b"no colon", b" folded: x", b"Name : x", b": x", b"a b: c", b"\xc5\xbc: x"])
def test_a_line_that_is_no_header_is_refused_and_quoted(line: bytes) -> None:
    with pytest.raises(WebSocketProtocolException, match="Invalid header: "):
        HeadParser().feed(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize("octet", [b"\r", b"\0"])
def test_a_bare_cr_or_nul_does_not_get_into_a_value(octet: bytes) -> None:
    # RFC 9110 5.5: refuse it or put a blank in its place. A kept cookie with one would spoil all later requests.
    head = HeadParser()
    try:
        head.feed(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1" + octet + b"b\r\n\r\n")
    except WebSocketProtocolException:
        return
    assert head.headers["set-cookie"] == "a=1 b"


def feed_in(head: HeadParser, data: bytes, step: int) -> bool:
    return any(head.feed(data[at : at + step]) for at in range(0, len(data), step))


STEPS = [1, 7, 1000, 10**6]


def line_of(size: int) -> bytes:
    return b"X: " + b"x" * (size - 3) + b"\r\n"


@pytest.mark.parametrize("step", STEPS)
def test_a_line_of_the_greatest_length_is_taken_in_any_cut(step: int) -> None:
    stream = b"HTTP/1.1 200 OK\r\n" + line_of(MAX_LINE) + b"\r\n"
    assert feed_in(HeadParser(), stream, step)


@pytest.mark.parametrize("step", STEPS)
def test_a_longer_line_is_refused_in_any_cut(step: int) -> None:
    stream = b"HTTP/1.1 200 OK\r\n" + line_of(MAX_LINE + 1) + b"\r\n"
    with pytest.raises(WebSocketProtocolException, match=f"line of more than {MAX_LINE} bytes"):
        feed_in(HeadParser(), stream, step)


def test_a_line_without_an_end_is_refused_as_soon_as_it_is_too_long() -> None:
    head = HeadParser()
    assert not head.feed(b"x" * MAX_LINE)
    with pytest.raises(WebSocketProtocolException, match="line of more than"):
        head.feed(b"xx")


@pytest.mark.parametrize("step", [1, 10**6])
def test_as_many_headers_as_the_limit_are_taken_and_one_more_is_not(step: int) -> None:
    start = b"HTTP/1.1 200 OK\r\n"
    head = HeadParser()
    assert feed_in(head, start + b"A: b\r\n" * MAX_HEADERS + b"\r\n", step)
    assert len(head.fields) == MAX_HEADERS
    with pytest.raises(WebSocketProtocolException, match=f"more than {MAX_HEADERS} headers"):
        feed_in(HeadParser(), start + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", step)


@pytest.mark.parametrize("step", [997, 10**6])
def test_a_head_of_more_than_the_limit_is_refused(step: int) -> None:
    stream = b"HTTP/1.1 200 OK\r\n" + line_of(MAX_LINE - 2) * (MAX_HEAD // MAX_LINE) + b"\r\n"
    with pytest.raises(WebSocketProtocolException, match=f"headers of more than {MAX_HEAD} bytes"):
        feed_in(HeadParser(), stream, step)


def test_endless_empty_lines_are_refused() -> None:
    with pytest.raises(WebSocketProtocolException, match="headers of more than"):
        feed_in(HeadParser(), b"\r\n" * MAX_HEAD, 4096)


def test_what_follows_the_head_does_not_count() -> None:
    head = HeadParser()
    frames = bytes(4 * MAX_HEAD)
    assert head.feed(HEAD + frames)
    assert head.rest == frames


# ---- the body


def body_of(headers: dict[str, str], stream: bytes, step: int) -> tuple[bytes, bool, int]:
    """(body, whether it was said to be whole, how many bytes were fed until then)."""
    parser = BodyParser(headers)
    for at in range(0, len(stream), step):
        if parser.feed(stream[at : at + step]):
            return parser.body, True, min(at + step, len(stream))
    return parser.body, False, len(stream)


CHUNKED = {"transfer-encoding": "chunked"}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("headers", "stream", "expected"),
    [
        ({"content-length": "5"}, b"hello", b"hello"),
        ({"content-length": "5"}, b"hello and more", b"hello"),
        (CHUNKED, b"5\r\nhello\r\n1;ext=x\r\n!\r\n0\r\n\r\n", b"hello!"),
        (CHUNKED, b"5\nhello\n00A\n0123456789\n0\nTrailer: x\n\n", b"hello0123456789"),
        ({"transfer-encoding": "gzip, Chunked"}, b"1\r\na\r\n0\r\n\r\n", b"a"),
        ({"transfer-encoding": "chunked", "content-length": "1"}, b"2\r\nab\r\n0\r\n\r\n", b"ab"),
    ],
)
def test_a_framed_body_is_whole_when_its_framing_says_so(
    headers: dict[str, str], stream: bytes, expected: bytes, step: int
) -> None:
    body, whole, _ = body_of(headers, stream, step)
    assert (body, whole) == (expected, True)


def test_a_body_of_no_bytes_is_whole_at_once() -> None:
    assert BodyParser({"content-length": "0"}).feed(b"")
    assert body_of(CHUNKED, b"0\r\n\r\n", 1)[:2] == (b"", True)


@pytest.mark.parametrize("headers", [{}, {"content-length": "x"}, {"content-length": "-1"}, {"content-length": "²"}])
def test_a_body_without_framing_goes_on_to_the_end_of_the_stream(headers: dict[str, str]) -> None:
    assert body_of(headers, b"hello\r\n\r\n", 3)[:2] == (b"hello\r\n\r\n", False)


def test_a_body_that_is_cut_short_is_kept_as_far_as_it_came() -> None:
    assert body_of({"content-length": "50"}, b"half", 2)[:2] == (b"half", False)
    assert body_of(CHUNKED, b"4\r\nhalf\r\n9\r\nab", 2)[:2] == (b"halfab", False)


@pytest.mark.parametrize("size", [b"zz", b"-5", b"5 5", b"\xff", b";ext"])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_bad_chunk_ends_the_body(size: bytes, step: int) -> None:
    body, whole, _ = body_of(CHUNKED, b"2\r\nok\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", step)
    assert (body, whole) == (b"ok", True)


@pytest.mark.parametrize(("excess", "body"), [(0, b"okhello"), (1, b"ok")])
@pytest.mark.parametrize("step", [1, 1000, MAX_LINE, 10**7])
def test_the_limit_of_the_line_before_a_chunk_is_exact_in_any_cut(excess: int, body: bytes, step: int) -> None:
    line = b"5;" + b"x" * (MAX_LINE - 2 + excess)
    assert body_of(CHUNKED, b"2\r\nok\r\n" + line + b"\nhello\r\n0\r\n\r\n", step)[:2] == (body, True)


def test_a_chunk_size_without_an_end_is_given_up() -> None:
    assert body_of(CHUNKED, b"1" * (2 * MAX_LINE), 1000)[1]


@pytest.mark.parametrize(
    ("headers", "frame"),
    [
        ({}, lambda data: data),
        ({"content-length": str(10 * MAX_BODY)}, lambda data: data),
        (CHUNKED, lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
        (CHUNKED, lambda data: b"".join(b"64\r\n%b\r\n" % data[at : at + 100] for at in range(0, len(data), 100))),
    ],
)
@pytest.mark.parametrize("step", [1009, 10**7])
def test_a_body_never_grows_beyond_its_limit(headers: dict[str, str], frame: object, step: int) -> None:
    data = random.Random(1).randbytes(3 * MAX_BODY // 100 * 100)
    body, whole, fed = body_of(headers, frame(data), step)  # type: ignore[operator]
    assert (body, whole) == (data[:MAX_BODY], True)
    assert fed < 2 * MAX_BODY or step > MAX_BODY
