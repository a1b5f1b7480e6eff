"""What servers answer to the opening handshake: right, wrong, endless, or nothing like HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketProtocolException,
    create_connection,
)
from websocket._handshake import accept_value
from websocket._http_message import MAX_BODY, MAX_HEADERS
from websocket.testing import Peer, Server

from .certs import Authority

Serve = Callable[..., Server]
Ask = Callable[..., WebSocket]

# What a loaded machine may need on top of a timeout.
GRACE = 5.0


@pytest.fixture
def ask(serve: Serve, authority: Authority, scheme: str) -> Ask:
    """Connects to a server that reads the request and then does as `answer` says: ask(answer, **options)."""

    def connect(answer: Callable[[Peer], Any] | bytes, **options: Any) -> WebSocket:
        def handler(peer: Peer) -> None:
            peer.read_request()
            if isinstance(answer, bytes):
                peer.send_raw(answer)
                peer.half_close()
            else:
                answer(peer)
            while peer.sock.recv(65_536):
                pass  # until the client has gone, so that no reset overtakes the answer

        server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
        options.setdefault("sslopt", {"ca_certs": authority.ca_file})
        return create_connection(server.url, **options)

    return connect


def refused(ask: Ask, answer: Callable[[Peer], Any] | bytes, **options: Any) -> WebSocketBadStatusException:
    """Be refused; the error."""
    with pytest.raises(WebSocketBadStatusException) as caught:
        ask(answer, **options)
    return caught.value


def malformed(ask: Ask, answer: Callable[[Peer], Any] | bytes, match: str, **options: Any) -> None:
    """Be answered in a way that breaks the protocol."""
    with pytest.raises(WebSocketProtocolException, match=match):
        ask(answer, **options)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x;name=value\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# ---- error pages ----


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, "OK"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (404, "Not Found"),
        (426, "Upgrade Required"),
        (500, "Internal Server Error"),
        (503, "Over Capacity, come back"),
    ],
)
def test_any_other_status_is_told_with_all_that_came(ask: Ask, status: int, reason: str) -> None:
    answer = f"HTTP/1.1 {status} {reason}\r\nX-Why: because\r\nContent-Length: 5\r\n\r\nsorry".encode()
    error = refused(ask, answer)
    assert (error.status_code, error.status_message, error.resp_body) == (status, reason, b"sorry")
    assert error.resp_headers is not None
    assert error.resp_headers["x-why"] == "because"
    assert str(error).startswith(f"Handshake status {status} {reason}")


def test_a_status_without_a_reason_has_an_empty_message(ask: Ask) -> None:
    error = refused(ask, b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n")
    assert (error.status_code, error.status_message, error.resp_body) == (404, "", b"")


def open_ended(answer: bytes) -> Callable[[Peer], None]:
    """Send an answer and leave the connection open: the body's own framing must tell where it ends."""
    return lambda peer: peer.send_raw(answer)


HEAD = b"HTTP/1.1 403 Forbidden\r\n"


def test_a_body_ends_with_its_content_length(ask: Ask) -> None:
    assert refused(ask, open_ended(HEAD + b"Content-Length: 4\r\n\r\nbodyand more")).resp_body == b"body"


def test_a_chunked_body_ends_with_its_last_chunk(ask: Ask) -> None:
    body = chunked(b"one ", b"two ", b"t" * 300)
    error = refused(ask, open_ended(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body))
    assert error.resp_body == b"one two " + b"t" * 300


def test_a_body_without_a_framing_ends_with_the_stream(ask: Ask) -> None:
    assert refused(ask, HEAD + b"\r\nto the very end").resp_body == b"to the very end"


def test_a_body_that_comes_byte_by_byte_comes_whole(ask: Ask) -> None:
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"one ", b"two")

    def trickle(peer: Peer) -> None:
        for byte in answer:
            peer.send_raw(bytes([byte]))

    assert refused(ask, trickle).resp_body == b"one two"


