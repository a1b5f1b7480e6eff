"""One connection's actors: a reader and a writer thread, and the queues between them and the program.

connection.py owns them all; reader.py and writer.py are the threads; inbox.py and outbox.py the queues, and outlet.py
how frames leave the outbox; turn.py is how a thread of the program does an actor's work itself where that saves a
thread switch; lifetime.py knows the connections that live, for the end of the process and for fork.
"""
