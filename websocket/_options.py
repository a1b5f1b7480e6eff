"""The options of connect(), by name: which there are, and who they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import _logging
from ._handshake import RequestOptions
from .threads.limits import Limits

_REQUEST_OPTIONS: Final = frozenset(RequestOptions.__dataclass_fields__)
_LIMIT_OPTIONS: Final = frozenset(Limits.__dataclass_fields__)
_PROXY_OPTIONS: Final = frozenset(
    {
        "http_no_proxy",
        "http_proxy_auth",
        "http_proxy_host",
        "http_proxy_port",
        "http_proxy_timeout",
        "proxy_type",
    }
)
_OTHER_OPTIONS: Final = frozenset({"redirect_limit", "socket", "timeout"})
# Options of WebSocket() that create_connection(), as websocket-client's, hands to connect() as well.
_CONSTRUCTOR_OPTIONS: Final = frozenset(
    {"enable_multithread", "fire_cont_frame", "get_mask_key", "skip_utf8_validation", "sockopt", "sslopt"}
)
_KNOWN_OPTIONS: Final = _REQUEST_OPTIONS | _LIMIT_OPTIONS | _PROXY_OPTIONS | _OTHER_OPTIONS | _CONSTRUCTOR_OPTIONS


@dataclass(frozen=True)
class ConnectOptions:
    """The options of one connect() call, sorted by who takes them."""

    request: RequestOptions
    limits: Limits
    proxy: dict[str, Any]
    redirect_limit: int
    socket: Any

    @staticmethod
    def parse(options: Mapping[str, Any]) -> ConnectOptions:
        """Sort the options; a name that nobody knows is logged as a warning. Raises ValueError for a value that
        makes no sense."""
        for name in options.keys() - _KNOWN_OPTIONS:
            _logging.warning("connect() has no option %r; it is ignored", name)

        def chosen(names: frozenset[str]) -> dict[str, Any]:
            return {name: value for name, value in options.items() if name in names}

        return ConnectOptions(
            RequestOptions(**chosen(_REQUEST_OPTIONS)),
            Limits(**chosen(_LIMIT_OPTIONS)),
            chosen(_PROXY_OPTIONS),
            options.get("redirect_limit", 3),
            options.get("socket"),
        )


class _Default:
    """The default of a timeout parameter that falls back to the WebSocket's own."""

    def __repr__(self) -> str:
        return "the WebSocket's timeout"


OWN_TIMEOUT: Final[Any] = _Default()

# poll() counts milliseconds in an int of C, which lasts 24 days.
_LONGEST_TIMEOUT: Final = 2_000_000.0


def checked_timeout(timeout: Any) -> float | None:
    """Seconds or None; what is longer than the system's clocks can count means None. Raises ValueError."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:  # NaN is not >= 0
        raise ValueError(f"timeout must be None or a number of seconds >= 0, not {timeout!r}")
    return timeout if timeout < _LONGEST_TIMEOUT else None
