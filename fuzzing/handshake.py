"""Heads, response checks and bodies in any cut, and requests from any options: nothing but the package's exceptions and
ValueError comes out, limits hold, and no request has a line in it that nobody asked for."""

from __future__ import annotations

import re
from typing import Any

from harness import Input, instrumented, pieces, run

with instrumented():
    from websocket._exceptions import WebSocketProtocolException
    from websocket._handshake import Request, RequestOptions, bad_status, build_request, check_response
    from websocket._http_message import (
        MAX_BODY,
        MAX_HEAD,
        MAX_HEADERS,
        MAX_LINE,
        BodyParser,
        HeadParser,
        parse_status_line,
    )
    from websocket._url import Target

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
READ = 16 * 1024  # as much as is read from a connection at once
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def fed(parts: list[bytes]) -> tuple[HeadParser, bool, str, bytes]:
    """A head fed with these bytes: (it, whether it is whole, its error, what is behind it)."""
    head = HeadParser()
    taken = 0
    for number, part in enumerate(parts):
        taken += len(part)
        try:
            if head.feed(part):
                return head, True, "", head.rest + b"".join(parts[number + 1 :])
        except WebSocketProtocolException as error:
            return head, False, str(error), b""
        assert taken <= MAX_HEAD + MAX_LINE + 2, "an endless head is taken"
    return head, False, "", b""


def outcome(parts: list[bytes]) -> tuple[Any, ...]:
    head, whole, error, rest = fed(parts)
    return (head.first_line, head.fields, whole, error, rest)


