"""Addresses and ports of this machine."""

from __future__ import annotations

import os
import socket

from tests.support.waiting import wait_for

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""The number of this process among those that run tests side by side."""


def free_port(address: str) -> int:
    """Return a port at the address at which nothing listens."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(address: str, port: int) -> None:
    """Wait until something listens there."""

    def listens() -> bool:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_for(listens, 10, lambda: f"{address}:{port} listens")
