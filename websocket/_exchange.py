"""One HTTP/1.1 request and its answer over a transport, under the attempt's deadline: what the opening handshake and a
proxy's CONNECT have in common."""

from __future__ import annotations

import errno
from typing import Final

from ._attempt import Attempt
from ._exceptions import WebSocketProtocolException, WebSocketTimeoutException
from ._http_message import BodyParser, HeadParser, check_start, parse_status_line
from ._transport import Transport

# A server that answers with an error may never end its body.
_BODY_SECONDS: Final = 5.0
_READ: Final = 16 * 1024
_WITHOUT_BODY: Final = (204, 304)  # RFC 9112 6.3
_MAX_INTERIM: Final = 10
# Other protocols are told from HTTP by so many bytes.
_START: Final = 64


def exchange(
    transport: Transport, request: bytes, attempt: Attempt, doing: str, who: str
) -> tuple[HeadParser, int, str]:
    """Send a request and read the head of its final answer: (head, status, reason phrase).

    doing: what the time is spent on, who: who answers, both for messages. Raises OSError, ConnectionAbortedError where
    the stream ends before the head does, and WebSocketException.
    """
    failure: ConnectionError | None = None
    try:
        attempt.send(transport, request, doing)
    except ConnectionError as error:
        failure = error  # it may have said why, which tells more
    try:
        head = _read_head(transport, attempt, doing, who, b"")
    except ConnectionAbortedError as error:
        if failure is not None:  # the system tells of a reset only once
            raise failure from error
        raise
    status, reason = parse_status_line(head.first_line, who)
    interim = 0
    while 100 <= status < 200 and status != 101:  # RFC 9110 15.2: interim responses come before the final one
        interim += 1
        if interim > _MAX_INTERIM:
            raise WebSocketProtocolException(f"{who} sent more than {_MAX_INTERIM} interim responses")
        head = _read_head(transport, attempt, doing, who, head.rest)
        status, reason = parse_status_line(head.first_line, who)
    return head, status, reason


def _read_head(transport: Transport, attempt: Attempt, doing: str, who: str, data: bytes) -> HeadParser:
    """Read the head of a response that begins with `data`."""
    head = HeadParser()
    start = data
    whole = False
    if data:
        check_start(start, who)
        whole = head.feed(data)
    while not whole:
        received = attempt.receive(transport, _READ, doing)
        if not received:
            raise ConnectionAbortedError(errno.ECONNABORTED, f"{who} ended it")
        if len(start) < _START:
            start += received
            check_start(start, who)
        whole = head.feed(received)
    return head


def read_body(transport: Transport, head: HeadParser, status: int, attempt: Attempt) -> bytes:
    """The body of an answer that is an error, as far as it comes in time."""
    body = BodyParser(head.headers)
    whole = status < 200 or status in _WITHOUT_BODY or body.feed(head.rest)
    try:
        with attempt.limited_to(_BODY_SECONDS, "the limit"):
            while not whole:
                received = attempt.receive(transport, _READ, "reading the error page")
                whole = not received or body.feed(received)
    except (OSError, WebSocketTimeoutException):
        pass  # the error page is cut short; the status is what matters
    return body.body
