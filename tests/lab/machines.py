"""The seam behind the lab's API: what an instance is made of, and who makes the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Instance:
    """What a machine is made from; ``user_data`` decoded (empty: none), keys as OpenSSH public key texts."""

    id: str
    name: str
    user_data: bytes = b""
    public_keys: tuple[str, ...] = ()


class Machines(Protocol):
    """Makes machines for instances.  Called from several threads at once, for one instance by one of them."""

    on_power_off: Callable[[str], None]
    """Set by the lab: call it with the instance's id when a machine powers itself off."""

    def create(self, instance: Instance) -> str:
        """Boot it and return its address; an OSError lets the create fail as an operation's failure."""

    def start(self, instance_id: str) -> None:
        """Boot a stopped machine again, with the same disk and address."""

    def stop(self, instance_id: str) -> None:
        """Shut it down; a stopped one is success.  ``on_power_off`` is not called for it."""

    def delete(self, instance_id: str) -> None:
        """Destroy it with its disk; an unknown one is success."""

    def running(self, instance_id: str) -> bool: ...


class NoAddressError(OSError):
    """All addresses of the pool are taken."""


def _ignore(_instance_id: str) -> None: ...


ignore_power_off: Callable[[str], None] = _ignore
"""What ``on_power_off`` is before a lab sets it."""


class NoMachines:
    """Addresses alone, running at once.  The lowest free address is given, so that a small pool recycles.

    ``network``: the first two numbers of the addresses.  ``size``: of the pool.
    """

    def __init__(self, network: str = "127.1", size: int = 250) -> None:
        self.on_power_off = ignore_power_off
        self.network = network
        self.size = size
        self._addresses: dict[str, str] = {}
        self._running: set[str] = set()
        self._lock = threading.Lock()

    def create(self, instance: Instance) -> str:
        """Give the lowest free address; NoAddressError where none is left."""
        with self._lock:
            taken = set(self._addresses.values())
            pool = (f"{self.network}.{n // 250}.{n % 250 + 1}" for n in range(self.size))
            address = next((each for each in pool if each not in taken), None)
            if address is None:
                raise NoAddressError(f"all {self.size} addresses are taken")
            self._addresses[instance.id] = address
            self._running.add(instance.id)
            return address

    def start(self, instance_id: str) -> None:
        """Run it again."""
        self._running.add(instance_id)

    def stop(self, instance_id: str) -> None:
        """Stop it."""
        self._running.discard(instance_id)

    def delete(self, instance_id: str) -> None:
        """Free its address."""
        with self._lock:
            self._running.discard(instance_id)
            self._addresses.pop(instance_id, None)

    def running(self, instance_id: str) -> bool:
        """Whether it was started last."""
        return instance_id in self._running

    def power_off(self, instance_id: str) -> None:
        """Do what the machine's own ``poweroff`` does, for tests."""
        self.stop(instance_id)
        self.on_power_off(instance_id)
