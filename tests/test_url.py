"""URLs taken apart, and the proxy that the arguments and the environment name."""

from __future__ import annotations

import os
from typing import Any

import pytest

from websocket._url import get_proxy_info, parse_target, parse_url

# ---- URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://example.com", ("example.com", 80, "/", False)),
        ("wss://example.com", ("example.com", 443, "/", True)),
        ("ws://example.com:80/", ("example.com", 80, "/", False)),
        ("wss://example.com:80/", ("example.com", 80, "/", True)),
        ("ws://example.com:/x", ("example.com", 80, "/x", False)),
        ("WS://EXAMPLE.com/Path", ("example.com", 80, "/Path", False)),
        ("WsS://h:8443", ("h", 8443, "/", True)),
        ("ws://1.2.3.4:65535/", ("1.2.3.4", 65535, "/", False)),
        ("ws://h?q=1", ("h", 80, "/?q=1", False)),
        ("ws://h/a;b=c/d?x=1&y=/?z", ("h", 80, "/a;b=c/d?x=1&y=/?z", False)),
        ("ws://h/a//b/../c", ("h", 80, "/a//b/../c", False)),
        ("ws://user:pass@h:1/", ("h", 1, "/", False)),
        ("ws://h/p@q:r", ("h", 80, "/p@q:r", False)),
        ("ws://a_b-c.example/", ("a_b-c.example", 80, "/", False)),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: tuple[str, int, str, bool]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    ("url", "host", "authority"),
    [
        ("ws://[::1]", "::1", "[::1]"),
        ("ws://[::1]:80/", "::1", "[::1]"),
        ("wss://[2001:DB8::1]:9001/", "2001:db8::1", "[2001:db8::1]:9001"),
        ("ws://[fe80::1%25eth0]:8/", "fe80::1%eth0", "[fe80::1]:8"),  # RFC 6874; a zone is of no concern to a server
        ("ws://[::ffff:1.2.3.4]/", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]"),
    ],
)
def test_an_ipv6_address_has_brackets_in_the_url_and_the_host_header_only(url: str, host: str, authority: str) -> None:
    target = parse_target(url)
    assert (target.host, target.authority) == (host, authority)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://exämple.com/", "xn--exmple-cua.com"),
        ("ws://EXÄMPLE.com/", "xn--exmple-cua.com"),
        ("ws://例え.テスト:9/", "xn--r8jz45g.xn--zckzah"),
        ("ws://xn--r8jz45g.xn--zckzah/", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_a_host_name_in_another_script_is_idna(url: str, host: str) -> None:
    assert parse_target(url).host == host


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("ws://h/zażółć?ł=ó", "/za%C5%BC%C3%B3%C5%82%C4%87?%C5%82=%C3%B3"),
        ("ws://h/a%20b?c=%C5%82", "/a%20b?c=%C5%82"),
        ("ws://h/a b", "/a%20b"),
        ('ws://h/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("ws://h/?a=[1]&b='x'&c=(y)!*+,;:@$", "/?a=[1]&b='x'&c=(y)!*+,;:@$"),
        ("ws://h/😀", "/%F0%9F%98%80"),
        ("ws://h/-._~", "/-._~"),
    ],
)
def test_path_and_query_are_percent_encoded_once(url: str, resource: str) -> None:
    assert parse_target(url).resource == resource


@pytest.mark.parametrize("url", ["ws://h/p?q#frag", "ws://h/p?q#", "ws://h/p?q#a/b?c#d"])
def test_a_fragment_is_left_out(url: str) -> None:
    assert parse_target(url).resource == "/p?q"


@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("ws://h/", None, None),
        ("ws://u@h/", "u", None),
        ("ws://u:@h/", "u", ""),
        ("ws://u:p@h/", "u", "p"),
        ("ws://u:p:q@h/", "u", "p:q"),
        ("ws://%40u:%2F%3A@h/", "@u", "/:"),
        ("ws://za%C5%BC:ł@h/", "zaż", "ł"),
        ("ws://u:p@q@h/", "u", "p@q"),
    ],
)
def test_user_and_password_are_decoded(url: str, user: str | None, password: str | None) -> None:
    target = parse_target(url)
    assert (target.host, target.user, target.password) == ("h", user, password)


def test_a_url_for_messages_holds_no_credentials() -> None:
    assert parse_target("wss://u:secret@H:8443/p?q#f").url == "wss://h:8443/p?q"
    assert parse_target("ws://u:secret@[::1]/").url == "ws://[::1]/"


def test_the_origin_of_a_target_is_host_port_and_security() -> None:
    here = parse_target("ws://h/a").origin
    assert here == parse_target("ws://u:p@H:80/b?c").origin
    assert len({here, *(parse_target(url).origin for url in ("wss://h/", "ws://h:81/", "ws://g/"))}) == 4


