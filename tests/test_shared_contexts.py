"""One SSL context serves connections of the same options; nobody can tell, but by the time and the memory."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import websocket._shared_context as shared_context
from websocket import WebSocketTLSException, create_connection
from websocket._shared_context import context_for
from websocket.testing import Server

from .certs import Authority
from .test_tls import refused, talk

Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEBSOCKET_CLIENT_CA_BUNDLE", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shared_context, "_SETTLED", 0.0)  # the tests' files are new


def context_of(url: str, **sslopt: Any) -> ssl.SSLContext:
    """The context that a connection uses."""
    with create_connection(url, sslopt=sslopt) as websocket:
        connection = websocket._connection
        assert connection is not None
        context: ssl.SSLContext = connection.transport.ssl_object.context  # type: ignore[attr-defined]
        return context


def test_connections_of_the_same_options_share_a_context(serve: Serve, authority: Authority) -> None:
    url = serve(ssl_context=authority.server_context()).url
    context = context_of(url, ca_certs=authority.ca_file)
    assert context_of(url, ca_certs=authority.ca_file) is context
    assert context_of(url, ca_certs=authority.ca_file, server_hostname="127.0.0.1") is context


def test_the_system_s_authorities_are_read_once() -> None:
    assert context_for({}) is context_for({})


@pytest.mark.parametrize(
    "other",
    [
        {"check_hostname": False},
        {"cert_reqs": ssl.CERT_NONE},
        {"ciphers": "ECDHE+AESGCM"},
        {"ecdh_curve": "prime256v1"},
        {"ssl_version": ssl.PROTOCOL_TLSv1_2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_options_have_a_context_of_their_own(authority: Authority, other: dict[str, Any]) -> None:
    options = {"ca_certs": authority.ca_file}
    context = context_for({**options, **other})
    assert context is not context_for(options)
    assert context is context_for({**options, **other})


def test_an_authority_that_is_no_longer_in_the_file_is_not_trusted_any_more(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    url = serve(ssl_context=authority.server_context()).url
    file = tmp_path / "trusted.pem"
    file.write_bytes(Path(authority.ca_file).read_bytes())
    talk(url, ca_certs=str(file))
    file.write_bytes(Path(Authority(tmp_path, "other").ca_file).read_bytes())
    refused(url, "unknown issuer", ca_certs=str(file))


def test_a_file_that_is_gone_is_an_error_although_its_context_is_there(tmp_path: Path) -> None:
    file = Authority(tmp_path).ca_file
    context_for({"ca_certs": file})
    os.remove(file)
    with pytest.raises(WebSocketTLSException, match="cannot load"):
        context_for({"ca_certs": file})


def test_what_was_written_just_now_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_context, "_SETTLED", 3600.0)
    options = {"ca_certs": Authority(tmp_path).ca_file}
    assert context_for(options) is not context_for(options)


@pytest.mark.parametrize("key", ["ca_cert_path", "certfile"])
def test_a_folder_and_a_key_are_read_for_each_connection(authority: Authority, tmp_path: Path, key: str) -> None:
    value = str(tmp_path) if key == "ca_cert_path" else authority.client_certificate()
    options = {"ca_certs": authority.ca_file, key: value}
    assert context_for(options) is not context_for(options)


def test_the_environment_s_authorities_are_looked_at_each_time(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_for({})
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", authority.ca_file)
    of_bundle = context_for({})
    assert of_bundle is not context
    assert context_for({}) is of_bundle
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(tmp_path))
    assert context_for({}) is not context_for({})
    monkeypatch.delenv("WEBSOCKET_CLIENT_CA_BUNDLE")
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, authority.ca_file)
    assert context_for({}) is not context


def test_with_a_log_of_the_keys_every_connection_opens_it(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"ca_certs": authority.ca_file}
    context = context_for(options)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    assert context_for(options) is not context


def test_a_value_that_makes_no_sense_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="ciphers"):
            context_for({"ciphers": ["none"]})
        with pytest.raises(ValueError, match="cert_reqs"):
            context_for({"cert_reqs": 7})
