"""The wsdump command at a terminal: a real one for the command, drawn by pyte for the test."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyte
import pytest

from websocket.testing import Peer

from .conftest import PATIENCE, wait_until
from .test_wsdump import COMMAND, Serve, Twice

pytestmark = pytest.mark.usefixtures("ctrl_c_is_not_ignored")

# Makes its standard error the controlling terminal, so that there is Ctrl-C, and becomes the command. It is a program
# of its own because Python code in a fork of a process with threads may hang.
ADOPT = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command at a terminal of its own. raw: all that was written there."""

    def __init__(self, command: list[str], rows: int, columns: int, environment: dict[str, str]) -> None:
        self.raw = b""
        self._master, self._slave = os.openpty()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(rows, columns)
        self._modes = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ADOPT, *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**os.environ, "TERM": "xterm", "INPUTRC": "/dev/null", "NO_COLOR": "1"} | environment,
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the empty lines at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")

    @property
    def cursor(self) -> tuple[int, int]:
        """(line, column)."""
        return self._screen.cursor.y, self._screen.cursor.x

    def colour_of(self, text: str) -> str:
        """The colour of the first letter of what is at the beginning of a line."""
        line = next(index for index, shown in enumerate(self.lines) if shown.startswith(text))
        return str(self._screen.buffer[line][0].fg)

    def until(self, condition: Callable[[], Any]) -> None:
        """Draw what the command writes until the screen is as the condition wants it."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "waited in vain; the screen:\n" + "\n".join(self.lines)
            self._draw()

    def until_last(self, *lines: str) -> None:
        """Draw until the screen ends in these lines."""
        self.until(lambda: self.lines[-len(lines) :] == list(lines))

    def _draw(self) -> None:
        data = os.read(self._master, 65536)
        self.raw += data
        self._stream.feed(data)

    def status(self) -> int:
        """The command's exit status, once it has ended; the terminal must then be as it was."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None or select.select([self._master], [], [], 0)[0]:
            assert time.monotonic() < deadline, "it does not end; the screen:\n" + "\n".join(self.lines)
            if select.select([self._master], [], [], 0.002)[0]:
                self._draw()
        assert termios.tcgetattr(self._slave) == self._modes, "the terminal is not as it was"
        return int(self.process.returncode)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts the command at a terminal: open_terminal("ws://...", rows=24, columns=80, environment={...})."""
    terminals: list[Terminal] = []

    def make(
        *arguments: str,
        command: list[str] = COMMAND,
        rows: int = 24,
        columns: int = 80,
        environment: dict[str, str] | None = None,
    ) -> Terminal:
        terminals.append(Terminal([*command, *arguments], rows, columns, environment or {}))
        return terminals[-1]

    yield make
    for terminal in terminals:
        terminal.close()


Open = Callable[..., Terminal]


class Told:
    """A server's handler that sends what the test tells it to, and keeps what comes."""

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.received: list[Any] = []
        self._connected = threading.Event()

    def __call__(self, peer: Peer) -> None:
        self.peer = peer
        self._connected.set()
        self.received.extend(iter(peer.recv, None))

    def send(self, *messages: str | bytes) -> None:
        self._connected.wait(PATIENCE)
        assert self.peer is not None
        self.peer.send(*messages)

    def close(self, code: int, reason: str = "") -> None:
        self._connected.wait(PATIENCE)
        assert self.peer is not None
        self.peer.close(code, reason)


def prompting(terminal: Terminal) -> Terminal:
    """The terminal, once the prompt is there."""
    terminal.until_last(">")
    return terminal


def test_it_talks(serve: Serve, open_terminal: Open) -> None:
    server = serve()
    terminal = prompting(open_terminal(server.url))
    terminal.type("hello\r")
    terminal.until_last("> hello", "< hello", ">")
    terminal.type("\r")
    terminal.until_last(">", "<", ">")
    terminal.type("\x04")
    assert terminal.status() == 0
    assert terminal.lines == [
        f"connected to {server.url}; Ctrl-D closes, /help tells more",
        *("> hello", "< hello", ">", "<", "closed with code 1000"),
    ]