@pytest.mark.parametrize(
    "url",
    [
        *("", "h", "example.com/path", "//h/", ":", "ws:", "ws://", "ws:h", "ws:///path", "ws://:80/", "ws://?x"),
        *("http://h/", "https://h/", "wsx://h/", "ws+unix://h/", "ftp://h"),
        *("ws://h:65536/", "ws://h:-1/", "ws://h:x/", "ws://h:8 0/", "ws://h:80x/"),
        *("ws://[::1/", "ws://::1]/", "ws://[zz]/", "ws://[1.2.3.4]/", "ws://[]/"),
        *("ws://a b/", "ws://a<b/", "ws://a^b/", "ws://a|b/", 'ws://a"b/', "ws://a\\b/", "ws://a`{}/"),
        *("ws://ä..de/", f"ws://{'ä' * 64}.de/", "ws://h\uff0fx/"),
        *("ws://h/\n", "ws://h/\r", "ws://h/\0", "ws://h/\t", "ws://h/\x7f", "ws://h\n/", "\nws://h/"),
        *("ws://h/\ud800", "ws://\ud800/"),
    ],
)
def test_what_is_no_websocket_url_is_refused(url: str) -> None:
    for parse in (parse_target, parse_url):
        with pytest.raises(ValueError):  # noqa: PT011  # the wording depends on what is wrong
            parse(url)


@pytest.mark.parametrize("url", [None, b"ws://h/", 5])
def test_what_is_no_str_is_no_url(url: Any) -> None:
    with pytest.raises(ValueError, match="must be a str"):
        parse_target(url)


@pytest.mark.parametrize("code", ["%0a", "%0d", "%00", "%0d%0a", "%250a", "%20"])
def test_no_control_character_gets_into_a_host_by_way_of_an_ipv6_zone(code: str) -> None:
    try:
        host = parse_target(f"ws://[fe80::1{code}]/").host
    except ValueError:
        return
    assert host.isprintable()
    assert " " not in host


# ---- proxies


@pytest.fixture(autouse=True)
def _no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


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
    with pytest.raises(Exception, match="http_proxy_port"):
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
        ("", DIRECT),
    ],
)
def test_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[Any, ...]) -> None:
    environment(monkeypatch, http_proxy=value)
    assert get_proxy_info("example.com", False) == expected


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"])
def test_each_scheme_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment(monkeypatch, **{name: "http://proxy:1"})
    of_wss = name.lower().startswith("https")
    assert get_proxy_info("h", of_wss) == ("proxy", 1, None)
    assert get_proxy_info("h", not of_wss) == DIRECT


def test_the_variable_in_lower_case_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, http_proxy="http://lower:1", HTTP_PROXY="http://upper:1")
    assert get_proxy_info("h", False)[0] == "lower"


# Host, a no_proxy entry, whether it is reached directly; as curl has it.
BYPASSES = [
    ("example.com", "example.com", True),
    ("EXAMPLE.com", "example.COM", True),
    ("example.com", "other.com", False),
    ("example.com", "ample.com", False),
    ("sub.example.com", "example.com", True),
    ("sub.example.com", ".example.com", True),
    ("a.b.example.com", ".example.com", True),
    ("example.com", ".example.com", True),
    ("notexample.com", ".example.com", False),
    ("notexample.com", "example.com", False),
    ("example.com", "*", True),
    ("example.com", "", False),
    ("example.com", ".", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("10.1.2.3", "10.1.2.9/24", True),
    ("110.1.2.3", "10.1.2.3", False),
    ("::1", "::1", True),
    ("fd00::5", "fd00::/8", True),
    ("fe80::5", "fd00::/8", False),
    ("10.1.2.3", "fd00::/8", False),
    ("10.1.2.3", "10.0.0.0/99", False),
    ("10.1.2.3", "::/0", False),
]


@pytest.mark.parametrize(("host", "entry", "direct"), BYPASSES)
def test_a_no_proxy_entry_as_an_argument_and_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, host: str, entry: str, direct: bool
) -> None:
    expected = DIRECT if direct else ("proxy", 1, None)
    assert get_proxy_info(host, False, "proxy", 1, no_proxy=["first.invalid", entry]) == expected
    environment(monkeypatch, http_proxy="http://proxy:1", no_proxy=f"first.invalid,{entry}")
    assert get_proxy_info(host, False) == expected


@pytest.mark.parametrize("value", ["a.com,b.com", " a.com , b.com ", ",a.com,,\tb.com,"])
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_blanks_in_a_no_proxy_list_do_not_count(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment(monkeypatch, http_proxy="http://proxy:1", **{name: value})
    assert get_proxy_info("a.com", False) == DIRECT
    assert get_proxy_info("b.com", False) == DIRECT
    assert get_proxy_info("c.com", False)[0] == "proxy"


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
