"""An account at the lab that several people use, and the homes in which they type commands.

What has to hold in every row of the fault matrix is asked here: nothing that was ever made is lost from sight
(A1), an error says what, what still costs and what to type (A3), each command has a deadline (A5, commands),
the next command converges (A6), no secret is told (A7), and what is a colleague's stays as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rain_deploy.core.layout import ROOT_BASE, Layout
from rain_deploy.core.spec import EngineSpec, EnvironmentSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.software import code_bundle, engine_key, environment_digest, node_lock
from rain_deploy.parts.supply.cache import EngineCache
from rain_deploy.parts.supply.resolve import resolve
from rain_deploy.state.store import Store
from tests.faults.commands import Done, Order, Running, start
from tests.faults.crash_adapter import Kill
from tests.faults.fake_transport import FakeMachines
from tests.faults.link import Link
from tests.lab.lab import Lab, Left
from tests.lab.log import Request
from tests.lab.store import Vm
from tests.support.waiting import wait_for

CLUSTER = "matrix"
OWNER, COLLEAGUE = "me", "colleague"
ZONES = ("ch-dk-2", "ch-gva-2")
ENGINE = b"no engine"
NETWORK = "127.8"
LATENCY_S = 0.02
"""Of an operation of the cloud: it is asked about while it is pending."""
LASTING = ("cache", "logs")
"""Directories of a home that are not part of what is kept and brought back."""
Rule = tuple[str, int, int, str]
"""Protocol, first port, last port, and from where."""
Thing = tuple[str, str]
"""Kind, and id (of a key its name): as the state records it."""
_copies = itertools.count(1)


def until(happens: Callable[[], bool], what: str) -> None:
    """Wait for something in another process."""
    wait_for(happens, describe=lambda: what)


@dataclass
class Account:
    """The lab, and in it what a colleague and other tools have, which must never change."""

    root: Path
    lab: Lab
    foreign: dict[Thing, str] = field(default_factory=dict)
    """What must not be touched, as it was."""
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

    def home(self, owner: str = OWNER, cluster: str = CLUSTER, *, at: Path | None = None) -> Home:
        """Another person's, or another laptop's, in which an engine is cached: nothing is built here."""
        path = at or self.root / f"home-{len(self.homes) + 1}"
        path.mkdir(mode=0o700)
        (path / "rain-deploy.toml").write_text(f'owner = "{owner}"\nprovider = "exoscale"\n')
        EngineCache(path).store(engine_key(EngineSpec()), DEBIAN_12.arch, DEBIAN_12.glibc, ENGINE)
        made = Home(path, self, cluster)
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
        self.foreign = self.things()

    def seed_of_colleague(self, cluster: str, *, expired: bool = False) -> None:
        """A machine of a colleague's cluster of some name."""
        labels = instance_labels(COLLEAGUE, cluster, "fedcba9876")
        if expired:
            labels["rain-deploy-expires"] = f"t{int(time.time()) - 60}"
        vm = self.lab.seed_instance(name=f"rd-{cluster}-fedcba9876-1", labels=labels)
        self.foreign |= {key: thing for key, thing in self.things().items() if key[1] == vm.id}

    def populate(self) -> None:
        """Bring up a colleague's cluster, whose name begins as ours does, and another one of mine."""
        for owner, cluster, zone in zip((COLLEAGUE, OWNER), (f"{CLUSTER}-2", "another"), ZONES, strict=True):
            self.home(owner, cluster).well("up", "--zone", zone)
        self.foreign = self.things()

    def things(self) -> dict[Thing, str]:
        """All that exists, as it is."""
        with self.lab.store.lock:
            return {(kind, thing.id): _frozen(thing) for kind, _, thing in self.lab.store.left()}

    def ours(self, kind: str = "") -> list[Left]:
        """What exists beside what must not be touched, or was there before the test."""
        return [
            each
            for each in self.lab.left(seeded=False)
            if kind in {"", each.kind} and (each.kind, each.id) not in self.foreign
        ]

    def held(self) -> set[Thing]:
        """The same, as the state records it."""
        return {(each.kind, each.name if each.kind == "ssh-key" else each.id) for each in self.ours()}

    def opened(self) -> list[list[Rule]]:
        """The rules of each security group of mine, the one of the cluster that must not change first."""
        with self.lab.store.lock:
            groups = [group for group in self.lab.store.groups.values() if f"_o-{OWNER}-" in group.name]
        groups.sort(key=lambda group: ("security-group", group.id) not in self.foreign)
        return [sorted(_rule(group.id, rule) for rule in group.rules) for group in groups]

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

    def touched(self) -> list[str]:
        """Sentences about foreign things that are not as they were."""
        now = self.things()
        return [
            f"foreign {kind} {name} was touched: {now.get((kind, name), 'deleted')}"
            for (kind, name), thing in self.foreign.items()
            if now.get((kind, name)) != thing
        ]

    def power_off(self, instance: str) -> None:
        """As the machine itself does at its time limit."""
        assert isinstance(self.lab.machines, FakeMachines)
        self.lab.machines.power_off(instance)

    def vanish(self, instance: str) -> None:
        """As somebody does in the console."""
        with self.lab.store.lock:
            for zone in self.lab.store.zones.values():
                zone.instances.pop(instance, None)
        self.lab.machines.delete(instance)

    def clean(self) -> None:
        """Remove what a failed sequence has left, so that the next one starts as all do."""
        self.home().run("gc", "--delete", "-c", CLUSTER)
        assert not self.held(), f"the account cannot be cleaned: {self.held()}"


