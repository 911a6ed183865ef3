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

    def create(self, instance: Instance) -> str: ...  # boots it, returns its address; OSError: it fails

    def start(self, instance_id: str) -> None: ...  # boots it again, with the same disk and address

    def stop(self, instance_id: str) -> None: ...  # shuts it down, without a call of ``on_power_off``

    def delete(self, instance_id: str) -> None: ...  # destroys it with its disk; an unknown one is success

    def running(self, instance_id: str) -> bool: ...


class NoAddressError(OSError):
    """All addresses of the pool are taken."""


def _ignore(_instance_id: str) -> None: ...


ignore_power_off: Callable[[str], None] = _ignore
"""What ``on_power_off`` is before a lab sets it."""


class NoMachines:
    """Addresses alone, of ``network`` (its first two numbers); the lowest free of ``size`` is given."""

    def __init__(self, network: str = "127.1", size: int = 250) -> None:
        self.on_power_off = ignore_power_off
        self.network = network
        self.size = size
        self._addresses: dict[str, str] = {}
        self._running: set[str] = set()
        self._lock = threading.Lock()

    def create(self, instance: Instance) -> str:
        with self._lock:
            pool = (f"{self.network}.{n // 250}.{n % 250 + 1}" for n in range(self.size))
            address = next((each for each in pool if each not in self._addresses.values()), None)
            if address is None:
                raise NoAddressError(f"all {self.size} addresses are taken")
            self._addresses[instance.id] = address
            self._running.add(instance.id)
            return address

    def start(self, instance_id: str) -> None:
        self._running.add(instance_id)

    def stop(self, instance_id: str) -> None:
        self._running.discard(instance_id)

    def delete(self, instance_id: str) -> None:
        with self._lock:
            self._running.discard(instance_id)
            self._addresses.pop(instance_id, None)

    def running(self, instance_id: str) -> bool:
        return instance_id in self._running

    def power_off(self, instance_id: str) -> None:
        """Do what the machine's own ``poweroff`` does, for tests."""
        self.stop(instance_id)
        self.on_power_off(instance_id)
