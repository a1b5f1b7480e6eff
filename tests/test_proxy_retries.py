"""What a WebSocketApp makes of a proxy that fails: which failures it tries again, and when, and which end it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from websocket import Backoff, WebSocketProxyConnectionException, WebSocketProxyException
from websocket.testing import Peer

from .conftest import background
from .recorder import Recorder
from .scripted_proxies import (
    GRANTED,
    NONE_ACCEPTABLE,
    SUCCEEDED,
    Script,
    ScriptedProxy,
    Serve,
    Socks4,
    Socks5,
    Visit,
    answering,
    in_turn,
    tunnelling,
)

SOON = 0.001  # seconds to the next attempt, where a test is not about the wait
OVER = [("error",), ("close", None, None)]  # the calls of an app that has given up at its first attempt


def status(code: int, *headers: str) -> Script:
    return answering("\r\n".join([f"HTTP/1.1 {code} No", *headers, "Content-Length: 0", "", ""]).encode())


def run(proxy: ScriptedProxy, port: int, **options: Any) -> Recorder:
    """Run an app that closes when it is connected, or gives up; the app."""
    app = Recorder(f"ws://server.invalid:{port}/", names=("open", "error", "close"))
    app.then["open"] = app.close
    app.run(**{"proxy": proxy.url, "reconnect": SOON, **options})
    return app


@pytest.mark.parametrize("reconnect", [SOON, Backoff(first=SOON, limit=SOON)])
@pytest.mark.parametrize("code", [302, 400, 401, 403, 404, 407])
def test_a_refusal_that_would_come_again_ends_the_run(serve: Serve, code: int, reconnect: Any) -> None:
    proxy = ScriptedProxy(serve, status(code))
    app = run(proxy, 80, reconnect=reconnect)
    assert app.told == OVER
    assert app.errors[0].status_code == code
    assert len(proxy.visits) == 1


@pytest.mark.parametrize(
    "failure",
    [
        status(429),
        status(500),
        status(502),
        status(503),
        status(504),
        answering(b""),
        answering(b"HTTP/1.1 2"),
        answering(Visit.reset),
    ],
    ids=["429", "500", "502", "503", "504", "nothing", "half a line", "reset"],
)
def test_a_proxy_in_trouble_is_tried_again(serve: Serve, failure: Script) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(failure, failure, tunnelling()))
    app = run(proxy, server.port)
    assert [name for name, *_ in app.told] == ["error", "error", "open", "close"]
    assert all(isinstance(error, WebSocketProxyException) for error in app.errors)
    assert len(proxy.visits) == 3


def test_a_silent_proxy_is_tried_again(serve: Serve) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(answering(Visit.stall), tunnelling()))
    app = Recorder(server.url, names=("open", "error"))
    app.then["open"] = app.close
    # A limit that the second attempt keeps on a busy machine, too.
    app.run(proxy=proxy.url, reconnect=SOON, http_proxy_timeout=0.5)
    assert app.told[0] == ("error",)
    assert app.told[-1] == ("open",)


def test_a_proxy_that_does_not_listen_is_tried_again(deaf_port: int) -> None:
    app = Recorder("ws://server.invalid/", names=("error",))
    app.then["error"] = lambda error: app.close() if len(app.errors) == 3 else None
    app.run(proxy=f"http://127.0.0.1:{deaf_port}", reconnect=SOON)
    assert [type(error) for error in app.errors] == [WebSocketProxyConnectionException] * 3


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_whose_name_does_not_resolve_is_tried_again(scheme: str) -> None:
    # As a server whose name does not: the network may be down for a moment.
    app = Recorder("ws://192.0.2.1/", names=("error",))
    app.then["error"] = lambda error: app.close() if len(app.errors) == 2 else None
    app.run(proxy=f"{scheme}://proxy.invalid:3128", reconnect=SOON)
    assert len(app.errors) == 2


def test_a_retry_after_of_the_proxy_is_waited_for(serve: Serve) -> None:
    server = serve()
    moments: list[float] = []
    scripts = [status(503, "Retry-After: 1"), tunnelling()]

    def noted(script: Script) -> Script:
        def act(visit: Visit) -> None:
            moments.append(time.monotonic())
            script(visit)

        return act

    proxy = ScriptedProxy(serve, in_turn(*map(noted, scripts)))
    app = run(proxy, server.port, reconnect=Backoff(first=SOON, limit=SOON))
    assert app.errors[0].resp_headers["retry-after"] == "1"
    first, second = moments
    assert second - first >= 1


def test_close_ends_the_wait_for_a_retry_after(serve: Serve) -> None:
    proxy = ScriptedProxy(serve, status(503, "Retry-After: 3600"))
    app = Recorder("ws://server.invalid/", names=("error",))
    running = background(lambda: app.run(proxy=proxy.url, reconnect=Backoff(first=SOON, limit=SOON)))
    app.wait_for("error")
    app.close()
    running()
    assert len(proxy.visits) == 1


def test_retry_may_say_otherwise(serve: Serve) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(status(403), tunnelling()))
    app = run(proxy, server.port, retry=lambda error: getattr(error, "status_code", None) == 403)
    assert [name for name, *_ in app.told] == ["error", "open", "close"]


# ---- SOCKS ----


def reply(code: int) -> bytes:
    return bytes([5, code]) + SUCCEEDED[2:]


@pytest.mark.parametrize("code", [1, 3, 4, 5, 6])
def test_a_socks5_proxy_that_does_not_reach_the_server_is_tried_again(serve: Serve, code: int) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(Socks5(reply=reply(code)), Socks5()), "socks5h")
    app = run(proxy, server.port)
    assert [name for name, *_ in app.told] == ["error", "open", "close"]
    assert type(app.errors[0]) is WebSocketProxyConnectionException


@pytest.mark.parametrize(
    "refusal",
    [Socks5(reply=reply(2)), Socks5(reply=reply(7)), Socks5(reply=reply(8)), Socks5(NONE_ACCEPTABLE)],
    ids=["not allowed", "command", "address type", "no method"],
)
def test_a_refusal_of_socks5_that_would_come_again_ends_the_run(serve: Serve, refusal: Script) -> None:
    proxy = ScriptedProxy(serve, refusal, "socks5h")
    app = run(proxy, 80)
    assert app.told == OVER
    assert len(proxy.visits) == 1


def test_a_socks4_proxy_that_fails_is_tried_again_and_one_that_refuses_the_user_is_not(serve: Serve) -> None:
    server = serve()
    failed, refused = b"\x00\x5b" + GRANTED[2:], b"\x00\x5d" + GRANTED[2:]
    proxy = ScriptedProxy(serve, in_turn(Socks4(failed), Socks4()), "socks4a")
    assert [name for name, *_ in run(proxy, server.port).told] == ["error", "open", "close"]
    proxy = ScriptedProxy(serve, Socks4(refused), "socks4a")
    assert run(proxy, server.port).told == OVER
    assert len(proxy.visits) == 1


@pytest.mark.parametrize("stage", ["method", "reply"])
def test_a_socks_proxy_that_drops_the_client_is_tried_again(serve: Serve, stage: str) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(Socks5(instead={stage: b""}), Socks5()), "socks5h")
    assert [name for name, *_ in run(proxy, server.port).told] == ["error", "open", "close"]


@pytest.mark.parametrize(("scheme", "script"), [("http", tunnelling()), ("socks4a", Socks4()), ("socks5h", Socks5())])
def test_an_app_comes_back_by_the_proxy_when_its_connection_is_lost(serve: Serve, scheme: str, script: Script) -> None:
    def greet_the_second(peer: Peer) -> None:
        if peer is peer.server.peers[0]:
            peer.hang_up()
        else:
            peer.send("hello")

    server = serve(greet_the_second)
    proxy = ScriptedProxy(serve, script, scheme)
    app = Recorder(f"ws://server.invalid:{server.port}/")
    app.then["message"] = lambda _: app.close()
    app.run(proxy=proxy.url, reconnect=SOON)
    assert ("message", "hello") in app.told
    assert len(proxy.visits) == 2
