"""The arguments of WebSocketApp and of run_forever(): what the server sees of them, and what is refused."""

from __future__ import annotations

import inspect
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

import websocket
from websocket import Backoff, WebSocketApp, WebSocketException
from websocket.testing import Peer

from .certs import Authority
from .conftest import PATIENCE
from .recorder import Record, Recorder


def greet(peer: Peer) -> None:
    peer.send("hello")


def headers(app: Recorder) -> dict[str, str]:
    """What the server has seen of the latest request."""
    assert app.server is not None
    return app.server.peers[-1].headers


# ---- places ----


def test_the_positional_parameters_are_websocket_clients() -> None:
    names = list(inspect.signature(WebSocketApp.run_forever).parameters)
    assert names[1:18] == [
        "sockopt",
        "sslopt",
        "ping_interval",
        "ping_timeout",
        "ping_payload",
        "http_proxy_host",
        "http_proxy_port",
        "http_no_proxy",
        "http_proxy_auth",
        "http_proxy_timeout",
        "skip_utf8_validation",
        "host",
        "origin",
        "dispatcher",
        "suppress_origin",
        "proxy_type",
        "reconnect",
    ]


def test_all_positional_parameters_of_run_forever_do_what_they_are_called(record: Record, authority: Authority) -> None:
    asked = []

    def handler(peer: Peer) -> None:
        peer.send_raw(b"\x81\x02\xc3\x28")
        while peer._receive():
            pass

    app = record(handler, "wss")
    app.then["open"] = lambda: asked.append(app.sock.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))  # type: ignore[union-attr]
    app.then["message"] = lambda _: app.close()
    result = app.run_forever(
        [(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)],
        {"ca_certs": authority.ca_file},
        50,
        20,
        "payload",
        None,
        None,
        ["127.0.0.1"],
        None,
        None,
        True,
        "other.example",
        "https://origin.example",
        None,
        False,
        None,
        5,
    )
    assert result is False
    assert app.told == [("open",), ("message", b"\xc3\x28"), ("close", 1000, "")]
    assert asked == [40_000]
    assert headers(app)["host"] == "other.example"
    assert headers(app)["origin"] == "https://origin.example"
    assert (app.ping_interval, app.ping_timeout, app.ping_payload) == (50, 20, "payload")


def test_the_positional_parameters_of_the_class_are_websocket_clients(record: Record) -> None:
    called: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.append(name)

    def handler(peer: Peer) -> None:
        peer.send_raw(b"\x89\x00\x8a\x00\x01\x01a\x80\x01b")
        peer.close()

    server = record(handler).server
    assert server is not None
    names = ("open", "reconnect", "message", "error", "close", "ping", "pong", "cont")
    app = WebSocketApp(
        server.url,
        {"X-One": "1"},
        *map(note, names),
        True,
        None,
        "cookie=1",
        ["chat"],
        note("data"),
        None,
    )
    assert app.run_forever() is True, "the server takes no subprotocol"
    assert called == ["error", "close"]
    app.subprotocols = None
    called.clear()
    assert app.run_forever() is False
    assert called == ["open", "ping", "pong", "data", "message", "data", "cont", "close"]
    assert server.peers[-1].headers["x-one"] == "1"
    assert server.peers[-1].headers["cookie"] == "cookie=1"


# ---- the request ----


@pytest.mark.parametrize(
    "header",
    [
        {"X-One": "1", "X-Two": "2"},
        ["X-One: 1", "X-Two: 2"],
        lambda: {"X-One": "1", "X-Two": "2"},
        lambda: ["X-One:1", "X-Two: 2"],
    ],
    ids=["dict", "list", "function of a dict", "function of a list"],
)
def test_the_server_sees_the_headers(record: Record, header: Any) -> None:
    app = record(greet, header=header)
    assert app.run() is False
    assert (headers(app)["x-one"], headers(app)["x-two"]) == ("1", "2")