def test_json_is_indented_and_nothing_in_it_changed(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url))
    terminal.type('{"a":[1.50,{"b":"x:{,"}],"c":{},"d":[]}\r')
    shown = ["< {", '    "a": [', "      1.50,", "      {", '        "b": "x:{,"', "      }", "    ],"]
    terminal.until_last(*shown, '    "c": {},', '    "d": []', "  }", ">")


def test_colours_tell_what_was_received(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url, environment={"NO_COLOR": ""}))
    terminal.type("hello\r")
    terminal.until_last("> hello", "< hello", ">")
    assert terminal.colour_of("< hello") == "cyan"
    assert terminal.colour_of("> hello") == "default"


def test_no_color_turns_colours_off(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url))
    terminal.type("hello\r")
    terminal.until_last("> hello", "< hello", ">")
    assert not re.search(rb"\x1b\[[0-9;]*m", terminal.raw)


def test_a_message_leaves_the_line_that_is_being_typed_as_it_is(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url))
    terminal.type("hello wörld\x1b[D\x1b[D\x1b[D")
    terminal.until(lambda: terminal.cursor == (1, 10))
    told.send("one", "two")
    terminal.until_last("< one", "< two", "> hello wörld")
    terminal.until(lambda: terminal.cursor == (3, 10))
    terminal.type("X\r")
    terminal.until_last("< two", "> hello wöXrld", ">")
    terminal.type("\x04")
    assert terminal.status() == 0
    assert told.received == ["hello wöXrld"]


def test_a_message_leaves_a_line_as_it_is_that_is_longer_than_the_screen_is_wide(
    serve: Serve, open_terminal: Open
) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url, rows=10, columns=20))
    line = "".join(chr(ord("a") + index % 26) for index in range(45))
    terminal.type(line + "\x1b[D" * 20)
    rows = ["> " + line[:18], line[18:38], line[38:]]
    terminal.until_last(*rows)
    told.send("a message that is wider than the screen")
    terminal.until_last("< a message that is", "wider than the scree", "n", *rows)
    terminal.until(lambda: terminal.cursor == (9 - 1, 7))
    terminal.type("!\r")
    terminal.type("\x04")
    assert terminal.status() == 0
    assert told.received == [line[:25] + "!" + line[25:]]


def test_typing_goes_on_while_messages_pour_in(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url, rows=6, columns=40))
    line = "typed-key-by-key-and-longer-than-the-screen-is-wide"
    for index, key in enumerate(line):
        told.send(*(f"message {20 * index + number}" for number in range(20)))
        terminal.type(key)
    last = 20 * len(line) - 1
    terminal.until_last(f"< message {last}", "> " + line[:38], line[38:])
    shown = re.findall(rb"< message (\d+)\r\n", terminal.raw)
    assert [int(number) for number in shown] == list(range(last + 1))
    terminal.type("\r\x04")
    assert terminal.status() == 0
    assert told.received == [line]


def test_lines_are_remembered(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url))
    terminal.type("one\r")
    terminal.until_last("> one", "< one", ">")
    terminal.type("two\r")
    terminal.until_last("> two", "< two", ">")
    terminal.type("\x1b[A\x1b[A!\r")
    terminal.until_last("< two", "> one!", "< one!", ">")


def test_a_resized_terminal_shows_the_line_in_its_new_width(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url, rows=8, columns=60))
    terminal.type("x" * 50)
    terminal.until_last("> " + "x" * 50)
    terminal.resize(8, 30)
    terminal.until_last("> " + "x" * 28, "x" * 22)


def test_messages_of_several_lines_cannot_pass_for_a_prompt(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url))
    told.send("one\r\n> two\nthree\n")
    terminal.until_last("< one", "  > two", "  three", ">")


