"""What an HTTP proxy is asked for, byte by byte, and what a client is told of each answer: right, wrong, endless, or
nothing like HTTP.
"""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocketAddressException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket._http_message import MAX_BODY, MAX_HEADERS
from websocket.testing import Peer, Server

from .scripted_proxies import ESTABLISHED, Answer, ScriptedProxy, Serve, Visit, answering, refused, tunnelling

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def asked(serve: Serve, url: str, credentials: str = "", **options: Any) -> bytes:
    """The bytes by which a proxy is asked for a server."""
    proxy = ScriptedProxy(serve, answering(FORBIDDEN))
    options.setdefault("proxy", proxy.url_for(credentials))
    with pytest.raises(WebSocketProxyException):
        create_connection(url, **options)
    return proxy.received


# ---- the request ----


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("ws://192.0.2.1:8080/path?query", "192.0.2.1:8080"),
        ("ws://192.0.2.1/", "192.0.2.1:80"),
        ("wss://192.0.2.1/", "192.0.2.1:443"),
        ("ws://[2001:db8::1]:8080/", "[2001:db8::1]:8080"),
        ("wss://[2001:DB8::1]/", "[2001:db8::1]:443"),
        ("ws://[fe80::1%25eth0]/", "[fe80::1]:80"),
        ("ws://server.invalid/", "server.invalid:80"),
        ("wss://Server.Invalid/", "server.invalid:443"),
        ("ws://bücher.invalid:8080/", "xn--bcher-kva.invalid:8080"),
        ("ws://user:password@server.invalid/", "server.invalid:80"),
    ],
)
def test_the_request_names_host_and_port_and_nothing_more(serve: Serve, url: str, authority: str) -> None:
    assert asked(serve, url) == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ("user:secret", "user:secret"),
        ("user", "user:"),
        ("user:", "user:"),
        ("us%20er:p%40ss%3Aw%2Frd%25", "us er:p@ss:w/rd%"),
        ("b%C3%BCcher:gr%C3%B6%C3%9Fe", "bücher:größe"),
        ("bücher:größe", "bücher:größe"),
        ("user:" + "s" * 300, "user:" + "s" * 300),
    ],
)
def test_credentials_of_the_proxys_url_are_decoded_and_sent_as_utf_8(serve: Serve, credentials: str, sent: str) -> None:
    encoded = base64.b64encode(sent.encode()).decode()
    assert asked(serve, "ws://server.invalid/", credentials) == (
        "CONNECT server.invalid:80 HTTP/1.1\r\nHost: server.invalid:80\r\n"
        f"Proxy-Authorization: Basic {encoded}\r\n\r\n".encode()
    )


def test_credentials_of_http_proxy_auth_are_sent_as_they_are(serve: Serve) -> None:
    request = asked(serve, "ws://server.invalid/", http_proxy_auth=("us%41er", "pä:ss"))
    assert request.endswith(b"Proxy-Authorization: Basic " + base64.b64encode("us%41er:pä:ss".encode()) + b"\r\n\r\n")


def test_host_and_port_in_pieces_ask_for_the_same(serve: Serve) -> None:
    proxy = ScriptedProxy(serve, answering(FORBIDDEN))
    with pytest.raises(WebSocketProxyException):
        create_connection("ws://server.invalid/", http_proxy_host="127.0.0.1", http_proxy_port=str(proxy.port))
    assert proxy.received == b"CONNECT server.invalid:80 HTTP/1.1\r\nHost: server.invalid:80\r\n\r\n"


def test_the_host_option_is_for_the_server_alone(serve: Serve) -> None:
    assert asked(serve, "ws://server.invalid/", host="front.invalid", origin="http://front.invalid") == asked(
        serve, "ws://server.invalid/"
    )


# ---- answers that make a tunnel ----


@pytest.mark.parametrize(
    "answer",
    [
        ESTABLISHED,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 Why not\r\n\r\n",
        # RFC 9110 9.3.6: a successful answer has no body, whatever it says.
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nProxy-Agent: unix\n\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n" + ESTABLISHED,
    ],
)
def test_any_success_makes_a_tunnel(serve: Serve, answer: bytes) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, tunnelling(answer))
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert server.peers[0].headers["host"] == f"server.invalid:{server.port}"


