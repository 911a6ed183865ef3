"""Machines of the user: taken by list or by name, believed only with a known key, never touched."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host, Machines
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import HostKeyError, InputError, StateError
from rain_deploy.providers.hosts.provider import HostsProvider

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")

CLUSTER = Cluster(id="ab12", name="default", provider="hosts", created_s=0.0)
SPEC = ClusterSpec(name="default", provider="hosts", provider_reason="")
KEYS = tuple(f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "ABC")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").touch()
    return tmp_path


def know(home: Path, *lines: str) -> None:
    (home / ".ssh" / "known_hosts").write_text("\n".join((*lines, "")), encoding="utf-8")


def made(provider: HostsProvider, spec: ClusterSpec, nodes: int) -> tuple[Host, ...]:
    refs = tuple(map(provider.create, provider.intents(spec, CLUSTER, nodes)))
    return provider.hosts(CLUSTER, tuple(reversed(refs)))


def test_preflight_passes_machines_with_known_keys(home: Path) -> None:
    know(home, f"127.108.0.1 {KEYS[0]}", f"[127.108.0.2]:2201 {KEYS[1]}")
    spec = dataclasses.replace(
        SPEC, machines=Machines(hosts=("a@127.108.0.1", "a@127.108.0.2:2201")), nodes=2
    )
    assert len(HostsProvider(user_home=home).preflight(spec)) == 1


@pytest.mark.parametrize(
    ("entry", "command"),
    [
        ("a@127.108.0.1", "ssh -l a 127.108.0.1"),
        ("a@127.108.0.1:2201", "ssh -p 2201 -l a 127.108.0.1"),
        ("box", "ssh box"),
    ],
)
def test_an_unknown_key_says_what_to_type_once(home: Path, entry: str, command: str) -> None:
    (home / ".ssh" / "config").write_text("Host box\n  HostName 127.108.0.1\n", encoding="utf-8")
    know(home, f"127.108.0.9 {KEYS[0]}")
    with pytest.raises(HostKeyError, match=entry) as caught:
        HostsProvider(user_home=home).preflight(dataclasses.replace(SPEC, machines=Machines(hosts=(entry,))))
    assert f"`{command}`" in (caught.value.next_step or "")


def test_a_jump_host_must_be_known_too(home: Path) -> None:
    config = "Host box\n  ProxyJump a@127.108.0.5\n  HostName inner.invalid\n"
    (home / ".ssh" / "config").write_text(config, encoding="utf-8")
    provider, spec = (
        HostsProvider(user_home=home),
        dataclasses.replace(SPEC, machines=Machines(hosts=("box",))),
    )
    know(home, f"inner.invalid {KEYS[0]}")
    with pytest.raises(HostKeyError, match=r"box.*jump host 127\.108\.0\.5") as caught:
        provider.preflight(spec)
    assert "ssh -l a 127.108.0.5" in (caught.value.next_step or "")
    know(home, f"inner.invalid {KEYS[0]}", f"127.108.0.5 {KEYS[1]}")
    # The name behind the jump resolves there, not here.
    provider.preflight(spec)
    (host,) = made(provider, spec, 1)
    assert host.host_keys == (KEYS[0],)
    assert [(hop.address, hop.user, hop.host_keys) for hop in host.jumps] == [
        ("127.108.0.5", "a", (KEYS[1],))
    ]


def test_without_a_known_key_a_host_accepts_none(home: Path) -> None:
    (host,) = made(
        HostsProvider(user_home=home), dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.1",))), 1
    )
    assert host.host_keys == ()


def test_a_host_key_file_replaces_what_the_user_knows(home: Path, tmp_path: Path) -> None:
    know(home, f"127.108.0.1 {KEYS[0]}", f"127.108.0.2 {KEYS[0]}")
    file = tmp_path / "keys"
    file.write_text(f"127.108.0.1 {KEYS[1]}\n", encoding="utf-8")
    provider = HostsProvider(user_home=home)
    spec = dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.1", "127.108.0.2")), host_keys=file)
    assert [host.host_keys for host in made(provider, spec, 2)] == [(KEYS[1],), ()]
    with pytest.raises(HostKeyError, match=str(file)):
        provider.preflight(dataclasses.replace(spec, nodes=2))
    file.write_text(f"{KEYS[2]} root@box\n", encoding="utf-8")
    assert [host.host_keys for host in made(provider, spec, 2)] == [(KEYS[2],)] * 2


@pytest.mark.parametrize(
    ("hosts", "nodes", "message"),
    [
        ((), None, "no machine is named"),
        (("127.108.0.1",), 2, "2 nodes asked for, but --hosts names 1"),
        (("nowhere.invalid",), 1, r"nowhere\.invalid' *: .*does not resolve"),
        (("root@127.108.0.1", "twin"), 2, r"'root@127\.108\.0\.1' and 'twin' are the same"),
        (("127.108.0.1", "-oProxyCommand=id"), 2, "-oProxyCommand"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    home: Path, hosts: tuple[str, ...], nodes: int | None, message: str
) -> None:
    (home / ".ssh" / "config").write_text(
        "Host twin\n  HostName 127.108.0.1\n  User root\n", encoding="utf-8"
    )
    know(home, f"* {KEYS[0]}")
    with pytest.raises(InputError, match=message):
        HostsProvider(user_home=home).preflight(
            dataclasses.replace(SPEC, machines=Machines(hosts=hosts), nodes=nodes)
        )


@pytest.mark.parametrize("address", ["h2.example", "::", "fe80::1", "224.0.0.1", "10.0.0.300"])
def test_a_cluster_address_must_be_one(home: Path, address: str) -> None:
    know(home, f"* {KEYS[0]}")
    spec = dataclasses.replace(
        SPEC,
        machines=Machines(hosts=("127.108.0.1",), host_addresses=(("127.108.0.1", address),)),
    )
    with pytest.raises(InputError, match=address):
        HostsProvider(user_home=home).preflight(spec)


def test_fewer_nodes_than_entries_take_the_first(home: Path) -> None:
    spec = dataclasses.replace(
        SPEC,
        machines=Machines(
            hosts=("127.108.0.3", "127.108.0.1", "127.108.0.2"),
            host_addresses=(("127.108.0.1", "10.0.0.1"),),
        ),
    )
    hosts = made(HostsProvider(user_home=home), spec, 2)
    assert [(host.name, host.label, host.cluster_address) for host in hosts] == [
        ("node-1", "127.108.0.3", None),
        ("node-2", "127.108.0.1", "10.0.0.1"),
    ]


def test_a_living_cluster_does_not_follow_a_changed_configuration(home: Path) -> None:
    config, key = home / ".ssh" / "config", home / "key"
    key.touch()
    config.write_text(
        f"Host box\n  HostName 127.108.0.1\n  IdentityFile {key}\n  ProxyJump hop\n", encoding="utf-8"
    )
    know(home, f"127.108.0.1 {KEYS[0]}", f"hop {KEYS[1]}")
    refs = tuple(
        map(
            HostsProvider(user_home=home).create,
            HostsProvider(user_home=home).intents(
                dataclasses.replace(SPEC, machines=Machines(hosts=("box",))), CLUSTER, 1
            ),
        )
    )
    config.write_text("Host box\n  HostName 127.108.0.66\n", encoding="utf-8")
    know(home, f"127.108.0.66 {KEYS[2]}")
    (host,) = HostsProvider(user_home=home).hosts(CLUSTER, refs)
    assert (host.address, host.host_keys, host.identity_files) == ("127.108.0.1", (KEYS[0],), (key,))
    assert host.jumps[0].host_keys == (KEYS[1],)


def test_other_machines_in_front_of_a_living_cluster_are_refused(home: Path) -> None:
    node = Node("node-1", Host("node-1", "127.108.0.1", 22, "root", (KEYS[0],), label="127.108.0.1"))
    living = dataclasses.replace(CLUSTER, nodes=(node,))
    provider = HostsProvider(user_home=home)
    with pytest.raises(InputError, match=r"node-1 of cluster default is 127\.108\.0\.1"):
        provider.intents(
            dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.2", "127.108.0.1"))), living, 2
        )
    grown = provider.intents(
        dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.1", "127.108.0.2"))), living, 2
    )
    (first,) = provider.intents(SPEC, living, 1)
    assert (grown[0].name, grown[0].entry) == (first.name, first.entry)


def test_a_record_that_is_not_ours_is_an_error_of_state(home: Path) -> None:
    provider = HostsProvider(user_home=home)
    ref = provider.create(
        provider.intents(dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.1",))), CLUSTER, 1)[0]
    )
    for text in ("{", "[]", "{}", '{"jumps": 1}', '{"jumps": [], "surprise": 1}'):
        with pytest.raises(StateError, match="node-1"):
            provider.hosts(CLUSTER, (dataclasses.replace(ref, ref=text),))


def test_planning_opens_no_socket(home: Path) -> None:
    child = f"""
import sys
from pathlib import Path
sys.addaudithook(lambda event, _: event.startswith("socket.") and sys.exit(event))
from tests.unit.test_hosts import made
from rain_deploy.providers.hosts.provider import HostsProvider
from tests.support.values import cluster_spec
spec = cluster_spec("default", "hosts", hosts=("nowhere.invalid",))
made(HostsProvider(user_home=Path({str(home)!r})), spec, 1)
print("planned")
"""
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", child], cwd=root, check=False, capture_output=True, text=True)
    assert (out.stdout, out.stderr) == ("planned\n", "")


def test_no_ssh_here_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(InputError, match="ssh is not installed") as caught:
        HostsProvider(user_home=home).preflight(
            dataclasses.replace(SPEC, machines=Machines(hosts=("127.108.0.1",)))
        )
    assert caught.value.next_step
