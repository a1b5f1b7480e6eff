"""connect(): its one deadline, its end from another thread, and what it raises at each stage on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import websocket as package
from websocket import (
    WebSocket,
    WebSocketAddressException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionRefusedException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background, run_all

Serve = Callable[..., Server]

# The timeout of connects that are to run into it, and what a loaded machine may need on top of that.
TIMEOUT = 0.3
GRACE = 5.0


class Stage:
    """A server that goes as far as `stage` with a client and then does as `then` says.

    reached: set when a client is there.
    """

    NAMES = (
        "ws: accepted",
        "ws: amid the status line",
        "ws: amid the headers",
        "wss: accepted",
        "wss: amid the TLS handshake",
        "wss: TLS done",
        "wss: amid the headers",
    )
    # A TLS record's header that promises more than follows.
    _SENT = {
        "amid the status line": b"HTTP/1.1 10",
        "amid the headers": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs",
        "amid the TLS handshake": b"\x16\x03\x03\x00\x7a\x02",
    }

    def __init__(self, name: str, serve: Serve, authority: Authority, then: Callable[[Peer], None]) -> None:
        scheme, _, self._stage = name.partition(": ")
        self._then = then
        self.reached = threading.Event()
        in_tls = self._stage in ("TLS done", "amid the headers") and scheme == "wss"
        self.server = serve(self._handle, raw=True, ssl_context=authority.server_context() if in_tls else None)
        self.url = f"{scheme}://127.0.0.1:{self.server.port}/"
        self.options: dict[str, Any] = {"sslopt": {"ca_certs": authority.ca_file}}

    def _handle(self, peer: Peer) -> None:
        if self._stage == "amid the TLS handshake":
            peer.sock.recv(65_536)
        elif self._stage != "accepted":
            peer.read_request()
        peer.send_raw(self._SENT.get(self._stage, b""))
        self.reached.set()
        self._then(peer)


@pytest.fixture(params=Stage.NAMES)
def stage(request: pytest.FixtureRequest, serve: Serve, authority: Authority) -> Callable[..., Stage]:
    """Makes the server of each stage: stage(then)."""
    return lambda then: Stage(request.param, serve, authority, then)


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that connecting to it does not come to an end."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            yield port


# ---- the deadline ----


def times_out(url: str, **options: Any) -> str:
    """Connect with a timeout and run into it; the message."""
    start = time.monotonic()
    with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s") as caught:
        create_connection(url, timeout=TIMEOUT, **options)
    took = time.monotonic() - start
    assert TIMEOUT <= took < TIMEOUT + GRACE
    assert isinstance(caught.value, TimeoutError)
    return str(caught.value)


def test_a_server_that_falls_silent_runs_into_the_deadline(stage: Callable[..., Stage]) -> None:
    at = stage(Peer.stall)
    assert str(at.server.port) in times_out(at.url, **at.options)


def test_a_server_that_is_not_accepting_runs_into_the_deadline(full_port: int) -> None:
    assert f"127.0.0.1:{full_port}" in times_out(f"ws://127.0.0.1:{full_port}/")


def drip(peer: Peer) -> None:
    """A header that never ends, a byte at a time: each is in time, all of them are not."""
    while not peer.server.stopping.wait(0.02):  # the pace, not a synchronisation
        peer.send_raw(b"x")


@pytest.mark.parametrize("name", ["ws: amid the headers", "wss: amid the headers"])
def test_bytes_that_trickle_in_do_not_extend_the_deadline(serve: Serve, authority: Authority, name: str) -> None:
    at = Stage(name, serve, authority, drip)
    times_out(at.url, **at.options)


def test_a_tls_handshake_that_trickles_in_does_not_extend_the_deadline(serve: Serve, authority: Authority) -> None:
    def drip_record(peer: Peer) -> None:
        peer.send_raw(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # a server hello of 16 KiB begins
        drip(peer)

    at = Stage("wss: accepted", serve, authority, drip_record)
    times_out(at.url, **at.options)


def test_the_deadline_spans_redirects(serve: Serve) -> None:
    def slowly_around(peer: Peer) -> None:
        peer.read_request()
        number = int(peer.path.rpartition("/")[2] or 0)
        peer.server.stopping.wait(TIMEOUT / 3)  # each answer is in time, all of them are not
        peer.send_raw(f"HTTP/1.1 302 Found\r\nLocation: /{number + 1}\r\nContent-Length: 0\r\n\r\n".encode())

    server = serve(slowly_around, raw=True)
    times_out(server.url, redirect_limit=1000)


def test_the_timeout_of_settimeout_holds_for_connect(serve: Serve) -> None:
    websocket = WebSocket()
    websocket.settimeout(TIMEOUT)
    with pytest.raises(WebSocketTimeoutException):
        websocket.connect(serve(Peer.stall, raw=True).url)


def test_setdefaulttimeout_holds_for_connections_that_are_given_none(serve: Serve) -> None:
    package.setdefaulttimeout(TIMEOUT)
    assert package.getdefaulttimeout() == TIMEOUT
    with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s"):
        create_connection(serve(Peer.stall, raw=True).url)
    with create_connection(serve().url) as websocket:
        assert websocket.gettimeout() == TIMEOUT
    with create_connection(serve().url, timeout=7) as websocket:
        assert websocket.gettimeout() == 7


def test_a_timeout_of_months_is_a_timeout_like_any_other(serve: Serve) -> None:
    # poll() counts milliseconds in a C int, which ends at 24 days.
    with create_connection(serve().url, timeout=10_000_000) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


# ---- the end from another thread ----


def test_close_in_another_thread_ends_connect_at_every_stage(stage: Callable[..., Stage]) -> None:
    at = stage(Peer.stall)
    websocket = WebSocket(**at.options)
    connecting = background(lambda: websocket.connect(at.url))  # with no timeout: nothing else would end it
    assert at.reached.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()
    assert not websocket.connected


def test_close_in_another_thread_ends_the_wait_for_tcp(full_port: int) -> None:
    websocket = WebSocket()
    done = threading.Event()

    def connect() -> None:
        try:
            websocket.connect(f"ws://127.0.0.1:{full_port}/")
        finally:
            done.set()

    connecting = background(connect)
    # A close() that comes before connect() has begun ends nothing; one of these comes behind that.
    while not done.wait(0.01):
        websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()


def test_close_ends_the_wait_for_an_error_page(serve: Serve) -> None:
    sent = threading.Event()

    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf")
        sent.set()
        peer.stall()

    websocket = WebSocket()
    url = serve(refuse, raw=True).url
    connecting = background(lambda: websocket.connect(url))
    assert sent.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException):
        connecting()


def test_after_a_cancelled_connect_the_object_connects_again(serve: Serve) -> None:
    first = threading.Event()

    def stall_once(peer: Peer) -> None:
        peer.read_request()
        if peer is peer.server.peers[0]:
            first.set()
            peer.stall()
        peer.accept()
        peer.send("hello")
        peer.recv()
        peer.finish()

    server = serve(stall_once, raw=True)
    websocket = WebSocket()
    connecting = background(lambda: websocket.connect(server.url))
    assert first.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException):
        connecting()
    websocket.connect(server.url)
    assert websocket.recv() == "hello"
    websocket.close()


def test_a_close_that_races_connect_leaves_it_connected_or_closed_and_nothing_else(serve: Serve) -> None:
    server = serve()
    for _ in range(100):
        websocket = WebSocket()

        def connect(websocket: WebSocket = websocket) -> bool:
            try:
                websocket.connect(server.url)
            except WebSocketConnectionClosedException:
                return False
            return True

        connected, _ = run_all(connect, websocket.close)
        if not connected:
            assert not websocket.connected
            assert websocket.sock is None
        websocket.close()


def test_while_one_thread_connects_another_is_told_so(serve: Serve, authority: Authority) -> None:
    at = Stage("ws: accepted", serve, authority, Peer.stall)
    websocket = WebSocket()
    connecting = background(lambda: websocket.connect(at.url))
    assert at.reached.wait(PATIENCE)
    with pytest.raises(WebSocketException, match="another thread is connecting"):
        websocket.connect(at.url)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException):
        connecting()
    assert len(at.server.peers) == 1


# ---- connecting again ----


def test_connect_on_a_connected_object_cuts_the_old_connection_first(serve: Serve) -> None:
    ended = threading.Event()

    def listen(peer: Peer) -> None:
        if peer.recv() is None:
            ended.set()

    old, new = serve(listen), serve()
    websocket = WebSocket()
    websocket.connect(old.url)
    websocket.connect(new.url)
    assert ended.wait(PATIENCE)
    websocket.send("hello")
    assert websocket.recv() == "hello"
    assert websocket.sock.getpeername()[1] == new.port
    websocket.close()


def test_a_failed_connect_on_a_connected_object_leaves_it_closed(serve: Serve) -> None:
    old, gone = serve(), serve()
    gone.close()
    websocket = WebSocket()
    websocket.connect(old.url)
    with pytest.raises(ConnectionRefusedError):
        websocket.connect(gone.url)
    assert not websocket.connected
    with pytest.raises(WebSocketConnectionClosedException):
        websocket.send("hello")
    websocket.connect(old.url)
    websocket.send("hello")
    assert websocket.recv() == "hello"
    websocket.close()


# ---- failures at each stage ----


def test_a_port_where_nobody_listens_refuses(serve: Serve, scheme: str) -> None:
    server = serve()
    server.close()
    with pytest.raises(WebSocketConnectionRefusedException, match=rf"127\.0\.0\.1:{server.port}") as caught:
        create_connection(f"{scheme}://127.0.0.1:{server.port}/")
    assert isinstance(caught.value, ConnectionRefusedError)
    assert isinstance(caught.value, WebSocketConnectException)
    assert caught.value.errno is not None


# The second label is longer than DNS allows, so no resolver is asked.
@pytest.mark.parametrize("host", ["no-such-host.invalid", "www." + "a" * 64 + ".invalid", "a..invalid"])
def test_a_name_that_cannot_be_resolved_is_named(host: str) -> None:
    with pytest.raises(WebSocketAddressException, match=f"cannot resolve '{host}'"):
        create_connection(f"ws://{host}/")


@pytest.mark.parametrize("error", [RuntimeError("no network here"), MemoryError(), KeyError("odd")], ids=repr)
def test_whatever_a_resolver_raises_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def resolve(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(type(error)) as caught:
        create_connection("ws://server.invalid/", timeout=None)
    assert caught.value is error


def test_a_name_without_any_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with pytest.raises(WebSocketAddressException, match=r"server\.invalid.*no address"):
        create_connection("ws://server.invalid/")


def test_an_ipv4_address_with_a_zone_is_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_by = []

    def resolve(*_: object) -> list[object]:
        asked_by.append(threading.current_thread())
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(WebSocketAddressException):
        create_connection("ws://1.2.3.4%25x/")
    assert asked_by != [threading.current_thread()]


def test_an_end_of_the_stream_is_told_at_every_stage(stage: Callable[..., Stage]) -> None:
    def end(peer: Peer) -> None:
        peer.half_close()
        peer.sock.recv(65_536)  # until the client has gone too, so that no reset overtakes the end

    at = stage(end)
    with pytest.raises((WebSocketConnectionClosedException, WebSocketConnectException)) as caught:
        create_connection(at.url, **at.options)
    assert "127.0.0.1" in str(caught.value)


def test_a_reset_is_told_at_every_stage(stage: Callable[..., Stage]) -> None:
    at = stage(Peer.reset)
    with pytest.raises((WebSocketConnectionClosedException, WebSocketConnectException)) as caught:
        create_connection(at.url, **at.options)
    assert "127.0.0.1" in str(caught.value)
