"""unix=: the server is reached by a Unix socket, whatever host its URL names.

The servers are those of the other tests; Front passes on to them what comes by a Unix socket.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketCertificateException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionRefusedException,
    WebSocketTimeoutException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, background
from .recorder import Recorder
from .test_given_sockets import both_directions_at_once

Serve = Callable[..., Server]
URL = "ws://server.test:8080/path"


class Front:
    """Passes the connections of a listening socket, of whatever family, on to a TCP port of this machine. A context
    manager that accepts once made, and closes the listener at its end.

    came: the clients so far.
    """

    def __init__(self, listener: socket.socket, port: int) -> None:
        self.came: list[socket.socket] = []
        self._listener = listener
        self._port = port
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="front", daemon=True)
        self._accepting.start()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _end(self._listener, socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for client in self.came:
            _end(client, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # __exit__() has shut it down
                return
            self.came.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), name="front client", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client), name="front way back", daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 18):
            sink.sendall(data)
    except OSError:
        _end(source, socket.SHUT_RDWR)  # one of them was reset
    _end(sink, socket.SHUT_WR)


def _end(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # it has ended already


def unix_listener(path: str | bytes, backlog: int = 16) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(backlog)
    return listener


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Of a Unix socket; it is relative, as the length of such paths is limited."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield "socket"
    os.chdir(before)


@pytest.fixture
def behind(serve: Serve, path: str) -> Iterator[Callable[..., Server]]:
    """Makes a server behind the Unix socket at `path`: behind(handler, **options of Server)."""
    fronts: list[Front] = []

    def make(*arguments: Any, **options: Any) -> Server:
        server = serve(*arguments, **options)
        fronts.append(Front(unix_listener(path), server.port))
        return server

    yield make
    for front in fronts:
        front.__exit__()


# ---- connections ----


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "PathLike"])
def test_a_server_is_reached_by_the_path_of_its_socket(
    behind: Callable[..., Server], path: str, kind: Callable[[str], Any]
) -> None:
    server = behind()
    with create_connection(URL, unix=kind(path)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert websocket.sock.getpeername() == path
        assert not websocket.is_ssl()
    assert len(server.peers) == 1


@pytest.mark.parametrize("kind", [str, os.fsencode], ids=["str", "bytes"])
def test_a_name_of_the_abstract_namespace_is_a_path_too(serve: Serve, kind: Callable[[str], Any]) -> None:
    name = f"\0websocket {os.getpid()}"
    with (
        Front(unix_listener(name), serve().port),
        create_connection(URL, unix=kind(name)) as websocket,
    ):
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert websocket.sock.getpeername() == name.encode()


def test_the_request_is_the_urls(behind: Callable[..., Server], path: str) -> None:
    server = behind()
    create_connection(URL, unix=path).close()
    (peer,) = server.peers
    assert (peer.path, peer.headers["host"]) == ("/path", "server.test:8080")


def test_tls_over_a_unix_socket_is_with_the_urls_host(
    behind: Callable[..., Server], path: str, authority: Authority
) -> None:
    behind(ssl_context=authority.server_context("server.test"))
    options: dict[str, Any] = {"unix": path, "sslopt": {"ca_certs": authority.ca_file}}
    with create_connection("wss://server.test/", **options) as websocket:
        both_directions_at_once(websocket)
        assert websocket.is_ssl()
        assert ("DNS", "server.test") in websocket.sock.getpeercert()["subjectAltName"]
    with pytest.raises(WebSocketCertificateException, match=r"other\.test"):
        create_connection("wss://other.test/", **options)


def test_both_directions_run_at_once_over_a_unix_socket(behind: Callable[..., Server], path: str) -> None:
    behind()
    with create_connection(URL, unix=path) as websocket:
        both_directions_at_once(websocket)


def test_a_large_message_comes_back_whole(behind: Callable[..., Server], path: str) -> None:
    behind()
    message = bytes(range(256)) * 32_768
    with create_connection(URL, unix=path, max_message_size=None) as websocket:
        websocket.send_bytes(message)
        assert websocket.recv() == message


def test_the_closing_handshake_is_done_over_a_unix_socket(behind: Callable[..., Server], path: str) -> None:
    server = behind()
    websocket = create_connection(URL, unix=path)
    websocket.close(4001, b"enough")
    assert websocket.close_frame is not None
    assert websocket.close_frame.data[:2] == (4001).to_bytes(2, "big")
    (peer,) = server.peers
    assert peer.close_frame is not None
    assert peer.close_frame.data == (4001).to_bytes(2, "big") + b"enough"


def test_proxies_of_the_environment_do_not_concern_a_unix_socket(
    behind: Callable[..., Server], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind()
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("all_proxy", "nothing usable")
    monkeypatch.setenv("no_proxy", "other.test")
    create_connection(URL, unix=path).close()
    create_connection(URL, unix=path, header={"Proxy-Authorization": "for the server"}).close()


def test_redirects_stay_on_the_socket(behind: Callable[..., Server], path: str) -> None:
    def redirect(peer: Peer) -> None:
        peer.read_request()
        if peer.headers["host"] == "server.test:8080":
            peer.send_raw(b"HTTP/1.1 302 Found\r\nLocation: ws://other.test/there\r\nContent-Length: 0\r\n\r\n")
            return
        peer.accept()
        peer.send(f"{peer.headers['host']}{peer.path}")
        peer.recv()
        peer.finish()

    server = behind(redirect, raw=True)
    with create_connection(URL, unix=path) as websocket:
        assert websocket.recv() == "other.test/there"
    assert len(server.peers) == 2


def test_an_app_connects_again_by_the_same_socket(behind: Callable[..., Server], path: str) -> None:
    def drop_the_first(peer: Peer) -> None:
        if len(peer.server.peers) == 1:
            peer.hang_up()
        else:
            peer.send("here again")
            peer.recv()

    behind(drop_the_first)
    app = Recorder(URL, names=("open", "message", "error", "close"))
    app.then["message"] = lambda _: app.close()
    assert app.run(unix=path, reconnect=0.01) is False
    assert [name for name, *_ in app.told] == ["open", "error", "close", "open", "message", "close"]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_unix_socket_that_the_program_has_connected_is_used(
    behind: Callable[..., Server], path: str, authority: Authority, scheme: str
) -> None:
    behind(ssl_context=authority.server_context("server.test") if scheme == "wss" else None)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    if scheme == "wss":
        sock = ssl.create_default_context(cafile=authority.ca_file).wrap_socket(sock, server_hostname="server.test")
    with create_connection(f"{scheme}://server.test/", socket=sock) as websocket:
        both_directions_at_once(websocket)


# ---- socket options ----


def test_sockopt_holds_for_a_unix_socket(behind: Callable[..., Server], path: str) -> None:
    behind()
    option = (socket.SOL_SOCKET, socket.SO_PASSCRED)
    with create_connection(URL, unix=path, sockopt=[(*option, 1)]) as websocket:
        assert websocket.sock.getsockopt(*option) == 1


@pytest.mark.parametrize("option", [(socket.SOL_SOCKET, 9999, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, "yes")])
def test_a_sockopt_that_cannot_be_set_is_named(behind: Callable[..., Server], path: str, option: Any) -> None:
    server = behind()
    with pytest.raises(WebSocketConnectException) as caught:
        create_connection(URL, unix=path, sockopt=[option])
    assert repr(option) in str(caught.value)
    assert server.peers == []


# ---- failures ----


def fails(path: Any, kind: type[WebSocketConnectException], code: int | None, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        create_connection(URL, unix=path, **options)
    assert caught.value.errno == code
    assert repr(path) in str(caught.value)
    return str(caught.value)


def test_a_path_where_nothing_is_is_named(path: str) -> None:
    assert "No such file" in fails(path, WebSocketConnectException, errno.ENOENT)


@pytest.mark.parametrize("is_socket", [True, False], ids=["a socket that nobody listens at", "a file"])
def test_a_path_where_nobody_listens_refuses(path: str, is_socket: bool) -> None:
    if is_socket:
        unix_listener(path).close()
    else:
        Path(path).touch()
    assert "refused" in fails(path, WebSocketConnectionRefusedException, errno.ECONNREFUSED)


def test_a_path_that_is_longer_than_the_system_takes_is_named() -> None:
    assert "too long" in fails("/" + "x" * 200, WebSocketConnectException, None)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Permissions mean nothing to root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_socket_that_may_not_be_used_is_named(behind: Callable[..., Server], path: str) -> None:
    behind()
    os.chmod(path, 0)
    with without_privileges():
        assert "denied" in fails(path, WebSocketConnectException, errno.EACCES)


@contextmanager
def full(path: str) -> Iterator[socket.socket]:
    """A listener that has as many connections waiting as it takes."""
    with unix_listener(path, 0) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
        first.connect(path)
        yield listener


def test_a_listener_that_is_not_accepting_runs_into_the_deadline(path: str) -> None:
    with full(path), pytest.raises(WebSocketTimeoutException, match=r"0\.2 s .*unix='socket'"):
        create_connection(URL, unix=path, timeout=0.2)


class Noticed:
    """The value 1 of a socket option, which sees that it is about to be set."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __index__(self) -> int:
        self.event.set()
        return 1


