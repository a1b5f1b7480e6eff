"""The writer: one thread of a connection, which sends what waits in the outbox in as few system calls as possible.

It is started when something is first left to it, and lives until the end of all writing.
"""

from __future__ import annotations

from .._pure import Payload
from .._transport import Transport
from .outbox import Outbox


class Writer:
    """The body of the writer thread. It ends after the close frame, when writing fails, or when it is stopped."""

    def __init__(self, transport: Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox

    def run(self) -> None:
        try:
            while (batch := self._outbox.next_batch()) is not None:
                self._write(batch)
                self._outbox.batch_done()
        except OSError as error:
            self._outbox.fail(error)
        except BaseException as error:  # a bug, or no memory: said aloud by the thread's excepthook
            self._outbox.fail(OSError(f"the writer thread has failed: {error!r}"))
            raise
        finally:
            self._outbox.settle()

    def _write(self, batch: Payload) -> None:
        written = self._transport.send(batch)
        self._outbox.wrote(written)
        while written < len(batch):
            count = self._transport.send(memoryview(batch)[written:])
            self._outbox.wrote(count)
            written += count
