"""Addresses and ports of this machine."""

from __future__ import annotations

import contextlib
import os
import socket

from tests.support.waiting import wait_for

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""The number of this process among those that run tests side by side."""


def free_port(address: str) -> int:
    """Return a port at the address at which nothing listens."""
    (port,) = free_ports(address, 1)
    return port


def free_ports(address: str, count: int) -> list[int]:
    """Return different ports at the address at which nothing listens."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((address, 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_for_port(address: str, port: int) -> None:
    """Wait until something listens there."""

    def listens() -> bool:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_for(listens, describe=lambda: f"{address}:{port} listens")
