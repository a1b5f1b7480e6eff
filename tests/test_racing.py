"""The addresses of a name side by side (RFC 8305), and the name's resolution, under one deadline.

What the resolver says is the tests' own; the sockets are real: addresses that answer, that refuse, and black holes,
which are listeners whose queue is full, so that the system drops whatever comes to them.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from websocket import (
    WebSocket,
    WebSocketAddressException,
    WebSocketConnectException,
    WebSocketConnectionClosedException,
    WebSocketConnectionRefusedException,
    WebSocketProxyConnectionException,
    WebSocketProxyTimeoutException,
    WebSocketTimeoutException,
    _racing,
    create_connection,
)
from websocket._hosts import bracketed
from websocket._racing import interleave
from websocket.testing import Server

from .conftest import PATIENCE, background, wait_until
from .scripted_proxies import ScriptedProxy, tunnelling
from .test_foreign_server import has_ipv6
from .test_unix_sockets import Front

Serve = Callable[..., Server]
Address = tuple[str, int]

NAME = "server.test"
URL = f"ws://{NAME}/"
TIMEOUT = 0.3
HOUR = 3600.0
# Of no use to TCP, wherever the test runs.
MULTICAST = ("224.0.0.1", 80)

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
families = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])


def info(address: Address) -> Any:
    """An address as getaddrinfo() gives it."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    rest = (0, 0) if family == socket.AF_INET6 else ()
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (*address, *rest))


def named(*addresses: Address) -> list[str]:
    """Addresses as messages name them."""
    return [f"{bracketed(host)}:{port}" for host, port in addresses]


class Addresses:
    """What the resolver knows, and addresses for it. Whatever it makes is closed by close().

    known: by name. Other names are the system's resolver's.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[Any]] = {}
        self._system = socket.getaddrinfo
        self._cleanup = ExitStack()
        self.close = self._cleanup.close

    def getaddrinfo(self, host: Any, *arguments: Any) -> list[Any]:
        return self.known[host] if host in self.known else self._system(host, *arguments)

    def of_name(self, *addresses: Address, name: str = NAME) -> None:
        self.known[name] = [info(address) for address in addresses]

    def refusing(self, host: str = "127.0.0.1") -> Address:
        """Nobody listens there, and nobody else gets the port."""
        sock = self._cleanup.enter_context(socket.socket(info((host, 0))[0]))
        sock.bind((host, 0))
        return (host, sock.getsockname()[1])

    def black_hole(self, host: str = "127.0.0.1") -> Address:
        return self.full_listener(host)[1]

    def full_listener(self, host: str = "127.0.0.1") -> tuple[socket.socket, Address]:
        """A black hole, and what may free its queue."""
        listener = socket.create_server((host, 0), family=info((host, 0))[0], backlog=0)
        self._cleanup.enter_context(listener)
        address = (host, listener.getsockname()[1])
        self._cleanup.enter_context(socket.create_connection(address, PATIENCE))
        while not is_black(address):
            pass  # the kernel may take a moment to count the connection
        return listener, address

    def front(self, server: Server, host: str) -> Address:
        """An address of the server beside 127.0.0.1."""
        listener = socket.create_server((host, 0), family=info((host, 0))[0])
        self._cleanup.enter_context(Front(listener, server.port))
        return (host, listener.getsockname()[1])


def is_black(address: Address) -> bool:
    """Whether the queue is full: so one more connection is not made, and a socket is left trying."""
    with socket.socket(info(address)[0]) as probe:
        probe.setblocking(False)
        return probe.connect_ex(address) == errno.EINPROGRESS and attempts_at(address) > 0


def attempts_at(address: Address) -> int:
    """How many sockets of this machine are trying to connect to an address, by the kernel's list of them."""
    lines = Path("/proc/net/tcp6" if ":" in address[0] else "/proc/net/tcp").read_text().splitlines()[1:]
    syn_sent = [fields[2] for fields in map(str.split, lines) if fields[3] == "02"]
    return sum(int(remote.partition(":")[2], 16) == address[1] for remote in syn_sent)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    result = Addresses()
    monkeypatch.setattr(socket, "getaddrinfo", result.getaddrinfo)
    yield result
    result.close()


