"""The far side of soak.py, in a process of its own: echo servers, ws and wss, behind the proxy of soak_proxy.py.

Started by soak.py with a pipe at each end: a line of JSON on standard output says where it listens, then come two for
each connection that is over: what the proxy did to it, and which messages the server has received. The end of standard
input ends it all.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import threading

import trustme
from soak_message import STREAMS, read
from soak_proxy import Proxy

from websocket import WebSocketException
from websocket.testing import Peer, Server

RESTART = 1012  # the close code of a server that is to be come back to

_telling = threading.Lock()


def tell(what: dict[str, object]) -> None:
    with _telling:
        print(json.dumps(what), flush=True)


def echo_until_bye(peer: Peer, serial: int, seen: list[list[int]]) -> None:
    while batch := peer.recv_batch():
        for message in batch:
            if known := read(message, serial):
                seen[known[0]].append(known[1])
        peer.send(*batch)
        heads = (message[:64] if isinstance(message, bytes) else message[:64].encode() for message in batch)
        if any(b" bye " in head for head in heads):
            peer.close(RESTART, "bye")
            break


def main() -> None:
    parser = argparse.ArgumentParser(description="The far side of soak.py, which starts it.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--secure", required=True, help="a digit for each slot: 1 for wss")
    parser.add_argument("--small", required=True, help="a digit for each slot: 1 for small socket buffers")
    parser.add_argument("--directory", required=True, help="for the certificate")
    arguments = parser.parse_args()

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = os.path.join(arguments.directory, "ca.pem")
    authority.cert_pem.write_to_path(ca_file)

    def handler(peer: Peer) -> None:
        peer.read_request()
        serial = proxy.serials[peer.address[1]]
        seen: list[list[int]] = [[] for _ in STREAMS]
        try:
            peer.accept([f"X-Soak-Serial: {serial}"])
            echo_until_bye(peer, serial, seen)
            peer.finish()
        finally:
            tell({"serial": serial, "seen": seen})
        # They are kept for tests, which are short.
        for server in servers:
            server.peers.clear()
            while server.errors:
                _, error = server.errors.pop()
                if not isinstance(error, (OSError, WebSocketException)):
                    tell({"error": repr(error)})

    servers = (
        Server(handler, raw=True, compression="deflate"),
        Server(handler, raw=True, ssl_context=context, compression="deflate"),
    )
    plain, secure = servers
    with plain, secure:
        targets = [(secure.port if digit == "1" else plain.port, digit == "1") for digit in arguments.secure]
        proxy = Proxy(arguments.seed, targets, [digit == "1" for digit in arguments.small], tell)
        tell({"ports": proxy.ports, "ca": ca_file})
        proxy.run()


if __name__ == "__main__":
    main()
