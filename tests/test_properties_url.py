"""URLs, proxies and cookies, for any text: refused with the exceptions that are named, or taken in a way that can be
written down and read again."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from http.cookies import CookieError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from websocket import WebSocketBadStatusException, WebSocketProxyException
from websocket._cookiejar import CookieStore, SimpleCookieJar
from websocket._handshake import RequestOptions, bad_status, build_request
from websocket._opening import _redirect_target
from websocket._proxies import Proxy, ProxyOptions, bypasses, get_proxy_info, parse_proxy
from websocket._url import Target, parse_target

from .strategies import ANY_TEXT, examples

LABELS = st.text("abz019-_", min_size=1, max_size=8)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map("[{}]".format)
HOSTS = NAMES | ADDRESSES | st.sampled_from(["EXAMPLE.com.", "exämple.com", "[fe80::1%25eth0]", "例え.テスト"])
PORTS = st.integers(1, 65535)
# What a URL consists of, in any order.
URL_PARTS = [
    *("ws://", "wss://", "http:", "//", "/", "?", "#", "@", ":", "[", "]", "%", "%25", "%40", "%5b", "%0d%0a", "\\"),
    *("h", "user", "::1", "1.2.3.4", ":80", ":65536", ".", "..", " ", "\t", "\r\n", "\0", "\ud800"),
    *("ż", "\uff05", "\uff3b", "\u3002"),  # a fullwidth "%" and "[", an ideographic "."
]
URL_LIKE = st.lists(st.sampled_from(URL_PARTS) | st.text(max_size=3), max_size=10).map("".join)
# A host with one thing in it that may not be there.
ODD_HOSTS = st.builds("{}{}{}".format, NAMES, st.sampled_from(URL_PARTS) | st.characters(), NAMES)
VARIABLES = ("ws_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy")
STORE = CookieStore()


def without_zone(host: str) -> str:
    return host.partition("%")[0] if ":" in host else host


def assert_reads_back(target: Target) -> None:
    assert not re.search("[\0- \x7f]", target.host + target.resource)
    assert target.resource.isascii()
    assert target.resource.startswith("/")
    assert parse_target(target.url) == replace(target, host=without_zone(target.host), user=None, password=None)


# ---- URLs


@given(
    start=st.sampled_from(["", "ws://", "wss://h", "ws://u:p@h", "ws://[::1", "ws://h/"]),
    text=URL_LIKE | ANY_TEXT | ODD_HOSTS,
)
@examples(300)
def test_any_text_is_no_url_or_one_that_reads_back(start: str, text: str) -> None:
    try:
        target = parse_target(start + text)
    except ValueError:
        return
    assert_reads_back(target)
    request = build_request(replace(target, user=None), RequestOptions())
    assert request.data.startswith(f"GET {target.resource} HTTP/1.1\r\nHost: {target.authority}\r\n".encode())
    assert request.data.count(b"\r") == request.data.count(b"\n") == 8


@given(
    secure=st.booleans(),
    host=HOSTS,
    port=st.none() | PORTS,
    path=st.text("abc/;.%20~ż ", max_size=12),
    query=st.text("abc/?=&ż ", min_size=1, max_size=12),
)
@examples(120)
def test_a_url_says_what_it_was_made_of(secure: bool, host: str, port: int | None, path: str, query: str) -> None:
    scheme = "wss" if secure else "ws"
    target = parse_target(f"{scheme}://{host}{'' if port is None else f':{port}'}/{path}?{query}#fragment")
    assert_reads_back(target)
    assert target.secure is secure
    assert target.port == (port or (443 if secure else 80))
    if host.isascii() and "%" not in host:
        assert target.host == host.strip("[]").lower()
    assert target.resource.replace("%20", " ").replace("%C5%BC", "ż") == f"/{path}?{query}".replace("%20", " ")


@given(text=URL_LIKE | ANY_TEXT, secure=st.booleans())
@examples(200)
def test_any_location_is_refused_or_leads_on_without_loss_of_tls_or_credentials(text: str, secure: bool) -> None:
    location = text.encode("utf-8", "replace").decode()
    here = parse_target(f"{'wss' if secure else 'ws'}://user:word@www.example.com:8443/dir/page?query")
    try:
        target = _redirect_target(here, {"location": location}, bad_status(302, "Found", {}, None))
    except WebSocketBadStatusException:
        return
    assert_reads_back(target)
    assert target.secure or not secure
    assert target.origin == here.origin or (target.user, target.password) == (None, None)


# ---- proxies


@given(
    start=st.sampled_from(["", "http://", "https://u@h", "socks5h://h:1", "socks://", "http://[::1"]),
    text=URL_LIKE | ANY_TEXT | ODD_HOSTS,
)
@examples(200)
def test_any_text_is_no_proxy_or_one_that_reads_back(start: str, text: str) -> None:
    try:
        proxy = parse_proxy(start + text, "proxy")
    except ValueError:
        return
    assert proxy.host
    assert 0 < proxy.port < 65536
    again = parse_proxy(proxy.url, "proxy")
    assert again == replace(proxy, host=without_zone(proxy.host), user=None, password=None)


@given(start=st.sampled_from(["http://u:", "socks5://u:", "u:", "http://"]), text=URL_LIKE | ANY_TEXT | ODD_HOSTS)
@examples(200)
def test_no_message_about_a_proxy_tells_its_password(start: str, text: str) -> None:
    try:
        parse_proxy(f"{start}s3cr3t{text}@h", "proxy")
    except ValueError as error:
        message = str(error)
        assert "s3cr3t" not in message


@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "proxy": st.sampled_from([True, "http://h:1", "socks5://u:p@h"]) | URL_LIKE,
            "http_proxy_host": st.sampled_from(["h", "[::1]", "http://h"]) | URL_LIKE | st.binary(max_size=3),
            "http_proxy_port": PORTS | st.integers() | PORTS.map(str) | ANY_TEXT | st.floats() | st.booleans(),
            "http_proxy_auth": st.tuples(ANY_TEXT, ANY_TEXT) | st.lists(ANY_TEXT | st.none()) | ANY_TEXT | st.binary(),
            "http_no_proxy": st.lists(HOSTS) | ANY_TEXT | st.lists(st.none()) | st.integers(),
            "http_proxy_timeout": st.floats() | st.integers() | st.booleans() | ANY_TEXT,
            "proxy_type": st.sampled_from(["http", "https", "socks4", "socks5h", "nonsense"]) | st.integers(),
            "proxy_sslopt": st.dictionaries(ANY_TEXT, st.none(), max_size=1) | st.lists(st.none(), max_size=1),
        },
    )
)
@examples(200)
def test_any_proxy_options_are_refused_by_name_or_name_a_proxy(options: dict[str, Any]) -> None:
    try:
        parsed = ProxyOptions.parse(options)
    except (ValueError, WebSocketProxyException):
        return
    assert parsed.proxy in (None, False) or isinstance(parsed.proxy, Proxy)
    assert parsed.timeout is None or parsed.timeout > 0
    if isinstance(parsed.proxy, Proxy):
        assert 0 < parsed.proxy.port < 65536
        if not parsed.no_proxy:
            assert parsed.for_server("example.com", 80, False) is parsed.proxy


@given(host=HOSTS.map(lambda host: host.strip("[]")), port=PORTS, entries=st.lists(HOSTS | URL_LIKE, max_size=4))
@examples(120)
def test_a_no_proxy_list_means_a_server_where_one_of_its_entries_does(host: str, port: int, entries: list[str]) -> None:
    each = [bypasses(host, port, [entry]) for entry in entries]
    assert bypasses(host, port, entries) is any(each)
    assert bypasses(host, port, [*entries, "*"])
    assert bypasses(host, port, [*entries, host])


@given(name=NAMES, port=PORTS)
@examples(80)
def test_a_no_proxy_entry_means_a_name_and_those_below_it_and_no_other(name: str, port: int) -> None:
    for entry in (name, f".{name}", f"*.{name}", f"{name}:{port}", name.upper()):
        assert bypasses(name, port, [entry])
        assert bypasses(f"www.{name}", port, [entry])
        assert not bypasses(f"x{name}", port, [entry])
        assert not bypasses(f"{name}.x", port, [entry])
    assert not bypasses(name, port - 1, [f"{name}:{port}"])
    assert not bypasses(name, None, [f"{name}:{port}"])


@given(
    values=st.fixed_dictionaries({}, optional=dict.fromkeys(VARIABLES, URL_LIKE | ANY_TEXT | HOSTS)),
    secure=st.booleans(),
)
@examples(120)
def test_any_environment_names_a_proxy_or_none_or_is_refused(values: dict[str, str], secure: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, os.fsdecode(value.encode("utf-8", "replace").replace(b"\0", b"")))
        try:
            proxy = ProxyOptions.parse({}).for_server("example.com", 80, secure)
            found = get_proxy_info("example.com", secure)
        except WebSocketProxyException:
            return
    assert found == ((None, 0, None) if proxy is None else (proxy.host, proxy.port, found[2]))


# ---- cookies

ATTRIBUTES = [
    *(
        "Path=/",
        "path=/dir; Secure",
        "Domain=example.com",
        "domain=.www.example.com",
        "Domain=.com",
        "Domain=",
        "domain",
        "$domain",
    ),
    *("Max-Age=60", "max-age=-1", "Max-Age=9" + "9" * 30, "Max-Age=" + "9" * 400, "max-age", "Max-Age=x"),
    *("Expires=Wed, 21 Oct 2065 07:28:00 GMT", "Expires=Wed, 21 Ocp 2065 07:28:00 GMT", "expires=never", "expires"),
    *("Version=1", "HttpOnly", "SameSite=Lax", 'Port="80"', "a<b=c", "$x=y", "=", " "),
]
PAIRS = ["a=b", 'c="d e"', "e", "=f", "ż=€"]


@st.composite
def set_cookies(draw: st.DrawFn) -> str:
    """A Set-Cookie header's value, or what a head may give as one."""
    parts = [
        draw(st.sampled_from(PAIRS) | ANY_TEXT),
        *draw(st.lists(st.sampled_from(ATTRIBUTES) | ANY_TEXT, max_size=4)),
    ]
    return re.sub("[\r\n\0\ud800-\udfff]", "", "; ".join(parts)).strip(" \t")


@given(lines=st.lists(set_cookies(), max_size=4))
@examples(200)
def test_any_set_cookie_gives_a_header_for_its_own_site_or_none(lines: list[str]) -> None:
    here = parse_target("wss://www.example.com/dir/page")
    STORE.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # how http.cookiejar tells of an exception within itself
        STORE.keep(here, lines)
    for target in (here, parse_target("ws://www.example.com/dir/")):
        cookie = STORE.header(target, "mine=1")
        assert cookie.endswith("mine=1")
        build_request(target, RequestOptions(), cookie=cookie)
    for elsewhere in ("wss://www.example.org/dir/page", "wss://example.com.evil.test/", "wss://1.2.3.4/"):
        assert STORE.header(parse_target(elsewhere)) == ""


@given(lines=st.lists(set_cookies(), max_size=4))
@examples(100)
def test_any_set_cookie_goes_into_the_simple_jar_or_is_a_cookie_error(lines: list[str]) -> None:
    jar = SimpleCookieJar()
    for line in lines:
        try:
            jar.add(line)
            jar.set(line)
        except CookieError:  # the standard library's, as it comes out of websocket-client's jar
            continue
    for host in ("www.example.com", "example.com", "", "com", "\ud800"):
        assert isinstance(jar.get(host), str)
