"""The wsdump command in pipes: what goes in, what comes out, and the exit status."""

from __future__ import annotations

import gzip
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

import websocket
from websocket._wsdump import main, parse
from websocket.testing import Peer, Server

from .certs import Authority
from .conftest import PATIENCE, wait_until
from .scripted_proxies import ScriptedProxy, tunnelling
from .test_foreign_server import Foreign

Serve = Callable[..., Server]
COMMAND = [sys.executable, "-m", "websocket"]


pytestmark = pytest.mark.usefixtures("ctrl_c_is_not_ignored")


def run(*arguments: str, stdin: str | bytes = b"") -> subprocess.CompletedProcess[bytes]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    return subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, timeout=PATIENCE)


def output(*arguments: str, stdin: str | bytes = b"") -> str:
    """What the command prints, where all goes well."""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def complaint(*arguments: str, stdin: str | bytes = b"", status: int = 1) -> str:
    """The one line that the command prints on standard error where something goes wrong."""
    done = run(*arguments, stdin=stdin)
    assert done.returncode == status, done
    assert re.fullmatch(rb"wsdump: [^\n]+\n", done.stderr), done
    return done.stderr.decode()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the command with pipes of its own, for talking with it while it runs."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(*arguments: str, command: list[str] = COMMAND, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        processes.append(subprocess.Popen([*command, *arguments], bufsize=0, **options))
        return processes[-1]

    yield make
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


Start = Callable[..., "subprocess.Popen[bytes]"]


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def line_of(pipe: Any) -> str:
    return bytes(pipe.readline()).decode()


# ---- lines in, lines out ----


def test_each_line_is_a_message_and_each_message_a_line(serve: Serve) -> None:
    text = 'hello\n\n{"a":  1}\nwörld\n  spaces \n'
    assert output(serve().url, stdin=text) == text


def test_a_last_line_without_its_end_is_sent_too(serve: Serve) -> None:
    assert output(serve().url, stdin="one\ntwo") == "one\ntwo\n"


def test_the_end_of_a_windows_line_is_not_sent(serve: Serve) -> None:
    assert output(serve().url, stdin="one\r\ntwo\r\n") == "one\ntwo\n"


def test_a_slash_is_data_in_a_pipe(serve: Serve) -> None:
    assert output(serve().url, stdin="/close\n//x\n") == "/close\n//x\n"


def test_a_line_of_megabytes_and_thousands_of_lines_come_back_whole(serve: Serve) -> None:
    text = "x" * 3_000_000 + "\n" + "".join(f"{number}\n" for number in range(20_000))
    assert output(serve().url, stdin=text) == text


def test_nothing_in_nothing_out(serve: Serve) -> None:
    assert output(serve().url) == ""


def test_a_message_is_printed_as_soon_as_it_comes(serve: Serve, start: Start) -> None:
    process = start(serve().url)
    for word in (b"one\n", b"two\n"):
        write(process, word)
        assert line_of(process.stdout) == word.decode()


