"""URLs taken apart: what is in them, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from websocket._url import parse_target, parse_url


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


@pytest.mark.parametrize(
    "url",
    [
        "ws://user:s3cret@h:port/",
        "ws://user:s3cret@h:99999/",
        "ws://user:s3cret@/",
        "ws://user:s3cret@[h/",
        "ws://user:s3cret\n@h/",
        "ws://user:s3cret/1@h/",
    ],
)
def test_no_message_quotes_the_credentials_of_a_url(url: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are what is looked at
        parse_target(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


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
        *("ws://a\uff3bb/", "ws://a\uff3db/", "ws://a\uff1ab/"),
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
