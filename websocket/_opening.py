"""The opening handshake on the wire: request and response under the attempt's deadline, redirects, cookies."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urljoin

from ._cookiejar import cookies
from ._exceptions import (
    WebSocketBadStatusException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from ._handshake import (
    SUPPORTED_REDIRECT_STATUSES,
    BodyParser,
    HeadParser,
    RequestOptions,
    bad_status,
    build_request,
    check_response,
    handshake_response,
    parse_status_line,
)
from ._http import Attempt, adopt, check_direct, dial, secure
from ._logging import dump
from ._socket import sock_opt
from ._ssl_compat import SSLError
from ._tls import explain
from ._transport import Transport
from ._url import Target, parse_target

# A server that answers with an error may never end its body.
_BODY_SECONDS: Final = 5.0
_READ: Final = 16 * 1024
_WITHOUT_BODY: Final = (204, 304)  # RFC 9112 6.3
_MAX_INTERIM: Final = 10


@dataclass
class Opened:
    """A connection that is open: the bytes that came right behind the response belong to its first frames."""

    transport: Transport
    target: Target
    response: handshake_response
    first_bytes: bytes


def open_connection(
    url: str,
    attempt: Attempt,
    options: RequestOptions,
    sock_options: sock_opt,
    *,
    proxy_options: Mapping[str, Any],
    redirect_limit: int = 3,
    socket: Any = None,
) -> Opened:
    """Connect, shake hands, follow redirects.

    socket: a connected socket to be used for the first server. Raises ValueError for what cannot go into a
    request, and WebSocketException of the kinds that tell what failed; whatever it raises, no socket is left open.
    """
    target = origin = parse_target(url)
    build_request(target, options)  # what is wrong with the options is said before anything is connected
    seen: set[tuple[str, int, bool, str]] = set()
    while True:
        trusted = target.origin == origin.origin
        if socket is None:
            check_direct(target, proxy_options)
            transport = dial(target, attempt, sock_options)
        else:
            transport = _over(socket, target, attempt, sock_options)
            socket = None
        try:
            head, status, reason, subprotocol = _shake_hands(transport, target, attempt, options, trusted)
            if status == 101:
                response = handshake_response(status, head.headers, subprotocol)
                return Opened(transport, target, response, head.rest)
            if status not in SUPPORTED_REDIRECT_STATUSES or redirect_limit <= 0:
                raise bad_status(status, reason, head.headers, _read_body(transport, head, status, attempt))
            error = bad_status(status, reason, head.headers, None)
            seen.add((*target.origin, target.resource))
            if len(seen) > redirect_limit:
                raise _redirect_error(error, f"more than redirect_limit={redirect_limit} redirects")
            target = _redirect_target(target, head.headers, error)
            if (*target.origin, target.resource) in seen:
                raise _redirect_error(error, f"the redirect to {target.url} is a loop")
        except BaseException:
            transport.close()
            raise
        transport.close()
        if target.origin != origin.origin:
            options = replace(options, host=None)


def _over(socket: Any, target: Target, attempt: Attempt, options: sock_opt) -> Transport:
    """A transport over the program's own socket. websocket-client speaks no TLS on it either: what the program
    hands in for a wss:// URL is wrapped already, or is plain because something else ends the TLS."""
    return secure(adopt(socket), replace(target, secure=False), attempt, options.sslopt)


