"""A cloud in memory and machines that answer over SSH while they run there; both remember what was done."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rain_deploy.cluster.context import Context
from rain_deploy.cluster.seen import new_cluster
from rain_deploy.core.cluster import Bill, Cluster, Meter, Node, Quote, Traits
from rain_deploy.core.events import Event
from rain_deploy.core.machine import Host, InstanceType, Intent, Reach, Resource
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.step import Command, CommandResult
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import ApiError, DownIncomplete, HostKeyError, RainDeployError, Unreachable
from rain_deploy.fleet.fanout import SshExecutor
from rain_deploy.parts.facts import DEBIAN_12
from rain_deploy.state.store import Store
from rain_deploy.transport.base import Chunk, Forward
from tests.support.values import QUOTE, changed

ME = "me"
KEY = "ssh-ed25519 AAAA"
PROVIDER = "exoscale"


class FakeCloud:
    """Implements Provider and Cloud over ``held``: what exists, by kind and id."""

    traits = Traits(owned=True, installs_packages=True, needs_wall=False, shared_machine=False)

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Resource] = {}
        self.calls: list[tuple[str, str]] = []
        self.refused: dict[tuple[str, str], RainDeployError] = {}
        """Deletes that fail, by kind and id."""
        self.lists_lag = False
        """What is gone is shown by one more survey."""
        self.deletes_nothing = False
        """Although it says so."""
        self.meanwhile: Callable[[], object] = lambda: None
        """What others do while the account is looked at."""
        self._stale: list[Resource] = []
        self.reached = Reach()
        self.views: list[float] = []
        """Of each command that only looks, how long it waits."""
        self.silent = False
        self.template = QUOTE.template
        self.priced = True
        self._lock = threading.Lock()
        self._given = 0

    @property
    def cloud(self) -> FakeCloud | None:
        return self if self.priced else None

    @property
    def account(self) -> str:
        return "EXOkey"

    def add(self, found: Resource) -> Resource:
        """It exists, whoever made it."""
        with self._lock:
            self.held[found.kind, found.ref] = found
        return found

    def power_off(self, name: str, address: str = "") -> None:
        """As its time limit does; ``address``: the one that it will have when it is started."""
        for key, found in self.held.items():
            if found.name == name:
                self.held[key] = replace(found, state="stopped", address=address or found.address)

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        self.views.append(seconds)
        return contextlib.nullcontext()

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        del spec, cluster, more
        self._asked("quote")
        return replace(QUOTE, template=self.template)

    def reach(self, cluster: Cluster, found: tuple[Resource, ...], allow_ip: tuple[str, ...] = ()) -> Reach:
        del cluster, found, allow_ip
        return self.reached

    def zones(self) -> tuple[str, ...]:
        return "here", "there"

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        del zone, spec
        return (InstanceType("small", 1, 1 << 30, 0, 0.5, "CHF", available=True, source="a table"),)

    def survey(self) -> tuple[Resource, ...]:
        self._asked("survey")
        self.meanwhile()
        stale, self._stale = self._stale, []
        return (*self.held.values(), *stale)

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        self._asked("set_expiry")
        for ref in resources:
            self.held[ref.kind, ref.ref] = replace(self.held[ref.kind, ref.ref], expires_s=expires_s)

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        del spec
        return ()

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        del spec
        kinds = [("group", "group"), *(("instance", f"node-{index}") for index in range(1, nodes + 1))]
        return tuple(Intent(cluster.id, cluster.name, kind, name) for kind, name in kinds)

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        del unsettled_s
        self._given += 1
        address = f"10.0.0.{self._given}" if intent.kind == "instance" else ""
        made = Resource(
            intent.cluster_id,
            intent.kind,
            intent.name,
            ref or f"id-{self._given}",
            owner=owner_tag(ME),
            cluster=intent.cluster,
            state="running",
            address=address,
        )
        return self.add(made)

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        del cluster, resources
        return {}

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        del cluster
        found = (self.held[ref.kind, ref.ref] for ref in resources if ref.kind == "instance")
        return tuple(host_of(each, each.address) for each in found)

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        return tuple(host_of(Resource("", i.kind, i.name), "") for i in intents if i.kind == "instance")

    def list(self, owner: str) -> tuple[Resource, ...]:
        return tuple(found for found in self.survey() if found.owner == owner_tag(owner))

    def ended(self, cluster: Cluster, name: str) -> bool:
        del cluster, name
        return False

    def start(self, ref: Resource) -> None:
        self._asked("start", ref.ref)
        self.held[ref.kind, ref.ref] = replace(self.held[ref.kind, ref.ref], state="running")

    def delete(self, ref: Resource) -> None:
        self._asked("delete", ref.ref)
        if error := self.refused.get((ref.kind, ref.ref)):
            raise error
        with self._lock:
            this = self.held.get((ref.kind, ref.ref))
            needs = [f for f in self.held.values() if f.kind == "instance" and ref.kind != "instance"]
        if this and any((f.cluster_id, f.owner) == (this.cluster_id, this.owner) for f in needs):
            raise DownIncomplete(f"{ref.kind} {ref.name} is in use")
        if self.deletes_nothing:
            return
        with self._lock:
            found = self.held.pop((ref.kind, ref.ref), None)
            self._stale += [found] if found and self.lists_lag else []

    def _asked(self, call: str, ref: str = "") -> None:
        self.calls.append((call, ref))
        if self.silent:
            raise ApiError("the API does not answer")


def host_of(ref: Resource, address: str) -> Host:
    return Host(ref.name, address, 22, "debian", (KEY,), cluster_address=address, machine=ref.ref)


@dataclass
class Nodes:
    """Implements the transport: a machine answers at its address while it runs, with what ``said`` has."""

    cloud: FakeCloud
    place: Path
    said: dict[str, object] = field(default_factory=dict)
    """JSON or a stream by verb of node code."""
    failing: set[str] = field(default_factory=set)
    """Verbs of node code that fail."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Machine's id, and verb or ``sh``."""
    strangers: set[str] = field(default_factory=set)
    """Addresses that have become another machine's."""
    boots: dict[str, int] = field(default_factory=dict)
    """So many connections fail before the machine of that id answers."""

    def connect(self, host: Host) -> None:
        if host.address in self.strangers:
            raise HostKeyError(f"another key at {host.address}", node=host.name)
        for (kind, ref), found in self.cloud.held.items():
            if kind == "instance" and found.address == host.address and found.state == "running":
                if self.boots.get(ref, 0) > 0:
                    self.boots[ref] -= 1
                    break
                return
        raise Unreachable(f"nobody answers at {host.address}", node=host.name)

    def run(
        self, host: Host, command: Command, *, on_stdout: Chunk | None = None, on_stderr: Chunk | None = None
    ) -> CommandResult:
        self.connect(host)
        verb = command.argv[4] if command.argv[0] != "sh" else "sh"
        self.asked.append((host.machine, verb))
        if verb in self.failing:
            return CommandResult(1, b"", b"it failed")
        answer = self.said.get(verb, {})
        if isinstance(answer, bytes):
            if on_stdout:
                on_stdout(answer)
            return CommandResult(0, b"", b"")
        if verb != "sh":
            return CommandResult(0, json.dumps(answer).encode(), b"")
        if '"$M/limit"' not in command.argv[2]:  # what starts and ends services needs a real node
            return CommandResult(0, b"", b"")
        environ = {**os.environ, "RAIN_DEPLOY_MACHINE": str(self.machine(host.machine))}
        done = subprocess.run(command.argv, env=environ, capture_output=True, check=False, timeout=60)
        for chunk, data in ((on_stdout, done.stdout), (on_stderr, done.stderr)):
            if chunk:
                chunk(data)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def machine(self, ref: str) -> Path:
        """The directory that the machine's user-data made."""
        directory = self.place / ref
        if not directory.exists():
            directory.mkdir(parents=True)
            (directory / "limit").write_text("none\n")
        return directory

    def limit(self, ref: str) -> str:
        return (self.machine(ref) / "limit").read_text().strip()

    def forward(self, host: Host, address: str, port: int, *, local_port: int = 0) -> Forward:
        raise NotImplementedError

    def close(self) -> None: ...


