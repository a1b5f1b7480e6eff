"""Proxies that are spoken to by TLS: what of the proxy's certificate is wrong, who speaks TLS and who does not, TLS in
TLS with much to carry, and whose certificate the program is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from websocket import (
    ABNF,
    WebSocket,
    WebSocketAddressException,
    WebSocketCertificateException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    WebSocketTLSException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import background, is_receiving, run_all, wait_until
from .scripted_proxies import Script, ScriptedProxy, Serve, Visit, tunnelling

Connect = Callable[..., WebSocket]

BIG = bytes(range(256)) * 20 * 1024  # 5 MB


@pytest.fixture
def proxies_authority(tmp_path: Path) -> Authority:
    """Not the one of the servers."""
    return Authority(tmp_path, "proxies")


class Route:
    """A server, an https proxy before it, each with a certificate of another authority, and a client.

    options: those of a connect() that trusts both.
    """

    def __init__(self, serve: Serve, authority: Authority, proxies_authority: Authority) -> None:
        self._serve = serve
        self._authority = authority
        self.proxies_authority = proxies_authority
        self._connections: list[WebSocket] = []
        self.options: dict[str, Any] = {
            "sslopt": {"ca_certs": authority.ca_file},
            "proxy_sslopt": {"ca_certs": proxies_authority.ca_file},
        }

    def server(self, scheme: str, *arguments: Any, **options: Any) -> Server:
        context = self._authority.server_context("server.invalid") if scheme == "wss" else None
        return self._serve(*arguments, ssl_context=context, host="server.invalid", **options)

    def proxy(self, *names: str, script: Script | None = None, **options: Any) -> ScriptedProxy:
        context = self.proxies_authority.server_context(*names, **options)
        return ScriptedProxy(self._serve, script or tunnelling(), "https", ssl_context=context)

    def connect(self, server: Server, proxy: ScriptedProxy, **options: Any) -> WebSocket:
        """A connection that is cut after the test."""
        connection = create_connection(server.url, proxy=proxy.url, **{**self.options, **options})
        self._connections.append(connection)
        return connection

    def refused(self, proxy: str, url: str = "ws://server.invalid/", **options: Any) -> WebSocketProxyException:
        """Fail at the proxy, by TLS; the error."""
        with pytest.raises(WebSocketProxyException) as caught:
            create_connection(url, proxy=proxy, **{**self.options, **options})
        error = caught.value
        assert f"proxy {proxy}: " in str(error)
        assert error.status_code is None
        return error

    def close(self) -> None:
        for connection in self._connections:
            connection.shutdown()


@pytest.fixture
def route(serve: Serve, authority: Authority, proxies_authority: Authority) -> Iterator[Route]:
    result = Route(serve, authority, proxies_authority)
    yield result
    result.close()


# ---- what is wrong with the proxy's TLS ----


def test_an_expired_certificate_of_the_proxy_is_refused(route: Route) -> None:
    error = route.refused(route.proxy(expired=True).url)
    assert isinstance(error.__cause__, WebSocketCertificateException)
    assert "certificate of 127.0.0.1 has expired" in str(error)


def test_a_certificate_for_another_host_is_refused(route: Route) -> None:
    error = route.refused(route.proxy("other.invalid").url)
    assert isinstance(error.__cause__, WebSocketCertificateException)
    assert "is for another host than '127.0.0.1'" in str(error)
    assert "proxy_sslopt['server_hostname']" in str(error)


def test_a_certificate_of_the_servers_name_is_for_another_host(route: Route) -> None:
    error = route.refused(route.proxy("server.invalid").url, "wss://server.invalid/")
    assert isinstance(error.__cause__, WebSocketCertificateException)


@pytest.mark.parametrize("proxy_sslopt", [None, {}])
def test_a_certificate_of_an_unknown_issuer_is_refused(route: Route, proxy_sslopt: dict[str, Any] | None) -> None:
    error = route.refused(route.proxy().url, proxy_sslopt=proxy_sslopt)
    assert type(error) is WebSocketProxyConnectionException
    assert isinstance(error.__cause__, WebSocketCertificateException)
    assert "unknown issuer; name its CA in proxy_sslopt['ca_certs']" in str(error)


def test_the_servers_sslopt_does_not_apply_to_the_proxy(route: Route) -> None:
    url = route.proxy().url
    for sslopt in ({"ca_certs": route.proxies_authority.ca_file}, {"cert_reqs": 0}):
        error = route.refused(url, sslopt=sslopt, proxy_sslopt=None)
        assert "proxy_sslopt['ca_certs']" in str(error)


def test_proxy_sslopt_does_not_apply_to_the_server(route: Route) -> None:
    server = route.server("wss")
    for proxy_sslopt in ({"ca_certs": route.proxies_authority.ca_file}, {"cert_reqs": 0}):
        with pytest.raises(WebSocketCertificateException, match=r" sslopt\['ca_certs'\]") as caught:
            route.connect(server, route.proxy(), sslopt={}, proxy_sslopt=proxy_sslopt)
        assert not isinstance(caught.value, WebSocketProxyException)


def test_server_hostname_of_proxy_sslopt_is_the_name_that_is_looked_for(route: Route) -> None:
    route.options["proxy_sslopt"]["server_hostname"] = "other.invalid"
    websocket = route.connect(route.server("wss"), route.proxy("other.invalid"))
    websocket.send("hello")
    assert websocket.recv() == "hello"


def test_proxy_sslopt_has_no_effect_on_a_proxy_without_tls(route: Route, serve: Serve) -> None:
    websocket = route.connect(route.server("wss"), ScriptedProxy(serve, tunnelling()))
    websocket.send("hello")
    assert websocket.recv() == "hello"


def test_a_plain_proxy_where_tls_is_expected_is_named(route: Route, serve: Serve) -> None:
    def complain(visit: Visit) -> None:
        visit.peer.sock.recv(65_536)
        visit.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    error = route.refused(ScriptedProxy(serve, complain, "https").url)
    assert isinstance(error.__cause__, WebSocketTLSException)
    assert not isinstance(error.__cause__, WebSocketCertificateException)
    assert "http://" in str(error)  # what is for a proxy that speaks no TLS
    assert "ws://" not in str(error)


def test_a_proxy_with_tls_where_none_is_expected_is_named(route: Route) -> None:
    proxy = route.proxy()
    proxy.scheme = "http"
    error = route.refused(proxy.url)
    assert not isinstance(error.__cause__, WebSocketTLSException)
    assert proxy.visits == []


@pytest.mark.parametrize("end", [Visit.drop, Visit.reset])
def test_a_proxy_that_ends_amid_the_tls_handshake_is_named(route: Route, serve: Serve, end: Script) -> None:
    def half(visit: Visit) -> None:
        visit.peer.sock.recv(65_536)
        visit.send(b"\x16\x03\x03\x00\x7a\x02")
        end(visit)

    error = route.refused(ScriptedProxy(serve, half, "https").url)
    assert type(error) is WebSocketProxyConnectionException


@pytest.mark.parametrize(
    ("proxy_sslopt", "match"),
    [
        ({"cert_reqs": 77}, r"proxy_sslopt\['cert_reqs'\]"),
        ({"ca_certs": "/no/such/file"}, r"proxy_sslopt\['ca_certs'\].*/no/such/file"),
        ({"certfile": "/no/such/file"}, r"proxy_sslopt\['certfile'\].*/no/such/file"),
        ({"ciphers": "none of them"}, r"proxy_sslopt\['ciphers'\]"),
    ],
)
def test_an_unusable_proxy_sslopt_is_named(route: Route, proxy_sslopt: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, WebSocketProxyException), match=match):
        create_connection("ws://server.invalid/", proxy=route.proxy().url, proxy_sslopt=proxy_sslopt)


def test_a_client_certificate_of_proxy_sslopt_is_shown_to_the_proxy(route: Route, serve: Serve) -> None:
    context = route.proxies_authority.server_context()
    route.proxies_authority.require_client_certificate(context)
    proxy = ScriptedProxy(serve, tunnelling(), "https", ssl_context=context)
    with pytest.raises(WebSocketProxyException):
        create_connection("ws://server.invalid/", proxy=proxy.url, **route.options)
    route.options["proxy_sslopt"]["certfile"] = route.proxies_authority.client_certificate()
    websocket = route.connect(route.server("wss"), proxy)
    websocket.send("hello")
    assert websocket.recv() == "hello"


# ---- what the program is shown ----


def test_over_ws_the_proxys_tls_is_not_the_servers(route: Route) -> None:
    websocket = route.connect(route.server("ws"), route.proxy())
    assert not websocket.is_ssl()
    for name in ("getpeercert", "cipher", "version", "selected_alpn_protocol"):
        with pytest.raises(WebSocketException, match=f"does not use TLS.* no {name}"):
            getattr(websocket.sock, name)()


def test_over_wss_the_certificate_is_the_servers(route: Route) -> None:
    websocket = route.connect(route.server("wss"), route.proxy())
    assert websocket.is_ssl()
    names = websocket.sock.getpeercert()["subjectAltName"]
    assert names == (("DNS", "server.invalid"),)


def test_the_address_of_the_peer_is_the_proxys(route: Route, scheme: str) -> None:
    proxy = route.proxy()
    assert route.connect(route.server(scheme), proxy).sock.getpeername() == ("127.0.0.1", proxy.port)


# ---- much to carry ----


def test_large_messages_pass_both_ways_at_the_same_time(route: Route, scheme: str) -> None:
    received: list[Any] = []

    def talk(peer: Peer) -> None:
        run_all(lambda: peer.send(BIG, BIG), lambda: received.extend([peer.recv(), peer.recv()]))
        peer.recv()

    websocket = route.connect(route.server(scheme, talk), route.proxy())
    for _ in range(2):
        websocket.send_binary(BIG)
    assert [websocket.recv(), websocket.recv()] == [BIG, BIG]
    websocket.close()
    assert received == [BIG, BIG]


def test_many_small_messages_of_several_threads_come_each_once_and_in_order(route: Route, scheme: str) -> None:
    websocket = route.connect(route.server(scheme), route.proxy())
    threads, each = 4, 500

    def send(number: int) -> None:
        for count in range(each):
            websocket.send(f"{number} {count}")

    received: list[Any] = []
    run_all(
        *[lambda number=number: send(number) for number in range(threads)],
        lambda: received.extend(websocket.recv() for _ in range(threads * each)),
    )
    for number in range(threads):
        mine = [message for message in received if message.startswith(f"{number} ")]
        assert mine == [f"{number} {count}" for count in range(each)]


def test_the_closing_handshake_passes_both_ways(route: Route, scheme: str) -> None:
    def close(peer: Peer) -> None:
        if peer.recv() == "close":
            peer.close(4001, "as you like")
        peer.recv()

    first, second = route.server(scheme, close), route.server(scheme, close)
    websocket = route.connect(first, route.proxy())
    websocket.close(4000, b"enough")
    [peer] = first.peers
    assert peer.close_frame is not None
    assert peer.close_frame.data == (4000).to_bytes(2, "big") + b"enough"
    websocket = route.connect(second, route.proxy())
    websocket.send("close")
    assert websocket.recv_data() == (ABNF.OPCODE_CLOSE, (4001).to_bytes(2, "big") + b"as you like")
    assert websocket.close_frame is not None


def test_the_proxy_sees_frames_of_ws_and_nothing_but_records_of_wss(route: Route, scheme: str) -> None:
    proxy = route.proxy()
    websocket = route.connect(route.server(scheme), proxy)
    websocket.send("a secret")
    assert websocket.recv() == "a secret"
    websocket.close()
    [visit] = proxy.visits
    if scheme == "ws":
        assert visit.sent.startswith(b"GET / HTTP/1.1\r\n")
        assert b"a secret" in visit.returned
        return
    for stream in (bytes(visit.sent), bytes(visit.returned)):
        assert b"secret" not in stream
        assert b"HTTP" not in stream
        while stream:  # RFC 8446 5.1: content type, version, length
            assert stream[0] in (20, 21, 22, 23)
            assert stream[1] == 3
            size = int.from_bytes(stream[3:5], "big")
            assert len(stream) >= 5 + size
            stream = stream[5 + size :]


def test_close_from_another_thread_ends_a_recv_in_tls_in_tls(route: Route) -> None:
    websocket = route.connect(route.server("wss"), route.proxy())
    receiving = background(websocket.recv)
    wait_until(lambda: is_receiving(websocket), "recv() waits")
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException):
        receiving()


def test_a_server_name_that_tls_cannot_use_is_an_error_of_the_package(serve: Serve) -> None:
    with pytest.raises(WebSocketAddressException, match=r"a\.\.b"):
        create_connection("wss://a..b/", proxy=ScriptedProxy(serve, tunnelling()).url)
