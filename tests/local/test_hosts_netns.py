"""``hosts`` on machines with networks of their own: nobody but the cluster ever reaches a Rain port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain_deploy.providers.hosts.openssh_config import SSH_PORT
from rain_deploy.providers.keys import public_key
from tests.local.command_line import LocalCluster
from tests.local.conftest import MakeHome
from tests.local.machines import Machine, User, filled, needs_machines, network, started
from tests.local.scripts import SQUARES, WAITS
from tests.local.test_wall_netns import DIAL, OWN
from tests.local.test_wall_netns import pytestmark as needs_filters
from tests.support.waiting import LONG_S, wait_for

pytestmark = [*needs_machines, *needs_filters]

ADDRESSES = {"a": "10.202.0.1", "b": "10.202.0.2", "laptop": "10.202.0.8", "x": "10.202.0.9"}
RAIN = (7210, 7222, *range(7230, 7300), 7301, 7302)
NETWORK = f"rd202-{os.getpid()}"
WATCH = """
import json, select, socket, sys, time
targets = [tuple(target) for target in json.loads(sys.argv[1])]
print("watching", flush=True)
sweeps, answered = 0, {}
while not select.select([sys.stdin], [], [], 0.05)[0]:
    dials = {}
    poll = select.poll()
    for target in targets:
        dial = socket.socket()
        dial.setblocking(False)
        dial.connect_ex(target)
        poll.register(dial, select.POLLOUT)
        dials[dial.fileno()] = dial, target
    until = time.monotonic() + 0.25
    while dials and (ready := poll.poll(max(0.0, until - time.monotonic()) * 1000)):
        for number, _ in ready:
            poll.unregister(number)
            dial, target = dials.pop(number)
            if not dial.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                key = "%s:%d" % target
                answered[key] = answered.get(key, 0) + 1
            dial.close()
    for dial, _ in dials.values():
        dial.close()
    sweeps += 1
