"""The turn: the right to use one direction of a transport. One holder at a time.

A turn belongs to an actor, the reader or the writer, which lends it: a thread of the program that finds it free
may take it, do the actor's work for a moment, and give it back, so that no thread has to be woken in between.

Every method is called with the lock held that the turn shares with its queue. I/O is done without the lock; the
turn is what keeps others away from the transport meanwhile.
"""

from __future__ import annotations

import threading
import time
from threading import get_ident
from typing import Final

from .condition import Condition

RETIRED: Final = -1  # no thread's ident


class Turn:
    """Who may use one direction of a transport.

    holder: the ident of the thread that has the turn, 0 while it is free, RETIRED once nobody will have it.
    returned_at: when (time.monotonic()) a borrower last gave it back.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self.holder = 0
        self.returned_at = time.monotonic()
        self._changed = Condition(lock)
        self._return_wanted = False
        self._heir = 0  # the thread that gets the turn when it is given back

    def take(self) -> None:
        """Take the turn, which must be free."""
        self.holder = get_ident()

    def claim(self) -> bool:
        """Take the turn before anybody else can, waiting for its holder to give it back; False where it is retired
        meanwhile. One thread at a time may claim, and not one that signal handlers interrupt."""
        if not self.holder:
            self.take()
            return True
        self._heir = get_ident()
        while self.holder not in (get_ident(), RETIRED):
            self._changed.wait()
        return self.is_mine()

    def give_back(self) -> None:
        """Free the turn, or hand it to who has claimed it. Its owner is woken only where it asked for that: a
        borrower that comes and goes costs no thread switch."""
        self.holder, self._heir = self._heir, 0
        self.returned_at = time.monotonic()
        if self._return_wanted or self.holder:
            self.wake_owner()

    def retire(self) -> None:
        """Nobody gets the turn any more."""
        self.holder = RETIRED
        self.wake_owner()

    def is_mine(self) -> bool:
        """Whether the calling thread holds the turn: true in a signal handler that interrupts a borrower."""
        return self.holder == get_ident()

    def wait(self, timeout: float | None = None) -> None:
        """The owner waits until wake_owner() is called, or `timeout` seconds."""
        self._changed.wait(timeout)

    def wait_for_return(self) -> None:
        """The owner waits until the turn is given back, or wake_owner() is called."""
        self._return_wanted = True
        try:
            self._changed.wait()
        finally:
            self._return_wanted = False

    def wake_owner(self) -> None:
        """Let the owner look again."""
        self._changed.notify_all()
