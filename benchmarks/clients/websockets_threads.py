"""The program of websockets, by its client for threads."""

from __future__ import annotations

from functools import partial

import blocking
import websockets.sync.client
from worker import Setting, main


def connect(setting: Setting) -> blocking.Connect:
    """Its fastest ordinary settings: no compression, no pings of its own, and a long queue."""
    return partial(
        websockets.sync.client.connect,
        ssl=setting.context(),
        compression=None,
        max_size=None,
        ping_interval=None,
        max_queue=(1024, 512),
        legacy=True,  # a connection, as of old; the new way is a context manager around the same
    )


if __name__ == "__main__":
    main(blocking.tasks(blocking.Library(connect)))
