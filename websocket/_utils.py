"""Small functions that programs written for websocket-client import from here. Nothing in the package uses them."""

from __future__ import annotations

from typing import Any

__all__ = ["NoLock", "extract_err_message", "extract_error_code", "validate_utf8"]


class NoLock:
    """A context manager that does nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


def validate_utf8(utfbytes: str | bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if isinstance(utfbytes, str):
        return True
    try:
        bytes(utfbytes).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def extract_err_message(exception: Exception) -> str | None:
    """The exception's first argument as text, or None where it has none."""
    return str(exception.args[0]) if exception.args else None


def extract_error_code(exception: Exception) -> int | None:
    """The exception's first argument where that is an int and not the only argument, else None."""
    args: tuple[Any, ...] = exception.args
    return args[0] if len(args) > 1 and isinstance(args[0], int) else None
