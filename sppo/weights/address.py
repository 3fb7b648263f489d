"""By which address this machine is met by another."""

from __future__ import annotations

import socket


def towards(host: str, port: int) -> str:
    """This machine's address on the way to `host`; nothing is sent. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])
