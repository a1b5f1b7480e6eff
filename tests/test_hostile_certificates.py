"""Certificates that change between the reconnects of a WebSocketApp: the server's authority, name or time, and the
proxy's. What is refused is told, tried again, and hears nothing of the program."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from websocket import (
    WebSocketCertificateException,
    WebSocketConnectionLostException,
    WebSocketProxyConnectionException,
    WebSocketTLSException,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .recorder import Recorder
from .scripted_proxies import ESTABLISHED, ScriptedProxy, Visit, tunnelling

Serve = Callable[..., Server]

SOON = 0.001  # seconds to the next attempt
NAMES = ("open", "reconnect", "message", "error", "close")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path, "other")


class Wardrobe:
    """A raw handler that shows the next of these certificates to each client, and the last one to all that follow.

    It greets them, and closes as many as there are certificates but one with 1001, all others with 1000.  heard: the
    numbers, from 1 on, of the clients that got as far as a request.
    """

    def __init__(self, *contexts: ssl.SSLContext) -> None:
        self._contexts = contexts
        self.heard: list[int] = []

    def __call__(self, peer: Peer) -> None:
        number = peer.server.peers.index(peer) + 1
        context = self._contexts[min(number, len(self._contexts)) - 1]
        peer.sock = context.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False)
        peer.sock.do_handshake()
        peer.read_request()
        self.heard.append(number)
        peer.accept()
        peer.send(f"hello {number}")
        peer.close(*((1000, "bye") if number >= len(self._contexts) else (1001, "")))
        peer.finish()


def run(serve: Serve, wardrobe: Wardrobe, ca_file: str, host: str = "127.0.0.1", **options: Any) -> Recorder:
    """Run an app to its end with a server of these certificates."""
    server = serve(wardrobe, raw=True)
    app = Recorder(f"wss://{host}:{server.port}/", names=NAMES)
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": ca_file}, **options) is False
    assert app.overlaps == []
    return app


def stood(number: int, last: int, name: str = "reconnect") -> list[Any]:
    """What is told of a connection that stood."""
    end = ("close", 1000, "bye") if number == last else ("close", 1001, "")
    return [(name,), ("message", f"hello {number}"), end]


def changes(authority: Authority, other: Authority) -> Iterator[tuple[ssl.SSLContext, str]]:
    yield other.server_context(), "certificate of 127.0.0.1 is from an unknown issuer; name its CA in sslopt"
    yield authority.server_context(expired=True), "certificate of 127.0.0.1 has expired"
    yield authority.server_context("example.org"), "certificate of 127.0.0.1 is for another host than '127.0.0.1'"
    yield authority.server_context("localhost"), "certificate of 127.0.0.1 is for another host than '127.0.0.1'"


@pytest.mark.parametrize("change", range(4), ids=["authority", "time", "name", "name of the same machine"])
def test_a_certificate_that_goes_bad_and_good_again_is_told_between_two_connections(
    serve: Serve, authority: Authority, other: Authority, change: int
) -> None:
    good, (bad, words) = authority.server_context(), list(changes(authority, other))[change]
    wardrobe = Wardrobe(good, bad, bad, good)
    app = run(serve, wardrobe, authority.ca_file)
    assert app.told == [*stood(1, 4, "open"), ("error",), ("error",), *stood(4, 4)]
    assert wardrobe.heard == [1, 4]  # nobody else saw a request
    for error in app.errors:
        assert isinstance(error, WebSocketCertificateException)
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert str(error).startswith(words)


@pytest.mark.parametrize("change", range(4), ids=["authority", "time", "name", "name of the same machine"])
def test_a_certificate_that_is_bad_at_first_is_told_before_the_first_connection(
    serve: Serve, authority: Authority, other: Authority, change: int
) -> None:
    good, (bad, words) = authority.server_context(), list(changes(authority, other))[change]
    wardrobe = Wardrobe(bad, good, bad, good)
    app = run(serve, wardrobe, authority.ca_file)
    assert app.told == [("error",), *stood(2, 4, "open"), ("error",), *stood(4, 4)]
    assert [str(error).startswith(words) for error in app.errors] == [True, True]
    assert wardrobe.heard == [2, 4]


def test_each_change_is_told_for_itself(serve: Serve, authority: Authority, other: Authority) -> None:
    good, bad = authority.server_context(), list(changes(authority, other))
    wardrobe = Wardrobe(good, *(context for context, _ in bad), authority.server_context())
    app = run(serve, wardrobe, authority.ca_file)
    assert app.told == [*stood(1, 6, "open"), *[("error",)] * 4, *stood(6, 6)]
    for error, (_, words) in zip(app.errors, bad, strict=True):
        assert str(error).startswith(words)


def test_a_name_that_the_certificate_no_longer_has_is_the_one_that_is_told(serve: Serve, authority: Authority) -> None:
    by_name, by_address = authority.server_context("localhost"), authority.server_context("127.0.0.1")
    app = run(serve, Wardrobe(by_name, by_address, by_name), authority.ca_file, host="localhost")
    assert app.told == [*stood(1, 3, "open"), ("error",), *stood(3, 3)]
    assert "is for another host than 'localhost'" in str(app.errors[0])


def test_a_renewed_certificate_of_the_same_authority_is_no_event(serve: Serve, authority: Authority) -> None:
    app = run(serve, Wardrobe(*(authority.server_context() for _ in range(3))), authority.ca_file)
    assert app.told == [*stood(1, 3, "open"), *stood(2, 3), *stood(3, 3)]


def test_an_authority_that_is_put_into_the_file_while_the_app_runs_is_trusted(
    serve: Serve, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Path(authority.ca_file).read_bytes())
    server = serve(Wardrobe(authority.server_context(), other.server_context(), other.server_context()), raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    app.then["error"] = lambda _: bundle.write_bytes(Path(other.ca_file).read_bytes())
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": str(bundle)}) is False
    assert app.told == [*stood(1, 3, "open"), ("error",), *stood(3, 3)]


def test_a_bad_certificate_without_reconnect_ends_the_run(serve: Serve, authority: Authority, other: Authority) -> None:
    server = serve(Wardrobe(other.server_context()), raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    assert app.run_forever(sslopt={"ca_certs": authority.ca_file}) is True
    assert app.told == [("error",), ("close", None, None)]
    assert len(server.peers) == 1


def test_retry_may_refuse_to_go_on_with_a_bad_certificate(serve: Serve, authority: Authority, other: Authority) -> None:
    good, bad = authority.server_context(), other.server_context()
    server = serve(Wardrobe(good, bad, good), raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    options: dict[str, Any] = {"retry": lambda error: not isinstance(error, WebSocketCertificateException)}
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": authority.ca_file}, **options) is True
    assert app.told == [*stood(1, 3, "open"), ("error",), ("close", None, None)]
    assert len(server.peers) == 2


def test_close_in_on_error_of_a_bad_certificate_is_the_end(
    serve: Serve, authority: Authority, other: Authority
) -> None:
    server = serve(Wardrobe(authority.server_context(), other.server_context()), raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    app.then["error"] = lambda _: app.close()
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": authority.ca_file}) is False
    assert app.told == [*stood(1, 3, "open"), ("error",), ("close", None, None)]


def test_start_returns_once_the_certificate_is_good(serve: Serve, authority: Authority, other: Authority) -> None:
    good, bad = authority.server_context(), other.server_context()
    server = serve(Wardrobe(bad, bad, good), raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    app.start(reconnect=SOON, sslopt={"ca_certs": authority.ca_file})
    assert app.told[:3] == [("error",), ("error",), ("open",)]
    assert app.join() is False
    assert app.told[3:] == stood(3, 3)[1:]


def test_tls_that_goes_away_and_comes_back_is_told_between_two_connections(serve: Serve, authority: Authority) -> None:
    wardrobe = Wardrobe(*(authority.server_context() for _ in range(4)))

    def handler(peer: Peer) -> None:
        number = peer.server.peers.index(peer) + 1
        if number == 2:  # plain HTTP, as while a server is being set up anew
            peer.sock.recv(65_536)
            peer.send_raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        elif number == 3:  # good TLS, and then nothing
            peer.sock = authority.server_context().wrap_socket(peer.sock, server_side=True)
            peer.read_request()
            peer.half_close()
            peer.sock.recv(65_536)
        else:
            wardrobe(peer)

    server = serve(handler, raw=True)
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    assert app.run_forever(reconnect=SOON, sslopt={"ca_certs": authority.ca_file}) is False
    assert app.told == [*stood(1, 4, "open"), ("error",), ("error",), *stood(4, 4)]
    assert type(app.errors[0]) is WebSocketTLSException
    assert type(app.errors[1]) is WebSocketConnectionLostException


def test_a_proxy_whose_certificate_changes_is_told_and_tried_again(
    serve: Serve, authority: Authority, other: Authority
) -> None:
    wardrobe = Wardrobe(*(authority.server_context() for _ in range(2)))
    server = serve(wardrobe, raw=True)
    contexts = [authority.server_context(), other.server_context(), authority.server_context()]
    asked: list[int] = []

    def script(visit: Visit) -> None:
        number = len(proxy.visits)
        visit.peer.sock = contexts[number - 1].wrap_socket(visit.peer.sock, server_side=True)
        asked.append(number)
        tunnelling(ESTABLISHED)(visit)

    proxy = ScriptedProxy(serve, script, "https")
    app = Recorder(f"wss://127.0.0.1:{server.port}/", names=NAMES)
    trusting = {"ca_certs": authority.ca_file}
    options: dict[str, Any] = {"proxy": proxy.url, "sslopt": trusting, "proxy_sslopt": trusting}
    assert app.run_forever(reconnect=SOON, **options) is False
    assert app.told == [*stood(1, 2, "open"), ("error",), *stood(2, 2)]
    [error] = app.errors
    assert type(error) is WebSocketProxyConnectionException
    assert f"proxy {proxy.url}: certificate of 127.0.0.1 is from an unknown issuer" in str(error)
    assert isinstance(error.__cause__, WebSocketCertificateException)
    assert asked == [1, 3]  # the one in between saw no CONNECT