@pytest.mark.parametrize("options", [[], ["--raw"]])
def test_control_characters_do_not_reach_the_terminal(serve: Serve, open_terminal: Open, options: list[str]) -> None:
    told = Told()
    terminal = open_terminal(*options, serve(told).url)
    told.send("a\x1b[2Jb\x07c\x9bd\u202ee\rf\x7fg")
    terminal.until(lambda: any("a\\x1b[2Jb\\x07c\\x9bd\\u202ee\\rf\\x7fg" in line for line in terminal.lines))
    assert b"\x1b[2J" not in terminal.raw


def test_slash_commands(serve: Serve, open_terminal: Open) -> None:
    server = serve()
    terminal = prompting(open_terminal(server.url, columns=160))
    terminal.type("/ping\r")
    terminal.until(lambda: re.fullmatch(r"< pong: \(\d+\.\d ms\)", terminal.lines[-2]))
    terminal.type("/ping hey you\r")
    terminal.until(lambda: re.fullmatch(r"< pong: hey you \(\d+\.\d ms\)", terminal.lines[-2]))
    terminal.type("/pong well\r//ping\r")
    terminal.until_last("> /pong well", "> //ping", "< /ping", ">")
    assert server.peers[0].pongs == [b"well"]
    terminal.type("/what\r")
    terminal.until_last(
        "commands: /ping [PAYLOAD], /pong [PAYLOAD], /close [CODE [REASON]]; //TEXT sends /TEXT",
        ">",
    )
    terminal.type(f"/ping {'x' * 126}\r")
    terminal.until_last("/ping: 126 bytes are too long; at most 125 can be sent", ">")
    terminal.type("/close 1005\r")
    terminal.until(lambda: terminal.lines[-2].startswith("close code 1005 is not allowed"))
    terminal.type("/close 4000 good bye\r")
    assert terminal.status() == 0
    assert terminal.lines[-1] == "closed with code 4000"
    frame = server.peers[0].close_frame
    assert frame is not None
    assert frame.data == b"\x0f\xa0good bye"


def test_raw_has_no_prompt_no_marks_and_no_commands(serve: Serve, open_terminal: Open) -> None:
    terminal = open_terminal("--raw", "-t", "ready", serve().url, environment={"NO_COLOR": ""})
    terminal.until_last("ready")
    terminal.type('{"a": 1}\r')
    terminal.until_last('{"a": 1}', '{"a": 1}')
    terminal.type("/ping\r")
    terminal.until_last("/ping", "/ping")
    terminal.type("\x04")
    assert terminal.status() == 0
    assert terminal.lines == ["ready", '{"a": 1}', '{"a": 1}', "/ping", "/ping"]
    assert not re.search(rb"\x1b\[[0-9;]*m", terminal.raw)


def test_the_server_ends_it_in_the_middle_of_a_line(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url))
    terminal.type("half a li")
    terminal.until_last("> half a li")
    told.close(1000, "bye")
    assert terminal.status() == 0
    assert terminal.lines[1:] == ["closed by the server with code 1000 (bye)"]


