"""Servers that need no proxy, and get_proxy_info(), which answers programs written for websocket-client."""

from __future__ import annotations

from typing import Any

import pytest

from websocket import WebSocketProxyException
from websocket._proxies import ProxyOptions, bypasses
from websocket._url import get_proxy_info

from .test_proxy_settings import _no_proxy_in_the_environment as _no_proxy_in_the_environment
from .test_proxy_settings import environment

# ---- servers that need no proxy ----

# Host, entry, whether it means the host; the port is 80.
ENTRIES = [
    ("example.com", "*", True),
    ("example.com", "*:80", True),
    ("example.com", "*:81", False),
    ("::1", "*", True),
    ("example.com", "example.com", True),
    ("EXAMPLE.com", "example.COM", True),
    ("example.com.", "example.com", True),
    ("example.com", "example.com.", True),
    ("sub.example.com", "example.com", True),
    ("a.b.example.com", ".example.com", True),
    ("example.com", ".example.com", True),
    ("example.com", "*.example.com", True),
    ("sub.example.com", "*.example.com", True),
    ("example.com", "com", True),
    ("example.com", "other.com", False),
    ("example.com", "ample.com", False),
    ("example.com", "sub.example.com", False),
    ("notexample.com", "example.com", False),
    ("notexample.com", ".example.com", False),
    ("notexample.com", "*.example.com", False),
    ("example.com.evil.test", "example.com", False),
    ("example.com", "", False),
    ("example.com", ".", False),
    ("example.com", "exam*", False),
    ("example.com", "http://example.com", False),
    ("xn--bcher-kva.test", "xn--bcher-kva.test", True),
    ("example.com", "example.com:80", True),
    ("sub.example.com", ".example.com:80", True),
    ("example.com", "example.com:81", False),
    ("example.com", "example.com:", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.1.2.3:80", True),
    ("10.1.2.3", "10.1.2.3:81", False),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.1.2.9/24", True),
    ("10.1.2.3", "0.0.0.0/0", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("10.1.0.1", "10.0.0.0/16", False),
    ("10.1.2.3", "10.1", False),
    ("10.1.2.3", "10.1.2", False),
    ("10.1.2.3", "2.3", False),
    ("10.1.2.3", ".3", False),
    ("10.1.2.3", "*.3", False),
    ("110.1.2.3", "10.1.2.3", False),
    ("10.1.2.3", "10.0.0.0/99", False),
    ("10.1.2.3", "10.0.0.0/x", False),
    ("10.1.2.3", "::/0", False),
    ("10.1.2.3", "fd00::/8", False),
    ("10.example.com", "10.0.0.0/8", False),
    ("::1", "::1", True),
    ("::1", "[::1]", True),
    ("::1", "[::1]:80", True),
    ("::1", "[::1]:81", False),
    ("::1", "0:0::0:1", True),
    ("fe80::1%eth0", "fe80::1", True),
    ("fd00::5", "fd00::/8", True),
    ("fd00::5", "FD00::/8", True),
    ("fe80::5", "fd00::/8", False),
    ("::1", "::2", False),
    ("::1", "0.0.0.0/0", False),
    ("::1", "1", False),
]


@pytest.mark.parametrize(("host", "entry", "direct"), ENTRIES)
def test_an_entry_of_no_proxy_means_a_server_or_not(
    monkeypatch: pytest.MonkeyPatch, host: str, entry: str, direct: bool
) -> None:
    assert bypasses(host, 80, ["first.invalid", entry]) == direct
    environment(monkeypatch, http_proxy="http://p:1", no_proxy=f"first.invalid,{entry}")
    assert (ProxyOptions().for_server(host, 80, False) is None) == direct
    options = ProxyOptions.parse({"proxy": "http://p:1", "http_no_proxy": ["first.invalid", entry]})
    assert (options.for_server(host, 80, False) is None) == direct


@pytest.mark.parametrize("value", ["a.test,b.test", " a.test , b.test ", "a.test b.test", ",a.test,,\tb.test,"])
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_blanks_in_a_no_proxy_list_do_not_count(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment(monkeypatch, http_proxy="http://p:1", **{name: value})
    for options in (ProxyOptions(), ProxyOptions.parse({"http_no_proxy": value, "proxy": "http://p:1"})):
        proxied = [host for host in ("a.test", "b.test", "c.test") if options.for_server(host, 80, False)]
        assert proxied == ["c.test"]
    assert [get_proxy_info(host, False)[0] for host in ("a.test", "b.test", "c.test")] == [None, None, "p"]


# ---- get_proxy_info() ----

DIRECT = (None, 0, None)


def test_without_a_word_there_is_no_proxy() -> None:
    assert get_proxy_info("example.com", False) == DIRECT
    assert get_proxy_info("example.com", True) == DIRECT


def test_the_arguments_name_a_proxy() -> None:
    assert get_proxy_info("h", False, "proxy", 3128) == ("proxy", 3128, None)
    assert get_proxy_info("h", True, "proxy", 3128, ("u", "p")) == ("proxy", 3128, ("u", "p"))


def test_the_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, http_proxy="http://other:1", https_proxy="http://other:1")
    assert get_proxy_info("h", False, "proxy", 3128) == ("proxy", 3128, None)


def test_a_proxy_without_its_port_is_an_error_that_names_the_option() -> None:
    with pytest.raises(WebSocketProxyException, match="http_proxy_port"):
        get_proxy_info("h", False, "proxy")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://proxy:3128", ("proxy", 3128, None)),
        ("http://proxy:3128/", ("proxy", 3128, None)),
        ("proxy:3128", ("proxy", 3128, None)),
        (" http://proxy:3128 ", ("proxy", 3128, None)),
        ("http://u:p@proxy:3128", ("proxy", 3128, ("u", "p"))),
        ("http://u@proxy:3128", ("proxy", 3128, ("u", ""))),
        ("http://a%40b:c%3Ad@proxy:1", ("proxy", 1, ("a@b", "c:d"))),
        ("http://[::1]:3128", ("::1", 3128, None)),
        ("http://proxy", ("proxy", 80, None)),
        ("socks5://proxy", ("proxy", 1080, None)),
        ("", DIRECT),
    ],
)
def test_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[Any, ...]) -> None:
    environment(monkeypatch, http_proxy=value)
    assert get_proxy_info("example.com", False) == expected


