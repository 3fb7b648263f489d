"""No look-up of names for the addresses of peers.

torch names the peer of every connection of its stores in its log, and asks DNS for that name (2.13,
`socket.cpp`). Where nobody answers that costs each process 10 s, at the first weight sync. There is
no switch, but after one failure torch asks no more in that process: so it is made to fail once,
at once, on an address of this machine that has no name.
"""

from __future__ import annotations

import os
import socket
import threading
from functools import cache
from typing import Any

import torch.distributed

NAMELESS = "127.84.17.3"
NO_ATTEMPT = "attempts:0"
"""Of glibc's resolver, read when a thread first uses it: it answers that it could not, at once."""

# torch.distributed is not fully typed.
_dist: Any = torch.distributed


@cache
def leave_out() -> None:
    """From here on torch asks for no names in this process. Once is enough; safe to repeat."""
    try:
        listener = socket.create_server((NAMELESS, 0))
    except OSError:  # a system that has no such address: torch looks up as ever
        return
    thread = threading.Thread(target=_fail, args=(listener,), name="lookups")
    before = os.environ.get("RES_OPTIONS")
    os.environ["RES_OPTIONS"] = NO_ATTEMPT
    try:
        thread.start()
        thread.join()
    finally:
        if before is None:
            del os.environ["RES_OPTIONS"]
        else:
            os.environ["RES_OPTIONS"] = before


def _fail(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    _dist.TCPStore(
        NAMELESS, port, 1, True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
