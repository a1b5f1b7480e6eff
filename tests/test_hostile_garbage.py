"""Answers that are nothing that a WebSocket server says: other protocols, noise, TLS where there should be none and
none where there should be, and answers that were right before something happened to them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionLostException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTLSException,
    create_connection,
)
from websocket._handshake import accept_value
from websocket.testing import Peer, Server

from .certs import Authority
from .hostile_servers import GRACE, end

Serve = Callable[..., Server]
Answer = Callable[[Peer], bytes] | bytes
Ask = Callable[..., WebSocket]

# What is left of a long line in a message, and what comes around it.
LEGIBLE = 1000


@pytest.fixture
def ask(serve: Serve, authority: Authority, scheme: str) -> Ask:
    """Connects to a server that reads the request, answers, and ends the stream: ask(answer, **options). With
    stays=True it leaves the connection open."""

    answers: list[tuple[Answer, bool]] = []

    def handler(peer: Peer) -> None:
        answer, stays = answers[-1]
        peer.read_request()
        peer.send_raw(answer if isinstance(answer, bytes) else answer(peer))
        if stays:
            peer.sock.recv(65_536)
        else:
            end(peer)

    server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)

    def connect(answer: Answer, stays: bool = False, **options: Any) -> WebSocket:
        answers.append((answer, stays))
        return create_connection(server.url, sslopt={"ca_certs": authority.ca_file}, **options)

    return connect


def switching(peer: Peer, *lines: str) -> bytes:
    """A right answer, and further lines in its head."""
    accept = accept_value(peer.headers["sec-websocket-key"])
    head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*head, f"Sec-WebSocket-Accept: {accept}", *lines, "", ""]).encode("latin-1")


# ---- other protocols ----

HTTP2_SETTINGS = (
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00\x00\x06\x00\x01\x00\x00"
)
OTHERS = {
    "SSH": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "SMTP": b"220 mail.example ESMTP Postfix\r\n",
    "HTTP/2": HTTP2_SETTINGS,
    "HTTP/0.9": b"<html><body>It works!</body></html>",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "MySQL": b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00",
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_greeting_of_another_protocol_is_told_by_how_it_begins(ask: Ask, name: str) -> None:
    with pytest.raises(WebSocketProtocolException, match=r"the server does not speak HTTP/1\.1: its answer begins"):
        ask(OTHERS[name])


def test_the_greeting_of_a_server_that_waits_for_more_is_told_at_once(ask: Ask) -> None:
    start = time.monotonic()
    with pytest.raises(WebSocketProtocolException, match=r"the server does not speak HTTP/1\.1: .*SSH-2\.0"):
        ask(OTHERS["SSH"], stays=True, timeout=2)
    assert time.monotonic() - start < 2 + GRACE


@pytest.mark.parametrize(
    "answer",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS,
        b"GET / HTTP/1.1\r\nHost: you\r\n\r\n",
        b"http/1.1 101 Switching Protocols\r\n\r\n",
        b" HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1  101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1\t101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101Switching Protocols\r\n\r\n",
        b"HTTP/1.1 +101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 \uff11\uff10\uff11 Switching Protocols\r\n\r\n".encode(),
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 600 Too Much\r\n\r\n",
        b"HTTP/1.10 101 Switching Protocols\r\n\r\n",
        b"\xef\xbb\xbfHTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\0HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\x81\x05hello\n\n",
    ],
)
def test_a_first_line_that_is_no_status_line_is_shown(ask: Ask, answer: bytes) -> None:
    with pytest.raises(WebSocketProtocolException, match=r"the server does not speak HTTP/1\.1") as caught:
        ask(answer)
    assert repr(answer[:4].decode("utf-8", "replace"))[1:-1] in str(caught.value)


# ---- TLS and none ----


def test_a_server_with_tls_at_a_ws_url_is_an_error_of_the_package(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context())
    with pytest.raises((WebSocketConnectionLostException, WebSocketProtocolException), match=r"the server|handshake"):
        create_connection(f"ws://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", *OTHERS.values()],
    ids=["HTTP/1.1", *OTHERS],
)
def test_a_server_without_tls_at_a_wss_url_is_named_as_such(serve: Serve, answer: bytes) -> None:
    def handler(peer: Peer) -> None:
        peer.sock.recv(65_536)
        peer.send_raw(answer)
        end(peer)

    with pytest.raises(WebSocketTLSException, match=r"TLS handshake with 127\.0\.0\.1 failed: ") as caught:
        create_connection(f"wss://127.0.0.1:{serve(handler, raw=True).port}/")
    if not answer.startswith(b"\x15\x03"):  # which is TLS, in its way
        assert "does the server speak TLS on this port? ws:// is for one that does not" in str(caught.value)


# ---- heads with something wrong in them ----


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("X-Value: a\0b", "a NUL"),
        ("X-\0Name: a", "a NUL"),
        ("X-Value: a\rb", "a bare CR"),
        ("X-Value: a\r\r", "a bare CR"),
        ("\tfolded", "Invalid header"),
        ("X-One: a\r\n two", "Invalid header"),
        ("X-Name : a", "Invalid header"),
        ("Upgrade: websocket", "Invalid WebSocket Header: upgrade is 'websocket, websocket'"),
        ("Sec-WebSocket-Accept: another", "Invalid WebSocket Header: sec-websocket-accept"),
        ("Sec-WebSocket-Extensions: x-unheard-of; a=1", "Invalid WebSocket Header: sec-websocket-extensions"),
        ("Sec-WebSocket-Protocol: ", "Invalid WebSocket Header: sec-websocket-protocol"),
    ],
)
def test_a_line_too_many_in_a_right_answer_is_named(ask: Ask, line: str, match: str) -> None:
    with pytest.raises(WebSocketProtocolException, match=match):
        ask(lambda peer: switching(peer, line)).shutdown()


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5",),
        ("Content-Length: -5",),
        ("Content-Length: 5", "Content-Length: 7"),
        ("Transfer-Encoding: chunked",),
    ],
)
@pytest.mark.parametrize("behind", [b"hello", b"5\r\nhello\r\n0\r\n\r\n"])
def test_what_comes_behind_a_101_is_frames_whatever_its_length_says(
    ask: Ask, lines: tuple[str, ...], behind: bytes
) -> None:
    with ask(lambda peer: switching(peer, *lines) + b"\x81\x02ok") as websocket:
        assert websocket.recv() == "ok"
    with ask(lambda peer: switching(peer, *lines) + behind) as websocket:  # noqa: SIM117
        with pytest.raises(WebSocketProtocolException, match="reserved bits"):
            websocket.recv()


def test_a_101_twice_is_one_and_a_bad_frame(ask: Ask) -> None:
    with ask(lambda peer: switching(peer) + switching(peer)) as websocket:
        assert websocket.getstatus() == 101
        with pytest.raises(WebSocketProtocolException, match="reserved bits 100"):
            websocket.recv()
        assert not websocket.connected


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -5\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 2\r\nContent-Length: 9\r\n",
    ],
    ids=["negative", "twice", "two"],
)
def test_an_error_page_with_an_impossible_length_goes_to_the_end_of_the_stream(ask: Ask, lines: bytes) -> None:
    with pytest.raises(WebSocketBadStatusException, match="Handshake status 404 None Such") as caught:
        ask(b"HTTP/1.1 404 None Such\r\n" + lines + b"\r\nhello")
    assert caught.value.resp_body == b"hello"


def test_control_characters_of_a_reason_do_not_reach_the_message(ask: Ask) -> None:
    with pytest.raises(WebSocketBadStatusException) as caught:
        ask(b"HTTP/1.1 404 \x1b[2Jgone\rover\0\x07\r\nContent-Length: 0\r\n\r\n")
    assert caught.value.status_message == "?[2Jgone?over??"
    assert str(caught.value).isprintable()


# ---- noise ----


def test_noise_is_an_error_of_the_package(ask: Ask) -> None:
    chance = random.Random(6455)
    for _ in range(40):
        noise = chance.randbytes(chance.choice([1, 10, 1000, 40_000]))
        with pytest.raises((WebSocketProtocolException, WebSocketConnectionLostException)) as caught:
            ask(noise)
        assert len(str(caught.value)) < LEGIBLE


TLS_BEGINS = (
    b"\x16\x03\x03",
    b"\x16\x03\x03\x00\x50",
    b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c\x03\x03",
    b"\x15\x03\x03",
)


def test_noise_in_place_of_tls_is_an_error_of_tls(serve: Serve, authority: Authority) -> None:
    chance = random.Random(8446)
    noises = [
        begin + chance.randbytes(chance.choice([1, 10, 1000, 40_000])) for begin in (b"", *TLS_BEGINS) for _ in range(8)
    ]
    left = list(noises)

    def handler(peer: Peer) -> None:
        peer.sock.recv(65_536)
        peer.send_raw(left.pop())
        end(peer)

    url = f"wss://127.0.0.1:{serve(handler, raw=True).port}/"
    for _ in noises:
        with pytest.raises(WebSocketTLSException, match=r"TLS handshake with 127\.0\.0\.1 failed: ") as caught:
            create_connection(url, sslopt={"ca_certs": authority.ca_file})
        assert len(str(caught.value)) < LEGIBLE


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The data with one to three bytes changed, lost, doubled or new."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(result))
        what = chance.randrange(4)
        if what == 0:
            result[at] = chance.choice(b"\r\n\0 :,;\t\xff" + chance.randbytes(3))
        elif what == 1:
            del result[at]
        elif what == 2:
            result.insert(at, result[at])
        else:
            result[at:at] = chance.choice([b"\r\n", b"\n", b"\0", b"\r", b": ", b"\r\n\r\n", b"HTTP/1.1 101 Yes\r\n"])
    return bytes(result)


def test_a_damaged_answer_is_a_right_one_or_an_error_of_the_package(ask: Ask) -> None:
    chance = random.Random(2616)
    outcomes = {True: 0, False: 0}
    for _ in range(150):
        sent: list[bytes] = []
        keys: list[str] = []

        def answer(peer: Peer, sent: list[bytes] = sent, keys: list[str] = keys) -> bytes:
            keys.append(peer.headers["sec-websocket-key"])
            sent.append(damaged(switching(peer, "X-Other: something"), chance))
            return sent[0]

        try:
            websocket = ask(answer)
        except WebSocketException as error:
            outcomes[False] += 1
            assert len(str(error)) < LEGIBLE
            continue
        websocket.shutdown()
        outcomes[True] += 1
        head = sent[0].partition(b"\n\r\n")[0].lower()
        assert head.lstrip().startswith(b"http/1.")
        assert accept_value(keys[0]).encode().lower() in head
        assert b"websocket" in head
    assert min(outcomes.values()) > 10
