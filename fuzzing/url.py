"""Any text as a URL, a proxy, a list of hosts without proxy, a Set-Cookie header or a redirect's Location: refused with
ValueError or the package's exceptions, or taken in a way that can be written down and read again."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from http.cookies import CookieError
from typing import Any

from harness import Input, instrumented, run

with instrumented("http.cookiejar", "http.cookies", "urllib.parse", "ipaddress"):
    from websocket._cookiejar import CookieStore, SimpleCookieJar
    from websocket._exceptions import WebSocketBadStatusException, WebSocketProxyException
    from websocket._handshake import RequestOptions, bad_status, build_request
    from websocket._opening import _redirect_target
    from websocket._proxies import Proxy, ProxyOptions, bypasses, get_proxy_info, parse_proxy
    from websocket._url import Target, parse_target

STORE = CookieStore()
SECRET = "s3cr3t"
HERE = parse_target("wss://user:word@www.example.com:8443/dir/page?query")
PLAIN = parse_target("ws://www.example.com/dir/")
ELSEWHERE = parse_target("wss://www.example.org:8443/dir/page")
VARIABLES = ("ws_proxy", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


def without_zone(host: str) -> str:
    return host.partition("%")[0] if ":" in host else host


def url(source: Input) -> None:
    text = source.choice(("", "ws://", "wss://", "ws://u:p@h", "ws://[::1", "ws://h/")) + source.text(500)
    try:
        target = parse_target(text)
    except ValueError:
        return
    check_target(target)


def check_target(target: Target) -> None:
    assert target.host
    assert 0 <= target.port <= 65535
    assert target.resource.startswith("/")
    assert target.resource.isascii()
    assert not re.search(r"[\x00-\x20\x7f]", target.host + target.resource)
    plain = replace(target, user=None, password=None, host=without_zone(target.host))
    assert parse_target(target.url) == plain, (target, target.url)
    try:
        request = build_request(target, RequestOptions())
    except ValueError:
        assert re.search("[\r\n\0\ud800-\udfff]", (target.user or "") + (target.password or ""))
        return
    assert request.data.startswith(f"GET {target.resource} HTTP/1.1\r\nHost: {target.authority}\r\n".encode())
    assert request.data.count(b"\r\n") == (9 if target.user is not None else 8)


def proxy(source: Input) -> None:
    prefix = source.choice(("", "http://", "https://", "socks5h://", "socks4://", "socks://", "http://[::1"))
    text = prefix + source.text(300)
    try:
        parsed = parse_proxy(text, "proxy")
    except ValueError:
        pass
    else:
        check_proxy(parsed)
    for start in ("http://u:", "http://"):
        try:
            parse_proxy(f"{start}{SECRET}{text}@h", "proxy")
        except ValueError as error:
            message = str(error)
            assert SECRET not in message, (start, text, message)


def check_proxy(parsed: Proxy) -> None:
    assert parsed.host
    assert 0 < parsed.port < 65536
    assert (parsed.user is None) is (parsed.password is None)
    assert parse_proxy(parsed.url, "proxy") == replace(parsed, user=None, password=None, host=without_zone(parsed.host))


def options(source: Input) -> None:
    flags = source.flags(8)

    def some(wanted: bool) -> Any:
        return source.text(source.byte() % 32) if wanted else None

    given = {
        "proxy": some(flags[0]),
        "http_proxy_host": some(flags[1]),
        "http_proxy_port": some(flags[2]) if flags[3] else source.number(),
        "proxy_type": source.choice((None, "http", "socks5", "socks4a", "https", "nonsense")),
        "http_proxy_auth": (some(True), some(flags[4])) if flags[5] else None,
        "http_no_proxy": some(flags[6]) if flags[7] else source.choice((None, [], ["a", ".b"])),
    }
    try:
        parsed = ProxyOptions.parse(given)
    except (ValueError, WebSocketProxyException):
        return
    assert isinstance(parsed.proxy, Proxy) or parsed.proxy in (None, False)
    if isinstance(parsed.proxy, Proxy):
        assert 0 < parsed.proxy.port < 65536
        check_proxy(parsed.proxy)
        chosen = parsed.for_server("example.com", 80, False)
        assert chosen is parsed.proxy or bypasses("example.com", 80, parsed.no_proxy or ())


def no_proxy(source: Input) -> None:
    entries = source.text(source.byte())
    host, port = source.text(source.byte() % 64), source.number()
    listed = [entry for entry in re.split(r"[\s,]+", entries) if entry]
    found = bypasses(host, port, listed)
    assert isinstance(found, bool)
    assert bypasses(host, port, [*listed, "*"])
    assert found or not bypasses(host, None, listed)
    assert found is any(bypasses(host, port, [entry]) for entry in listed)
    name = host.lower().rstrip(".")
    if re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name):
        assert bypasses(host, port, [host])
        assert bypasses(f"www.{host}", port, [f".{name}"]) or re.fullmatch(r"[0-9.]+", name)
    environment(source)


def environment(source: Input) -> None:
    for name in VARIABLES:
        value = os.fsencode(source.text(source.byte() % 32)).replace(b"\0", b"")
        os.environ[name] = os.fsdecode(value)
    try:
        found = ProxyOptions.parse({}).for_server("example.com", 443, source.byte() % 2 == 0)
        assert found is None or isinstance(found, Proxy)
        get_proxy_info("example.com", False)
    except WebSocketProxyException:
        pass
    finally:
        for name in VARIABLES:
            os.environ.pop(name, None)


def cookies(source: Input) -> None:
    lines = []
    while source and len(lines) < 5:
        # As a head gives them: decoded with replacement, without what breaks a line.
        text = source.take(source.byte()).decode("utf-8", "replace")
        lines.append(re.sub("[\r\n\0]", "", text).strip(" \t"))
    STORE.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # how http.cookiejar tells of an exception within itself
        STORE.keep(HERE, lines)
        own = {target: STORE.header(target) for target in (HERE, PLAIN)}
        assert STORE.header(ELSEWHERE) == ""
    for target, cookie in own.items():
        build_request(target, RequestOptions(), cookie=cookie)
        kept = STORE.header(target, "mine=1")
        assert kept.endswith("mine=1")
        build_request(target, RequestOptions(), cookie=kept)
    jar = SimpleCookieJar()
    for line in lines:
        try:
            jar.add(line)
            jar.set(line)
        except CookieError:  # the standard library's, as with websocket-client
            continue
    assert isinstance(jar.get("www.example.com"), str)


def location(source: Input) -> None:
    text = source.take(400).decode("utf-8", "replace")
    for target in (HERE, PLAIN):
        refused = bad_status(302, "Found", {"location": text}, None)
        try:
            result = _redirect_target(target, {"location": text}, refused)
        except WebSocketBadStatusException:
            continue
        assert result.secure or not target.secure
        if result.origin != target.origin:
            assert (result.user, result.password) == (None, None)
        check_target(result)


def target(data: bytes) -> None:
    source = Input(data)
    source.choice((url, proxy, options, no_proxy, cookies, location))(source)


SEEDS = [
    b"\x00\x00wss://us%40er:p%3Aw@ex\xc3\xa4mple.com:8443/p\xc5\xbc?q=%20#frag",
    b"\x00\x01[2001:db8::1%25eth0]:81/a;b?c=d",
    b"\x00\x02EXAMPLE.com.:/",
    b"\x01\x01user:pass%40word@proxy.example:3128/",
    b"\x01\x03[::ffff:1.2.3.4]:1080",
    b"\x01\x00proxy",
    b"\x02\x3e\x05proxy\x048080\x01\x04user\x04word",
    b"\x02\x01\x15socks5h://u:p@h:1080/\x00\x00\x00",
    b"\x03\x2c*.example.com,10.0.0.0/8 [::1]:80 host:8080 ::/0" + b"\x0b10.1.2.3\x00\x50",
    b"\x03\x0eexample.com:80\x0fwww.example.com\x00\x50\x0dproxy:3128/x\x00\x00\x0ehttp://u:p@h:1\x03a,b",
    b"\x04\x2ca=b; Path=/dir; Domain=example.com; Secure; x"
    + b'\x34c="d e"; Expires=Wed, 21 Oct 2065 07:28:00 GMT; HttpOnly',
    b"\x04\x12e=f; Max-Age=10000" + b"\x12g=h; domain=.org; ",
    b"\x04\x06good=1" + b"\x0ebad=2; Max-Age" + b"\x2aa=b; Expires=Wed, 21 Ocp 2065 07:28:00 GMT" + b"\x0ca=b; $domain",
    b"\x00\x01a\xef\xbc\xbbb/",
    b"\x01\x01u%3apw%40h:1",
    b"\x01\x01a%2e%2eb:1",
    b"\x01\x01a\xe2\x80\xa6b:1",
    b"\x02\x0e\x02[]\x0a0000000080",
    b"\x05https://www.example.com:8443/other?x#y",
    b"\x05//user:word@other.example/../a/./b",
    b"\x05?only=query",
]

if __name__ == "__main__":
    run(target, SEEDS, max_len=600)
