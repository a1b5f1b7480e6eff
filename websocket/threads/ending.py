"""How a connection came to its end: what the reading turn saw, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass

from .._abnf import ABNF, STATUS_GOING_AWAY, STATUS_NORMAL
from .._exceptions import (
    WebSocketConnectionClosedException,
    WebSocketConnectionLostException,
    WebSocketException,
)


@dataclass(frozen=True)
class Ending:
    """One of three: the peer's close frame, a breach of the protocol, or a failure.

    close_frame: the peer's close frame, where there was one.
    error: what a recv() gets once in place of a message, for a peer that broke the protocol.
    cause: what failed, where something did; the same as `error` for a breach.
    answer: the payload of the close frame to be sent, None where none can be.
    """

    close_frame: ABNF | None = None
    error: WebSocketException | None = None
    cause: BaseException | None = None
    answer: bytes | None = None

    @property
    def code(self) -> int | None:
        """The code of the peer's close frame, None where it has none."""
        frame = self.close_frame
        return int.from_bytes(frame.data[:2], "big") if frame is not None and frame.data else None

    @property
    def reason(self) -> str | None:
        """The reason of the peer's close frame, None where it has none."""
        frame = self.close_frame
        return frame.data[2:].decode() if frame is not None and len(frame.data) > 2 else None

    @property
    def is_normal(self) -> bool:
        """Whether the peer has closed with a code that means no fault."""
        return self.close_frame is not None and self.code in (None, STATUS_NORMAL, STATUS_GOING_AWAY)

    def exception(self, cause: BaseException | None) -> WebSocketConnectionClosedException:
        """A new exception that tells it. cause: what is known by now to have failed first."""
        if self.close_frame is not None:
            code = "without a code" if self.code is None else f"with code {self.code}"
            reason = f" ({self.reason})" if self.reason else ""
            return WebSocketConnectionClosedException(f"socket is already closed: the peer closed it {code}{reason}")
        if self.error is not None:
            return WebSocketConnectionClosedException(f"socket is already closed: {self.error}")
        return WebSocketConnectionLostException(f"Connection to remote host was lost: {cause}")


@dataclass(frozen=True)
class Outcome:
    """How a connection ended, for who supervises it.

    error: tells it, whatever it was, with what is unsent.  by_program: this side asked for the end.  is_failure: the
    end was neither asked for here nor a normal close of the peer, or it left something unsent.  code, reason: of the
    peer's close frame, None without one.
    """

    error: WebSocketException
    by_program: bool
    is_failure: bool
    code: int | None
    reason: str | None
