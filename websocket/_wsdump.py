"""wsdump: talk to a WebSocket server from a terminal, or from a shell's pipes. This is its command line.

What it does then is in _dump.py.
"""

from __future__ import annotations

import math
import re
import sys
import time
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, Final

from . import __version__
from ._abnf import STATUS_NORMAL, close_payload, payload_bytes
from ._backoff import Backoff
from ._dump import Dump, Settings
from ._proxies import parse_proxy
from ._ssl_compat import ssl
from ._url import parse_target

_USAGE: Final = "%(prog)s [options] ws_url\n       %(prog)s [options] --echo"

_DESCRIPTION: Final = """\
Connect to a WebSocket server, send what is typed or piped in, a line for each message, and print what arrives.
"""

_EPILOG: Final = """\
At a terminal, lines are edited and remembered by readline, and JSON is indented. These lines are commands:
  /ping [PAYLOAD]         send a ping, and show the time until its pong
  /pong [PAYLOAD]         send a pong that nobody asked for
  /close [CODE [REASON]]  close and exit; so does Ctrl-D
  //TEXT                  send /TEXT

In a pipe each message is one line: nothing is added, and JSON that has several lines is joined into one; in other text
they are joined by "\\n", a backslash and an n. With --raw they stay. Compressed messages are shown inflated, after
"[gzip] " or "[zlib] "; other binary ones as Python writes bytes.

At the end of the input all of it is sent, then the connection is closed: as soon as the answers seem to have come (as
many messages as were sent, or none for a second), or when --eof-wait says so. What comes before the server has
answered the close is still printed.

Exit status: 0 after a normal close, 1 after an error, which is told in one line, 2 for a wrong command line, 130 after
Ctrl-C. NO_COLOR in the environment turns colours off.

Examples:
  %(prog)s --echo                                          try it, offline
  %(prog)s wss://example.com/feed                          talk to a server
  %(prog)s -x '{"op": "status"}' wss://example.com | jq .  ask one thing
  %(prog)s --reconnect --eof-wait inf wss://example.com/feed < /dev/null >> log  listen for ever
  python -m websocket --demo                               the package at work from many threads, every message checked
"""

# In --headers a comma ends a header only before another "Name:"; many values have commas of their own.
_NEXT_HEADER: Final = re.compile(r",(?=\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*:)")


class _MayHaveValue(Action):
    """An option whose values may be left out, so that a URL that follows is not one of them."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        given = values if isinstance(values, list) else [] if values is None else [values]
        namespace.urls = [*namespace.urls, *(value for value in given if "://" in value)]
        try:
            self.take(namespace, [value for value in given if "://" not in value])
        except ValueError as error:
            parser.error(f"argument {'/'.join(self.option_strings)}: {error}")

    def take(self, namespace: Namespace, values: list[str]) -> None:
        setattr(namespace, self.dest, values)


class _Verbose(_MayHaveValue):
    """-v, -v -v, -vv, -v2 and -v 2."""

    def take(self, namespace: Namespace, values: list[str]) -> None:
        value = values[0] if values else ""
        if value.isascii() and value.isdigit():
            namespace.verbose = int(value)
        elif value.strip("v") == "":
            namespace.verbose += 1 + len(value)
        else:
            raise ValueError(f"{value!r} is no level; use 1 or 2")


class _Reconnect(_MayHaveValue):
    def take(self, namespace: Namespace, values: list[str]) -> None:
        namespace.reconnect = float(values[0]) if values else Backoff()


def _parser(prog: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(urls=[])
    parser.add_argument("--version", action="version", version=f"websocket-threads {__version__}")
    parser.add_argument("--echo", action="store_true", help="start an echo server on this machine and connect to it")

    group = parser.add_argument_group("what is sent")
    group.add_argument("-t", "--text", help="send this first")
    group.add_argument(
        "-x",
        "--execute",
        metavar="TEXT",
        action="append",
        default=[],
        help="send this, print the answers, close and exit; standard input is not read. May be given several times",
    )
    group.add_argument("--binary", action="store_true", help="send binary messages")
    group.add_argument(
        "--eof-wait",
        type=float,
        metavar="SECONDS",
        help="after the end of the input, wait this long for messages before closing; 0 closes at once, inf never",
    )
    group.add_argument(
        "--close-code", type=int, default=STATUS_NORMAL, metavar="N", help="close with this code (default: 1000)"
    )

    group = parser.add_argument_group("what is shown")
    group.add_argument(
        "-v",
        "--verbose",
        nargs="?",
        default=0,
        action=_Verbose,
        metavar="1|2",
        help="show the kind of each message, and pings, pongs and closes; with -vv or -v 2 also trace what the package"
        " does, on standard error",
    )
    group.add_argument("-r", "--raw", action="store_true", help="no prompt, marks, colours, indentation, commands")
    group.add_argument("--timings", action="store_true", help="show the seconds since the start before each message")

    group = parser.add_argument_group("the connection")
    group.add_argument("-s", "--subprotocols", nargs="*", metavar="NAME", action=_MayHaveValue, help="offer these")
    group.add_argument("-o", "--origin", help="the Origin header")
    group.add_argument(
        "--headers",
        action="append",
        default=[],
        metavar="'A: b,C: d'",
        help="further headers, separated by commas. May be given several times",
    )
    group.add_argument(
        "-p", "--proxy", metavar="URL", help="connect through this proxy: scheme://user:password@host:port"
    )
    group.add_argument("--ping-interval", type=float, default=0.0, metavar="SECONDS", help="send pings, so far apart")
    group.add_argument(
        "--reconnect",
        nargs="?",
        action=_Reconnect,
        metavar="SECONDS",
        help="connect again, after so many seconds (without a number: growing, random delays), when a connection or"
        " an attempt fails; what was not sent before is sent then",
    )

    group = parser.add_argument_group("TLS")
    group.add_argument("-n", "--nocert", action="store_true", help="do not verify the server's certificate")
    group.add_argument("--ca", metavar="FILE", help="trust the certificates in this PEM file, and no others")
    group.add_argument("--cert", metavar="FILE", help="a client's certificate, PEM")
    group.add_argument("--key", metavar="FILE", help="its key, where it is not in the same file")
    return parser


def parse(argv: Sequence[str] | None, prog: str) -> Namespace:
    """The command line's options, and the URL as `url`, None for --echo. Exits with 2 where it is wrong."""
    parser = _parser(prog)
    # No positional argument for the URL: argparse would take it for a value of -v, -s or --reconnect before it.
    arguments, rest = parser.parse_known_args(argv)
    rest = [argument for argument in rest if argument != "--"]
    if unknown := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    urls = arguments.urls + rest
    if len(urls) != (0 if arguments.echo else 1):
        given = f", not {len(urls)}: {' '.join(urls)}" if urls else ""
        parser.error(f"--echo takes no ws_url{given}" if arguments.echo else f"one ws_url is needed, or --echo{given}")
    arguments.url = urls[0] if urls else None
    return arguments


