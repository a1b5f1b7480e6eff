"""Servers that never come to an end before the connection stands: how much they can send until the client hangs up,
and how long they can hold it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketProtocolException,
    WebSocketProxyException,
    WebSocketTimeoutException,
    WebSocketTLSException,
    create_connection,
)
from websocket._cookiejar import cookies
from websocket._http_message import MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_LINE
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background
from .hostile_servers import GRACE, NARROW, Flood, first_words
from .scripted_proxies import ScriptedProxy, Socks5

Serve = Callable[..., Server]
Reach = Callable[..., WebSocket]

# What a server that is cut off may have got rid of: the limit itself, and what is under way in buffers.
SLACK = 256 * 1024
TIMEOUT = 0.3

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n"
CHUNKED = FORBIDDEN + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_cookies() -> Iterator[None]:
    """The store serves the whole process; each test starts with an empty one and leaves an empty one."""
    cookies.clear()
    yield
    cookies.clear()


@pytest.fixture
def reach(serve: Serve, authority: Authority, scheme: str) -> Reach:
    """Connects to a server with a raw handler, with small buffers: reach(handler, **options)."""

    def connect(handler: Callable[[Peer], None], **options: Any) -> WebSocket:
        server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
        return create_connection(server.url, sockopt=NARROW, sslopt={"ca_certs": authority.ca_file}, **options)

    return connect


def ended_within(flood: Flood, size: int) -> None:
    """The client has hung up before the server could send more than this."""
    assert flood.ended.wait(PATIENCE)
    assert flood.sent < size + SLACK


# ---- heads ----


@pytest.mark.parametrize(
    ("head", "piece", "match", "size"),
    [
        (SWITCHING, b"X-More: and more\r\n" * 50, f"more than {MAX_HEADERS} headers", MAX_HEAD),
        (SWITCHING, b"Set-Cookie: a=b\r\n" * 50, f"more than {MAX_HEADERS} headers", MAX_HEAD),
        (SWITCHING, b"X: " + b"x" * 8000 + b"\r\n", f"headers of more than {MAX_HEAD} bytes", MAX_HEAD),
        (SWITCHING + b"X-Long: ", b"x" * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (SWITCHING + b"X-Long: ", b"\0" * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (SWITCHING, b"\r" * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (SWITCHING, b" folded\r\n" * 500, "Invalid header: ' folded'", MAX_LINE),
        (b"HTTP/1.1 101 ", b"x" * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (b"HTTP/1.1", b" " * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (b"", b"\r\n" * 2048, f"headers of more than {MAX_HEAD} bytes", MAX_HEAD),
        (b"", b"\n" * 4096, f"headers of more than {MAX_HEAD} bytes", MAX_HEAD),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "the server sent more than 10 interim responses", MAX_LINE),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 50, "more than 10 interim", MAX_LINE),
        (b"", b"HTTP/1.1 102 On\r\nX: " + b"x" * 8000 + b"\r\n\r\n", "more than 10 interim", 12 * 8100),
    ],
    ids=[
        *("headers", "cookies", "long headers", "header line", "NULs", "bare CRs", "folded lines", "status line"),
        *("blanks", "empty lines", "line feeds", "100", "103", "long 102"),
    ],
)
def test_a_head_without_end_is_cut_at_its_limit(reach: Reach, head: bytes, piece: bytes, match: str, size: int) -> None:
    flood = Flood(head, piece)
    with pytest.raises(WebSocketProtocolException, match=match):
        reach(flood)
    ended_within(flood, size)


def test_a_header_line_of_ten_megabytes_is_not_read(reach: Reach) -> None:
    flood = Flood(SWITCHING + b"X-Long: ", b"x" * 10_000_000)
    with pytest.raises(WebSocketProtocolException, match=f"a line of more than {MAX_LINE} bytes") as caught:
        reach(flood)
    assert len(str(caught.value)) < 1000
    assert flood.ended.wait(PATIENCE)
    assert flood.sent == 0  # not one of them went through


# ---- error pages ----


@pytest.mark.parametrize(
    ("head", "piece", "size"),
    [
        (FORBIDDEN + b"Content-Length: 99999999999999\r\n\r\n", b"x" * 4096, MAX_BODY),
        (FORBIDDEN + b"Content-Length: " + b"9" * 1000 + b"\r\n\r\n", b"x" * 4096, MAX_BODY),
        (FORBIDDEN + b"\r\n", b"x" * 4096, MAX_BODY),
        (CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n", MAX_BODY),
        (CHUNKED, b"1\r\nx\r\n" * 500, 6 * MAX_BODY),
        (CHUNKED + b"fffffffffffffff\r\n", b"x" * 4096, MAX_BODY),
    ],
    ids=["Content-Length", "absurd Content-Length", "end of stream", "chunks", "tiny chunks", "one huge chunk"],
)
def test_an_error_page_without_end_is_cut_at_64_kib(reach: Reach, head: bytes, piece: bytes, size: int) -> None:
    flood = Flood(head, piece)
    with pytest.raises(WebSocketBadStatusException, match="Handshake status 403 Forbidden") as caught:
        reach(flood)
    assert caught.value.resp_body == b"x" * MAX_BODY
    ended_within(flood, size)


def test_the_page_of_a_redirect_is_not_read(reach: Reach) -> None:
    flood = Flood(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n", b"x" * 4096)

    def handler(peer: Peer) -> None:
        if peer is peer.server.peers[0]:
            flood(peer)
        else:
            peer.read_request()
            peer.accept()
            peer.send(peer.path)

    websocket = reach(handler)
    assert websocket.recv() == "/there"
    websocket.shutdown()
    ended_within(flood, 0)


def test_redirects_without_end_are_cut_at_the_limit(reach: Reach) -> None:
    paths = []

    def further(peer: Peer) -> None:
        peer.read_request()
        paths.append(peer.path)
        peer.send_raw(b"HTTP/1.1 307 On\r\nContent-Length: 0\r\nLocation: %bx\r\n\r\n" % peer.path.encode())

    with pytest.raises(WebSocketBadStatusException, match="more than redirect_limit=20 redirects") as caught:
        reach(further, redirect_limit=20)
    assert caught.value.status_code == 307
    assert paths == ["/" + "x" * number for number in range(21)]


# ---- proxies ----


@pytest.mark.parametrize(
    ("head", "piece", "match", "size"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 50, f"more than {MAX_HEADERS} headers", MAX_HEAD),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096, f"a line of more than {MAX_LINE} bytes", MAX_LINE),
        (b"", b"\r\n" * 2048, f"headers of more than {MAX_HEAD} bytes", MAX_HEAD),
        (b"HTTP/1.1 502 No\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 4096, "502 No", MAX_BODY),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP", b"x" * 4096, "bytes came behind its answer", MAX_LINE),
    ],
    ids=["headers", "header line", "empty lines", "error page", "bytes in the tunnel"],
)
def test_a_proxy_whose_answer_has_no_end_is_cut_off(
    serve: Serve, head: bytes, piece: bytes, match: str, size: int
) -> None:
    flood = Flood(head, piece)
    proxy = ScriptedProxy(serve, lambda visit: flood(visit.peer))
    with pytest.raises(WebSocketProxyException, match=match):
        create_connection("ws://server.invalid/", proxy=proxy.url, sockopt=NARROW)
    ended_within(flood, size)


def test_what_a_socks_proxy_sends_without_end_behind_its_reply_is_no_handshake(serve: Serve) -> None:
    flood = Flood(b"\x05\x00\x00\x01" + bytes(6) + b"HTTP/1.1 ", b"x" * 4096, after=lambda _: None)
    proxy = ScriptedProxy(serve, Socks5(instead={"reply": lambda visit: flood(visit.peer)}), "socks5h")
    with pytest.raises(WebSocketProtocolException, match=f"a line of more than {MAX_LINE} bytes"):
        create_connection("ws://server.invalid/", proxy=proxy.url, sockopt=NARROW)
    ended_within(flood, MAX_LINE)


# ---- TLS ----

HELLO_REQUEST = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"  # to be ignored during a handshake (RFC 5246 7.4.1.1)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"\x14\x03\x03\x00\x01\x01" * 600),
        (b"", b"\x15\x03\x03\x00\x02\x01\x70" * 600),
        (b"", b"\x16\x03\x03\x00\x00" * 600),
        (b"", b"\x17\x03\x03\x10\x00" + bytes(4096)),
        (b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + bytes(16_380), b"\x16\x03\x03\x10\x00" + bytes(4096)),
        (b"\x16\x03\x03\xff\xff", bytes(4096)),
    ],
    ids=["cipher changes", "warnings", "empty records", "data", "hello of 16 MB", "record of 64 KB"],
)
def test_a_tls_handshake_without_end_is_cut(serve: Serve, authority: Authority, head: bytes, piece: bytes) -> None:
    flood = Flood(head, piece, after=first_words)
    url = f"wss://127.0.0.1:{serve(flood, raw=True).port}/"
    with pytest.raises(WebSocketTLSException, match=r"TLS handshake with 127\.0\.0\.1 failed"):
        create_connection(url, sockopt=NARROW, sslopt={"ca_certs": authority.ca_file})
    ended_within(flood, 64 * 1024)


class Greeting(Flood):
    """Asks for a hello without end, faster than a client can take it: each piece is sent by one call of the system,
    so that the server needs no turn of the interpreter to keep the client's socket readable."""

    def __init__(self) -> None:
        super().__init__(b"", HELLO_REQUEST * 500_000, after=first_words, much=float("inf"), is_narrow=False)


