"""The ssl module where Python was built with it, and stand-ins for its exceptions where it was not.

Everything here can be imported on a Python without ssl; only a wss:// connection then fails, with a clear error.
"""

from __future__ import annotations

try:
    import ssl
    from ssl import SSLEOFError, SSLError, SSLWantReadError, SSLWantWriteError

    HAVE_SSL = True
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]
    HAVE_SSL = False

    class SSLError(OSError):  # type: ignore[no-redef]
        """Never raised: ssl is not available."""

    class SSLEOFError(SSLError):  # type: ignore[no-redef]
        """Never raised: ssl is not available."""

    class SSLWantReadError(SSLError):  # type: ignore[no-redef]
        """Never raised: ssl is not available."""

    class SSLWantWriteError(SSLError):  # type: ignore[no-redef]
        """Never raised: ssl is not available."""


__all__ = ["HAVE_SSL", "SSLEOFError", "SSLError", "SSLWantReadError", "SSLWantWriteError", "ssl"]