def test_the_server_fails_in_the_middle_of_a_line(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = prompting(open_terminal(serve(told).url))
    terminal.type("half a li")
    terminal.until_last("> half a li")
    told.close(1011, "oh\x1b[2J")
    assert terminal.status() == 1
    assert terminal.lines[1:] == ["wsdump: the server closed the connection with code 1011 (oh\\x1b[2J)"]


def test_ctrl_c_closes_and_restores_the_terminal(serve: Serve, open_terminal: Open) -> None:
    server = serve()
    terminal = prompting(open_terminal(server.url))
    terminal.type("half a li")
    terminal.until_last("> half a li")
    terminal.type("\x03")
    assert terminal.status() == 130
    assert terminal.lines[1:] in ([], ["closed with code 1000"])  # a busy server may need more than the second it gets
    wait_until(lambda: server.peers[0].close_frame is not None, "the server has the close frame")


def test_ctrl_z_stops_it_with_the_terminal_restored_and_a_line_goes_on_later(serve: Serve, open_terminal: Open) -> None:
    terminal = prompting(open_terminal(serve().url))
    terminal.type("half a li")
    terminal.until_last("> half a li")
    terminal.type("\x1a")
    _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert termios.tcgetattr(terminal._slave) == terminal._modes
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until_last("> half a li")
    terminal.type("ne\r")
    terminal.until_last("> half a line", "< half a line", ">")


@pytest.mark.parametrize(
    ("environment", "hidden"),
    [({"TERM": "dumb"}, ""), ({}, "readline"), ({}, "ctypes")],
    ids=["dumb", "readline", "ctypes"],
)
def test_without_line_editing_it_works_plainly(
    serve: Serve, open_terminal: Open, environment: dict[str, str], hidden: str
) -> None:
    program = f"import sys; sys.modules[{hidden!r}] = None; from websocket._wsdump import main; sys.exit(main())"
    terminal = open_terminal(serve().url, command=[sys.executable, "-c", program], environment=environment)
    terminal.until(lambda: len(terminal.lines) == 1 and terminal.lines[0].startswith("connected to"))
    terminal.type("hellp\x7fo\r")
    terminal.until_last("hello", "< hello")
    terminal.type("/ping\r")
    terminal.until(lambda: terminal.lines[-1].startswith("< pong: "))
    assert b"\x1b" not in terminal.raw
    terminal.type("\x04")
    assert terminal.status() == 0


def test_into_a_pipe_there_is_no_prompt_and_nothing_is_added(serve: Serve, open_terminal: Open) -> None:
    shell = ["sh", "-c", '"$@" | cat', "sh", *COMMAND]
    terminal = open_terminal(serve().url, command=["/usr/bin/env", *shell], environment={"NO_COLOR": ""})
    terminal.type('{"a": 1}\r')
    terminal.until_last('{"a": 1}', '{"a": 1}')
    assert b"\x1b" not in terminal.raw
    assert ">" not in terminal.lines


def test_piped_input_is_answered_with_marks_and_without_a_prompt(serve: Serve, open_terminal: Open) -> None:
    shell = ["sh", "-c", 'echo \'{"a": 1}\' | "$@"', "sh", *COMMAND]
    terminal = open_terminal(serve().url, command=["/usr/bin/env", *shell])
    assert terminal.status() == 0
    assert terminal.lines == ["< {", '    "a": 1', "  }"]


def test_reconnecting_is_told_and_lines_wait_for_it(serve: Serve, open_terminal: Open) -> None:
    leave = threading.Event()

    def first(peer: Peer) -> None:
        leave.wait(PATIENCE)
        peer.close(1012)
        peer.finish()

    twice = Twice(first)
    terminal = prompting(open_terminal("--reconnect", "0.01", serve(twice, raw=True).url))
    terminal.type("half a li")
    terminal.until_last("> half a li")
    leave.set()
    lost = "wsdump: the server closed the connection with code 1012; connecting again"
    terminal.until_last(lost, "> half a li")
    terminal.type("ne\r")
    terminal.until_last(lost, "> half a line", ">")
    twice.gate.set()
    terminal.until_last(lost, "> half a line", "wsdump: connected again", "< half a line", ">")


def test_a_trace_goes_around_the_line_that_is_being_typed(serve: Serve, open_terminal: Open) -> None:
    told = Told()
    terminal = open_terminal("-vv", serve(told).url)
    terminal.until(lambda: terminal.lines[-1] == ">")
    terminal.type("half a li")
    terminal.until_last("> half a li")
    told.send("hello")
    terminal.until_last("++Rcv message: 'hello'", "< text: hello", "> half a li")