def test_answers_that_come_before_the_answer_to_the_close_are_printed(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        messages = list(iter(peer.recv, None))  # until the client closes
        peer.send(*(f"answer to {message}" for message in messages))

    lines = output("--eof-wait", "0", serve(handler).url, stdin="1\n2\n")
    assert lines == "answer to 1\nanswer to 2\n"


@pytest.mark.parametrize("how", ["pipe", "execute"])
def test_a_server_that_answers_a_close_at_once_still_gets_to_its_answers(how: str, authority: Authority) -> None:
    """websockets drops what its handler has not answered when the close frame comes."""

    def handler(peer: ServerConnection) -> None:
        for message in peer:
            peer.send(f"answer to {message!r}")

    foreign = Foreign("ws", authority)
    try:
        url = foreign.url(foreign.start(handler))
        lines = output(url, stdin="1\n2\n") if how == "pipe" else output("-x", "1", "-x", "2", url)
    finally:
        foreign.close()
    assert lines == "answer to '1'\nanswer to '2'\n"


def test_eof_wait_keeps_the_connection_open_after_the_end_of_the_input(serve: Serve, start: Start) -> None:
    def handler(peer: Peer) -> None:
        assert peer.recv() == "question"
        peer.sock.settimeout(1.2)  # longer than answers are waited for without the option
        with pytest.raises(TimeoutError):
            peer.recv()
        peer.sock.settimeout(PATIENCE)
        peer.send("late")
        assert peer.recv() is None

    server = serve(handler)
    process = start("--eof-wait", "600", server.url)
    write(process, b"question\n")
    assert process.stdin is not None
    process.stdin.close()
    assert line_of(process.stdout) == "late\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert server.errors == []


def test_eof_wait_without_end_and_without_input_listens_until_the_server_closes(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.send("one")
        peer.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.recv()
        peer.send("two")

    assert output("--eof-wait", "inf", serve(handler).url) == "one\ntwo\n"


def test_execute_sends_prints_and_ends_without_reading_standard_input(serve: Serve, start: Start) -> None:
    process = start("-x", "one", "--execute", "two", serve().url)  # its standard input stays open
    assert process.wait(PATIENCE) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b"one\ntwo\n"


def test_text_is_sent_before_standard_input(serve: Serve) -> None:
    assert output("-t", "first", serve().url, stdin="second\n") == "first\nsecond\n"


def test_binary_sends_lines_as_they_are(serve: Serve) -> None:
    got: list[Any] = []

    def handler(peer: Peer) -> None:
        got.extend(iter(peer.recv, None))

    output("--binary", "--eof-wait", "0", "-t", "a", serve(handler).url, stdin=b"\xff\x00\r\nb\n")
    assert got == [b"a", b"\xff\x00\r", b"b"]


def test_echo_needs_no_url() -> None:
    assert output("--echo", stdin="hello\n") == "hello\n"


def test_a_closed_standard_output_ends_it_quietly(serve: Serve, start: Start) -> None:
    def handler(peer: Peer) -> None:
        while True:
            peer.send("on and on")

    process = start(serve(handler).url)
    assert process.stdout is not None
    assert process.stderr is not None
    assert line_of(process.stdout) == "on and on\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == b""


def test_a_closed_standard_output_is_noticed_while_nothing_comes(serve: Serve, start: Start) -> None:
    def handler(peer: Peer) -> None:
        peer.send("only one")
        assert peer.recv() is None

    process = start(serve(handler).url)
    assert process.stdout is not None
    assert line_of(process.stdout) == "only one\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0


def test_it_works_without_standard_input_and_output(serve: Serve, tmp_path: Path) -> None:
    got: list[Any] = []

    def handler(peer: Peer) -> None:
        got.extend(iter(peer.recv, None))

    command = f'exec "$@" <&- >&- 2>{tmp_path}/errors'
    done = subprocess.run(["sh", "-c", command, "sh", *COMMAND, "-t", "x", serve(handler).url], timeout=PATIENCE)
    assert done.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
    assert got == ["x"]


# ---- how messages look ----


def says(*messages: str | bytes) -> Callable[[Peer], None]:
    """A server that sends these and closes."""

    def handler(peer: Peer) -> None:
        peer.send(*messages)

    return handler


def test_json_of_several_lines_becomes_one_in_a_pipe(serve: Serve) -> None:
    message = '{\n  "a": [1.50, 1e400, "x\\ny\\u00e9 , :"],\n  "b": {}\n}\n'
    assert output(serve(says(message)).url) == '{"a": [1.50, 1e400, "x\\ny\\u00e9 , :"], "b": {}}\n'


def test_other_text_of_several_lines_becomes_one_in_a_pipe(serve: Serve) -> None:
    assert output(serve(says("one\r\ntwo\nthree", "{no\njson}")).url) == "one\\r\\ntwo\\nthree\n{no\\njson}\n"


def test_a_line_feed_at_the_end_of_a_message_is_not_doubled(serve: Serve) -> None:
    assert output(serve(says("one\n", "two\r\n")).url) == "one\ntwo\n"


def test_raw_leaves_messages_as_they_are(serve: Serve) -> None:
    assert output("--raw", serve(says("one\ntwo\n", '{"a":\n1}')).url) == 'one\ntwo\n\n{"a":\n1}\n'


def test_control_characters_pass_through_a_pipe(serve: Serve) -> None:
    assert output(serve(says("\x1b[31mred\x07")).url) == "\x1b[31mred\x07\n"


def test_compressed_messages_are_shown_inflated(serve: Serve) -> None:
    raw = zlib.compressobj(wbits=-15)
    raw_deflate = raw.compress(b"three") + raw.flush()
    messages = (gzip.compress(b"one"), zlib.compress(b"two"), raw_deflate, gzip.compress(b'{\n"a": 1}'))
    assert output(serve(says(*messages)).url) == '[gzip] one\n[zlib] two\n[zlib] three\n[gzip] {"a": 1}\n'


def test_other_binary_messages_are_shown_as_bytes(serve: Serve) -> None:
    too_much = gzip.compress(bytes(17 * 1024 * 1024))
    not_text = gzip.compress(b"\xff")
    messages = [b"\x00\xffabc", b"", b"\x03\x00", b"\x1f\x8bxyz", not_text, too_much]
    assert output(serve(says(*messages)).url).splitlines() == [repr(message) for message in messages]


def test_verbose_names_what_comes(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.send_frame(websocket.ABNF.OPCODE_PING, b"p\xffing")
        peer.send("hello", b"\x00")
        peer.send_frame(websocket.ABNF.OPCODE_PONG, b"unasked")
        peer.close(1000, "bye")

    expected = "ping: b'p\\xffing'\ntext: hello\nbinary: b'\\x00'\npong: unasked\nclose: 1000 bye\n"
    assert output("-v", serve(handler).url) == expected  # and -v leaves the URL alone


@pytest.mark.parametrize(
    ("options", "level"),
    [("", 0), ("-v", 1), ("--verbose", 1), ("-v 1", 1), ("-nv", 1), ("-vv", 2), ("-v 2", 2), ("-v2", 2), ("-v -v", 2)],
)
def test_verbose_has_levels_and_leaves_the_url_alone(options: str, level: int) -> None:
    arguments = parse([*options.split(), "ws://a"], "wsdump")
    assert (arguments.verbose, arguments.url) == (level, "ws://a")


def test_verbose_twice_traces_too(serve: Serve) -> None:
    done = run("-vv", serve(says("hello")).url)
    assert done.returncode == 0
    assert done.stdout == b"text: hello\nclose: 1000\n"
    assert b"--- request header ---" in done.stderr
    assert b"++Rcv message: 'hello'" in done.stderr


def test_timings_go_before_each_message(serve: Serve) -> None:
    assert re.fullmatch(r"\d+\.\d{6}: one\n\d+\.\d{6}: two\n", output("--timings", serve(says("one", "two")).url))


# ---- the connection ----


def test_headers_and_origin_are_sent(serve: Serve) -> None:
    server = serve(says())
    output("--headers", "A: b, C-D:  e, f; g", "--headers", "Date: Mon, 1 Jan", "-o", "http://o.example", server.url)
    sent = server.peers[0].headers
    assert (sent["a"], sent["c-d"], sent["date"]) == ("b", "e, f; g", "Mon, 1 Jan")
    assert sent["origin"] == "http://o.example"


def test_subprotocols_are_offered_and_leave_the_url_alone(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.accept(subprotocol="superchat")
        peer.finish()

    server = serve(handler, raw=True)
    output("-s", "chat", "superchat", server.url)
    output(server.url, "--subprotocols", "superchat")
    offered = [peer.headers["sec-websocket-protocol"].replace(" ", "") for peer in server.peers]
    assert offered == ["chat,superchat", "superchat"]


def test_ping_interval_sends_pings(serve: Serve, start: Start) -> None:
    process = start("--ping-interval", "0.01", "-v", serve().url)
    assert line_of(process.stdout).startswith("pong: ")


def test_close_code_is_what_it_closes_with(serve: Serve) -> None:
    server = serve()
    output("--close-code", "4001", server.url, stdin="x\n")
    frame = server.peers[0].close_frame
    assert frame is not None
    assert frame.data == (4001).to_bytes(2, "big")


def test_a_certificate_of_an_unknown_issuer_is_refused_unless_told_otherwise(
    serve: Serve, authority: Authority
) -> None:
    server = serve(ssl_context=authority.server_context("example.org"))
    assert "certificate" in complaint(server.url)
    assert output("-n", server.url, stdin="x\n") == "x\n"
    assert output("--nocert", server.url, stdin="x\n") == "x\n"


def test_ca_cert_and_key_are_files(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context()
    authority.require_client_certificate(context)
    server = serve(ssl_context=context)
    both = Path(authority.client_certificate()).read_text()
    at = both.index("-----BEGIN CERTIFICATE")
    (tmp_path / "key").write_text(both[:at])
    (tmp_path / "cert").write_text(both[at:])
    trust = ["--ca", authority.ca_file]
    assert output(*trust, "--cert", f"{tmp_path}/cert", "--key", f"{tmp_path}/key", server.url, stdin="x\n") == "x\n"
    assert "certificate" in complaint(*trust, server.url).lower()
    assert "nowhere" in complaint("--ca", f"{tmp_path}/nowhere", server.url)


def test_a_proxy_is_used_for_servers_on_this_machine_too(serve: Serve, authority: Authority) -> None:
    proxy = ScriptedProxy(serve, tunnelling(), "http")
    server = serve(ssl_context=authority.server_context())
    assert output("-p", proxy.url_for("user:secret"), "--ca", authority.ca_file, server.url, stdin="x\n") == "x\n"
    assert len(proxy.visits) == 1


def test_a_proxy_that_cannot_be_used_is_named(serve: Serve) -> None:
    assert "127.0.0.1:1" in complaint("-p", "http://127.0.0.1:1", serve().url, stdin="x\n")
    assert "'http://127.0.0.1:x'" in complaint("--proxy", "http://127.0.0.1:x", serve().url)
    assert "***@" in (said := complaint("--proxy", "sock5://user:secret@127.0.0.1:1", serve().url))
    assert "secret" not in said


# ---- the exit status ----


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_normal_close_of_the_server_is_a_good_end_whatever_stdin_does(serve: Serve, start: Start, code: int) -> None:
    def handler(peer: Peer) -> None:
        peer.send("hello")
        peer.close(code)

    process = start(serve(handler).url)  # its standard input stays open
    assert process.wait(PATIENCE) == 0
    assert process.stdout is not None
    assert process.stderr is not None
    assert (process.stdout.read(), process.stderr.read()) == (b"hello\n", b"")


def test_a_close_without_a_code_is_a_good_end(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.send_raw(b"\x88\x00")
        peer._close_sent = True

    assert output("-v", serve(handler).url) == "close: \n"


@pytest.mark.parametrize("when", ["by itself", "in answer to a close"])
def test_an_abnormal_close_of_the_server_is_an_error(serve: Serve, when: str) -> None:
    def handler(peer: Peer) -> None:
        if when == "in answer to a close":
            assert peer.recv() is None
        peer.close(1011, "no \x1b[31mluck")

    url = serve(handler).url
    assert complaint(url) == "wsdump: the server closed the connection with code 1011 (no \\x1b[31mluck)\n"


@pytest.mark.parametrize("how", ["hang_up", "reset"])
def test_a_lost_connection_is_an_error(serve: Serve, start: Start, how: str) -> None:
    process = start(serve(lambda peer: getattr(peer, how)()).url)  # its standard input stays open
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None
    assert re.fullmatch(rb"wsdump: [^\n]*lost[^\n]*\n", process.stderr.read())


def test_a_refused_connection_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        told = complaint(f"ws://127.0.0.1:{port}/")
    assert "refused" in told.lower()
    assert "Errno" not in told


def test_another_answer_than_101_is_an_error(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 403 Go\x1bAway\r\nContent-Length: 2\r\n\r\nno")

    assert "403" in complaint(serve(handler, raw=True).url)


def test_a_line_that_is_not_utf_8_is_an_error(serve: Serve) -> None:
    assert "--binary" in complaint(serve().url, stdin=b"\xff\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["http://example.com"], "scheme 'http' is invalid"),
        (["example.com"], "no scheme"),
        (["--echo", "--close-code", "1006"], "close code 1006"),
        (["--echo", "--eof-wait", "-1"], "--eof-wait"),
        (["--echo", "--ping-interval", "nan"], "--ping-interval"),
        (["--echo", "-t", "half a \ud800"], "UTF-8"),
        (["--echo", "-p", "gopher://p"], "--proxy 'gopher://p'"),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 1
    assert re.fullmatch(rf"wsdump: [^\n]*{re.escape(told)}[^\n]*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "ws_url is needed"),
        (["-v"], "ws_url is needed"),
        (["ws://a", "ws://b"], "not 2: ws://a ws://b"),
        (["--echo", "ws://a"], "--echo takes no ws_url"),
        (["--nonsense", "ws://a"], "--nonsense"),
        (["-vx", "ws://a"], "'x' is no level"),
        (["--reconnect", "soon", "ws://a"], "'soon'"),
        (["--close-code", "x", "ws://a"], "--close-code"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(options)
    said = capsys.readouterr().err
    assert said.startswith("usage: wsdump [options] ws_url\n")
    assert told in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "told"), [(["--headers", "no colon"], "'no colon'"), (["--reconnect", "-1"], "reconnect")]
)
def test_a_value_that_the_connection_refuses_is_an_error(options: list[str], told: str) -> None:
    assert told in complaint("--echo", *options)


def test_the_command_itself_fails_for_a_wrong_command_line() -> None:
    done = run("--nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: python -m websocket [options] ws_url\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_closes_the_connection(serve: Serve, start: Start, number: int, status: int) -> None:
    def handler(peer: Peer) -> None:
        peer.send("hello")
        assert peer.recv() is None

    server = serve(handler)
    process = start(server.url)
    assert line_of(process.stdout) == "hello\n"
    process.send_signal(number)
    assert process.wait(PATIENCE) == status
    assert process.stderr is not None
    assert process.stderr.read() == b""
    wait_until(lambda: server.peers[0].close_frame is not None, "the server has the close frame")


def test_an_interrupt_ends_an_attempt_to_connect(serve: Serve, start: Start) -> None:
    connecting = threading.Event()

    def handler(peer: Peer) -> None:
        peer.read_request()
        connecting.set()
        peer.stall()

    process = start(serve(handler, raw=True).url)
    assert connecting.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_a_server_that_does_not_answer_the_close_is_an_error(serve: Serve) -> None:
    def handler(peer: Peer) -> None:
        peer.recv()
        peer.stall()

    program = "import websocket._dump as d, websocket._wsdump as w; d._CLOSE_SILENCE = 0.1; raise SystemExit(w.main())"
    command = [sys.executable, "-c", program, "--eof-wait", "0", serve(handler).url]
    done = subprocess.run(command, input=b"x\n", capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"wsdump: the server has not answered the close\n"


def test_a_slow_reader_of_the_output_is_waited_for_and_loses_nothing(serve: Serve, start: Start) -> None:
    lines = [f"{number} {'x' * 1000}" for number in range(2000)]  # more than a pipe holds

    def handler(peer: Peer) -> None:
        assert peer.recv() is None  # the client has begun to close
        peer.send(*lines)

    program = "import websocket._dump as d, websocket._wsdump as w; d._CLOSE_SILENCE = 0.1; raise SystemExit(w.main())"
    process = start(serve(handler).url, command=[sys.executable, "-c", program], stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert process.stdout.read().decode().splitlines() == lines
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == b""


def test_an_interrupt_is_answered_while_nobody_reads_the_output(serve: Serve, start: Start) -> None:
    def handler(peer: Peer) -> None:
        while True:
            peer.send("x" * 1000)

    process = start(serve(handler).url)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130


def test_version_and_help() -> None:
    assert output("--version") == f"websocket-threads {websocket.__version__}\n"
    assert "/ping [PAYLOAD]" in output("--help")


# ---- reconnecting ----


class Twice:
    """A server's handler: `first` for the first connection; the second is accepted when `gate` is set, and echoes."""

    def __init__(self, first: Callable[[Peer], None]) -> None:
        self.first = first
        self.gate = threading.Event()
        self.received: list[Any] = []

    def __call__(self, peer: Peer) -> None:
        peer.read_request()
        if peer.server.peers[0] is peer:
            peer.accept()
            self.first(peer)
            return
        self.gate.wait(PATIENCE)
        peer.accept()
        while batch := peer.recv_batch():
            self.received += batch
            peer.send(*batch)
        peer.finish()


def test_lines_that_come_while_the_connection_is_down_are_sent_after_it(serve: Serve, start: Start) -> None:
    def first(peer: Peer) -> None:
        peer.close(1012, "restart")
        peer.finish()

    twice = Twice(first)
    process = start("--reconnect", "0.01", serve(twice, raw=True).url)
    lost = "wsdump: the server closed the connection with code 1012 (restart); connecting again\n"
    assert line_of(process.stderr) == lost
    write(process, b"one\ntwo\n")
    assert process.stdin is not None
    process.stdin.close()
    twice.gate.set()
    assert process.wait(PATIENCE) == 0
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read() == b"one\ntwo\n"
    assert process.stderr.read() == b"wsdump: connected again\n"


def test_what_a_lost_connection_has_not_sent_goes_out_first_after_it(serve: Serve, start: Start) -> None:
    """What the system had taken when the connection was lost nobody knows about; the rest comes in order."""
    full = threading.Event()

    def first(peer: Peer) -> None:
        full.wait(PATIENCE)
        peer.reset()

    twice = Twice(first)
    twice.gate.set()
    process = start("--reconnect", "0.01", serve(twice, raw=True).url)
    lines = [f"{number} {'x' * 100_000}" for number in range(150)]

    def feed() -> None:
        for index, line in enumerate(lines):
            write(process, line.encode() + b"\n")
            if index == 140:  # 14 MB: the queues on the way hold as much, the system's buffers do not
                full.set()
        assert process.stdin is not None
        process.stdin.close()

    feeding = threading.Thread(target=feed)
    feeding.start()
    assert process.stdout is not None
    printed = process.stdout.read().decode().splitlines()
    feeding.join(PATIENCE)
    assert process.wait(PATIENCE) == 0
    assert len(printed) > 10
    assert printed == lines[-len(printed) :]
    assert twice.received == printed


TELLS_OF_CLOSE = """
import sys
from websocket import WebSocket
from websocket._wsdump import main

def send_close(self, *arguments, begin=WebSocket.send_close):
    begin(self, *arguments)
    print("closing", file=sys.stderr)

WebSocket.send_close = send_close
sys.exit(main())
"""


def test_what_could_not_be_sent_before_the_close_goes_out_on_one_more_connection(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    closing = threading.Event()

    def first(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        closing.wait(PATIENCE)
        peer.reset()

    twice = Twice(first)
    twice.gate.set()
    url = serve(twice, raw=True).url
    lines = [f"{number} {'x' * 100_000}" for number in range(100)]  # more than the system's buffers hold
    (tmp_path / "lines").write_text("\n".join(lines))
    with open(tmp_path / "lines") as stdin:
        command = [sys.executable, "-c", TELLS_OF_CLOSE]
        process = start("--reconnect", "0.01", "--eof-wait", "0", url, stdin=stdin, command=command)
    assert line_of(process.stderr) == "closing\n"
    closing.set()
    assert process.stdout is not None
    process.stdout.read()
    assert re.fullmatch(
        r"wsdump: the connection was closed before \d+ messages could be sent; connecting again\n",
        line_of(process.stderr),
    )
    assert process.wait(PATIENCE) == 0
    assert twice.received
    assert twice.received == lines[-len(twice.received) :]


def test_it_waits_for_a_server_that_is_not_up_yet(serve: Serve, start: Start) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        process = start("--reconnect", "0.01", "-x", "x", f"ws://127.0.0.1:{port.getsockname()[1]}/")
        told = line_of(process.stderr)
        assert told.startswith("wsdump: ")
        assert told.endswith("; connecting again\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_what_could_not_be_sent_before_the_close_is_an_error(serve: Serve, start: Start, tmp_path: Path) -> None:
    closing = threading.Event()

    def handler(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        closing.wait(PATIENCE)
        peer.reset()

    url = serve(handler).url
    (tmp_path / "lines").write_text(f"{'x' * 100_000}\n" * 100)  # more than the system's buffers hold
    with open(tmp_path / "lines") as stdin:
        process = start("--eof-wait", "0", url, stdin=stdin, command=[sys.executable, "-c", TELLS_OF_CLOSE])
    assert line_of(process.stderr) == "closing\n"
    closing.set()
    assert process.wait(PATIENCE) == 1
    told = r"wsdump: the connection was closed before \d+ messages could be sent\n"
    assert re.fullmatch(told, line_of(process.stderr))


@pytest.mark.parametrize("option", [["--reconnect"], ["--reconnect", "0.01"]])
def test_a_normal_close_and_an_answer_of_4xx_are_not_tried_again(serve: Serve, option: list[str]) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send_raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    assert output(*option, serve(says("hello")).url) == "hello\n"
    server = serve(refuse, raw=True)
    assert "404" in complaint(*option, server.url)
    assert len(server.peers) == 1