@pytest.fixture
def delay(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time before the next address is tried beside those that have not answered."""
    return lambda seconds: monkeypatch.setattr(_racing, "ATTEMPT_DELAY", seconds)


class Starts:
    """The value 1 of a socket option, which counts the attempts that it is set for. then: done at each, before it."""

    def __init__(self, then: Callable[[int], Any] = lambda number: None) -> None:
        self.number = 0
        self._then = then

    def __index__(self) -> int:
        self.number += 1
        self._then(self.number)
        return 1

    @property
    def sockopt(self) -> list[Any]:
        return [(socket.SOL_SOCKET, socket.SO_REUSEADDR, self)]


def assert_reaches(server: Server, url: str = URL, **options: Any) -> None:
    before = len(server.peers)
    with create_connection(url, **options) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert len(server.peers) == before + 1


# ---- the order ----


def test_families_take_turns_beginning_with_that_of_the_first_address() -> None:
    six = [info((f"fd00::{number}", 80)) for number in range(3)]
    four = [info((f"10.0.0.{number}", 80)) for number in range(3)]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], six[2], four[2]]
    assert interleave([four[0], *six, four[1]]) == [four[0], six[0], four[1], six[1], six[2]]
    assert interleave(six) == six
    assert interleave([]) == []


def test_an_address_that_comes_twice_is_tried_once() -> None:
    six, four, other = info(("fd00::1", 80)), info(("10.0.0.1", 80)), info(("10.0.0.2", 80))
    assert interleave([six, six, four, other, four, six]) == [six, four, other]


# ---- addresses that do not answer ----


@families
def test_an_address_that_does_not_answer_is_not_waited_for(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve, host: str
) -> None:
    delay(0.01)
    server = serve()
    hole = addresses.black_hole(host)
    addresses.of_name(hole, ("127.0.0.1", server.port))
    assert_reaches(server)
    assert attempts_at(hole) == 0


@needs_ipv6
def test_an_ipv6_address_answers_where_the_ipv4_address_does_not(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    delay(0.01)
    server = serve()
    addresses.of_name(addresses.black_hole(), addresses.black_hole(), addresses.front(server, "::1"))
    starts = Starts()
    assert_reaches(server, sockopt=starts.sockopt)
    assert starts.number == 2


def test_no_more_addresses_are_tried_than_it_takes(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    delay(HOUR)
    server = serve()
    addresses.of_name(("127.0.0.1", server.port), addresses.black_hole(), addresses.refusing())
    starts = Starts()
    assert_reaches(server, sockopt=starts.sockopt)
    assert starts.number == 1


def test_of_two_that_have_answered_the_first_is_taken_and_the_other_ended(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    delay(0)
    server = serve()
    late, first = addresses.full_listener()

    def let_the_first_answer(number: int) -> None:
        if number == 2:  # the first is under way, the second not yet
            wait_until(lambda: attempts_at(first) == 1, "the first address is tried")
            late.listen(16)
            wait_until(lambda: attempts_at(first) == 0, "its handshake is done")  # by a SYN sent again

    with socket.create_server(("127.0.0.1", 0)) as loser:
        addresses.of_name(first, loser.getsockname())
        connecting = background(lambda: create_connection(URL, sockopt=Starts(let_the_first_answer).sockopt))
        loser.settimeout(PATIENCE)
        with loser.accept()[0] as ended:
            ended.settimeout(PATIENCE)
            assert ended.recv(1) == b""
        with Front(late, server.port):
            websocket = connecting()
            websocket.send("hello")
            assert websocket.recv() == "hello"
            assert websocket.sock.getpeername() == first
            websocket.close()


def test_localhost_is_reached_at_whichever_of_its_addresses_the_server_listens(serve: Serve) -> None:
    server = serve()
    assert_reaches(server, f"ws://localhost:{server.port}/")


# ---- addresses that fail ----


def test_a_refusal_leads_on_at_once(addresses: Addresses, delay: Callable[[float], None], serve: Serve) -> None:
    delay(HOUR)  # which nobody would wait for
    server = serve()
    addresses.of_name(addresses.refusing(), MULTICAST, addresses.refusing(), ("127.0.0.1", server.port))
    assert_reaches(server)


def test_a_refusal_leads_on_while_another_address_does_not_answer(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    server = serve()
    hole, refusing = addresses.black_hole(), addresses.refusing()
    addresses.of_name(hole, refusing, ("127.0.0.1", server.port))
    delay(0.01)
    starts = Starts(lambda number: delay(HOUR) if number == 2 else None)  # from the refusal on
    assert_reaches(server, sockopt=starts.sockopt)
    assert starts.number == 3


@needs_ipv6
def test_where_all_refuse_the_error_names_each_address(addresses: Addresses) -> None:
    tried = [addresses.refusing("::1"), addresses.refusing(), addresses.refusing("127.0.0.2")]
    addresses.of_name(*tried)
    with pytest.raises(WebSocketConnectionRefusedException) as caught:
        create_connection(URL)
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    refusals = "; ".join(f"{name}: Connection refused" for name in named(*tried))
    assert caught.value.strerror == f"cannot connect to {NAME!r}: {refusals}"


def test_fifty_addresses_that_refuse_are_all_tried(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    delay(HOUR)
    refusing = [addresses.refusing(f"127.0.0.{number}") for number in range(1, 51)]
    addresses.of_name(*refusing)
    with pytest.raises(WebSocketConnectionRefusedException) as caught:
        create_connection(URL)
    assert all(f"{name}: " in str(caught.value) for name in named(*refusing))
    server = serve()
    addresses.of_name(*refusing, ("127.0.0.1", server.port))
    assert_reaches(server)


def test_an_error_that_is_not_all_refusals_says_what_each_address_did(addresses: Addresses) -> None:
    refusing = addresses.refusing()
    addresses.of_name(refusing, MULTICAST)
    # A family that TCP knows nothing of, as IPv6 is where it is switched off.
    addresses.known[NAME].append((socket.AF_APPLETALK, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("nowhere", 80)))
    with pytest.raises(WebSocketConnectException) as caught:
        create_connection(URL)
    assert not isinstance(caught.value, ConnectionRefusedError)
    message = str(caught.value)
    assert f"{named(refusing)[0]}: Connection refused" in message
    assert f"{named(MULTICAST)[0]}: Network is unreachable" in message
    assert "nowhere:80: Address family not supported" in message


@pytest.mark.parametrize(
    "option",
    [
        (socket.SOL_SOCKET, 9999, 1),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 2**40),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, "yes"),
    ],
)
def test_a_sockopt_that_cannot_be_set_is_named(addresses: Addresses, serve: Serve, option: Any) -> None:
    server = serve()
    addresses.of_name(("127.0.0.1", server.port))
    with pytest.raises(WebSocketConnectException) as caught:
        create_connection(URL, sockopt=[option])
    assert f"sockopt {option!r} cannot be set" in str(caught.value)
    assert server.peers == []


def test_sockopt_holds_for_each_attempt(addresses: Addresses, delay: Callable[[float], None], serve: Serve) -> None:
    delay(0.01)
    server = serve()
    addresses.of_name(addresses.black_hole(), addresses.refusing(), ("127.0.0.1", server.port))
    starts = Starts()
    with create_connection(URL, sockopt=starts.sockopt) as websocket:
        assert websocket.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert websocket.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert starts.number == 3


# ---- the end: the deadline, and close() ----


def test_the_deadline_is_one_over_all_addresses_and_names_each(
    addresses: Addresses, delay: Callable[[float], None]
) -> None:
    delay(0)
    holes = [addresses.black_hole() for _ in range(3)]
    refusing = addresses.refusing()
    addresses.of_name(*holes[:2], refusing, holes[2])
    start = time.monotonic()
    with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s") as caught:
        create_connection(URL, timeout=TIMEOUT)
    assert time.monotonic() - start >= TIMEOUT
    # Each was still under way at the end: none has had a deadline of its own.
    assert all(f"{name}: no answer" in str(caught.value) for name in named(*holes))
    assert f"{named(refusing)[0]}: Connection refused" in str(caught.value)
    assert [attempts_at(hole) for hole in holes] == [0, 0, 0]


def test_close_in_another_thread_ends_the_race(addresses: Addresses, delay: Callable[[float], None]) -> None:
    delay(0)
    holes = [addresses.black_hole() for _ in range(2)]
    addresses.of_name(*holes)
    websocket = WebSocket()
    connecting = background(lambda: websocket.connect(URL))
    wait_until(lambda: all(attempts_at(hole) for hole in holes), "both addresses are tried")
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program"):
        connecting()
    assert [attempts_at(hole) for hole in holes] == [0, 0]


# ---- towards a proxy ----


def test_the_addresses_of_a_proxy_are_raced_too(
    addresses: Addresses, delay: Callable[[float], None], serve: Serve
) -> None:
    delay(0.01)
    server, proxy = serve(), ScriptedProxy(serve, tunnelling())
    addresses.of_name(addresses.refusing(), addresses.black_hole(), ("127.0.0.1", proxy.port), name="proxy.test")
    assert_reaches(server, f"ws://server.invalid:{server.port}/", proxy="http://proxy.test:3128")
    assert [visit.host for visit in proxy.visits] == ["server.invalid"]


def test_what_became_of_a_proxys_addresses_is_told(addresses: Addresses, delay: Callable[[float], None]) -> None:
    delay(0)
    refusing, hole = addresses.refusing(), addresses.black_hole()
    addresses.of_name(refusing, name="proxy.test")
    with pytest.raises(WebSocketProxyConnectionException) as refused:
        create_connection(URL, proxy="http://proxy.test:3128")
    addresses.of_name(refusing, hole, name="proxy.test")
    with pytest.raises(WebSocketProxyTimeoutException, match=f"http_proxy_timeout of {TIMEOUT} s") as silent:
        create_connection(URL, proxy="http://proxy.test:3128", http_proxy_timeout=TIMEOUT)
    assert f"{named(hole)[0]}: no answer" in str(silent.value)
    for error in (refused.value, silent.value):
        assert "proxy http://proxy.test:3128: " in str(error)
        assert f"{named(refusing)[0]}: Connection refused" in str(error)


# ---- a resolver that does not answer ----


class SilentResolver:
    """asked: it has been.  answer: set for its answer, which is that there is no such name."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()

    def getaddrinfo(self, host: str, *_: Any) -> list[Any]:
        self.asked.set()
        assert self.answer.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentResolver]:
    result = SilentResolver()
    monkeypatch.setattr(socket, "getaddrinfo", result.getaddrinfo)
    yield result
    result.answer.set()