def test_a_header_function_is_called_for_each_attempt(record: Record) -> None:
    tokens = iter("abc")
    seen = []

    def handler(peer: Peer) -> None:
        seen.append(peer.headers["x-token"])
        peer.close(1011 if len(seen) < 3 else 1000)

    app = record(handler, header=lambda: {"X-Token": next(tokens)})
    assert app.run(reconnect=0.001) is False
    assert seen == ["a", "b", "c"]


def test_a_bad_header_is_told_and_not_tried_again(record: Record) -> None:
    app = record(header={"X-One": "1\r\nX-Two: 2"})
    assert app.run(reconnect=3600) is True
    assert app.told == [("error",), ("close", None, None)]
    assert isinstance(app.errors[0], ValueError)


def test_the_server_sees_cookie_origin_host_and_subprotocols(record: Record) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept(subprotocol="chat")
        peer.close()
        peer.recv()

    chosen = []
    app = record(handler, raw=True, cookie="a=1; b=2", subprotocols=["superchat", "chat"])
    app.then["open"] = lambda: chosen.append(app.sock.subprotocol)  # type: ignore[union-attr]
    assert app.run(origin="https://origin.example", host="host.example") is False
    seen = headers(app)
    assert seen["cookie"] == "a=1; b=2"
    assert seen["origin"] == "https://origin.example"
    assert seen["host"] == "host.example"
    assert [name.strip() for name in seen["sec-websocket-protocol"].split(",")] == ["superchat", "chat"]
    assert chosen == ["chat"]


def test_the_origin_is_the_servers_unless_suppressed(record: Record) -> None:
    app = record(greet)
    app.run()
    assert headers(app)["origin"] == app.url[:-1].replace("ws:", "http:")
    app.run(suppress_origin=True)
    assert "origin" not in headers(app)


def test_get_mask_key_gives_the_keys(record: Record) -> None:
    received = []

    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept()
        while len(b"".join(received)) < 11:
            received.append(peer.sock.recv(100))
        peer.close()
        while peer.sock.recv(100):
            pass

    asked = []

    def key(length: int) -> bytes:
        asked.append(length)
        return b"abcd"

    app = record(handler, raw=True, get_mask_key=key)
    app.then["open"] = lambda: app.send("hello")
    assert app.run() is False
    assert b"".join(received)[:11] == b"\x81\x85abcd" + bytes(
        letter ^ key for letter, key in zip(b"hello", b"abcda", strict=True)
    )
    assert asked == [4]


def test_a_prepared_socket_is_used_for_the_first_attempt_alone(record: Record) -> None:
    app = record(greet)
    assert app.server is not None
    names = []
    with socket.create_connection(("127.0.0.1", app.server.port), timeout=PATIENCE) as sock:
        own = sock.getsockname()
        app.prepared_socket = sock
        app.then["open"] = lambda: names.append(app.sock.sock.getsockname())  # type: ignore[union-attr]
        assert app.run() is False
        assert app.run() is False
    assert names[0] == own
    assert names[1] != own
    assert len(app.server.peers) == 2


def test_options_of_connect_may_be_given(record: Record) -> None:
    app = record(lambda peer: peer.send("x" * 200))
    assert app.run(max_message_size=100, timeout=PATIENCE, connection="keep-alive, Upgrade") is True
    assert "max_message_size" in str(app.errors[0])
    assert headers(app)["connection"] == "keep-alive, Upgrade"


def test_the_timeout_is_that_of_sending(record: Record) -> None:
    seen = []
    app = record(greet)
    app.then["open"] = lambda: seen.append(app.sock.gettimeout())  # type: ignore[union-attr]
    app.run(timeout=7)
    websocket.setdefaulttimeout(None)
    app.run()
    assert seen == [7, None]


