"""Every public method from many threads at random, in any state: results or the package's exceptions, nothing else."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from websocket import ABNF, WebSocket, WebSocketException
from websocket.testing import Peer, Server, echo

from .certs import Authority
from .conftest import PATIENCE, run_all

THREADS = 6
CALLS = 250


def moody(peer: Peer) -> None:
    """Echoes, pings, and ends in every way that there is."""
    choose = random.Random(peer.address[1])
    while batch := peer.recv_batch():
        for message in batch:
            mood = choose.random()
            if mood < 0.9:
                peer.send(message)
            elif mood < 0.93:
                peer.send_frame(ABNF.OPCODE_PING, b"mood")
            elif mood < 0.95:
                peer.close(1011, "mood")
                return
            elif mood < 0.96:
                peer.reset()
                return
            elif mood < 0.97:
                peer.hang_up()
                return
            elif mood < 0.98:
                peer.send_raw(b"\xff\xff\xff")
                return
            else:
                peer.send_raw(b"\x82\x7e\xff\xff cut")
                peer.hang_up()
                return


def actions(connection: WebSocket, url: str) -> list[Callable[[], Any]]:
    return [
        lambda: connection.send("x" * random.choice([0, 10, 1000])),
        lambda: connection.send("y"),
        lambda: connection.send_bytes(bytes(random.choice([1, 100_000]))),
        lambda: connection.recv(timeout=random.choice([0, 0.001, 0.01])),
        lambda: connection.recv(timeout=0.001),
        connection.recv,
        lambda: connection.recv_data_frame(True),
        lambda: connection.ping("p"),
        lambda: connection.pong("p"),
        lambda: connection.send_frame(ABNF.create_frame("z", ABNF.OPCODE_BINARY)),
        lambda: connection.fileno(),
        lambda: (sock := connection.sock) and sock.getpeername(),
        lambda: connection.connected,
        lambda: connection.settimeout(0.05),
        lambda: (connection.status, connection.headers, connection.subprotocol, connection.close_frame),
        lambda: connection.unsent,
        lambda: repr(connection),
        lambda: connection.is_ssl(),
        lambda: random.random() < 0.2 and connection.send_close(4000, "hammer"),
        lambda: random.random() < 0.2 and connection.close(timeout=random.choice([0, 0.05, 1])),
        lambda: random.random() < 0.1 and connection.shutdown(),
        lambda: random.random() < 0.1 and connection.abort(),
        lambda: connection.connected or connection.connect(url),
    ]


@pytest.mark.usefixtures("switch_interval")
@pytest.mark.parametrize("handler", [echo, moody])
def test_any_method_from_any_thread_in_any_state(
    serve: Callable[..., Server], authority: Authority, scheme: str, handler: Callable[[Peer], None]
) -> None:
    server = serve(handler, ssl_context=authority.server_context() if scheme == "wss" else None)
    connection = WebSocket(sslopt={"ca_certs": authority.ca_file})
    connection.connect(server.url, timeout=5)
    connection.settimeout(0.05)
    calls = actions(connection, server.url)

    def hammer() -> None:
        choose = random.Random(threading.get_ident())
        for _ in range(CALLS):
            try:
                choose.choice(calls)()
            except WebSocketException:
                continue  # an outcome like another
            except OSError as error:  # getpeername() of a socket that has ended
                assert error.errno in (errno.EBADF, errno.ENOTCONN)

    run_all(*[hammer] * THREADS)
    connection.close(timeout=PATIENCE)
    connection.connect(server.url, timeout=PATIENCE)
    connection.close(timeout=PATIENCE)
