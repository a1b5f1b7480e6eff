"""A breach of the protocol that is not answered yet when the process ends, or forks."""

from __future__ import annotations

from collections.abc import Callable

from websocket.testing import Server

from .test_breach_replies import Breaking
from .test_lifecycle import run_python


def test_the_end_of_the_process_does_not_wait_for_the_reply_time(serve: Callable[..., Server]) -> None:
    script = """
import sys, websocket, websocket.threads.connection as module
module._REPLY = 3600.0
connection = websocket.create_connection(sys.argv[1])
print(connection.recv())
while connection._connection.end.ending is None:
    pass
connection.send("answer")
"""
    server = Breaking()
    assert run_python(script, serve(server).url) == "one\n"
    assert server.told() == [b"answer"]


def test_a_forked_child_leaves_the_answer_to_its_parent(serve: Callable[..., Server]) -> None:
    script = """
import os, sys, websocket, websocket.threads.connection as module
module._REPLY = 3600.0
connection = websocket.create_connection(sys.argv[1])
print(connection.recv(), flush=True)
while connection._connection.end.ending is None:
    pass
child = os.fork()
if not child:
    for method in (connection.recv, lambda: connection.send("child"), lambda: next(connection)):
        try:
            method()
        except websocket.WebSocketConnectionClosedException as error:
            assert "parent" in str(error), error
        else:
            os._exit(1)
    connection.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
connection.send("parent")
try:
    connection.recv()
except websocket.WebSocketProtocolException:
    print("told")
"""
    server = Breaking()
    assert run_python(script, serve(server).url) == "one\ntold\n"
    assert server.told() == [b"parent"]