def test_an_answer_that_comes_byte_by_byte_makes_a_tunnel(serve: Serve) -> None:
    def trickle(visit: Visit) -> None:
        for byte in ESTABLISHED:
            visit.send(bytes([byte]))
        visit.tunnel()

    server = serve()
    proxy = ScriptedProxy(serve, answering(trickle))
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_bytes_behind_the_answer_are_no_servers_and_refused(serve: Serve) -> None:
    proxy = ScriptedProxy(serve, answering(ESTABLISHED + b"HTTP/1.1 101 Switching Protocols\r\n"))
    error = refused(proxy)
    assert "34 bytes came behind its answer to CONNECT server.invalid:80" in str(error)
    assert error.status_code is None


def test_a_servers_refusal_behind_the_tunnel_is_the_servers(serve: Serve) -> None:
    def forbid(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(FORBIDDEN)

    server = serve(forbid, raw=True)
    with pytest.raises(WebSocketException, match="Handshake status 403") as caught:
        create_connection(server.url, proxy=ScriptedProxy(serve, tunnelling()).url)
    assert not isinstance(caught.value, WebSocketProxyException)


# ---- refusals ----


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (300, "Multiple Choices"),
        (302, "Found"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (407, "Proxy Authentication Required"),
        (429, "Slow down, please"),
        (500, "Internal Server Error"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
        (504, ""),
    ],
)
def test_a_refusal_is_told_with_all_that_came(serve: Serve, status: int, reason: str) -> None:
    head = f"HTTP/1.1 {status} {reason}\r\nX-Why: because\r\nLocation: ws://elsewhere.invalid/\r\n"
    proxy = ScriptedProxy(serve, answering(f"{head}Content-Length: 5\r\n\r\nsorry".encode()))
    error = refused(proxy)
    assert type(error) is WebSocketProxyException
    assert (error.status_code, error.reason, error.resp_body) == (status, reason, b"sorry")
    assert error.resp_headers is not None
    assert error.resp_headers["x-why"] == "because"
    assert f"proxy {proxy.url} refused CONNECT server.invalid:80: {status} {reason}" in str(error)
    assert len(proxy.visits) == 1


def test_a_101_is_a_refusal_and_has_no_body(serve: Serve) -> None:  # RFC 9112 6.3
    error = refused(ScriptedProxy(serve, answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nPRI *")))
    assert (error.status_code, error.reason, error.resp_body) == (101, "Switching Protocols", b"")


@pytest.mark.parametrize(
    ("credentials", "challenge", "hint"),
    [
        ("", "Proxy-Authenticate: Basic realm=here\r\n", "http_proxy_auth"),
        ("", "", "http_proxy_auth"),
        ("user:wrong", "Proxy-Authenticate: Basic realm=here\r\n", "does not take the user and password"),
        ("user:secret", 'Proxy-Authenticate: Digest realm="here", nonce="1"\r\n', "Digest.*Basic is all"),
        ("", "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n", "Negotiate, NTLM.*Basic is all"),
        ("", "Proxy-Authenticate: Digest realm=here\r\nProxy-Authenticate: BASIC realm=here\r\n", "http_proxy_auth"),
    ],
    ids=["no credentials", "no challenge", "wrong", "Digest", "others", "Digest or Basic"],
)
def test_a_407_says_what_to_do(serve: Serve, credentials: str, challenge: str, hint: str) -> None:
    answer = f"HTTP/1.1 407 Who are you\r\n{challenge}Content-Length: 0\r\n\r\n".encode()
    proxy = ScriptedProxy(serve, answering(answer))
    with pytest.raises(WebSocketProxyException, match=hint) as caught:
        create_connection("ws://server.invalid/", proxy=proxy.url_for(credentials))
    assert caught.value.status_code == 407
    assert "secret" not in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert len(proxy.visits) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 No\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b"HTTP/1.1 403 No\r\n\r\n" + b"x" * 1_000_000,
    ],
)
def test_an_error_page_is_cut_at_64_kib(serve: Serve, answer: bytes) -> None:
    assert refused(ScriptedProxy(serve, answering(answer))).resp_body == b"x" * MAX_BODY


def test_an_error_page_that_does_not_end_is_cut_by_the_deadline(serve: Serve) -> None:
    def half(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nhalf")
        visit.stall()

    error = refused(ScriptedProxy(serve, answering(half)), http_proxy_timeout=0.5)
    assert type(error) is WebSocketProxyException
    assert (error.status_code, error.resp_body) == (403, b"half")


# ---- no answer, and what is none ----


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\x05\x00\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_by_how_it_begins(serve: Serve, answer: bytes) -> None:
    error = refused(ScriptedProxy(serve, answering(answer)))
    assert type(error) is WebSocketProxyException
    assert "the proxy does not speak HTTP/1.1" in str(error)
    assert (error.status_code, error.reason, error.resp_headers) == (None, None, None)


@pytest.mark.parametrize("line", [b"no colon", b": no name", b" folded", b"sp ace: x", b"a: \0"])
def test_a_line_that_is_no_header_is_refused(serve: Serve, line: bytes) -> None:
    error = refused(ScriptedProxy(serve, answering(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")))
    assert "Invalid header" in str(error) or "NUL" in str(error)


def flood(head: bytes, piece: bytes) -> Answer:
    """As good as endless, yet a client without a limit of its own fails and does not hang."""

    def answer(visit: Visit) -> None:
        visit.send(head)
        for _ in range(64_000_000 // len(piece)):
            visit.send(piece)

    return answer


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (flood(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000), f"more than {MAX_HEADERS} headers"),
        (flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536), "a line of more than"),
        (flood(b"HTTP/1.1 200 ", b"x" * 65_536), "a line of more than"),
        (flood(b"", b"\r\n" * 10_000), "more than"),
        (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "more than 10 interim"),
    ],
    ids=["headers", "header", "status line", "empty lines", "interim answers"],
)
def test_an_answer_without_end_is_cut(serve: Serve, answer: Answer, match: str) -> None:
    error = refused(ScriptedProxy(serve, answering(answer)))
    assert type(error) is WebSocketProxyException
    assert match in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nProxy-Ag",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        Visit.reset,
        lambda visit: (visit.send(b"HTTP/1.1 200 OK\r\n"), visit.reset()),
    ],
    ids=["nothing", "half a line", "half a head", "interim only", "reset", "reset amid the head"],
)
def test_a_proxy_that_drops_the_client_is_named(serve: Serve, answer: Answer) -> None:
    proxy = ScriptedProxy(serve, answering(answer))
    error = refused(proxy)
    assert type(error) is WebSocketProxyConnectionException
    assert isinstance(error, ConnectionError)
    assert isinstance(error.__cause__, ConnectionError)
    assert f"proxy {proxy.url}: " in str(error)
    assert (error.status_code, error.reason) == (None, None)


def test_a_proxy_that_does_not_listen_is_named(deaf_port: int) -> None:
    with pytest.raises(WebSocketProxyConnectionException, match=rf"proxy http://127\.0\.0\.1:{deaf_port}") as caught:
        create_connection("ws://server.invalid/", proxy=f"http://127.0.0.1:{deaf_port}")
    assert isinstance(caught.value.__cause__, WebSocketConnectionRefusedException)
    assert not isinstance(caught.value, WebSocketTimeoutException)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks4a", "socks5", "socks5h"])
def test_a_proxy_whose_name_does_not_resolve_is_named(scheme: str) -> None:
    with pytest.raises(WebSocketProxyException, match=f"proxy {scheme}://proxy.invalid:3128: .*resolve") as caught:
        create_connection("ws://192.0.2.1/", proxy=f"{scheme}://user:secret@proxy.invalid:3128")
    assert isinstance(caught.value.__cause__, WebSocketAddressException)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\n\r\nsorry", WebSocketProxyException),
        (b"", WebSocketProxyConnectionException),
        (Visit.stall, WebSocketProxyTimeoutException),
    ],
)
def test_exceptions_keep_what_they_tell_when_they_are_copied(
    serve: Serve, answer: Answer, kind: type[WebSocketProxyException], clone: Callable[[Any], Any]
) -> None:
    limit = 0.1 if kind is WebSocketProxyTimeoutException else None
    error = refused(ScriptedProxy(serve, answering(answer)), http_proxy_timeout=limit)
    copied = clone(error)
    assert type(error) is type(copied) is kind
    assert str(copied) == str(error)
    for name in ("status_code", "reason", "resp_headers", "resp_body"):
        assert getattr(copied, name) == getattr(error, name)


def test_what_goes_through_the_tunnel_is_what_would_go_directly(serve: Serve) -> None:
    server: Server = serve()
    proxy = ScriptedProxy(serve, tunnelling())
    with create_connection(server.url, proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    [visit] = proxy.visits
    request, _, frames = bytes(visit.sent).partition(b"\r\n\r\n")
    assert request.startswith(b"GET / HTTP/1.1\r\n")
    assert b"roxy" not in request
    assert len(frames) == 6 + len("hello") + 6 + 2  # a message, and a close frame with its code
