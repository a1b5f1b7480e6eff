"""The opening handshake as bytes: what is asked, and how an answer is judged."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from websocket import WebSocketProtocolException
from websocket._handshake import Request, RequestOptions, accept_value, bad_status, build_request, check_response
from websocket._http_message import HeadParser, parse_status_line
from websocket._url import Target, parse_target

SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def build(url: str = "ws://example.com/chat", cookie: str = "", credentials: bool = True, **options: Any) -> Request:
    return build_request(parse_target(url), RequestOptions(**options), cookie=cookie, credentials=credentials)


def lines(request: Request) -> list[str]:
    head, end, rest = request.data.decode().partition("\r\n\r\n")
    assert (end, rest) == ("\r\n\r\n", "")
    return head.split("\r\n")


def fields(request: Request) -> dict[str, list[str]]:
    """Name as sent -> values."""
    found: dict[str, list[str]] = {}
    for line in lines(request)[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name, []).append(value)
    return found


# ---- the request


def test_a_plain_request_holds_what_the_rfc_demands() -> None:
    request = build("ws://example.com:8080/chat?room=1")
    assert lines(request)[0] == "GET /chat?room=1 HTTP/1.1"
    assert fields(request) == {
        "Host": ["example.com:8080"],
        "Upgrade": ["websocket"],
        "Connection": ["Upgrade"],
        "Origin": ["http://example.com:8080"],
        "Sec-WebSocket-Key": [request.key],
        "Sec-WebSocket-Version": ["13"],
    }
    assert len(base64.b64decode(request.key, validate=True)) == 16
    assert lines(request)[1].startswith("Host:"), "RFC 9110 7.2: Host first"


def test_each_request_has_a_key_of_its_own() -> None:
    assert len({build().key for _ in range(100)}) == 100


def test_the_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value(SAMPLE_KEY) == SAMPLE_ACCEPT


@pytest.mark.parametrize(
    ("url", "host", "origin"),
    [
        ("ws://h/", "h", "http://h"),
        ("ws://h:80/", "h", "http://h"),
        ("ws://h:443/", "h:443", "http://h:443"),
        ("wss://h:443/", "h", "https://h"),
        ("wss://h:80/", "h:80", "https://h:80"),
        ("ws://[::1]:9/", "[::1]:9", "http://[::1]:9"),
        ("wss://exämple.com/", "xn--exmple-cua.com", "https://xn--exmple-cua.com"),
    ],
)
def test_host_and_origin_come_from_the_url(url: str, host: str, origin: str) -> None:
    assert fields(build(url))["Host"] == [host]
    assert fields(build(url))["Origin"] == [origin]


@pytest.mark.parametrize(
    "header",
    [
        {"X-One": "1", "X-Two": "two", "X-None": None, "X-Number": 5},
        {"X-One": " 1", "X-Two": "two\t", "X-Number": " 5 "},
        ["X-One: 1", "X-Two:two", None, "X-Number:  5 "],
        ("X-One: 1", "X-Two: two", "X-Number: 5"),
    ],
)
def test_own_headers_are_sent(header: Any) -> None:
    sent = fields(build(header=header))
    assert {name: value for name, value in sent.items() if name.startswith("X-")} == {
        "X-One": ["1"],
        "X-Two": ["two"],
        "X-Number": ["5"],
    }


def test_own_headers_of_one_name_are_all_sent() -> None:
    assert fields(build(header=["X-A: 1", "X-A: 2"]))["X-A"] == ["1", "2"]


def test_a_header_value_may_be_empty_or_hold_colons() -> None:
    sent = fields(build(header=["X-Empty:", "X-Colons: a:b: c"]))
    assert (sent["X-Empty"], sent["X-Colons"]) == ([""], ["a:b: c"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hOsT", "other"),
        ("origin", "http://other"),
        ("USER-agent", "me"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "8"),
        ("authorization", "Bearer x"),
        ("cookie", "a=own"),
        ("sec-websocket-protocol", "own"),
    ],
)
def test_an_own_header_replaces_ours_whatever_its_case(name: str, value: str) -> None:
    request = build("ws://u:p@example.com/", cookie="a=ours", subprotocols=["ours"], header={name: value})
    assert [(key, sent) for key, sent in fields(request).items() if key.lower() == name.lower()] == [(name, [value])]


@pytest.mark.parametrize(
    ("given", "key"), [(SAMPLE_KEY, SAMPLE_KEY), (f" {SAMPLE_KEY}\t", SAMPLE_KEY), ("", ""), (" ", "")]
)
def test_an_own_key_is_what_the_answer_is_held_against(given: str, key: str) -> None:
    for header in ({"sec-websocket-KEY": given}, [f"sec-websocket-KEY: {given}"]):
        request = build(header=header)
        assert request.key == key
        assert fields(request)["sec-websocket-KEY"] == [key]
        assert request.data.lower().count(b"sec-websocket-key") == 1


def test_subprotocols_of_an_own_header_count_as_offered() -> None:
    one = build(header={"Sec-WebSocket-Protocol": "chat, superchat"})
    two = build(header=["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: superchat"])
    for request in (one, two):
        for chosen in ("chat", "superchat"):
            assert check_response(answer(request, {"Sec-WebSocket-Protocol": chosen}), request) == chosen


@pytest.mark.parametrize(("offered", "expected"), [("", ()), (" ", ()), (", ,", ()), ("a,, b ,", ("a", "b"))])
def test_empty_elements_of_an_own_header_are_no_subprotocols(offered: str, expected: tuple[str, ...]) -> None:
    request = build(header={"Sec-WebSocket-Protocol": offered})
    assert request.subprotocols == expected


def test_the_options_set_their_headers() -> None:
    request = build(cookie="a=1; b=2", origin="https://o", host="h:1", subprotocols=["chat", "superchat"])
    sent = fields(request)
    assert sent["Cookie"] == ["a=1; b=2"]
    assert sent["Origin"] == ["https://o"]
    assert sent["Host"] == ["h:1"]
    assert sent["Sec-WebSocket-Protocol"] == ["chat,superchat"]
    assert request.subprotocols == ("chat", "superchat")


def test_host_and_origin_can_be_left_out() -> None:
    sent = fields(build(suppress_origin=True, suppress_host=True, origin="x", host="y"))
    assert "Origin" not in sent
    assert "Host" not in sent


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (None, "Upgrade"),
        ("", "Upgrade"),
        ("keep-alive, Upgrade", "keep-alive, Upgrade"),
        ("Connection: Upgrade", "Upgrade"),
        ("connection:keep-alive, Upgrade ", "keep-alive, Upgrade"),
    ],
)
def test_connection_may_be_a_value_or_the_whole_line(connection: str | None, expected: str) -> None:
    assert fields(build(connection=connection))["Connection"] == [expected]


@pytest.mark.parametrize(
    ("url", "pair"),
    [("ws://u:p@h/", "u:p"), ("ws://u@h/", "u:"), ("ws://:p@h/", ":p"), ("ws://%C5%BC:a%40%3Ab@h/", "ż:a@:b")],
)
def test_credentials_of_the_url_are_sent_as_basic(url: str, pair: str) -> None:
    expected = "Basic " + base64.b64encode(pair.encode()).decode()
    assert fields(build(url))["Authorization"] == [expected]


def test_no_credentials_follow_where_they_are_not_wanted() -> None:
    header = ["authorization: x", "COOKIE: y", "Proxy-Authorization: z", "X-Other: stays"]
    sent = fields(build("ws://u:p@h/", credentials=False, header=header))
    assert {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in sent} == set()
    assert sent["X-Other"] == ["stays"]


def test_credentials_are_not_in_the_repr() -> None:
    assert "p4ss" not in repr(build("ws://u:p@h/", header={"X": "p4ss"}))


BREAKS = ["\r", "\n", "\0", "\r\nEvil: 1", "\n\n"]


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize(
    "options",
    [
        {"header": {"X": "a@"}},
        {"header": {"X@": "a"}},
        {"header": ["X: a@"]},
        {"header": ["X@: a"]},
        {"origin": "a@"},
        {"host": "a@"},
        {"connection": "a@"},
        {"subprotocols": ["a@"]},
        {"cookie": "a@"},
    ],
)
def test_a_line_break_or_nul_in_an_option_is_refused(options: dict[str, Any], bad: str) -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {spoil(name): spoil(item) for name, item in value.items()}
        return [spoil(item) for item in value] if isinstance(value, list) else value.replace("@", bad)

    with pytest.raises(ValueError, match=r"must not be|invalid"):
        build(**{name: spoil(value) for name, value in options.items()})


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize(
    "url", ["ws://h/@", "ws://h@/", "ws://h/?@", "ws://u@:p@h/", "ws://h/#@", "@ws://h/", "ws://h:8@/"]
)
def test_a_line_break_or_nul_in_the_url_is_refused(url: str, bad: str) -> None:
    before, _, after = url.partition("@")
    with pytest.raises(ValueError, match="url"):
        build(before + bad + after)


@pytest.mark.parametrize("code", ["%0a", "%0d", "%00", "%0AEvil:x"])
def test_an_encoded_line_break_in_an_ipv6_zone_does_not_reach_the_request(code: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        build(f"ws://[::1{code}]/")


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("target", [("h@", "/"), ("h", "/@")])
def test_a_line_break_in_a_target_that_no_url_was_parsed_for_is_refused(target: tuple[str, str], bad: str) -> None:
    host, resource = (part.replace("@", bad) for part in target)
    with pytest.raises(ValueError, match=r"must not be|invalid"):
        build_request(Target(host, 80, resource, False), RequestOptions())


@pytest.mark.parametrize(
    "header", ["X: a", b"X: a", 5, ["no colon"], [": no name"], {"": "x"}, {"a b": "x"}, {5: "x"}, [b"X: a"]]
)
def test_headers_of_another_form_are_refused(header: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        build(header=header)


@pytest.mark.parametrize("subprotocols", ["chat", [""], ["a b"], ["a,b"], [5]])
def test_subprotocols_that_are_no_list_of_names_are_refused(subprotocols: Any) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        build(subprotocols=subprotocols)


# ---- the answer


def answer(request: Request, changes: dict[str, str | None] | None = None) -> HeadParser:
    """A good answer to the request, with some headers changed or (None) left out."""
    given: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_value(request.key),
        **(changes or {}),
    }
    head = HeadParser()
    text = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    assert head.feed(f"HTTP/1.1 101 Switching Protocols\r\n{text}\r\n".encode())
    return head


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, upgrade"},
        {"Connection": "UPGRADE"},
        {"X-Other": "x"},
        {"Sec-WebSocket-Extensions": ""},
    ],
)
def test_a_good_answer_is_accepted(changes: dict[str, str | None]) -> None:
    request = build()
    assert check_response(answer(request, changes), request) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", None),
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket, h2c"),
        ("Connection", None),
        ("Connection", "close"),
        ("Connection", "NotUpgrade"),
        ("Sec-WebSocket-Accept", None),
        ("Sec-WebSocket-Accept", ""),
        ("Sec-WebSocket-Accept", SAMPLE_ACCEPT),
        ("Sec-WebSocket-Accept", "zażółć"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Protocol", "chat"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_refused_by_the_name_of_its_header(name: str, value: str | None) -> None:
    request = build()
    with pytest.raises(WebSocketProtocolException, match=name.lower()):
        check_response(answer(request, {name: value}), request)


def test_the_chosen_subprotocol_is_given() -> None:
    request = build(subprotocols=["chat", "superchat"])
    for chosen in ("chat", "superchat", "SuperChat"):
        assert check_response(answer(request, {"Sec-WebSocket-Protocol": chosen}), request) == chosen


@pytest.mark.parametrize("chosen", [None, "", "other", "chat, superchat"])
def test_a_subprotocol_that_was_not_offered_is_refused(chosen: str | None) -> None:
    request = build(subprotocols=["chat", "superchat"])
    with pytest.raises(WebSocketProtocolException, match="sec-websocket-protocol"):
        check_response(answer(request, {"Sec-WebSocket-Protocol": chosen}), request)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HTTP/1.1 101 Switching Protocols", (101, "Switching Protocols")),
        ("HTTP/1.1 404", (404, "")),
        ("HTTP/1.1 404 ", (404, "")),
        ("HTTP/1.0 500 Oh no", (500, "Oh no")),
        ("HTTP/1.1 599 zażółć", (599, "zażółć")),
    ],
)
def test_a_status_line_is_taken_apart(line: str, expected: tuple[int, str]) -> None:
    assert parse_status_line(line) == expected


@pytest.mark.parametrize(
    "line",
    ["", "HTTP/2 200", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099 x", "HTTP/1.1 600 x", "SSH-2.0-x"],
)
def test_what_is_no_status_line_is_refused_and_quoted(line: str) -> None:
    with pytest.raises(WebSocketProtocolException, match=f"{line!r}$"):
        parse_status_line(line)


def test_a_bad_status_is_worded_as_websocket_client_does() -> None:
    error = bad_status(404, "Not Found", {"a": "b"}, b"gone")
    assert str(error) == "Handshake status 404 Not Found -+-+- {'a': 'b'} -+-+- b'gone'"
    assert (error.status_code, error.status_message) == (404, "Not Found")
    assert (error.resp_headers, error.resp_body) == ({"a": "b"}, b"gone")
    assert str(bad_status(500, "", {}, None)) == "Handshake status 500  -+-+- {} -+-+- None"
