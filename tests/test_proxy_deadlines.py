"""Proxies that take their time: http_proxy_timeout, the timeout of connect(), whichever is earlier; bytes that trickle
in; and close() in another thread, which ends the wait for a proxy at every stage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProxyException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket.testing import Peer

from .certs import Authority
from .conftest import PATIENCE, background
from .scripted_proxies import (
    USER_AND_PASSWORD,
    Script,
    ScriptedProxy,
    Serve,
    Socks4,
    Socks5,
    Visit,
    answering,
    full_queue,
    refused,
    tunnelling,
)

TIMEOUT = 0.1  # of connects that are to run into it
LONG = 3600.0  # which no test waits for


class Stage:
    """A proxy that goes as far as `name` with a client and then does as `then` says.

    options: of connect().
    """

    HTTP = ("http: asked", "http: amid the status line", "http: amid the headers", "http: after an interim answer")
    HTTPS = ("https: accepted", "https: amid TLS", "https: asked")
    SOCKS4 = ("socks4a: asked", "socks4a: amid the reply")
    SOCKS5 = ("socks5h: accepted", "socks5h: greeted", "socks5h: amid the method", "socks5h: authenticated")
    NAMES = (*HTTP, *HTTPS, *SOCKS4, *SOCKS5, "socks5h: asked", "socks5h: amid the reply")

    def __init__(self, name: str, serve: Serve, authority: Authority, then: Script) -> None:
        scheme = name.partition(":")[0]

        def after(data: bytes) -> Script:
            def act(visit: Visit) -> None:
                visit.send(data)
                then(visit)

            return act

        scripts: dict[str, Script] = {
            "http: asked": answering(then),
            "http: amid the status line": answering(after(b"HTTP/1.1 20")),
            "http: amid the headers": answering(after(b"HTTP/1.1 200 OK\r\nX-")),
            "http: after an interim answer": answering(after(b"HTTP/1.1 100 Continue\r\n\r\n")),
            "https: accepted": then,
            "https: amid TLS": lambda visit: (visit.peer.sock.recv(65_536), after(b"\x16\x03\x03\x00\x7a\x02")(visit)),
            "https: asked": answering(then),
            "socks4a: asked": Socks4(instead=then),
            "socks4a: amid the reply": Socks4(instead=after(b"\x00\x5a\x00")),
            "socks5h: accepted": then,
            "socks5h: greeted": Socks5(instead={"method": then}),
            "socks5h: amid the method": Socks5(instead={"method": after(b"\x05")}),
            "socks5h: authenticated": Socks5(USER_AND_PASSWORD, instead={"status": then}),
            "socks5h: asked": Socks5(instead={"reply": then}),
            "socks5h: amid the reply": Socks5(instead={"reply": after(b"\x05\x00\x00\x03\x20host")}),
        }
        context = authority.server_context() if name == "https: asked" else None
        self.proxy = ScriptedProxy(serve, scripts[name], scheme, ssl_context=context)
        self.options: dict[str, Any] = {
            "proxy": self.proxy.url_for("user:secret"),
            "proxy_sslopt": {"ca_certs": authority.ca_file},
        }


@pytest.fixture(params=Stage.NAMES)
def stage(request: pytest.FixtureRequest, serve: Serve, authority: Authority) -> Callable[[Script], Stage]:
    """Makes the proxy of each stage: stage(then)."""
    return lambda then: Stage(request.param, serve, authority, then)


def times_out(at: Stage, limit: str, **options: Any) -> None:
    """Run into a limit at a proxy."""
    with pytest.raises(WebSocketProxyTimeoutException) as caught:
        create_connection("ws://server.invalid/", **at.options, **options)
    error = caught.value
    assert f"proxy {at.proxy.url}: {limit} of {TIMEOUT} s" in str(error)
    assert isinstance(error, WebSocketTimeoutException)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, WebSocketProxyException)
    assert isinstance(error.__cause__, WebSocketTimeoutException)
    assert "secret" not in str(error)
    assert (error.status_code, error.reason) == (None, None)


def test_a_proxy_that_falls_silent_runs_into_http_proxy_timeout(stage: Callable[[Script], Stage]) -> None:
    times_out(stage(Visit.stall), "http_proxy_timeout", http_proxy_timeout=TIMEOUT, timeout=LONG)


@pytest.mark.parametrize("name", ["http: asked", "https: amid TLS", "socks4a: asked", "socks5h: asked"])
def test_the_timeout_of_connect_holds_for_the_proxy(serve: Serve, authority: Authority, name: str) -> None:
    at = Stage(name, serve, authority, Visit.stall)
    for options in ({}, {"http_proxy_timeout": LONG}):
        times_out(at, "timeout", timeout=TIMEOUT, **options)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4a", "socks5h"])
def test_a_proxy_that_does_not_accept_runs_into_http_proxy_timeout(scheme: str) -> None:
    with full_queue() as port, pytest.raises(WebSocketProxyTimeoutException, match=f"connecting to 127.0.0.1:{port}"):
        create_connection("ws://server.invalid/", proxy=f"{scheme}://127.0.0.1:{port}", http_proxy_timeout=TIMEOUT)


def drip(visit: Visit) -> None:
    """A byte at a time: each is in time, all of them are not."""
    while not visit.peer.server.stopping.wait(0.02):  # the pace, not a synchronisation
        visit.send(b"x")


@pytest.mark.parametrize("name", ["http: amid the headers", "socks5h: amid the reply"])
@pytest.mark.parametrize("option", ["http_proxy_timeout", "timeout"])
def test_bytes_that_trickle_in_extend_no_deadline(serve: Serve, authority: Authority, name: str, option: str) -> None:
    # The name in a SOCKS reply ends after 32 bytes, which take longer than this.
    at = Stage(name, serve, authority, drip)
    times_out(at, option, **{option: TIMEOUT})


def test_interim_answers_extend_no_deadline(serve: Serve) -> None:
    def wait_more(visit: Visit) -> None:
        for _ in range(9):
            visit.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            visit.peer.server.stopping.wait(TIMEOUT / 3)  # the pace
        visit.stall()

    error = refused(ScriptedProxy(serve, answering(wait_more)), http_proxy_timeout=TIMEOUT)
    assert isinstance(error, WebSocketProxyTimeoutException)


def test_http_proxy_timeout_ends_with_the_proxys_answer(serve: Serve) -> None:
    def slowly(peer: Peer) -> None:
        peer.read_request()
        peer.server.stopping.wait(0.7)  # longer than the proxy may take
        peer.accept()
        peer.send("hello")
        peer.recv()
        peer.finish()

    server = serve(slowly, raw=True)
    proxy = ScriptedProxy(serve, tunnelling())
    with create_connection(server.url, proxy=proxy.url, http_proxy_timeout=0.5) as websocket:
        assert websocket.recv() == "hello"


def test_a_server_that_is_silent_in_the_tunnel_is_no_fault_of_the_proxy(serve: Serve) -> None:
    server = serve(Peer.stall, raw=True)
    proxy = ScriptedProxy(serve, tunnelling())
    with pytest.raises(WebSocketTimeoutException, match="waiting for the handshake of 127") as caught:
        create_connection(server.url, proxy=proxy.url, timeout=TIMEOUT)
    assert not isinstance(caught.value, WebSocketProxyException)


@pytest.mark.parametrize("timeout", [0, -1, True, "5"])
def test_an_http_proxy_timeout_that_is_none_is_refused(serve: Serve, timeout: Any) -> None:
    proxy = ScriptedProxy(serve, tunnelling())
    with pytest.raises(ValueError, match="http_proxy_timeout must be"):
        create_connection("ws://server.invalid/", proxy=proxy.url, http_proxy_timeout=timeout)
    assert proxy.visits == []


# ---- the end from another thread ----


def ends(websocket: WebSocket, reached: threading.Event, url: str, **options: Any) -> None:
    """close() ends what nothing else would end."""
    connecting = background(lambda: websocket.connect(url, timeout=None, **options))
    assert reached.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program") as caught:
        connecting()
    assert not isinstance(caught.value, WebSocketProxyException)
    assert not websocket.connected


def test_close_ends_the_wait_for_a_proxy_at_every_stage(stage: Callable[[Script], Stage]) -> None:
    at = stage(Visit.stall)
    ends(WebSocket(), at.proxy.reached, "ws://server.invalid/", **at.options)


def test_close_ends_the_wait_for_the_proxys_error_page(serve: Serve) -> None:
    def half(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf")
        visit.stall()

    proxy = ScriptedProxy(serve, answering(half))
    ends(WebSocket(), proxy.reached, "ws://server.invalid/", proxy=proxy.url)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_close_ends_the_wait_for_the_server_in_the_tunnel(serve: Serve, authority: Authority, scheme: str) -> None:
    reached = threading.Event()

    def wait(peer: Peer) -> None:
        peer.sock.recv(1)
        reached.set()
        peer.stall()

    server = serve(wait, raw=True)
    proxy = ScriptedProxy(serve, tunnelling(), "https", ssl_context=authority.server_context())
    websocket = WebSocket()
    options = {"proxy": proxy.url, "proxy_sslopt": {"ca_certs": authority.ca_file}}
    ends(websocket, reached, f"{scheme}://server.invalid:{server.port}/", **options)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4a", "socks5h"])
def test_close_ends_the_wait_for_tcp_to_the_proxy(scheme: str) -> None:
    websocket = WebSocket()
    done = threading.Event()

    def connect(port: int) -> None:
        try:
            websocket.connect("ws://server.invalid/", timeout=None, proxy=f"{scheme}://127.0.0.1:{port}")
        finally:
            done.set()

    with full_queue() as port:
        connecting = background(lambda: connect(port))
        # A close() that comes before connect() has begun ends nothing; one of these comes behind that.
        while not done.wait(0.01):
            websocket.close()
        with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
            connecting()


def test_after_a_cancelled_connect_the_object_connects_again(serve: Serve) -> None:
    server = serve()
    silent = ScriptedProxy(serve, answering(Visit.stall))
    websocket = WebSocket()
    ends(websocket, silent.reached, server.url, proxy=silent.url)
    websocket.connect(server.url, proxy=ScriptedProxy(serve, tunnelling()).url)
    websocket.send("hello")
    assert websocket.recv() == "hello"
    websocket.close()


def test_a_close_that_races_the_proxy_leaves_it_connected_or_closed_and_nothing_else(serve: Serve) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, tunnelling())
    for _ in range(50):
        websocket = WebSocket()
        connecting = background(partial(websocket.connect, server.url, proxy=proxy.url))
        websocket.close()
        try:
            connecting()
        except WebSocketException as error:
            assert type(error) is WebSocketConnectionClosedException
            assert not websocket.connected
        websocket.close()
