"""python -m websocket: wsdump, and --demo, the package at work against a local server."""

from __future__ import annotations

import sys

from ._wsdump import main as wsdump


def main() -> int:
    if sys.argv[1:] != ["--demo"]:
        return wsdump(prog="python -m websocket")
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