@dataclass
class Home:
    """One person's RAIN_DEPLOY_HOME on one laptop."""

    path: Path
    account: Account
    cluster: str = CLUSTER
    deadlines: dict[str, float] = field(default_factory=dict)
    """Of its commands, unless a command has others."""
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
        self,
        *words: str,
        kill: Kill | None = None,
        killed_at_write: int = 0,
        largest_file_bytes: int = 0,
        **deadlines: float,
    ) -> Running:
        """Start a command, about the cluster unless it names another one or is ``gc``."""
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
            (*words, "--yes", *(() if {"-c", "gc"} & {*words} else ("-c", self.cluster))),
            str(self.path),
            str(self.account.machines),
            environ,
            {**self.deadlines, **deadlines},
            kill,
            killed_at_write,
            largest_file_bytes,
        )
        return start(order, self.account.root / "said")

    def run(self, *words: str, **how: Any) -> Done:
        """One command to its end, and to the end of what it asked for."""
        done = self.start(*words, **how).wait()
        self.account.wait_until_quiet()
        return done

    def well(self, *words: str, **how: Any) -> Done:
        """One command, which has to succeed."""
        done = self.run(*words, **how)
        assert done.status == 0, str(done)
        return done

    def ends(self, status: int, *words: str, **how: Any) -> Done:
        """One command that has to end so, having said what it should, with nothing lost from sight."""
        done = self.run(*words, **how)
        self.check(done, status)
        return done

    def check(self, done: Done, status: int) -> None:
        """A1 and A3 of a command that did not end well; the fault is over then."""
        self.account.lab.faults.clear()
        assert done.status == status, str(done)
        calm = f"{done.words[0]} was interrupted" in done.err and not self.nodes()  # and nothing is left
        assert calm or f"error[RD{status}]" in done.err, str(done)
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
        assert {("instance", each.id) for each in self.account.ours("instance")} <= self.recorded()

    def goes_down(self) -> None:
        """A6: ``down`` succeeds and leaves nothing, here or there."""
        self.account.lab.faults.clear()
        self.well("down")
        assert self.account.ours() == []
        assert self.store.cluster(CLUSTER) is None

    def kept(self) -> Callable[[], None]:
        """Return what brings back this home and the whole account as they are now."""
        store, machines = self.account.lab.store, self.account.lab.machines
        assert isinstance(machines, FakeMachines)
        until(lambda: not store.is_pending(), "nothing is pending")
        parts = store.kept(), machines.kept()
        copy = self.path.with_name(f"{self.path.name}-kept-{next(_copies)}")
        shutil.copytree(self.path, copy, symlinks=True, ignore=shutil.ignore_patterns(*LASTING))

        def bring_back() -> None:
            for each in parts:
                each()
            for path in self.path.iterdir():
                if path.is_dir() and path.name not in LASTING:
                    shutil.rmtree(path)
                elif not path.is_dir():
                    path.unlink()
            shutil.copytree(copy, self.path, symlinks=True, dirs_exist_ok=True)

        return bring_back

    def lose_state(self) -> None:
        """As on another laptop."""
        self.state.unlink()

    def recorded(self) -> set[Thing]:
        """What the state file says to exist."""
        cluster = self.store.cluster(self.cluster)
        refs = self.store.resources(cluster.id) if cluster else ()
        return {(ref.kind, ref.ref.rpartition("/")[2]) for ref in refs}

    def machines(self) -> set[str]:
        """The cloud's ids of the recorded nodes."""
        cluster = self.store.cluster(self.cluster)
        return {node.host.machine for node in cluster.nodes} if cluster else set()


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


def _rule(group: str, rule: Mapping[str, Any]) -> Rule:
    source = rule["security-group"]["id"] if "security-group" in rule else rule["network"]
    return rule["protocol"], rule["start-port"], rule["end-port"], "itself" if source == group else source


def _frozen(thing: Any) -> str:
    fields = {each.name: getattr(thing, each.name) for each in dataclasses.fields(thing)}
    told = {name: value for name, value in fields.items() if name not in {"machine", "address_from_s"}}
    return json.dumps(told, sort_keys=True, default=str)


def installed() -> tuple[str, ...]:
    """All that ``up`` puts on a node, so that no test waits for it."""
    layout = Layout(ROOT_BASE, "")
    environment = environment_digest(resolve(EnvironmentSpec(), node_lock()))
    return (
        layout.engine(hashlib.sha256(ENGINE).hexdigest()),
        f"{layout.environment(environment)}/.ok",
        f"{layout.code(code_bundle()[0])}/__main__.py",
    )


@contextlib.contextmanager
def account(root: Path) -> Iterator[Account]:
    """An account; at its end it is checked that nothing foreign was touched and no secret told."""
    for name in ("machines", "said"):
        (root / name).mkdir(parents=True)
    machines = FakeMachines(root / "machines", NETWORK, installed())
    with Lab(machines, zones=ZONES, latency_s=LATENCY_S) as lab:
        made = Account(root, lab)
        yield made
        made.check_secrets()
        assert not made.touched()


@contextlib.contextmanager
def populated_account(root: Path) -> Iterator[Account]:
    """An account in which people have living clusters; everything in it goes at the end."""
    with account(root) as made:
        made.populate()
        yield made
    shutil.rmtree(root, ignore_errors=True)
