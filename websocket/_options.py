"""The options of connect(), by name: which there are, and who they are for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from threading import TIMEOUT_MAX
from typing import Any, Final

from . import _logging
from ._abnf import payload_bytes
from ._handshake import RequestOptions
from ._proxies import ProxyOptions
from .threads.limits import Limits
from .threads.pinger import Keepalive

_REQUEST_OPTIONS: Final = frozenset(RequestOptions.__dataclass_fields__)
_LIMIT_OPTIONS: Final = frozenset(Limits.__dataclass_fields__)
_PROXY_OPTIONS: Final = frozenset(
    {
        "http_no_proxy",
        "http_proxy_auth",
        "http_proxy_host",
        "http_proxy_port",
        "http_proxy_timeout",
        "proxy",
        "proxy_sslopt",
        "proxy_type",
    }
)
_KEEPALIVE_OPTIONS: Final = frozenset({"ping_interval", "ping_payload", "ping_timeout"})
# get_mask_key is the class's, but create_connection(), as websocket-client's, hands it to both.
_OTHER_OPTIONS: Final = frozenset({"get_mask_key", "redirect_limit", "socket", "timeout", "unix"})
_KNOWN_OPTIONS: Final = _REQUEST_OPTIONS | _LIMIT_OPTIONS | _PROXY_OPTIONS | _KEEPALIVE_OPTIONS | _OTHER_OPTIONS

# The defaults; what cannot be changed is made once.
_REDIRECTS: Final = 3
_NO_LIMITS_GIVEN: Final = Limits()
_NO_PROXY_GIVEN: Final = ProxyOptions()


@dataclass(frozen=True)
class ConnectOptions:
    """The options of one connect() call, sorted by who takes them."""

    request: RequestOptions
    limits: Limits
    keepalive: Keepalive | None
    proxies: ProxyOptions
    redirect_limit: int
    socket: Any
    unix: str | bytes | None

    @staticmethod
    def check(options: Mapping[str, Any]) -> None:
        """Raises TypeError for a name that nobody knows, and ValueError for a value that makes no sense."""
        if unknown := sorted(options.keys() - _KNOWN_OPTIONS):
            raise TypeError(f"no option of connect(): {', '.join(unknown)}")
        ConnectOptions.parse(options)

    @staticmethod
    def parse(options: Mapping[str, Any]) -> ConnectOptions:
        """Sort the options; a name that nobody knows is logged as a warning. Raises ValueError for a value that
        makes no sense."""
        if not options:
            return ConnectOptions(RequestOptions(), _NO_LIMITS_GIVEN, None, _NO_PROXY_GIVEN, _REDIRECTS, None, None)
        for name in options.keys() - _KNOWN_OPTIONS:
            _logging.warning("connect() has no option %r; it is ignored", name)

        def chosen(names: frozenset[str]) -> dict[str, Any]:
            return {name: value for name, value in options.items() if name in names}

        return ConnectOptions(
            RequestOptions(**chosen(_REQUEST_OPTIONS)),
            Limits(**chosen(_LIMIT_OPTIONS)),
            keepalive(options.get("ping_interval"), options.get("ping_timeout"), options.get("ping_payload") or ""),
            ProxyOptions.parse(options),
            _checked_limit(options.get("redirect_limit", _REDIRECTS)),
            options.get("socket"),
            _checked_path(options),
        )


def keepalive(interval: float | None, timeout: float | None, payload: str | bytes) -> Keepalive | None:
    """The keepalive that these options ask for; None for an interval of None or 0. Raises ValueError."""
    if interval is None or (interval == 0 and not isinstance(interval, bool)):
        if timeout is not None or payload:
            Keepalive(TIMEOUT_MAX, timeout, bytes(payload_bytes(payload)))  # the checks
        return None
    return Keepalive(interval, timeout, bytes(payload_bytes(payload)))


def _checked_limit(redirect_limit: Any) -> int:
    if isinstance(redirect_limit, bool) or not isinstance(redirect_limit, int) or redirect_limit < 0:
        raise ValueError(f"redirect_limit must be an int of at least 0, not {redirect_limit!r}")
    return redirect_limit


def _checked_path(options: Mapping[str, Any]) -> str | bytes | None:
    path = options.get("unix")
    if path is None:
        return None
    for other in ("socket", "proxy", "http_proxy_host"):
        if options.get(other):
            raise ValueError(f"unix={path!r} and {other} are two ways to the server; give one of them")
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"unix must be the path of a Unix socket, not {path!r}")
    return os.fspath(path)


class _Default:
    """The default of a timeout parameter that falls back to the WebSocket's own."""

    def __repr__(self) -> str:
        return "the WebSocket's timeout"


OWN_TIMEOUT: Final[Any] = _Default()
