"""An event that poll() and select() understand: its file descriptor is readable while it is set."""

from __future__ import annotations

import os
import socket
import threading


class PollableEvent:
    """Like threading.Event, but with a file descriptor. Any thread may call any method, in any order.

    An eventfd where the system has it, else a socket pair.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant for the sake of signal handlers that end what they interrupt
        self._is_set = False  # guarded by self._lock, as are the descriptors
        self._closed = True
        self._fd = -1
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._pair = socket.socketpair()
            self._fd = self._pair[0].fileno()
        self._closed = False

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._fd

    def is_set(self) -> bool:
        """Whether the event is set."""
        return self._is_set

    def set(self) -> None:
        """Make the descriptor readable."""
        with self._lock:
            if not self._is_set and not self._closed:
                self._is_set = True
                if self._pair is None:
                    os.eventfd_write(self._fd, 1)
                else:
                    self._pair[1].send(b"\0")

    def clear(self) -> None:
        """Make the descriptor unreadable again."""
        with self._lock:
            if self._is_set and not self._closed:
                self._is_set = False
                if self._pair is None:
                    os.eventfd_read(self._fd)
                else:
                    self._pair[0].recv(1)

    def close(self) -> None:
        """Give the descriptor back to the system; set() and clear() do nothing from here on."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._pair is None:
                os.close(self._fd)
            else:
                for end in self._pair:
                    end.close()
            self._fd = -1

    def close_in_child(self) -> None:
        """close() in a forked child, where the lock may be held by a thread that is not there."""
        self._lock = threading.RLock()
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            self.close()
