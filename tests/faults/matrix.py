"""An account at the lab and the homes of those who use it, for the rows of the fault matrix.

What has to hold in every row is asked here: nothing that was ever made is lost from sight (A1), an error says
what, what still costs and what to type (A3), the deadline of every command (A5, in matrix_commands), the next
command converges (A6), no secret is told (A7), and what is a colleague's stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rain_deploy.core.owner import owner_tag
from rain_deploy.core.spec import EngineSpec
from rain_deploy.parts.engine import engine_key
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.supply.cache import EngineCache
from rain_deploy.state import Store
from tests.faults.crash_world import ENGINE, installed
from tests.faults.fake_transport import FakeMachines
from tests.faults.link import Link
from tests.faults.matrix_commands import Commands, Done, Order, Running
from tests.lab.lab import Lab, Left
from tests.lab.log import Request
from tests.lab.store import Vm

CLUSTER = "matrix"
OWNER, COLLEAGUE = "me", "colleague"
ZONES = ("ch-dk-2", "ch-gva-2")
NETWORK = "127.8"
LATENCY_S = 0.02
PATIENCE_S = 20.0
"""For what a test waits for to happen in another process."""


def until(happens: Callable[[], bool], what: str) -> None:
    """Wait for something in another process."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline_s, f"it never happened: {what}"
        time.sleep(0.005)


@dataclass
class Account:
    """The lab, and in it what a colleague and other tools have, which must never change."""

    root: Path
    lab: Lab
    commands: Commands
    foreign: tuple[Left, ...] = ()
    homes: list[Home] = field(default_factory=list)

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def port(self) -> int:
        """The lab's own."""
        return urlsplit(self.lab.url).port or 0

    def behind(self, link: Link) -> None:
        """From now on commands reach the lab through ``link``."""
        zones, lab = self.lab.api.zone_urls, self.lab
        here, there = f":{self.port}/", f":{link.port}/"
        lab.url = lab.url.replace(here, there)
        zones.update({name: url.replace(here, there) for name, url in zones.items()})

    def home(self, owner: str = OWNER, *, at: Path | None = None) -> Home:
        """Another person's, or another laptop's, in which an engine is cached."""
        path = at or self.root / f"home-{len(self.homes) + 1}"
        path.mkdir(mode=0o700)
        (path / "rain-deploy.toml").write_text(f'owner = "{owner}"\nprovider = "exoscale"\n')
        EngineCache(path).store(engine_key(EngineSpec()), DEBIAN_12.arch, DEBIAN_12.glibc, ENGINE)
        made = Home(path, self)
        self.homes.append(made)
        return made

    def seed_foreign(self) -> None:
        """A colleague's living cluster of another name, and something of another tool."""
        tag = owner_tag(COLLEAGUE)
        name = f"rain-deploy_{tag}_theirs_0123456789"
        group = self.lab.seed_group(name)
        self.lab.seed_key(name)
        self.lab.seed_instance(
            name="rd-theirs-0123456789-1",
            labels=instance_labels(COLLEAGUE, "theirs", "0123456789"),
            groups=[group.id],
        )
        self.lab.seed_instance(name="web")
        self.foreign = self.lab.left()

    def seed_of_colleague(self, cluster: str, *, expired: bool = False) -> None:
        """A machine of a colleague's cluster of some name."""
        labels = instance_labels(COLLEAGUE, cluster, "fedcba9876")
        if expired:
            labels["rain-deploy-expires"] = f"t{int(time.time()) - 60}"
        vm = self.lab.seed_instance(name=f"rd-{cluster}-fedcba9876-1", labels=labels)
        self.foreign += tuple(each for each in self.lab.left() if each.id == vm.id)

    def ours(self, kind: str = "") -> list[Left]:
        """What exists and was not there before the test."""
        return [each for each in self.lab.left(seeded=False) if kind in {"", each.kind}]

    def vm(self, node: str) -> Vm:
        """The instance of a node."""
        (found,) = (
            vm for vm in self.lab.instances() if not vm.seeded and vm.labels.get("rain-deploy-node") == node
        )
        return found

    def delete_by_console(self, *, everything: bool) -> None:
        """Somebody deletes one machine, or all that is not foreign."""
        store = self.lab.store
        with store.lock:
            for each in self.ours() if everything else self.ours("instance")[:1]:
                if each.kind == "instance":
                    store.zones[each.zone].instances.pop(each.id)
                elif each.kind == "security-group":
                    store.groups.pop(each.id)
                else:
                    store.keys.pop(each.name)

    def creates(self) -> list[Request]:
        """Requests that would make something."""
        return [each for each in self.lab.log if each.operation.startswith(("create-", "register-"))]

    def wait_until_quiet(self) -> None:
        """Let the lab come to the end of what a killed command has sent."""
        until(lambda: all(each.ended_s is not None for each in list(self.lab.log)), "the lab comes to rest")

    def secrets(self) -> list[bytes]:
        """What nobody may ever read: of the API, and of every login key."""
        keys = [path.read_bytes() for home in self.homes for path in home.path.rglob("id_ed25519")]
        return [self.lab.secret.encode(), *(key.splitlines()[2] for key in keys)]

    def told(self) -> Iterator[tuple[str, bytes]]:
        """All that was said, written or sent, but for the login keys themselves."""
        for path in filter(Path.is_file, self.root.rglob("*")):
            if path.name != "id_ed25519":
                yield str(path), path.read_bytes()
        for request in list(self.lab.log):
            yield str(request), request.path.encode() + request.query.encode() + request.body
            yield f"headers of {request}", repr(request.headers).encode()
        for vm in self.lab.instances():
            yield f"user-data of {vm.name}", vm.user_data.encode()

    def check_secrets(self) -> None:
        """A7."""
        secrets = self.secrets()
        for where, said in self.told():
            assert not any(secret in said for secret in secrets), f"a secret is told in {where}"

    def check_foreign(self) -> None:
        """Nothing of anybody else was touched."""
        now = self.lab.left()
        for each in self.foreign:
            assert each in now, f"it is not as it was: {each}"
        assert {vm.state for vm in self.lab.instances() if vm.seeded} == {"running"}


