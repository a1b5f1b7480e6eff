"""Host names and addresses as URLs, headers and resolvers write them. Values only."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

_NOT_IN_A_HOST: Final = re.compile(r"""[\x00-\x20"<>\\^`{|}/?#@\x7f]""")
_NOT_IN_A_NAME: Final = re.compile(r"""[\x00-\x20"<>\\^`{|}/?#@\x7f\[\]:]""")  # brackets stand around IPv6's colons


def ascii_host(host: str, bracketed: bool = False) -> str:
    """A host of a URL as DNS wants it: lower case, IDNA-encoded, IPv6 without brackets.

    bracketed: whether it stood in brackets, so that it must be an IPv6 address. Raises ValueError.
    """
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"hostname {host!r} is invalid: {error}") from error
    host = host.lower()
    if bracketed:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError as error:
            raise ValueError(f"hostname [{host}] is invalid: {error}") from error
    if (_NOT_IN_A_HOST if bracketed else _NOT_IN_A_NAME).search(host):
        raise ValueError(f"hostname {host!r} is invalid")
    return host


def bracketed(host: str) -> str:
    """A host as it stands before a port: IPv6 in brackets, without its zone (RFC 6874 4)."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def is_address(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, which needs no resolver."""
    for family, address in ((socket.AF_INET, host), (socket.AF_INET6, host.partition("%")[0])):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return True
    return False
