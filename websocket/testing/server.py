"""A real WebSocket server for tests: on the package's own frames, one thread per connection, ws and wss.

It does what its handler says, be that right or wrong: send any bytes, stall, reset, half-close, vanish. It is not
made for the open internet.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from .._abnf import ABNF, STATUS_NORMAL, close_payload, payload_bytes
from .._deflate import Agreement, Deflater, Inflater, PerMessageDeflate, answer_offers
from .._exceptions import WebSocketException, WebSocketProtocolException
from .._frames import encode_frame
from .._handshake import accept_value
from .._http_message import HeadParser
from .._parser import Parser
from .._pollable import PollableEvent

_READ: Final = 256 * 1024
# How long the end of a connection waits for the client to end its side.
_LINGER: Final = 2.0


class Peer:
    """The server's end of one connection, used by its handler on its thread.

    path, headers: of the handshake's request.  pongs: payloads of the pongs that came.  close_frame: the client's,
    once it has come.  answer_pings: whether recv() answers pings.  compression: what was agreed about it, None where
    messages are not compressed.
    """

    def __init__(
        self, server: Server, sock: socket.socket, address: Any, compression: PerMessageDeflate | None = None
    ) -> None:
        self.server = server
        self.sock = sock
        self.address = address
        self.path = ""
        self.headers: dict[str, str] = {}
        self.pongs: list[bytes] = []
        self.close_frame: ABNF | None = None
        self.answer_pings = True
        self.compression: Agreement | None = None
        self._wanted = compression
        self._deflater: Deflater | None = None
        self._parser = Parser(max_message_size=None, server=True)
        self._messages: deque[Any] = deque()
        self._first_bytes = b""
        self._sending = threading.Lock()  # an SSLSocket does not bear two writes at once
        self._close_sent = False
        self._gone = False  # the handler has ended the connection in its own way

    # ---- the handshake ----

    def read_request(self) -> None:
        """Read the head of the request; fills path and headers."""
        head = HeadParser()
        while not head.feed(data := self.sock.recv(_READ)):
            if not data:
                raise ConnectionError("the client left before its request was whole")
        self.path = head.first_line.split(" ")[1]
        self.headers = head.headers
        self._first_bytes = head.rest

    def accept(self, headers: Sequence[str] = (), subprotocol: str | None = None) -> None:
        """Answer with 101. headers: further "Name: value" lines."""
        offers = self.headers.get("sec-websocket-extensions", "")
        try:
            agreed = None if self._wanted is None else answer_offers(offers, self._wanted)
        except ValueError as error:
            raise WebSocketProtocolException(f"the client's Sec-WebSocket-Extensions: {error}") from error
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_value(self.headers['sec-websocket-key'])}",
            *headers,
        ]
        if agreed is not None:
            answer, self.compression = agreed
            lines.append(f"Sec-WebSocket-Extensions: {answer}")
            self._deflater = Deflater(self.compression)
            self._parser = Parser(max_message_size=None, server=True, inflater=Inflater(self.compression))
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        self.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    # ---- messages ----

    def recv(self) -> str | bytes | None:
        """The next message; None when the client has closed or gone."""
        while not self._messages:
            if not self._receive():
                return None
        message: str | bytes = self._messages.popleft()
        return message

    def recv_batch(self) -> list[str | bytes]:
        """All messages that have arrived, at least one; none when the client has closed or gone."""
        while not self._messages and self._receive():
            pass
        batch = list(self._messages)
        self._messages.clear()
        return batch

    def _receive(self) -> bool:
        if self._first_bytes:
            data, self._first_bytes = self._first_bytes, b""
        elif self.close_frame is not None or self._gone:
            return False
        else:
            data = self.sock.recv(_READ)
        self._messages.extend(self._parser.feed(data))
        if self._parser.error is not None:
            raise self._parser.error
        for _, frame in self._parser.controls:
            self._control(frame)
        return bool(data) and (self.close_frame is None or bool(self._messages))

    def _control(self, frame: ABNF) -> None:
        if frame.opcode == ABNF.OPCODE_PING and self.answer_pings:
            self.send_frame(ABNF.OPCODE_PONG, frame.data)
        elif frame.opcode == ABNF.OPCODE_PONG:
            self.pongs.append(frame.data)
        elif frame.opcode == ABNF.OPCODE_CLOSE:
            self.close_frame = frame

    def send(self, *payloads: str | bytes) -> None:
        """Send messages, str as text and bytes as binary, in one write; compressed where that was agreed and they are
        not shorter than the server's `min_size`."""
        self.send_raw(b"".join(self._frame(payload) for payload in payloads))

    def _frame(self, payload: str | bytes) -> bytes:
        first = 0x80 | (ABNF.OPCODE_TEXT if isinstance(payload, str) else ABNF.OPCODE_BINARY)
        data = payload_bytes(payload)
        if self._deflater is None or self.compression is None or len(data) < self.compression.min_size:
            return encode_frame(first, data, None)
        return encode_frame(0x40 | first, self._deflater.message(data), None)

    def send_frame(self, opcode: int, payload: bytes = b"", fin: int = 1) -> None:
        """Send one frame."""
        self.send_raw(encode_frame(fin << 7 | opcode, payload, None))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are. Any thread."""
        with self._sending:
            self.sock.sendall(data)

    # ---- ends ----

    def close(self, code: int = STATUS_NORMAL, reason: str = "") -> None:
        """Send a close frame."""
        self._close_sent = True
        self.send_frame(ABNF.OPCODE_CLOSE, close_payload(code, reason))

    def half_close(self) -> None:
        """End the sending side of TCP and go on reading."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)  # an SSLSocket's own drops the TLS state

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._gone = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hang_up(self) -> None:
        """End the TCP connection without a close frame."""
        self._gone = True
        self.sock.close()

    def stall(self) -> None:
        """Do nothing until the server is closed."""
        self.server.stopping.wait()
        self._gone = True

    def finish(self) -> None:
        """What happens after the handler: the closing handshake, as far as it is still to be done."""
        if self._gone:
            return
        if not self._close_sent:
            payload = self.close_frame.data[:2] if self.close_frame is not None else close_payload(STATUS_NORMAL, "")
            self.send_frame(ABNF.OPCODE_CLOSE, payload)
        self.sock.settimeout(_LINGER)
        self.half_close()
        try:
            while self.sock.recv(_READ):
                pass
        except ConnectionError:
            pass  # both have said their last; newer OpenSSL answers a close_notify within a read, into what is shut


