"""What the lab's own tests share: a lab, and the real SDK pointed at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from exoscale.api.v2 import Client

from tests.lab.lab import PUBLIC_KEY, Lab
from tests.lab.light import LightMachines
from tests.lab.log import Request
from tests.lab.machines import NoMachines
from tests.lab.signature import SCHEME, sign
from tests.local.command_line import CommandLine
from tests.support.waiting import LONG_S

SSH_PORT = 7033
FIRST_UP_S = 570.0


class Account:
    """The SDK's client, unmodified, with short ways to what most tests need."""

    def __init__(self, lab: Lab, url: str = "") -> None:
        self.lab = lab
        self.client: Any = Client(lab.key, lab.secret, url=url or lab.url)

    def wait(self, operation: dict[str, Any]) -> dict[str, Any]:
        """Poll until it is not pending."""
        deadline_s = time.monotonic() + LONG_S
        while operation["state"] == "pending":
            assert time.monotonic() < deadline_s, operation
            time.sleep(0.01)
            operation = self.client.get_operation(id=operation["id"])
        return operation

    def request(self, name: str = "node-1", **changes: Any) -> dict[str, Any]:
        """Arguments of a create that is accepted."""
        types = self.client.list_instance_types()["instance-types"]
        medium = next(each["id"] for each in types if each["size"] == "medium")
        template = self.client.list_templates()["templates"][0]["id"]
        base = {"name": name, "disk_size": 20, "instance_type": {"id": medium}, "template": {"id": template}}
        return base | changes

    def create(self, name: str = "node-1", **changes: Any) -> str:
        """Create an instance, wait for it, return its id."""
        operation = self.client.create_instance(**self.request(name, **changes))
        assert self.wait(operation)["state"] == "success"
        return str(operation["reference"]["id"])

    def group(self, name: str = "rain") -> str:
        """Create a security group and return its id."""
        operation = self.client.create_security_group(name=name)
        self.wait(operation)
        return str(operation["reference"]["id"])

    def key(self, name: str = "k1") -> str:
        """Register a key and return its name."""
        self.client.register_ssh_key(name=name, public_key=PUBLIC_KEY)
        return name


def ask(lab: Lab, method: str, path: str, body: bytes = b"") -> requests.Response:
    """Send what no client sends, well signed; ``path`` without a query."""
    expires_s = int(time.time()) + 600
    text = sign(lab.secret, Request(method, path, "", {}, body, ""), (), expires_s)
    header = f"{SCHEME}credential={lab.key},expires={expires_s},signature={text}"
    url = lab.url.removesuffix("/v2") + path
    return requests.request(method, url, data=body, headers={"Authorization": header}, timeout=LONG_S)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(NoMachines("127.1"), latency_s=0.02) as running:
        yield running


@pytest.fixture
def account(lab: Lab) -> Account:
    return Account(lab)


@pytest.fixture
def light_machines(tmp_path: Path, test_cache: Path) -> Iterator[LightMachines]:
    """Machines that accept SSH, which share the engine and environment of all tests."""
    machines = LightMachines(tmp_path / "lab", port=SSH_PORT, size=8, cache=test_cache / "local/cache")
    yield machines
    machines.close()


@pytest.fixture
def light_lab(light_machines: LightMachines) -> Iterator[Lab]:
    with Lab(light_machines, ssh_port=SSH_PORT, latency_s=0.1) as running:
        yield running


@pytest.fixture
def user(light_lab: Lab, tmp_path: Path, test_cache: Path) -> CommandLine:
    """Somebody with an account, and a home in which an engine is cached."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "cache").symlink_to(test_cache / "cache")
    return CommandLine(home, tmp_path, env=tuple(light_lab.environ().items()))
