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
# get_mask_key is the class's, but create_connection(), as websocket-client's, hands it to both.
_OTHER_OPTIONS: Final = frozenset({"get_mask_key", "redirect_limit", "socket", "timeout"})
_KNOWN_OPTIONS: Final = _REQUEST_OPTIONS | _LIMIT_OPTIONS | _PROXY_OPTIONS | _OTHER_OPTIONS


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
            _checked_limit(options.get("redirect_limit", 3)),
            options.get("socket"),
        )


def _checked_limit(redirect_limit: Any) -> int:
    if isinstance(redirect_limit, bool) or not isinstance(redirect_limit, int) or redirect_limit < 0:
        raise ValueError(f"redirect_limit must be an int of at least 0, not {redirect_limit!r}")
    return redirect_limit


class _Default:
    """The default of a timeout parameter that falls back to the WebSocket's own."""

    def __repr__(self) -> str:
        return "the WebSocket's timeout"


OWN_TIMEOUT: Final[Any] = _Default()
