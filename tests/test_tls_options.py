"""TLS of wss connections: versions, ciphers, the keys of sslopt that shape the session, and peers that speak no TLS."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTLSException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority
from .test_tls import talk

Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBSOCKET_CLIENT_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


@pytest.fixture
def secure_server(serve: Serve, authority: Authority) -> Server:
    return serve(ssl_context=authority.server_context())


# ---- versions and ciphers ----


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(serve: Serve, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.server_context()
    context.minimum_version = context.maximum_version = version
    spoken, _ = talk(serve(ssl_context=context).url, ca_certs=authority.ca_file)
    assert spoken == version.name.replace("_", ".")


def server_of_tls_1_1(authority: Authority) -> ssl.SSLContext:
    """A context for a server that speaks nothing newer than TLS 1.1."""
    context = authority.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # at higher levels OpenSSL 3 does without TLS 1.1
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=server_of_tls_1_1(authority))
    with pytest.raises(WebSocketTLSException, match=r"(?i)version|protocol"):
        talk(server.url, ca_certs=authority.ca_file)
    # Not because such a server could not be reached by anybody: a client that wants to can.
    willing = ssl.create_default_context(cafile=authority.ca_file)
    willing.set_ciphers("ALL:@SECLEVEL=0")
    willing.minimum_version = ssl.TLSVersion.TLSv1
    assert talk(server.url, context=willing)[0] == "TLSv1.1"


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.PROTOCOL_TLS_CLIENT, "TLSv1.3"), (ssl.PROTOCOL_TLS, "TLSv1.3"), (ssl.PROTOCOL_TLSv1_2, "TLSv1.2")],
)
def test_ssl_version_chooses_the_version(
    secure_server: Server, authority: Authority, version: Any, spoken: str
) -> None:
    assert talk(secure_server.url, ca_certs=authority.ca_file, ssl_version=version)[0] == spoken


@pytest.mark.parametrize("version", [ssl.PROTOCOL_TLSv1, ssl.PROTOCOL_TLS_SERVER, "TLSv1.2"])
def test_an_ssl_version_that_is_of_no_use_is_an_error(secure_server: Server, version: Any) -> None:
    with pytest.raises(ValueError, match="ssl_version"):
        talk(secure_server.url, ssl_version=version)


def test_ciphers_chooses_the_cipher(secure_server: Server, authority: Authority) -> None:
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    _, (used, *_) = talk(
        secure_server.url, ca_certs=authority.ca_file, ciphers=cipher, ssl_version=ssl.PROTOCOL_TLSv1_2
    )
    assert used == cipher


@pytest.mark.parametrize(("key", "value"), [("ciphers", "NO-SUCH-CIPHER"), ("ecdh_curve", "no-such-curve")])
def test_ciphers_and_curves_that_do_not_exist_are_an_error(secure_server: Server, key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        talk(secure_server.url, **{key: value})


def test_ecdh_curve_is_the_only_one_that_is_offered(serve: Serve, authority: Authority) -> None:
    context = authority.server_context()
    context.set_ecdh_curve("secp384r1")
    server = serve(ssl_context=context)
    talk(server.url, ca_certs=authority.ca_file, ecdh_curve="secp384r1")
    with pytest.raises(WebSocketTLSException):
        talk(server.url, ca_certs=authority.ca_file, ecdh_curve="prime256v1")


# ---- the other keys ----


def test_a_context_of_the_programs_own_is_used_as_it_is(secure_server: Server, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert talk(secure_server.url, context=context)[0] == "TLSv1.2"


def test_what_is_no_context_is_an_error(secure_server: Server) -> None:
    with pytest.raises(ValueError, match="context"):
        talk(secure_server.url, context="default")


@pytest.mark.parametrize("value", [True, False])
def test_do_handshake_on_connect_changes_nothing(secure_server: Server, authority: Authority, value: bool) -> None:
    talk(secure_server.url, ca_certs=authority.ca_file, do_handshake_on_connect=value)


def vanish(peer: Peer) -> None:
    """End the stream without TLS's own end of it."""
    peer.recv()
    peer.send("last words")
    socket.socket.shutdown(peer.sock, socket.SHUT_WR)
    while peer.sock.recv(1024):
        pass
    peer.hang_up()


def test_a_ragged_end_is_an_end_like_any_other(serve: Serve, authority: Authority) -> None:
    server = serve(vanish, ssl_context=authority.server_context())
    websocket = create_connection(server.url, sslopt={"ca_certs": authority.ca_file})
    websocket.send("and?")
    assert websocket.recv() == "last words"
    with pytest.raises(WebSocketConnectionClosedException, match="lost"):
        websocket.recv()
    websocket.close()


def test_a_ragged_end_is_told_where_the_program_wants_to_know(serve: Serve, authority: Authority) -> None:
    server = serve(vanish, ssl_context=authority.server_context())
    websocket = create_connection(server.url, sslopt={"ca_certs": authority.ca_file, "suppress_ragged_eofs": False})
    websocket.send("and?")
    assert websocket.recv() == "last words"
    with pytest.raises(WebSocketConnectionClosedException) as caught:
        websocket.recv()
    assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
    websocket.close()


