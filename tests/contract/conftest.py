"""Every kind of SSH server that a transport must cope with, and every provider, as parameters."""

from __future__ import annotations

import contextlib
import getpass
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.core.model import Cluster, Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.providers.local import LocalProvider
from rain_deploy.providers.local_keys import public_key
from rain_deploy.transport.ssh import SshTransport
from tests.contract.provider_cases import ProviderCase
from tests.contract.servers import ADDRESS, SSHD, Endpoint, OpenSshd, Relay


@pytest.fixture(scope="session", params=["local", "openssh"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An SSH server that accepts one key."""
    kind, directory = request.param, tmp_path_factory.mktemp("endpoint")
    if kind == "openssh" and not SSHD.exists():
        pytest.skip(f"no {SSHD}: install openssh-server")
    with (_local if kind == "local" else _openssh)(directory) as host:
        yield Endpoint(kind, host)


@contextlib.contextmanager
def _local(home: Path) -> Iterator[Host]:
    provider = LocalProvider(home)
    cluster = Cluster(id=f"contract-{home.name}", name="contract", provider="local", created_s=0.0)
    refs = tuple(map(provider.create, provider.intents(ClusterSpec("contract", "local", ""), cluster, 1)))
    yield provider.hosts(cluster, refs)[0]
    for ref in refs:
        provider.delete(ref)


@contextlib.contextmanager
def _openssh(directory: Path) -> Iterator[Host]:
    key = directory / "id_ed25519"
    server = OpenSshd(directory, public_key(key))
    yield Host(
        name="node-1",
        address=ADDRESS,
        port=server.port,
        user=getpass.getuser(),
        host_keys=server.host_keys("ed25519"),
        identity_files=(key,),
    )
    server.close()


@pytest.fixture
def relays(endpoint: Endpoint) -> Iterator[Callable[[], Relay]]:
    """Makes relays to the endpoint."""
    made: list[Relay] = []

    def make() -> Relay:
        made.append(Relay((endpoint.host.address, endpoint.host.port)))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


@pytest.fixture
def relay(relays: Callable[[], Relay]) -> Relay:
    """One relay to the endpoint."""
    return relays()


@pytest.fixture
def transport() -> Iterator[SshTransport]:
    """A transport with a short patience for logins."""
    transport = SshTransport(connect_s=5.0)
    yield transport
    transport.close()


@pytest.fixture(params=["local", "hosts"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderCase]:
    """A provider and a cluster of it; what is left of it afterwards is ended."""
    case = ProviderCase.named(request.param, tmp_path)
    yield case
    case.clean()
    shutil.rmtree(tmp_path, ignore_errors=True)
