"""The writer: one thread of a connection, which sends what waits in the outbox in as few system calls as possible.

It is started when something is first left to it, and lives until the end of all writing.
"""

from __future__ import annotations

from .._pure import Payload
from .._transport import Transport
from .outlet import Outlet


class Writer:
    """The body of the writer thread. It ends after the close frame, when writing fails, or when it is stopped."""

    def __init__(self, transport: Transport, outlet: Outlet) -> None:
        self._transport = transport
        self._outlet = outlet

    def run(self) -> None:
        try:
            while (batch := self._outlet.next_batch()) is not None:
                self._write(batch)
                self._outlet.batch_done()
        except OSError as error:
            self._outlet.fail(error)
        except BaseException as error:  # a bug, or no memory: said aloud by the thread's excepthook
            self._outlet.fail(OSError(f"the writer thread has failed: {error!r}"))
            raise
        finally:
            self._outlet.settle()

    def _write(self, batch: Payload) -> None:
        written = self._transport.send(batch)
        self._outlet.wrote(written)
        while written < len(batch):
            count = self._transport.send(memoryview(batch)[written:])
            self._outlet.wrote(count)
            written += count
