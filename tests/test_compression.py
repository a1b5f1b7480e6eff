"""permessage-deflate over real connections: against the package's own server and the `websockets` package's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import ServerConnection

from websocket import (
    ABNF,
    PerMessageDeflate,
    WebSocket,
    WebSocketApp,
    WebSocketProtocolException,
    create_connection,
)
from websocket._deflate import Agreement
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .compressing import RESETTING, TAKEOVER, Connect, compressing_to, large
from .conftest import run_all
from .recorder import Recorder
from .test_foreign_server import Foreign
from .test_foreign_server import echo as foreign_echo

TEXT, BINARY = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY


@pytest.fixture
def compressing(serve: Callable[..., Server], authority: Authority) -> Iterator[Connect]:
    with compressing_to(serve, authority) as make:
        yield make


@pytest.fixture
def foreigner(scheme: str, authority: Authority) -> Iterator[Foreign]:
    result = Foreign(scheme, authority)
    yield result
    result.close()


def mixed() -> list[str | bytes]:
    """Messages of every frame length, alike and not, below and above min_size."""
    choose = random.Random(8)
    sizes = [0, 1, 125, 126, 1023, 1024, 5000, 65_535, 65_536, 300_000]
    texts: list[str | bytes] = [("häß€🙂" * size)[:size] for size in sizes]
    return texts + [choose.randbytes(size) for size in sizes] + texts[4:7] + [bytes(size) for size in sizes]


def exchanged(connection: WebSocket, messages: list[str | bytes]) -> list[Any]:
    def send() -> None:
        for message in messages:
            connection.send(message, TEXT if isinstance(message, str) else BINARY)

    received: list[Any] = run_all(lambda: [connection.recv() for _ in messages], send)[0]
    return received


# ---- negotiated and used ----


@pytest.mark.parametrize("option", ["deflate", TAKEOVER, RESETTING, PerMessageDeflate(15, 15, level=9, min_size=0)])
def test_every_message_comes_back_as_it_was(compressing: Connect, scheme: str, option: Any) -> None:
    connection = compressing(echo, option, scheme)
    assert exchanged(connection, mixed()) == mixed()


@pytest.mark.parametrize("option", ["deflate", TAKEOVER, RESETTING])
@pytest.mark.parametrize(
    "factory",
    [
        None,
        ServerPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
        ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    ],
)
def test_a_server_that_others_wrote_understands_and_is_understood(
    foreigner: Foreign, option: Any, factory: Any
) -> None:
    server_options: dict[str, Any] = {} if factory is None else {"extensions": [factory], "compression": None}
    port = foreigner.start(foreign_echo, **server_options)
    with create_connection(foreigner.url(port), sslopt=foreigner.sslopt, compression=option) as connection:
        assert connection.compression is not None
        assert exchanged(connection, mixed()) == mixed()
        if factory is not None and factory.client_max_window_bits:
            assert connection.compression.window_bits == connection.compression.peer_window_bits == 9
        if factory is not None and factory.client_no_context_takeover:
            assert connection.compression.resets
        connection.send(iter(["in ", "chunks " * 500, "", "!"]))
        assert connection.recv() == "in " + "chunks " * 500 + "!"


def test_fragments_that_a_server_that_others_wrote_sends_are_joined(foreigner: Foreign) -> None:
    def fragments(peer: ServerConnection) -> None:
        peer.send(iter(["one " * 300, "", "two " * 300, "three"]))
        peer.send(iter([b"\x01" * 5000, b"\x02", b"\x03"]))
        peer.recv()

    port = foreigner.start(fragments)
    with create_connection(foreigner.url(port), sslopt=foreigner.sslopt, compression="deflate") as connection:
        with connection.recv_streaming() as stream:
            assert "".join(stream) == "one " * 300 + "two " * 300 + "three"
        assert connection.recv() == b"\x01" * 5000 + b"\x02\x03"


def test_a_server_that_declines_gets_and_sends_plain_messages(foreigner: Foreign, serve: Callable[..., Server]) -> None:
    port = foreigner.start(foreign_echo, compression=None)
    with create_connection(foreigner.url(port), sslopt=foreigner.sslopt, compression="deflate") as connection:
        assert connection.compression is None
        assert exchanged(connection, mixed()) == mixed()
    with create_connection(serve(echo).url, compression=PerMessageDeflate(min_size=0)) as connection:
        assert connection.compression is None
        assert connection.send("x" * 5000) == 5000 + 8
        assert connection.recv() == "x" * 5000


def test_what_is_agreed_can_be_read_as_long_as_there_is_a_connection(serve: Callable[..., Server]) -> None:
    connection = WebSocket()
    assert connection.compression is None
    url = serve(compression=PerMessageDeflate(10, 11, True)).url
    connection.connect(url, compression=PerMessageDeflate(server_max_window_bits=12, level=1, min_size=7))
    assert connection.compression == Agreement(10, True, 11, 1, 8, 7)
    connection.connect(url)
    assert connection.compression is None
    connection.connect(url, header={"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert connection.compression == Agreement(15, True, 11, 3, 8, 1024)
    connection.send(large("by a header"))
    assert connection.recv() == large("by a header")
    connection.close()


def test_bad_options_are_refused_before_anything_is_connected(deaf_port: int) -> None:
    url = f"ws://127.0.0.1:{deaf_port}/"
    bad: list[dict[str, Any]] = [{"compression": "gzip"}, {"compression": True}, {"compression": {}}]
    for options in bad:
        with pytest.raises(ValueError, match="compression must be"):
            create_connection(url, **options)
        with pytest.raises(ValueError, match="compression must be"):
            WebSocketApp(url).run_forever(**options)
        with pytest.raises(ValueError, match="compression must be"):
            WebSocketApp(url, **options)


def test_a_header_that_could_not_be_kept_to_is_refused(serve: Callable[..., Server]) -> None:
    url = serve().url
    for header in ("permessage-deflate; x=1", "x-other"):
        with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
            create_connection(url, header={"Sec-WebSocket-Extensions": header})
    with pytest.raises(ValueError, match="give one of them"):
        create_connection(url, header=["Sec-WebSocket-Extensions: permessage-deflate"], compression="deflate")


ILLEGAL = [
    "permessage-deflate; x=1",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate, permessage-deflate",
    "permessage-bzip2",
    "permessage-deflate;",
]


@pytest.mark.parametrize("answer", ILLEGAL)
def test_an_illegal_answer_ends_connect_and_leaves_nothing(
    serve: Callable[..., Server], authority: Authority, scheme: str, answer: str
) -> None:
    """The fixture finds threads and descriptors that are left."""
    requests: list[str] = []

    def handler(peer: Peer) -> None:
        peer.read_request()
        requests.append(peer.headers.get("sec-websocket-extensions", ""))
        peer.accept(headers=[f"Sec-WebSocket-Extensions: {answer}"])
        while peer.sock.recv(1000):
            pass

    server = serve(handler, raw=True, ssl_context=authority.server_context() if scheme == "wss" else None)
    connection = WebSocket(sslopt={"ca_certs": authority.ca_file})
    for compression in ("deflate", None):
        with pytest.raises(WebSocketProtocolException, match="sec-websocket-extensions"):
            connection.connect(server.url, compression=compression)
        assert not connection.connected
        assert connection.compression is None
    assert requests == ["permessage-deflate; client_max_window_bits", ""]


def test_an_answer_to_no_offer_ends_connect(serve: Callable[..., Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept(headers=["Sec-WebSocket-Extensions: permessage-deflate"])

    with pytest.raises(WebSocketProtocolException, match="no extension was asked for"):
        create_connection(serve(handler, raw=True).url)


# ---- WebSocketApp ----


@pytest.mark.parametrize("where", ["constructor", "run_forever", "header", "neither", "overridden"])
def test_an_app_compresses_where_it_is_told_to(
    serve: Callable[..., Server], authority: Authority, scheme: str, where: str
) -> None:
    server = serve(compression="deflate", ssl_context=authority.server_context() if scheme == "wss" else None)
    option: dict[str, Any] = {"compression": "deflate"}
    header = {"header": ["Sec-WebSocket-Extensions: permessage-deflate"]}
    constructor = {"constructor": option, "overridden": option, "header": header}.get(where, {})
    run = {"run_forever": option, "overridden": {"compression": None}}.get(where, {})
    agreed: list[Any] = []

    def opened() -> None:
        agreed.append(app.sock and app.sock.compression)
        app.send(large("app"))

    app = Recorder(server.url, then={"open": opened, "message": lambda _: app.close()}, **constructor)
    app.ca_file = authority.ca_file if scheme == "wss" else ""
    app.run(**run)
    assert app.errors == []
    assert ("message", large("app")) in app.told
    assert (agreed[0] is not None) == (where in ("constructor", "run_forever", "header"))
    assert [peer.compression is not None for peer in server.peers] == [agreed[0] is not None]
