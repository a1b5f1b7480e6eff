"""The options of connect(): what is refused before anything is connected, what is warned about, and proxies."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from websocket import create_connection
from websocket.testing import Server

Serve = Callable[..., Server]


def assert_nobody_came(server: Server) -> None:
    """Nobody has connected to a plain server: the next one, as it accepts in order of arrival, is its first."""
    create_connection(server.url, http_no_proxy=["127.0.0.1"]).close()
    assert len(server.peers) == 1


@pytest.mark.parametrize("timeout", [-1, "5", True, float("nan")])
def test_a_timeout_that_is_none_is_refused_before_anything_is_connected(serve: Serve, timeout: Any) -> None:
    server = serve()
    with pytest.raises(ValueError, match="timeout"):
        create_connection(server.url, timeout=timeout)
    assert_nobody_came(server)


# ---- what cannot go into a request ----


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\r\nX-Smuggled: 1"])
@pytest.mark.parametrize(
    "option",
    [
        {"header": ["X-Name: value{}"]},
        {"header": ["X-Name{}: value"]},
        {"header": {"X-Name": "value{}"}},
        {"header": {"X-Name{}": "value"}},
        {"cookie": "name=value{}"},
        {"origin": "http://origin.example{}"},
        {"host": "host.example{}"},
        {"connection": "Connection: Upgrade{}"},
        {"subprotocols": ["chat{}"]},
        {"url": "path{}"},
        {"url": "?query={}"},
    ],
    ids=str,
)
def test_line_ends_and_nul_are_refused_before_anything_is_connected(
    serve: Serve, option: dict[str, Any], character: str
) -> None:
    def insert(value: Any) -> Any:
        if isinstance(value, dict):
            return {insert(name): insert(item) for name, item in value.items()}
        return [insert(item) for item in value] if isinstance(value, list) else value.replace("{}", character)

    server = serve()
    options = insert(option)
    with pytest.raises(ValueError, match=r"contains|invalid"):
        create_connection(server.url + options.pop("url", ""), **options)
    assert_nobody_came(server)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "127.0.0.1", "ws://", "ws:///path", "ws://host:99999/", None, b"ws://h/"]
)
def test_a_url_that_is_none_for_websockets_is_a_value_error(url: Any) -> None:
    with pytest.raises(ValueError, match=r"url|scheme|hostname"):
        create_connection(url)


# ---- what is warned about ----


def test_unknown_options_are_warned_about(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "websocket"):
        create_connection(serve().url, ping_intervall=5).close()
    (record,) = caplog.records
    assert "'ping_intervall'" in record.getMessage()


def test_known_options_are_not_warned_about(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    options = {
        "timeout": 5,
        "header": ["A: b"],
        "cookie": "a=b",
        "origin": "http://a.example",
        "host": "a.example",
        "redirect_limit": 1,
        "sockopt": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)],
        "enable_multithread": True,
        "skip_utf8_validation": True,
        "fire_cont_frame": False,
        "max_message_size": None,
        "http_no_proxy": ["127.0.0.1"],
    }
    with caplog.at_level(logging.WARNING, "websocket"):
        create_connection(serve().url, **options).close()
    assert caplog.records == []


# ---- proxies of the environment ----


def test_no_proxy_leads_past_the_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "other.example, 127.0.0.0/8")
    create_connection(serve().url).close()


def test_the_proxy_for_wss_does_not_concern_ws(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "other.example")
    create_connection(serve().url).close()