@dataclass
class Home:
    """One person's RAIN_DEPLOY_HOME on one laptop."""

    path: Path
    account: Account
    environ: dict[str, str] = field(default_factory=dict)
    """Beside what points at the lab."""

    @property
    def store(self) -> Store:
        return Store(self.path)

    @property
    def state(self) -> Path:
        return self.path / "state.sqlite"

    def state_size(self) -> int:
        """Bytes of the state file, which is made if it is not there."""
        assert self.store.clusters() is not None
        return self.state.stat().st_size

    def logs(self) -> str:
        """All debug logs."""
        return "".join(path.read_text() for path in (self.path / "logs").glob("*.log"))

    def start(
        self, *words: str, killed_at_write: int = 0, largest_file_bytes: int = 0, **patience: float
    ) -> Running:
        """Start a command about the cluster."""
        environ = {
            **self.account.lab.environ(),
            "RAIN_DEPLOY_HOME": str(self.path),
            "RAIN_DEPLOY_CONFIG": str(self.path / "rain-deploy.toml"),
            "HOME": str(self.path),
            "PATH": "/usr/bin:/bin",
            "NO_COLOR": "1",
            **self.environ,
        }
        order = Order(
            (*words, "--yes", *(() if {"-c", "gc"} & {*words} else ("-c", CLUSTER))),
            str(self.path),
            str(self.account.machines),
            environ,
            patience,
            killed_at_write,
            largest_file_bytes,
        )
        return self.account.commands.start(order, self.account.root / "said")

    def run(self, *words: str, **how: float) -> Done:
        """One command to its end, and to the end of what it asked for."""
        done = self.start(*words, **how).wait()  # type: ignore[arg-type]
        self.account.wait_until_quiet()
        return done

    def run_beside(self, *words: str) -> Done:
        """One command to its end while another is in flight."""
        return self.start(*words).wait()

    def well(self, *words: str, **how: float) -> Done:
        """One command, which has to succeed."""
        done = self.run(*words, **how)
        assert done.status == 0, str(done)
        return done

    def ends(self, status: int, *words: str, **how: float) -> Done:
        """One command that has to end so, having said what it should, with nothing lost from sight."""
        done = self.run(*words, **how)
        self.check(done, status)
        return done

    def check(self, done: Done, status: int) -> None:
        """A1 and A3 of a command that did not end well; the fault is over then."""
        self.account.lab.faults.clear()
        assert done.status == status, str(done)
        assert f"error[RD{status}]" in done.err, str(done)
        self.check_costs_told(done)
        self.check_in_sight()

    def check_costs_told(self, done: Done) -> None:
        """Whatever is left costs: it is named, with its price and with what ends it."""
        said = done.err.rpartition("error[RD")[2]
        nodes = self.nodes()
        for node in nodes:
            assert node in said, f"{node} exists and is not told:\n{done}"
        if nodes:
            assert "per hour" in said, f"machines cost and it is not told how much:\n{done}"
            assert "rain-deploy down" in said, f"it is not told how to end the cost:\n{done}"

    def nodes(self) -> list[str]:
        """Of the cluster's machines that exist."""
        return sorted(each.labels["rain-deploy-node"] for each in self.account.ours("instance"))

    def check_in_sight(self) -> None:
        """A1: every machine that exists is in the account's list as ours."""
        lines = json.loads(self.well("gc", "--json").out)["result"]["lines"]
        mine = [line for line in lines if line["owner"] == owner_tag(OWNER)]
        listed = Counter(
            resource.removeprefix("instance ")
            for line in mine
            for resource in line["resources"]
            if resource.startswith("instance ")
        )
        assert listed == Counter(self.nodes()), f"gc lists {listed}, there are {self.nodes()}"

    def converges(self, *words: str, nodes: int) -> None:
        """A6: without the fault the same command succeeds, and then ``down`` leaves nothing."""
        self.account.lab.faults.clear()
        self.well(*words)
        self.has(nodes)
        self.goes_down()

    def has(self, nodes: int) -> None:
        """So many machines, each of them once, and the state knows each."""
        assert self.nodes() == [f"node-{n}" for n in range(1, nodes + 1)]
        cluster = self.store.cluster(CLUSTER)
        assert cluster is not None
        recorded = {ref.ref.rpartition("/")[2] for ref in self.store.resources(cluster.id)}
        assert {each.id for each in self.account.ours("instance")} <= recorded

    def goes_down(self) -> None:
        """A6: ``down`` succeeds and leaves nothing, here or there."""
        self.account.lab.faults.clear()
        self.well("down")
        assert self.account.ours() == []
        assert self.store.cluster(CLUSTER) is None

    def lose_state(self) -> None:
        """As on another laptop."""
        self.state.unlink()


def instance_labels(owner: str, cluster: str, cluster_id: str, node: str = "node-1") -> dict[str, str]:
    """Of a machine that rain-deploy made."""
    return {
        "rain-deploy": "v1",
        "rain-deploy-owner": owner_tag(owner),
        "rain-deploy-cluster": f"c-{cluster}",
        "rain-deploy-id": f"i-{cluster_id}",
        "rain-deploy-node": node,
        "rain-deploy-expires": f"t{int(time.time()) + 36_000}",
    }


@contextlib.contextmanager
def account(root: Path, commands: Commands) -> Iterator[Account]:
    """An account; at its end it is checked that nothing foreign was touched and no secret told."""
    for name in ("machines", "said"):
        (root / name).mkdir()
    machines = FakeMachines(root / "machines", NETWORK, installed())
    with Lab(machines, zones=ZONES, latency_s=LATENCY_S) as lab:
        made = Account(root, lab, commands)
        made.seed_foreign()
        yield made
        made.check_secrets()
        made.check_foreign()
