"""A cloud account on loopback that several people use, and commands that are run in it and may be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rain_deploy.core.layout import ROOT_BASE, Layout
from rain_deploy.core.spec import EngineSpec, EnvironmentSpec
from rain_deploy.parts.code import code_bundle
from rain_deploy.parts.engine import engine_key
from rain_deploy.parts.environment import environment_digest, node_lock
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.parts.supply.cache import EngineCache
from rain_deploy.parts.supply.resolve import resolve
from rain_deploy.state import Store
from tests.faults.crash_adapter import Kill
from tests.faults.fake_transport import FakeMachines
from tests.faults.zygote import Ended, Order, Zygote
from tests.lab.lab import Lab

CLUSTER = "crash"
ENGINE = b"no engine"
ZONES = ("ch-dk-2", "ch-gva-2")
LATENCY_S = 0.02
"""Of an operation of the cloud: it is asked about while it is pending."""
QUIET_S = 10.0
"""For requests of a process that is dead to be answered."""
Rule = tuple[str, int, int, str]
"""Protocol, first port, last port, and from where."""
Things = Mapping[tuple[str, str], Any]
"""(kind, id) -> what the cloud holds under it."""


@dataclass
class Home:
    """One person's RAIN_DEPLOY_HOME."""

    path: Path
    world: World
    cluster: str = CLUSTER
    settle_s: float = 0.0

    @property
    def store(self) -> Store:
        return Store(self.path)

    def run(self, *words: str, kill: Kill | None = None, named: bool = True, at_rest: bool = True) -> Ended:
        """One command, about the cluster if ``named``; ``at_rest``: until all that it sent is done."""
        environ = {
            **self.world.lab.environ(),
            "RAIN_DEPLOY_HOME": str(self.path),
            "RAIN_DEPLOY_CONFIG": str(self.path / "rain-deploy.toml"),
            "HOME": str(self.path),
            "PATH": "/usr/bin:/bin",
            "NO_COLOR": "1",
        }
        order = Order(
            (*words, "--yes", *(("--cluster", self.cluster) if named else ())),
            str(self.path),
            str(self.world.machines),
            environ,
            kill,
            self.settle_s,
        )
        ended = self.world.zygote.run(order)
        if at_rest:
            self.world.wait_until_quiet()
        return ended

    def lose_state(self) -> None:
        """As on another laptop."""
        (self.path / "state.sqlite").unlink()

    def recorded(self) -> set[tuple[str, str]]:
        """(kind, id) of what the state file says to exist."""
        cluster = self.store.cluster(self.cluster)
        refs = self.store.resources(cluster.id) if cluster else ()
        return {(ref.kind, ref.ref.rpartition("/")[2]) for ref in refs}

    def machines(self) -> set[str]:
        """The clouds' ids of the recorded nodes."""
        cluster = self.store.cluster(self.cluster)
        return {node.host.machine for node in cluster.nodes} if cluster else set()


@dataclass
class World:
    """The account; a colleague's and another living cluster of ours are in it, and must never change."""

    root: Path
    lab: Lab
    zygote: Zygote
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    foreign: Things = field(default_factory=dict)

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    def home(self, owner: str = "me", cluster: str = CLUSTER, *, settle_s: float = 0.0) -> Home:
        """A fresh one, in which an engine is cached: nothing is built here."""
        path = self.root / f"home-{next(self.numbers)}"
        path.mkdir(mode=0o700)
        (path / "rain-deploy.toml").write_text(f'owner = "{owner}"\nprovider = "exoscale"\n')
        EngineCache(path).store(engine_key(EngineSpec()), DEBIAN_12.arch, DEBIAN_12.glibc, ENGINE)
        return Home(path, self, cluster, settle_s)

    def populate(self) -> None:
        """Bring up what is not to be touched."""
        for owner, cluster, zone in zip(("colleague", "me"), (f"{CLUSTER}-2", "another"), ZONES, strict=True):
            ended = self.home(owner, cluster).run("up", "--zone", zone)
            assert ended.status == 0, ended.output
        self.foreign = self.things()

    def things(self) -> Things:
        """All that exists, as it is."""
        with self.lab.store.lock:
            return {(kind, thing.id): _frozen(thing) for kind, _, thing in self.lab.store.left()}

    def ours(self) -> set[tuple[str, str]]:
        """What exists beside what must not be touched."""
        return {
            (kind, thing.name if kind == "ssh-key" else thing.id)
            for kind, _, thing in self.lab.store.left()
            if (kind, thing.id) not in self.foreign
        }

    def opened(self) -> list[list[Rule]]:
        """The rules of each security group of mine, the one of the cluster that must not change first."""
        with self.lab.store.lock:
            groups = [group for group in self.lab.store.groups.values() if "_o-me-" in group.name]
        groups.sort(key=lambda group: ("security-group", group.id) not in self.foreign)
        return [sorted(_rule(group.id, rule) for rule in group.rules) for group in groups]

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

    def wait_until_quiet(self) -> None:
        """Let the server come to the end of what a killed process has sent."""
        deadline_s = time.monotonic() + QUIET_S
        while any(request.ended_s is None for request in list(self.lab.log)):
            assert time.monotonic() < deadline_s, "the lab does not come to rest"
            time.sleep(0.002)

    def clean(self) -> None:
        """Remove what a failed point has left, so that the next one starts as all do."""
        rest = self.home()
        rest.run("gc", "--delete")
        left = self.ours()
        assert not left, f"the world cannot be cleaned: {left}"


def _rule(group: str, rule: Mapping[str, Any]) -> Rule:
    source = rule["security-group"]["id"] if "security-group" in rule else rule["network"]
    return rule["protocol"], rule["start-port"], rule["end-port"], "itself" if source == group else source


def installed() -> tuple[str, ...]:
    """All that ``up`` puts on a node, so that no test waits for it."""
    layout = Layout(ROOT_BASE, "")
    environment = environment_digest(resolve(EnvironmentSpec(), node_lock()))
    return (
        layout.engine(hashlib.sha256(ENGINE).hexdigest()),
        f"{layout.environment(environment)}/.ok",
        f"{layout.code(code_bundle().digest)}/__main__.py",
    )


def _frozen(thing: Any) -> str:
    fields = {name: value for name, value in _fields(thing) if name not in {"machine", "address_from_s"}}
    return json.dumps(fields, sort_keys=True, default=str)


def _fields(thing: Any) -> Iterator[tuple[str, Any]]:
    return ((each.name, getattr(thing, each.name)) for each in dataclasses.fields(thing))


@contextlib.contextmanager
def world(root: Path, number: int) -> Iterator[World]:
    """A world of its own, with addresses 127.7.<number>.x for its machines."""
    root.mkdir(parents=True)
    (root / "machines").mkdir()
    machines = FakeMachines(root / "machines", f"127.7{number}", installed())
    with Lab(machines, zones=ZONES, latency_s=LATENCY_S) as lab, contextlib.closing(Zygote()) as zygote:
        made = World(root, lab, zygote)
        made.populate()
        yield made
    shutil.rmtree(root, ignore_errors=True)
