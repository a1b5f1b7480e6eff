"""The opening handshake (RFC 6455 4): the request as bytes, the response from bytes, and the checks.

Bytes and values only; _opening.py carries them over the network.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from ._deflate import (
    Agreement,
    Parameters,
    PerMessageDeflate,
    check_answer,
    format_extension,
    parse_offers,
)
from ._exceptions import WebSocketBadStatusException, WebSocketException, WebSocketProtocolException
from ._http_message import TOKEN, HeadParser, parse_status_line
from ._logging import dump
from ._url import Target, parse_target

__all__ = ["SUPPORTED_REDIRECT_STATUSES", "handshake", "handshake_response"]

SUPPORTED_REDIRECT_STATUSES: Final = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)

_VERSION: Final = 13
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3

_FORBIDDEN: Final = re.compile("[\r\n\0]")
_BLANK: Final = re.compile(r"[\x00-\x20]")


@dataclass
class RequestOptions:
    """What a program may say about the request; the fields are the options of WebSocket.connect()."""

    header: Any = None
    cookie: str | None = None
    origin: str | None = None
    suppress_origin: bool = False
    host: str | None = None
    suppress_host: bool = False
    connection: str | None = None
    subprotocols: Sequence[str] | None = None
    compression: Any = None

    def __post_init__(self) -> None:
        self.compression = PerMessageDeflate.parse(self.compression)
        # Both are looked at more than once, which an iterator does not bear.
        if (
            self.header is not None
            and isinstance(self.header, Iterable)
            and not isinstance(self.header, (Mapping, str, bytes))
        ):
            self.header = list(self.header)
        if (
            self.subprotocols is not None
            and not isinstance(self.subprotocols, str)
            and isinstance(self.subprotocols, Iterable)
        ):
            self.subprotocols = list(self.subprotocols)


_BY_HEADER: Final = PerMessageDeflate()  # for what a header of the program offers


@dataclass
class Request:
    """A request ready to be sent, and what its answer is held against."""

    data: bytes = field(repr=False)  # holds credentials
    key: str
    subprotocols: tuple[str, ...]
    offers: tuple[Parameters, ...] = ()  # of permessage-deflate
    compression: PerMessageDeflate = _BY_HEADER


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _checked(what: str, value: Any) -> str:
    """A str fit for a line of the request. Raises ValueError where it would break out of its line."""
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a str, not {value!r}" + ("; decode it" if isinstance(value, bytes) else ""))
    if found := _FORBIDDEN.search(value):
        raise ValueError(f"{what} {value!r} contains {found.group()!r}, which must not be in a request")
    return value


def header_pairs(header: Any) -> list[tuple[str, str]]:
    """The `header` option as (name, value) pairs.

    header: a mapping, or an iterable of "Name: value" lines; a mapping's None values are left out. Raises
    ValueError for what is neither, and for a name or a value that HTTP does not allow.
    """
    if header is None:
        return []
    if isinstance(header, Mapping):
        pairs = [(name, _value(value)) for name, value in header.items() if value is not None]
    elif isinstance(header, Iterable) and not isinstance(header, (str, bytes)):
        pairs = [_split_line(line) for line in header if line is not None]
    else:
        raise ValueError(f"header must be a list of 'Name: value' lines or a dict, not {header!r}")
    for name, value in pairs:
        _checked("header", value)
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise ValueError(f"header name {name!r} is invalid; letters, digits and !#$%&'*+-.^_`|~ are allowed")
    return pairs


def _value(value: Any) -> str:
    """A header's value; numbers are taken as well as str, but not bytes, whose str() nobody means."""
    return _checked("header", value if isinstance(value, (str, bytes)) else str(value)).strip(" \t")


def _split_line(line: Any) -> tuple[str, str]:
    name, colon, value = _checked("header", line).partition(":")
    if not colon:
        raise ValueError(f"header {line!r} must have the form 'Name: value'")
    return name, value.strip(" \t")


