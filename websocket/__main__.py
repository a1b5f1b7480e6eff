"""python -m websocket --demo: the package at work against a local server."""

from __future__ import annotations

import argparse
import sys

from . import __version__


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m websocket", description=__doc__)
    parser.add_argument("--version", action="version", version=f"websocket-threads {__version__}")
    parser.add_argument(
        "--demo",
        action="store_true",
        help="send numbered messages from 8 threads through one wss:// connection to a local server and check each",
    )
    if not parser.parse_args().demo:
        parser.print_help()
        return 2
    try:
        # Here and not above: it needs trustme, which only the extra "test" brings.
        from .testing.demo import run
    except ModuleNotFoundError as error:
        if error.name != "trustme":
            raise
        print("the demo needs trustme for its certificate: pip install 'websocket-threads[test]'", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
