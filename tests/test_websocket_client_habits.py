"""What programs written for websocket-client do, beside plain sending and receiving."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

import websocket
from websocket import WebSocket, WebSocketConnectionLostException, WebSocketException, create_connection
from websocket._http import connect, proxy_info, read_headers
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE

Connect = Callable[..., WebSocket]
Serve = Callable[..., Server]


def test_a_reset_is_caught_by_those_who_catch_os_errors(connect_to: Connect) -> None:
    connection = connect_to(Peer.reset)
    with pytest.raises(ConnectionResetError) as caught:
        connection.recv()
    assert isinstance(caught.value, WebSocketConnectionLostException)
    assert isinstance(caught.value, websocket.WebSocketConnectionClosedException)
    with pytest.raises(OSError, match="lost"):
        connection.send("x")


class Recorded(WebSocket):
    """A program's own class, with constructor and connect() that take what websocket-client gives them."""

    def __init__(self, **options: Any) -> None:
        self.given = options
        super().__init__(**options)

    def connect(self, url: str, **options: Any) -> None:
        self.connected_with = options
        super().connect(url, **options)


def test_create_connection_gives_a_class_what_websocket_client_gives_it(serve: Serve) -> None:
    connection = create_connection(serve().url, class_=Recorded, fire_cont_frame=True, header=["A: b"])
    assert isinstance(connection, Recorded)
    assert connection.given == {
        "sockopt": [],
        "sslopt": {},
        "fire_cont_frame": True,
        "enable_multithread": True,
        "skip_utf8_validation": False,
        "header": ["A: b"],
    }
    assert connection.connected_with == {"header": ["A: b"]}
    connection.close()


def test_iterators_serve_as_lists(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept(subprotocol="chat")
        peer.send(peer.headers["a"])
        peer.finish()

    connection = create_connection(
        serve(handler, raw=True).url, header=iter(["A: b"]), subprotocols=(name for name in ["chat"])
    )
    assert connection.recv() == "b"
    assert connection.subprotocol == "chat"
    connection.close()


def test_connected_tells_what_it_tells_there(connect_to: Connect) -> None:
    connection = connect_to(lambda peer: peer.close())
    assert connection.connected, "the close frame has not been received"
    assert connection.recv() == ""
    assert not connection.connected
    connection = connect_to(echo)
    connection.send_close()
    assert not connection.connected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redirect_limit": "x"}, "redirect_limit must be an int"),
        ({"redirect_limit": -1}, "redirect_limit must be an int"),
        ({"sslopt": [1]}, "sslopt must be a dict"),
        ({"sockopt": 5}, "sockopt must be a list"),
        ({"sockopt": [(1, 2)]}, r"not \(1, 2\)"),
        ({"max_message_size": 0}, "max_message_size must be an int of at least 1, not 0"),
        ({"max_inbox_bytes": None}, "max_inbox_bytes must be an int"),
        ({"timeout": "1"}, "timeout must be None or a number"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_its_value(
    serve: Serve, options: dict[str, Any], message: str
) -> None:
    server = serve()
    with pytest.raises(ValueError, match=message):
        create_connection(server.url, **options)
    assert server.peers == []


def test_a_masking_function_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="not 5"):
        WebSocket(get_mask_key=5)  # type: ignore[arg-type]


def test_a_default_timeout_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="abc"):
        websocket.setdefaulttimeout("abc")  # type: ignore[arg-type]
    assert websocket.getdefaulttimeout() == PATIENCE


def test_a_socket_option_that_the_system_refuses_is_named(serve: Serve) -> None:
    with pytest.raises(WebSocketException, match=r"sockopt \(6, 9999, 1\)"):
        create_connection(serve().url, sockopt=[(socket.SOL_TCP, 9999, 1)])


def test_what_a_context_makes_useless_is_warned_of(
    serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=authority.ca_file)
    server = serve(ssl_context=authority.server_context(), host="localhost")
    with caplog.at_level(logging.WARNING, "websocket"):
        create_connection(server.url, sslopt={"context": context, "cert_reqs": ssl.CERT_NONE}).close()
    assert "'cert_reqs'" in caplog.text


def test_a_cert_reqs_that_is_none_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context(), host="localhost")
    with pytest.raises(ValueError, match="must be one of"):
        create_connection(server.url, sslopt={"cert_reqs": 7})


def test_the_socket_says_what_to_use_in_its_place(connect_to: Connect) -> None:
    connection = connect_to(echo)
    with pytest.raises(AttributeError, match="use the methods of the WebSocket"):
        connection.sock.recv(1)
    assert connection.sock == connection.sock
    connection.sock.settimeout(1.5)
    assert connection.timeout == 1.5


def test_the_functions_of_http_work_on_a_bare_socket(serve: Serve, scheme: str, authority: Authority) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 404 Not here\r\nA: b\r\n\r\n")

    secure = scheme == "wss"
    server = serve(handler, raw=True, ssl_context=authority.server_context() if secure else None)
    options = websocket.sock_opt(None, {"ca_certs": authority.ca_file})
    options.timeout = PATIENCE
    sock, names = connect(server.url + "x?y", options, proxy_info(), None)
    assert names == ("127.0.0.1", server.port, "/x?y")
    sock.send(b"GET /x?y HTTP/1.1\r\n\r\n")
    assert read_headers(sock) == (404, {"a": "b"}, "Not here")
    sock.close()


def test_tracing_shows_what_goes_over_the_wire(connect_to: Connect, caplog: pytest.LogCaptureFixture) -> None:
    def handler(peer: Peer) -> None:
        peer.send_frame(9, b"are you there")
        peer.send(peer.recv() or "")
        peer.close(4000, "enough")

    websocket.enableTrace(True, logging.NullHandler())
    try:
        with caplog.at_level(logging.DEBUG, "websocket"):
            connection = connect_to(handler)
            connection.send("what is said")
            assert connection.recv() == "what is said"
            assert connection.recv() == ""
    finally:
        websocket.enableTrace(False)
    for what in ("Upgrade: websocket", "101 Switching", "Sent message: 'what is said'", "Rcv message: 'what is said'"):
        assert what in caplog.text
    for what in ("Sent pong: b'are you there'", "Sent close"):
        assert what in caplog.text