def test_sslopt_reaches_the_connection(record: Record) -> None:
    seen = []
    app = record(greet, "wss")
    app.then["open"] = lambda: seen.append(app.sock.sock.version())  # type: ignore[union-attr]
    assert app.run_forever() is True, "the authority of the tests is not trusted by default"
    assert isinstance(app.errors[0], ssl.SSLCertVerificationError)
    assert app.run_forever(sslopt={"cert_reqs": ssl.CERT_NONE}) is False
    assert seen == ["TLSv1.3"]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ping_timeout": 0}, "Ensure ping_timeout > 0"),
        ({"ping_timeout": -1}, "Ensure ping_timeout > 0"),
        ({"ping_interval": -1}, "Ensure ping_interval >= 0"),
        ({"ping_interval": 5, "ping_timeout": 5}, "Ensure ping_interval > ping_timeout"),
        ({"ping_interval": 5, "ping_timeout": 10}, "Ensure ping_interval > ping_timeout"),
    ],
)
def test_keepalive_that_makes_no_sense_is_refused_in_websocket_clients_words(
    record: Record, options: dict[str, Any], text: str
) -> None:
    app = record(greet)
    with pytest.raises(WebSocketException, match=f"^{text}$"):
        app.run_forever(**options)
    assert app.told == []
    assert app.run(ping_timeout=10) is False, "without an interval a timeout means nothing"


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"header": {}}, TypeError, r"argument of WebSocketApp\(\)"),
        ({"cookie": "a=1"}, TypeError, r"argument of WebSocketApp\(\)"),
        ({"subprotocols": ["chat"]}, TypeError, r"argument of WebSocketApp\(\)"),
        ({"socket": None}, TypeError, r"argument of WebSocketApp\(\)"),
        ({"reconnect": -1}, ValueError, "reconnect"),
        ({"reconnect": "soon"}, ValueError, "reconnect"),
        ({"reconnect": float("nan")}, ValueError, "reconnect"),
        ({"reconnect": True}, ValueError, "reconnect"),
        ({"retry": 5}, TypeError, "retry"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"sslopt": 5}, ValueError, "sslopt"),
        ({"sockopt": 5}, ValueError, "sockopt"),
        ({"sockopt": [(1, 2)]}, ValueError, "sockopt"),
        ({"ping_interval": float("inf")}, ValueError, "ping_interval"),
        ({"ping_interval": 5, "ping_payload": "x" * 126}, ValueError, "125"),
        ({"max_message_size": 0}, ValueError, "max_message_size"),
        ({"redirect_limit": -1}, ValueError, "redirect_limit"),
        ({"dispatcher": object()}, WebSocketException, "dispatcher"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_happens(
    record: Record, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    app = record(greet)
    with pytest.raises(kind, match=text):
        app.run_forever(**options)
    assert app.server is not None
    assert app.server.peers == []
    assert app.told == []
    assert not app.keep_running
    assert app.run() is False


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "ws:/127.0.0.1", "127.0.0.1", "", "ws://127.0.0.1:99999/", "ws://"]
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    app = Recorder(url)
    with pytest.raises(ValueError, match=r"\S"):
        app.run_forever()
    with pytest.raises(ValueError, match=r"\S"):
        app.start()
    assert app.told == []


def test_set_reconnect_is_the_default_of_reconnect(record: Record) -> None:
    def handler(peer: Peer) -> None:
        peer.close(1011 if len(peer.server.peers) < 3 else 1000)

    app = record(handler)
    for setting in (0.001, Backoff(first=0.001, limit=0.001)):
        app.server.peers.clear()  # type: ignore[union-attr]
        websocket.setReconnect(setting)  # type: ignore[arg-type]
        try:
            assert app.run() is False
        finally:
            websocket.setReconnect(0)
        assert len(app.server.peers) == 3  # type: ignore[union-attr]
    app.server.peers.clear()  # type: ignore[union-attr]
    assert app.run() is True
    with pytest.raises(ValueError, match="reconnect"):
        websocket.setReconnect(-1)