def test_a_body_that_breaks_off_is_told_as_far_as_it_came(ask: Ask) -> None:
    assert refused(ask, HEAD + b"Content-Length: 100\r\n\r\nhalf").resp_body == b"half"
    assert refused(ask, HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf").resp_body == b"half"


@pytest.mark.parametrize("framing", ["Content-Length", "chunked", "end of stream"])
def test_a_body_of_a_megabyte_is_cut_at_64_kib(ask: Ask, framing: str) -> None:
    body = bytes(range(256)) * 4096
    answer = (
        HEAD
        + {
            "Content-Length": b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
            "chunked": b"Transfer-Encoding: chunked\r\n\r\n"
            + chunked(*[body[at : at + 9999] for at in range(0, 2**20, 9999)]),
            "end of stream": b"\r\n" + body,
        }[framing]
    )
    error = refused(ask, answer)
    assert error.resp_body == body[:MAX_BODY]
    assert MAX_BODY == 64 * 1024


def flood(head: bytes, piece: bytes) -> Callable[[Peer], None]:
    """Send a head, and then 128 MB of the same bytes: as good as endless, yet a client that has no limit of its own
    fails and does not hang."""

    def handler(peer: Peer) -> None:
        peer.send_raw(head)
        for _ in range(128_000_000 // len(piece)):
            peer.send_raw(piece)

    return handler


@pytest.mark.parametrize(
    ("headers", "piece"),
    [
        (b"Content-Length: 99999999999\r\n\r\n", b"x" * 65_536),
        (b"\r\n", b"x" * 65_536),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n" * 1000),
        # So much in one call that the server needs no turn of the interpreter to keep the client's socket readable.
        (b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n" * 8_000_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65_536),
    ],
    ids=["length", "stream", "chunks", "empty lines for chunks", "endless chunk size"],
)
def test_a_body_without_end_does_not_hold_the_client(ask: Ask, headers: bytes, piece: bytes) -> None:
    # A server that can send without end must not be able to make connect() outlive its deadline.
    start = time.monotonic()
    error = refused(ask, flood(HEAD + headers, piece), timeout=1)
    assert time.monotonic() - start < 1 + GRACE
    assert error.status_code == 403
    assert error.resp_body is not None
    assert len(error.resp_body) <= MAX_BODY


@pytest.mark.parametrize("size", [b"zz", b"-5", b"1g", b""])
def test_a_chunk_without_a_usable_size_ends_the_body(ask: Ask, size: bytes) -> None:
    body = b"3\r\none\r\n" + size + b"\r\ntwo\r\n0\r\n\r\n"
    assert refused(ask, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body).resp_body == b"one"


@pytest.mark.parametrize("length", [b"-1", b"many", b"9" * 30, b"+5", b"5, 5"])
def test_a_content_length_that_is_none_leaves_it_to_the_end_of_the_stream(ask: Ask, length: bytes) -> None:
    assert refused(ask, HEAD + b"Content-Length: " + length + b"\r\n\r\nhello").resp_body == b"hello"


# ---- heads without end, and what is no HTTP ----


def test_headers_without_end_are_cut(ask: Ask) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n"
    malformed(ask, flood(head, b"X-More: and more\r\n" * 10), f"more than {MAX_HEADERS} headers")


def test_a_line_of_ten_megabytes_is_cut(ask: Ask) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nX-Long: "
    malformed(ask, head + b"x" * 10_000_000 + b"\r\n\r\n", "a line of more than 16384 bytes")


def test_a_status_line_of_ten_megabytes_is_cut(ask: Ask) -> None:
    malformed(ask, b"HTTP/1.1 101 " + b"x" * 10_000_000 + b"\r\n\r\n", "a line of more than 16384 bytes")


def test_headers_of_too_many_bytes_in_all_are_cut(ask: Ask) -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(100))
    malformed(ask, b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n", "headers of more than")


def test_empty_lines_without_end_are_cut(ask: Ask) -> None:
    malformed(ask, flood(b"", b"\r\n" * 10_000), "more than")


def test_as_many_headers_as_are_allowed_are_taken(ask: Ask) -> None:
    websocket = ask(lambda peer: peer.accept([f"X-{number}: {number}" for number in range(MAX_HEADERS - 3)]))
    headers = websocket.getheaders()
    assert headers is not None
    assert headers["x-0"] == "0"
    assert len(headers) == MAX_HEADERS
    websocket.shutdown()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/2 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 abc Switching Protocols\r\n\r\n",
        b"HTTP/1.1 99 Too Few\r\n\r\n",
        b"HTTP/1.1 1010 Too Many\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\n\n",
    ],
)
def test_what_is_no_http_is_told_by_how_it_begins(ask: Ask, answer: bytes) -> None:
    malformed(ask, answer + b"\r\n", r"does not speak HTTP/1\.1|NUL")


@pytest.mark.parametrize(
    "line", [b"no colon", b": no name", b"sp ace: x", b"Space : x", b" folded", b"\xff: x", b"a\0: x"]
)
def test_a_line_that_is_no_header_is_named(ask: Ask, line: bytes) -> None:
    malformed(ask, b"HTTP/1.1 101 Switching Protocols\r\n" + line + b"\r\n\r\n", "Invalid header|NUL")


# ---- 101, but not as it should be ----


def switching(peer: Peer, **changes: str | None) -> None:
    """A right answer but for the given headers; None leaves one out."""
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": accept_value(peer.headers["sec-websocket-key"]),
    }
    headers.update(changes)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    peer.send_raw(("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines]) + "\r\n\r\n").encode())


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upgrade", None),
        ("Upgrade", "h2c"),
        ("Connection", None),
        ("Connection", "keep-alive"),
        ("Sec_WebSocket_Accept", None),
        ("Sec_WebSocket_Accept", ""),
        ("Sec_WebSocket_Accept", "dGhlIHdyb25nIGtleSBvZiB0aGUgbG90"),
        ("Sec_WebSocket_Accept", "ümläut"),
        ("Sec_WebSocket_Extensions", "permessage-deflate"),
        ("Sec_WebSocket_Protocol", "chat"),
    ],
)
def test_a_wrong_header_of_a_101_is_named(ask: Ask, header: str, value: str | None) -> None:
    name = header.replace("_", "-").lower()
    malformed(ask, lambda peer: switching(peer, **{header: value}), f"Invalid WebSocket Header: {name}")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upgrade", "WebSocket"),
        ("Connection", "upgrade"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec_WebSocket_Extensions", ""),
    ],
)
def test_spellings_that_the_rfc_allows_are_taken(ask: Ask, header: str, value: str) -> None:
    websocket = ask(lambda peer: switching(peer, **{header: value}))
    assert websocket.connected
    websocket.shutdown()


