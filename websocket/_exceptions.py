"""Every exception that the package raises on purpose, all below WebSocketException.

The names and their hierarchy are websocket-client's; where an error is also an error of the standard library
(a timeout, a refused connection, a bad certificate), its class derives from that one as well, so that programs
that catch OSError, TimeoutError or ssl.SSLError go on working.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._ssl_compat import SSLError, ssl

__all__ = [
    "WebSocketAddressException",
    "WebSocketBadStatusException",
    "WebSocketCertificateException",
    "WebSocketConnectException",
    "WebSocketConnectionClosedException",
    "WebSocketConnectionLostException",
    "WebSocketConnectionRefusedException",
    "WebSocketException",
    "WebSocketPayloadException",
    "WebSocketProtocolException",
    "WebSocketProxyConnectionException",
    "WebSocketProxyException",
    "WebSocketProxyTimeoutException",
    "WebSocketTLSException",
    "WebSocketTimeoutException",
]


class WebSocketException(Exception):
    """The base of all errors of this package.

    An exception that reports the end of a connection also tells how it ended:

    code: the close code that the peer sent (int, RFC 6455 7.4), or None where it sent none.
    reason: the close reason that the peer sent, or None.
    unsent: the messages, str or bytes, that send() had accepted and that were not written whole when the
        connection ended, oldest first.
    unacknowledged: bytes that were handed to the operating system and that the peer had not acknowledged when
        the connection ended, where the system tells (Linux), else None. TLS overhead included.
    """

    code: int | None = None
    reason: str | None = None
    unsent: Sequence[Any] = ()
    unacknowledged: int | None = None


class WebSocketProtocolException(WebSocketException):
    """The peer broke RFC 6455 (close code 1002), or the program asked for what the RFC forbids."""


class WebSocketPayloadException(WebSocketException):
    """A payload cannot be taken: text that is not UTF-8 (close code 1007), or a message that is too big (1009)."""


class WebSocketConnectionClosedException(WebSocketException):
    """The connection has ended, or there never was one. `code`, `reason` and `unsent` tell how."""


class WebSocketConnectionLostException(WebSocketConnectionClosedException, ConnectionResetError):
    """The connection has ended without a closing handshake: reset, cut, or failed. `__cause__` says how."""


class WebSocketTimeoutException(WebSocketException, TimeoutError):
    """The time given to an operation is over; nothing was lost by it and the operation may be tried again."""


class WebSocketProxyException(WebSocketException):
    """The server could not be reached by the proxy: the message names the proxy and `__cause__`, where there is one,
    is what went wrong on the way.

    status_code: the HTTP status with which the proxy refused (int), or None where it gave none.
    reason: its reason phrase, or what a SOCKS proxy said, or None.
    resp_headers: the headers of its answer, a mapping with lower-case names, or None.
    resp_body: the body of its answer (bytes, at most 64 KiB of it), or None.
    """

    status_code: int | None = None
    reason: str | None = None
    resp_headers: Mapping[str, str] | None = None
    resp_body: bytes | None = None
    _of_address = False  # another address of the server may do better


class WebSocketProxyConnectionException(WebSocketProxyException, ConnectionError):
    """There is no connection to the proxy, it was lost, or the proxy could make none to the server; another attempt
    may do better."""


class WebSocketProxyTimeoutException(WebSocketProxyException, WebSocketTimeoutException):
    """The time is over, http_proxy_timeout or that of connect(), before the proxy had made the connection."""


class WebSocketBadStatusException(WebSocketException):
    """The server answered the opening handshake with another status than 101.

    status_code: the HTTP status (int).  status_message: its reason phrase, or None.
    resp_headers: the response's headers, a mapping with lower-case names, or None.
    resp_body: the response's body (bytes, at most 64 KiB of it), or None.
    """

    def __init__(
        self,
        message: str,
        status_code: int,
        status_message: str | None = None,
        resp_headers: Mapping[str, str] | None = None,
        resp_body: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.status_message = status_message
        self.resp_headers = resp_headers
        self.resp_body = resp_body

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.status_code, self.status_message, self.resp_headers, self.resp_body)
        return (type(self), (str(self), *fields), self.__dict__)


class WebSocketAddressException(WebSocketException):
    """The host's name could not be resolved."""


class WebSocketConnectException(WebSocketException, OSError):
    """No connection could be made to the server."""


class WebSocketConnectionRefusedException(WebSocketConnectException, ConnectionRefusedError):
    """Nothing listens at the address, or a firewall refuses it."""


class WebSocketTLSException(WebSocketConnectException, SSLError):  # type: ignore[misc]  # both have a `reason`
    """TLS failed: no common version or cipher, an unusable certificate file, not a TLS server."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # SSLError's own shows a tuple


if ssl is not None:

    class WebSocketCertificateException(WebSocketTLSException, ssl.SSLCertVerificationError):  # type: ignore[misc]
        """The server's certificate was refused; the message says whether it is expired, for another host, or from
        an issuer that is not trusted, and which option concerns it."""

else:

    class WebSocketCertificateException(WebSocketTLSException):  # type: ignore[no-redef]
        """Never raised: ssl is not available."""
