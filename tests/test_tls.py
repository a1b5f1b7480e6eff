"""TLS of wss connections: what is verified, what each key of sslopt does, and which error says what is wrong."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from websocket import (
    WebSocketCertificateException,
    WebSocketException,
    WebSocketTLSException,
    create_connection,
)
from websocket.testing import Peer, Server

from .certs import Authority

Serve = Callable[..., Server]


@pytest.fixture
def secure_server(serve: Serve, authority: Authority) -> Server:
    """An echo server with a certificate for localhost and 127.0.0.1."""
    return serve(ssl_context=authority.server_context())


@pytest.fixture
def other_authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "other")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBSOCKET_CLIENT_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


def talk(url: str, **sslopt: Any) -> tuple[str | None, tuple[str, str, int]]:
    """Connect, exchange a message, close; (TLS version, cipher) of the connection."""
    with create_connection(url, sslopt=sslopt) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        return websocket.sock.version(), websocket.sock.cipher()


def refused(url: str, match: str, **sslopt: Any) -> WebSocketCertificateException:
    """Connect and be refused for the certificate; the error."""
    with pytest.raises(WebSocketCertificateException, match=match) as caught:
        create_connection(url, sslopt=sslopt)
    assert isinstance(caught.value, WebSocketException)
    assert isinstance(caught.value, ssl.SSLCertVerificationError)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert caught.value.verify_code == caught.value.__cause__.verify_code
    return caught.value


# ---- certificates ----


def test_a_certificate_for_another_host_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context("other.example"))
    error = refused(server.url, "for another host than '127.0.0.1'", ca_certs=authority.ca_file)
    assert "server_hostname" in str(error)


def test_a_certificate_for_another_name_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context("other.example"), host="localhost")
    refused(server.url, "for another host than 'localhost'", ca_certs=authority.ca_file)


def test_a_certificate_of_an_unknown_issuer_is_refused(secure_server: Server, other_authority: Authority) -> None:
    error = refused(secure_server.url, "unknown issuer", ca_certs=other_authority.ca_file)
    assert "ca_certs" in str(error)
    assert "WEBSOCKET_CLIENT_CA_BUNDLE" in str(error)


def test_without_any_option_the_systems_authorities_decide(secure_server: Server) -> None:
    refused(secure_server.url, "unknown issuer")


def test_an_expired_certificate_is_refused(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context(expired=True))
    refused(server.url, "has expired", ca_certs=authority.ca_file)


def test_the_message_reads_as_a_sentence(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context(expired=True))
    error = refused(server.url, "has expired", ca_certs=authority.ca_file)
    # ssl.SSLError's own str() of a lone message would be the tuple of its arguments.
    assert str(error).startswith("certificate of 127.0.0.1 has expired")


def test_a_refused_server_learns_why(serve: Serve, authority: Authority) -> None:
    server = serve(ssl_context=authority.server_context(expired=True))
    refused(server.url, "has expired", ca_certs=authority.ca_file)
    server.close()
    ((_, error),) = server.errors
    assert "CERTIFICATE_EXPIRED" in str(error)


@pytest.mark.parametrize("fault", ["host", "issuer", "expired"])
def test_cert_none_takes_any_certificate(
    serve: Serve, authority: Authority, other_authority: Authority, fault: str
) -> None:
    context = {
        "host": authority.server_context("other.example"),
        "issuer": other_authority.server_context(),
        "expired": authority.server_context(expired=True),
    }[fault]
    talk(serve(ssl_context=context).url, cert_reqs=ssl.CERT_NONE)
    talk(serve(ssl_context=context).url, cert_reqs=ssl.CERT_NONE, check_hostname=False)


def test_check_hostname_false_takes_any_name_but_not_any_issuer(
    serve: Serve, authority: Authority, other_authority: Authority
) -> None:
    server = serve(ssl_context=authority.server_context("other.example"))
    talk(server.url, ca_certs=authority.ca_file, check_hostname=False)
    refused(server.url, "unknown issuer", ca_certs=other_authority.ca_file, check_hostname=False)


def test_to_check_the_name_of_an_unverified_certificate_is_a_contradiction(secure_server: Server) -> None:
    with pytest.raises(ValueError, match="check_hostname"):
        create_connection(secure_server.url, sslopt={"cert_reqs": ssl.CERT_NONE, "check_hostname": True})


def test_server_hostname_is_the_name_that_is_asked_for_and_checked(serve: Serve, authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.server_context("other.example")
    context.sni_callback = lambda sock, name, context: asked.append(name)
    server = serve(ssl_context=context)
    talk(server.url, ca_certs=authority.ca_file, server_hostname="other.example")
    refused(
        server.url, "another host than 'third.example'", ca_certs=authority.ca_file, server_hostname="third.example"
    )
    assert asked == ["other.example", "third.example"]


# ---- where authorities come from ----


def hashed(directory: Path, authority: Authority) -> str:
    """A directory of certificates as OpenSSL wants it."""
    directory.mkdir()
    shutil.copy(authority.ca_file, directory)
    subprocess.run(["openssl", "rehash", str(directory)], check=True)
    return str(directory)


def test_ca_cert_path_is_a_directory_of_authorities(
    secure_server: Server, authority: Authority, other_authority: Authority, tmp_path: Path
) -> None:
    talk(secure_server.url, ca_cert_path=hashed(tmp_path / "right", authority))
    refused(secure_server.url, "unknown issuer", ca_cert_path=hashed(tmp_path / "wrong", other_authority))


def test_the_environment_names_a_file_of_authorities(
    secure_server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", authority.ca_file)
    talk(secure_server.url)


def test_the_environment_names_a_folder_of_authorities(
    secure_server: Server, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", hashed(tmp_path / "bundle", authority))
    talk(secure_server.url)


def test_ca_certs_wins_over_the_environment(
    secure_server: Server, authority: Authority, other_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", other_authority.ca_file)
    talk(secure_server.url, ca_certs=authority.ca_file)
    refused(secure_server.url, "unknown issuer")


# ---- files that are missing or wrong ----


@pytest.mark.parametrize("key", ["ca_certs", "ca_cert_path", "certfile"])
def test_a_file_that_does_not_exist_is_named_in_the_error(secure_server: Server, tmp_path: Path, key: str) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(WebSocketTLSException, match=key) as caught:
        create_connection(secure_server.url, sslopt={key: missing})
    assert missing in str(caught.value)


def test_a_missing_key_file_is_named_and_not_the_certificate_file(
    secure_server: Server, authority: Authority, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.pem")
    sslopt = {"ca_certs": authority.ca_file, "certfile": authority.client_certificate(), "keyfile": missing}
    with pytest.raises(WebSocketTLSException) as caught:
        create_connection(secure_server.url, sslopt=sslopt)
    assert missing in str(caught.value)


def test_a_missing_file_of_a_cert_chain_is_named(secure_server: Server, authority: Authority, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(WebSocketTLSException, match="cert_chain") as caught:
        create_connection(
            secure_server.url, sslopt={"ca_certs": authority.ca_file, "cert_chain": (missing, None, None)}
        )
    assert missing in str(caught.value)


def test_a_missing_bundle_of_the_environment_is_named_with_its_variable(
    secure_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "missing.pem")
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", missing)
    with pytest.raises(WebSocketTLSException, match="WEBSOCKET_CLIENT_CA_BUNDLE") as caught:
        create_connection(secure_server.url)
    assert missing in str(caught.value)


def test_a_file_that_holds_no_certificate_is_named_in_the_error(secure_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    file.write_text("nothing here\n")
    with pytest.raises(WebSocketTLSException) as caught:
        create_connection(secure_server.url, sslopt={"ca_certs": str(file)})
    assert str(file) in str(caught.value)


# ---- the client's certificate ----


@pytest.fixture(params=["TLS 1.2", "TLS 1.3"])
def demanding_server(request: pytest.FixtureRequest, serve: Serve, authority: Authority) -> Server:
    """A server that wants a certificate of the client, and that tells whose it got."""

    def tell(peer: Peer) -> None:
        certificate = peer.sock.getpeercert()  # type: ignore[attr-defined]
        peer.recv()
        peer.send(certificate["subjectAltName"][0][1])
        peer.recv()

    context = authority.server_context()
    authority.require_client_certificate(context)
    if request.param == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return serve(tell, ssl_context=context)


def introduced(server: Server, **sslopt: Any) -> str | bytes:
    """The name of the certificate that the server got."""
    with create_connection(server.url, sslopt=sslopt) as websocket:
        websocket.send("who am I?")
        return websocket.recv()


@pytest.fixture
def split_certificate(authority: Authority, tmp_path: Path) -> tuple[str, str, str]:
    """(certificate file, key file, the same key under the password "secret") of client@example.org."""
    both = Path(authority.client_certificate()).read_text()
    at = both.index("-----BEGIN CERTIFICATE-----")
    key = load_pem_private_key(both[:at].encode(), None)
    certificate, plain, locked = tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "locked.pem"
    certificate.write_text(both[at:])
    plain.write_text(both[:at])
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return str(certificate), str(plain), str(locked)


def test_certfile_may_hold_certificate_and_key(demanding_server: Server, authority: Authority) -> None:
    name = introduced(demanding_server, ca_certs=authority.ca_file, certfile=authority.client_certificate())
    assert name == "client@example.org"


def test_keyfile_is_the_key_of_certfile(
    demanding_server: Server, authority: Authority, split_certificate: tuple[str, str, str]
) -> None:
    certificate, key, _ = split_certificate
    name = introduced(demanding_server, ca_certs=authority.ca_file, certfile=certificate, keyfile=key)
    assert name == "client@example.org"


@pytest.mark.parametrize("password", ["secret", b"secret", lambda: "secret"], ids=["str", "bytes", "function"])
def test_password_opens_the_key(
    demanding_server: Server, authority: Authority, split_certificate: tuple[str, str, str], password: Any
) -> None:
    certificate, _, locked = split_certificate
    name = introduced(
        demanding_server, ca_certs=authority.ca_file, certfile=certificate, keyfile=locked, password=password
    )
    assert name == "client@example.org"


def test_a_wrong_password_is_an_error_that_does_not_tell_it(
    secure_server: Server, authority: Authority, split_certificate: tuple[str, str, str]
) -> None:
    certificate, _, locked = split_certificate
    with pytest.raises(WebSocketTLSException, match=r"certfile|keyfile") as caught:
        introduced(secure_server, ca_certs=authority.ca_file, certfile=certificate, keyfile=locked, password="guessed")
    assert "guessed" not in str(caught.value)


def test_cert_chain_is_certificate_key_and_password_in_one(
    demanding_server: Server, authority: Authority, split_certificate: tuple[str, str, str]
) -> None:
    certificate, _, locked = split_certificate
    name = introduced(demanding_server, ca_certs=authority.ca_file, cert_chain=(certificate, locked, "secret"))
    assert name == "client@example.org"


def test_a_client_without_the_certificate_that_the_server_wants_gets_a_websocket_error(
    demanding_server: Server, authority: Authority
) -> None:
    # In TLS 1.3 the client's handshake is over when the server refuses it: the refusal comes in place of the answer.
    with pytest.raises(WebSocketTLSException, match=r"(?i)certificate|handshake_failure"):
        introduced(demanding_server, ca_certs=authority.ca_file)


def test_a_client_with_a_certificate_that_the_server_does_not_trust_gets_a_websocket_error(
    demanding_server: Server, authority: Authority, other_authority: Authority
) -> None:
    with pytest.raises(WebSocketTLSException, match=r"(?i)unknown.ca"):
        introduced(demanding_server, ca_certs=authority.ca_file, certfile=other_authority.client_certificate())
