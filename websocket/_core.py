"""WebSocket and create_connection: the lock-protected front of a connection.

Runs in the program's threads. Its lock guards which connection is the current one and nothing else: it is never
held during I/O or a call of the program's functions, nor while anything waits for a peer.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, cast

from . import _logging
from ._abnf import (
    ABNF,
    STATUS_NORMAL,
    checked_key,
    close_payload,
    new_masking_key,
    payload_bytes,
)
from ._attempt import Attempt
from ._deflate import Agreement
from ._exceptions import WebSocketConnectException, WebSocketConnectionClosedException, WebSocketException
from ._frames import encode_frame
from ._handshake import handshake_response
from ._http import Routes, adopt, check_socket
from ._message import Fragment, MessageInParts, RawText
from ._opening import Opened, open_connection
from ._options import OWN_TIMEOUT, ConnectOptions
from ._pure import Payload
from ._sock import ConnectionSocket
from ._socket import checked_timeout, getdefaulttimeout, sock_opt
from ._streaming import ChunkSender, MessageStream, as_chunks
from .threads import lifetime
from .threads.callback_reader import Consumer
from .threads.connection import Connection
from .threads.inbox import Inbox
from .threads.limits import Limits
from .threads.pinger import Keepalive

__all__ = ["WebSocket", "create_connection"]

_TEXT: Final = ABNF.OPCODE_TEXT
_BINARY: Final = ABNF.OPCODE_BINARY


@dataclass(frozen=True)
class Feeding:
    """Where a WebSocketApp's connection delivers: to a consumer on the reader thread; or, without one, to who polls,
    who is told of the end by on_closed (called on the reader thread)."""

    consumer: Consumer | None = None
    on_closed: Callable[[], None] | None = None


# What a WebSocket without a connection takes from: nothing.
_NO_INBOX: Final = Inbox(1, 1, special=True)


class WebSocket:
    """A WebSocket client: websocket-client's class, for any number of threads at once.

    Every method may be called from any thread at any time, in any state; the outcome is a result or a
    WebSocketException (ValueError and TypeError for arguments that make no sense). Iterating gives messages until
    a close with 1000, 1001 or no code, and raises at another end. As a context
    manager it closes the connection at the end of the block.

    get_mask_key: called with 4, gives a frame's masking key; by default the system's random source does.
    sockopt: (level, option, value) triples for setsockopt().
    sslopt: a dict of TLS options (the README lists its keys).
    fire_cont_frame: deliver the frames of a fragmented message one by one.
    enable_multithread: taken for compatibility; every WebSocket is safe for threads.
    skip_utf8_validation: do not check that text is UTF-8, neither received nor given as bytes to send(); recv()
        then gives surrogate escapes for what is not.
    """

    def __init__(
        self,
        get_mask_key: Callable[[int], str | bytes] | None = None,
        sockopt: Any = None,
        sslopt: dict[str, Any] | None = None,
        fire_cont_frame: bool = False,
        enable_multithread: bool = True,
        skip_utf8_validation: bool = False,
        **_: Any,
    ) -> None:
        self.sock_opt = sock_opt(sockopt, sslopt)
        self.handshake_response: handshake_response | None = None
        self.get_mask_key: Callable[[int], str | bytes] | None
        self.set_mask_key(get_mask_key)
        self._fire_cont_frame = fire_cont_frame
        self._skip_utf8_validation = skip_utf8_validation
        self._lock = threading.RLock()
        # All that follows is guarded by self._lock; readers take one look and live with what they saw.
        self._connection: Connection | None = None
        self._inbox = _NO_INBOX  # the connection's
        self._attempt: Attempt | None = None  # connect() is under way
        self._assigned: Any = None  # a socket that was assigned to `sock` and is not in use yet
        self._let_go_of = True  # close() or shutdown() was called: there is no `sock` any more
        self._feeding: Feeding | None = None  # set before connect(), by a WebSocketApp
        self._is_over = False  # a WebSocketApp's has been closed, maybe before it was connected
        lifetime.watch(self)

    # ---- connecting ----

    def connect(self, url: str, **options: Any) -> None:
        """Connect to a ws:// or wss:// URL and do the opening handshake.

        timeout: seconds for everything from the name to the handshake, and from then on the timeout of recv()
            and send(), as settimeout() sets it; None for no limit.
        header: a dict, or a list of "Name: value" lines.  cookie: a str of "name=value; ...".
        origin, host, connection: the headers of these names.  suppress_origin, suppress_host: leave them out.
        subprotocols: a list of names.  redirect_limit: how many redirects to follow, 3 by default.
        socket: a connected socket to be used in place of a new one.
        ping_interval: seconds between pings of the connection's keepalive; None or 0, the default, for none.
        ping_timeout: seconds, less than ping_interval; without a pong by then the connection ends and recv() raises
            WebSocketTimeoutException once. Time in which a full inbox kept this side from reading does not count.
        ping_payload: what each ping carries; by default they are numbered.
        compression: "deflate" or a PerMessageDeflate to offer the server permessage-deflate (RFC 7692); None, the
            default, for none. A header Sec-WebSocket-Extensions that the program gives is honoured, where it offers
            permessage-deflate.
        max_message_size, max_inbox_messages, max_inbox_bytes, max_outbox_messages, max_outbox_bytes: bounds, see
            the README.
        unix: the path of a Unix socket by which the server is reached, whatever host the URL names.
        proxy: "scheme://user:password@host:port" of a proxy, of the schemes http, https (TLS to the proxy itself),
            socks4, socks4a, socks5 and socks5h; "" for none. Without it the environment's is used: wss_proxy,
            https_proxy or all_proxy for wss, ws_proxy, http_proxy or all_proxy for ws, unless its no_proxy names the
            server. The tunnel is made by CONNECT for ws:// too.
        proxy_sslopt: as the `sslopt` of the constructor, for TLS to a proxy of scheme https.
        http_proxy_host, http_proxy_port, http_proxy_auth (a tuple of user and password), proxy_type (a scheme as in
            `proxy`, "http" by default): the same in pieces, as in websocket-client.
        http_no_proxy: a list of servers to be reached directly in spite of a proxy: "*", host, domain (its subdomains
            too), address, network in CIDR notation, host:port.
        http_proxy_timeout: seconds for the proxy, from the connection to it to the end of its answer; None for no
            other limit than `timeout`.

        A connection that this WebSocket has already is cut first. close() in another thread ends the attempt.

        Raises ValueError for options and URLs that make no sense, WebSocketAddressException where the name cannot
        be resolved, WebSocketConnectionRefusedException and WebSocketConnectException where no connection comes
        about, WebSocketCertificateException and WebSocketTLSException for TLS, WebSocketBadStatusException for
        another answer than 101, WebSocketProtocolException for a wrong one, WebSocketTimeoutException, and
        WebSocketProxyException (with the proxy's `status_code` and `reason`; a WebSocketProxyTimeoutException or a
        WebSocketProxyConnectionException where that is what happened) for all that goes wrong at a proxy, and
        WebSocketException where another thread is connecting this WebSocket.
        """
        chosen = ConnectOptions.parse(options)
        if "timeout" in options:
            self.timeout = options["timeout"]
        try:
            with Attempt(self.timeout) as attempt:
                self._connect(url, attempt, chosen)
        except WebSocketException:
            raise
        except OSError as error:  # the process has no descriptors left
            raise WebSocketConnectException(error.errno, f"cannot connect: {error.strerror or error}") from error

    def _connect(self, url: str, attempt: Attempt, options: ConnectOptions) -> None:
        try:
            with self._lock:
                if self._attempt is not None:
                    raise WebSocketException(
                        "another thread is connecting this WebSocket; wait for it, or use a second one"
                    )
                if self._is_over:
                    raise WebSocketConnectionClosedException("closed by this program before it was connected")
                self._attempt = attempt
                self._let_go_of = True
                self.handshake_response = None
                previous = self._connection
            if previous is not None:
                previous.abort()
                previous.release_event()
            opened = open_connection(
                url,
                attempt,
                options.request,
                Routes(self.sock_opt, options.proxies, options.unix),
                redirect_limit=options.redirect_limit,
                socket=options.socket,
            )
            self._open(opened, options, attempt)
        finally:
            with self._lock:
                if self._attempt is attempt:
                    self._attempt = None

    def _open(self, opened: Opened, options: ConnectOptions, attempt: Attempt) -> None:
        scheme = "wss" if opened.target.secure else "ws"
        connection = self._start(
            opened.transport,
            f"{scheme}://{opened.target.host}:{opened.target.port}",
            options.limits,
            options.keepalive,
            opened.first_bytes,
            opened.compression,
        )
        try:
            with self._lock:
                if not attempt.cancelled:
                    self._publish(connection)
                    self.handshake_response = opened.response
        finally:
            if self._connection is not connection:  # closed meanwhile, or interrupted by a signal handler
                connection.abort()
        attempt.check("connecting")

    def _start(
        self,
        transport: Any,
        peer: str,
        limits: Limits,
        keepalive: Keepalive | None = None,
        first_bytes: bytes = b"",
        compression: Agreement | None = None,
    ) -> Connection:
        feeding = self._feeding
        try:
            connection = Connection(
                transport,
                peer,
                limits,
                first_bytes=first_bytes,
                compression=compression,
                skip_utf8_validation=self._skip_utf8_validation,
                fire_cont_frame=self._fire_cont_frame,
                keepalive=keepalive,
                consumer=None if feeding is None else feeding.consumer,
                on_closed=None if feeding is None else feeding.on_closed,
            )
        except BaseException:
            transport.close()
            raise
        connection.start()
        return connection

    def _publish(self, connection: Connection) -> None:
        """Make it the current connection. With the lock held."""
        self._connection = connection
        self._inbox = connection.inbox
        self._let_go_of = False
        self._assigned = None

    def _current(self) -> Connection:
        """The connection to work with. Raises WebSocketConnectionClosedException where there is none."""
        if self._assigned is not None:
            self._adopt()
        connection = self._connection
        if connection is None:
            raise WebSocketConnectionClosedException("socket is already closed: call connect() first")
        return connection

    def _adopt(self) -> None:
        """Put the assigned socket into use, and cut what was in use."""
        with self._lock:
            sock = self._assigned
            if sock is None:  # another thread was faster
                return
            previous = self._connection
            # Under the lock, so that nobody finds neither; starting the threads waits for no peer.
            self._publish(self._start(adopt(sock), f"socket {sock.fileno()}", Limits()))
        if previous is not None:
            previous.abort()
            previous.release_event()

    # ---- sending ----

    def send(self, payload: str | Payload | Iterable[str | Payload], opcode: int = ABNF.OPCODE_TEXT) -> int:
        """Send a message. Returns the number of bytes of its frame once the frame is accepted: it will be written,
        in order, unless the connection fails first; then the message is in the exception's `unsent`.

        payload: str, or bytes-like; for OPCODE_TEXT bytes must be UTF-8. Or an iterable of such chunks, each of which
            is sent as soon as the iterable gives it, as a fragment of one message (RFC 6455 5.4); other messages wait
            until its end, pings and pongs do not. The number of bytes is that of all frames.
        opcode: one of ABNF.OPCODE_*.

        Waits while the outbox is full, and with 16 KiB and more up to 5 ms for the writer, where that is at work.
        Raises WebSocketTimeoutException after the timeout (the message was then not accepted),
        WebSocketConnectionClosedException where the connection has ended, ValueError or TypeError for what cannot be
        sent. What ends a message of several chunks before its last one, also an exception of the iterable, closes the
        connection with 1011: half a message can be neither finished nor taken back.
        """
        if opcode not in (_TEXT, _BINARY):
            return self.send_frame(ABNF.create_frame(cast(Payload, payload), opcode))
        connection = self._connection
        if connection is None or self._assigned is not None:
            connection = self._current()
        data: Payload | str
        if type(payload) is str:
            data = payload if payload.isascii() else payload_bytes(payload)
        elif (chunks := as_chunks(payload)) is not None:
            return self._send_chunks(connection, chunks, opcode)
        else:
            data = self._data(payload, opcode)
        key_function = self.get_mask_key
        key = new_masking_key() if key_function is None else checked_key(key_function(4))
        if _logging.tracing:
            _logging.trace("++Sent message: %r", payload)
        deflating = connection.deflating
        if deflating is not None and len(data) >= deflating.min_size:
            whole = data.encode() if isinstance(data, str) else data
            return deflating.put(opcode, whole, key, self.sock_opt.timeout)
        frame = encode_frame(0x80 | opcode, data, key)
        connection.outbox.put(frame, self.sock_opt.timeout)
        return len(frame)

    def _send_chunks(self, connection: Connection, chunks: Iterator[Any], opcode: int) -> int:
        def new_key() -> bytes:
            key_function = self.get_mask_key
            return new_masking_key() if key_function is None else checked_key(key_function(4))

        if _logging.tracing:
            _logging.trace("++Sent message: in chunks")
        is_checked = not self._skip_utf8_validation
        return ChunkSender(connection, opcode, new_key, lambda: self.sock_opt.timeout, is_checked).send(chunks)

    def _data(self, payload: Any, opcode: int) -> Payload:
        """A payload that is not a plain str, as bytes; a text message must be valid text."""
        data = payload_bytes(payload)
        if opcode == _TEXT and not isinstance(payload, str) and not self._skip_utf8_validation:
            try:
                str(data, "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"payload of a text message is not UTF-8: {error}; use send_bytes()") from error
        return data

    def send_text(self, text_data: str | Iterable[str]) -> int:
        """Send a text message; see send()."""
        return self.send(text_data, _TEXT)

    def send_bytes(self, data: Payload | Iterable[Payload]) -> int:
        """Send a binary message; see send()."""
        return self.send(data, _BINARY)

    def send_binary(self, payload: Payload | Iterable[Payload]) -> int:
        """Send a binary message; see send()."""
        return self.send(payload, _BINARY)

    def send_frame(self, frame: ABNF) -> int:
        """Send one frame; returns its number of bytes. Raises as send().

        A fragmented message (RFC 6455 5.4) is a frame of OPCODE_TEXT or OPCODE_BINARY with fin=0 and then frames of
        OPCODE_CONT, the last with fin=1; meanwhile messages of other threads wait. A close frame begins the end, as
        send_close() does.
        """
        if self.get_mask_key is not None:
            frame.get_mask_key = self.get_mask_key
        data = frame.format()
        connection = self._current()
        if _logging.tracing:
            _logging.trace("++Sent frame: %s", frame)
        if frame.opcode == ABNF.OPCODE_CLOSE:
            if not connection.begin_close(data):
                raise connection.end.closed_error()
        elif frame.opcode > ABNF.OPCODE_CLOSE:
            connection.outbox.put_control(data, self.timeout)
        elif frame.fin and frame.opcode != ABNF.OPCODE_CONT:
            connection.outbox.put(data, self.timeout)
        else:
            connection.outbox.put_fragment(data, self.timeout)
        return len(data)

    def ping(self, payload: str | bytes = "") -> None:
        """Send a ping of at most 125 bytes, ahead of waiting messages. The pong comes to recv_data_frame(True)."""
        self.send(payload, ABNF.OPCODE_PING)

    def pong(self, payload: str | bytes = "") -> None:
        """Send a pong of at most 125 bytes that answers no ping. Pings are answered by themselves."""
        self.send(payload, ABNF.OPCODE_PONG)

    # ---- receiving ----

    def recv(self, timeout: float | None = OWN_TIMEOUT) -> str | bytes:
        """The next message: str for text, bytes for binary, and "" once when the peer has closed.

        timeout: seconds, None to wait for ever; by default the WebSocket's own. What did not come in time comes
        to a later call.

        Raises WebSocketTimeoutException, WebSocketProtocolException or WebSocketPayloadException once where the
        peer broke the protocol, and WebSocketConnectionClosedException after the end.
        """
        inbox = self._inbox
        try:
            message: str | bytes = inbox.fast.popleft()
        except IndexError:
            return self._message(self._receive(timeout))
        return self._message(self._taken(inbox, message, timeout)) if inbox.watched else message

    def _taken(self, inbox: Inbox, message: Any, timeout: float | None) -> Any:
        """_receive(), where a message was taken without a lock while that matters to somebody."""
        inbox.taken()
        if not isinstance(message, MessageInParts):  # `watched` is set before there is one
            return message
        connection = self._connection
        if connection is None or connection.inbox is not inbox:
            return self._receive(timeout)  # the connection on which it began has been replaced
        return connection.receiving.join(message, self._moment(timeout))

    def _receive(self, timeout: float | None, control: bool = False) -> Any:
        connection = self._current()  # held while it is waited on: another thread may replace it
        return connection.receiving.receive(self._moment(timeout), control)

    def _moment(self, timeout: float | None) -> float | None:
        """When (time.monotonic()) a timeout is over."""
        timeout = self.sock_opt.timeout if timeout is OWN_TIMEOUT else checked_timeout(timeout)
        return None if timeout is None else time.monotonic() + timeout

    def recv_streaming(self, timeout: float | None = OWN_TIMEOUT) -> MessageStream:
        """Wait for the next message to begin; returns an iterator of its pieces as they arrive, str for text and bytes
        for binary, so that a message of any size takes bounded memory: no more than `max_inbox_bytes` waits.

        timeout: seconds to wait for the message to begin, and then for each piece; as in recv().

        Of a message that has arrived whole there is one piece. `max_message_size` holds here, too: give None for no
        limit. Leaving the iterator before its end skips the rest. From the first call on messages are handed over while
        they arrive; recv() goes on to give whole ones. Raises as recv(), and WebSocketConnectionClosedException where
        the peer has closed.
        """
        connection = self._current()
        connection.receiving.begin_parts()
        item = connection.receiving.receive_start(self._moment(timeout))
        if isinstance(item, ABNF):
            raise connection.end.closed_error()
        return MessageStream(connection, item, lambda: self._moment(timeout))

    @staticmethod
    def _message(item: Any) -> str | bytes:
        if type(item) is str or type(item) is bytes:
            return item
        if isinstance(item, RawText):
            return item.decode("utf-8", "surrogateescape")
        if isinstance(item, Fragment):
            return item.data if item.text is None else item.text
        return ""

    def recv_data(self, control_frame: bool = False) -> tuple[int, bytes]:
        """(opcode, payload bytes) of the next message, or of the peer's close frame. With control_frame also of
        pings and pongs, of which the latest 128 are kept. Raises as recv()."""
        opcode, frame = self.recv_data_frame(control_frame)
        return opcode, frame.data

    def recv_data_frame(self, control_frame: bool = False) -> tuple[int, ABNF]:
        """(opcode, frame) of the next message, joined where it was fragmented; see recv_data()."""
        item = self._receive(OWN_TIMEOUT, control_frame)
        if isinstance(item, str):
            return _TEXT, ABNF(1, 0, 0, 0, _TEXT, 0, item.encode())
        if isinstance(item, bytes):
            opcode = _TEXT if isinstance(item, RawText) else _BINARY
            return opcode, ABNF(1, 0, 0, 0, opcode, 0, bytes(item))
        if isinstance(item, Fragment):
            return item.opcode, ABNF(item.fin, 0, 0, 0, item.opcode, 0, item.data)
        frame: ABNF = item
        return frame.opcode, frame

    def recv_frame(self) -> ABNF:
        """The next message, close, ping or pong as a frame; a fragmented message comes joined (unlike
        websocket-client's, unless fire_cont_frame is set). Raises as recv()."""
        return self.recv_data_frame(control_frame=True)[1]

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        inbox = self._inbox
        item: Any = None
        if inbox.fast:
            try:
                item = inbox.fast.popleft()
            except IndexError:
                pass  # another thread was faster
            else:
                if not inbox.watched:
                    return item  # type: ignore[no-any-return]
        try:
            item = self._receive(OWN_TIMEOUT) if item is None else self._taken(inbox, item, OWN_TIMEOUT)
        except WebSocketConnectionClosedException:
            connection = self._connection
            if connection is not None and connection.end.is_normal:
                raise StopIteration from None
            raise
        if isinstance(item, ABNF):
            return self.__next__()  # the peer's close frame; the next look tells whether it was a normal one
        return self._message(item)

    def next(self) -> str | bytes:
        """The same as next(ws)."""
        return self.__next__()

    # ---- closing ----

    def send_close(self, status: int = STATUS_NORMAL, reason: str | bytes = b"") -> None:
        """Begin the closing handshake and return: what was accepted is sent, then the close frame; messages can
        still be received, until the peer's answer. Raises ValueError for a code or reason that may not be sent,
        WebSocketConnectionClosedException where the end has begun already."""
        self.send_frame(ABNF.create_frame(close_payload(status, reason), ABNF.OPCODE_CLOSE))

    def close(self, status: int = STATUS_NORMAL, reason: str | bytes = b"", timeout: float | None = 3) -> None:
        """Close: what was accepted is sent, then a close frame; waits for the peer's answer and for the
        connection's threads, at most `timeout` seconds, then cuts the connection. None waits for as long as it
        takes.

        Wakes every waiter at once, and connect() in another thread. May be called more than once. Raises
        ValueError for a code or reason that may not be sent.
        """
        close_payload(status, reason)
        timeout = checked_timeout(timeout)
        connection = self._let_go()
        if connection is not None:
            connection.close(status, reason, timeout)
            self._release_event(connection)

    def _close_unattended(
        self, status: int = STATUS_NORMAL, reason: str | bytes = b"", timeout: float | None = 3
    ) -> None:
        """close() without waiting; the time is kept by somebody else."""
        close_payload(status, reason)
        timeout = checked_timeout(timeout)
        connection = self._let_go()
        if connection is not None:
            connection.close_unattended(status, reason, timeout)

    def shutdown(self) -> None:
        """Cut the connection at once, without a closing handshake."""
        connection = self._let_go()
        if connection is not None:
            connection.abort()
            self._release_event(connection)

    def _release_event(self, connection: Connection) -> None:
        if self._feeding is None:  # a foreign loop polls it, and must have let go of it first
            connection.release_event()

    def abort(self) -> None:
        """Cut the connection and wake every thread that waits on it."""
        connection = self._connection
        if connection is not None:
            connection.abort()

    def _let_go(self) -> Connection | None:
        """End a connect() under way and forget an assigned socket; the connection that is to be closed."""
        with self._lock:
            attempt = self._attempt
            if attempt is not None:
                attempt.cancel()
            assigned, self._assigned = self._assigned, None
            self._let_go_of = True
            self._is_over = self._feeding is not None
            connection = self._connection
        if assigned is not None:
            assigned.close()
        return connection

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        connection: Connection | None = getattr(self, "_connection", None)
        if connection is not None and not connection.is_closing:
            connection.release()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    # ---- asking ----

    def __repr__(self) -> str:
        connection = getattr(self, "_connection", None)
        name = "not connected" if connection is None else connection.name
        return f"<{type(self).__name__} {name}>"

    @property
    def connected(self) -> bool:
        """Whether nobody has begun to close the connection, or the peer has and something still waits to be received
        (at least the "" of its close frame).

        Setting it to True puts a socket into use that was assigned to `sock`; setting it to False cuts the
        connection.
        """
        connection = self._connection
        return connection is not None and connection.is_open

    @connected.setter
    def connected(self, value: bool) -> None:
        if not value:
            self.shutdown()
        else:
            self._current()

    @property
    def sock(self) -> Any:
        """The connection as a socket that can be polled and asked (see ConnectionSocket), None without one.

        Assigning a connected socket, plain or ssl.SSLSocket, whose handshake the program has done, puts it into
        use at the first send() or recv() or when `connected` is set to True. Assigning None cuts the connection.
        """
        if self._assigned is not None:
            return self._assigned
        connection = self._connection
        # Made anew each time: kept here, it would be a cycle, and a dropped WebSocket would live until the next
        # garbage collection.
        return None if connection is None or self._let_go_of else ConnectionSocket(connection, self)

    @sock.setter
    def sock(self, value: Any) -> None:
        if value is None:
            self.shutdown()
        else:
            check_socket(value)
            with self._lock:
                self._assigned = value

    def fileno(self) -> int:
        """A descriptor for poll() and select(): readable exactly while recv() would not wait. From the first call
        on the connection's reader thread alone reads. Raises WebSocketConnectionClosedException after close()."""
        connection = self._current()
        if self._let_go_of:
            raise connection.end.closed_error()
        return connection.receiving.fileno()

    def is_ssl(self) -> bool:
        """Whether the server is spoken to by TLS; TLS to a proxy alone does not count."""
        connection = self._connection
        return connection is not None and connection.transport.is_tls

    @property
    def unsent(self) -> list[Any]:
        """Messages that send() accepted and that were not written before the connection ended; complete once it
        has ended. Control frames are not among them; frames of fragmented messages are there as ABNF."""
        connection = self._connection
        return [] if connection is None else connection.unsent

    @property
    def close_frame(self) -> ABNF | None:
        """The peer's close frame, once it has come."""
        connection = self._connection
        return None if connection is None else connection.end.close_frame

    @property
    def compression(self) -> Agreement | None:
        """What was agreed with the server about permessage-deflate; None where messages are not compressed."""
        connection = self._connection
        return None if connection is None or connection.deflating is None else connection.deflating.agreement

    @property
    def latency(self) -> float | None:
        """Seconds from the keepalive's latest answered ping (see `ping_interval` of connect()) to its pong; None
        before the first and without keepalive."""
        connection = self._connection
        return None if connection is None else connection.latency

    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of recv(), send() and the next connect(): seconds, or None to wait for ever."""
        self.timeout = timeout

    def gettimeout(self) -> float | None:
        """The timeout in seconds, None for none."""
        return self.sock_opt.timeout

    @property
    def timeout(self) -> float | None:
        """The timeout of recv(), send() and the next connect(), in seconds; None waits for ever."""
        return self.sock_opt.timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self.sock_opt.timeout = checked_timeout(value)

    def set_mask_key(self, func: Callable[[int], str | bytes] | None) -> None:
        """Set the function that gives masking keys; see the constructor. Raises TypeError for what is none."""
        if func is not None and not callable(func):
            raise TypeError(f"get_mask_key must be a function of 4 that gives 4 bytes, not {func!r}")
        self.get_mask_key = func

    def getsubprotocol(self) -> str | None:
        """The subprotocol that the server chose, or None."""
        response = self.handshake_response
        return None if response is None else response.subprotocol

    def getstatus(self) -> int | None:
        """The status of the server's handshake, or None."""
        response = self.handshake_response
        return None if response is None else response.status

    def getheaders(self) -> Mapping[str, str] | None:
        """The headers of the server's handshake, names in lower case, or None."""
        response = self.handshake_response
        return None if response is None else response.headers

    subprotocol = property(getsubprotocol)
    status = property(getstatus)
    headers = property(getheaders)

    def after_fork_in_child(self) -> None:
        """For threads.lifetime: the lock may be held by a thread that the child does not have."""
        self._lock = threading.RLock()
        self._attempt = None


def create_connection(
    url: str, timeout: float | None = None, class_: type[WebSocket] = WebSocket, **options: Any
) -> WebSocket:
    """Connect to a ws:// or wss:// URL; returns the connected WebSocket.

    timeout: seconds, for connecting and then for recv() and send(); None means getdefaulttimeout(), which waits
        for ever unless setdefaulttimeout() says otherwise.
    class_: a subclass of WebSocket to make; it is given the options of connect() as well, as in websocket-client.
    options: those of the WebSocket class (sockopt, sslopt, fire_cont_frame, enable_multithread,
        skip_utf8_validation, get_mask_key) and of WebSocket.connect().

    Raises as WebSocket.connect(). Any thread may call it.
    """
    websocket = class_(
        sockopt=options.pop("sockopt", []),
        sslopt=options.pop("sslopt", {}),
        fire_cont_frame=options.pop("fire_cont_frame", False),
        enable_multithread=options.pop("enable_multithread", True),
        skip_utf8_validation=options.pop("skip_utf8_validation", False),
        **options,
    )
    websocket.settimeout(getdefaulttimeout() if timeout is None else timeout)
    websocket.connect(url, **options)
    return websocket