def test_a_tls_server_that_asks_for_a_hello_without_end_does_not_outlive_the_deadline(serve: Serve) -> None:
    url = f"wss://127.0.0.1:{serve(Greeting(), raw=True).port}/"
    start = time.monotonic()
    with pytest.raises(WebSocketTimeoutException, match=f"timeout of {TIMEOUT} s is over while"):
        create_connection(url, timeout=TIMEOUT)
    assert time.monotonic() - start < TIMEOUT + GRACE


def test_close_ends_the_handshake_with_a_tls_server_that_asks_for_a_hello_without_end(serve: Serve) -> None:
    flood = Greeting()
    websocket = WebSocket()
    url = f"wss://127.0.0.1:{serve(flood, raw=True).port}/"
    connecting = background(lambda: websocket.connect(url))
    assert flood.begun.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()


# ---- what one handshake leaves to the next ----


def test_cookies_that_a_server_sets_without_end_do_not_grow_the_next_requests(serve: Serve) -> None:
    # RFC 6265 6.1 asks for 4096 bytes of a cookie and 50 cookies of a domain; servers take heads of 8 to 64 KiB.
    requests = []

    def refuse(peer: Peer) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.sock.recv(65_536)
        requests.append(len(head))
        lines = b"".join(b"Set-Cookie: c%dx%d=%b\r\n" % (len(requests), n, b"x" * 450) for n in range(200))
        peer.send_raw(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n" + lines + b"\r\n")

    server = serve(refuse, raw=True)
    for _ in range(4):
        with pytest.raises(WebSocketBadStatusException):
            create_connection(server.url)
    assert max(requests) < 64 * 1024


# ---- a server that takes nothing ----


@pytest.mark.parametrize("ended_by", ["timeout", "close"])
def test_a_server_that_does_not_read_the_request_does_not_hold_the_client(
    serve: Serve, authority: Authority, scheme: str, ended_by: str
) -> None:
    server = serve(Peer.stall, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    options: dict[str, Any] = {"sockopt": NARROW, "header": {"X-Large": "x" * 1_000_000}}
    websocket = WebSocket(sslopt={"ca_certs": authority.ca_file})
    if ended_by == "timeout":
        with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s is over while"):
            websocket.connect(server.url, timeout=TIMEOUT, **options)
        return
    connecting = background(lambda: websocket.connect(server.url, timeout=None, **options))
    while not server.peers:  # a close() that comes before connect() has begun ends nothing
        assert not server.stopping.wait(0.001)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()
