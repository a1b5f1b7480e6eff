"""The opening handshake on the wire: request and response under the attempt's deadline, redirects, cookies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from . import _logging
from ._attempt import Attempt
from ._cookiejar import cookies
from ._deflate import Agreement
from ._exceptions import (
    WebSocketBadStatusException,
    WebSocketConnectException,
    WebSocketConnectionLostException,
    WebSocketException,
)
from ._exchange import exchange, read_body
from ._handshake import (
    SUPPORTED_REDIRECT_STATUSES,
    Request,
    RequestOptions,
    agreed_compression,
    bad_status,
    build_request,
    check_response,
    handshake_response,
    header_pairs,
)
from ._http import Routes, adopt
from ._http_message import HeadParser
from ._ssl_compat import SSLError
from ._tls import explain
from ._transport import Transport
from ._url import Target, parse_target


@dataclass
class Opened:
    """A connection that is open: the bytes that came right behind the response belong to its first frames."""

    transport: Transport
    target: Target
    response: handshake_response
    compression: Agreement | None
    first_bytes: bytes


def open_connection(
    url: str,
    attempt: Attempt,
    options: RequestOptions,
    routes: Routes,
    *,
    redirect_limit: int = 3,
    socket: Any = None,
) -> Opened:
    """Connect, shake hands, follow redirects.

    socket: a connected socket to be used for the first server. Raises ValueError for what cannot go into a
    request, and WebSocketException of the kinds that tell what failed; whatever it raises, no socket is left open.
    """
    target = origin = parse_target(url)
    # What is wrong with the options is said before anything is connected. Without cookies this is what is sent.
    request: Request | None = build_request(target, options)
    seen: set[tuple[str, int, bool, str]] = set()
    while True:
        trusted = target.origin == origin.origin
        if socket is None:
            if trusted:
                _check_for_proxy(routes, target, options)
            transport = routes.reach(target, attempt)
        else:
            # websocket-client speaks no TLS on it either: what the program hands in for a wss:// URL is wrapped
            # already, or is plain because something else ends the TLS.
            transport = adopt(socket)
            socket = None
        try:
            cookie = cookies.header(target, options.cookie if trusted else None)
            if request is None or cookie:
                request = build_request(target, options, cookie, credentials=trusted)
            head, status, reason, subprotocol, compression = _shake_hands(transport, target, attempt, request)
            if status == 101:
                response = handshake_response(status, head.headers, subprotocol)
                return Opened(transport, target, response, compression, head.rest)
            if status not in SUPPORTED_REDIRECT_STATUSES or redirect_limit <= 0:
                raise bad_status(status, reason, head.headers, read_body(transport, head, status, attempt))
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
        request = None
        if target.origin != origin.origin:
            options = replace(options, host=None)


def _check_for_proxy(routes: Routes, target: Target, options: RequestOptions) -> None:
    """Refuse a header that is meant for the proxy and would go to the server behind it."""
    if not options.header:
        return
    if any(name.lower() == "proxy-authorization" for name, _ in header_pairs(options.header)) and routes.proxy(target):
        raise ValueError(
            "header Proxy-Authorization would go to the server behind the proxy; give the proxy's user and password in"
            " its URL or in http_proxy_auth"
        )


def _shake_hands(
    transport: Transport, target: Target, attempt: Attempt, request: Request
) -> tuple[HeadParser, int, str, str | None, Agreement | None]:
    """Send the request and read the head of its answer: (head, status, reason phrase, subprotocol, compression)."""
    if _logging.tracing:
        _logging.dump("request header", request.data.decode().replace("\r\n", "\n"))
    doing = f"waiting for the handshake of {target.authority}"
    try:
        head, status, reason = exchange(transport, request.data, attempt, doing, "the server")
    except WebSocketException:
        raise
    except ConnectionError as error:
        raise WebSocketConnectionLostException(
            f"Connection to remote host was lost while {doing}: {error.strerror}"
        ) from error
    except SSLError as error:  # in TLS 1.3 a refusal of the client's certificate comes this late
        raise explain(error, target.host) from error
    except OSError as error:
        raise WebSocketConnectException(
            error.errno, f"connection failed while {doing}: {error.strerror or error}"
        ) from error
    if _logging.tracing:
        lines = [head.first_line, *(f"{name}: {value}" for name, value in head.fields)]
        _logging.dump("response header", "\n".join(lines))
    if "set-cookie" in head.headers:
        cookies.keep(target, [value for name, value in head.fields if name == "set-cookie"])
    if status != 101:
        return head, status, reason, None, None
    return head, status, reason, check_response(head, request), agreed_compression(head, request)


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