def test_a_resolver_that_does_not_answer_runs_into_the_deadline(resolver: SilentResolver) -> None:
    with pytest.raises(WebSocketTimeoutException, match=f"{TIMEOUT} s is over while resolving '{NAME}'"):
        create_connection(URL, timeout=TIMEOUT)


@pytest.mark.parametrize("options", [{}, {"proxy": "http://proxy.test:3128"}], ids=["server", "proxy"])
def test_close_in_another_thread_ends_the_wait_for_the_resolver(
    resolver: SilentResolver, options: dict[str, Any]
) -> None:
    websocket = WebSocket()
    connecting = background(lambda: websocket.connect(URL, **options))
    assert resolver.asked.wait(PATIENCE)
    websocket.close()
    with pytest.raises(WebSocketConnectionClosedException, match="closed by this program while resolving"):
        connecting()


def test_a_proxys_name_is_resolved_within_the_proxys_time(resolver: SilentResolver) -> None:
    message = rf"proxy http://proxy\.test:3128: http_proxy_timeout of {TIMEOUT} s .* resolving 'proxy\.test'"
    with pytest.raises(WebSocketProxyTimeoutException, match=message):
        create_connection(URL, proxy="http://proxy.test:3128", http_proxy_timeout=TIMEOUT)


def test_an_answer_in_time_is_waited_for(resolver: SilentResolver) -> None:
    connecting = background(lambda: create_connection(URL))
    assert resolver.asked.wait(PATIENCE)
    resolver.answer.set()
    with pytest.raises(WebSocketAddressException, match=f"cannot resolve '{NAME}'.*no {NAME}"):
        connecting()
