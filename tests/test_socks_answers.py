"""What a client is told of a SOCKS proxy's answers: every reply, every method, what is malformed, and drops."""

from __future__ import annotations

import pytest

from websocket import (
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    create_connection,
)

from .scripted_proxies import (
    GRANTED,
    GSSAPI,
    NONE_ACCEPTABLE,
    SUCCEEDED,
    USER_AND_PASSWORD,
    Answer,
    ScriptedProxy,
    Serve,
    Socks4,
    Socks5,
    Visit,
    refused,
)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1, "General SOCKS server failure", WebSocketProxyConnectionException),
        (2, "Connection not allowed by ruleset", WebSocketProxyException),
        (3, "Network unreachable", WebSocketProxyConnectionException),
        (4, "Host unreachable", WebSocketProxyConnectionException),
        (5, "Connection refused by destination host", WebSocketProxyConnectionException),
        (6, "TTL expired", WebSocketProxyConnectionException),
        (7, "Command not supported or protocol error", WebSocketProxyException),
        (8, "Address type not supported", WebSocketProxyException),
        (9, "Invalid reply code: 0X9", WebSocketProxyException),
        (255, "Invalid reply code: 0XFF", WebSocketProxyException),
    ],
)
def test_each_reply_of_socks5_is_told(serve: Serve, code: int, reason: str, kind: type[Exception]) -> None:
    proxy = ScriptedProxy(serve, Socks5(reply=bytes([5, code]) + SUCCEEDED[2:]), "socks5h")
    error = refused(proxy)
    assert type(error) is kind
    assert isinstance(error, ConnectionError) == (kind is WebSocketProxyConnectionException)
    assert (error.status_code, error.reason, error.resp_headers, error.resp_body) == (None, reason, None, None)
    assert f"proxy {proxy.url} refused a connection to server.invalid:80: {reason}" in str(error)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (0x5B, "rejected or failed", WebSocketProxyConnectionException),
        (0x5C, "cannot connect to identd", WebSocketProxyException),
        (0x5D, "different user-ids", WebSocketProxyException),
        (0x5E, "Invalid reply code", WebSocketProxyException),
        (0x00, "Invalid reply code", WebSocketProxyException),
    ],
)
def test_each_reply_of_socks4_is_told(serve: Serve, code: int, reason: str, kind: type[Exception]) -> None:
    proxy = ScriptedProxy(serve, Socks4(bytes([0, code]) + GRANTED[2:]), "socks4a")
    error = refused(proxy)
    assert type(error) is kind
    assert error.reason is not None
    assert reason in error.reason
    assert f"proxy {proxy.url} " in str(error)


def test_an_address_of_the_server_is_told_as_a_url_writes_it(serve: Serve) -> None:
    proxy = ScriptedProxy(serve, Socks5(reply=b"\x05\x04" + SUCCEEDED[2:]), "socks5h")
    assert "to [2001:db8::1]:80: Host unreachable" in str(refused(proxy, "ws://[2001:db8::1]/"))


# ---- methods ----


@pytest.mark.parametrize("credentials", ["", "user:secret"])
@pytest.mark.parametrize("method", [GSSAPI, 3, 0x80, NONE_ACCEPTABLE])
def test_a_method_that_was_not_offered_is_refused(serve: Serve, credentials: str, method: int) -> None:
    proxy = ScriptedProxy(serve, Socks5(instead={"method": bytes([5, method])}), "socks5h")
    with pytest.raises(WebSocketProxyException, match="authentication method") as caught:
        create_connection("ws://server.invalid/", proxy=proxy.url_for(credentials))
    assert type(caught.value) is WebSocketProxyException
    assert caught.value.reason
    assert "secret" not in str(caught.value)
    assert proxy.received == (b"\x05\x02\x00\x02" if credentials else b"\x05\x01\x00")


@pytest.mark.parametrize("method", [USER_AND_PASSWORD, NONE_ACCEPTABLE])
def test_where_credentials_are_missing_it_is_said_where_to_give_them(serve: Serve, method: int) -> None:
    proxy = ScriptedProxy(serve, Socks5(instead={"method": bytes([5, method])}), "socks5h")
    assert "http_proxy_auth" in str(refused(proxy))


@pytest.mark.parametrize("status", [1, 2, 255])
def test_a_refused_password_is_told(serve: Serve, status: int) -> None:
    proxy = ScriptedProxy(serve, Socks5(USER_AND_PASSWORD, status), "socks5h")
    with pytest.raises(WebSocketProxyException, match="assword") as caught:
        create_connection("ws://server.invalid/", proxy=proxy.url_for("user:secret"))
    assert type(caught.value) is WebSocketProxyException
    assert "secret" not in str(caught.value)
    assert proxy.visits[0].credentials == (b"user", b"secret")


