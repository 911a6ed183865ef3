"""Whether somebody listens at an address."""

from __future__ import annotations

import socket


def answers(address: str, port: int, *, timeout_s: float = 0.5) -> bool:
    """True when a TCP connection is accepted; nothing is sent."""
    try:
        socket.create_connection((address, port), timeout_s).close()
    except OSError:
        return False
    return True