def echo(peer: Peer) -> None:
    """The default handler: sends every message back."""
    while batch := peer.recv_batch():
        peer.send(*batch)


class Server:
    """A server on a port of its own at the loopback address; a context manager that is listening once made.

    handler: called with a Peer, on a thread of its own, for each connection whose handshake is done; when it
        returns, the connection is closed in the usual way. raw=True: called before the handshake, which is then
        the handler's own, as is the end.
    compression: "deflate" or a PerMessageDeflate to use permessage-deflate with clients that offer it.
    ssl_context: a server's ssl.SSLContext makes it wss.  host: the name in `url`, which must lead to the loopback
        address.
    peers: every Peer so far.  errors: (peer, exception) for each handler that has raised; what is neither an OSError
        nor a WebSocketException goes to threading.excepthook too, which pytest reports.
    """

    def __init__(
        self,
        handler: Callable[[Peer], None] = echo,
        *,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        raw: bool = False,
        compression: str | PerMessageDeflate | None = None,
    ) -> None:
        self._compression = PerMessageDeflate.parse(compression)
        self.stopping = threading.Event()
        self.peers: list[Peer] = []  # appended to by the accepting thread only
        self.errors: list[tuple[Peer, Exception]] = []
        self._handler = handler
        self._ssl_context = ssl_context
        self._raw = raw
        self._threads: list[threading.Thread] = []  # accepting thread, until it has ended
        self._sockets: set[socket.socket] = set()  # guarded by self._lock
        self._lock = threading.Lock()
        self._stop = PollableEvent()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'ws' if ssl_context is None else 'wss'}://{host}:{self.port}/"
        self._accepting = threading.Thread(target=self._accept, name=f"server {self.url}", daemon=True)
        self._accepting.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, cut what is connected, wait for the threads."""
        self.stopping.set()
        self._stop.set()
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # its handler has closed it, or the client has
        for thread in self._threads:
            thread.join()
        self._stop.close()

    def _accept(self) -> None:
        poller = select.poll()
        poller.register(self._listener.fileno(), select.POLLIN)
        poller.register(self._stop.fileno(), select.POLLIN)
        while poller.poll() and not self._stop.is_set():
            try:
                sock, address = self._listener.accept()
            except ConnectionError:
                continue  # the client was gone before it was accepted
            peer = Peer(self, sock, address, self._compression)
            self.peers.append(peer)
            with self._lock:
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(peer, sock), name=f"peer {address}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._ssl_context is not None:
                self._wrap(peer, self._ssl_context)
            if not self._raw:
                peer.read_request()
                peer.accept()
            self._handler(peer)
            if not self._raw:
                peer.finish()
        except Exception as error:
            self.errors.append((peer, error))
            if not isinstance(error, (OSError, WebSocketException)):
                raise  # a handler's own failure is also told aloud; clients that go away are a server's daily life
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self._sockets.discard(peer.sock)
            peer.sock.close()

    def _wrap(self, peer: Peer, context: ssl.SSLContext) -> None:
        with self._lock:
            self._sockets.discard(peer.sock)
            peer.sock = context.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False)
            self._sockets.add(peer.sock)
        peer.sock.do_handshake()
