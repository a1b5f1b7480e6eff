"""Servers and proxies that say all that is right, a byte at a time: each byte is in time, all of them are not, and the
one deadline of connect() ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import websocket._exchange
from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketProxyException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket._handshake import accept_value
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background
from .hostile_servers import GRACE, Relay
from .scripted_proxies import Script, ScriptedProxy, Socks4, Socks5, answering, tunnelling

Serve = Callable[..., Server]

TIMEOUT = 0.5
PACE = 0.08  # from one byte to the next; the shortest answer, SOCKS4's, has eight

# It does not matter what for: a machine may be so busy that nothing was heard of the server.
OVER = rf"^timeout of {TIMEOUT} s is over while (connecting to|waiting for) .*127\.0\.0\.1"


@contextmanager
def ends_in_time() -> Iterator[None]:
    """The block takes as long as the deadline, and no longer than a loaded machine needs on top of that."""
    start = time.monotonic()
    yield
    assert TIMEOUT <= time.monotonic() - start < TIMEOUT + GRACE


def trickle(peer: Peer, data: bytes) -> None:
    """Send a byte at a time, in TLS each in a record of its own."""
    for byte in data:
        peer.send_raw(bytes([byte]))
        if peer.server.stopping.wait(PACE):  # the pace, not a synchronisation
            return
    peer.stall()


def slow(serve: Serve, authority: Authority, scheme: str, answer: Callable[[Peer], bytes]) -> tuple[str, Any]:
    """A server that reads the request and answers slowly: URL and sslopt for it."""

    def handler(peer: Peer) -> None:
        peer.read_request()
        trickle(peer, answer(peer))

    context = authority.server_context() if scheme == "wss" else None
    return serve(handler, raw=True, ssl_context=context).url, {"ca_certs": authority.ca_file}


def test_a_genuine_server_whose_bytes_trickle_in_runs_into_the_deadline(
    serve: Serve, authority: Authority, scheme: str
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    relay = Relay(serve, server.port, pace=PACE)
    with ends_in_time(), pytest.raises(WebSocketTimeoutException, match=OVER):
        create_connection(
            f"{scheme}://127.0.0.1:{relay.port}/", timeout=TIMEOUT, sslopt={"ca_certs": authority.ca_file}
        )
    assert relay.passed < 100  # nor was all of it waited for


@pytest.mark.parametrize("kind", ["http", "https", "socks4a", "socks5h"])
def test_a_genuine_proxy_whose_bytes_trickle_in_runs_into_the_deadline(
    serve: Serve, authority: Authority, kind: str
) -> None:
    scripts: dict[str, Script] = {"socks4a": Socks4(), "socks5h": Socks5()}
    context = authority.server_context() if kind == "https" else None
    proxy = ScriptedProxy(serve, scripts.get(kind, tunnelling()), kind, ssl_context=context)
    relay = Relay(serve, proxy.port, pace=PACE)
    url = f"{kind}://127.0.0.1:{relay.port}"
    with ends_in_time(), pytest.raises(WebSocketProxyTimeoutException, match=f"proxy {url}: timeout of") as caught:
        create_connection(serve().url, timeout=TIMEOUT, proxy=url, proxy_sslopt={"ca_certs": authority.ca_file})
    assert isinstance(caught.value, TimeoutError)
    assert relay.passed < 100


def switching(peer: Peer) -> bytes:
    accept = accept_value(peer.headers["sec-websocket-key"])
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", "", ""]).encode()


@pytest.mark.parametrize(
    "answer",
    [
        switching,
        lambda peer: b"\r\n" * 20 + switching(peer),
        lambda peer: b"HTTP/1.1 100 Continue\r\n\r\n" + switching(peer),
        lambda peer: b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n",
    ],
    ids=["status line", "empty lines", "interim answer", "redirect"],
)
def test_a_right_answer_that_trickles_in_runs_into_the_deadline(
    serve: Serve, authority: Authority, scheme: str, answer: Callable[[Peer], bytes]
) -> None:
    url, sslopt = slow(serve, authority, scheme, answer)
    with ends_in_time(), pytest.raises(WebSocketTimeoutException, match=OVER):
        create_connection(url, timeout=TIMEOUT, sslopt=sslopt)


def test_interim_answers_that_come_one_by_one_extend_no_deadline(
    serve: Serve, authority: Authority, scheme: str
) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        for _ in range(9):
            peer.send_raw(b"HTTP/1.1 102 Processing\r\n\r\n")
            if peer.server.stopping.wait(PACE):  # the pace, not a synchronisation
                return
        peer.stall()

    server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    with ends_in_time(), pytest.raises(WebSocketTimeoutException, match=OVER):
        create_connection(server.url, timeout=TIMEOUT, sslopt={"ca_certs": authority.ca_file})


# ---- error pages: the status is known, and tells more than the end of the time ----

PAGE = b"the page of an error, which is longer than the time for it"


@pytest.mark.parametrize("framing", ["Content-Length", "chunked", "end of stream"])
def test_of_an_error_page_that_trickles_in_the_beginning_is_told_at_the_deadline(
    serve: Serve, authority: Authority, scheme: str, framing: str
) -> None:
    head, page = {
        "Content-Length": (b"Content-Length: %d\r\n" % len(PAGE), PAGE),
        "chunked": (b"Transfer-Encoding: chunked\r\n", b"".join(b"1\r\n%c\r\n" % byte for byte in PAGE)),
        "end of stream": (b"", PAGE),
    }[framing]

    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 503 Busy\r\n" + head + b"\r\n")
        trickle(peer, page)

    server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    with ends_in_time(), pytest.raises(WebSocketBadStatusException, match="Handshake status 503 Busy") as caught:
        create_connection(server.url, timeout=TIMEOUT, sslopt={"ca_certs": authority.ca_file})
    body = caught.value.resp_body
    assert body is not None
    assert PAGE.startswith(body)
    assert body != PAGE


def test_of_a_proxys_error_page_that_trickles_in_the_beginning_is_told_at_the_deadline(serve: Serve) -> None:
    def busy(visit: Any) -> None:
        visit.send(b"HTTP/1.1 503 Busy\r\n\r\n")
        trickle(visit.peer, PAGE)

    proxy = ScriptedProxy(serve, answering(busy))
    with ends_in_time(), pytest.raises(WebSocketProxyException, match="503 Busy") as caught:
        create_connection("ws://server.invalid/", timeout=TIMEOUT, proxy=proxy.url)
    assert not isinstance(caught.value, WebSocketTimeoutException)
    body = caught.value.resp_body
    assert body is not None
    assert PAGE.startswith(body)
    assert body != PAGE


def test_an_error_page_has_a_limit_of_its_own_where_connect_has_none(
    serve: Serve, authority: Authority, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket._exchange, "_BODY_SECONDS", TIMEOUT)

    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 503 Busy\r\n\r\n")
        trickle(peer, PAGE)

    server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    connection = WebSocket(sslopt={"ca_certs": authority.ca_file})
    with ends_in_time(), pytest.raises(WebSocketBadStatusException, match="503 Busy") as caught:
        connection.connect(server.url, timeout=None)
    assert caught.value.resp_body != PAGE


# ---- close() from another thread ----


def test_close_ends_an_attempt_whose_bytes_trickle_in(serve: Serve, authority: Authority, scheme: str) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    relay = Relay(serve, server.port, pace=PACE)
    connection = WebSocket(sslopt={"ca_certs": authority.ca_file})
    url = f"{scheme}://127.0.0.1:{relay.port}/"
    connecting = background(lambda: connection.connect(url, timeout=None))
    assert relay.begun.wait(PATIENCE)
    connection.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()
    assert relay.passed < 100


# ---- a server that is slow, but in time ----


def test_a_genuine_server_whose_bytes_come_one_by_one_is_understood(
    serve: Serve, authority: Authority, scheme: str
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    relay = Relay(serve, server.port, pace=0)
    url = f"{scheme}://127.0.0.1:{relay.port}/"
    with create_connection(url, sslopt={"ca_certs": authority.ca_file}) as connection:
        connection.send("hello")
        assert connection.recv() == "hello"
