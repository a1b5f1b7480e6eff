"""Through proxies that others wrote, each a program that the test starts: every kind of proxy with ws and wss, by
create_connection() and by WebSocketApp, and what a client is told of refusals, wrong passwords and proxies that end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.sync.server import ServerConnection

from websocket import (
    ABNF,
    WebSocket,
    WebSocketCertificateException,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketProxyException,
)
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, background, run_all, wait_until
from .proxies import (
    ADDRESS,
    DENIED_ADDRESS,
    DENIED_NAME,
    PRIVATE_NAME,
    Client,
    Daemon,
    Dante,
    MicroSocks,
    Proxy,
    Stunnel,
    TinyProxy,
    V2Ray,
    Way,
)
from .recorder import Recorder
from .test_foreign_server import Foreign, has_ipv6

AUTH = ("user", "secret")  # tinyproxy takes letters and digits only
ODD_AUTH = ("us er", "p@ss:w/rd%41")
BIG = bytes(range(256)) * 4096
PROXIED = ["http", "http-password", "https", "socks4", "socks4a", "socks5", "socks5-password", "socks5h"]

D = TypeVar("D", bound=Daemon)


class Roads(Client):
    """Starts proxies and servers, connects by them, and ends it all."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(authority)
        self.folder = folder
        self._authority = authority
        self._proxies_authority = Authority(folder, "proxies")

    def start(self, daemon: D) -> D:
        return self.cleanup.enter_context(daemon)

    def way(self, name: str) -> Way:
        """The way of this name; its proxy runs."""
        folder = self.folder
        if name == "direct":
            return Way()
        if name == "http":
            return Way("http", self.start(TinyProxy(folder)))
        if name == "http-password":
            return Way("http", self.start(TinyProxy(folder, AUTH)))
        if name == "https":
            proxy = self.start(TinyProxy(folder))
            front = self.start(
                Stunnel(folder, (proxy.address, proxy.port), self._proxies_authority.server_file(ADDRESS))
            )
            return Way("https", front, ca_file=self._proxies_authority.ca_file)
        if name in ("socks4", "socks5"):
            return Way(name, self.start(Dante(folder)))
        if name in ("socks4a", "socks5h"):
            return Way(name, self.start(V2Ray(folder)), PRIVATE_NAME)
        assert name == "socks5-password"
        return Way("socks5", self.start(MicroSocks(folder, ODD_AUTH)))

    def serve(self, handler: Callable[[Peer], None] = echo, scheme: str = "ws") -> Server:
        context = self._authority.server_context("localhost", "127.0.0.1", PRIVATE_NAME) if scheme == "wss" else None
        return self.cleanup.enter_context(Server(handler, ssl_context=context))

    def url(self, way: Way, server: Server) -> str:
        return f"{server.url.partition(':')[0]}://{way.host}:{server.port}/"


@pytest.fixture
def roads(tmp_path: Path, authority: Authority) -> Iterator[Roads]:
    result = Roads(tmp_path, authority)
    yield result
    result.close()


@pytest.fixture
def foreign(scheme: str, authority: Authority) -> Iterator[Foreign]:
    result = Foreign(scheme, authority)
    yield result
    result.close()


def assert_goes(way: Way, websocket: WebSocket, server: Server) -> None:
    """The only connection that the server has is this one, and it came that way."""
    [peer] = server.peers
    assert websocket.sock is not None
    here, there = websocket.sock.getsockname(), websocket.sock.getpeername()
    if way.proxy is None:
        assert (peer.address, there) == (here, ("127.0.0.1", server.port))
    else:
        assert there == (way.proxy.address, way.proxy.port)
        assert peer.address[0] == way.proxy.outgoing
        assert peer.address != here


def conversation(peer: Peer) -> None:
    """Echoes; asks with a ping, and closes, where the client says so."""
    while (message := peer.recv()) is not None:
        if message == "ping me":
            peer.send_frame(ABNF.OPCODE_PING, b"server asks")
        elif message == "close":
            peer.close(4001, "as you like")
        else:
            peer.send(message)


def talk(websocket: WebSocket, server: Server) -> None:
    """A conversation of all kinds of frames that the client closes."""
    messages: list[str | bytes] = ["one", "zwei ü", "", b"", b"\x00\xff", "x" * 70_000, BIG]
    for message in messages:
        websocket.send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)
    assert [websocket.recv() for _ in messages] == messages
    websocket.ping("client asks")
    assert websocket.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"client asks")
    websocket.send("ping me")
    [peer] = server.peers
    wait_until(lambda: peer.pongs == [b"server asks"], "the client's pong comes")
    websocket.close(4000, b"enough")
    assert peer.close_frame is not None
    assert peer.close_frame.data == (4000).to_bytes(2, "big") + b"enough"


