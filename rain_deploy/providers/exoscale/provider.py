"""Machines at Exoscale: one security group, one SSH key, N instances that are made at the same time.

Every intent is carried out once: after a lost answer, its label or name is searched for.  Labels and names
alone say what exists, so nothing here needs a state file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, Intent, Resource, node_name
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.core.text import owner_tag
from rain_deploy.errors import PartlyUp, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.catalog import DEFAULT_USER, Catalog
from rain_deploy.providers.exoscale.cloud import ExoscaleCloud
from rain_deploy.providers.exoscale.instances import Instances, gone
from rain_deploy.providers.exoscale.labels import (
    GROUP,
    INSTANCE,
    KEY,
    PER_SPREAD,
    SPREAD,
    Instance,
    instance_name,
    spread_name,
)
from rain_deploy.providers.exoscale.network import Network, ssh_rules
from rain_deploy.providers.exoscale.once import delete, search
from rain_deploy.providers.keys import cluster_key, public_key

_DELETE = {KEY: ("delete-ssh-key", "name"), GROUP: ("delete-security-group", "id")}
_DELETE |= {SPREAD: ("delete-anti-affinity-group", "id")}


class ExoscaleProvider:
    """Implements ``providers.base.Provider`` with files in ``home``.

    ``user_data`` renders what a machine does at its first boot.  ``owner``: who gives the commands.
    """

    traits = Traits(owned=True, installs_packages=True, needs_wall=False, shared_machine=False)

    def __init__(self, home: Path, api: Api, user_data: Callable[..., bytes], *, owner: str) -> None:
        self._home = home.absolute()
        self._api = api
        self._owner = owner
        self._catalog = Catalog(api)
        self._network = Network(api)
        self._instances = Instances(self._home, api, self._catalog, user_data)
        self.cloud = ExoscaleCloud(api, self._catalog, self._instances, owner=owner)
        self._made: dict[tuple[str, str, str], str] = {}
        """By cluster id, kind and name: references that this process knows to exist."""

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Send no request: the quote says what opens to whom."""
        ssh_rules(spec.machines.ssh_port, spec.allow_ip)
        return ()

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        machines = replace(spec.machines, **asdict(self._catalog.wanted(spec.machines)))
        owner = cluster.owner or spec.owner or self._owner
        spreads = -(-nodes // PER_SPREAD) if machines.anti_affinity else 0

        def shared(kind: str, name: str) -> Intent:
            return Intent(cluster.id, cluster.name, kind, name, owner, machines, allow_ip=spec.allow_ip)

        def instance(index: int) -> Intent:
            spread = spread_name((index - 1) // PER_SPREAD + 1) if spreads else ""
            return replace(shared(INSTANCE, node_name(index)), spread=spread, expires_s=cluster.limit_s)

        return (
            shared(KEY, "ssh"),
            shared(GROUP, "group"),
            *(shared(SPREAD, spread_name(number)) for number in range(1, spreads + 1)),
            *map(instance, range(1, nodes + 1)),
        )

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        key = (intent.cluster_id, intent.kind, intent.name)
        known = ref or self._made.get(key, "")
        made = self._create(intent, known, None if known else unsettled_s)
        self._made[key] = made
        return Resource(*key, made, owner=owner_tag(intent.owner))

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        errors = self._instances.settle(_machines(resources))
        return {
            name: self._catalog.no_room(error, cluster.machines) if isinstance(error, QuotaError) else error
            for name, error in errors.items()
        }

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        wanted = sorted(_machines(resources), key=lambda each: each.index)
        without_address: list[str] = []
        for _ in self._api.patience.rounds(self._api.patience.settle_s):
            existing = self._instances.existing([each.ref for each in wanted], self._api.now_s)
            for each in wanted:
                if each.ref not in existing:
                    raise gone(each)
            without_address = [each.name for each in wanted if not existing[each.ref].address]
            if not without_address:
                return tuple(self._host(cluster, each, existing[each.ref]) for each in wanted)
        name = without_address[0]
        late = f"{name} has no address at Exoscale after {self._api.patience.settle_s:.0f} s"
        raise PartlyUp(late, node=name, next_step=f"rain-deploy status -c {cluster.name}")

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """Return hosts with the machine's name as address: Exoscale gives the address when it makes it."""
        hosts = []
        for intent in (each for each in intents if each.kind == INSTANCE):
            machine = self._catalog.wanted(intent.machines)
            name, port = instance_name(intent), intent.machines.ssh_port
            user = self._catalog.user_if_known(machine.template, machine.zone) or DEFAULT_USER
            hosts.append(Host(intent.name, name, port, user, host_keys=(), label=name, cluster_address=name))
        return tuple(hosts)

    def list(self, owner: str) -> tuple[Resource, ...]:
        """Return everything with the owner's tag in labels or name, in the order of creation."""
        tag = owner_tag(owner or self._owner)
        return tuple(found for found in self.cloud.survey() if found.owner == tag)

    def start(self, ref: Resource) -> None:
        if ref.kind == INSTANCE:
            self._instances.start(ref)

    def delete(self, ref: Resource) -> None:
        """Delete it; without an id, everything that has its label or name, once lists are settled."""
        for target in (ref.ref,) if ref.ref else self._unrecorded(ref):
            if ref.kind == INSTANCE:
                self._instances.delete(target, ref.label)
            else:
                operation, argument = _DELETE[ref.kind]
                delete(self._api, operation, ref.label, **{argument: target})
        self._made.pop((ref.cluster_id, ref.kind, ref.name), None)

    def _create(self, intent: Intent, ref: str, unsettled_s: float | None) -> str:
        if intent.kind == KEY:
            return self._network.key(intent, public_key(cluster_key(self._home, intent.cluster_id)))
        if intent.kind == GROUP:
            return self._network.group(intent, ref, unsettled=unsettled_s is not None)
        if intent.kind == SPREAD:
            return self._network.spread(intent, ref)
        if ref and self._instances.revive(ref):
            return ref
        return self._instances.create(
            intent,
            group=self._needed(intent, GROUP, "group"),
            key=self._needed(intent, KEY, "ssh"),
            spread=self._needed(intent, SPREAD, intent.spread) if intent.spread else None,
            unsettled_s=unsettled_s,
        )

    def _needed(self, intent: Intent, kind: str, name: str) -> str:
        """Return what was made before the machine that needs it: by this process or, by its name, earlier."""
        made = self._made.get((intent.cluster_id, kind, name))
        made = made or self._network.find(replace(intent, kind=kind, name=name), fresh=True)
        if made is None:
            raise PartlyUp(f"{intent.name} needs {kind} {name}, which does not exist", node=intent.name)
        return made

    def _host(self, cluster: Cluster, resource: Resource, found: Instance) -> Host:
        recorded = (node.host.user for node in cluster.nodes if node.name == resource.name)
        user = next(recorded, None)  # its template may be gone by now
        return Host(
            name=resource.name,
            address=found.address,
            port=cluster.machines.ssh_port,
            user=user or self._catalog.template_by_id(found.template_id, found.zone).default_user,
            host_keys=self._instances.host_keys(resource.cluster_id, resource.name),
            label=found.name,
            identity_files=(cluster_key(self._home, resource.cluster_id),),
            cluster_address=found.address,
            machine=found.id,
        )

    def _unrecorded(self, ref: Resource) -> tuple[str, ...]:
        """Return the ids of what may have come of an intent without outcome, once lists are settled."""
        left_s = self._api.patience.settle_s - max(0.0, time.time() - ref.recorded_s)
        owner = ref.owner or owner_tag(self._owner)

        def find() -> tuple[str, ...] | None:
            found = self.cloud.survey((ref.kind,))
            same = (each for each in found if (each.cluster_id, each.name) == (ref.cluster_id, ref.name))
            return tuple(each.ref for each in same if each.owner == owner) or None

        return search(self._api.patience, find, left_s) or ()


def _machines(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    return tuple(resource for resource in resources if resource.kind == INSTANCE)
