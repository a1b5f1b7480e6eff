"""websocket-client's function handshake(), against a server on a thread that follows a script."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from websocket import WebSocketBadStatusException, WebSocketException, WebSocketProtocolException
from websocket._handshake import accept_value, handshake

from .conftest import PATIENCE, background


def shake(script: str, after: bytes = b"", **options: Any) -> tuple[Any, str, bytes]:
    """handshake() with a server on a thread that answers by the script; "ACCEPT" stands for the right value.
    Returns the result, the request, and what is left to read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        theirs.settimeout(PATIENCE)

        def serve() -> str:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += theirs.recv(65536)
            key = next(
                line.partition(": ")[2]
                for line in request.decode().split("\r\n")
                if line.lower().startswith("sec-websocket-key")
            )
            theirs.sendall(script.replace("ACCEPT", accept_value(key)).encode() + after)
            theirs.shutdown(socket.SHUT_WR)
            return request.decode()

        served = background(serve)
        try:
            result = handshake(ours, "ws://h:1/p", "h", 1, "/p", **options)
        finally:
            request = served()
        return result, request, ours.recv(65536)


GOOD = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n"


def test_handshake_leaves_the_first_frame_on_the_socket() -> None:
    script = GOOD + "Sec-WebSocket-Protocol: chat\r\n\r\n"
    options: dict[str, Any] = {"subprotocols": ["chat"], "cookie": "a=1", "header": {"X-Own": "y"}}
    result, request, rest = shake(script, b"\x81\x02hi", **options)
    assert (result.status, result.subprotocol) == (101, "chat")
    assert result.headers["upgrade"] == "websocket"
    assert rest == b"\x81\x02hi"
    assert request.startswith("GET /p HTTP/1.1\r\nHost: h:1\r\n")
    assert "\r\nCookie: a=1\r\n" in request
    assert "\r\nX-Own: y\r\n" in request


def test_handshake_gives_a_redirect_to_its_caller() -> None:
    result, _, _ = shake("HTTP/1.1 302 Found\r\nLocation: ws://other/\r\n\r\n")
    assert (result.status, result.headers["location"], result.subprotocol) == (302, "ws://other/", None)


def test_handshake_reports_another_status() -> None:
    with pytest.raises(WebSocketBadStatusException, match="Handshake status 403 No") as caught:
        shake("HTTP/1.1 403 No\r\nX: y\r\n\r\n")
    assert (caught.value.status_code, caught.value.resp_headers) == (403, {"x": "y"})


def test_handshake_reports_a_wrong_accept_value() -> None:
    with pytest.raises(WebSocketProtocolException, match="sec-websocket-accept"):
        shake(GOOD.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") + "\r\n")


@pytest.mark.parametrize("script", ["", "HTTP/1.1 101 x\r\nUpgr"])
def test_handshake_reports_an_end_of_the_stream(script: str) -> None:
    with pytest.raises(WebSocketException, match="closed the connection"):
        shake(script)


def test_handshake_refuses_a_resource_that_breaks_out_of_its_line() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        theirs.setblocking(False)
        theirs.sendall(b"HTTP/1.1 400 x\r\n\r\n")  # the handshake must not get as far as to read it
        with pytest.raises(ValueError, match=r"must not be|invalid"):
            handshake(ours, "ws://h/", "h", 80, "/x HTTP/1.1\r\nEvil: 1\r\nX: ")
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
