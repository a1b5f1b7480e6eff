"""The proxy of soak.py, which does harm: fates, and links that have one each.

It has a port for each slot of the client, so that the fate of a slot's n-th connection follows from the seed.
Three fates are no damage: delay, throttle and pause (shorter than any patience of the client's) must cost no message.
The others are: fin (the end of both streams, though neither side has said so), rst, stall (nothing moves any more,
until a reset), corrupt (one to three bytes, in one direction), and narrow (from the beginning so slow that messages
wait on both sides and pongs come late, and then reset). A fate strikes at a moment of its own, which may be in the
handshake or come too late; only what has struck is told.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

HARMLESS = ("none", "delay", "throttle", "pause")
WEIGHTS = {
    "none": 22,
    "delay": 10,
    "throttle": 8,
    "pause": 8,
    "fin": 12,
    "rst": 12,
    "stall": 10,
    "corrupt": 18,
    "narrow": 8,
}
LATEST_STRIKE = 12.0  # seconds after the connection was accepted
IN_HANDSHAKE = 0.15  # the part of the fates that strike within the first EARLY seconds
EARLY = 0.02
DELAYS = (0.005, 0.080)  # seconds, each way
RATES = (200_000, 400_000)  # bytes per second, each way
NARROW = (20_000, 60_000)
PAUSES = (0.2, 1.5)  # seconds
STALL = 9.0  # seconds until a stalled connection is reset; keepalive has noticed by then
FIN_DRAIN = 2.0  # seconds for which a cut connection is still read, so that it is no reset
HELD = 64 * 1024  # bytes in each direction that the proxy itself holds
SMALL_BUFFER = 8 * 1024  # of the slots with small buffers
READ = 64 * 1024
THROTTLED_WRITE = 2 * 1024
# The server's answer carries the number by which both sides know the connection; a wrong one would be no news of the
# package's. Corruption of plain connections leaves it alone.
ANSWER = 512


@dataclass
class Fate:
    """at: seconds.  side: 0 for corruption on the way to the server, 1 for the way back."""

    kind: str
    at: float
    delay: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    flips: int = 0
    side: int = 0

    @classmethod
    def draw(cls, chance: random.Random) -> Fate:
        kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        fate = cls(kind, chance.uniform(0, EARLY if chance.random() < IN_HANDSHAKE else LATEST_STRIKE))
        if kind == "delay":
            fate.delay = chance.uniform(*DELAYS)
        elif kind == "throttle":
            fate.rate = chance.uniform(*RATES)
        elif kind == "narrow":
            fate.rate = chance.uniform(*NARROW)
        elif kind == "pause":
            fate.seconds = chance.uniform(*PAUSES)
        elif kind == "stall":
            fate.seconds = STALL
        elif kind == "corrupt":
            fate.flips, fate.side = chance.randint(1, 3), chance.randrange(2)
        return fate


class Pipe:
    """One direction of a link."""

    def __init__(self, source: socket.socket, sink: socket.socket, fate: Fate, chance: random.Random) -> None:
        self.source = source
        self.sink = sink
        self.flips = 0  # bytes still to be corrupted
        self.untouched = 0  # bytes at the beginning that are not corrupted
        self.flipped = False
        self.discards = False
        self.at_end = False  # the source's
        self.finished = False  # the sink was told
        self.is_blocked = False  # the sink takes no more
        self._fate = fate
        self._chance = chance
        self._chunks: deque[tuple[float, memoryview]] = deque()  # (when it may go on, what)
        self._size = 0
        self._read = 0
        self._free_at = 0.0  # when a throttled direction may go on

    @property
    def wants_more(self) -> bool:
        return not self.at_end and self._size < HELD

    def due(self) -> float | None:
        """When the pipe has something to do by itself."""
        return max(self._chunks[0][0], self._free_at) if self._chunks and not self.is_blocked else None

    def discard(self) -> None:
        self.discards = True
        self._chunks.clear()
        self._size = 0

    def move(self, now: float) -> None:
        """Read and write what can be. Raises OSError where one of the ends is gone."""
        if self.wants_more:
            try:
                self._take(self.source.recv(READ), now)
            except BlockingIOError:
                pass
        self.is_blocked = False
        while self._chunks and max(self._chunks[0][0], self._free_at) <= now:
            due, chunk = self._chunks.popleft()
            try:
                sent = self.sink.send(chunk[:THROTTLED_WRITE] if self._fate.rate else chunk)
            except BlockingIOError:
                sent = 0
                self.is_blocked = True
            self._size -= sent
            if sent < len(chunk):
                self._chunks.appendleft((due, chunk[sent:]))
            if self._fate.rate:
                self._free_at = max(now, self._free_at) + sent / self._fate.rate
            if self.is_blocked:
                break
        if self.at_end and not self._chunks and not self.finished:
            self.finished = True
            self.sink.shutdown(socket.SHUT_WR)

    def _take(self, data: bytes, now: float) -> None:
        if not data:
            self.at_end = True
            return
        first = max(0, self.untouched - self._read)
        self._read += len(data)
        if self.discards:
            return
        if self.flips and first < len(data):
            harmed = bytearray(data)
            harmed[self._chance.randrange(first, len(data))] ^= 1 << self._chance.randrange(8)
            data = bytes(harmed)
            self.flips -= 1
            self.flipped = True
        self._chunks.append((now + self._fate.delay, memoryview(data)))
        self._size += len(data)


class Link:
    """One connection through the proxy."""

    def __init__(
        self, slot: int, serial: int, fate: Fate, client: socket.socket, server: socket.socket, chance: random.Random
    ) -> None:
        self.slot = slot
        self.serial = serial
        self.fate = fate
        self.is_over = False
        self.wake_at = 0.0
        self.client = client
        self.server = server
        self.server_port = server.getsockname()[1]  # as the server sees it
        self.pipes = (Pipe(client, server, fate, chance), Pipe(server, client, fate, chance))
        self._strikes_at = time.monotonic() + fate.at
        self._struck = False
        self._frozen_until = 0.0
        self._ends_at = float("inf")
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def verdict(self) -> str:
        """What has happened to the connection."""
        kind = self.fate.kind
        if kind in ("none", "delay", "throttle", "narrow"):
            return kind
        struck = self._struck if kind != "corrupt" else any(pipe.flipped for pipe in self.pipes)
        return kind if struck else "none"

    def step(self, now: float) -> None:
        """Do what is to be done now; sets is_over or wake_at."""
        if now >= self._strikes_at and not self._struck:
            self._struck = True
            self._strike(now)
        if now >= self._ends_at:
            self.reset()
        if self.is_over:
            return
        if now < self._frozen_until:
            self.wake_at = min(self._frozen_until, self._ends_at)
            return
        try:
            for pipe in self.pipes:
                pipe.move(now)
        except OSError:  # one side has reset the connection, so the other is reset
            self.reset()
            return
        if all(pipe.finished for pipe in self.pipes):
            self.is_over = True
            return
        moments = [self._ends_at, now + 1.0, *(due for pipe in self.pipes if (due := pipe.due()) is not None)]
        self.wake_at = min(moments if self._struck else [*moments, self._strikes_at])

    def _strike(self, now: float) -> None:
        kind = self.fate.kind
        if kind in ("pause", "stall"):
            self._frozen_until = now + self.fate.seconds
            if kind == "stall":
                self._ends_at = self._frozen_until
        elif kind in ("rst", "narrow"):
            self.reset()
        elif kind == "corrupt":
            self.pipes[self.fate.side].flips = self.fate.flips
        elif kind == "fin":
            self._ends_at = now + FIN_DRAIN
            for pipe in self.pipes:
                pipe.discard()
                if not pipe.finished:
                    pipe.finished = True
                    try:
                        pipe.sink.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass  # it is gone already

    def interests(self, now: float) -> dict[socket.socket, int]:
        """What to wait for, by socket."""
        wanted = {self.client: 0, self.server: 0}
        if now < self._frozen_until:
            return wanted
        for pipe in self.pipes:
            if pipe.wants_more:
                wanted[pipe.source] |= selectors.EVENT_READ
            if pipe.is_blocked:
                wanted[pipe.sink] |= selectors.EVENT_WRITE
        return wanted

    def reset(self) -> None:
        for sock in (self.client, self.server):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.is_over = True


class Proxy:
    """All links, in one thread.

    targets: the server's port and whether it speaks TLS, for each slot.  small: whether its socket buffers are.  tell:
    called with what there is to say of each connection, once it is over.
    """

    def __init__(
        self,
        seed: int,
        targets: list[tuple[int, bool]],
        small: list[bool],
        tell: Callable[[dict[str, object]], None],
    ) -> None:
        self._tell = tell
        self._seed = seed
        self._targets = targets
        self._selector = selectors.DefaultSelector()
        self._links: set[Link] = set()
        self._accepted = [0] * len(targets)
        self._serial = 0
        # By the port from which the server is reached; each entry is made before the server hears the first byte.
        self.serials: dict[int, int] = {}
        self.ports: list[int] = []
        self._listeners: list[socket.socket] = []
        for slot, is_small in enumerate(small):
            listener = socket.create_server(("127.0.0.1", 0), backlog=16)
            if is_small:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            listener.setblocking(False)
            self.ports.append(listener.getsockname()[1])
            self._listeners.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, slot)

    def run(self) -> None:
        """Until the end of standard input."""
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        is_wanted = True
        while is_wanted:
            now = time.monotonic()
            wake_at = min((link.wake_at for link in self._links), default=now + 1.0)
            ready: set[Link] = set()
            for key, _ in self._selector.select(max(0.0, wake_at - now)):
                if key.data is None:
                    is_wanted = False
                elif isinstance(key.data, Link):
                    ready.add(key.data)
                else:
                    ready.add(self._accept(key.data))
            now = time.monotonic()
            for link in [link for link in self._links if link in ready or link.wake_at <= now]:
                self._step(link, now)
        for link in list(self._links):
            link.reset()
            self._forget(link)
        for listener in self._listeners:
            listener.close()
        self._selector.close()

    def _accept(self, slot: int) -> Link:
        client, _ = self._listeners[slot].accept()
        port, is_tls = self._targets[slot]
        server = socket.create_connection(("127.0.0.1", port))
        self._accepted[slot] += 1
        self._serial += 1
        chance = random.Random(f"{self._seed} {slot} {self._accepted[slot]}")
        link = Link(slot, self._serial, Fate.draw(chance), client, server, chance)
        if not is_tls:
            link.pipes[1].untouched = ANSWER
        self.serials[link.server_port] = link.serial
        self._links.add(link)
        return link

    def _step(self, link: Link, now: float) -> None:
        link.step(now)
        if link.is_over:
            self._forget(link)
            return
        for sock, events in link.interests(now).items():
            # A socket without events is not registered: its HUP would be told again and again.
            registered = self._selector.get_map().get(sock)
            if registered is None:
                if events:
                    self._selector.register(sock, events, link)
            elif not events:
                self._selector.unregister(sock)
            elif events != registered.events:
                self._selector.modify(sock, events, link)

    def _forget(self, link: Link) -> None:
        for sock in (link.client, link.server):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
            sock.close()
        self._links.discard(link)
        self._tell({"serial": link.serial, "slot": link.slot, "did": link.verdict})
