"""SOCKS proxies: 4 and 5 with addresses, 4a and 5h with names, spoken by the python-socks package."""

from __future__ import annotations

from typing import Any, Final

from ._attempt import Attempt
from ._exceptions import WebSocketProxyConnectionException, WebSocketProxyException
from ._hosts import bracketed
from ._proxies import Proxy
from ._transport import Transport

try:
    import python_socks
    from python_socks.sync import Proxy as SOCKS
except ImportError:
    python_socks = None  # type: ignore[assignment]

_OLDEST: Final = 3  # whose Proxy takes the connection to the proxy from somebody else

# What a proxy says of the server or the network and not of this client (RFC 1928 6: general failure, network or host
# unreachable, refused, TTL expired; SOCKS4: rejected or failed, which is all it says): the next time may be different.
_UNREACHABLE: Final = frozenset({1, 3, 4, 5, 6, 91})
_ADDRESS_TYPE: Final = 8  # not supported


def check_installed(proxy: Proxy) -> None:
    """Raise WebSocketProxyException that says what to install, where python-socks is missing or too old."""
    if python_socks is None or int(python_socks.__version__.partition(".")[0]) < _OLDEST:
        raise WebSocketProxyException(
            f"proxy {proxy.url}: SOCKS needs the package python-socks, {_OLDEST}.0 or newer; install the extra:"
            " pip install 'websocket-threads[proxy]'"
        )


def negotiate(raw: Transport, proxy: Proxy, host: str, port: int, attempt: Attempt) -> Transport:
    """Ask a SOCKS proxy for a connection to the server."""
    server = f"{bracketed(host)}:{port}"
    kind = python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
    doing = f"waiting for the proxy's connection to {server}"
    stream: Any = _Stream(raw, attempt, doing)
    client = SOCKS(kind, proxy.host, proxy.port, proxy.user, proxy.password, proxy.resolves, forward=stream)
    try:
        client.connect(host, port)
    except python_socks.ProxyTimeoutError as error:
        raise error.__cause__ or error from None
    except python_socks.ProxyError as error:
        kind_of_error = (
            WebSocketProxyConnectionException if error.error_code in _UNREACHABLE else WebSocketProxyException
        )
        hint = ""
        said = str(error)
        if proxy.user is None and ("No acceptable" in said or said.endswith("method: 2")):
            hint = "; give user and password in the proxy's URL or in http_proxy_auth"
        refusal = kind_of_error(f"proxy {proxy.url} refused a connection to {server}: {error}{hint}")
        refusal._of_address = error.error_code == _ADDRESS_TYPE or error.error_code in _UNREACHABLE
        refusal.reason = str(error)
        raise refusal from error
    except ConnectionError as error:
        raise WebSocketProxyConnectionException(
            f"proxy {proxy.url}: the connection was lost while {doing}: {error.strerror or error}"
        ) from error
    except ValueError as error:  # an address in the reply that is none, or a name too long for the protocol
        raise WebSocketProxyException(f"proxy {proxy.url}: no connection to {server}: {error}") from error
    return raw


class _Stream:
    """The connection to the proxy as python-socks wants it: the previous proxy of a chain, and the socket that this one
    returns; but it waits under the attempt's deadline."""

    def __init__(self, raw: Transport, attempt: Attempt, doing: str) -> None:
        self._raw = raw
        self._attempt = attempt
        self._doing = doing

    def connect(self, **_: Any) -> _Stream:
        return self

    def sendall(self, data: bytes) -> None:
        self._attempt.send(self._raw, bytes(data), self._doing)

    def recv(self, size: int) -> bytes:
        received = self._attempt.receive(self._raw, size, self._doing)
        if not received:
            raise ConnectionAbortedError("the proxy ended the connection")
        return received

    def close(self) -> None:
        """Who opened the transport closes it."""