@pytest.mark.parametrize("chosen", [None, "third", "first, second"])
def test_a_subprotocol_that_was_not_offered_is_refused(ask: Ask, chosen: str | None) -> None:
    malformed(
        ask,
        lambda peer: switching(peer, Sec_WebSocket_Protocol=chosen),
        "sec-websocket-protocol.*first",
        subprotocols=["first", "second"],
    )


def test_a_line_may_end_without_a_carriage_return(ask: Ask) -> None:
    def unix(peer: Peer) -> None:
        accept = accept_value(peer.headers["sec-websocket-key"])
        lines = ["HTTP/1.1 101 Yes", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        peer.send_raw(("\n".join(lines) + "\n\n").encode())

    websocket = ask(unix)
    assert (websocket.getstatus(), websocket.getsubprotocol()) == (101, None)
    websocket.shutdown()


# ---- frames right behind the answer ----


def test_frames_in_the_packet_of_the_answer_are_not_lost(ask: Ask) -> None:
    def eager(peer: Peer) -> None:
        written: list[bytes] = []
        peer.send_raw = written.append  # type: ignore[method-assign]  # what would be packets becomes one
        peer.accept()
        peer.send("one", b"two", "three")
        peer.close(4000, "done")
        del peer.send_raw  # type: ignore[method-assign]
        peer.send_raw(b"".join(written))

    websocket = ask(eager)
    assert [websocket.recv() for _ in range(4)] == ["one", b"two", "three", ""]
    assert websocket.close_frame is not None
    assert websocket.close_frame.data == b"\x0f\xa0done"
    websocket.close()


def test_a_frame_that_begins_in_the_packet_of_the_answer_comes_whole(ask: Ask) -> None:
    def eager(peer: Peer) -> None:
        key = accept_value(peer.headers["sec-websocket-key"]).encode()
        head = b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + key
        peer.send_raw(head + b"\r\n\r\n\x81\x7e\x03")  # a text of 1000 bytes begins
        peer.send_raw(b"\xe8" + b"x" * 1000)

    websocket = ask(eager)
    assert websocket.recv() == "x" * 1000
    websocket.shutdown()


def test_every_error_of_a_handshake_is_a_websocket_exception(ask: Ask) -> None:
    for answer in (HEAD + b"\r\n", b"nonsense\r\n\r\n", b"", b"HTTP/1.1 101 Yes\r\n\r\n"):
        with pytest.raises(WebSocketException):
            ask(answer)