def test_a_listener_that_accepts_late_is_waited_for(serve: Serve, path: str) -> None:
    noticed = Noticed()
    options: dict[str, Any] = {"unix": path, "sockopt": [(socket.SOL_SOCKET, socket.SO_PASSCRED, noticed)]}
    with full(path) as listener:
        connecting = background(lambda: create_connection(URL, **options))
        assert noticed.event.wait(PATIENCE)
        with Front(listener, serve().port):
            websocket = connecting()
            websocket.send("hello")
            assert websocket.recv() == "hello"
            websocket.close()


def test_close_in_another_thread_ends_the_wait_for_a_listener(path: str) -> None:
    noticed = Noticed()
    websocket = WebSocket(sockopt=[(socket.SOL_SOCKET, socket.SO_PASSCRED, noticed)])
    with full(path):
        connecting = background(lambda: websocket.connect(URL, unix=path))
        assert noticed.event.wait(PATIENCE)
        websocket.close()
        with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
            connecting()


# ---- options that make no sense ----


def test_another_way_beside_the_unix_socket_is_refused(behind: Callable[..., Server], path: str) -> None:
    server = behind()
    left, right = socket.socketpair()
    others: list[dict[str, Any]] = [
        {"socket": left},
        {"proxy": "http://proxy.test:3128"},
        {"http_proxy_host": "proxy.test", "http_proxy_port": 3128},
    ]
    with left, right:
        for other in others:
            with pytest.raises(ValueError, match=f"unix.*{next(iter(other))}.*two ways"):
                create_connection(URL, unix=path, **other)
    assert server.peers == []
    create_connection(URL, unix=path, proxy="").close()


@pytest.mark.parametrize("value", [5, "", b"", True, ["path"]])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="unix must be the path"):
        create_connection(URL, unix=value)