@dataclass
class World:
    """A home with a cloud, and what its user was told and asked."""

    ctx: Context
    cloud: FakeCloud
    nodes: Nodes
    events: list[Event]
    answers: list[bool] = field(default_factory=list)

    @classmethod
    def at(cls, place: Path) -> World:
        cloud, events = FakeCloud(), list[Event]()
        nodes = Nodes(cloud, place / "machines")
        answers: list[bool] = []

        def confirm(_question: str) -> bool:
            return answers.pop(0) if answers else True

        (place / "home").mkdir(exist_ok=True)
        store = Store(place / "home")
        ctx = Context(
            place / "home",
            store,
            nodes,
            nodes,
            lambda _: cloud,
            events.append,
            confirm,
            place,
            SshExecutor(nodes),
        )
        return cls(ctx, cloud, nodes, events, answers)

    @property
    def store(self) -> Store:
        return self.ctx.store

    @property
    def told(self) -> str:
        return "\n".join(str(event) for event in self.events)

    def cluster(self, name: str = "one", nodes: int = 3, **more: Any) -> Cluster:
        """A cluster that is up, on record and in the cloud."""
        now_s = time.time()
        base = self.nodes.place.parent / "base"
        spec = ClusterSpec(name, PROVIDER, "test", owner=ME)
        cluster = replace(new_cluster(self.ctx, spec), base=str(base), up=True, bill=Bill(QUOTE))
        intents = self.cloud.intents(spec, cluster, nodes)
        made = []
        for intent in intents:
            self.store.save_intent(intent)
            made.append(self.cloud.create(intent))
            self.store.save_resource(made[-1])
        facts = replace(DEBIAN_12, uid=os.getuid())
        hosts = self.cloud.hosts(cluster, tuple(made))
        recorded = tuple(Node(h.name, h, facts, h.address, 7300 + h.index, 1) for h in hosts)
        meters = tuple(Meter(host.name, host.machine, now_s, QUOTE.per_hour) for host in hosts)
        cluster = changed(cluster, nodes=recorded, meters=meters)
        cluster = changed(cluster, **more)
        self.store.save_cluster(cluster)
        self.cloud.set_expiry(tuple(r for r in made if r.kind == "instance"), cluster.limit_s)
        self.cloud.calls.clear()
        return cluster

    def names(self, kind: str = "instance") -> list[str]:
        return sorted(f.name for f in self.cloud.held.values() if f.kind == kind)
