"""Every kind of SSH server that a transport must cope with, and every provider, as parameters."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster
from rain_deploy.core.machine import Host
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.providers.keys import public_key
from rain_deploy.providers.local.provider import LocalProvider
from rain_deploy.transport.ssh import SshTransport
from tests.contract.provider_cases import ProviderCase, exoscale_case, hosts_case, local_case
from tests.contract.servers import ADDRESS, Endpoint, Relay, Sshds, ThreeKeys
from tests.support.sshd import SSHD


@pytest.fixture(scope="session", params=["local", "openssh"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An SSH server that accepts one key."""
    kind, directory = request.param, tmp_path_factory.mktemp("endpoint")
    if kind == "openssh" and not SSHD.exists():
        pytest.skip(f"no {SSHD}: install openssh-server")
    with (_local if kind == "local" else _openssh)(directory) as endpoint:
        yield endpoint


@contextlib.contextmanager
def _local(home: Path) -> Iterator[Endpoint]:
    provider = LocalProvider(home)
    cluster = Cluster(
        id=f"contract-{os.getpid()}-{home.name}", name="contract", provider="local", created_s=0.0
    )
    refs = tuple(map(provider.create, provider.intents(ClusterSpec("contract", "local", ""), cluster, 1)))
    (host,) = provider.hosts(cluster, refs)
    yield Endpoint("local", host, host.host_keys)
    for ref in refs:
        provider.delete(ref)


@contextlib.contextmanager
def _openssh(directory: Path) -> Iterator[Endpoint]:
    key = directory / "id_ed25519"
    server = ThreeKeys(directory, public_key(key))
    host = Host(
        name="node-1",
        address=ADDRESS,
        port=server.port,
        user=getpass.getuser(),
        host_keys=server.host_keys("ed25519"),
        identity_files=(key,),
    )
    yield Endpoint("openssh", host, server.host_keys("rsa", "ecdsa", "ed25519"))
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
    """A transport that is closed after the test."""
    transport = SshTransport(connect_s=15.0)
    yield transport
    transport.close()


@pytest.fixture(scope="session")
def sshds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshds]:
    """Three machines that the user already has."""
    if not SSHD.exists():
        pytest.skip(f"no {SSHD}: install openssh-server")
    sshds = Sshds(tmp_path_factory.mktemp("sshds"))
    yield sshds
    sshds.close()


@pytest.fixture(params=["local", "hosts", "exoscale"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderCase]:
    """A provider and a cluster of it; what is left of it afterwards is ended."""
    if request.param == "hosts":
        case = hosts_case(tmp_path, request.getfixturevalue("sshds"))
    else:
        case = {"local": local_case, "exoscale": exoscale_case}[request.param](tmp_path)
    yield case
    case.clean()
    shutil.rmtree(tmp_path, ignore_errors=True)
