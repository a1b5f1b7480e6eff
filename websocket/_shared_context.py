"""One SSL context for all connections whose TLS options, and the files behind them, are the same.

To read the system's certificate authorities takes 17 ms and 0.8 MiB, each time. A context that is shared is never
changed and given to nobody, so nothing but the time can tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from ._ssl_compat import HAVE_SSL, ssl
from ._tls import create_context

_OF_THE_CONTEXT: Final = frozenset({"ca_certs", "cert_reqs", "check_hostname", "ciphers", "ecdh_curve", "ssl_version"})
_OF_THE_CONNECTION: Final = frozenset({"do_handshake_on_connect", "server_hostname", "suppress_ragged_eofs"})
# All the others have a context for each connection: a program's own, those with a key and its password, and those with
# a folder of authorities, where a file may be replaced without the folder's time telling.
_SHAREABLE: Final = _OF_THE_CONTEXT | _OF_THE_CONNECTION

# Programs have few kinds of connections.
_MOST_CONTEXTS: Final = 8

# A file that was written just now may be written again with the same times and size.
_SETTLED: Final = 2.0  # seconds

# A path and what changes where the file does.
_File: TypeAlias = "tuple[Any, ...]"


def context_for(sslopt: Mapping[str, Any], option: str = "sslopt") -> ssl.SSLContext:
    """The context that `sslopt` describes, as create_context(), but maybe one that is in use already."""
    if not HAVE_SSL or not sslopt.keys() <= _SHAREABLE or os.environ.get("SSLKEYLOGFILE"):
        return create_context(sslopt, option)
    chosen = tuple(sorted(item for item in sslopt.items() if item[0] in _OF_THE_CONTEXT))
    try:
        files = _authorities(sslopt)
        hash(chosen)
    except (OSError, TypeError, ValueError):  # create_context() says what is wrong
        files = None
    return create_context(sslopt, option) if files is None else _shared(ssl.SSLContext, chosen, files, option)


@lru_cache(maxsize=_MOST_CONTEXTS)
def _shared(
    kind: type[ssl.SSLContext],  # which programs replace, to have the authorities from elsewhere
    chosen: tuple[tuple[str, Any], ...],
    files: tuple[_File, ...],
    option: str,
) -> ssl.SSLContext:
    return create_context(dict(chosen), option)


def _authorities(sslopt: Mapping[str, Any]) -> tuple[_File, ...] | None:
    """The files that create_context() would read, None where it cannot be told whether they change. Raises OSError."""
    if sslopt.get("cert_reqs") == ssl.CERT_NONE:
        return ()
    named = [path for path in (sslopt.get("ca_certs"), os.environ.get("WEBSOCKET_CLIENT_CA_BUNDLE")) if path]
    if any(map(os.path.isdir, named)):
        return None
    if not named:
        # The system's; its tools make new links in the folder, which the folder's time tells.
        paths = ssl.get_default_verify_paths()
        folders = os.environ.get(paths.openssl_capath_env, paths.openssl_capath)
        named = [os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile), *folders.split(os.pathsep)]
        named = [path for path in named if os.path.exists(path)]
    files = [_file(path) for path in named]
    settled = tuple(file for file in files if file is not None)
    return settled if len(settled) == len(files) else None


def _file(path: Any) -> _File | None:
    """None for what was changed just now. Raises OSError."""
    found = os.stat(path)
    if time.time() - max(found.st_mtime, found.st_ctime) < _SETTLED:
        return None
    return (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