@pytest.mark.parametrize("value", ["http://u:S3cret@proxy:x", "ftp://u:S3cret@proxy:1", "http://u:S3cret@:1"])
def test_an_environments_proxy_that_is_unusable_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    environment(monkeypatch, http_proxy=value)
    with pytest.raises(WebSocketProxyException, match="environment's http_proxy") as caught:
        get_proxy_info("example.com", False)
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"])
def test_each_scheme_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment(monkeypatch, **{name: "http://proxy:1"})
    of_wss = name.lower().startswith("https")
    assert get_proxy_info("h", of_wss) == ("proxy", 1, None)
    assert get_proxy_info("h", not of_wss) == DIRECT


def test_the_variable_in_lower_case_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, http_proxy="http://lower:1", HTTP_PROXY="http://upper:1")
    assert get_proxy_info("h", False)[0] == "lower"


@pytest.mark.parametrize(("host", "entry", "direct"), [row for row in ENTRIES if ":80" not in row[1]])
def test_a_no_proxy_entry_as_an_argument_and_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, host: str, entry: str, direct: bool
) -> None:
    expected = DIRECT if direct else ("proxy", 1, None)
    assert get_proxy_info(host, False, "proxy", 1, no_proxy=["first.invalid", entry]) == expected
    environment(monkeypatch, http_proxy="http://proxy:1", no_proxy=f"first.invalid,{entry}")
    assert get_proxy_info(host, False) == expected


def test_an_entry_with_a_port_means_no_server_where_no_port_is_known() -> None:
    assert get_proxy_info("h", False, "proxy", 1, no_proxy=["h:80"]) == ("proxy", 1, None)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LocalHost"])
def test_this_machine_is_reached_directly_unless_a_list_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    environment(monkeypatch, http_proxy="http://proxy:1")
    assert get_proxy_info(host, False) == DIRECT
    assert get_proxy_info(host, False, "proxy", 1) == DIRECT
    assert get_proxy_info(host, False, "proxy", 1, no_proxy=["other"]) == ("proxy", 1, None)
    environment(monkeypatch, no_proxy="other")
    assert get_proxy_info(host, False) == ("proxy", 1, None)


def test_a_no_proxy_argument_works_for_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, http_proxy="http://proxy:1")
    assert get_proxy_info("a.com", False, no_proxy=["a.com"]) == DIRECT
    assert get_proxy_info("b.com", False, no_proxy=["a.com"]) == ("proxy", 1, None)
