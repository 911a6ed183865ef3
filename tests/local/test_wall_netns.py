"""The wall on real packet filters: machines are network namespaces, and a foreign one tries to get in."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain_deploy.core.layout import Layout
from rain_deploy.core.step import Stage, Step
from rain_deploy.parts.shell import stage_command
from rain_deploy.parts.wall import wall_removal_step, wall_steps

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("nft", "ip"))),
        reason="needs nftables and iproute2: apt-get install nftables",
    ),
]

ADDRESSES = {
    "a": ("10.108.0.1", "fd00:108::1"),
    "b": ("10.108.0.2", "fd00:108::2"),
    "x": ("10.108.0.9", "fd00:108::9"),
}
REACHED = {**ADDRESSES, "loopback": ("127.0.0.1", "::1")}
RAIN = (7210, 7222, 7230, 7299, 7301, 7302)
"""Idle server, dashboard, first and last of the runs, both governors."""
OTHERS = (22, 7303, 8080)
"""What stays open: SSH, a port above our governors', a service of the machine."""
BOTH = {"node-1": ADDRESSES["a"][0], "node-2": ADDRESSES["b"][0]}
OWN = """\
table inet own {
	chain input {
		type filter hook input priority -400; policy accept;
		tcp dport 7210 accept
		tcp dport 9999 drop
	}
	chain redirected {
		type nat hook prerouting priority -100;
		tcp dport 8081 redirect to :7210
	}
}
"""
LISTEN = """
import json, socket, sys
dual = {"family": socket.AF_INET6, "dualstack_ipv6": True}
held = [socket.create_server(("::", port), **dual) for port in json.loads(sys.argv[1])]
print("ready", flush=True)
sys.stdin.read()
"""
DIAL = """
import concurrent.futures, json, socket, sys
def open_(target):
    try:
        socket.create_connection(target, timeout=0.7).close()
    except OSError:
        return None
    return target
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps([found for found in pool.map(open_, targets) if found]))
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """A network namespace with a directory of its own for files of ours."""

    namespace: str
    base: Path

    def run(self, *argv: str, stdin: str = "") -> str:
        command = ("ip", "netns", "exec", self.namespace, *argv)
        done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *steps: Step) -> list[str]:
        """Outcomes of the steps (the package nftables, then the table), run as a stage of the product is."""
        out = self.run(*stage_command(Stage("wall", steps), str(self.base)).argv)
        lines = [line[1:].split("\t") for line in out.split("\n") if line.startswith("\x1e")]
        return [outcome for _, outcome in lines if outcome != "started"]

    def rules(self, *of: str) -> str:
        return self.run("nft", "list", *(of or ("ruleset",)))

    def reaches(self, name: str, ports: tuple[int, ...]) -> set[int]:
        """Ports of machine ``name`` that answer here, over IPv4 or IPv6."""
        targets = [(address, port) for address in REACHED[name] for port in ports]
        return {port for _, port in json.loads(self.run(sys.executable, "-c", DIAL, json.dumps(targets)))}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    """Machines a and b of a cluster and a foreign x on one bridge; all is gone afterwards."""
    prefix = f"rd108-{os.getpid()}"
    made: list[str] = []
    listeners: list[subprocess.Popen[str]] = []

    def ip(*argv: str) -> None:
        subprocess.run(("ip", *argv), check=True, capture_output=True, timeout=30)

    def namespace(name: str) -> str:
        ip("netns", "add", f"{prefix}-{name}")
        made.append(f"{prefix}-{name}")
        return made[-1]

    try:
        # The bridge has a namespace too, so the machine that tests keeps its links and rules.
        bridge = namespace("net")
        ip("-n", bridge, "link", "add", "name", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        machines = {}
        for name, (v4, v6) in ADDRESSES.items():
            machines[name] = Machine(namespace(name), tmp_path / name)
            own = machines[name].namespace
            ip("-n", own, "link", "add", "eth", "type", "veth", "peer", "name", name, "netns", bridge)
            ip("-n", own, "addr", "add", f"{v4}/24", "dev", "eth")
            ip("-n", own, "addr", "add", f"{v6}/64", "dev", "eth", "nodad")
            for device in ("eth", "lo"):
                ip("-n", own, "link", "set", "dev", device, "up")
            ip("-n", bridge, "link", "set", "dev", name, "master", "br0", "up")
        listeners.extend(listen(machines[name]) for name in "ab")
        yield machines
    finally:
        for listener in listeners:
            listener.kill()
            listener.communicate()
        for name in reversed(made):
            subprocess.run(("ip", "netns", "del", name), check=False, timeout=30)


def listen(machine: Machine) -> subprocess.Popen[str]:
    command = (
        "ip",
        "netns",
        "exec",
        machine.namespace,
        sys.executable,
        "-c",
        LISTEN,
        json.dumps(RAIN + OTHERS),
    )
    listener = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    return listener


def wall(machine: Machine, addresses: dict[str, str]) -> tuple[Step, ...]:
    return wall_steps(Layout(str(machine.base), "ab12"), addresses)


def test_only_the_cluster_reaches_its_ports(net: dict[str, Machine]) -> None:
    everything = set(RAIN + OTHERS)
    assert net["x"].reaches("a", RAIN + OTHERS) == everything, "the test must be able to see an open port"
    for name in "ab":
        assert net[name].apply(*wall(net[name], BOTH)) == ["unchanged", "done"]
    for name in "ab":
        assert net["x"].reaches(name, RAIN + OTHERS) == set(OTHERS)
        assert net["a"].reaches(name, RAIN + OTHERS) == everything
        assert net["b"].reaches(name, RAIN + OTHERS) == everything
        assert net[name].reaches("loopback", RAIN + OTHERS) == everything


def test_the_wall_holds_beside_the_machine_s_own_rules_which_stay_as_they_were(
    net: dict[str, Machine],
) -> None:
    a, x = net["a"], net["x"]
    a.run("nft", "-f", "-", stdin=OWN)
    before = a.rules()
    assert x.reaches("a", (7210, 8081)) == {7210, 8081}
    a.apply(*wall(a, BOTH))
    # Neither what accepts before us nor what leads to us from another port opens the wall.
    assert x.reaches("a", (7210, 8081)) == set()
    assert net["b"].reaches("a", (7210,)) == {7210}
    assert a.rules("table", "inet", "own") == before.rstrip("\n") + "\n"
    assert a.apply(wall_removal_step("ab12")) == ["done"]
    assert a.rules() == before
    assert a.apply(wall_removal_step("ab12")) == ["unchanged"]


def test_a_second_up_changes_nothing_and_repairs_what_was_changed(net: dict[str, Machine]) -> None:
    a = net["a"]
    steps = wall(a, BOTH)
    assert a.apply(*steps) == ["unchanged", "done"]
    fresh = a.rules()
    assert a.apply(*steps) == ["unchanged", "unchanged"]
    a.run("nft", "insert", "rule", "inet", "rain_deploy_ab12", "input", "accept")
    assert net["x"].reaches("a", (7210,)) == {7210}
    assert a.apply(*steps) == ["unchanged", "done"]
    assert a.rules() == fresh
    a.run("nft", "flush", "ruleset")
    assert a.apply(*steps) == ["unchanged", "done"]
    assert a.rules() == fresh


def test_growing_lets_the_new_machine_in_and_two_clusters_do_not_mix(net: dict[str, Machine]) -> None:
    a, x = net["a"], net["x"]
    other = wall_steps(Layout(str(a.base), "cd34"), {"node-1": ADDRESSES["a"][0]})
    a.apply(*wall(a, BOTH))
    assert x.reaches("a", (7210, 7301)) == set()
    assert a.apply(*wall(a, {**BOTH, "node-3": ADDRESSES["x"][0]})) == ["unchanged", "done"]
    assert x.reaches("a", (7210, 7301)) == {7210, 7301}
    a.apply(*other)
    both = a.rules()
    assert a.apply(wall_removal_step("cd34")) == ["done"]
    assert "rain_deploy_cd34" in both
    assert "rain_deploy_ab12" in a.rules()
    assert "rain_deploy_cd34" not in a.rules()


def test_addresses_of_ipv6_are_let_in(net: dict[str, Machine]) -> None:
    a = net["a"]
    a.apply(*wall(a, {"node-1": ADDRESSES["a"][1], "node-2": ADDRESSES["b"][1]}))
    assert net["b"].reaches("a", (7210, 7222)) == {7210, 7222}
    assert net["x"].reaches("a", (7210, 7222)) == set()
    assert a.reaches("a", (7210,)) == {7210}


def test_a_connection_of_a_stranger_that_is_open_already_is_cut(net: dict[str, Machine]) -> None:
    a, x = net["a"], net["x"]
    a.run("nft", "-f", "-", stdin=OWN)  # its nat has the kernel track connections from the start
    talk = f"""
import socket, sys
peer = socket.create_connection(("{ADDRESSES["a"][0]}", 7210), timeout=5)
print("in", flush=True)
sys.stdin.readline()
peer.sendall(b"pickle")
sys.stdin.readline()
print(sum(row.split()[4].split(":")[0] != "00000000" for row in open("/proc/net/tcp").readlines()[1:]))
"""
    command = ("ip", "netns", "exec", x.namespace, sys.executable, "-c", talk)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        try:
            assert stranger.stdout.readline() == "in\n"
            a.apply(*wall(a, BOTH))
            stranger.stdin.write("\n")
            stranger.stdin.flush()
            time.sleep(0.5)
            stranger.stdin.write("\n")
            stranger.stdin.flush()
            assert stranger.stdout.readline() == "1\n", "what it sent must stay unacknowledged"
        finally:
            stranger.kill()