print(json.dumps([sweeps, answered]))
"""
"""Dials every target some times a second until it is told to stop; says how often each answered."""


@dataclass(frozen=True)
class Site:
    """Machines a and b, the user's laptop, and x, who has no business here."""

    user: User
    machines: dict[str, Machine]
    inside: dict[str, tuple[str, ...]]

    def say(self, name: str, *argv: str, stdin: str = "") -> str:
        """What a command prints at ``name``."""
        done = subprocess.run(
            [*self.inside[name], *argv], check=True, input=stdin, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def cable(self, name: str, state: str) -> None:
        """Pull the cable of a machine (``down``) or plug it in again (``up``)."""
        bridge = f"{NETWORK}-bridge"
        subprocess.run(("ip", "-n", bridge, "link", "set", "dev", name, state), check=True, timeout=30)

    def reached(self, origin: str) -> set[tuple[str, int]]:
        """Rain ports of both machines that answer to ``origin``."""
        targets = [(ADDRESSES[name], port) for name in "ab" for port in RAIN]
        return {
            tuple(found)
            for found in json.loads(self.say(origin, sys.executable, "-c", DIAL, json.dumps(targets)))
        }


@pytest.fixture(params=[True], ids=["root"])
def site(
    make_home: MakeHome, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Who may log in is root, or nobody is where the test says so."""
    cache, root = filled(request), request.param
    with network(NETWORK, ADDRESSES) as inside:
        user = User.of(make_home(), inside["laptop"])
        authorized = public_key(user.ssh / "id_ed25519")
        machines = {
            name: Machine(
                name=name,
                directory=tmp_path_factory.mktemp(name),
                address=ADDRESSES[name],
                port=SSH_PORT if root else 2222,
                authorized=authorized,
                cache=cache,
                prefix=inside[name],
                powerless=not root,
            )
            for name in "ab"
        }
        with started(*machines.values()):
            user.knows(*(machine.known_line() for machine in machines.values()))
            (user.cwd / "squares.py").write_text(SQUARES)
            yield Site(user, machines, inside)


@pytest.fixture
def watch(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A stranger tries every port of both machines, SSH too, all the time."""
    targets = json.dumps([(ADDRESSES[name], port) for name in "ab" for port in (SSH_PORT, *RAIN)])
    command = [*site.inside["x"], sys.executable, "-c", WATCH, targets]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline() == "watching\n"
            yield watch
        finally:
            watch.kill()


def test_from_up_to_down_a_stranger_reaches_ssh_and_nothing_else(
    site: Site, watch: subprocess.Popen[str], tmp_path: Path
) -> None:
    for name in "ab":
        site.say(name, "nft", "-f", "-", stdin=OWN)
    rules = {name: site.say(name, "nft", "list", "ruleset") for name in "ab"}
    cluster = LocalCluster(site.user, "walled")
    entries = ",".join(machine.entry for machine in site.machines.values())
    cluster.well("up", "--provider", "hosts", "--hosts", entries)
    server, first, second = (ADDRESSES["a"], 7210), (ADDRESSES["a"], 7301), (ADDRESSES["b"], 7302)
    dashboard = (ADDRESSES["a"], 7222)
    assert site.reached("b") == {server, dashboard, first, second}, "this is how an open port looks"
    assert site.reached("laptop") == set()

    own = [site.say(name, "nft", "list", "table", "inet", "own") for name in "ab"]
    assert own == [text.rstrip("\n") + "\n" for text in rules.values()]
    assert cluster.well("up", "--json").result["changed"] == []

    (site.user.cwd / "waits.py").write_text(SQUARES + WAITS)
    run = cluster.start("run", "waits.py", str(tmp_path / "go"))
    run.wait_for("begun")
    assert {port for _, port in site.reached("b")} & set(range(7230, 7300)), "the run's own server is there"
    assert site.reached("x") == set()
    (tmp_path / "go").touch()
    assert run.ended().exit_code == 0

    down = cluster.well("down", "--json").result
    assert sum("packet filter table" in line for line in down["certificate"]) == 2
    assert {name: site.say(name, "nft", "list", "ruleset") for name in "ab"} == rules
    for machine in site.machines.values():
        assert (machine.left(), machine.processes()) == ([], [])

    told, _ = watch.communicate("stop\n", timeout=LONG_S)
    sweeps, answered = json.loads(told)
    assert sweeps > 20
    assert answered.keys() == {f"{ADDRESSES[name]}:{SSH_PORT}" for name in "ab"}
    assert min(answered.values()) > 20


@pytest.mark.parametrize("site", [False], ids=["no root"], indirect=True)
def test_without_root_the_network_must_be_trusted(site: Site) -> None:
    cluster = LocalCluster(site.user, "trusting")
    words = ("--provider", "hosts", "--hosts", ",".join(each.entry for each in site.machines.values()))
    refused = cluster("up", "--json", *words)
    assert (refused.exit_code, "--trust-network 10.202.0.0/30" in refused.error["next"]) == (10, True)
    assert cluster.line.clusters() == []
    cluster.well("up", *words, "--trust-network", "10.202.0.0/24")
    assert site.reached("b"), "the wall is the user's word"
    refusing = "import os; os.mkdir('m'); open('m/f', 'w').write('x'); os.chmod('m', 0o555)\n"
    (site.user.cwd / "refusing.py").write_text(SQUARES + refusing)
    out = cluster.run("refusing.py")
    assert (out / "stdout.log").read_text().split()[-1] == "361"
    for machine in site.machines.values():  # now its owner cannot write anywhere there without a chmod
        machine.base.chmod(0o555)
        (machine.base / "clusters").chmod(0o555)
    cluster.well("down")
    for machine in site.machines.values():
        assert (machine.left(), machine.processes()) == ([], [])


SWEEP = """\
import os, pathlib, socket, sys, time
from rain.client import Client, remote

@remote()
def square(ctx, x, marks):
    mark = pathlib.Path(marks, "%d.%s.%d" % (x, socket.gethostname(), os.getpid()))
    mark.write_text("begun")
    time.sleep(2)
    mark.write_text("ended")
    return str(x * x)

with Client("localhost", 7210).new_session("squares") as session:
    tasks = [square(x, sys.argv[1], name="square x=%d" % x) for x in range(16)]
    for task in tasks:
        task.output.keep()
    session.submit()
    session.wait_all()
    print(sum(int(task.output.fetch().get_bytes()) for task in tasks))
"""


@pytest.mark.slow
def test_a_node_that_is_cut_off_silently_is_lost_and_changes_nothing_when_it_comes_back(
    site: Site, tmp_path: Path
) -> None:
    """Its cable is pulled: no connection closes.  What it computed meanwhile comes too late to count."""
    cluster = LocalCluster(site.user, "parted")
    entries = ",".join(machine.entry for machine in site.machines.values())
    cluster.well("up", "--provider", "hosts", "--hosts", entries)
    (site.user.cwd / "sweep.py").write_text(SWEEP)
    marks = tmp_path / "marks"
    marks.mkdir()
    running = cluster.start("run", "--json", "sweep.py", str(marks))
    wait_for(lambda: any(marks.glob("*.b.*")), describe=lambda: running.stderr)
    site.cable("b", "down")
    cut_s = time.monotonic()
    running.wait_for("node-2 was lost (nothing was heard from its governor for 45 s)")
    running.wait_for("attempt 2 goes on without node-2")
    assert time.monotonic() - cut_s < 90
    cut_off = list(marks.glob("*.b.*"))
    assert {path.read_text() for path in cut_off} == {"ended"}, "it goes on where it is"
    site.cable("b", "up")
    told = running.ended()
    assert told.exit_code == 0, told
    results = Path(told.result["results_dir"])
    assert (results / "stdout.log").read_text() == f"{sum(x * x for x in range(16))}\n"
    rows = json.loads((results / "points.json").read_text())
    again = {int(path.name.partition(".")[0]) for path in cut_off}
    assert {row["parameters"]["x"] for row in rows if not row["cached"]} == again
    executed = [int(path.name.partition(".")[0]) for path in marks.iterdir()]
    assert sorted(executed) == sorted([*range(16), *again]), "what was kept did not run again"
    cluster.well("down")
    for machine in site.machines.values():
        assert (machine.left(), machine.processes()) == ([], [])
