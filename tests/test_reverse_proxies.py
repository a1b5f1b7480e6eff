"""Through nginx and HAProxy in front of the server, with wss that ends there and with ws: all of a WebSocket passes,
and what they do on their own account (errors, an idle timeout, a reload, their end) is told for what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from websocket import (
    ABNF,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
)
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import background, run_all, wait_until
from .proxies import ADDRESS, Client, HAProxy, Nginx, ReverseProxy, Stunnel
from .recorder import Recorder

Serve = Callable[..., Server]
Front = Callable[..., ReverseProxy]

PROGRAMS: dict[str, type[ReverseProxy]] = {"nginx": Nginx, "haproxy": HAProxy}


@pytest.fixture(params=PROGRAMS)
def front(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Iterator[Front]:
    """Starts the reverse proxy in front of a server's port: front(port, idle=seconds)."""
    with ExitStack() as stack:

        def make(port: int, idle: float = 60) -> ReverseProxy:
            certificate = authority.server_file(ADDRESS)
            program = PROGRAMS[request.param](tmp_path, certificate, port, f"{round(idle * 1000)}ms")
            return stack.enter_context(program)

        yield make


@pytest.fixture
def client(authority: Authority) -> Iterator[Client]:
    result = Client(authority)
    yield result
    result.close()


def test_messages_of_both_kinds_come_back_in_order(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    server = serve()
    connection = client.connect(front(server.port).url(scheme))
    sent: list[str | bytes] = [f"message {n} ü" if n % 2 else bytes([n % 256]) * n for n in range(300)]

    def send() -> None:
        for message in sent:
            connection.send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)

    received, _ = run_all(lambda: [connection.recv() for _ in sent], send)
    assert received == sent
    [peer] = server.peers
    assert peer.address[0] == ADDRESS  # the reverse proxy's


