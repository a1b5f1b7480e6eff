"""For the test suites of programs that use WebSockets: a real local server, ws and wss.

with Server() as server:                       # echoes
    websocket = create_connection(server.url)

def greet(peer):                               # a script: one call, on a thread of its own, per connection
    peer.send("hello")
    assert peer.recv() == "bye"

with Server(greet) as server: ...
"""

from .server import Peer, Server, echo

__all__ = ["Peer", "Server", "echo"]
