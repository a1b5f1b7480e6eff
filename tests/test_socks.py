"""SOCKS4, 4a, 5 and 5h against the RFCs: what the proxy is sent byte by byte, which end resolves names, credentials,
and hosts with several addresses.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocketAddressException,
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    create_connection,
)

from .certs import Authority
from .scripted_proxies import (
    GRANTED,
    SUCCEEDED,
    USER_AND_PASSWORD,
    Script,
    ScriptedProxy,
    Serve,
    Socks4,
    Socks5,
    in_turn,
    refused,
)

UNREACHABLE = b"\x05\x04" + SUCCEEDED[2:]
DISALLOWED = b"\x05\x02" + SUCCEEDED[2:]
REJECTED = b"\x00\x5b" + GRANTED[2:]


def asked(serve: Serve, scheme: str, url: str, credentials: str = "") -> bytes:
    """What a proxy that refuses is sent."""
    script: Script = Socks5(reply=UNREACHABLE) if scheme.startswith("socks5") else Socks4(REJECTED)
    proxy = ScriptedProxy(serve, script, scheme)
    with pytest.raises(WebSocketProxyException):
        create_connection(url, proxy=proxy.url_for(credentials))
    return proxy.received


def name(host: str) -> bytes:
    return b"\x03" + bytes([len(host)]) + host.encode()


# ---- the bytes ----


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://192.0.2.1:258/", b"\x01\xc0\x00\x02\x01\x01\x02"),
        ("ws://[2001:db8::1]/", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x50"),
        ("wss://server.invalid/", name("server.invalid") + b"\x01\xbb"),
        ("ws://Bücher.invalid/", name("xn--bcher-kva.invalid") + b"\x00\x50"),
    ],
)
def test_socks5h_asks_for_the_address_or_the_name(serve: Serve, url: str, address: bytes) -> None:
    assert asked(serve, "socks5h", url) == b"\x05\x01\x00" + b"\x05\x01\x00" + address  # RFC 1928 3 and 4


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        ("ws://192.0.2.1:258/", b"\x01\x02\xc0\x00\x02\x01" + b"\x00"),
        ("wss://server.invalid/", b"\x01\xbb\x00\x00\x00\x01" + b"\x00" + b"server.invalid\x00"),
    ],
)
def test_socks4a_asks_for_the_address_or_the_name(serve: Serve, url: str, request_: bytes) -> None:
    assert asked(serve, "socks4a", url) == b"\x04\x01" + request_


@pytest.mark.parametrize("credentials", ["someone", "someone:unused"])
def test_the_user_of_socks4_is_its_user_id(serve: Serve, credentials: str) -> None:
    assert asked(serve, "socks4", "ws://192.0.2.1/", credentials) == b"\x04\x01\x00\x50\xc0\x00\x02\x01someone\x00"


@pytest.mark.parametrize(
    ("credentials", "user", "password"),
    [
        ("user:secret", b"user", b"secret"),
        ("us%20er:p%40s%3As", b"us er", b"p@s:s"),
        ("u" * 255 + ":" + "p" * 255, b"u" * 255, b"p" * 255),
    ],
)
def test_user_and_password_are_sent_where_the_proxy_asks_for_them(
    serve: Serve, credentials: str, user: bytes, password: bytes
) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, Socks5(USER_AND_PASSWORD), "socks5h")
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url_for(credentials)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    [visit] = proxy.visits
    assert visit.credentials == (user, password)
    sent = b"\x05\x02\x00\x02" + b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password  # RFC 1929 2
    assert visit.received.startswith(sent + b"\x05\x01\x00")


def test_user_and_password_are_kept_where_the_proxy_does_not_ask(serve: Serve) -> None:
    sent = asked(serve, "socks5h", "ws://192.0.2.1/", "user:secret")
    assert sent == b"\x05\x02\x00\x02" + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"


@pytest.mark.parametrize(
    "credentials",
    ["u" * 256 + ":p", "u:" + "p" * 256, "user", ":password", "%C3%BC:p", "u:%C3%BC", "%00:p"],
    ids=["long user", "long password", "no password", "no user", "user", "password", "NUL"],
)
def test_what_rfc_1929_cannot_carry_is_refused(serve: Serve, credentials: str) -> None:
    proxy = ScriptedProxy(serve, Socks5(USER_AND_PASSWORD), "socks5h")
    with pytest.raises(ValueError, match="user and password of a SOCKS"):
        create_connection("ws://server.invalid/", proxy=proxy.url_for(credentials))
    assert proxy.visits == []


@pytest.mark.parametrize("credentials", ["%C3%BC", "a%00b"])
def test_what_a_user_id_of_socks4_cannot_be_is_refused(serve: Serve, credentials: str) -> None:
    proxy = ScriptedProxy(serve, Socks4(), "socks4a")
    with pytest.raises(ValueError, match="SOCKS proxy must be ASCII"):
        create_connection("ws://server.invalid/", proxy=proxy.url_for(credentials))
    assert proxy.visits == []


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
@pytest.mark.parametrize("host", [".".join(["a" * 60] * 5), "a" * 64 + ".invalid", "a..invalid"])
def test_a_name_that_dns_does_not_allow_is_refused(serve: Serve, scheme: str, host: str) -> None:
    script: Script = Socks5(reply=UNREACHABLE) if scheme == "socks5h" else Socks4(REJECTED)
    error = refused(ScriptedProxy(serve, script, scheme), f"ws://{host}/")
    assert host in str(error)


# ---- names ----


@pytest.mark.parametrize(("proxy_scheme", "script"), [("socks4a", Socks4()), ("socks5h", Socks5())])
def test_the_proxy_resolves_names(
    serve: Serve, authority: Authority, scheme: str, proxy_scheme: str, script: Script
) -> None:
    context = authority.server_context("server.invalid") if scheme == "wss" else None
    server = serve(ssl_context=context)
    proxy = ScriptedProxy(serve, script, proxy_scheme)
    url = f"{scheme}://server.invalid:{server.port}/"
    with create_connection(url, proxy=proxy.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert proxy.visits[0].host == "server.invalid"


@pytest.mark.parametrize(("proxy_scheme", "script"), [("socks4", Socks4()), ("socks5", Socks5())])
def test_this_machine_resolves_names(
    serve: Serve, authority: Authority, scheme: str, proxy_scheme: str, script: Script
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    proxy = ScriptedProxy(serve, script, proxy_scheme)
    url = f"{scheme}://localhost:{server.port}/"
    with create_connection(url, proxy=proxy.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert proxy.visits[0].host in ("127.0.0.1", "::1")
    assert server.peers[0].headers["host"] == f"localhost:{server.port}"


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_a_server_that_this_machine_cannot_resolve_is_named(serve: Serve, scheme: str) -> None:
    proxy = ScriptedProxy(serve, Socks5(), scheme)
    with pytest.raises(WebSocketAddressException, match=r"cannot resolve 'server\.invalid'"):
        create_connection("ws://server.invalid/", proxy=proxy.url)
    assert proxy.visits == []


# ---- hosts with several addresses ----


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a name of no DNS have addresses: resolver("server.invalid", "192.0.2.1", ...)."""
    real = socket.getaddrinfo

    def let(host: str, *addresses: str) -> None:
        def getaddrinfo(asked: Any, port: Any, *rest: Any, **named: Any) -> Any:
            if asked != host:
                return real(asked, port, *rest, **named)
            return [info for address in addresses for info in real(address, port, *rest, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return let


def test_socks4_takes_the_ipv4_addresses_and_refuses_a_host_without(
    serve: Serve, resolver: Callable[..., None]
) -> None:
    resolver("server.invalid", "2001:db8::1", "192.0.2.1")
    assert asked(serve, "socks4", "ws://server.invalid/") == b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00"
    resolver("server.invalid", "2001:db8::1")
    proxy = ScriptedProxy(serve, Socks4(), "socks4")
    for url in ("ws://server.invalid/", "ws://[2001:db8::1]/"):
        with pytest.raises(WebSocketAddressException, match=r"has no IPv4 address.*use socks5"):
            create_connection(url, proxy=proxy.url)
    assert proxy.visits == []


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_the_next_address_is_asked_for_where_the_proxy_does_not_reach_the_first(
    serve: Serve, resolver: Callable[..., None], scheme: str
) -> None:
    resolver("server.invalid", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    scripts: list[Script] = [Socks5(reply=UNREACHABLE), Socks5(reply=UNREACHABLE), Socks5()]
    if scheme == "socks4":
        scripts = [Socks4(REJECTED), Socks4(REJECTED), Socks4()]
    server = serve()
    proxy = ScriptedProxy(serve, in_turn(*scripts), scheme)
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert [visit.host for visit in proxy.visits] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_an_address_of_a_kind_that_the_proxy_does_not_know_leads_to_the_next(
    serve: Serve, resolver: Callable[..., None]
) -> None:
    resolver("server.invalid", "2001:db8::1", "192.0.2.1")
    server = serve()
    unknown_type = b"\x05\x08" + UNREACHABLE[2:]
    proxy = ScriptedProxy(serve, in_turn(Socks5(reply=unknown_type), Socks5()), "socks5")
    create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url).close()
    assert [visit.host for visit in proxy.visits] == ["2001:db8::1", "192.0.2.1"]


def test_where_no_address_is_reached_all_are_told(serve: Serve, resolver: Callable[..., None]) -> None:
    resolver("server.invalid", "192.0.2.1", "2001:db8::1")
    proxy = ScriptedProxy(serve, Socks5(reply=UNREACHABLE), "socks5")
    error = refused(proxy)
    assert type(error) is WebSocketProxyConnectionException
    assert "192.0.2.1:80: Host unreachable" in str(error)
    assert "[2001:db8::1]:80: Host unreachable" in str(error)
    assert error.reason == "Host unreachable"
    assert len(proxy.visits) == 2


def test_after_a_refusal_that_concerns_the_client_no_other_address_is_asked_for(
    serve: Serve, resolver: Callable[..., None]
) -> None:
    resolver("server.invalid", "192.0.2.1", "192.0.2.2")
    proxy = ScriptedProxy(serve, Socks5(reply=DISALLOWED), "socks5")
    assert type(refused(proxy)) is WebSocketProxyException
    assert len(proxy.visits) == 1


def test_where_the_proxy_itself_fails_no_other_address_is_asked_for(
    serve: Serve, resolver: Callable[..., None]
) -> None:
    resolver("server.invalid", "192.0.2.1", "192.0.2.2")
    proxy = ScriptedProxy(serve, Socks5(instead={"reply": b""}), "socks5")
    assert type(refused(proxy)) is WebSocketProxyConnectionException
    assert len(proxy.visits) == 1


# ---- the package that speaks it ----


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_without_python_socks_the_error_names_the_extra(scheme: str, serve: Serve) -> None:
    proxy = ScriptedProxy(serve, Socks5(), scheme)
    program = f"""
import sys
sys.modules["python_socks"] = None
import websocket
try:
    websocket.create_connection("ws://127.0.0.1/", proxy={proxy.url_for("user:secret")!r})
except websocket.WebSocketProxyException as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "install 'websocket-threads[proxy]'" in done.stdout
    assert "secret" not in done.stdout
    assert proxy.visits == []
