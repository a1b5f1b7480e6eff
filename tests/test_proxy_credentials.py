"""Who is told whose secrets: the proxy's never reach the server, the server's never the proxy, and no message, log or
trace shows the proxy's password. Held against the raw bytes on both sides.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import websocket as package
from websocket import WebSocketException, WebSocketProxyException, create_connection
from websocket._cookiejar import cookies
from websocket._http_message import HeadParser
from websocket.testing import Peer, Server

from .certs import Authority
from .recorder import Recorder
from .scripted_proxies import (
    USER_AND_PASSWORD,
    Script,
    ScriptedProxy,
    Serve,
    Socks4,
    Socks5,
    answering,
    in_turn,
    tunnelling,
)

OF_PROXY = ("proxyuser", "proxysecret")
OF_SERVER = ("serveruser", "serversecret", "cookiesecret", "jarsecret", "headersecret")
UNAUTHORIZED = b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=here\r\nContent-Length: 0\r\n\r\n"
WITH_PASSWORD = Socks5(USER_AND_PASSWORD)
KINDS = ["http", "https", "socks4a", "socks5", "socks5h"]


@pytest.fixture(autouse=True)
def _no_cookies() -> Iterator[None]:
    """The store serves the whole process; each test starts with an empty one and leaves an empty one."""
    cookies.clear()
    yield
    cookies.clear()


def basic(user: str, password: str) -> bytes:
    return base64.b64encode(f"{user}:{password}".encode())


def hides(data: bytes, secrets: tuple[str, ...]) -> bool:
    """Whether none of these is in there: as it is, or in Basic credentials of any cut."""
    encoded = [basic(*pair) for pair in (OF_PROXY, OF_SERVER[:2])]
    forms = [secret.encode() for secret in secrets] + [
        form for form in encoded if any(secret.encode() in base64.b64decode(form) for secret in secrets)
    ]
    return not any(form in data for form in forms)


class Witness:
    """A raw server that keeps every byte of the requests it gets, redirects from /go to `onward`, and greets."""

    def __init__(self, serve: Serve, context: Any = None, onward: str = "/there") -> None:
        self.raw = b""
        self._onward = onward
        self.server: Server = serve(self._handle, raw=True, ssl_context=context)
        self.authority = f"localhost:{self.server.port}"

    def _handle(self, peer: Peer) -> None:
        head, whole = HeadParser(), False
        while not whole:
            data = peer.sock.recv(65_536)
            if not data:
                return
            self.raw += data
            whole = head.feed(data)
        peer.headers = head.headers
        if head.first_line.split(" ")[1] == "/go":
            answer = f"HTTP/1.1 302 Found\r\nLocation: {self._onward}\r\nSet-Cookie: jar=jarsecret\r\n"
            peer.send_raw(f"{answer}Content-Length: 0\r\n\r\n".encode())
            return
        peer.accept(["Set-Cookie: jar=jarsecret"])
        peer.send("hello")
        peer.recv()
        peer.finish()


def through(serve: Serve, authority: Authority, kind: str) -> tuple[ScriptedProxy, dict[str, Any]]:
    """A proxy of this kind, and the options to use it with credentials."""
    scripts: dict[str, Script] = {"socks4a": Socks4(), "socks5": WITH_PASSWORD, "socks5h": WITH_PASSWORD}
    context = authority.server_context() if kind == "https" else None
    proxy = ScriptedProxy(serve, scripts.get(kind, tunnelling()), kind, ssl_context=context)
    return proxy, {
        "proxy": proxy.url_for(":".join(OF_PROXY)),
        "proxy_sslopt": {"ca_certs": authority.ca_file},
        "sslopt": {"ca_certs": authority.ca_file},
    }


def visit_with_secrets(url: str, **options: Any) -> None:
    """Connect with everything that a server may be told, and receive its greeting."""
    scheme, _, rest = url.partition("://")
    header = ["X-Token: headersecret"]
    connection = create_connection(
        f"{scheme}://serveruser:serversecret@{rest}", cookie="own=cookiesecret", header=header, **options
    )
    with connection:
        assert connection.recv() == "hello"


@pytest.mark.parametrize("kind", KINDS)
def test_neither_side_is_told_the_others_secrets(serve: Serve, authority: Authority, scheme: str, kind: str) -> None:
    witness = Witness(serve, authority.server_context() if scheme == "wss" else None)
    proxy, options = through(serve, authority, kind)
    url = f"{scheme}://{witness.authority}/"
    for _ in range(2):  # the second time with the cookie of the jar
        visit_with_secrets(url, **options)
    assert b"jarsecret" in witness.raw
    assert b"cookiesecret" in witness.raw
    assert basic("serveruser", "serversecret") in witness.raw
    assert hides(witness.raw, OF_PROXY)
    assert b"roxy" not in witness.raw
    assert len(proxy.visits) == 2
    for visit in proxy.visits:
        assert hides(bytes(visit.received), OF_SERVER)
        told = basic(*OF_PROXY) if kind in ("http", "https") else b"proxyuser"
        assert told in visit.received
        if scheme == "wss":
            assert hides(bytes(visit.sent + visit.returned), OF_SERVER + OF_PROXY)
            assert visit.sent[0] == 22  # RFC 8446 5.1: handshake


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_to_another_host_tells_neither_the_others_secrets(
    serve: Serve, authority: Authority, kind: str
) -> None:
    second = Witness(serve)
    first = Witness(serve, onward=f"ws://127.0.0.1:{second.server.port}/there")
    proxy, options = through(serve, authority, kind)
    visit_with_secrets(f"ws://{first.authority}/go", **options)
    assert len(proxy.visits) == 2
    assert b"cookiesecret" in first.raw
    assert hides(first.raw + second.raw, OF_PROXY)
    assert hides(second.raw, OF_SERVER[:4])  # what is in a header of the program's own name goes on
    for visit in proxy.visits:
        assert hides(bytes(visit.received), OF_SERVER)
        assert b" 302 " not in visit.received  # with its blanks: a port may have these digits


def test_after_a_407_neither_is_told_the_others_secrets(serve: Serve) -> None:
    witness = Witness(serve)
    proxy = ScriptedProxy(serve, in_turn(answering(UNAUTHORIZED), tunnelling()))
    url = f"ws://{witness.authority}/"
    with pytest.raises(WebSocketProxyException, match="407"):
        visit_with_secrets(url, proxy=proxy.url)
    assert witness.raw == b""
    visit_with_secrets(url, proxy=proxy.url_for(":".join(OF_PROXY)))
    assert hides(witness.raw, OF_PROXY)
    for visit in proxy.visits:
        assert hides(bytes(visit.received), OF_SERVER)


def test_a_407_of_the_server_is_not_answered_with_the_proxys_credentials(serve: Serve) -> None:
    seen: list[bytes] = []

    def ask(peer: Peer) -> None:
        seen.append(peer.sock.recv(65_536))
        peer.send_raw(UNAUTHORIZED)

    server = serve(ask, raw=True)
    proxy = ScriptedProxy(serve, tunnelling())
    with pytest.raises(WebSocketException, match="Handshake status 407") as caught:
        create_connection(server.url, proxy=proxy.url_for(":".join(OF_PROXY)))
    assert not isinstance(caught.value, WebSocketProxyException)
    assert len(seen) == 1
    assert hides(seen[0], OF_PROXY)


def test_credentials_of_the_environments_proxy_go_to_the_proxy_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness(serve)
    proxy = ScriptedProxy(serve, tunnelling())
    monkeypatch.setenv("http_proxy", proxy.url_for(":".join(OF_PROXY)))
    # By default the environment's proxy is not used for this machine.
    visit_with_secrets(f"ws://{witness.authority}/", http_no_proxy=[])
    assert basic(*OF_PROXY) in proxy.received
    assert hides(witness.raw, OF_PROXY)
    assert hides(proxy.received, OF_SERVER)


def test_a_server_that_is_reached_directly_is_not_told_of_the_proxy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness(serve)
    proxy = ScriptedProxy(serve, tunnelling())
    monkeypatch.setenv("http_proxy", proxy.url_for(":".join(OF_PROXY)))
    visit_with_secrets(f"ws://{witness.authority}/")
    visit_with_secrets(f"ws://{witness.authority}/", proxy=proxy.url_for(":".join(OF_PROXY)), http_no_proxy="localhost")
    assert proxy.visits == []
    assert hides(witness.raw, OF_PROXY)


@pytest.mark.parametrize("name", ["Proxy-Authorization", "proxy-authorization", "PROXY-AUTHORIZATION"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_a_header_proxy_authorization_is_refused_before_anything_is_connected(
    serve: Serve, name: str, as_dict: bool
) -> None:
    proxy = ScriptedProxy(serve, tunnelling())
    header = {name: "Basic abc"} if as_dict else [f"{name}: Basic abc"]
    with pytest.raises(ValueError, match=r"would go to the server behind the proxy.*http_proxy_auth") as caught:
        create_connection("ws://server.invalid/", header=header, proxy=proxy.url)
    assert "abc" not in str(caught.value)
    assert proxy.visits == []


# ---- what is written down ----


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """All that is logged and traced, as text."""
    level = logging.getLogger("websocket").level
    with caplog.at_level(logging.DEBUG, "websocket"):
        package.enableTrace(True, logging.NullHandler())
        yield lambda: "\n".join(record.getMessage() for record in caplog.records)
        package.enableTrace(False)
    logging.getLogger("websocket").setLevel(level)


def chain(error: BaseException) -> str:
    """All that a traceback would show of an error and its causes."""
    texts = []
    at: BaseException | None = error
    while at is not None:
        texts += [str(at), repr(at)]
        at = at.__cause__ or at.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_shows_no_credentials_of_the_proxy(
    serve: Serve, authority: Authority, kind: str, written: Callable[[], str]
) -> None:
    witness = Witness(serve)
    _, options = through(serve, authority, kind)
    visit_with_secrets(f"ws://{witness.authority}/", **options)
    assert "GET / HTTP/1.1" in written()
    assert hides(written().encode(), OF_PROXY)


@pytest.mark.parametrize("kind", ["http", "socks5h", "socks4a", "nobody", "unresolvable"])
def test_no_failure_shows_credentials_of_the_proxy(
    serve: Serve, deaf_port: int, kind: str, written: Callable[[], str]
) -> None:
    credentials = ":".join(OF_PROXY)
    proxy = {
        "http": lambda: ScriptedProxy(serve, answering(UNAUTHORIZED)).url_for(credentials),
        "socks5h": lambda: ScriptedProxy(serve, Socks5(USER_AND_PASSWORD, status=1), kind).url_for(credentials),
        "socks4a": lambda: ScriptedProxy(serve, Socks4(b"\x00\x5d" + bytes(6)), kind).url_for(credentials),
        "nobody": lambda: f"http://{credentials}@127.0.0.1:{deaf_port}",
        "unresolvable": lambda: f"http://{credentials}@proxy.invalid:3128",
    }[kind]()
    with pytest.raises(WebSocketProxyException) as caught:
        create_connection("ws://server.invalid/", proxy=proxy)
    assert hides(chain(caught.value).encode(), OF_PROXY)
    app = Recorder("ws://server.invalid/")
    app.run(proxy=proxy, reconnect=0)
    assert hides("\n".join(chain(error) for error in app.errors).encode(), OF_PROXY)
    assert hides(written().encode(), OF_PROXY)


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://proxyuser:proxysecret@127.0.0.1:1",
        "http://proxyuser:proxysecret@127.0.0.1:99999",
        "http://proxyuser:proxysecret@127.0.0.1:port",
        "http://proxyuser:proxysecret@",
        "http://proxyuser:proxy/secret@127.0.0.1:1",
        "http://proxyuser:proxy#secret@127.0.0.1:1",
        "http://proxyuser:proxy?secret@127.0.0.1:1",
        "http://proxyuser:proxy secret@127.0.0.1:1",
        "http://proxyuser:proxysecret@[::1:1",
        "http:/proxyuser:proxysecret@127.0.0.1:1",
        # Unless percent-encoded, the user becomes a host, and a port what should be its password.
        "http://proxyuser:12/secret@127.0.0.1:1",
        "http://proxyuser:12?secret@127.0.0.1:1",
        "http://proxyuser:12#secret@127.0.0.1:1",
        "proxyuser:proxysecret@:1",
        "socks5h://proxyuser:proxysecret" + "x" * 256 + "@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("source", ["option", "environment"])
def test_an_unusable_proxy_is_told_without_its_credentials(
    monkeypatch: pytest.MonkeyPatch, proxy: str, source: str, written: Callable[[], str]
) -> None:
    options: dict[str, Any] = {"proxy": proxy} if source == "option" else {}
    if source == "environment":
        monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises((ValueError, WebSocketProxyException), match="not usable") as caught:
        create_connection("ws://server.invalid/", **options)
    for text in (chain(caught.value), written()):
        assert "secret" not in text
        assert "proxyuser" not in text
