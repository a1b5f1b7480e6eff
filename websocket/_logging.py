"""Logging under the name "websocket", and tracing of handshakes, messages and control frames.

Code on the hot path looks at `tracing`, a module flag, and at nothing else while it is off.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

logger = logging.getLogger("websocket")
logger.addHandler(logging.NullHandler())

# Written by enableTrace() only; read everywhere. A plain bool: readers may see a change one frame late.
tracing = False

__all__ = [
    "debug",
    "dump",
    "enableTrace",
    "error",
    "info",
    "isEnabledForDebug",
    "isEnabledForError",
    "isEnabledForTrace",
    "trace",
    "warning",
]


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """The default handler of enableTrace()."""


_trace_handler: logging.Handler | None = None  # guarded by _trace_lock
_trace_lock = threading.Lock()


def enableTrace(traceable: bool, handler: logging.Handler | None = None, level: str = "DEBUG") -> None:
    """Turn the trace of handshakes, messages and control frames on or off (websocket-client's function of this name).

    What is traced holds all that was sent, passwords and cookies among it.

    traceable: on or off.  handler: where records go, standard error by default.  level: a level of `logging`.
    Turning it on again replaces the handler, so that no line comes twice. Any thread may call it.
    """
    global tracing, _trace_handler
    with _trace_lock:
        if _trace_handler is not None:
            logger.removeHandler(_trace_handler)
            _trace_handler = None
        tracing = bool(traceable)
        if traceable:
            _trace_handler = _StderrHandler() if handler is None else handler
            logger.addHandler(_trace_handler)
            logger.setLevel(getattr(logging, level) if isinstance(level, str) else level)


def dump(title: str, message: Any) -> None:
    """Log a block of text between rules, while tracing is on."""
    if tracing:
        logger.debug("--- %s ---\n%s\n-----------------------", title, message)


def debug(msg: str, *args: Any) -> None:
    """Log at level DEBUG."""
    logger.debug(msg, *args)


def info(msg: str, *args: Any) -> None:
    """Log at level INFO."""
    logger.info(msg, *args)


def warning(msg: str, *args: Any) -> None:
    """Log at level WARNING."""
    logger.warning(msg, *args)


def error(msg: str, *args: Any) -> None:
    """Log at level ERROR."""
    logger.error(msg, *args)


def trace(msg: str, *args: Any) -> None:
    """Log at level DEBUG, while tracing is on."""
    if tracing:
        logger.debug(msg, *args)


def isEnabledForDebug() -> bool:
    """Whether records of level DEBUG are taken."""
    return logger.isEnabledFor(logging.DEBUG)


def isEnabledForError() -> bool:
    """Whether records of level ERROR are taken."""
    return logger.isEnabledFor(logging.ERROR)


def isEnabledForTrace() -> bool:
    """Whether tracing is on."""
    return tracing
