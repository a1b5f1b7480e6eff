"""Redirects of the opening handshake: which are followed, where to, and what is told to whom."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket import WebSocket, WebSocketBadStatusException, WebSocketCertificateException, create_connection
from websocket._cookiejar import cookies
from websocket.testing import Peer, Server

from .certs import Authority

Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def _no_cookies() -> Iterator[None]:
    """The store serves the whole process; each test starts with an empty one and leaves an empty one."""
    cookies.clear()
    yield
    cookies.clear()


def redirect(peer: Peer, location: str | None, status: str = "302 Found", *headers: str) -> None:
    """Answer with a redirect."""
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", *headers]
    if location is not None:
        lines.append(f"Location: {location}")
    peer.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode())


def routes(**answers: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """A raw handler that answers by the first word of the path and otherwise greets with the path."""

    def handler(peer: Peer) -> None:
        peer.read_request()
        answer = answers.get(peer.path.strip("/").partition("?")[0].partition("/")[0])
        if answer is not None:
            answer(peer)
        else:
            greet(peer)

    return handler


def greet(peer: Peer) -> None:
    """Accept, tell the path that was asked for, and close."""
    peer.accept()
    peer.send(peer.path)
    peer.recv()
    peer.finish()


def moved(location: str, status: str = "302 Found", *headers: str) -> Callable[[Peer], None]:
    return lambda peer: redirect(peer, location, status, *headers)


def reach(url: str, **options: Any) -> str | bytes:
    """Connect; the path that the server in the end was asked for."""
    with create_connection(url, **options) as websocket:
        return websocket.recv()


def elsewhere(serve: Serve, where: Server, path: str = "there", **options: Any) -> Server:
    """A server that sends every client on to another one."""
    return serve(routes(go=moved(f"{where.url}{path}")), raw=True, **options)


@pytest.mark.parametrize(
    "status",
    ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"],
)
def test_each_kind_of_redirect_is_followed(serve: Serve, status: str) -> None:
    server = serve(routes(go=moved("/there?x=1", status)), raw=True)
    assert reach(server.url + "go") == "/there?x=1"
    assert [peer.path for peer in server.peers] == ["/go", "/there?x=1"]


@pytest.mark.parametrize("status", ["300 Multiple Choices", "304 Not Modified", "305 Use Proxy"])
def test_other_statuses_of_the_300s_are_not_followed(serve: Serve, status: str) -> None:
    server = serve(routes(go=moved("/there", status)), raw=True)
    with pytest.raises(WebSocketBadStatusException, match=f"Handshake status {status}") as caught:
        create_connection(server.url + "go")
    assert caught.value.status_code == int(status[:3])
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/there", "/there"),
        ("there", "/go/there"),
        ("../there", "/there"),
        ("?query=1", "/go/further?query=1"),
        ("/a%20b?c=%2F", "/a%20b?c=%2F"),
        ("/there#fragment", "/there"),
        ("//127.0.0.1:{port}/there", "/there"),
        ("ws://127.0.0.1:{port}/there", "/there"),
        ("http://127.0.0.1:{port}/there", "/there"),
        ("HTTP://127.0.0.1:{port}/there", "/there"),
    ],
)
def test_a_location_is_resolved_against_the_url_that_answered(serve: Serve, location: str, path: str) -> None:
    def go(peer: Peer) -> None:
        if peer.path == "/go/further":
            redirect(peer, location.format(port=peer.server.port))
        else:
            greet(peer)

    server = serve(routes(go=go), raw=True)
    assert reach(server.url + "go/further") == path


@pytest.mark.parametrize("kind", ["wss", "https"])
def test_a_redirect_may_lead_from_ws_to_wss(serve: Serve, authority: Authority, kind: str) -> None:
    secure = serve(routes(), ssl_context=authority.server_context(), raw=True)
    server = serve(routes(go=moved(f"{kind}://127.0.0.1:{secure.port}/there")), raw=True)
    with create_connection(server.url + "go", sslopt={"ca_certs": authority.ca_file}) as websocket:
        assert websocket.recv() == "/there"
        assert websocket.is_ssl()


@pytest.mark.parametrize("kind", ["ws", "http"])
def test_a_redirect_never_leads_out_of_tls(serve: Serve, authority: Authority, kind: str) -> None:
    plain = serve(routes(), raw=True)
    location = f"{kind}://127.0.0.1:{plain.port}/there"
    secure = serve(routes(go=moved(location)), ssl_context=authority.server_context(), raw=True)
    with pytest.raises(WebSocketBadStatusException, match="leave TLS") as caught:
        create_connection(secure.url + "go", sslopt={"ca_certs": authority.ca_file})
    assert caught.value.status_code == 302
    reach(plain.url)
    assert len(plain.peers) == 1  # accepted in order of arrival, so nobody came before this one


def test_relative_redirects_stay_within_tls(serve: Serve, authority: Authority) -> None:
    server = serve(routes(go=moved("/there")), ssl_context=authority.server_context(), raw=True)
    assert reach(server.url + "go", sslopt={"ca_certs": authority.ca_file}) == "/there"


def test_the_certificate_of_the_redirects_target_is_verified(serve: Serve, authority: Authority) -> None:
    other = serve(routes(), ssl_context=authority.server_context("other.example"), raw=True)
    server = elsewhere(serve, other, ssl_context=authority.server_context())
    with pytest.raises(WebSocketCertificateException, match="another host"):
        create_connection(server.url + "go", sslopt={"ca_certs": authority.ca_file})


def chain(peer: Peer) -> None:
    """/go/3 leads to /go/2, to /go/1, to /there."""
    left = int(peer.path.rpartition("/")[2])
    redirect(peer, f"/go/{left - 1}" if left > 1 else "/there")


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_as_many_redirects_as_the_limit_allows_are_followed(serve: Serve, limit: int) -> None:
    server = serve(routes(go=chain), raw=True)
    assert reach(f"{server.url}go/{limit}", redirect_limit=limit) == "/there"
    with pytest.raises(WebSocketBadStatusException, match=f"redirect_limit={limit}") as caught:
        create_connection(f"{server.url}go/{limit + 1}", redirect_limit=limit)
    assert caught.value.status_code == 302


def test_three_redirects_are_followed_unless_the_program_says_otherwise(serve: Serve) -> None:
    server = serve(routes(go=chain), raw=True)
    assert reach(f"{server.url}go/3") == "/there"
    with pytest.raises(WebSocketBadStatusException, match="redirect_limit=3"):
        create_connection(f"{server.url}go/4")


def test_with_a_limit_of_zero_a_redirect_is_an_answer_like_any_other(serve: Serve) -> None:
    def go(peer: Peer) -> None:
        peer.send_raw(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 5\r\n\r\nthere")

    server = serve(routes(go=go), raw=True)
    with pytest.raises(WebSocketBadStatusException) as caught:
        create_connection(server.url + "go", redirect_limit=0)
    error = caught.value
    assert (error.status_code, error.status_message, error.resp_body) == (302, "Found", b"there")
    assert error.resp_headers is not None
    assert error.resp_headers["location"] == "/there"
    assert len(server.peers) == 1


def test_a_loop_is_recognised_before_the_limit(serve: Serve) -> None:
    server = serve(routes(go=moved("/back"), back=moved("/go")), raw=True)
    with pytest.raises(WebSocketBadStatusException, match="loop"):
        create_connection(server.url + "go", redirect_limit=100)
    assert [peer.path for peer in server.peers] == ["/go", "/back"]


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/", "ws://", "ws:///path", "ws://host:port/", "ws://[::1/", "mailto:somebody", "ws://a b/"],
)
def test_an_unusable_location_is_named_in_the_error(serve: Serve, location: str) -> None:
    server = serve(routes(go=moved(location)), raw=True)
    with pytest.raises(WebSocketBadStatusException, match="Location") as caught:
        create_connection(server.url + "go")
    assert location in str(caught.value)
    assert caught.value.status_code == 302


@pytest.mark.parametrize("location", [None, ""])
def test_a_redirect_without_a_location_is_an_error(serve: Serve, location: str | None) -> None:
    server = serve(routes(go=lambda peer: redirect(peer, location)), raw=True)
    with pytest.raises(WebSocketBadStatusException, match="no Location"):
        create_connection(server.url + "go")


def test_a_redirect_to_where_nobody_listens_is_a_refused_connection(serve: Serve) -> None:
    gone = serve(routes(), raw=True)
    gone.close()
    server = elsewhere(serve, gone)
    with pytest.raises(ConnectionRefusedError):
        create_connection(server.url + "go")


# ---- what is told to whom ----

SECRETS = {
    "header": ["Authorization: Bearer secret", "Proxy-Authorization: Basic secret", "X-Plain: kept"],
    "cookie": "session=secret",
}


def with_user(url: str) -> str:
    return url.replace("ws://", "ws://user:p%40ss@", 1)


def test_credentials_go_to_the_same_server(serve: Serve) -> None:
    server = serve(routes(go=moved("/there")), raw=True)
    reach(server.url + "go", **SECRETS)
    assert len(server.peers) == 2
    for peer in server.peers:
        assert peer.headers["authorization"] == "Bearer secret"
        assert peer.headers["cookie"] == "session=secret"
        assert peer.headers["x-plain"] == "kept"


def test_user_and_password_of_the_url_go_to_the_same_server(serve: Serve) -> None:
    server = serve(routes(go=moved("/there")), raw=True)
    reach(with_user(server.url) + "go")
    expected = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert [peer.headers["authorization"] for peer in server.peers] == [expected, expected]


def test_credentials_do_not_go_to_another_port(serve: Serve) -> None:
    other = serve(routes(), raw=True)
    server = elsewhere(serve, other)
    reach(server.url + "go", **SECRETS)
    (peer,) = other.peers
    assert not {"authorization", "cookie", "proxy-authorization"} & peer.headers.keys()
    assert peer.headers["x-plain"] == "kept"


def test_a_cookie_header_of_the_program_does_not_go_to_another_port(serve: Serve) -> None:
    other = serve(routes(), raw=True)
    server = elsewhere(serve, other)
    reach(server.url + "go", header={"Cookie": "session=secret", "COOKIE2": "x"})
    assert server.peers[0].headers["cookie"] == "session=secret"
    assert "cookie" not in other.peers[0].headers


def test_user_and_password_of_the_url_do_not_go_to_another_port(serve: Serve) -> None:
    other = serve(routes(), raw=True)
    server = elsewhere(serve, other)
    reach(with_user(server.url) + "go")
    assert "authorization" in server.peers[0].headers
    assert "authorization" not in other.peers[0].headers


def test_credentials_do_not_go_to_another_name_of_the_same_machine(serve: Serve) -> None:
    server = serve(routes(go=lambda peer: redirect(peer, f"ws://localhost:{peer.server.port}/there")), raw=True)
    reach(with_user(server.url) + "go", **SECRETS)
    assert server.peers[0].headers["cookie"] == "session=secret"
    assert not {"authorization", "cookie"} & server.peers[1].headers.keys()


def test_host_and_origin_are_those_of_the_redirects_target(serve: Serve) -> None:
    other = serve(routes(), raw=True)
    server = elsewhere(serve, other)
    reach(server.url + "go", host="front.example")
    assert server.peers[0].headers["host"] == "front.example"
    assert other.peers[0].headers["host"] == f"127.0.0.1:{other.port}"


# ---- cookies ----


def test_a_cookie_that_a_redirect_sets_is_sent_on(serve: Serve) -> None:
    server = serve(routes(go=moved("/there", "302 Found", "Set-Cookie: visited=go", "Set-Cookie: b=2")), raw=True)
    reach(server.url + "go")
    assert "cookie" not in server.peers[0].headers
    assert sorted(server.peers[1].headers["cookie"].split("; ")) == ["b=2", "visited=go"]


def accept_with(*set_cookies: str) -> Callable[[Peer], None]:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept([f"Set-Cookie: {cookie}" for cookie in set_cookies])
        peer.send(peer.path)
        peer.recv()
        peer.finish()

    return handler


def sent_cookies(server: Server, path: str = "", **options: Any) -> set[str]:
    """The cookies that the server gets with a handshake for the path."""
    reach(server.url + path, **options)
    return set(filter(None, server.peers[-1].headers.get("cookie", "").split("; ")))


def test_a_cookie_of_a_handshake_is_sent_with_the_next_one(serve: Serve) -> None:
    server = serve(accept_with("session=1"), raw=True)
    assert sent_cookies(server) == set()
    assert sent_cookies(server) == {"session=1"}


def test_a_cookie_of_an_error_page_is_sent_with_the_next_handshake(serve: Serve) -> None:
    def login(peer: Peer) -> None:
        peer.send_raw(b"HTTP/1.1 401 Unauthorized\r\nSet-Cookie: token=1\r\nContent-Length: 0\r\n\r\n")

    server = serve(routes(login=login), raw=True)
    with pytest.raises(WebSocketBadStatusException):
        create_connection(server.url + "login")
    assert sent_cookies(server) == {"token=1"}


def test_cookies_are_scoped_by_path(serve: Serve) -> None:
    server = serve(accept_with("deep=1; Path=/deep", "all=2; Path=/"), raw=True)
    sent_cookies(server, "deep/x")
    assert sent_cookies(server, "deep/y") == {"deep=1", "all=2"}
    assert sent_cookies(server, "deeper") == {"all=2"}
    assert sent_cookies(server) == {"all=2"}


def test_cookies_are_scoped_by_host(serve: Serve) -> None:
    server = serve(accept_with("session=1"), raw=True)
    sent_cookies(server)
    reach(f"ws://localhost:{server.port}/")
    assert "cookie" not in server.peers[-1].headers


def test_cookies_for_another_domain_are_ignored(serve: Serve) -> None:
    server = serve(accept_with("stolen=1; Domain=example.org", "own=2"), raw=True)
    sent_cookies(server)
    assert sent_cookies(server) == {"own=2"}


def test_secure_cookies_are_sent_over_tls_only(serve: Serve, authority: Authority) -> None:
    secure = serve(accept_with("locked=1; Secure", "open=2"), ssl_context=authority.server_context(), raw=True)
    plain = serve(accept_with(), raw=True)
    sslopt = {"ca_certs": authority.ca_file}
    sent_cookies(secure, sslopt=sslopt)
    assert sent_cookies(secure, sslopt=sslopt) == {"locked=1", "open=2"}
    assert sent_cookies(plain) == {"open=2"}  # RFC 6265 8.5: cookies know no ports


def test_an_expired_cookie_is_forgotten(serve: Serve) -> None:
    server = serve(accept_with("session=1"), raw=True)
    sent_cookies(server)
    end = serve(accept_with("session=; Max-Age=0"), raw=True)
    assert sent_cookies(end) == {"session=1"}
    assert sent_cookies(server) == set()


def test_the_programs_own_cookie_wins_over_a_kept_one_of_its_name(serve: Serve) -> None:
    server = serve(accept_with("session=kept", "other=kept"), raw=True)
    sent_cookies(server)
    assert sent_cookies(server, cookie="session=own; more=own") == {"session=own", "more=own", "other=kept"}


def test_a_websocket_object_follows_redirects_each_time_it_connects(serve: Serve) -> None:
    server = serve(routes(go=moved("/there")), raw=True)
    websocket = WebSocket()
    for _ in range(2):
        websocket.connect(server.url + "go")
        assert websocket.recv() == "/there"
        websocket.close()
    assert [peer.path for peer in server.peers] == ["/go", "/there"] * 2
