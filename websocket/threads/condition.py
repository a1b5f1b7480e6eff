"""A condition that an exception of a signal handler cannot leave half-way."""

from __future__ import annotations

import threading


class Condition(threading.Condition):
    """threading.Condition on a re-entrant lock, for threads that signal handlers interrupt.

    An exception that comes just after wait() has released the lock and just before it is prepared for that leaves
    the lock released inside a with block, and a waiter behind that takes another's wake-up. Use it as
    `with lock: ... condition.wait()`: its own __enter__ may be interrupted as well.
    """

    def wait(self, timeout: float | None = None) -> bool:
        try:
            return super().wait(timeout)
        except BaseException:
            if not is_owned(self._lock):  # type: ignore[attr-defined]
                self.acquire()
            self.notify_all()
            raise

    def notify_all(self) -> None:
        """Wake all who wait. With the lock held; mostly nobody waits, and an end notifies a dozen times."""
        if self._waiters:  # type: ignore[attr-defined]
            super().notify_all()


def is_owned(lock: threading.RLock) -> bool:
    """Whether the calling thread holds a re-entrant lock; what threading.Condition asks of it, too."""
    owned: bool = lock._is_owned()  # type: ignore[attr-defined]
    return owned
