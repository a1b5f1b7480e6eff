"""Connecting that is cut short: by a reset, by an end of the stream, by silence and a close() from another thread, at
every byte of a genuine server's answer, in TLS and through proxies; and right behind the answer."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketProxyConnectionException,
    WebSocketTimeoutException,
    WebSocketTLSException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background, wait_until
from .hostile_servers import NARROW, Relay, end
from .scripted_proxies import Script, ScriptedProxy, Socks4, Socks5, tunnelling

Serve = Callable[..., Server]

TIMEOUT = 0.2
# What signatures make a handshake in TLS longer or shorter from one time to the next.
SPREAD = 40
# More than the buffers on the way hold.
LARGE_REQUEST: dict[str, Any] = {"header": {"X-Large": "x" * 1_000_000}, "sockopt": NARROW}


class Way:
    """A way to a server with a relay in it: before the server, or before the proxy.

    whole: how many bytes come through the relay until the connection stands.
    """

    DIRECT = ("ws", "wss", "wss in TLS 1.2")
    PROXIES = ("http", "https", "socks4a", "socks5h")
    NAMES = (*DIRECT, *PROXIES)

    def __init__(self, name: str, serve: Serve, authority: Authority) -> None:
        self.name = name
        self.is_secure = name.startswith("wss") or name == "https"
        context = authority.server_context() if self.is_secure else None
        self.options: dict[str, Any] = {}
        if name in self.PROXIES:
            self.url = serve().url
            scripts: dict[str, Script] = {"socks4a": Socks4(), "socks5h": Socks5()}
            proxy = ScriptedProxy(serve, scripts.get(name, tunnelling()), name, ssl_context=context)
            self.relay = Relay(serve, proxy.port)
            self.options["proxy"] = f"{name}://127.0.0.1:{self.relay.port}"
            self.options["proxy_sslopt"] = {"ca_certs": authority.ca_file}
        else:
            if context is not None and name.endswith("1.2"):
                context.maximum_version = context.minimum_version
            self.relay = Relay(serve, serve(ssl_context=context).port)
            self.url = f"{name[:3].strip()}://127.0.0.1:{self.relay.port}/"
        self.sslopt = {"ca_certs": authority.ca_file}
        with self.connect():
            self.whole = self.relay.passed

    def connect(self) -> WebSocket:
        return create_connection(self.url, sslopt=self.sslopt, **self.options)

    def positions(self, step: int) -> list[int]:
        """Numbers of bytes that are too few, in rising order, from none at all on."""
        return [Relay.ACCEPTED, *range(0, self.whole - (SPREAD if self.is_secure else 0), step)]

    def failure(self, allow: int, then: Callable[[Peer], Any]) -> WebSocketException:
        """The error of an attempt of which so many bytes come through."""
        self.relay.allow, self.relay.then = allow, then
        with pytest.raises(WebSocketException) as caught:
            self.connect()
        return caught.value


@pytest.fixture(params=Way.NAMES)
def way(request: pytest.FixtureRequest, serve: Serve, authority: Authority) -> Way:
    return Way(request.param, serve, authority)


@pytest.mark.parametrize("then", [Peer.reset, end], ids=["reset", "end of stream"])
def test_an_answer_that_is_cut_at_any_byte_is_told_as_what_it_was(way: Way, then: Callable[[Peer], Any]) -> None:
    errors = [way.failure(allow, then) for allow in way.positions(29 if way.is_secure else 3)]
    # TLS of the server, or whatever has to do with the proxy, comes first; then the handshake of the server.
    early = WebSocketProxyConnectionException if way.name in Way.PROXIES else WebSocketTLSException
    # A reset may be there before the client has seen that it was accepted.
    assert isinstance(errors.pop(0), (early, WebSocketConnectionLostException, WebSocketConnectException))
    kinds = [type(error) for error in errors]
    assert kinds == sorted(kinds, key=lambda kind: kind is not early)
    assert set(kinds) == ({early, WebSocketConnectionLostException} - ({early} if way.name == "ws" else set()))
    for error in errors:
        if isinstance(error, WebSocketConnectionLostException):
            assert "Connection to remote host was lost while waiting for the handshake of 127.0.0.1:" in str(error)
            assert isinstance(error.__cause__, ConnectionError)
        elif isinstance(error, WebSocketTLSException):
            assert "TLS handshake with 127.0.0.1 failed: " in str(error)
        else:
            assert f"proxy {way.options['proxy']}: " in str(error)


def test_the_words_tell_a_reset_from_an_end_of_the_stream(serve: Serve, authority: Authority) -> None:
    way = Way("ws", serve, authority)
    for allow in way.positions(7)[1:]:
        assert str(way.failure(allow, Peer.reset)).endswith(": Connection reset by peer")
        assert str(way.failure(allow, end)).endswith(": the server ended it")


def test_a_reset_amid_the_request_is_told_as_a_reset(serve: Serve, authority: Authority, scheme: str) -> None:
    def read_some(peer: Peer) -> None:
        peer.sock.recv(65_536)
        peer.reset()

    server = serve(read_some, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    with pytest.raises(WebSocketConnectionLostException, match=r"Connection reset by peer|Broken pipe"):
        create_connection(server.url, sslopt={"ca_certs": authority.ca_file}, **LARGE_REQUEST)


def test_an_answer_to_a_request_that_is_still_being_sent_is_told(
    serve: Serve, authority: Authority, scheme: str
) -> None:
    def refuse(peer: Peer) -> None:
        peer.sock.recv(65_536)
        peer.send_raw(b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 5\r\n\r\nsorry")
        end(peer)

    server = serve(refuse, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    with pytest.raises(WebSocketBadStatusException, match="431 Request Header Fields Too Large") as caught:
        create_connection(server.url, sslopt={"ca_certs": authority.ca_file}, **LARGE_REQUEST)
    assert caught.value.resp_body == b"sorry"


def test_close_ends_the_wait_at_any_byte_of_an_answer(way: Way) -> None:
    for allow in way.positions(way.whole // 12):
        way.relay.allow, way.relay.then = allow, Peer.stall
        way.relay.reached.clear()
        websocket = WebSocket(sslopt=way.sslopt)
        connecting = background(partial(websocket.connect, way.url, timeout=None, **way.options))
        assert way.relay.reached.wait(PATIENCE)
        websocket.close()
        with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
            connecting()
        assert not websocket.connected


# ---- a server that never accepts ----


@pytest.mark.parametrize("ended_by", ["timeout", "close"])
def test_a_connection_that_stays_in_the_servers_queue_is_a_silent_one(scheme: str, ended_by: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:  # the system accepts, and nobody else
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
        if ended_by == "timeout":
            with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s is over while") as caught:
                create_connection(url, timeout=TIMEOUT)
            assert isinstance(caught.value, TimeoutError)
            return
        websocket = WebSocket()
        connecting = background(lambda: websocket.connect(url, timeout=None))
        poller = select.poll()
        poller.register(listener.fileno(), select.POLLIN)
        assert poller.poll(PATIENCE * 1000)
        websocket.close()
        with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
            connecting()


# ---- right behind the answer ----


def answered(then: Callable[[Peer], Any]) -> Callable[[Peer], None]:
    """A raw handler that accepts and then does this."""

    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept()
        then(peer)

    return handler


def lost(websocket: WebSocket) -> WebSocketConnectionLostException:
    with pytest.raises(WebSocketConnectionLostException, match="Connection to remote host was lost") as caught:
        websocket.recv()
    assert not websocket.connected
    return caught.value


def test_a_reset_right_behind_the_answer_is_told_by_recv(connect_to: Callable[..., WebSocket], scheme: str) -> None:
    for _ in range(20):  # the reset is there before, amid or after what makes the connection
        websocket = connect_to(answered(Peer.reset), scheme, raw=True)
        assert isinstance(lost(websocket), ConnectionResetError)
        with pytest.raises(WebSocketConnectionClosedException):
            websocket.send("hello")
        websocket.close()


def test_an_end_right_behind_the_answer_is_told_by_recv(connect_to: Callable[..., WebSocket], scheme: str) -> None:
    for _ in range(20):
        websocket = connect_to(answered(end), scheme, raw=True)
        assert "ended the stream without a close frame" in str(lost(websocket))
        websocket.close()


def test_a_message_before_a_reset_is_not_lost(connect_to: Callable[..., WebSocket], scheme: str) -> None:
    def greet_and_reset(peer: Peer) -> None:
        peer.send("hello")
        peer.recv()
        peer.reset()

    websocket = connect_to(answered(greet_and_reset), scheme, raw=True)
    wait_until(lambda: websocket.sock.pending(), "the message has come")
    websocket.send("go")
    assert websocket.recv() == "hello"
    lost(websocket)


def test_a_server_that_is_silent_behind_its_answer_holds_neither_recv_nor_close(
    connect_to: Callable[..., WebSocket], scheme: str
) -> None:
    websocket = connect_to(answered(Peer.stall), scheme, raw=True)
    with pytest.raises(WebSocketTimeoutException):
        websocket.recv(timeout=TIMEOUT)
    websocket.send("hello")
    receiving = background(websocket.recv)
    websocket.close(timeout=TIMEOUT)
    try:
        assert receiving() in ("", b"")
    except WebSocketConnectionClosedException:
        pass
    assert not websocket.connected