@pytest.mark.parametrize("suppress", [True, False])
def test_a_ragged_end_within_the_handshake_is_a_websocket_error(
    serve: Serve, authority: Authority, suppress: bool
) -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        socket.socket.shutdown(peer.sock, socket.SHUT_WR)
        peer.sock.recv(1024)

    server = serve(cut, ssl_context=authority.server_context(), raw=True)
    sslopt = {"ca_certs": authority.ca_file, "suppress_ragged_eofs": suppress}
    with pytest.raises(WebSocketException):
        create_connection(server.url, sslopt=sslopt)


def test_the_environment_names_a_file_for_the_sessions_keys(
    secure_server: Server, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    talk(secure_server.url, ca_certs=authority.ca_file)
    assert "CLIENT_TRAFFIC_SECRET_0 " in file.read_text()


def test_a_key_log_that_cannot_be_written_is_named_in_the_error(
    secure_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "missing" / "keys.log")
    monkeypatch.setenv("SSLKEYLOGFILE", file)
    with pytest.raises(WebSocketTLSException, match="SSLKEYLOGFILE") as caught:
        talk(secure_server.url)
    assert file in str(caught.value)


def test_an_unknown_key_is_warned_about_and_ignored(
    secure_server: Server, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "websocket"):
        talk(secure_server.url, ca_certs=authority.ca_file, ca_cert="typo.pem")
    (record,) = [record for record in caplog.records if "sslopt" in record.getMessage()]
    assert "'ca_cert'" in record.getMessage()


def test_known_keys_are_not_warned_about(
    secure_server: Server, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "websocket"):
        talk(secure_server.url, ca_certs=authority.ca_file, check_hostname=True, suppress_ragged_eofs=True)
    assert caplog.records == []


# ---- one side speaks TLS, the other does not ----


def test_a_server_without_tls_is_named_as_such_to_a_wss_client(serve: Serve, authority: Authority) -> None:
    def answer(peer: Peer) -> None:
        peer.sock.recv(1024)
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        peer.sock.recv(1024)

    server = serve(answer, raw=True)
    with pytest.raises(WebSocketTLSException, match=r"TLS handshake with 127\.0\.0\.1 failed"):
        create_connection(server.url.replace("ws:", "wss:"), sslopt={"ca_certs": authority.ca_file})


def test_a_server_without_tls_that_hangs_up_is_a_websocket_error(serve: Serve, authority: Authority) -> None:
    def hang_up(peer: Peer) -> None:
        peer.sock.recv(1024)

    server_url = serve(hang_up, raw=True).url.replace("ws:", "wss:")
    with pytest.raises(WebSocketException, match=r"127\.0\.0\.1"):
        create_connection(server_url, sslopt={"ca_certs": authority.ca_file})


def test_a_server_with_tls_gives_a_ws_client_a_clear_error(secure_server: Server) -> None:
    with pytest.raises((WebSocketProtocolException, WebSocketConnectionClosedException), match="handshake"):
        create_connection(secure_server.url.replace("wss:", "ws:"))


# ---- what ws.sock answers over TLS ----


def test_the_socket_tells_about_tls(serve: Serve, authority: Authority) -> None:
    context = authority.server_context()
    context.set_alpn_protocols(["http/1.1"])
    server = serve(ssl_context=context)
    with create_connection(server.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        sock = websocket.sock
        assert sock.version() == "TLSv1.3"
        name, version, bits = sock.cipher()
        assert name.startswith("TLS_")
        assert version == "TLSv1.3"
        assert bits in (128, 256)
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert ("DNS", "localhost") in sock.getpeercert()["subjectAltName"]
        assert ssl.DER_cert_to_PEM_cert(sock.getpeercert(True)).startswith("-----BEGIN CERTIFICATE-----")
        assert sock.getpeername() == ("127.0.0.1", server.port)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert sock.pending() == 0


def test_without_alpn_at_the_server_none_is_selected(secure_server: Server, authority: Authority) -> None:
    with create_connection(secure_server.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        assert websocket.sock.selected_alpn_protocol() is None


def test_pending_is_not_zero_while_messages_wait(serve: Serve, authority: Authority) -> None:
    def three(peer: Peer) -> None:
        peer.send("one", "two", "three")
        peer.recv()

    server = serve(three, ssl_context=authority.server_context())
    with create_connection(server.url, sslopt={"ca_certs": authority.ca_file}) as websocket:
        assert websocket.recv() == "one"  # all three come in one record
        assert websocket.sock.pending() > 0
        assert [websocket.recv(), websocket.recv()] == ["two", "three"]
        assert websocket.sock.pending() == 0


def test_a_plain_connection_says_that_it_has_no_tls(serve: Serve) -> None:
    with create_connection(serve().url) as websocket:
        assert not websocket.is_ssl()
        with pytest.raises(WebSocketException, match="does not use TLS"):
            websocket.sock.getpeercert()


def test_sslopt_of_the_class_serves_every_connect(secure_server: Server, authority: Authority) -> None:
    websocket = WebSocket(sslopt={"ca_certs": authority.ca_file})
    for _ in range(2):
        websocket.connect(secure_server.url)
        assert websocket.is_ssl()
        websocket.close()