def talk_by_app(app: Recorder, server: Server) -> None:
    """The same by an app, and the server closes."""
    for number, message in enumerate(["one", "zwei ü", "x" * 70_000]):
        app.send(message)
        app.wait_for("message", message)
        assert len(app.calls) == number + 2
    app.send_bytes(BIG)
    app.wait_for("message", BIG)
    assert app.sock is not None
    app.sock.ping("client asks")
    app.wait_for("pong", b"client asks")
    app.send("ping me")
    app.wait_for("ping", b"server asks")
    [peer] = server.peers
    wait_until(lambda: peer.pongs == [b"server asks"], "the client's pong comes")
    app.send("close")
    app.wait_for("close", 4001, "as you like")
    assert app.overlaps == []


@pytest.mark.parametrize("client", ["connection", "app"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("name", ["direct", *PROXIED])
def test_a_conversation_passes(roads: Roads, name: str, scheme: str, client: str) -> None:
    way = roads.way(name)
    server = roads.serve(conversation, scheme)
    url = roads.url(way, server)
    if client == "connection":
        websocket = roads.connect(url, **way.options)
        assert_goes(way, websocket, server)
        talk(websocket, server)
    else:
        app, result = roads.run(url, **way.spelled_out)
        assert_goes(way, app.sock, server)
        talk_by_app(app, server)
        result()
    assert server.errors == []


@pytest.mark.parametrize("client", ["connection", "app"])
@pytest.mark.parametrize("name", PROXIED)
def test_the_other_spelling_of_the_options_leads_the_same_way(roads: Roads, name: str, client: str) -> None:
    way = roads.way(name)
    server = roads.serve()
    url = roads.url(way, server)
    if client == "connection":
        websocket = roads.connect(url, **way.spelled_out)
        assert_goes(way, websocket, server)
        websocket.send("hello")
        assert websocket.recv() == "hello"
    else:
        app = Recorder(url).start(sslopt=roads.sslopt, **way.options)
        assert_goes(way, app.sock, server)
        app.send("hello")
        app.wait_for("message", "hello")
        app.stop()


@pytest.mark.parametrize("name", PROXIED)
def test_a_server_in_http_no_proxy_is_reached_directly(roads: Roads, name: str) -> None:
    way = roads.way(name)
    server = roads.serve()
    for options in (way.options, way.spelled_out):
        websocket = roads.connect(server.url, **options, http_no_proxy=["127.0.0.1"])
        assert websocket.sock.getpeername() == ("127.0.0.1", server.port)
        websocket.close()
    assert [peer.address[0] for peer in server.peers] == ["127.0.0.1"] * 2


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("name", ["http", "https", "socks5", "socks5h"])
def test_a_server_at_an_ipv6_address_is_reached(roads: Roads, foreign: Foreign, name: str) -> None:
    way = (
        roads.way(name) if name.startswith("http") else Way(name, roads.start(MicroSocks(roads.folder, ODD_AUTH, None)))
    )
    peers: list[Any] = []

    def answer(peer: ServerConnection) -> None:
        peers.append(peer.remote_address)
        peer.send(f"hello, {peer.recv()}")

    port = foreign.start(answer, "::1")
    websocket = roads.connect(foreign.url(port, "[::1]"), **way.options)
    assert way.proxy is not None
    assert websocket.sock.getpeername() == (way.proxy.address, way.proxy.port)  # before the server ends it
    websocket.send("six")
    assert websocket.recv() == "hello, six"
    assert peers[0][0] == "::1"


@pytest.mark.parametrize("kind", ["socks4", "socks5"])
def test_socks4_and_socks5_resolve_the_servers_name_here(roads: Roads, kind: str) -> None:
    server = roads.serve()
    proxy = roads.way("socks5h").proxy  # for which localhost is elsewhere
    way = Way(kind, proxy, "localhost")
    assert_goes(way, roads.connect(roads.url(way, server), **way.options), server)


# ---- refusals ----


@pytest.mark.parametrize("auth", [None, ("user", "wrong"), ("nobody", AUTH[1])], ids=["none", "wrong", "nobody"])
def test_a_wrong_password_is_told_with_the_proxys_answer(roads: Roads, auth: tuple[str, str] | None) -> None:
    way = roads.way("http-password")
    assert way.proxy is not None
    way.proxy.auth = auth
    server = roads.serve()
    with pytest.raises(WebSocketProxyException) as caught:
        roads.connect(server.url, **way.options)
    # tinyproxy 1.11.1 says 401 to a wrong password, where 407 is meant.
    assert caught.value.status_code in ((407,) if auth is None else (401, 407))
    assert caught.value.reason
    assert server.peers == []


@pytest.mark.parametrize("auth", [None, ("user", "wrong"), ("nobody", ODD_AUTH[1])], ids=["none", "wrong", "nobody"])
def test_a_wrong_password_for_socks5_is_told(roads: Roads, auth: tuple[str, str] | None) -> None:
    way = roads.way("socks5-password")
    assert way.proxy is not None
    way.proxy.auth = auth
    server = roads.serve()
    with pytest.raises(WebSocketProxyException) as caught:
        roads.connect(server.url, **way.options)
    assert (caught.value.status_code, bool(caught.value.reason)) == (None, True)
    assert server.peers == []


def test_an_app_without_the_password_is_told_and_does_not_try_again(roads: Roads) -> None:
    way = roads.way("http-password")
    assert way.proxy is not None
    way.proxy.auth = None
    app = Recorder(roads.serve().url)
    assert app.run_forever(**way.spelled_out, reconnect=0.001) is True
    [error] = app.errors
    assert isinstance(error, WebSocketProxyException)
    assert error.status_code == 407


@pytest.mark.parametrize("name", [name for name in PROXIED if name != "socks4a"])
def test_a_server_where_nobody_listens_is_told(roads: Roads, deaf_port: int, name: str) -> None:
    way = roads.way(name)
    with pytest.raises(WebSocketException) as caught:
        roads.connect(f"ws://{way.host}:{deaf_port}/", **way.options)
    if isinstance(way.proxy, V2Ray):
        return  # it says that it has connected before it tries to, and then ends the connection
    assert isinstance(caught.value, WebSocketProxyException)
    assert caught.value.reason
    if way.scheme.startswith("http"):
        assert caught.value.status_code is not None
        assert 500 <= caught.value.status_code < 600


@pytest.mark.parametrize("name", ["http", "https"])
def test_an_http_proxys_denial_is_told_as_403(roads: Roads, name: str) -> None:
    way = roads.way(name)
    with pytest.raises(WebSocketProxyException) as caught:
        roads.connect(f"ws://{DENIED_NAME}/", **way.options)
    assert caught.value.status_code == 403


@pytest.mark.parametrize("name", ["socks4", "socks5"])
def test_a_socks_proxys_denial_is_told(roads: Roads, name: str) -> None:
    way = roads.way(name)
    with pytest.raises(WebSocketProxyException) as caught:
        roads.connect(f"ws://{DENIED_ADDRESS}/", **way.options)
    assert (caught.value.status_code, bool(caught.value.reason)) == (None, True)


def test_a_certificate_of_the_proxy_that_is_not_trusted_is_refused(roads: Roads) -> None:
    way = roads.way("https")
    server = roads.serve()
    with pytest.raises(WebSocketProxyException, match="proxy_sslopt") as caught:
        roads.connect(server.url, proxy=way.options["proxy"])
    assert isinstance(caught.value.__cause__, WebSocketCertificateException)
    assert server.peers == []


# ---- a proxy that ends ----


@pytest.mark.parametrize("end", [Proxy.terminate, Proxy.kill], ids=["terminate", "kill"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("name", PROXIED)
def test_the_proxys_end_is_the_connections_end(
    roads: Roads, name: str, scheme: str, end: Callable[[Proxy], None]
) -> None:
    way = roads.way(name)
    server = roads.serve(scheme=scheme)
    websocket = roads.connect(roads.url(way, server), **way.options)
    receive = background(websocket.recv)
    assert way.proxy is not None
    end(way.proxy)
    with pytest.raises(WebSocketConnectionLostException):
        receive()
    assert not websocket.connected


@pytest.mark.parametrize("name", PROXIED)
def test_an_app_comes_back_when_the_proxy_does(roads: Roads, name: str) -> None:
    way = roads.way(name)
    server = roads.serve()
    app, result = roads.run(roads.url(way, server), **way.options, reconnect=0.01)
    assert way.proxy is not None
    way.proxy.kill()
    app.wait_for("error", times=2)
    lost, refused = app.errors[:2]
    assert isinstance(lost, WebSocketConnectionLostException)
    assert isinstance(refused, WebSocketProxyException)
    assert isinstance(refused, ConnectionError)
    way.proxy.start()
    app.wait_for("open", times=2)
    app.send("hello again")
    app.wait_for("message", "hello again")
    app.close()
    assert result() is False


# ---- several connections ----


@pytest.mark.parametrize("name", PROXIED)
def test_twenty_connections_at_the_same_time(roads: Roads, name: str) -> None:
    way = roads.way(name)
    server = roads.serve(scheme="wss")
    all_connected = threading.Barrier(20, timeout=PATIENCE)

    def work(number: int) -> None:
        websocket = roads.connect(roads.url(way, server), **way.options)
        all_connected.wait()
        messages = [f"{number}: {count}" for count in range(5)]
        for message in messages:
            websocket.send(message)
        assert [websocket.recv() for _ in messages] == messages
        websocket.close()

    run_all(*[lambda number=number: work(number) for number in range(20)])
    assert len(server.peers) == 20
    assert way.proxy is not None
    assert {peer.address[0] for peer in server.peers} == {way.proxy.outgoing}