def settings(arguments: Namespace) -> Settings:
    """What the options mean. Raises ValueError for a value that makes no sense."""
    close_payload(arguments.close_code, "")
    for name in ("eof_wait", "ping_interval"):
        value = getattr(arguments, name)
        if value is not None and (not value >= 0 or (name == "ping_interval" and math.isinf(value))):
            raise ValueError(f"--{name.replace('_', '-')} must be a number of seconds from 0 on, not {value}")
    texts = list(arguments.execute)
    if arguments.text is not None:
        texts.insert(0, arguments.text)
    for text in texts:
        payload_bytes(text)
    if arguments.url is not None:
        parse_target(arguments.url)
    return Settings(
        url=arguments.url,
        texts=texts,
        reads_input=not arguments.execute,
        binary=arguments.binary,
        eof_wait=arguments.eof_wait,
        close_code=arguments.close_code,
        raw=arguments.raw,
        verbose=arguments.verbose,
        timings=arguments.timings,
        app={
            "header": [line.strip() for lines in arguments.headers for line in _NEXT_HEADER.split(lines)],
            "subprotocols": arguments.subprotocols or None,
        },
        run={
            "sslopt": _sslopt(arguments),
            "origin": arguments.origin,
            "ping_interval": arguments.ping_interval,
            "reconnect": arguments.reconnect or 0,
            **_proxy(arguments),
        },
        reconnects=bool(arguments.reconnect),
    )


def _sslopt(arguments: Namespace) -> dict[str, Any]:
    chosen = {"ca_certs": arguments.ca, "certfile": arguments.cert, "keyfile": arguments.key}
    options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if arguments.nocert and ssl is not None:
        options |= {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    return options


def _proxy(arguments: Namespace) -> dict[str, Any]:
    """The proxy is used whatever the environment says, and for this machine too. Its certificate may be of the same CA
    as the server's."""
    if arguments.proxy is None:
        return {}
    if arguments.proxy:
        parse_proxy(arguments.proxy, "--proxy")
    return {"proxy": arguments.proxy, "proxy_sslopt": {} if arguments.ca is None else {"ca_certs": arguments.ca}}


def main(argv: Sequence[str] | None = None, prog: str = "wsdump") -> int:
    """Run the command; returns its exit status. In the main thread only."""
    started = time.monotonic()
    arguments = parse(argv, prog)
    try:
        chosen = settings(arguments)
    except ValueError as error:
        print(f"wsdump: {error}", file=sys.stderr)
        return 1
    if chosen.url is not None:
        return Dump(chosen, chosen.url, started).run()
    # Here and not above: nobody else needs a server.
    from .testing import Server

    with Server() as server:
        return Dump(chosen, server.url, started).run()


if __name__ == "__main__":
    sys.exit(main())
