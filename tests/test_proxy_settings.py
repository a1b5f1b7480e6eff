"""Which proxy a URL, the options and the environment name: as values, and by connecting through a scripted proxy.

Which servers need none is in test_proxy_info.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketConnectionRefusedException,
    WebSocketProxyException,
    create_connection,
)
from websocket._proxies import Proxy, ProxyOptions, environment_proxy, parse_proxy
from websocket.testing import Server

from .certs import Authority
from .recorder import Recorder
from .scripted_proxies import ScriptedProxy, tunnelling

Serve = Callable[..., Server]

OPTION = Proxy("http", "option.test", 3128)
OF_OPTION: dict[str, Any] = {"proxy": "http://option.test:3128"}


@pytest.fixture(autouse=True)
def _no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


# ---- a proxy's URL ----


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("HTTP://PROXY.test:3128/", Proxy("http", "proxy.test", 3128)),
        ("proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("proxy.test", Proxy("http", "proxy.test", 80)),
        ("u:p@proxy.test:3128", Proxy("http", "proxy.test", 3128, "u", "p")),
        ("http://proxy.test", Proxy("http", "proxy.test", 80)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("socks4://proxy.test", Proxy("socks4", "proxy.test", 1080)),
        ("socks4a://proxy.test", Proxy("socks4a", "proxy.test", 1080)),
        ("socks5://proxy.test", Proxy("socks5", "proxy.test", 1080)),
        ("socks5h://proxy.test:9050", Proxy("socks5h", "proxy.test", 9050)),
        ("socks://proxy.test", Proxy("socks5h", "proxy.test", 1080)),
        ("http://[2001:DB8::1]:3128", Proxy("http", "2001:db8::1", 3128)),
        ("http://[::1]", Proxy("http", "::1", 80)),
        ("http://[fe80::1%25eth0]:1", Proxy("http", "fe80::1%eth0", 1)),
        ("http://bücher.test:1", Proxy("http", "xn--bcher-kva.test", 1)),
        ("http://u@proxy.test:1", Proxy("http", "proxy.test", 1, "u", "")),
        ("http://:p@proxy.test:1", Proxy("http", "proxy.test", 1, "", "p")),
        ("http://u:p:q@proxy.test:1", Proxy("http", "proxy.test", 1, "u", "p:q")),
        ("http://u:p@q@proxy.test:1", Proxy("http", "proxy.test", 1, "u", "p@q")),
        ("http://u:p%23%40%2F%3A%5B%5D%25@[::1]:1", Proxy("http", "::1", 1, "u", "p#@/:[]%")),
        ("http://ü:%C3%A4@proxy.test:1", Proxy("http", "proxy.test", 1, "ü", "ä")),
        ("socks4://u@proxy.test:1", Proxy("socks4", "proxy.test", 1, "u", "")),
    ],
)
def test_a_proxys_url_is_taken_apart(url: str, proxy: Proxy) -> None:
    parsed = parse_proxy(url, "proxy")
    assert parsed == proxy
    assert (parsed.user, parsed.password) == (proxy.user, proxy.password)


MALFORMED = [
    "",
    "://proxy.test",
    "ftp://proxy.test:21",
    "ws://proxy.test:80",
    "http://",
    "http://:3128",
    "http:///proxy.test",
    "//proxy.test:3128",
    "http:/proxy.test:3128",
    "http://proxy.test:0",
    "http://proxy.test:65536",
    "http://proxy.test:-1",
    "http://proxy.test:port",
    "http://proxy.test:1:2",
    "http://::1:3128",
    "http://[::1",
    "http://[proxy.test]:1",
    "http://[1.2.3.4]:1",
    "http://pro xy.test:1",
    " http://proxy.test:1",
    "http://proxy.test:1\n",
    "http://pro\0xy.test:1",
    "http://pro^xy.test:1",
    "http://pro%0axy.test:1",
    "http://pro%5bxy.test:1",
    "http://pro%5Dxy.test:1",
    "http://pro%3axy:1",
    "http://%3a%3a1:1",
    "http://pro\uff3bxy.test:1",
    "http://pro%2540xy.test:1",
    "http://ä..test:1",
    "http://proxy..test:1",
    "http://.test:1",
    "http://proxy%2e%2etest:1",
    "http://%2etest:1",
    "http://proxy\u2026test:1",
    "http://\u2026:1",
    "http://\u3002test:1",
]
# S3cret is, or is a part of, the user or the password.
MALFORMED_WITH_SECRET = [
    "http://user:S3cr#et@proxy.test:1",
    "http://user:S3cr/et@proxy.test:1",
    "http://user:S3cr?et@proxy.test:1",
    "http://user:S3cr[et@proxy.test:1",
    "http://user:S3cr]et@proxy.test:1",
    "http://user:S3cr et@proxy.test:1",
    "http://user:S3cr\tet@proxy.test:1",
    "http://user:S3cr@e/t@proxy.test:1",
    "http://S3cr^/et@proxy.test:1",
    "http://S3cr/et@proxy.test:1",
    "http://S3cr/et:1@proxy.test:1",
    "user:S3cr/et@proxy.test:1",
    "user:S3cret@proxy.test:port",
    "//user:S3cret@proxy.test:1",
    "ftp://user:S3cret@proxy.test:1",
    "http://user:S3cret@",
    "http://user:S3cret@:1",
    "http://user:S3cret@proxy.test:0",
    "http://user:S3cret@proxy.test:70000",
    "http://user:S3cret@[proxy.test]:1",
    "http://us%3Aer:S3cret@proxy.test:1",
    "http://user%3aS3cret%40@proxy.test:70000",
    "socks5://:S3cret@proxy.test:1",
    "socks5://user@proxy.test:1",
    f"socks5://user:{'S3cret' * 50}@proxy.test:1",
    "socks5://user:S3crät@proxy.test:1",
    "socks4://S3cr%00et@proxy.test:1",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_what_is_no_proxys_url_is_refused_by_a_message_that_shows_it(url: str) -> None:
    with pytest.raises(ValueError, match="is not usable") as caught:
        parse_proxy(url, "the source")
    assert str(caught.value).startswith(f"the source {url!r} is not usable: ")


@pytest.mark.parametrize("url", MALFORMED_WITH_SECRET)
def test_the_message_shows_no_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="is not usable") as caught:
        parse_proxy(url, "the source")
    message = str(caught.value)
    scheme = url.partition("://")[0] + "://" if "://" in url else ""
    assert message.startswith(f"the source '{scheme}***@{url.rpartition('@')[2]}' is not usable: ")
    assert "s3cr" not in message.lower()


@pytest.mark.parametrize("host", ["user%3aS3cret%40proxy.test", "S3cret%40proxy.test", "[user%3aS3cret%40::1]"])
@pytest.mark.parametrize("scheme", ["http://", "socks5://", ""])
def test_what_is_before_an_encoded_at_is_in_no_message(scheme: str, host: str) -> None:
    with pytest.raises(ValueError, match="is not usable") as caught:
        parse_proxy(f"{scheme}{host}:1", "proxy")
    assert "s3cr" not in str(caught.value).lower()
    for port in (None, 1):
        with pytest.raises(ValueError, match="http_proxy_host") as caught:
            ProxyOptions.parse({"http_proxy_host": host, "http_proxy_port": port})
        assert "s3cr" not in str(caught.value).lower()


# Digits before the slash could be a port.
@pytest.mark.parametrize("character", "/?#")
def test_half_a_password_is_not_taken_for_a_port(character: str) -> None:
    with pytest.raises(ValueError, match=r"'http://\*\*\*@proxy\.test:1' is not usable") as caught:
        parse_proxy(f"http://user:4711{character}et@proxy.test:1", "proxy")
    assert "4711" not in str(caught.value)


def test_brackets_in_a_password_are_refused_or_taken_as_they_are() -> None:
    try:  # urlsplit() of Python 3.10 takes them, as long as they are a pair
        proxy = parse_proxy("http://user:S3[cr]et@proxy.test:1", "proxy")
    except ValueError as error:
        assert "S3" not in str(error)
    else:
        assert proxy == Proxy("http", "proxy.test", 1, "user", "S3[cr]et")


def test_a_proxy_shows_no_credentials() -> None:
    proxy = Proxy("http", "::1", 3128, "S3cret user", "S3cret")
    assert "S3cret" not in f"{proxy} {proxy!r} {proxy.url}"
    assert proxy.url == "http://[::1]:3128"


# ---- the options ----


@pytest.mark.parametrize(
    ("options", "proxy"),
    [
        ({"http_proxy_host": "Proxy.test", "http_proxy_port": 3128}, Proxy("http", "proxy.test", 3128)),
        ({"http_proxy_host": "proxy.test", "http_proxy_port": "3128"}, Proxy("http", "proxy.test", 3128)),
        ({"http_proxy_host": "proxy.test", "http_proxy_port": "0000000080"}, Proxy("http", "proxy.test", 80)),
        ({"http_proxy_host": "::1", "http_proxy_port": 3128}, Proxy("http", "::1", 3128)),
        ({"http_proxy_host": "[::1]", "http_proxy_port": 3128}, Proxy("http", "::1", 3128)),
        ({"http_proxy_host": "bücher.test", "http_proxy_port": 1}, Proxy("http", "xn--bcher-kva.test", 1)),
        ({"http_proxy_host": "p", "http_proxy_port": 1, "proxy_type": "socks5h"}, Proxy("socks5h", "p", 1)),
        ({"http_proxy_host": "p", "http_proxy_port": 1, "proxy_type": None}, Proxy("http", "p", 1)),
        (
            {"http_proxy_host": "p", "http_proxy_port": 1, "http_proxy_auth": ("u", "p@:/#")},
            Proxy("http", "p", 1, "u", "p@:/#"),
        ),
        ({"http_proxy_host": "p", "http_proxy_port": 1, "http_proxy_auth": ["u"]}, Proxy("http", "p", 1, "u", "")),
        (
            {"http_proxy_host": "p", "http_proxy_port": 1, "http_proxy_auth": ("u", None)},
            Proxy("http", "p", 1, "u", ""),
        ),
        ({"proxy": "http://p:1", "http_proxy_auth": ("u", "x")}, Proxy("http", "p", 1, "u", "x")),
        ({"proxy": "p:1", "http_proxy_auth": None}, Proxy("http", "p", 1)),
        ({"proxy": ""}, False),
        ({"http_proxy_host": "", "http_proxy_port": 0}, None),
        ({"proxy": None, "http_proxy_host": None, "http_proxy_port": None}, None),
        ({}, None),
    ],
)
def test_the_options_name_a_proxy(options: dict[str, Any], proxy: Any) -> None:
    parsed = ProxyOptions.parse(options).proxy
    assert parsed == proxy
    if isinstance(parsed, Proxy):
        assert (parsed.user, parsed.password) == (proxy.user, proxy.password)


HOST: dict[str, Any] = {"http_proxy_host": "p", "http_proxy_port": 3128}
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(({"proxy": value}, "proxy") for value in (5, b"http://p:1", ("p", 1), True, "http://p:x", " ")),
        *(({"http_proxy_host": value, "http_proxy_port": 1}, "http_proxy_host") for value in (5, b"p", "a b", "p:1")),
        *(({"http_proxy_host": value, "http_proxy_port": 1}, "http_proxy_host") for value in ("[]", "[", "]", "p..q")),
        *(
            ({**HOST, "http_proxy_port": value}, "http_proxy_port")
            for value in ("0", "00000", "0000065536", "8" * 5000)
        ),
        *(({**HOST, "http_proxy_port": value}, "http_proxy_port") for value in ("\u0668\u0660", "\u0660" * 8 + "80")),
        *(
            ({**HOST, "http_proxy_port": value}, "http_proxy_port")
            for value in (65_536, -1, "x", [1], "http", True, 80.7)
        ),
        *(({**HOST, "http_proxy_auth": value}, "http_proxy_auth") for value in ("u:p", 5, ("u", "p", "x"), (1, 2))),
        *(({"http_no_proxy": value}, "http_no_proxy") for value in (5, b"h", [1], {"h": 1})),
        *(({"http_proxy_timeout": value}, "http_proxy_timeout") for value in ("5", 0, -1, True, NAN)),
        *(({"proxy_sslopt": value}, "proxy_sslopt") for value in ("file", 5, [("a", 1)])),
        ({**HOST, **OF_OPTION}, "http_proxy_host"),
        ({**HOST, "proxy": ""}, "http_proxy_host"),
        ({"proxy": "http://u:p@p", "http_proxy_auth": ("u", "p")}, "http_proxy_auth"),
        ({"proxy": "http://p:1", "http_proxy_auth": ("a:b", "p")}, "user"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_named_before_anything_is_connected(
    deaf_port: int, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        create_connection(f"ws://127.0.0.1:{deaf_port}/", **options)


@pytest.mark.parametrize("seconds", [1e7, 1e10, INFINITY])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_proxys_time_of_any_length_is_one(deaf_port: int, host: str, seconds: float) -> None:
    with pytest.raises(WebSocketProxyException, match="Connection refused"):  # with no other limit
        WebSocket().connect("ws://h.test/", proxy=f"http://{host}:{deaf_port}", http_proxy_timeout=seconds)


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": b"http://user:S3cret@p:1"},
        {"proxy": ("user", "S3cret")},
        {"http_proxy_host": "http://user:S3cret@p", "http_proxy_port": 1},
        {"http_proxy_host": "user:S3cret@p", "http_proxy_port": 1},
        {**HOST, "http_proxy_auth": "user:S3cret"},
        {**HOST, "http_proxy_auth": ("user", b"S3cret")},
        {**HOST, "http_proxy_auth": ("us:er", "S3cret")},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_not_shown_with_its_credentials(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="proxy") as caught:
        ProxyOptions.parse(options)
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("port", [None, 0, ""])
def test_a_host_without_its_port_is_an_error_as_in_websocket_client(port: Any) -> None:
    with pytest.raises(WebSocketProxyException, match="'p' needs http_proxy_port"):
        ProxyOptions.parse({"http_proxy_host": "p", "http_proxy_port": port})


@pytest.mark.parametrize("kind", ["HTTP", "ftp", "socks", ["http"]])
def test_a_proxy_type_that_is_none_is_an_error_that_lists_them(kind: Any) -> None:
    with pytest.raises(WebSocketProxyException, match=r"proxy_type .* socks5h"):
        ProxyOptions.parse({**HOST, "proxy_type": kind})


def test_the_other_options_are_taken_as_they_are() -> None:
    options = ProxyOptions.parse({"http_proxy_timeout": 2.5, "proxy_sslopt": {"ca_certs": "f"}, "http_no_proxy": "a,b"})
    assert (options.timeout, options.sslopt, options.no_proxy) == (2.5, {"ca_certs": "f"}, ("a", "b"))
    assert ProxyOptions.parse({"http_no_proxy": []}).no_proxy == ()


# ---- the environment ----


@pytest.mark.parametrize(
    ("secure", "values", "variable"),
    [
        (False, {}, ""),
        (False, {"ws_proxy": "a", "http_proxy": "b", "all_proxy": "c"}, "ws_proxy"),
        (False, {"http_proxy": "b", "all_proxy": "c"}, "http_proxy"),
        (False, {"all_proxy": "c", "https_proxy": "d", "wss_proxy": "d"}, "all_proxy"),
        (True, {"wss_proxy": "a", "https_proxy": "b", "all_proxy": "c"}, "wss_proxy"),
        (True, {"https_proxy": "b", "all_proxy": "c"}, "https_proxy"),
        (True, {"all_proxy": "c", "http_proxy": "d", "ws_proxy": "d"}, "all_proxy"),
        (True, {"HTTP_PROXY": "d", "http_proxy": "d", "WS_PROXY": "d"}, ""),
        (False, {"HTTP_PROXY": "a", "http_proxy": "b"}, "http_proxy"),
        (False, {"HTTP_PROXY": "a", "http_proxy": ""}, "HTTP_PROXY"),
        (False, {"HTTP_PROXY": "a", "http_proxy": " \t"}, "HTTP_PROXY"),
        (False, {"WS_PROXY": "a", "http_proxy": "b"}, "WS_PROXY"),
        (True, {"ALL_PROXY": "a"}, "ALL_PROXY"),
        (False, {"HTTP_PROXY": "a", "REQUEST_METHOD": "GET"}, ""),
        (False, {"HTTP_PROXY": "a", "http_proxy": "b", "REQUEST_METHOD": "GET"}, "http_proxy"),
        (False, {"HTTP_PROXY": "a", "ALL_PROXY": "b", "REQUEST_METHOD": "GET"}, "ALL_PROXY"),
        (True, {"HTTPS_PROXY": "a", "REQUEST_METHOD": "GET"}, "HTTPS_PROXY"),
    ],
)
def test_the_variable_that_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, secure: bool, values: dict[str, str], variable: str
) -> None:
    environment(monkeypatch, **values)
    assert environment_proxy(secure) == (variable, values.get(variable, ""))


def test_blanks_around_a_value_of_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, http_proxy=" http://p:1\n")
    assert ProxyOptions().for_server("h", 80, False) == Proxy("http", "p", 1)


def test_a_value_of_the_environment_that_is_unusable_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(monkeypatch, HTTPS_PROXY="http://user:S3cret@p:port", https_proxy=" ")
    with pytest.raises(WebSocketProxyException, match=r"HTTPS_PROXY 'http://\*\*\*@p:port'") as caught:
        create_connection("wss://h.test/")
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "options", "server", "proxy"),
    [
        ({"http_proxy": "p:1"}, OF_OPTION, "h.test", "option.test"),
        ({"http_proxy": "p:1", "no_proxy": "*"}, OF_OPTION, "h.test", "option.test"),
        ({"http_proxy": "p:1", "no_proxy": "*"}, HOST, "h.test", "p"),
        ({}, OF_OPTION, "localhost", "option.test"),
        ({}, {**OF_OPTION, "http_no_proxy": ["h.test"]}, "h.test", None),
        ({"http_proxy": "not usable"}, {"proxy": ""}, "h.test", None),
        ({"http_proxy": "not usable"}, OF_OPTION, "h.test", "option.test"),
        ({"http_proxy": "not usable", "no_proxy": "h.test"}, {}, "h.test", None),
        ({"http_proxy": "p:1", "no_proxy": "h.test"}, {}, "h.test", None),
        ({"http_proxy": "p:1", "no_proxy": "h.test"}, {}, "other.test", "p"),
        ({"http_proxy": "p:1", "NO_PROXY": "h.test"}, {}, "h.test", None),
        ({"http_proxy": "p:1", "NO_PROXY": "h.test", "no_proxy": "other.test"}, {}, "h.test", "p"),
        ({"http_proxy": "p:1", "NO_PROXY": "h.test", "no_proxy": " "}, {}, "h.test", None),
        ({"http_proxy": "p:1"}, {"http_no_proxy": ["h.test"]}, "h.test", None),
        ({"http_proxy": "p:1", "no_proxy": "h.test"}, {"http_no_proxy": ["other.test"]}, "h.test", "p"),
        ({"http_proxy": "p:1", "no_proxy": "h.test"}, {"http_no_proxy": []}, "h.test", "p"),
        ({"http_proxy": "p:1"}, {"http_no_proxy": []}, "localhost", "p"),
        ({"http_proxy": "p:1"}, {}, "localhost", None),
        ({"http_proxy": "p:1"}, {}, "127.0.0.1", None),
        ({"http_proxy": "p:1"}, {}, "127.0.0.2", "p"),
        ({"http_proxy": "p:1", "no_proxy": "other.test"}, {}, "localhost", "p"),
    ],
    ids=str,
)
def test_who_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], options: dict[str, Any], server: str, proxy: str | None
) -> None:
    environment(monkeypatch, **values)
    chosen = ProxyOptions.parse(options).for_server(server, 80, secure=False)
    assert (None if chosen is None else chosen.host) == proxy


# ---- connections ----


@pytest.fixture
def proxy(serve: Serve) -> ScriptedProxy:
    return ScriptedProxy(serve, tunnelling())


def visited(proxy: ScriptedProxy) -> list[str]:
    """The servers that the proxy was asked for."""
    return [f"{visit.host}:{visit.port}" for visit in proxy.visits]


def test_the_environments_proxy_is_used(
    serve: Serve, proxy: ScriptedProxy, authority: Authority, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(ssl_context=authority.server_context() if scheme == "wss" else None)
    environment(monkeypatch, no_proxy="other", **{"https_proxy" if scheme == "wss" else "http_proxy": proxy.url})
    with create_connection(server.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert visited(proxy) == [f"127.0.0.1:{server.port}"]


def test_the_environments_proxy_is_used_by_an_app(
    serve: Serve, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    environment(monkeypatch, http_proxy=proxy.url, no_proxy="other")
    app = Recorder(server.url, names=("open", "error"))
    app.then["open"] = app.close
    assert app.run() is False
    assert app.told == [("open",)]
    assert visited(proxy) == [f"127.0.0.1:{server.port}"]


@pytest.mark.parametrize(
    "options", [{"proxy": ""}, {"http_no_proxy": ["127.0.0.0/8"]}, {"http_no_proxy": "other, 127.0.0.1"}], ids=str
)
def test_an_option_leads_past_the_environments_proxy(
    serve: Serve, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    environment(monkeypatch, http_proxy=proxy.url, no_proxy="other")
    create_connection(serve().url, **options).close()
    assert proxy.visits == []


def test_an_entry_with_a_port_leads_past_the_proxy_for_that_port_only(
    serve: Serve, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = serve(), serve()
    environment(monkeypatch, http_proxy=proxy.url, no_proxy=f"127.0.0.1:{near.port}")
    for server in (near, far):
        create_connection(server.url).close()
    assert visited(proxy) == [f"127.0.0.1:{far.port}"]


def test_a_proxy_of_the_options_is_used_whatever_the_environment_says(
    serve: Serve, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    environment(monkeypatch, http_proxy="http://proxy.invalid:1", no_proxy="127.0.0.1")
    create_connection(server.url, proxy=proxy.url).close()
    create_connection(server.url, http_proxy_host="127.0.0.1", http_proxy_port=str(proxy.port)).close()
    assert visited(proxy) == [f"127.0.0.1:{server.port}"] * 2


def test_without_a_proxy_that_concerns_it_a_server_is_reached_directly(
    deaf_port: int, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, https_proxy=proxy.url, http_proxy="", no_proxy="other")
    with pytest.raises(WebSocketConnectionRefusedException):
        create_connection(f"ws://127.0.0.1:{deaf_port}/")
    assert proxy.visits == []
