"""Machines at Exoscale: one security group, one SSH key, N instances that are made at the same time.

Every intent is carried out once: after a lost answer, its label or name is searched for.  Labels and names
alone say what exists, so nothing here needs a state file.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rain_deploy import workers
from rain_deploy.core.cluster import Cluster, Quote, Traits
from rain_deploy.core.machine import Host, InstanceType, Intent, Reach, Resource, node_name
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import ApiError, InputError, PartlyUp, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.api import AT_ONCE, Api
from rain_deploy.providers.exoscale.catalog import Catalog
from rain_deploy.providers.exoscale.instances import Instances, UserData, gone
from rain_deploy.providers.exoscale.labels import (
    GROUP,
    INSTANCE,
    KEY,
    KINDS,
    NAMES,
    SPREAD,
    Instance,
    in_order,
    instance_name,
    shared_name,
    shared_resource,
)
from rain_deploy.providers.exoscale.network import Network, SecurityGroup, recent_events
from rain_deploy.providers.exoscale.rules import ssh_rules, will_open
from rain_deploy.providers.keys import cluster_key, public_key

_PER_SPREAD = 8  # machines of one anti-affinity group


class ExoscaleProvider:
    """Implements ``Provider`` and ``Cloud``; thread-safe.  ``user_data`` renders a machine's first boot."""

    traits = Traits(owned=True, installs_packages=True, needs_wall=False, shared_machine=False)

    def __init__(self, home: Path, api: Api, user_data: UserData, *, owner: str) -> None:
        self._home = home.absolute()
        self._api = api
        self._owner = owner
        self._catalog = Catalog(api)
        self._network = Network(api)
        self._instances = Instances(self._home, api, self._catalog, user_data)
        self._made: dict[tuple[str, str, str], str] = {}
        """By cluster id, kind and name: references that this process knows to exist."""
        self._walls: dict[str, Callable[[], None]] = {}
        """Functions by cluster id; each adds the rules of the security group while the machines boot."""

    @property
    def cloud(self) -> "ExoscaleProvider":
        return self

    # ---- Cloud

    @property
    def account(self) -> str:
        return self._api.account.key

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        return self._api.within(seconds)

    def zones(self) -> tuple[str, ...]:
        return tuple(sorted(self._api.zones(), key=lambda name: name != self._api.zone))

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        return self._catalog.types(zone or self._api.zone, spec)

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        found = self.survey()
        owner = owner_tag(cluster.owner or spec.owner or self._owner)
        for other in found:  # names are unique in an account
            if other.cluster != cluster.name or (other.cluster_id == cluster.id and other.owner == owner):
                continue
            if other.owner != owner:
                message = f"cluster {cluster.name} exists in this account already; its owner is {other.owner}"
                raise InputError(message, next_step="another name with -c")
            raise InputError(
                f"you have a cluster {cluster.name} in this account already (id {other.cluster_id}), "
                "which is not recorded on this machine",
                next_step=f"rain-deploy gc -c {cluster.name} shows it; or another name with -c",
            )
        return self._catalog.quote(spec, more)

    def reach(self, cluster: Cluster, found: tuple[Resource, ...], allow_ip: tuple[str, ...] = ()) -> Reach:
        port, owners = cluster.machines.ssh_port, {owner_tag(cluster.owner or self._owner), ""}
        mine = (each for each in found if each.cluster_id == cluster.id and each.owner in owners)
        group = next((each for each in mine if each.kind == GROUP), None)
        reach, closed = will_open(port, allow_ip), not allow_ip
        if group:
            difference = SecurityGroup(self._api, group.ref).compared(port, allow_ip)
            reach, closed = difference.reach(group.ref), difference.closed
        try:
            if closed:
                recent_events(self._api)
        except InputError as error:
            return replace(reach, refused=error.message, next_step=error.next_step or "")
        return reach

    def survey(self, kinds: tuple[str, ...] = KINDS) -> tuple[Resource, ...]:
        """Return what exists, in the order of creation, read in every zone by labels and names alone."""
        since_s = self._api.now_s

        def read(kind: str, zone: str) -> tuple[Resource | None, ...]:
            try:
                rows = self._api.rows(f"list-{kind}s", zone=zone or None, since_s=since_s)
                types = {each.id: each.name for each in self._catalog.kinds(None)} if zone and rows else {}
            except ApiError as error:
                where = f"zone {zone}" if zone else f"the {kind}s of the account"
                message = f"{where} cannot be read: {error.message}"
                raise ApiError(message, next_step=error.next_step) from error
            if zone:
                return tuple(Instance.parse(row, zone, types).ours for row in rows)
            return tuple(shared_resource(kind, row["name"], str(row.get("id", row["name"]))) for row in rows)

        lists = [
            (kind, zone) for kind in kinds for zone in (self._api.zones() if kind == INSTANCE else ("",))
        ]
        found = chain.from_iterable(workers.results(lambda each: read(*each), lists, AT_ONCE))
        return tuple(sorted(filter(None, found), key=in_order))

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        self._instances.set_expiry(tuple(each for each in resources if each.is_machine), expires_s)

    # ---- Provider

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Send no request: the quote says what opens to whom."""
        ssh_rules(spec.machines.ssh_port, spec.allow_ip)
        return ()

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        machines = replace(spec.machines, **self._catalog.wanted(spec.machines)._asdict())
        owner = cluster.owner or spec.owner or self._owner
        key = Intent(cluster.id, cluster.name, KEY, NAMES[KEY], owner, machines, allow_ip=spec.allow_ip)
        indexes = range(1, nodes + 1)
        spread = {
            index: f"{NAMES[SPREAD]}-{(index - 1) // _PER_SPREAD + 1}"
            for index in (indexes if machines.anti_affinity else ())
        }
        machine = replace(key, kind=INSTANCE, expires_s=cluster.limit_s)
        return (
            key,
            replace(key, kind=GROUP, name=NAMES[GROUP]),
            *(replace(key, kind=SPREAD, name=name) for name in dict.fromkeys(spread.values())),
            *(replace(machine, name=node_name(at), spread=spread.get(at, "")) for at in indexes),
        )

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        key = (intent.cluster_id, intent.kind, intent.name)
        if known := ref or self._made.get(key, ""):
            unsettled_s = None
        if intent.kind == KEY:
            made = self._network.key(intent, public_key(cluster_key(self._home, intent.cluster_id)))
        elif intent.kind in {GROUP, SPREAD}:
            made, new = self._network.group(intent, known)
            if intent.kind == GROUP:
                group, fresh = SecurityGroup(self._api, made), new and unsettled_s is None
                if fresh and not intent.allow_ip:
                    self._refuse_unknown_address(group, intent, made)
                self._walls[intent.cluster_id] = functools.partial(group.ensure, intent, fresh=fresh)
        elif known and self._instances.revive(known):
            made = known
        else:
            made = self._instances.create(
                intent,
                group=self._needed(intent, GROUP, NAMES[GROUP]),
                key=self._needed(intent, KEY, NAMES[KEY]),
                spread=self._needed(intent, SPREAD, intent.spread) if intent.spread else None,
                unsettled_s=unsettled_s,
            )
        self._made[key] = made
        return Resource(*key, made, owner=owner_tag(intent.owner))

    def _refuse_unknown_address(self, group: SecurityGroup, intent: Intent, made: str) -> None:
        """Raise InputError, with the new group deleted, if its event is there and names no usable address."""
        try:
            group.reported_address(shared_name(intent))
        except InputError:  # means that nothing was made
            self._api.delete("delete-security-group", shared_name(intent), id=made)
            raise

    def _needed(self, intent: Intent, kind: str, name: str) -> str:
        """Return what was made before the machine that needs it: by this process or, by its name, earlier."""
        made = self._made.get((intent.cluster_id, kind, name))
        made = made or self._network.find(replace(intent, kind=kind, name=name))
        if made is None:
            raise PartlyUp(f"{intent.name} needs {kind} {name}, which does not exist", node=intent.name)
        return made

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        machines, wall = tuple(r for r in resources if r.kind == INSTANCE), self._walls.pop(cluster.id, None)
        broken = threading.Event()

        def close_wall() -> None:
            try:
                if wall:
                    wall()
            except BaseException:
                broken.set()
                raise

        errors: dict[str, RainDeployError] = {}

        def boot() -> None:
            errors.update(self._instances.settle(machines, broken))

        workers.results(lambda work: work(), (boot, close_wall), 2)
        return {
            name: self._catalog.no_room(error, cluster.machines) if isinstance(error, QuotaError) else error
            for name, error in errors.items()
        }

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        machines = (each for each in resources if each.kind == INSTANCE)
        wanted = sorted(machines, key=lambda each: each.index)
        name = ""
        for _ in self._api.patience.rounds(self._api.patience.settle_s, "the machines' addresses"):
            existing = self._instances.existing([each.ref for each in wanted], self._api.now_s)
            for each in (each for each in wanted if each.ref not in existing):
                raise gone(each)
            name = next((each.name for each in wanted if not existing[each.ref].resource.address), "")
            if not name:
                return tuple(self._host(cluster, each, existing[each.ref]) for each in wanted)
        late = f"{name} has no address at Exoscale after {self._api.patience.settle_s:.0f} s"
        raise PartlyUp(late, node=name, next_step=f"rain-deploy status -c {cluster.name}")

    def _host(self, cluster: Cluster, resource: Resource, found: Instance) -> Host:
        recorded = (node.host.user for node in cluster.nodes if node.name == resource.name)
        host_key = self._instances.host_key(resource.cluster_id, resource.name)
        return Host(
            name=resource.name,
            address=found.resource.address,
            port=cluster.machines.ssh_port,
            # Its template may be gone by now.
            user=next(recorded, "") or self._catalog.login(found.template_id, found.resource.zone),
            host_keys=(public_key(host_key),) if host_key.exists() else (),
            label=found.name,
            identity_files=(cluster_key(self._home, resource.cluster_id),),
            cluster_address=found.resource.address,
            machine=found.resource.ref.rpartition("/")[2],
        )

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """Return hosts with the machine's name as address: Exoscale gives the address when it makes it."""
        hosts = []
        for intent in (each for each in intents if each.kind == INSTANCE):
            name, port = instance_name(intent), intent.machines.ssh_port
            user = self._catalog.login_if_known(self._catalog.wanted(intent.machines))
            hosts.append(Host(intent.name, name, port, user, host_keys=(), label=name, cluster_address=name))
        return tuple(hosts)

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Return everything with the owner's tag in labels or name, in the order of creation."""
        tag = owner_tag(owner or self._owner)
        return tuple(found for found in self.survey() if found.owner == tag)

    def ended(self, cluster: Cluster, name: str) -> bool:
        del cluster, name
        return False

    def start(self, ref: Resource) -> None:
        if ref.kind == INSTANCE:
            self._instances.start(ref)

    def delete(self, ref: Resource) -> None:
        """Delete it; without an id, everything that has its label or name, once lists are settled."""
        owner = ref.owner or owner_tag(self._owner)

        def find() -> tuple[str, ...] | None:
            wanted = ref.cluster_id, ref.name, owner
            found = self.survey((ref.kind,))
            same = (each for each in found if (each.cluster_id, each.name, each.owner) == wanted)
            return tuple(each.ref for each in same) or None

        patience = self._api.patience
        # A request of a command that was killed may be obeyed later, whatever its kind.
        left_s = patience.settle_s - max(0.0, time.time() - ref.recorded_s)
        for target in (ref.ref,) if ref.ref else patience.search(find, left_s, ref.label) or ():
            if ref.kind == INSTANCE:
                self._instances.delete(target, ref.label)
            else:
                argument = "name" if ref.kind == KEY else "id"
                self._api.delete(f"delete-{ref.kind}", ref.label, **{argument: target})
        self._made.pop((ref.cluster_id, ref.kind, ref.name), None)