def build_request(target: Target, options: RequestOptions, cookie: str = "", credentials: bool = True) -> Request:
    """The request for `target`.

    cookie: the value of its Cookie header, empty for none.  credentials: whether user and password of the URL and
    the program's own Authorization, Cookie and Proxy-Authorization headers go with it; they do not follow a
    redirect to another server. A header that the program gives replaces ours of the same name.
    Raises ValueError before a byte is sent for anything that contains CR, LF or NUL.
    """
    given = header_pairs(options.header)
    if not credentials:
        given = [pair for pair in given if pair[0].lower() not in ("authorization", "cookie", "proxy-authorization")]
    own = {name.lower(): value for name, value in given} if given else {}
    extensions = [value for name, value in given if name.lower() == "sec-websocket-extensions"] if given else []
    if options.cookie is not None:
        _checked("cookie", options.cookie)
    for what, value in (("host", target.host), ("resource", target.resource)):
        if _BLANK.search(_checked(what, value)):
            raise ValueError(f"{what} {value!r} is invalid: it contains blanks or control characters")
    subprotocols = _subprotocols(options.subprotocols)
    key = own.get("sec-websocket-key", base64.b64encode(os.urandom(16)).decode())
    authority = target.authority
    lines: list[tuple[str, str]] = []
    if not options.suppress_host:
        lines.append(("Host", _checked("host", options.host) if options.host else authority))
    lines += [("Upgrade", "websocket"), ("Connection", _connection_value(options.connection))]
    if not options.suppress_origin:
        scheme = "https" if target.secure else "http"
        lines.append(("Origin", _checked("origin", options.origin) if options.origin else f"{scheme}://{authority}"))
    lines += [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", str(_VERSION))]
    if subprotocols:
        lines.append(("Sec-WebSocket-Protocol", ",".join(subprotocols)))
    offers = _offers(", ".join(extensions) if extensions else None, options.compression)
    if options.compression is not None:
        lines.append(("Sec-WebSocket-Extensions", format_extension(options.compression.offer)))
    if credentials and target.user is not None:
        pair = f"{target.user}:{target.password or ''}".encode()
        lines.append(("Authorization", "Basic " + base64.b64encode(pair).decode()))
    if cookie:
        lines.append(("Cookie", _checked("cookie", cookie)))
    if given:
        lines = [line for line in lines if line[0].lower() not in own] + given
    head = "\r\n".join([f"GET {target.resource} HTTP/1.1", *[f"{name}: {value}" for name, value in lines]])
    if "sec-websocket-protocol" in own:
        offered = [value for name, value in given if name.lower() == "sec-websocket-protocol"]
        subprotocols = tuple(name for name in map(str.strip, ",".join(offered).split(",")) if name)
    compression = options.compression or _BY_HEADER
    return Request((head + "\r\n\r\n").encode(), key, subprotocols, offers, compression)


def _offers(header: str | None, compression: PerMessageDeflate | None) -> tuple[Parameters, ...]:
    """What is offered by the `compression` option, or by the program's own header. Raises ValueError for both, and for
    a header that offers what this package could not keep to."""
    if header is None:
        return () if compression is None else (compression.offer,)
    if compression is not None:
        raise ValueError("compression and a header Sec-WebSocket-Extensions say the same; give one of them")
    try:
        return tuple(parse_offers(header))
    except ValueError as error:
        raise ValueError(f"header Sec-WebSocket-Extensions {header!r}: {error}") from error


def _connection_value(connection: str | None) -> str:
    """The `connection` option: the header's value, or the whole line as websocket-client wants it."""
    if not connection:
        return "Upgrade"
    name, colon, value = _checked("connection", connection).partition(":")
    return value.strip() if colon and name.strip().lower() == "connection" else connection


def _subprotocols(subprotocols: Sequence[str] | None) -> tuple[str, ...]:
    if not subprotocols:
        return ()
    if isinstance(subprotocols, str):
        raise ValueError(f"subprotocols must be a list of names, not the str {subprotocols!r}")
    for name in subprotocols:
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise ValueError(f"subprotocol {name!r} is invalid; letters, digits and !#$%&'*+-.^_`|~ are allowed")
    return tuple(subprotocols)


def bad_status(status: int, reason: str, headers: Mapping[str, str], body: bytes | None) -> WebSocketBadStatusException:
    """The exception for an answer that is neither 101 nor a redirect, worded as in websocket-client."""
    message = f"Handshake status {status} {reason} -+-+- {dict(headers)} -+-+- {body!r}"
    return WebSocketBadStatusException(message, status, reason, headers, body)


def check_response(head: HeadParser, request: Request) -> str | None:
    """Hold a 101 response against its request (RFC 6455 4.1); returns the chosen subprotocol or None.

    Raises WebSocketProtocolException that names the header at fault.
    """
    headers = head.headers
    if headers.get("upgrade", "").lower() != "websocket":
        raise _invalid("upgrade", headers, "it must be 'websocket'")
    if "upgrade" not in [token.strip().lower() for token in headers.get("connection", "").split(",")]:
        raise _invalid("connection", headers, "it must contain 'Upgrade'")
    accept = headers.get("sec-websocket-accept", "")
    if not hmac.compare_digest(accept.encode(), accept_value(request.key).encode()):
        raise _invalid("sec-websocket-accept", headers, "it does not fit the key of the request")
    agreed_compression(head, request)
    subprotocol = headers.get("sec-websocket-protocol")
    offered = [name.lower() for name in request.subprotocols]
    if subprotocol is None and offered:
        raise _invalid("sec-websocket-protocol", headers, f"the server accepts none of the subprotocols {offered}")
    if subprotocol is not None and subprotocol.lower() not in offered:
        raise _invalid("sec-websocket-protocol", headers, f"offered were the subprotocols {offered}")
    return subprotocol


def agreed_compression(head: HeadParser, request: Request) -> Agreement | None:
    """What a 101 response has settled about permessage-deflate, None where it is not used. Raises
    WebSocketProtocolException for an answer that is none to what was offered."""
    headers = head.headers
    extensions = headers.get("sec-websocket-extensions", "")
    if not extensions.strip(" ,\t"):
        return None
    try:
        return check_answer(extensions, request.offers, request.compression)
    except ValueError as error:
        raise _invalid("sec-websocket-extensions", headers, str(error)) from error


def _invalid(name: str, headers: Mapping[str, str], why: str) -> WebSocketProtocolException:
    return WebSocketProtocolException(f"Invalid WebSocket Header: {name} is {headers.get(name)!r}; {why}")


class handshake_response:
    """What the server answered.

    status: the HTTP status (int).  headers: a dict with lower-case names.  subprotocol: the chosen one or None.
    """

    def __init__(self, status: int, headers: dict[str, str], subprotocol: str | None) -> None:
        self.status = status
        self.headers = headers
        self.subprotocol = subprotocol


# ---- Only for programs written for websocket-client: nothing in the package uses what follows. ----


def handshake(sock: Any, url: str, hostname: str, port: int, resource: str, **options: Any) -> handshake_response:
    """Do the opening handshake on a connected socket, as websocket-client's function does.

    sock: anything with sendall() and recv(); it is read a byte at a time so that no frame is taken from it.
    options: header, cookie, origin, suppress_origin, host, connection, subprotocols.
    Raises WebSocketBadStatusException, WebSocketProtocolException, or what the socket raises.
    """
    secure = parse_target(url).secure
    known = RequestOptions.__dataclass_fields__
    request_options = RequestOptions(**{name: value for name, value in options.items() if name in known})
    request = build_request(
        Target(hostname, port, resource, secure), request_options, cookie=request_options.cookie or ""
    )
    dump("request header", request.data)
    sock.sendall(request.data)
    head = HeadParser()
    while not head.feed(byte := sock.recv(1)):
        if not byte:
            raise WebSocketException("the server closed the connection during the handshake")
    status, reason = parse_status_line(head.first_line)
    dump("response header", head.fields)
    if status in SUPPORTED_REDIRECT_STATUSES:
        return handshake_response(status, head.headers, None)
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise bad_status(status, reason, head.headers, None)
    return handshake_response(status, head.headers, check_response(head, request))