def test_an_app_talks_through_it(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    app, result = client.run(front(serve().port).url(scheme))
    for message in ("one", "two", "three"):
        app.send(message)
        app.wait_for("message", message)
    app.close()
    assert result() is False
    assert [call[0] for call in app.told] == ["open", "message", "message", "message", "close"]


def test_a_message_of_5_mb_passes_both_ways(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    connection = client.connect(front(serve().port).url(scheme))
    big = bytes(range(256)) * (5 * 4096)
    _, received = run_all(lambda: connection.send_bytes(big), connection.recv)
    assert received == big


def test_pings_and_pongs_pass_both_ways(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    def ping(peer: Peer) -> None:
        peer.send_frame(ABNF.OPCODE_PING, b"server asks")
        echo(peer)

    server = serve(ping)
    connection = client.connect(front(server.port).url(scheme))
    [peer] = server.peers
    wait_until(lambda: peer.pongs == [b"server asks"], "the client's pong comes")
    connection.ping("client asks")
    answers = iter(lambda: connection.recv_data(control_frame=True), None)
    assert (ABNF.OPCODE_PONG, b"client asks") in answers


def test_the_servers_close_code_passes(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    connection = client.connect(front(serve(lambda peer: peer.close(4321, "because")).port).url(scheme))
    assert connection.recv() == ""
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv()
    assert (caught.value.code, caught.value.reason) == (4321, "because")


def test_the_clients_close_code_passes(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    server = serve()
    connection = client.connect(front(server.port).url(scheme))
    connection.close(4000, b"enough")
    [peer] = server.peers
    assert peer.close_frame is not None
    assert peer.close_frame.data == (4000).to_bytes(2, "big") + b"enough"


@pytest.mark.parametrize("end", [Peer.hang_up, Peer.reset], ids=["end", "reset"])
def test_a_server_that_goes_without_a_close_frame_is_lost(
    front: Front, client: Client, serve: Serve, scheme: str, end: Callable[[Peer], None]
) -> None:
    def leave(peer: Peer) -> None:
        peer.send("last words")
        assert peer.recv() == "go"
        end(peer)

    connection = client.connect(front(serve(leave).port).url(scheme))
    assert connection.recv() == "last words"
    connection.send("go")
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        connection.recv()
    assert caught.value.code is None


# ---- answers that are the reverse proxy's own ----


def test_a_backend_that_is_down_is_told_as_a_bad_gateway(
    front: Front, client: Client, deaf_port: int, scheme: str
) -> None:
    program = front(deaf_port)
    with pytest.raises(WebSocketBadStatusException) as caught:
        client.connect(program.url(scheme))
    assert caught.value.status_code == {"nginx": 502, "haproxy": 503}[program.program]
    assert caught.value.resp_body


def test_a_backend_that_does_not_answer_is_told_as_a_gateway_timeout(
    front: Front, client: Client, serve: Serve, scheme: str
) -> None:
    program = front(serve(Peer.stall, raw=True).port, idle=0.1)
    with pytest.raises(WebSocketBadStatusException) as caught:
        client.connect(program.url(scheme))
    assert caught.value.status_code == 504


def test_a_refusal_of_the_server_passes_with_its_body(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n")
        peer.half_close()
        while peer.sock.recv(1 << 16):
            pass

    with pytest.raises(WebSocketBadStatusException) as caught:
        client.connect(front(serve(refuse, raw=True).port).url(scheme))
    assert (caught.value.status_code, caught.value.resp_body) == (403, b"not you\n")


def test_an_app_tries_again_where_tls_ends_in_front_of_a_server_that_is_down(
    tmp_path: Path, authority: Authority, deaf_port: int
) -> None:
    with Stunnel(tmp_path, ("127.0.0.1", deaf_port), authority.server_file(ADDRESS)) as front:
        app = Recorder(f"wss://{front.address}:{front.port}/")
        app.then["error"] = lambda error: app.close() if len(app.errors) == 3 else None
        app.run_forever(sslopt={"ca_certs": authority.ca_file}, reconnect=0.001)
    assert len(app.errors) == 3
    assert all(isinstance(error, WebSocketException) for error in app.errors)


# ---- its idle timeout ----


def test_idle_connections_are_lost_and_keepalive_holds_others_open(front: Front, client: Client, serve: Serve) -> None:
    program = front(serve().port, idle=1)
    urls = [program.url("ws"), program.url("wss")]
    kept = [client.connect(url, ping_interval=0.05) for url in urls]
    idle = [client.connect(url) for url in urls]
    apps = [client.run(url) for url in urls]

    for connection in idle:
        with pytest.raises(WebSocketConnectionLostException) as caught:
            connection.recv()
        assert caught.value.code is None
        assert not connection.connected

    for app, result in apps:
        assert result() is True
        assert app.told == [("open",), ("error",), ("close", None, None)]
        assert isinstance(app.errors[0], WebSocketConnectionLostException)

    for connection in kept:
        connection.send("still here")
        assert connection.recv() == "still here"


# ---- its reload and its end ----


def test_an_open_connection_outlives_a_reload(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    old, new = serve(), serve()
    program = front(old.port)
    connection = client.connect(program.url(scheme))
    program.server_port = new.port
    program.reload()

    def leads_to_the_new_server() -> bool:
        client.connect(program.url(scheme)).close()
        return bool(new.peers)

    wait_until(leads_to_the_new_server, "new connections lead to the new server")
    connection.send("hello")
    assert connection.recv() == "hello"


def test_its_end_is_the_connections_end(front: Front, client: Client, serve: Serve, scheme: str) -> None:
    program = front(serve().port)
    connection = client.connect(program.url(scheme))
    receive = background(connection.recv)
    program.terminate()
    with pytest.raises(WebSocketConnectionLostException):
        receive()


@pytest.mark.parametrize("end", [ReverseProxy.terminate, ReverseProxy.kill], ids=["terminate", "kill"])
def test_an_app_comes_back_when_it_is_started_again(
    front: Front, client: Client, serve: Serve, scheme: str, end: Callable[[ReverseProxy], None]
) -> None:
    program = front(serve().port)
    app, result = client.run(program.url(scheme), reconnect=0.01)
    end(program)
    app.wait_for("error")
    app.wait_for("error", times=2)  # an attempt while it is down
    program.start()
    app.wait_for("open", times=2)
    app.send("hello again")
    app.wait_for("message", "hello again")
    app.close()
    assert result() is False
