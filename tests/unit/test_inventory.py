"""``inventory``: what Ansible gets to know of the recorded clusters."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rain_deploy.cli.main import root
from rain_deploy.cli.session import Application
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.core.machine import Host, Jump
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.state.store import Store

JUMP = Jump("203.0.113.9", 22, "gate", (Path("/keys/gate"),), ("ssh-ed25519 JUMP",))


def node(index: int, **more: Any) -> Node:
    name = f"node-{index}"
    host = Host(name, f"192.0.2.{index}", 2200, "ann", ("ssh-ed25519 KEY",), identity_files=(Path("/a key"),))
    host = dataclasses.replace(host, **more)
    facts = dataclasses.replace(DEBIAN_12, python="/usr/bin/python3.11")
    return Node(name, host, facts, host.address, 7300 + index, 2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clusters: one of two nodes, one behind a jump host, and one whose ``up`` has not ended."""
    tmp_path = tmp_path / "my 50%"
    tmp_path.mkdir()
    monkeypatch.setenv("RAIN_DEPLOY_HOME", str(tmp_path))
    store = Store(tmp_path)
    store.save_cluster(Cluster("aa11", "default", "hosts", 1.8e9, (node(1), node(2)), base="/b", up=True))
    behind = node(1, jumps=(JUMP,), identity_files=(), use_agent=True)
    store.save_cluster(Cluster("bb22", "far-away", "hosts", 1.8e9, (behind,), base="/b", up=True))
    store.save_cluster(Cluster("cc33", "half", "hosts", 1.8e9, (node(1),), base="/b"))
    return tmp_path


def told(*words: str) -> Any:
    result = CliRunner().invoke(root, ["inventory", *words], obj=Application())
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def options(variables: dict[str, Any]) -> list[str]:
    config, none, *words = shlex.split(variables["ansible_ssh_common_args"])
    assert (config, none, set(words[::2])) == ("-F", "/dev/null", {"-o"})
    return words[1::2]


def test_groups_are_clusters_and_roles_and_only_what_is_up(home: Path) -> None:
    listed = told("--list")
    assert listed["rain"] == {"children": ["cluster_default", "cluster_far_away"]}
    assert listed["cluster_default"] == {"hosts": ["default-node-1", "default-node-2"]}
    assert listed["cluster_far_away"] == {"hosts": ["far-away-node-1"]}
    assert listed["rain_servers"] == {"hosts": ["default-node-1", "far-away-node-1"]}
    assert len(listed["rain_governors"]["hosts"]) == 3
    assert list(listed["_meta"]["hostvars"]) == ["default-node-1", "default-node-2", "far-away-node-1"]


def test_a_host_is_reached_with_its_key_and_only_if_it_has_the_recorded_host_key(home: Path) -> None:
    variables = told("--host", "default-node-2")
    assert variables == told()["_meta"]["hostvars"]["default-node-2"]
    assert variables["ansible_host"] == "192.0.2.2"
    assert (variables["ansible_port"], variables["ansible_user"]) == (2200, "ann")
    assert variables["ansible_ssh_private_key_file"] == "/a key"
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3.11"
    known_hosts = home / "clusters/aa11/known_hosts"
    assert "rain-deploy-aa11-node-2 ssh-ed25519 KEY\n" in known_hosts.read_text()
    given = options(variables)
    assert f'UserKnownHostsFile="{known_hosts}"'.replace("50%", "50%%") in given
    assert {"StrictHostKeyChecking=yes", "HostKeyAlias=rain-deploy-aa11-node-2"} <= set(given)


def test_a_host_behind_a_jump_host_is_reached_through_it(home: Path) -> None:
    variables = told("--host", "far-away-node-1")
    assert "ansible_ssh_private_key_file" not in variables
    (proxy,) = (option for option in options(variables) if option.startswith("ProxyCommand="))
    config = home / "clusters/bb22/ssh_config"
    assert proxy == f"ProxyCommand=ssh -F '{config}' -W '[%h]:%p' node-1-jump-1".replace("50%", "50%%")
    assert "Host node-1-jump-1\n  HostName 203.0.113.9\n" in config.read_text()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")
@pytest.mark.parametrize("host", ["default-node-1", "far-away-node-1"])
def test_openssh_reads_the_options_as_they_are_meant(home: Path, host: str) -> None:
    variables = told("--host", host)
    words = ("ssh", *shlex.split(variables["ansible_ssh_common_args"]), "-G", variables["ansible_host"])
    read = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    known_hosts = home / "clusters" / ("aa11" if host.startswith("default") else "bb22") / "known_hosts"
    assert f"userknownhostsfile {known_hosts}" in read.replace("%%", "%").replace('"', "")


def test_machines_at_one_address_never_share_a_connection(home: Path) -> None:
    variables = told()["_meta"]["hostvars"].values()
    assert len({each["ansible_control_path"] for each in variables}) == 3


def test_a_host_that_is_not_there_is_an_error_that_names_those_that_are(home: Path) -> None:
    result = CliRunner().invoke(root, ["inventory", "--host", "node-1"], obj=Application())
    assert result.exit_code == 10
    assert "default-node-1, default-node-2, far-away-node-1" in result.output


def test_without_a_cluster_the_inventory_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAIN_DEPLOY_HOME", str(tmp_path / "none"))
    assert told("--list")["rain"] == {"children": []}
