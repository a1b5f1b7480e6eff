"""The functions that every message goes through: those of _speedups.c where the install has built it, else _pure.py's.

WEBSOCKET_NO_SPEEDUPS in the environment, set to something other than 0 when the package is imported, chooses Python.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["HAS_SPEEDUPS", "apply_mask", "encode_frame", "new_payload", "take_plain_frames"]


def _are_refused() -> bool:
    return os.environ.get("WEBSOCKET_NO_SPEEDUPS", "0") not in ("", "0")


try:
    if _are_refused():
        raise ImportError("WEBSOCKET_NO_SPEEDUPS is set")
    from ._speedups import apply_mask, encode_frame, new_payload, take_plain_frames
except ImportError:  # or there was no compiler
    from ._pure import apply_mask, encode_frame, new_payload, take_plain_frames

# Whether they are C's.
HAS_SPEEDUPS: Final = apply_mask.__module__ != "websocket._pure"