def head(source: Input) -> None:
    steps = source.cuts()
    data = source.swollen(200_000)
    parsed, whole, error, _ = fed(pieces(data, [], READ))
    step = max(len(data) // 300, 1)
    cut = outcome(pieces(data, [one * step for one in steps], READ))
    assert cut == outcome(pieces(data, [], READ)), (data, steps)
    if not whole:
        return
    assert not error
    assert len(parsed.fields) <= MAX_HEADERS
    for name, value in parsed.fields:
        assert TOKEN.fullmatch(name.encode())
        assert name == name.lower()
        assert not re.search(r"[\r\n\0]", value)
        assert value == value.strip(" \t")
        assert value in parsed.headers[name]
    judged(parsed)


def judged(parsed: HeadParser) -> None:
    try:
        status, reason = parse_status_line(parsed.first_line)
    except WebSocketProtocolException:
        return
    assert 100 <= status <= 599
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", reason)
    error = bad_status(status, reason, parsed.headers, None)
    assert (error.status_code, error.status_message, error.resp_headers) == (status, reason, parsed.headers)
    for offered in ((), ("chat",), ("Chat", "superchat")):
        fields = dict(parsed.fields)
        try:
            subprotocol = check_response(parsed, Request(b"", KEY, offered))
        except WebSocketProtocolException:
            continue
        assert fields["sec-websocket-accept"] == ACCEPT
        assert fields["upgrade"].lower() == "websocket"
        assert "upgrade" in parsed.headers["connection"].lower()
        assert not parsed.headers.get("sec-websocket-extensions")
        chosen = "" if subprotocol is None else subprotocol.lower()
        assert chosen in ([name.lower() for name in offered] or [""])


def body(source: Input) -> None:
    chunked, has_length = source.flags(2)
    headers = {}
    if chunked:
        headers["transfer-encoding"] = "chunked" if source.byte() < 200 else source.text(source.byte())
    if has_length:
        headers["content-length"] = str(source.number() * 3) if source.byte() < 200 else source.text(20)
    steps = source.cuts()
    data = source.swollen(100_000)
    results = []
    for each in ([], [step * max(len(data) // 300, 1) for step in steps]):
        parser = BodyParser(headers)
        whole = False
        for piece in pieces(data, each, READ):
            whole = parser.feed(piece)
            assert len(parser.body) <= MAX_BODY
            if whole:
                break
            assert len(parser.body) < MAX_BODY or "content-length" in headers
        results.append((whole, parser.body))
    assert results[0] == results[1], (headers, data, steps)


def request(source: Input) -> None:
    flags = source.flags(8)

    def some(wanted: bool, size: int = 12) -> str | None:
        return source.text(source.byte() % size) if wanted else None

    names: list[tuple[str, str]] = []
    while flags[0] and source.byte() % 4:
        names.append((some(True) or "X", some(True) or ""))
    header: Any = dict(names) if flags[1] else [f"{name}:{value}" for name, value in names]
    options = RequestOptions(
        header=header,
        cookie=some(flags[2]),
        origin=some(flags[3]),
        host=some(flags[4]),
        connection=some(flags[5]),
        subprotocols=[some(True) or ""] if flags[6] else None,
        suppress_origin=flags[7],
    )
    target = Target(some(True, 20) or "h", source.number(), "/" + (some(True) or ""), flags[7], some(flags[6]), "p")
    cookie = some(flags[2]) or ""
    try:
        made = build_request(target, options, cookie=cookie, credentials=flags[5])
    except ValueError:
        return
    head, end, rest = made.data.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    first, *lines = head.split(b"\r\n")
    assert first == f"GET {target.resource} HTTP/1.1".encode()
    assert not re.search(rb"[\r\n\0]", b"".join([first, *lines]))
    sent = [line.partition(b": ") for line in lines]
    assert all(TOKEN.fullmatch(name) and separator for name, separator, _ in sent)
    for name, value in header.items() if flags[1] else names:
        if ":" not in name and (flags[5] or name.lower() not in ("authorization", "cookie", "proxy-authorization")):
            assert (name.encode(), b": ", value.strip(" \t").encode()) in sent
    assert len(lines) <= len(names) + 9, lines
    parsed = HeadParser()
    assert parsed.feed(made.data)
    assert len(parsed.fields) == len(lines)


def status(source: Input) -> None:
    line = source.text(300)
    try:
        number, reason = parse_status_line(line)
    except WebSocketProtocolException:
        return
    assert line.startswith(f"HTTP/1.{line[7]} {number}")
    assert len(reason) in (0, len(line) - 13)


def target(data: bytes) -> None:
    source = Input(data)
    source.choice((head, body, request, status))(source)


RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n"
)
WHOLE = b"\x00\x00\x00\x00"  # swollen() leaves the rest as it is
SEEDS = [
    b"\x00\x00" + WHOLE + RESPONSE + b"\r\n\x81\x02hi",
    b"\x00\x07" + WHOLE + RESPONSE + b"Sec-WebSocket-Protocol: chat\r\n\r\n",
    b"\x00\x02\x05\x09" + WHOLE + RESPONSE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    b"\x00\x01\x30" + WHOLE + b"\r\n\nHTTP/1.0 404 Not\x1b Found\nSet-Cookie: a=b\nSet-Cookie: c=d\n\n",
    b"\x00\x01\x40" + b"\x11\xc6\x01\x10" + b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
    b"\x00\x01\x40" + b"\x03\xc3\x40\x00" + b"HTTP/1.1 200 OK\r\n",
    b"\x01\x01\x00\x07" + WHOLE + b"5;x=y\r\nhello\r\n0\r\n\r\n",
    b"\x01\x01\x00\x01\x09" + b"\x00\xc6\x40\x00" + b"1\r\na\r\n0\r\n\r\n",
    b"\x01\x02\x00\x00\x05\x01\x04" + WHOLE + b"the body and more",
    b"\x01\x00\x00" + b"\x00\xc4\x50\x00" + b"body",
    b"\x02\x01\x01\x03X-A\x04some\x00\x04host\x00\x50\x04path",
    b"\x02\xff\x01\x06Cookie\x03a=b\x00\x03c=d\x01o\x04h:80\x07Upgrade\x04chat\x03::1\x1f\x90\x03?q=\x01u\x03e=f",
    b"\x03HTTP/1.1 101 Switching Protocols",
]

if __name__ == "__main__":
    run(target, SEEDS)
