"""The generated ssh_config, as the system's own ssh reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rain_deploy.core.machine import Host, Jump
from rain_deploy.parts.access import known_hosts_text, ssh_config_text

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")

KEY, OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBB"
PLAIN = Host(
    name="node-1",
    address="192.0.2.7",
    port=2201,
    user="deb",
    host_keys=(KEY,),
    identity_files=(Path('/tmp/a b/100%h/say "key"'),),
)
BEHIND = Host(
    name="node-2",
    address="fd00::9",
    port=22,
    user="root",
    host_keys=(KEY, OTHER),
    use_agent=True,
    jumps=(Jump("bastion.example", 2222, "j", host_keys=(OTHER,)), Jump("192.0.2.1", 22, "k")),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "ssh config"
    text = ssh_config_text("ab12", (PLAIN, BEHIND), tmp_path / "known hosts")
    file.write_text(text, encoding="utf-8")
    return file


def read(config: Path, name: str) -> dict[str, str]:
    out = subprocess.run(["ssh", "-G", "-F", config, name], check=True, capture_output=True, text=True).stdout
    return dict(line.partition(" ")[::2] for line in out.splitlines())


SAFE = {
    "stricthostkeychecking": "true",
    "globalknownhostsfile": "/dev/null",
    "updatehostkeys": "false",
    "checkhostip": "no",
    "verifyhostkeydns": "false",
    "forwardagent": "no",
    "forwardx11": "no",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "permitlocalcommand": "no",
    "proxycommand": None,
    "controlmaster": "false",
}


@pytest.mark.parametrize("name", ["node-1", "node-2", "node-2-jump-1", "node-2-jump-2"])
def test_nothing_but_the_pinned_keys_is_believed(config: Path, name: str) -> None:
    read_back = read(config, name)
    assert {key: read_back.get(key) for key in SAFE} == SAFE
    assert read_back["userknownhostsfile"] == f"{config.parent}/known hosts"
    assert read_back["hostkeyalias"] == f"rain-deploy-ab12-{name}"


def test_a_node_is_reached_as_recorded(config: Path) -> None:
    read_back = read(config, "node-1")
    wanted = {
        "hostname": "192.0.2.7",
        "port": "2201",
        "user": "deb",
        "identitiesonly": "yes",
        "identityagent": "none",
        "identityfile": '/tmp/a b/100%%h/say "key"',
    }
    assert {key: read_back[key] for key in wanted} == wanted
    assert "proxyjump" not in read_back


def test_hops_are_blocks_of_their_own_with_their_own_keys(config: Path) -> None:
    assert read(config, "node-2")["proxyjump"] == "node-2-jump-1,node-2-jump-2"
    assert read(config, "node-2")["identitiesonly"] == "no"
    first = read(config, "node-2-jump-1")
    assert (first["hostname"], first["port"], first["user"]) == ("bastion.example", "2222", "j")
    assert known_hosts_text("ab12", (PLAIN, BEHIND)).splitlines() == [
        f"rain-deploy-ab12-node-1 {KEY}",
        f"rain-deploy-ab12-node-2 {KEY}",
        f"rain-deploy-ab12-node-2 {OTHER}",
        f"rain-deploy-ab12-node-2-jump-1 {OTHER}",
    ]
