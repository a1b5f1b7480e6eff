"""TLS as a transport, record by record: the ciphertext arrives in any cut, and what was sealed comes out, once."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from websocket._tls_transport import TLSTransport
from websocket._transport import PlainTransport

from .certs import Authority
from .conftest import PATIENCE
from .counting import functions_called

RECORD = 16 * 1024  # the most plaintext in one
BATCH = 256 * 1024  # what is asked for at most


class FarSide:
    """The server of a TLS connection in memory, the client being a TLSTransport on a real socket: what the server
    seals is the test's to send, in whatever pieces."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion, **options: Any) -> None:
        near, self.sock = socket.socketpair()
        for sock in (near, self.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_context = authority.server_context()
        server_context.maximum_version = version
        self._server = server_context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        context = ssl.create_default_context(cafile=authority.ca_file)
        self.transport = TLSTransport(PlainTransport(near), context, "localhost", **options)
        self.transport.handshake(self._answer)
        self.finish_handshake()

    def _answer(self, events: int) -> None:
        """The client's turn to wait: do the server's part of the handshake."""
        assert events == select.POLLIN
        self._incoming.write(self.sock.recv(65536))
        try:
            self._server.do_handshake()
        except ssl.SSLWantReadError:
            pass
        self.sock.sendall(self._outgoing.read())

    def finish_handshake(self) -> None:
        """In TLS 1.3 the client is done first; the server's tickets follow."""
        if self.transport.ssl_object.version() == "TLSv1.3":
            self._answer(select.POLLIN)
        assert self.transport.recv_now(BATCH) is None

    def seal(self, *pieces: bytes) -> bytes:
        """The records of these pieces, one for each of at most RECORD bytes."""
        for piece in pieces:
            assert self._server.write(piece) == len(piece)
        return self._outgoing.read()

    def seal_end(self) -> bytes:
        """A close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self._server.unwrap()
        return self._outgoing.read()

    def close(self) -> None:
        self.sock.close()
        self.transport.close()


Far = Callable[..., FarSide]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def far(authority: Authority, request: pytest.FixtureRequest) -> Iterator[Far]:
    made: list[FarSide] = []

    def make(**options: Any) -> FarSide:
        made.append(FarSide(authority, request.param, **options))
        return made[-1]

    yield make
    for side in made:
        side.close()


def read_bytes(transport: TLSTransport, size: int) -> bytes | None:
    return transport.recv_now(size)


def read_into_place(transport: TLSTransport, size: int) -> bytes | None:
    place = memoryview(bytearray(size))
    count = transport.recv_into_now(place)
    return None if count is None else bytes(place[:count])


Read = Callable[[TLSTransport, int], "bytes | None"]


@pytest.fixture(params=[read_bytes, read_into_place])
def read(request: pytest.FixtureRequest) -> Read:
    function: Read = request.param
    return function


def read_all_that_is_buffered(transport: TLSTransport, read: Read, size: int) -> list[bytes]:
    """What there is without anything new from the socket, read by read."""
    pieces = []
    while transport.is_buffered():
        piece = read(transport, size)
        if piece is None:
            assert not transport.is_buffered()
            break
        assert len(piece) <= size
        pieces.append(piece)
    return pieces


def test_a_record_that_comes_byte_by_byte_is_read_at_its_last(far: Far, read: Read) -> None:
    side = far()
    for size in (1, 100, 1000):
        plaintext = os.urandom(size)
        record = side.seal(plaintext)
        for at in range(len(record)):
            assert not side.transport.is_buffered()
            side.sock.send(record[at : at + 1])
            last = at == len(record) - 1
            assert read(side.transport, BATCH) == (plaintext if last else None)
    assert not side.transport.is_buffered()


@pytest.mark.parametrize("size", [2, 3000, RECORD - 1])
def test_records_that_are_cut_anywhere_are_read_once(far: Far, read: Read, size: int) -> None:
    side = far()
    for cut in (1, 4, 5, 6, size, -76, -75, -74, -71, -70, -69, -1):
        first, second = os.urandom(size), os.urandom(50)
        records = side.seal(first, second)
        received = []
        for piece in (records[:cut], records[cut:]):
            side.sock.sendall(piece)
            received.append(read(side.transport, BATCH) or b"")
            received += read_all_that_is_buffered(side.transport, read, BATCH)
        assert b"".join(received) == first + second
        assert not side.transport.is_buffered()


@pytest.mark.parametrize("sizes", [[1] * 500, [RECORD] * 9, [RECORD, 1, RECORD - 1, 10] * 3, [5, RECORD] * 5])
@pytest.mark.parametrize("asked", [1000, RECORD, RECORD + 1, BATCH])
def test_many_records_at_once_are_read_by_any_size(far: Far, read: Read, sizes: list[int], asked: int) -> None:
    side = far()
    pieces = [os.urandom(size) for size in sizes]
    for _ in range(2):  # the reads of ciphertext grow
        side.sock.sendall(side.seal(*pieces))
        received: list[bytes] = []
        while (piece := read(side.transport, asked)) is not None:
            assert 0 < len(piece) <= asked
            received.append(piece)
        assert b"".join(received) == b"".join(pieces)
        assert not side.transport.is_buffered()
        if asked == BATCH and len(b"".join(pieces)) < RECORD // 2:
            assert len(received) == 1


def test_the_rest_of_a_record_is_there_without_the_socket(far: Far, read: Read) -> None:
    side = far()
    plaintext = os.urandom(RECORD)
    side.sock.sendall(side.seal(plaintext))
    assert read(side.transport, 10) == plaintext[:10]
    assert side.transport.is_buffered()
    assert b"".join(read_all_that_is_buffered(side.transport, read, 1000)) == plaintext[10:]


def test_what_is_received_at_once_is_decrypted_at_once(far: Far) -> None:
    """The half record before it included, so that no rest costs a batch of its own."""
    side = far()
    records = side.seal(*[bytes(RECORD)] * 128)
    size = 0
    for start in range(0, len(records), BATCH - 100):
        side.sock.sendall(records[start : start + BATCH - 100])
        while (plaintext := side.transport.recv_now(BATCH)) is not None:
            size += len(plaintext)
            assert not side.transport.is_buffered()
    assert size == 128 * RECORD


@pytest.mark.parametrize("has_more", [False, True])
def test_a_close_notify_is_the_end_behind_what_came_before(far: Far, read: Read, has_more: bool) -> None:
    side = far()
    ciphertext = side.seal(b"last") + side.seal_end()
    side.sock.sendall(ciphertext + (b"not TLS" if has_more else b""))
    assert read(side.transport, BATCH) == b"last"
    for _ in range(3):
        assert side.transport.is_buffered()  # so that nobody waits for the socket to tell
        assert read(side.transport, BATCH) == b""


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_end_without_close_notify(far: Far, read: Read, is_cut: bool) -> None:
    for suppressed in (True, False):
        side = far(suppress_ragged_eofs=suppressed)
        ciphertext = side.seal(b"last", b"cut off")
        side.sock.sendall(ciphertext[:-1] if is_cut else ciphertext)
        side.sock.shutdown(socket.SHUT_WR)
        assert read(side.transport, BATCH) == (b"last" if is_cut else b"lastcut off")
        for _ in range(3):
            if suppressed:
                assert read(side.transport, BATCH) == b""
            else:
                with pytest.raises(ssl.SSLEOFError):
                    read(side.transport, BATCH)
            assert side.transport.is_buffered()


def test_a_broken_record_is_an_error_behind_what_came_before(far: Far, read: Read) -> None:
    side = far()
    good, bad = side.seal(b"good"), bytearray(side.seal(b"bad"))
    bad[-1] ^= 1
    side.sock.sendall(good + bad)
    assert read(side.transport, BATCH) == b"good"
    for _ in range(3):
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac|decryption"):
            read(side.transport, BATCH)


def test_openssl_is_not_asked_for_what_has_not_come(far: Far, read: Read) -> None:
    """Where a record has come whole it is asked once, and not before and not again only to say that it wants more."""
    side = far()
    with functions_called() as calls:
        for number in range(100):
            side.sock.sendall(side.seal(b"%d" % number))
            assert read(side.transport, BATCH) == b"%d" % number
            assert not side.transport.is_buffered()
    assert calls.builtins.count("_SSLSocket.read") == 100


@pytest.fixture(params=["tls1_2", "tls1_3"])
def openssl(authority: Authority, request: pytest.FixtureRequest) -> Iterator[tuple[TLSTransport, Any, Any]]:
    """A transport to a real peer, for what Python's ssl cannot do; it sends each line that it is given and prints what
    it gets, but that some letters are commands."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", f"-{request.param}"]
    command += ["-cert", authority.server_file("localhost")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        told = b""
        while not told.startswith(b"ACCEPT"):
            told = server.stdout.readline()
            assert told
        with socket.create_connection(("127.0.0.1", int(told.rpartition(b":")[2]))) as sock:
            context = ssl.create_default_context(cafile=authority.ca_file)
            transport = TLSTransport(PlainTransport(sock), context, "localhost")
            transport.handshake(lambda events: wait_readable(sock))
            yield transport, server.stdin, server.stdout


def wait_readable(sock: socket.socket) -> None:
    assert select.select([sock], [], [], PATIENCE)[0], "nothing has come"


def test_new_keys_among_records(openssl: tuple[TLSTransport, Any, Any], read: Read) -> None:
    """TLS 1.3: what OpenSSL answers to a KeyUpdate goes with the next record. TLS 1.2: a renegotiation, where reading
    makes something to be written."""
    transport, asks, prints = openssl
    is_renegotiated = transport.ssl_object.version() == "TLSv1.2"
    for number in range(1 if is_renegotiated else 3):
        line, answer = b"line %d\n" % number, b"answer %d\n" % number
        asks.write(line)
        received = b""
        while received != line:
            if not transport.is_buffered():
                wait_readable(transport.sock)
            received += read(transport, BATCH) or b""
        assert transport.send(answer) == len(answer)
        told = b""
        while not told.endswith(answer):
            told = prints.readline()
            assert told
        asks.write(b"r\n" if is_renegotiated else b"K\n")
        wait_readable(transport.sock)  # it has obeyed; before that it would take the next line as part of the command
        assert read(transport, BATCH) is None
        assert transport.has_output() == is_renegotiated
        transport.send(b"")
        assert not transport.has_output()
