"""How much a connection holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from .._parser import DEFAULT_MAX_MESSAGE_SIZE

# Of each queue. OkHttp bounds its own at 16 MiB as well (MAX_QUEUE_SIZE); small messages cost more than their bytes,
# so they are counted too.
DEFAULT_MAX_MESSAGES: Final = 65_536
DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """The bounds of a connection; each is an option of connect().

    max_message_size: bytes of one message, None for no limit.  The others bound what waits to be received and to
    be written; one message is always let in, whatever its size. Raises ValueError for what is no such number.
    """

    max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE
    max_inbox_messages: int = DEFAULT_MAX_MESSAGES
    max_inbox_bytes: int = DEFAULT_MAX_BYTES
    max_outbox_messages: int = DEFAULT_MAX_MESSAGES
    max_outbox_bytes: int = DEFAULT_MAX_BYTES

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "max_message_size":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be an int of at least 1, not {value!r}")
