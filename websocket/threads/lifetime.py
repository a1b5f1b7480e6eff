"""The connections that live, for two moments that concern them all: the end of the process and a fork."""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from .condition import Condition

# At interpreter exit: for what was accepted to be written, and then for the peers to answer the close frames.
_FLUSH_SECONDS: Final = 3.0


class Living(Protocol):
    """What is told of a fork."""

    def after_fork_in_child(self) -> None:
        """Make this copy dead, without waiting for a lock that a thread of the parent may have held."""


class Leaving(Living, Protocol):
    """What is told of the end of the process too."""

    def begin_exit(self) -> None:
        """Start to flush and close; does not wait."""

    def finish_exit(self, deadline: float) -> None:
        """Wait for that until a time.monotonic() deadline, then give up."""


_lock = threading.RLock()  # re-entrant: a signal handler may connect or fork
# By id: a program's subclass may have an __eq__ or __hash__ of its own. Guarded by _lock.
_living: weakref.WeakValueDictionary[int, Living] = weakref.WeakValueDictionary()
_leaving: weakref.WeakSet[Leaving] = weakref.WeakSet()  # guarded by _lock
_bare_threads: set[object] = set()  # that run; guarded by _lock
_bare_thread_ended = Condition(_lock)


def watch(living: Living) -> None:
    """Tell the object of forks, as long as it lives."""
    with _lock:
        _living[id(living)] = living


def watch_exit(leaving: Leaving) -> None:
    """Tell the object of forks and of the end of the process, until forget() is the last that its threads do: a thread
    that is just ending while the interpreter does may crash it (CPython 3.10)."""
    with _lock:
        _living[id(leaving)] = leaving
        _leaving.add(leaving)


def forget(leaving: Leaving) -> None:
    """The connection has ended."""
    with _lock:
        _living.pop(id(leaving), None)
        _leaving.discard(leaving)


def run_on_bare_thread(work: Callable[[], object]) -> None:
    """Do the work on a thread that is not known to `threading`: threading.Thread.start() waits, which a signal handler
    and __del__ must not. Raises RuntimeError where no thread can be started."""
    token = object()

    def forget_token() -> None:
        with _lock:
            _bare_threads.discard(token)
            _bare_thread_ended.notify_all()

    def run() -> None:
        try:
            work()
        finally:
            forget_token()

    try:
        with _lock:
            _bare_threads.add(token)
        _thread.start_new_thread(run, ())
    except BaseException:  # no thread can be started; or of a signal handler, just before or just after it was
        forget_token()
        raise


def is_process_ending(refusal: RuntimeError) -> bool:
    """Whether this is why a thread could not be started: the main thread is through, so that it is other threads that
    are waited for, or atexit's functions that run; from CPython 3.12 on there are no new threads then. `threading` has
    it alive still while concurrent.futures waits for its workers; the exception says it from the start."""
    return "interpreter shutdown" in str(refusal) or not threading.main_thread().is_alive()


@atexit.register
def _at_exit() -> None:
    with _lock:
        leaving = list(_leaving)
    for connection in leaving:
        connection.begin_exit()
    deadline = time.monotonic() + _FLUSH_SECONDS
    for connection in leaving:
        connection.finish_exit(deadline)
    with _lock:
        _bare_thread_ended.wait_for(lambda: not _bare_threads, max(0.0, deadline - time.monotonic()))


def _before_fork() -> None:
    _lock.acquire()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork_in_child() -> None:
    global _bare_thread_ended
    # The forking thread took the lock, and it is the one that lives on here.
    _lock.release()
    for living in list(_living.values()):
        living.after_fork_in_child()
    _leaving.clear()
    _bare_threads.clear()
    _bare_thread_ended = Condition(_lock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