def _shake_hands(
    transport: Transport, target: Target, attempt: Attempt, options: RequestOptions, trusted: bool
) -> tuple[HeadParser, int, str, str | None]:
    """Send the request and read the head of its answer: (head, status, reason phrase, subprotocol)."""
    cookie = cookies.header(target, options.cookie if trusted else None)
    request = build_request(target, options, cookie, credentials=trusted)
    dump("request header", request.data.decode().replace("\r\n", "\n"))
    doing = f"waiting for the handshake of {target.authority}"
    try:
        _send(transport, request.data, attempt, doing)
        head = _read_head(transport, attempt, doing, b"")
        status, reason = parse_status_line(head.first_line)
        interim = 0
        while 100 <= status < 200 and status != 101:  # RFC 9110 15.2: interim responses come before the final one
            interim += 1
            if interim > _MAX_INTERIM:
                raise WebSocketProtocolException(f"handshake: more than {_MAX_INTERIM} interim responses")
            head = _read_head(transport, attempt, doing, head.rest)
            status, reason = parse_status_line(head.first_line)
    except WebSocketException:
        raise
    except ConnectionError as error:
        raise WebSocketConnectionClosedException(
            f"Connection to remote host was lost while {doing}: {error.strerror}"
        ) from error
    except SSLError as error:  # in TLS 1.3 a refusal of the client's certificate comes this late
        raise explain(error, target.host) from error
    except OSError as error:
        raise WebSocketConnectException(
            error.errno, f"connection failed while {doing}: {error.strerror or error}"
        ) from error
    dump("response header", "\n".join([head.first_line, *(f"{name}: {value}" for name, value in head.fields)]))
    cookies.keep(target, [value for name, value in head.fields if name == "set-cookie"])
    return head, status, reason, check_response(head, request) if status == 101 else None


def _send(transport: Transport, data: bytes, attempt: Attempt, doing: str) -> None:
    """Send the request. A server that ends the connection meanwhile may have said why: reading tells."""
    try:
        while data:
            if not (sent := transport.send_now(data)):
                attempt.wait(transport.sock, select.POLLOUT, doing)
            data = data[sent:]
    except ConnectionError:
        pass  # reading ends with the same error, or with the end, where the server has said nothing


def _read_head(transport: Transport, attempt: Attempt, doing: str, data: bytes) -> HeadParser:
    """Read the head of a response that begins with `data`."""
    head = HeadParser()
    whole = head.feed(data)
    while not whole:
        attempt.check(doing)
        if not transport.is_buffered():
            attempt.wait(transport.sock, select.POLLIN, doing)
        received = transport.recv_now(_READ)
        if received == b"":
            raise WebSocketConnectionClosedException(
                f"Connection to remote host was lost while {doing}: the server ended it"
            )
        whole = bool(received) and head.feed(received or b"")
    return head


def _read_body(transport: Transport, head: HeadParser, status: int, attempt: Attempt) -> bytes:
    """The body of an answer other than 101, as far as it comes in time."""
    body = BodyParser(head.headers)
    limit = time.monotonic() + _BODY_SECONDS
    whole = status in _WITHOUT_BODY or body.feed(head.rest)
    try:
        while not whole and time.monotonic() < limit:
            attempt.check("reading the error page")
            if not transport.is_buffered() and not attempt.wait(
                transport.sock, select.POLLIN, "reading the error page", limit
            ):
                break
            received = transport.recv_now(_READ)
            whole = received == b"" or (bool(received) and body.feed(received or b""))
    except (OSError, WebSocketTimeoutException):
        pass  # the error page is cut short; the status is what matters
    return body.body


def _redirect_error(error: WebSocketBadStatusException, why: str) -> WebSocketBadStatusException:
    return WebSocketBadStatusException(
        f"{why}: {error}", error.status_code, error.status_message, error.resp_headers, error.resp_body
    )


def _redirect_target(target: Target, headers: Mapping[str, str], error: WebSocketBadStatusException) -> Target:
    """Where a redirect leads (RFC 9110 15.4)."""
    location = headers.get("location")
    if not location:
        raise _redirect_error(error, "the redirect has no Location")
    base = f"{'wss' if target.secure else 'ws'}://{target.authority}{target.resource}"
    try:
        result = parse_target(_join(base, location))
    except ValueError as problem:
        raise _redirect_error(error, f"the redirect's Location {location!r} is unusable: {problem}") from problem
    if target.secure and not result.secure:
        raise _redirect_error(error, f"the redirect to {result.url} would leave TLS")
    return replace(result, user=None, password=None) if result.origin != target.origin else _keep(target, result)


def _keep(target: Target, result: Target) -> Target:
    """The redirect's target with the credentials of the URL that it comes from: it is the same server."""
    if result.user is not None:
        return result
    return replace(result, user=target.user, password=target.password)


def _join(base: str, location: str) -> str:
    """A Location against its base; http and https mean ws and wss. urljoin() knows only http's kind."""
    url = urljoin(base.replace("ws", "http", 1), location)
    scheme, colon, rest = url.partition(":")
    return {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + colon + rest
