"""Machines at Exoscale: one security group, one SSH key, N instances that are made at the same time.

Every intent is made once: a lost answer is followed by a search for its label or name.  What exists is told
by labels and names alone (exoscale_names), so nothing here needs a state file.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rain_deploy.core.bill import Quote
from rain_deploy.core.cluster import Cluster, Traits
from rain_deploy.core.machine import Host, InstanceType, Intent, Resource, Zone, node_name
from rain_deploy.core.owner import owner_tag
from rain_deploy.core.spec import ClusterSpec
from rain_deploy.errors import PartlyUp, QuotaError, RainDeployError
from rain_deploy.providers.exoscale.api import Api
from rain_deploy.providers.exoscale.catalog import DEFAULT_USER, Catalog
from rain_deploy.providers.exoscale.deleting import delete
from rain_deploy.providers.exoscale.group import networks, opening, standing
from rain_deploy.providers.exoscale.instances import Instances, Row, gone
from rain_deploy.providers.exoscale.listing import Listings, rounds, search
from rain_deploy.providers.exoscale.names import (
    GROUP,
    INSTANCE,
    KEY,
    PER_SPREAD,
    SPREAD,
    instance_name,
    spread_name,
)
from rain_deploy.providers.exoscale.offer import quote
from rain_deploy.providers.exoscale.prices import prices
from rain_deploy.providers.exoscale.shared import Shared
from rain_deploy.providers.exoscale.survey import Survey
from rain_deploy.providers.keys import cluster_key, public_key

_DELETE = {KEY: ("delete-ssh-key", "name"), GROUP: ("delete-security-group", "id")}
_DELETE |= {SPREAD: ("delete-anti-affinity-group", "id")}


class ExoscaleProvider:
    """Implements ``providers.base.Provider`` and ``providers.base.Cloud`` with files in ``home``.

    ``user_data`` renders what a machine does at its first boot.  ``owner``: whose commands these are.
    """

    traits = Traits(owned=True, installs_packages=True, needs_wall=False, shared_machine=False)

    def __init__(self, home: Path, api: Api, user_data: Callable[..., bytes], *, owner: str) -> None:
        self._home = home.absolute()
        self._api = api
        self._owner = owner
        self._listings = Listings(api)
        self._catalog = Catalog(api, self._listings)
        self._survey = Survey(self._listings, self._catalog)
        self._shared = Shared(api, self._listings)
        self._instances = Instances(self._home, api, self._listings, self._catalog, user_data)
        self._mine = {owner_tag(owner)}
        """Owners in whose name this process acts: what is found by its name alone must be of one of them."""
        self._made: dict[tuple[str, str, str], str] = {}
        """By cluster id, kind and name: references that this process knows to have been made."""

    @property
    def cloud(self) -> ExoscaleProvider:
        return self

    @property
    def account(self) -> str:
        return self._api.account.key

    def preflight(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Asks nobody: what opens to whom is part of the quote."""
        networks(spec.allow_ip)
        return ()

    def intents(self, spec: ClusterSpec, cluster: Cluster, nodes: int) -> tuple[Intent, ...]:
        owner = cluster.owner or spec.owner or self._owner
        self._mine.add(owner_tag(owner))
        machine = self._catalog.wanted(spec.machines)
        machines = dataclasses.replace(spec.machines, **dataclasses.asdict(machine))
        spreads = -(-nodes // PER_SPREAD) if machines.anti_affinity else 0

        def intent(kind: str, name: str) -> Intent:
            return Intent(cluster.id, cluster.name, kind, name, owner, machines, allow_ip=spec.allow_ip)

        def instance(index: int) -> Intent:
            spread = spread_name((index - 1) // PER_SPREAD + 1) if spreads else ""
            made = intent(INSTANCE, node_name(index))
            return dataclasses.replace(made, spread=spread, expires_s=cluster.limit_s)

        return (
            intent(KEY, "ssh"),
            intent(GROUP, "group"),
            *(intent(SPREAD, spread_name(number)) for number in range(1, spreads + 1)),
            *map(instance, range(1, nodes + 1)),
        )

    def create(self, intent: Intent, ref: str = "", *, unsettled_s: float | None = None) -> Resource:
        key = (intent.cluster_id, intent.kind, intent.name)
        known = ref or self._made.get(key, "")
        made = self._create(intent, known, None if known else unsettled_s)
        self._made[key] = made
        return Resource(intent.cluster_id, intent.kind, intent.name, made)

    def settle(self, cluster: Cluster, resources: tuple[Resource, ...]) -> Mapping[str, RainDeployError]:
        errors = self._instances.settle(_instances(resources))
        for error in errors.values():
            if isinstance(error, QuotaError):
                machine = self._catalog.wanted(cluster.machines)
                other = self._catalog.elsewhere(machine.instance_type, machine.zone)
                error.next_step = other or error.next_step
        return errors

    def hosts(self, cluster: Cluster, resources: tuple[Resource, ...]) -> tuple[Host, ...]:
        wanted = sorted(_instances(resources), key=lambda ref: ref.index)
        refs = [ref.ref for ref in wanted]
        rows: dict[str, Row] = {}
        for _ in rounds(self._api, self._api.patience.settle_s):
            rows = self._instances.rows(refs, self._api.patience.clock())
            for ref in wanted:
                if ref.ref not in rows:
                    raise gone(ref)
            if all(rows.get(ref, {}).get("public-ip") for ref in refs):
                return tuple(self._host(cluster, ref, rows[ref.ref]) for ref in wanted)
        bare = next(ref for ref in wanted if not rows.get(ref.ref, {}).get("public-ip"))
        raise PartlyUp(
            f"{bare.name} has no address at Exoscale after {self._api.patience.settle_s:.0f} s",
            node=bare.name,
            next_step=f"rain-deploy status -c {cluster.name}",
        )

    def preview(self, intents: tuple[Intent, ...]) -> tuple[Host, ...]:
        """By the name of the machine: addresses are given when they are made."""
        return tuple(map(self._unmade, (intent for intent in intents if intent.kind == INSTANCE)))

    def list(self, owner: str) -> tuple[Resource, ...]:
        """By the owner's tag in labels and names, in the order of making."""
        tag = owner_tag(owner or self._owner)
        self._mine.add(tag)
        return tuple(found for found in self.survey() if found.owner == tag)

    def start(self, ref: Resource) -> None:
        if ref.kind == INSTANCE:
            self._instances.start(ref)

    def delete(self, ref: Resource) -> None:
        """Without an id: whatever has the label or name, once lists show all that was begun."""
        for target in (ref.ref,) if ref.ref else self._search(ref):
            self._delete(ref, target)
        self._made.pop((ref.cluster_id, ref.kind, ref.name), None)

    def zones(self) -> tuple[Zone, ...]:
        return tuple(map(Zone, sorted(self._catalog.zones(), key=lambda name: name != self._api.zone)))

    def types(self, zone: str | None, spec: ClusterSpec) -> tuple[InstanceType, ...]:
        where = zone or self._api.zone
        self._catalog.check_zone(where)
        return self._catalog.priced(where, prices(spec))

    def quote(self, spec: ClusterSpec, cluster: Cluster, more: int) -> Quote:
        machine = self._catalog.wanted(spec.machines)
        self._catalog.check_zone(machine.zone)
        owned = dataclasses.replace(cluster, owner=cluster.owner or spec.owner or self._owner)
        found = self.survey()
        opens = self._opens(spec, cluster, found)
        return quote(self._catalog, machine, spec, owned, found=found, opens=opens, more=more)

    def survey(self) -> tuple[Resource, ...]:
        return self._survey.all(self._api.patience.clock())

    def set_expiry(self, resources: tuple[Resource, ...], expires_s: float | None) -> None:
        self._instances.set_expiry(_instances(resources), expires_s)

    def _opens(self, spec: ClusterSpec, cluster: Cluster, found: tuple[Resource, ...]) -> tuple[str, ...]:
        mine = (each for each in found if each.cluster_id == cluster.id)
        group = next((resource.ref for resource in mine if resource.kind == GROUP), None)
        if group is None or spec.allow_ip:
            return opening(spec.machines.ssh_port, spec.allow_ip)
        return standing(self._api, group, spec.machines.ssh_port)

    def _create(self, intent: Intent, ref: str, unsettled_s: float | None) -> str:
        if intent.kind == KEY:
            public = public_key(cluster_key(self._home, intent.cluster_id))
            return self._shared.key(intent, public)
        if intent.kind == GROUP:
            return self._shared.group(intent, ref, unsettled=unsettled_s is not None)
        if intent.kind == SPREAD:
            return self._shared.spread(intent, ref)
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
        """What was made before the machine that needs it, in this process or, by its name, before."""
        made = self._made.get((intent.cluster_id, kind, name))
        if made is None:
            wanted = dataclasses.replace(intent, kind=kind, name=name)
            made = self._shared.find(wanted, fresh=True)
        if made is None:
            raise PartlyUp(f"{intent.name} needs {kind} {name}, which does not exist", node=intent.name)
        return made

    def _unmade(self, intent: Intent) -> Host:
        machine = self._catalog.wanted(intent.machines)
        name = instance_name(intent)
        return Host(
            name=intent.name,
            address=name,
            port=intent.machines.ssh_port,
            user=self._catalog.user_if_known(machine.template, machine.zone) or DEFAULT_USER,
            host_keys=(),
            label=name,
            cluster_address=name,
        )

    def _host(self, cluster: Cluster, ref: Resource, row: Row) -> Host:
        zone, _, instance = ref.ref.partition("/")
        return Host(
            name=ref.name,
            address=row["public-ip"],
            port=cluster.machines.ssh_port,
            user=self._user(cluster, ref, row["template"]["id"], zone),
            host_keys=self._instances.host_keys(ref.cluster_id, ref.name),
            label=row["name"],
            identity_files=(cluster_key(self._home, ref.cluster_id),),
            cluster_address=row["public-ip"],
            machine=instance,
        )

    def _user(self, cluster: Cluster, ref: Resource, template_id: str, zone: str) -> str:
        """As recorded; a template may be gone while its machines live."""
        for node in cluster.nodes:
            if node.name == ref.name:
                return node.host.user
        return self._catalog.template_by_id(template_id, zone).default_user

    def _search(self, ref: Resource) -> tuple[str, ...]:
        """What may have come of an intent without outcome, until lists are settled."""
        left_s = self._api.patience.settle_s - max(0.0, time.time() - ref.recorded_s)
        mine = {ref.owner} if ref.owner else self._mine

        def find() -> tuple[str, ...] | None:
            found = self._survey.of(ref, self._api.patience.clock())
            return tuple(each.ref for each in found if each.owner in mine) or None

        return search(self._api, find, left_s) or ()

    def _delete(self, ref: Resource, target: str) -> None:
        what = f"{ref.kind} {ref.name}"
        if ref.kind == INSTANCE:
            self._instances.delete(target, what)
        else:
            operation, argument = _DELETE[ref.kind]
            delete(self._api, operation, what, **{argument: target})


def _instances(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    return tuple(ref for ref in resources if ref.kind == INSTANCE)
