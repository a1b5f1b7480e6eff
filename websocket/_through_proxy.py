"""What every proxy has in common: the connection to it, the time that it may take, and whose fault a failure is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ._attempt import Attempt
from ._exceptions import (
    WebSocketAddressException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProxyConnectionException,
    WebSocketProxyException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
)
from ._proxies import Proxy
from ._racing import connect_tcp
from ._transport import PlainTransport, Transport
from ._url import Target
from ._ways import closed_on_failure


class Negotiation(Protocol):
    """Makes the connection to a proxy one to a server behind it."""

    def __call__(self, raw: Transport, proxy: Proxy, host: str, port: int, attempt: Attempt) -> Transport:
        """host: of the server: a name, or an address where this side resolves. Raises OSError for the connection to
        the proxy, WebSocketException for what the proxy answers."""


class ThroughProxy:
    """A way through one proxy. timeout: seconds that the proxy may take in all, None for no limit of its own."""

    def __init__(
        self, proxy: Proxy, negotiate: Negotiation, sockopt: Sequence[tuple[Any, ...]], timeout: float | None
    ) -> None:
        self._proxy = proxy
        self._negotiate = negotiate
        self._sockopt = sockopt
        self._timeout = timeout

    def open(self, target: Target, attempt: Attempt) -> Transport:
        hosts = [target.host] if self._proxy.resolves else _addresses(target, self._proxy, attempt)
        with attempt.limited_to(self._timeout, "http_proxy_timeout"):
            failures: list[WebSocketProxyException] = []
            while True:
                try:
                    return self._connect(hosts.pop(0), target.port, attempt)
                except WebSocketProxyException as error:
                    failures.append(error)
                    if not (error._of_address and hosts):
                        if len(failures) == 1:
                            raise
                        raise _all_of(failures) from error

    def _connect(self, host: str, port: int, attempt: Attempt) -> Transport:
        with _blamed_on(self._proxy):
            raw = PlainTransport(connect_tcp(self._proxy.host, self._proxy.port, attempt, self._sockopt))
            with closed_on_failure(raw):
                return self._negotiate(raw, self._proxy, host, port, attempt)


def _addresses(target: Target, proxy: Proxy, attempt: Attempt) -> list[str]:
    """The server's addresses for a proxy that is given no names."""
    found = [info[4][0] for info in attempt.resolve(target.host, target.port)]
    usable = [address for address in dict.fromkeys(found) if proxy.scheme != "socks4" or ":" not in address]
    if not usable:
        raise WebSocketAddressException(
            f"{target.host!r} has no IPv4 address ({', '.join(found)}), and a socks4 proxy knows no other; use socks5"
        )
    return usable


def _all_of(failures: list[WebSocketProxyException]) -> WebSocketProxyException:
    """One error for the failures at several addresses, of the kind of the last."""
    last = failures[-1]
    result = type(last)("; ".join(map(str, failures)))
    result.reason = last.reason
    return result


@contextmanager
def _blamed_on(proxy: Proxy) -> Iterator[None]:
    """Whatever fails in the block has failed at the proxy."""
    try:
        yield
    except (WebSocketProxyException, WebSocketConnectionClosedException):  # the latter: this program has closed it
        raise
    except WebSocketTimeoutException as error:
        raise WebSocketProxyTimeoutException(f"proxy {proxy.url}: {error}") from error
    except OSError as error:
        raise WebSocketProxyConnectionException(f"proxy {proxy.url}: {error.strerror or error}") from error
    except WebSocketAddressException as error:
        raise WebSocketProxyConnectionException(f"proxy {proxy.url}: {error}") from error
    except WebSocketException as error:
        raise WebSocketProxyException(f"proxy {proxy.url}: {error}") from error