# ---- what is malformed ----


@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        ("method", b"\x04\x00"),
        ("method", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("status", b"\x05\x00"),
        ("reply", b"\x04\x00\x00\x01" + bytes(6)),
        ("reply", b"\x05\x00\x01\x01" + bytes(6)),
        ("reply", b"\x05\x00\x00\x02" + bytes(6)),
        ("reply", b"\x05\x00\x00\xff" + bytes(6)),
        ("reply", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
)
def test_a_malformed_answer_of_socks5_is_refused(serve: Serve, stage: str, answer: bytes) -> None:
    method = USER_AND_PASSWORD if stage == "status" else 0
    proxy = ScriptedProxy(serve, Socks5(method, instead={stage: answer}), "socks5h")
    with pytest.raises(WebSocketProxyException, match=f"proxy {proxy.url}") as caught:
        create_connection("ws://server.invalid/", proxy=proxy.url_for("user:secret"))
    assert type(caught.value) is WebSocketProxyException


@pytest.mark.parametrize(
    "answer", [b"\x04\x5a" + bytes(6), b"\x05\x5a" + bytes(6), b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_a_malformed_answer_of_socks4_is_refused(serve: Serve, answer: bytes) -> None:
    error = refused(ScriptedProxy(serve, Socks4(instead=answer), "socks4a"))
    assert type(error) is WebSocketProxyException


@pytest.mark.parametrize(
    "bound",
    [
        b"\x01" + bytes(6),
        b"\x04" + bytes(18),
        b"\x03\x00" + bytes(2),
        b"\x03\x04host\x00\x50",
        b"\x03\xff" + b"x" * 257,
    ],
    ids=["IPv4", "IPv6", "no name", "name", "long name"],
)
def test_a_reply_may_bind_any_address(serve: Serve, bound: bytes) -> None:
    server = serve()
    proxy = ScriptedProxy(serve, Socks5(reply=b"\x05\x00\x00" + bound), "socks5h")
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_a_reply_that_comes_byte_by_byte_is_taken(serve: Serve) -> None:
    def trickle(visit: Visit) -> None:
        for byte in SUCCEEDED:
            visit.send(bytes([byte]))
        visit.tunnel()

    server = serve()
    proxy = ScriptedProxy(serve, Socks5(instead={"reply": trickle}), "socks5h")
    with create_connection(f"ws://server.invalid:{server.port}/", proxy=proxy.url) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


# ---- drops ----


@pytest.mark.parametrize("stage", ["method", "status", "reply"])
@pytest.mark.parametrize("answer", [b"", b"\x05", Visit.reset], ids=["nothing", "a byte", "reset"])
def test_a_socks5_proxy_that_drops_the_client_is_named(serve: Serve, stage: str, answer: Answer) -> None:
    method = USER_AND_PASSWORD if stage == "status" else 0
    proxy = ScriptedProxy(serve, Socks5(method, instead={stage: answer}), "socks5h")
    with pytest.raises(WebSocketProxyConnectionException, match=f"proxy {proxy.url}: ") as caught:
        create_connection("ws://server.invalid/", proxy=proxy.url_for("user:secret"))
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert caught.value.reason is None


@pytest.mark.parametrize("reply", [b"\x05\x00\x00", b"\x05\x00\x00\x01" + bytes(5), b"\x05\x00\x00\x03\x09host"])
def test_half_a_reply_is_none(serve: Serve, reply: bytes) -> None:
    error = refused(ScriptedProxy(serve, Socks5(instead={"reply": reply}), "socks5h"))
    assert type(error) is WebSocketProxyConnectionException


@pytest.mark.parametrize("answer", [b"", b"\x00", GRANTED[:-1], Visit.reset], ids=["nothing", "1", "7", "reset"])
def test_a_socks4_proxy_that_drops_the_client_is_named(serve: Serve, answer: Answer) -> None:
    proxy = ScriptedProxy(serve, Socks4(instead=answer), "socks4a")
    error = refused(proxy)
    assert type(error) is WebSocketProxyConnectionException
    assert f"proxy {proxy.url}: " in str(error)


def test_a_socks_proxy_that_does_not_listen_is_named(deaf_port: int) -> None:
    with pytest.raises(WebSocketProxyConnectionException, match=f"proxy socks5://127.0.0.1:{deaf_port}: "):
        create_connection("ws://192.0.2.1/", proxy=f"socks5://127.0.0.1:{deaf_port}")
