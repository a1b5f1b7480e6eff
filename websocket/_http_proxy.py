"""HTTP proxies: a tunnel by CONNECT (RFC 9110 9.3.6), for ws:// as for wss://, and TLS to the proxy itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from ._attempt import Attempt
from ._exceptions import WebSocketProtocolException, WebSocketProxyConnectionException, WebSocketProxyException
from ._exchange import exchange, read_body
from ._hosts import bracketed
from ._http_message import HeadParser
from ._logging import dump
from ._proxies import Proxy
from ._tls_transport import ProxyTLSTransport
from ._transport import Transport
from ._ways import start_tls

# RFC 9110 15.5.8; tinyproxy says 401 of credentials that it does not take.
_AUTHENTICATION_REQUIRED: Final = (407, 401)


class Connect:
    """The CONNECT method. sslopt: for TLS to a proxy of scheme https."""

    def __init__(self, sslopt: Mapping[str, Any]) -> None:
        self._sslopt = sslopt

    def __call__(self, raw: Transport, proxy: Proxy, host: str, port: int, attempt: Attempt) -> Transport:
        who = "the proxy"
        if proxy.scheme == "https":
            doing = "waiting for TLS with the proxy"
            raw = start_tls(raw, ProxyTLSTransport, proxy.host, self._sslopt, attempt, doing, "proxy_sslopt")
        authority = f"{bracketed(host)}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        dump("request to the proxy", "\n".join(lines))
        if proxy.user is not None:
            credentials = f"{proxy.user}:{proxy.password or ''}".encode()
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}")
        request = "\r\n".join([*lines, "", ""]).encode()
        doing = f"waiting for the proxy's answer to CONNECT {authority}"
        try:
            head, status, reason = exchange(raw, request, attempt, doing, who)
        except ConnectionError as error:
            raise WebSocketProxyConnectionException(
                f"proxy {proxy.url}: the connection was lost while {doing}: {error.strerror or error}"
            ) from error
        dump("answer of the proxy", "\n".join([head.first_line, *(f"{name}: {value}" for name, value in head.fields)]))
        if not 200 <= status < 300:
            raise _refusal(proxy, authority, head, status, reason, read_body(raw, head, status, attempt))
        if head.rest:  # nobody has said anything in the tunnel that could be answered
            raise WebSocketProtocolException(f"{len(head.rest)} bytes came behind its answer to CONNECT {authority}")
        return raw


def _refusal(
    proxy: Proxy, authority: str, head: HeadParser, status: int, reason: str, body: bytes
) -> WebSocketProxyException:
    hint = ""
    if status in _AUTHENTICATION_REQUIRED:
        offered = head.headers.get("proxy-authenticate", "")
        if "basic" not in offered.lower() and offered:
            hint = f"; it wants {offered[:200]!r}, and Basic is all that can be given"
        elif proxy.user is None:
            hint = "; give user and password in the proxy's URL or in http_proxy_auth"
        else:
            hint = "; it does not take the user and password given"
    error = WebSocketProxyException(f"proxy {proxy.url} refused CONNECT {authority}: {status} {reason}{hint}")
    error.status_code, error.reason, error.resp_headers, error.resp_body = status, reason, head.headers, body
    return error
