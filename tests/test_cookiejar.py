"""Cookies between handshakes: whom they go to, and websocket-client's jar."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest

from websocket._cookiejar import CookieStore, SimpleCookieJar
from websocket._url import parse_target

from .conftest import run_all


def kept(set_by: str, *set_cookies: str) -> CookieStore:
    store = CookieStore()
    store.keep(parse_target(set_by), set_cookies)
    return store


def sent(store: CookieStore, url: str, own: str | None = None) -> set[str]:
    """The pairs of the Cookie header; their order means nothing (RFC 6265 5.4)."""
    header = store.header(parse_target(url), own)
    return set(header.split("; ")) if header else set()


@pytest.mark.parametrize(
    ("set_cookie", "set_by", "goes_to", "not_to"),
    [
        ("a=1", "ws://h.com/", ["ws://h.com/x", "wss://h.com/", "ws://h.com:99/", "ws://H.com/"], ["ws://g.com/"]),
        ("a=1", "ws://h.com/", [], ["ws://sub.h.com/", "ws://ah.com/", "ws://com/"]),
        ("a=1; Domain=h.com", "ws://h.com/", ["ws://h.com/", "ws://sub.h.com/"], ["ws://ah.com/", "ws://g.com/"]),
        ("a=1; Domain=.h.com", "ws://sub.h.com/", ["ws://h.com/", "ws://sub.h.com/"], ["ws://ah.com/"]),
        ("a=1; Domain=g.com", "ws://h.com/", [], ["ws://g.com/", "ws://h.com/"]),
        ("a=1; Domain=com", "ws://h.com/", [], ["ws://g.com/", "ws://com/"]),
        ("a=1; Domain=sub.h.com", "ws://h.com/", [], ["ws://sub.h.com/", "ws://h.com/"]),
        ("a=1; Path=/p", "ws://h.com/", ["ws://h.com/p", "ws://h.com/p/q"], ["ws://h.com/", "ws://h.com/pq"]),
        ("a=1", "ws://h.com/p/q", ["ws://h.com/p/", "ws://h.com/p/z"], ["ws://h.com/", "ws://h.com/pq"]),
        ("a=1; Path=/", "ws://h.com/p/q", ["ws://h.com/", "ws://h.com/z?q=1"], []),
        ("a=1; Secure", "wss://h.com/", ["wss://h.com/", "wss://h.com:99/"], ["ws://h.com/"]),
        ("a=1; secure; HttpOnly", "wss://h.com/", ["wss://h.com/"], ["ws://h.com/"]),
        ("a=1", "ws://localhost:1/", ["ws://localhost:2/"], ["ws://127.0.0.1/"]),
        ("a=1", "ws://127.0.0.1:1/", ["ws://127.0.0.1:2/"], ["ws://127.0.0.2/", "ws://1.127.0.0.1.com/"]),
        ("a=1", "ws://[::1]:1/", ["ws://[::1]:2/"], ["ws://[::2]/"]),
        ("a=1; Max-Age=0", "ws://h.com/", [], ["ws://h.com/"]),
        ("a=1; Max-Age=99999", "ws://h.com/", ["ws://h.com/"], []),
        ("a=1; Expires=Thu, 01 Jan 1970 00:00:01 GMT", "ws://h.com/", [], ["ws://h.com/"]),
    ],
)
def test_a_cookie_goes_where_it_belongs(set_cookie: str, set_by: str, goes_to: list[str], not_to: list[str]) -> None:
    store = kept(set_by, set_cookie)
    assert {url: sent(store, url) for url in goes_to} == {url: {"a=1"} for url in goes_to}
    assert {url: sent(store, url) for url in not_to} == {url: set() for url in not_to}


def test_several_cookies_of_one_response_are_kept() -> None:
    assert sent(kept("ws://h.com/", "a=1", "b=2; Path=/", "c=3=4"), "ws://h.com/") == {"a=1", "b=2", "c=3=4"}


def test_a_later_cookie_replaces_or_deletes_an_earlier_one() -> None:
    store = kept("ws://h.com/", "a=1", "b=2")
    store.keep(parse_target("ws://h.com/"), ["a=3", "b=; Max-Age=0"])
    assert sent(store, "ws://h.com/") == {"a=3"}


def test_a_bad_set_cookie_spoils_nothing() -> None:
    store = kept("ws://h.com/", "", ";;", "=", "b=2; Max-Age=x", "c[=\xff", "a=1; Expires=never")
    assert sent(store, "ws://h.com/") >= {"a=1"}


@pytest.mark.parametrize(
    "attribute",
    [
        *("Max-Age", "max-age=", "Max-Age=x", "Max-Age=" + "9" * 400, "Max-Age=" + "\u0669" * 400),
        *("Expires", "Expires=", "Expires=never", "Expires=Wed, 21 Ocp 2065 07:28:00 GMT"),
        'expires="Wed, 21 Ocp 2065 07:28:00 GMT"',
    ],
)
def test_a_lifetime_that_is_none_is_ignored(attribute: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = kept("wss://h.com/", "good=1", f"bad=2; {attribute}; Secure", "last=3")
    assert sent(store, "wss://h.com/") == {"good=1", "bad=2", "last=3"}
    assert sent(store, "ws://h.com/") == {"good=1", "last=3"}, "the other attributes hold"


def test_a_cookie_may_be_deleted_by_the_response_that_sets_it() -> None:
    assert sent(kept("ws://h.com/", "a=1", "b=2", f"a=; Max-Age=-{'9' * 400}"), "ws://h.com/") == {"b=2"}


def test_own_cookies_win() -> None:
    store = kept("ws://h.com/", "a=1", "b=2", "ab=3")
    assert sent(store, "ws://h.com/", "a=own; c=4") == {"a=own", "ab=3", "b=2", "c=4"}
    assert store.header(parse_target("ws://h.com/"), "c=4; a=own").endswith("c=4; a=own"), "as they are given"
    assert store.header(parse_target("ws://other.com/"), "c=4") == "c=4"
    assert sent(store, "ws://h.com/") == {"a=1", "b=2", "ab=3"}, "own cookies are not kept"


def test_clear_forgets_all() -> None:
    store = kept("ws://h.com/", "a=1")
    store.clear()
    assert sent(store, "ws://h.com/") == set()


def test_threads_may_keep_and_read_at_the_same_time() -> None:
    store = CookieStore()
    urls = [f"ws://h{number}.com/" for number in range(8)]

    def use(url: str) -> None:
        target = parse_target(url)
        for turn in range(100):
            store.keep(target, [f"turn={turn}", f"other{turn}=x"])
            assert f"turn={turn}" in store.header(target).split("; ")

    run_all(*(lambda url=url: use(url) for url in urls))  # type: ignore[misc]
    newest = {"turn=99", *(f"other{turn}=x" for turn in range(51, 100))}
    assert [set(sent(store, url)) for url in urls] == [newest] * 8


def test_the_fifty_cookies_of_a_domain_that_were_set_last_are_kept() -> None:
    store = kept("ws://h.com/", *(f"c{number}=x" for number in range(50)))
    store.keep(parse_target("ws://h.com/"), ["c0=y", "one=z"])
    names = {pair.partition("=")[0] for pair in sent(store, "ws://h.com/")}
    assert names == {"one", "c0", *(f"c{number}" for number in range(2, 50))}


def test_a_cookie_of_more_than_four_kilobytes_is_not_kept() -> None:
    store = kept("ws://h.com/", "a=" + "x" * 4094, "b=" + "x" * 4095)
    assert [pair[:2] for pair in sent(store, "ws://h.com/")] == ["a="]


def test_the_process_keeps_three_thousand_cookies() -> None:
    store = CookieStore()
    for number in range(70):
        store.keep(parse_target(f"ws://h{number}.com/"), [f"c{each}=x" for each in range(45)])
    counts = [len(sent(store, f"ws://h{number}.com/")) for number in range(70)]
    assert sum(counts) == 3000
    assert counts == [0, 0, 0, 30, *[45] * 66]


def test_a_child_process_can_use_the_store_although_a_thread_held_its_lock() -> None:
    store = kept("ws://h.com/", "a=1")
    with store._lock:  # as another thread would hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            status = 1
            try:
                store.keep(parse_target("ws://h.com/"), ["b=2"])
                status = 0 if "b=2" in store.header(parse_target("ws://h.com/")) else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sent(store, "ws://h.com/") == {"a=1"}


# ---- websocket-client's SimpleCookieJar: what each call leaves for a host


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], {"abc": ""}),
        ([("add", "a=b")], {"abc": "", "": ""}),  # without a Domain it belongs nowhere
        ([("add", None)], {"abc": ""}),
        ([("set", "")], {"abc": ""}),
        ([("add", "a=b; domain=abc")], {"abc": "a=b", "ABC": "a=b", "x.abc": "a=b", "xabc": "", "ab": "", "": ""}),
        ([("add", "a=b; domain=.abc")], {"abc": "a=b", "x.abc": "a=b", "xabc": ""}),
        ([("add", "a=b; domain=ABC")], {"abc": "a=b"}),
        ([("add", "a=b; domain=abc"), ("add", "c=d; domain=abc")], {"abc": "a=b; c=d"}),
        ([("add", "c=d; domain=abc"), ("add", "a=b; domain=.abc")], {"abc": "a=b; c=d"}),
        ([("add", "a=b; domain=abc"), ("add", "a=c; domain=abc")], {"abc": "a=c"}),
        ([("add", "a=b; domain=abc"), ("set", "e=f; domain=abc")], {"abc": "e=f"}),
        ([("set", "a=b; domain=abc"), ("set", "q=w")], {"abc": "a=b"}),
        ([("add", "a=b; domain=abc"), ("add", "e=f; domain=xyz")], {"abc": "a=b", "xyz": "e=f", "abc.xyz": "e=f"}),
        ([("add", "a=b; domain"), ("set", "a=b; $domain")], {"abc": ""}),
        ([("add", "a=b; $domain=abc"), ("add", "c=d; domain=abc; e=f; $domain")], {"abc": "a=b; c=d; e=f"}),
        ([("add", "a=b; c=d; domain=abc; x=y")], {"abc": "a=b; c=d; x=y"}),
        ([("add", 'a="q w"; domain=abc')], {"abc": "a=q w"}),
        (
            [("add", "a=b; domain=abc.com"), ("add", "z=1; domain=x.abc.com")],
            {"abc.com": "a=b", "x.abc.com": "a=b; z=1", "y.x.abc.com": "a=b; z=1", "y.abc.com": "a=b"},
        ),
    ],
)
def test_the_jar_of_websocket_client(calls: list[tuple[str, Any]], expected: dict[str, str]) -> None:
    jar = SimpleCookieJar()
    for method, value in calls:
        getattr(jar, method)(value)
    assert {host: jar.get(host) for host in expected} == expected


def test_the_jar_gives_nothing_for_no_host() -> None:
    jar = SimpleCookieJar()
    jar.add("a=b; domain=abc")
    assert jar.get(None) == ""  # type: ignore[arg-type]
    assert sorted(jar.jar) == [".abc"]
